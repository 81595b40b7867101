//! Worker threads for requests to the kernel that a device's driver or firmware may have to answer.
//! Usually one thread sends all requests. If it hangs in a request, another thread continues with
//! the rest. Responsible for the deadline of each request, and for a limit on hanging threads. Must
//! never wait for a hanging thread: the thread is left alone, and its late result is kept.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use interfaces::clock::now;

use super::request::{Answer, Request};
use crate::netlink::RdmaSocket;
use crate::reading::{Progress, Reading, Step};
use crate::sysfs::Sysfs;

/// The time, in µs, that one request may take before its device counts as not responding.
const DEADLINE: i64 = 1_000_000;
/// The time that one request may delay the others, before another thread continues with them.
/// Sixteen hanging devices delay the others by this time each, and by one deadline: less than 2 s
/// in total.
const STALL: Duration = Duration::from_millis(50);
/// The same time in µs.
const STALL_USEC: i64 = 50_000;
/// The maximum number of threads, including hanging ones. Each costs its stack and a buffer.
const MAX_THREADS: usize = 16;
/// The limit of busy threads for requests that no scan waits for.
const MAX_APART: usize = 8;
/// The time after which a thread without a request exits. Memory that its allocator keeps is freed
/// then.
const IDLE: Duration = Duration::from_millis(500);
/// The stack size of a thread: more than reading needs.
const STACK_LEN: usize = 512 * 1024;

/// The number of one request.
pub(super) type RequestId = u64;

/// The outcome of a request.
pub(super) enum Outcome {
    /// The kernel has replied.
    Answered(Answer),
    /// The reply is late. Holds the current step, the results so far, and the number of the request
    /// whose reply may arrive later.
    Silent(Step, Box<Reading>, RequestId),
    /// The request was not sent: too many threads hang.
    NotSent,
}

/// The pool of worker threads.
pub(super) struct Workers(Arc<Shared>);

/// A callback for a reply that arrives after its deadline.
type Wake = Box<dyn Fn() + Send + Sync>;

pub(super) struct Shared {
    state: Mutex<State>,
    /// Signalled when there is a request, or a socket for one.
    work: Condvar,
    /// Signalled when the last outcome has arrived.
    done: Condvar,
    pub(super) sysfs: Sysfs,
}

struct State {
    sockets: Sockets,
    queue: VecDeque<(Place, Request)>,
    running: Vec<Running>,
    outcomes: Vec<Option<Outcome>>,
    /// The number of outcomes that are still missing.
    open: usize,
    threads: usize,
    idle: usize,
    /// The number of the last request that was begun.
    last: RequestId,
    late: Vec<(RequestId, Answer)>,
    wake: Option<Wake>,
}

/// The destination of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A scan waits for the result, which has this position among the outcomes.
    Waited(usize),
    /// No scan waits for the result. Holds the number of the request, if it already has one.
    Apart(Option<RequestId>),
}

struct Running {
    id: RequestId,
    place: Place,
    since: i64,
    progress: Arc<Progress>,
}

/// The sockets that are not in use.
struct Sockets {
    /// True if a socket was passed. No other socket can be opened then.
    passed: bool,
    /// True during a scan, while sockets are kept open. An open socket keeps ib_core from being
    /// unloaded.
    looking: bool,
    free: Vec<RdmaSocket>,
}

impl Workers {
    pub(super) fn new(sysfs: Sysfs, passed: Option<RdmaSocket>) -> Self {
        let sockets = Sockets {
            passed: passed.is_some(),
            looking: false,
            free: passed.into_iter().collect(),
        };
        let state = State {
            sockets,
            queue: VecDeque::new(),
            running: Vec::new(),
            outcomes: Vec::new(),
            open: 0,
            threads: 0,
            idle: 0,
            last: 0,
            late: Vec::new(),
            wake: None,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
            sysfs,
        }))
    }

    /// Sets `wake`, which is called when a reply arrives late.
    pub(super) fn waking(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.0.lock().wake = Some(Box::new(wake));
    }

    /// Begins a scan.
    pub(super) fn begin(&self) {
        self.0.lock().sockets.looking = true;
    }

    /// Ends a scan, and closes the sockets.
    pub(super) fn rest(&self) {
        let sockets = &mut self.0.lock().sockets;
        sockets.looking = false;
        if sockets.passed {
            sockets.free.iter_mut().for_each(RdmaSocket::be_patient);
        } else {
            sockets.free = Vec::new();
        }
    }

    /// Takes the replies that arrived after their deadlines.
    pub(super) fn late(&self) -> Vec<(RequestId, Answer)> {
        std::mem::take(&mut self.0.lock().late)
    }

    /// Sends all requests, and waits for each reply until its deadline. The outcomes are in the
    /// order of the requests.
    ///
    /// # Errors
    /// Fails if no thread can be started.
    pub(super) fn send(&self, requests: Vec<Request>) -> io::Result<Vec<Outcome>> {
        let mut state = self.0.lock();
        state.open = requests.len();
        state.outcomes = requests.iter().map(|_| None).collect();
        let places = (0..).map(Place::Waited);
        state.queue.extend(places.zip(requests));
        if state.idle == 0
            && state.threads < MAX_THREADS
            && let Err(e) = self.hire(&mut state)
            && state.threads == 0
        {
            state.queue.clear();
            return Err(e);
        }
        self.0.work.notify_one();
        let mut moved = (state.last, now());
        while state.open > 0 {
            let waited = self.0.done.wait_timeout_while(state, STALL, |s| s.open > 0);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let time = now();
            state.give_up(time);
            if state.last != moved.0 {
                moved = (state.last, time);
            } else if !state.queue.is_empty() {
                self.go_on(&mut state, time - moved.1);
            }
        }
        let outcomes = std::mem::take(&mut state.outcomes);
        Ok(outcomes
            .into_iter()
            .map(|o| o.unwrap_or(Outcome::NotSent))
            .collect())
    }

    /// Continues after no request was begun for `stalled` µs. Wakes or starts another thread. If
    /// that is not possible and no running request is waited for, drops the remaining requests when
    /// all threads hang or the deadline has passed.
    fn go_on(&self, state: &mut State, stalled: i64) {
        let waited = state
            .running
            .iter()
            .any(|r| matches!(r.place, Place::Waited(_)));
        if state.sockets.there_is_one() {
            if state.idle > 0 {
                self.0.work.notify_one();
                return;
            }
            if state.threads < MAX_THREADS && self.hire(state).is_ok() {
                return;
            }
        }
        let all_hang = state.threads >= MAX_THREADS && state.sockets.there_is_one();
        if !waited && (all_hang || stalled >= DEADLINE) {
            state
                .queue
                .retain(|(place, _)| matches!(place, Place::Apart(_)));
            state.open = 0;
        }
    }

    /// Sends a request that no scan waits for; its reply arrives late. Returns `None` if too many
    /// threads are in use.
    pub(super) fn send_apart(&self, request: Request) -> Option<RequestId> {
        let mut state = self.0.lock();
        let in_use = state.threads - state.idle;
        if in_use + state.queue.len() >= MAX_APART {
            return None;
        }
        if state.idle <= state.queue.len() {
            self.hire(&mut state).ok()?;
        }
        state.last += 1;
        let id = state.last;
        state.queue.push_back((Place::Apart(Some(id)), request));
        self.0.work.notify_one();
        Some(id)
    }

    fn hire(&self, state: &mut State) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("asker".to_owned());
        thread.stack_size(STACK_LEN).spawn(move || shared.work())?;
        state.threads += 1;
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processes requests one after the other. Returns after a time without requests.
    fn work(&self) {
        let progress = Arc::new(Progress::default());
        while let Some((id, request, socket)) = self.next(&progress) {
            let answer = request.ask(self, socket, &progress);
            self.answered(id, answer);
        }
    }

    fn next(&self, progress: &Arc<Progress>) -> Option<(RequestId, Request, Option<RdmaSocket>)> {
        let mut state = self.lock();
        let nothing = |state: &mut State| !state.may_take();
        while nothing(&mut state) {
            state.idle += 1;
            let waited = self.work.wait_timeout_while(state, IDLE, nothing);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
        let (place, request) = state.queue.pop_front()?;
        progress.begin(request.first_step());
        let id = match place {
            Place::Apart(Some(id)) => id,
            _ => {
                state.last += 1;
                state.last
            }
        };
        state.running.push(Running {
            id,
            place,
            since: now(),
            progress: Arc::clone(progress),
        });
        let socket = state.sockets.free.pop();
        Some((id, request, socket))
    }

    fn answered(&self, id: RequestId, answer: Answer) {
        let mut state = self.lock();
        let Some(at) = state.running.iter().position(|r| r.id == id) else {
            return;
        };
        match state.running.swap_remove(at).place {
            Place::Waited(place) => {
                if state.settle(place, Outcome::Answered(answer)) {
                    self.done.notify_one();
                }
            }
            Place::Apart(_) => {
                state.late.push((id, answer));
                if let Some(wake) = &state.wake {
                    wake();
                }
            }
        }
    }

    /// Takes back a socket that is no longer used.
    pub(super) fn free(&self, socket: RdmaSocket) {
        let mut state = self.lock();
        if state.sockets.passed || state.sockets.looking {
            state.sockets.free.push(socket);
        }
        if state.idle > 0 && state.may_take() {
            self.work.notify_one();
        }
    }
}

impl State {
    /// Returns true if a thread may begin a request. It may not while another thread makes
    /// progress: two threads would only hinder each other.
    fn may_take(&self) -> bool {
        if self.queue.is_empty() || !self.sockets.there_is_one() {
            return false;
        }
        let time = now();
        let goes_on = |running: &Running| {
            matches!(running.place, Place::Waited(_)) && time - running.since < STALL_USEC
        };
        !self.running.iter().any(goes_on)
    }

    /// Stores an outcome. Returns true if it is the last one.
    fn settle(&mut self, place: usize, outcome: Outcome) -> bool {
        if let Some(open @ None) = self.outcomes.get_mut(place) {
            *open = Some(outcome);
            self.open = self.open.saturating_sub(1);
        }
        self.open == 0
    }

    /// Stops waiting for requests that have reached their deadline.
    fn give_up(&mut self, now: i64) {
        for at in 0..self.running.len() {
            let Some(running) = self.running.get_mut(at) else {
                return;
            };
            let Place::Waited(place) = running.place else {
                continue;
            };
            if now - running.since < DEADLINE {
                continue;
            }
            let id = running.id;
            running.place = Place::Apart(Some(id));
            let (step, reading) = running.progress.so_far();
            self.settle(place, Outcome::Silent(step, Box::new(reading), id));
        }
    }
}

impl Sockets {
    /// Returns true if a socket is free or can be opened.
    fn there_is_one(&self) -> bool {
        !self.passed || !self.free.is_empty()
    }
}
