//! Threads that ask the kernel what a device's driver or firmware may have to answer. One asks
//! everything, in the common case; where it hangs in one question, the next goes on with the
//! others. Responsible for each question's deadline and for a bound on threads that hang. Must
//! never wait for one that hangs: it is left alone, and what it is answered at last is kept.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use interfaces::clock::now;

use super::question::{Answer, Question};
use crate::netlink::RdmaSocket;
use crate::reading::{Progress, Reading, Step};
use crate::sysfs::Sysfs;

/// How long, in µs, one question may take before its device counts as not answering.
const DEADLINE: i64 = 1_000_000;
/// How long the others wait for one question before another thread asks for them. Sixteen devices
/// that hang delay the others by this each, and by one deadline: less than 2 s in all.
const STALL: Duration = Duration::from_millis(50);
/// The same in µs.
const STALL_USEC: i64 = 50_000;
/// At most this many threads, those that hang included. Each costs its stack and a buffer.
const MAX_THREADS: usize = 16;
/// Questions that nothing waits for are asked while there are less threads than this.
const MAX_APART: usize = 8;
/// A thread without a question ends after this time, and with it what its allocator keeps.
const IDLE: Duration = Duration::from_millis(500);
/// What reading takes, with room to spare.
const STACK_LEN: usize = 512 * 1024;

/// The number of one question.
pub(super) type Ticket = u64;

/// What became of a question.
pub(super) enum Outcome {
    /// It was answered.
    Answered(Answer),
    /// It is not answered yet. What was learned until then, and the number under which the answer
    /// may come later.
    Silent(Step, Box<Reading>, Ticket),
    /// It was not asked: too many threads hang.
    NotAsked,
}

/// The threads.
pub(super) struct Askers(Arc<Shared>);

/// Called when an answer has come that was not waited for any longer.
type Wake = Box<dyn Fn() + Send + Sync>;

pub(super) struct Shared {
    state: Mutex<State>,
    /// There is a question, or a socket for one.
    work: Condvar,
    /// The last outcome is there.
    done: Condvar,
    pub(super) sysfs: Sysfs,
}

struct State {
    sockets: Sockets,
    queue: VecDeque<(Place, Question)>,
    running: Vec<Running>,
    outcomes: Vec<Option<Outcome>>,
    /// So many outcomes are waited for.
    open: usize,
    threads: usize,
    idle: usize,
    /// The number of the last question that was begun.
    last: Ticket,
    late: Vec<(Ticket, Answer)>,
    wake: Option<Wake>,
}

/// Where an answer belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is waited for, and has this place among the outcomes.
    Waited(usize),
    /// It is not waited for. The question has this number already, where it was given one.
    Apart(Option<Ticket>),
}

struct Running {
    ticket: Ticket,
    place: Place,
    since: i64,
    progress: Arc<Progress>,
}

/// The sockets that are not in use.
struct Sockets {
    /// Whether there is the one that was passed, and no other can be opened.
    passed: bool,
    /// Whether there is a look, and so they are kept: one that is open keeps ib_core from being
    /// unloaded.
    looking: bool,
    free: Vec<RdmaSocket>,
}

impl Askers {
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

    /// Has `wake` called when an answer comes late.
    pub(super) fn waking(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.0.lock().wake = Some(Box::new(wake));
    }

    /// A look begins.
    pub(super) fn begin(&self) {
        self.0.lock().sockets.looking = true;
    }

    /// A look is over: closes the sockets.
    pub(super) fn rest(&self) {
        let sockets = &mut self.0.lock().sockets;
        sockets.looking = false;
        if sockets.passed {
            sockets.free.iter_mut().for_each(RdmaSocket::be_patient);
        } else {
            sockets.free = Vec::new();
        }
    }

    /// The answers that came when they were not waited for any longer.
    pub(super) fn late(&self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.0.lock().late)
    }

    /// Asks all questions, and waits for each answer until its deadline. The outcomes are in the
    /// order of the questions.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn ask(&self, questions: Vec<Question>) -> io::Result<Vec<Outcome>> {
        let mut state = self.0.lock();
        state.open = questions.len();
        state.outcomes = questions.iter().map(|_| None).collect();
        let places = (0..).map(Place::Waited);
        state.queue.extend(places.zip(questions));
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
            .map(|o| o.unwrap_or(Outcome::NotAsked))
            .collect())
    }

    /// Nothing was begun for `stalled` µs: another thread goes on, or nothing does.
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

    /// Asks a question that nothing waits for; its answer comes late. Nothing when too many threads
    /// are in use.
    pub(super) fn ask_apart(&self, question: Question) -> Option<Ticket> {
        let mut state = self.0.lock();
        let in_use = state.threads - state.idle;
        if in_use + state.queue.len() >= MAX_APART {
            return None;
        }
        if state.idle <= state.queue.len() {
            self.hire(&mut state).ok()?;
        }
        state.last += 1;
        let ticket = state.last;
        state
            .queue
            .push_back((Place::Apart(Some(ticket)), question));
        self.0.work.notify_one();
        Some(ticket)
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

    /// Asks one question after the other, until there has been none for some time.
    fn work(&self) {
        let progress = Arc::new(Progress::default());
        while let Some((ticket, question, socket)) = self.next(&progress) {
            let answer = question.ask(self, socket, &progress);
            self.answered(ticket, answer);
        }
    }

    fn next(&self, progress: &Arc<Progress>) -> Option<(Ticket, Question, Option<RdmaSocket>)> {
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
        let (place, question) = state.queue.pop_front()?;
        progress.begin(question.first_step());
        let ticket = match place {
            Place::Apart(Some(ticket)) => ticket,
            _ => {
                state.last += 1;
                state.last
            }
        };
        state.running.push(Running {
            ticket,
            place,
            since: now(),
            progress: Arc::clone(progress),
        });
        let socket = state.sockets.free.pop();
        Some((ticket, question, socket))
    }

    fn answered(&self, ticket: Ticket, answer: Answer) {
        let mut state = self.lock();
        let Some(at) = state.running.iter().position(|r| r.ticket == ticket) else {
            return;
        };
        match state.running.swap_remove(at).place {
            Place::Waited(place) => {
                if state.settle(place, Outcome::Answered(answer)) {
                    self.done.notify_one();
                }
            }
            Place::Apart(_) => {
                state.late.push((ticket, answer));
                if let Some(wake) = &state.wake {
                    wake();
                }
            }
        }
    }

    /// Takes back a socket that is not used any longer.
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
    /// Whether a thread may begin a question. While another one goes on with them it may not: two
    /// would only get in each other's way.
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

    /// Notes an outcome; says whether it is the last.
    fn settle(&mut self, place: usize, outcome: Outcome) -> bool {
        if let Some(open @ None) = self.outcomes.get_mut(place) {
            *open = Some(outcome);
            self.open = self.open.saturating_sub(1);
        }
        self.open == 0
    }

    /// No longer waits for what has taken too long.
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
            let ticket = running.ticket;
            running.place = Place::Apart(Some(ticket));
            let (step, reading) = running.progress.so_far();
            self.settle(place, Outcome::Silent(step, Box::new(reading), ticket));
        }
    }
}

impl Sockets {
    /// Whether there is one that is free, or can be opened.
    fn there_is_one(&self) -> bool {
        !self.passed || !self.free.is_empty()
    }
}
