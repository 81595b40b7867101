//! The varlink server of all three services: accepts connections, reads calls, answers what
//! is wrong with them, and hands the rest to a [`Service`].
//!
//! One task a connection, so that a slow call or a reader that has stalled costs only itself. What
//! peers hold is counted ([`Limits`]), and what the service manager wants comes before whatever they
//! do. Every ill-formed call is answered; only an ill-formed message, or a limit, ends its
//! connection, after an answer that says why. Must never know what a method means.

mod call;
mod error;
mod feed;
mod generic;
mod limits;
mod message;
mod origin;
mod peer;

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;

use crate::Interface;
use crate::activation::Endpoint;
use crate::lifecycle::{self, Wish, Wishes};
pub use call::Call;
pub use error::CallError;
pub use feed::{Feed, Snapshot};
pub use limits::Pace;
use limits::{Accounts, Hold, Limit};
pub use limits::{LimitError, LimitState, Limits};
use message::{Gone, Malformed, MessageReader};
use origin::Origins;
pub use peer::{Authorisation, Peer};

/// How long accepting pauses when the process is out of file descriptors. Connections wait in
/// the socket's backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long calls under way may take when the service stops. The loader gives loads in flight 3 s, and
/// then an answer.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(3500);

/// What stands behind a socket.
pub trait Service: Send + Sync + 'static {
    /// The program's name, for `GetInfo`.
    const PRODUCT: &'static str;
    /// The interface that is served, beside `org.varlink.service` and `io.systemd.service`.
    const INTERFACE: Interface;

    /// Answers one call of a method of [`Self::INTERFACE`].
    ///
    /// Runs until it returns or the peer is gone, whichever comes first: it must bear being
    /// dropped at any `.await`.
    fn call(&self, call: &mut Call<'_>) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Reads the configuration again and says what `systemctl status` should show; nothing
    /// where there is no configuration.
    fn reload(&self) -> Option<String> {
        None
    }

    /// Whether something is under way that an idle exit would break off.
    fn is_busy(&self) -> bool {
        false
    }
}

/// Who is served, and how much of it.
#[derive(Debug, Default)]
pub struct Admission {
    /// How much the service takes from its peers.
    pub limits: Limits,
    /// The users that have a place of their own, beside root and the service's own user.
    pub peers: Vec<u32>,
    /// A netlink socket of the family sock-diag from outside of the service's user namespace, by which
    /// the users that the namespace does not map are told apart.
    pub sock_diag: Option<OwnedFd>,
}

/// Serves `endpoint` until the process is told to stop, no peer has been connected for `idle`,
/// or, for a connected socket, the peer is gone. Calls that are under way at the end are
/// answered if that takes no longer than [`STOP_TIMEOUT`]; subscriptions are ended.
///
/// # Errors
/// When the socket cannot be used at all.
pub async fn serve<S: Service>(
    endpoint: Endpoint,
    service: Arc<S>,
    wishes: &mut Wishes,
    idle: Option<Duration>,
    admission: Admission,
) -> io::Result<()> {
    let files = lifecycle::raise_file_limit();
    let server = Arc::new(Server::new(service, files, admission));
    match endpoint {
        Endpoint::Connected(stream) => {
            stream.set_nonblocking(true)?;
            let stream = UnixStream::from_std(stream)?;
            tokio::select! {
                () = server.serve_one(stream) => Ok(()),
                () = server.until_stop(wishes) => Ok(()),
            }
        }
        Endpoint::Listening(listener) => {
            listener.set_nonblocking(true)?;
            let mut connections = JoinSet::new();
            let listener = UnixListener::from_std(listener)?;
            tokio::select! {
                // What the service manager wants comes before anything that a peer does: this task
                // may go on only so often before it yields, and a flood uses all of that up.
                biased;
                () = server.until_stop(wishes) => {}
                () = lifecycle::feed_watchdog() => {}
                () = server.accept(&listener, &mut connections, idle) => {}
            }
            // A connection that is made from here on waits in the socket, for the next start.
            lifecycle::stopping();
            drop(listener);
            server.stopping.send_replace(true);
            let ended = async { while connections.join_next().await.is_some() {} };
            if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
                tracing::warn!("stopping with {} connections open", connections.len());
                connections.abort_all();
            }
            Ok(())
        }
    }
}

/// What the connections of one service share.
struct Server<S> {
    service: Arc<S>,
    /// The service's own user and its configured peers.
    privileged: Vec<u32>,
    origins: Option<Origins>,
    accounts: Arc<Accounts>,
    refusals: Arc<Pace>,
    /// Held by the one peer without a place of its own whose call is being answered.
    turn: Semaphore,
    stopping: watch::Sender<bool>,
}

impl<S: Service> Server<S> {
    /// A server in a process that may open `files` files.
    fn new(service: Arc<S>, files: usize, admission: Admission) -> Self {
        let Admission {
            mut limits,
            peers: mut privileged,
            sock_diag,
        } = admission;
        privileged.push(rustix::process::geteuid().as_raw());
        // A quarter stays for what a call may have to open, as in sd-varlink. The places of those
        // who have their own count first.
        let files = files as u64 / 4 * 3;
        let own = limits.get(Limit::ConnectionsPrivileged).min(files / 2);
        limits.set(Limit::ConnectionsPrivileged, own);
        let all = limits.get(Limit::Connections).min(files - own);
        limits.set(Limit::Connections, all);
        Self {
            service,
            privileged,
            origins: sock_diag.map(Origins::new),
            accounts: Accounts::new(limits),
            refusals: Arc::default(),
            turn: Semaphore::new(1),
            stopping: watch::Sender::new(false),
        }
    }

    /// Completes when the process is to stop. Reloads when it is to reload.
    async fn until_stop(&self, wishes: &mut Wishes) {
        loop {
            match wishes.next().await {
                Wish::Stop => return,
                Wish::Reload => drop(lifecycle::reload(|| self.service.reload())),
            }
        }
    }

    /// Accepts for ever, or until no peer has been connected for `idle`.
    async fn accept(
        self: &Arc<Self>,
        listener: &UnixListener,
        connections: &mut JoinSet<()>,
        idle: Option<Duration>,
    ) {
        let mut exhausted = false;
        loop {
            tokio::select! {
                biased;
                // First, or a flood of connections would keep what has ended of them in memory.
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        exhausted = false;
                        // What a connection takes is counted before it has a task.
                        if let Some((context, connection)) = self.admit(&stream) {
                            let server = Arc::clone(self);
                            connections.spawn(async move {
                                let _counted = connection;
                                server.calls(stream, context).await;
                            });
                        }
                    }
                    Err(e) => {
                        if !exhausted {
                            tracing::warn!("cannot accept connections: {e}");
                        }
                        exhausted = true;
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = idle_for(idle), if connections.is_empty() => if !self.service.is_busy() {
                    return;
                },
            }
        }
    }

    /// Sees who has connected and counts the connection; refuses it when there are too many.
    fn admit(&self, stream: &UnixStream) -> Option<(call::Context, Hold)> {
        let peer = match stream.peer_cred() {
            Ok(credentials) => {
                let shown = credentials.uid();
                let origins = self.origins.as_ref();
                Peer {
                    uid: origins.map_or(shown, |origins| origins.uid(stream, shown)),
                    pid: credentials.pid(),
                    privileged: shown == 0 || self.privileged.contains(&shown),
                }
            }
            Err(e) => {
                tracing::warn!("cannot tell who connected: {e}");
                return None;
            }
        };
        let context = call::Context {
            peer,
            stopping: self.stopping.subscribe(),
            accounts: Arc::clone(&self.accounts),
            refusals: Arc::clone(&self.refusals),
            interface: S::INTERFACE,
        };
        match self.accounts.connection(peer) {
            Ok(connection) => Some((context, connection)),
            Err(full) => {
                call::answer_and_close(stream, &context.full(full));
                None
            }
        }
    }

    /// Answers the calls of the one connection that this process was started for.
    async fn serve_one(&self, stream: UnixStream) {
        if let Some((context, _counted)) = self.admit(&stream) {
            self.calls(stream, context).await;
        }
    }

    /// Answers the calls of one connection, one after the other, until it ends.
    async fn calls(&self, stream: UnixStream, context: call::Context) {
        let peer = context.peer;
        let (read, mut write) = stream.into_split();
        let mut messages = MessageReader::new(read, self.accounts.bytes(peer));
        let mut receiver = self.stopping.subscribe();
        let stopping = receiver.wait_for(|stopping| *stopping);
        tokio::pin!(stopping);
        loop {
            let message = tokio::select! {
                biased;
                _ = &mut stopping => return,
                message = messages.next() => message,
            };
            let turn = self.turn(peer).await;
            let answered = self.answer(message, &context, &mut messages, &mut write);
            tokio::pin!(answered);
            // The turn is over with the first step: a call that waits keeps no other waiting.
            let first = poll_fn(|cx| Poll::Ready(answered.as_mut().poll(cx))).await;
            // The others' turn: a long pipeline must not keep them waiting.
            tokio::task::yield_now().await;
            drop(turn);
            let goes_on = match first {
                Poll::Ready(goes_on) => goes_on,
                Poll::Pending => answered.await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Waits until a peer may go on. Those with a place of their own may at once; of the others
    /// one at a time, so that between two of them there is time for the former.
    async fn turn(&self, peer: Peer) -> Option<SemaphorePermit<'_>> {
        match peer.privileged {
            true => None,
            false => self.turn.acquire().await.ok(),
        }
    }

    /// Answers one message; says whether the connection goes on.
    async fn answer(
        &self,
        message: Result<Option<Vec<u8>>, Malformed>,
        context: &call::Context,
        messages: &mut MessageReader,
        write: &mut OwnedWriteHalf,
    ) -> bool {
        let request = match message {
            Ok(Some(message)) => message::parse(&message),
            Ok(None) => return false,
            Err(e) => Err(e),
        };
        let mut unread = self.accounts.bytes(context.peer);
        let request = match request {
            Ok(request) => request,
            Err(malformed) => {
                let Peer { uid, pid, .. } = context.peer;
                tracing::debug!(
                    peer.uid = uid,
                    peer.pid = pid,
                    "closing a connection: {malformed}"
                );
                let error = match malformed {
                    Malformed::Full(full) => context.full(full),
                    malformed => malformed.answer(S::INTERFACE),
                };
                let _ = call::answer(write, &error, &mut unread).await;
                return false;
            }
        };
        let mut call = match Call::new(request, context, write) {
            Ok(call) => call,
            Err(full) => {
                let _ = call::answer(write, &full, &mut unread).await;
                return false;
            }
        };
        let outcome = tokio::select! {
            // Most calls are answered at once, and need no look at the peer.
            biased;
            outcome = self.dispatch(&mut call) => outcome,
            gone = messages.gone() => match gone {
                Gone::Peer => return false,
                Gone::Overfull(full) => {
                    drop(call);
                    let _ = call::answer(write, &context.full(full), &mut unread).await;
                    return false;
                }
            },
        };
        call.finish(outcome).await.is_ok()
    }

    async fn dispatch(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let interface = call.method().rsplit_once('.').map_or("", |(name, _)| name);
        if interface == generic::VARLINK_SERVICE.name {
            generic::varlink_service::<S>(call).await
        } else if interface == generic::SYSTEMD_SERVICE.name {
            generic::systemd_service(call, &*self.service).await
        } else if interface == S::INTERFACE.name {
            self.service.call(call).await
        } else {
            Err(CallError::method_not_found(call.method()))
        }
    }
}

/// Completes after `idle`, or never.
async fn idle_for(idle: Option<Duration>) {
    match idle {
        Some(idle) => tokio::time::sleep(idle).await,
        None => std::future::pending().await,
    }
}
