//! The varlink server of all three services: accepts connections, reads calls, replies to invalid
//! calls with an error, and passes the others to a [`Service`].
//!
//! Each connection has its own task, so that a slow call or a stalled reader affects only itself.
//! The resources that peers hold are counted ([`Limits`]), and requests of the service manager have
//! priority over anything that peers do. Every ill-formed call receives a reply; only an ill-formed
//! message, or a limit, ends its connection, after a reply that gives the reason. Must never
//! interpret a method.

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
use crate::lifecycle::{self, Signal, Signals};
pub use call::Call;
pub use error::CallError;
pub use feed::{Feed, Snapshot};
pub use limits::RateLimit;
use limits::{Accounts, Hold, Limit};
pub use limits::{LimitError, LimitState, Limits};
use message::{Gone, Malformed, MessageReader};
use origin::Origins;
pub use peer::{Authorisation, Peer};

/// The time for which accepting pauses if the process is out of file descriptors. Connections wait
/// in the socket's backlog for that time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time that calls in progress have when the service stops. The loader gives loads in flight
/// 3 s, and then replies.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(3500);

/// The implementation behind a socket.
pub trait Service: Send + Sync + 'static {
    /// The program's name, for `GetInfo`.
    const PRODUCT: &'static str;
    /// The interface that is served, in addition to `org.varlink.service` and `io.systemd.service`.
    const INTERFACE: Interface;

    /// Handles one call of a method of [`Self::INTERFACE`].
    ///
    /// Runs until it returns or the peer disconnects, whichever happens first: it must tolerate
    /// being dropped at any `.await`.
    fn call(&self, call: &mut Call<'_>) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Reads the configuration again and returns the status for `systemctl status`; nothing if
    /// there is no configuration.
    fn reload(&self) -> Option<String> {
        None
    }

    /// Returns true if work is in progress that an idle exit would interrupt.
    fn is_busy(&self) -> bool {
        false
    }
}

/// The peers that are served, and their limits.
#[derive(Debug, Default)]
pub struct Admission {
    /// The limits on the resources that peers hold.
    pub limits: Limits,
    /// The users that have reserved capacity, in addition to root and the service's own user.
    pub peers: Vec<u32>,
    /// A sock-diag netlink socket from outside of the service's user namespace. It distinguishes
    /// the users that the namespace does not map.
    pub sock_diag: Option<OwnedFd>,
}

/// Serves `endpoint` until the process receives a stop signal, no peer has been connected for
/// `idle`, or, with a connected socket, the peer disconnects. Calls in progress at the end receive
/// their replies if that takes no longer than [`STOP_TIMEOUT`]; subscriptions are ended.
///
/// # Errors
/// Fails if the socket cannot be used at all.
pub async fn serve<S: Service>(
    endpoint: Endpoint,
    service: Arc<S>,
    signals: &mut Signals,
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
                () = server.until_stop(signals) => Ok(()),
            }
        }
        Endpoint::Listening(listener) => {
            listener.set_nonblocking(true)?;
            let mut connections = JoinSet::new();
            let listener = UnixListener::from_std(listener)?;
            tokio::select! {
                // Requests of the service manager have priority over anything that a peer does:
                // tokio limits what this task does before it must yield, and a flood uses up that
                // budget.
                biased;
                () = server.until_stop(signals) => {}
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

/// The state that the connections of one service share.
struct Server<S> {
    service: Arc<S>,
    /// The service's own user and its configured peers.
    privileged: Vec<u32>,
    origins: Option<Origins>,
    accounts: Arc<Accounts>,
    refusals: Arc<RateLimit>,
    /// Held by the one peer without reserved capacity whose call is being handled.
    turn: Semaphore,
    stopping: watch::Sender<bool>,
}

impl<S: Service> Server<S> {
    /// Creates a server in a process that may open `files` files.
    fn new(service: Arc<S>, files: usize, admission: Admission) -> Self {
        let Admission {
            mut limits,
            peers: mut privileged,
            sock_diag,
        } = admission;
        privileged.push(rustix::process::geteuid().as_raw());
        // A quarter stays free for the files that a call may have to open, as in sd-varlink. The
        // reserved capacity is subtracted first.
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

    /// Completes when the process must stop. Reloads on request.
    async fn until_stop(&self, signals: &mut Signals) {
        loop {
            match signals.next().await {
                Signal::Stop => return,
                Signal::Reload => drop(lifecycle::reload(|| self.service.reload())),
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
                // This is first: otherwise a flood of connections would keep the ended ones in
                // memory.
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        exhausted = false;
                        // A connection is counted before it has a task.
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

    /// Identifies the peer and counts the connection; refuses it if there are too many.
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
                tracing::warn!("cannot identify a client: {e}");
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

    /// Handles the calls of the one connection that this process was started for.
    async fn serve_one(&self, stream: UnixStream) {
        if let Some((context, _counted)) = self.admit(&stream) {
            self.calls(stream, context).await;
        }
    }

    /// Handles the calls of one connection, one after the other, until it ends.
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
            // The turn ends after the first poll: a call that waits does not delay the other peers.
            let first = poll_fn(|cx| Poll::Ready(answered.as_mut().poll(cx))).await;
            // Other tasks run now: a long pipeline must not delay them.
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

    /// Waits until a peer may continue. Peers with reserved capacity continue at once. The other
    /// peers continue one at a time, so that the privileged peers can run between two of them.
    async fn turn(&self, peer: Peer) -> Option<SemaphorePermit<'_>> {
        match peer.privileged {
            true => None,
            false => self.turn.acquire().await.ok(),
        }
    }

    /// Handles one message; returns true if the connection continues.
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
            // Most calls complete at once, without a check that the peer is still connected.
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
