//! The varlink server of all three services: accepts connections, reads calls, answers what
//! is wrong with them, and hands the rest to a [`Service`].
//!
//! One task a connection, so that a slow call or a reader that has stalled costs only itself.
//! Every ill-formed call is answered; only an ill-formed message ends its connection, after an
//! answer that says what was wrong with it. Must never know what a method means.

mod call;
mod error;
mod feed;
mod generic;
mod limits;
mod message;
mod peer;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Interface;
use crate::activation::Endpoint;
use crate::lifecycle::{self, Wish, Wishes};
pub use call::Call;
pub use error::CallError;
pub use feed::{Feed, Snapshot};
use limits::{Counter, Pace};
use message::MessageReader;
pub use peer::{Authorisation, Peer};

/// How long accepting pauses when the process is out of file descriptors. Connections wait in
/// the socket's backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Serves `endpoint` until the process is told to stop, nobody has been connected for `idle`,
/// or, for a connected socket, the peer is gone. Calls that are under way at the end are
/// answered, subscriptions are ended.
///
/// # Errors
/// When the socket cannot be used at all.
pub async fn serve<S: Service>(
    endpoint: Endpoint,
    service: Arc<S>,
    wishes: &mut Wishes,
    idle: Option<Duration>,
) -> io::Result<()> {
    let files = lifecycle::raise_file_limit();
    let server = Arc::new(Server::new(service, files));
    match endpoint {
        Endpoint::Connected(stream) => {
            stream.set_nonblocking(true)?;
            let stream = UnixStream::from_std(stream)?;
            tokio::select! {
                () = server.connection(stream) => Ok(()),
                () = server.until_stop(wishes) => Ok(()),
            }
        }
        Endpoint::Listening(listener) => {
            listener.set_nonblocking(true)?;
            let mut connections = JoinSet::new();
            let listener = UnixListener::from_std(listener)?;
            tokio::select! {
                // A connection that is there is taken before anything ends.
                biased;
                () = server.accept(&listener, &mut connections, idle) => {}
                () = server.until_stop(wishes) => {}
                () = lifecycle::feed_watchdog() => {}
            }
            // From here on who connects waits in the socket, for the next start.
            lifecycle::stopping();
            drop(listener);
            server.stopping.send_replace(true);
            while connections.join_next().await.is_some() {}
            Ok(())
        }
    }
}

/// What the connections of one service share.
struct Server<S> {
    service: Arc<S>,
    connections: Arc<Counter>,
    subscriptions: Arc<Counter>,
    refusals: Arc<Pace>,
    stopping: watch::Sender<bool>,
}

impl<S: Service> Server<S> {
    /// A server in a process that may open `files` files.
    fn new(service: Arc<S>, files: usize) -> Self {
        // A quarter stays for what a call may have to open, as in sd-varlink.
        let connections = limits::MAX_CONNECTIONS.min(files / 4 * 3);
        Self {
            service,
            connections: Counter::new(connections, limits::MAX_CONNECTIONS_PER_UID),
            subscriptions: Counter::new(connections, limits::MAX_SUBSCRIPTIONS_PER_UID),
            refusals: Arc::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Completes when the process is told to stop. Reloads when it is told to.
    async fn until_stop(&self, wishes: &mut Wishes) {
        loop {
            match wishes.next().await {
                Wish::Stop => return,
                Wish::Reload => drop(lifecycle::reload(|| self.service.reload())),
            }
        }
    }

    /// Accepts for ever, or until nobody has been connected for `idle`.
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
                        let server = Arc::clone(self);
                        connections.spawn(async move { server.connection(stream).await });
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

    /// Answers the calls of one connection, one after the other, until it ends.
    async fn connection(&self, stream: UnixStream) {
        let peer = match stream.peer_cred() {
            Ok(credentials) => Peer {
                uid: credentials.uid(),
                pid: credentials.pid(),
            },
            Err(e) => {
                tracing::warn!("cannot tell who connected: {e}");
                return;
            }
        };
        let _ticket = match self.connections.take(peer.uid) {
            Ok(ticket) => ticket,
            Err(full) => {
                tracing::debug!(peer.uid, peer.pid, "refused a connection: too many");
                let error = CallError::limit(S::INTERFACE, "TooManyConnections", "limit", full.0);
                call::answer_and_close(&stream, &error);
                return;
            }
        };
        self.calls(stream, peer).await;
    }

    async fn calls(&self, stream: UnixStream, peer: Peer) {
        let (read, mut write) = stream.into_split();
        let mut messages = MessageReader::new(read);
        let context = call::Context {
            peer,
            stopping: self.stopping.subscribe(),
            subscriptions: Arc::clone(&self.subscriptions),
            refusals: Arc::clone(&self.refusals),
            interface: S::INTERFACE,
        };
        let mut receiver = self.stopping.subscribe();
        let stopping = receiver.wait_for(|stopping| *stopping);
        tokio::pin!(stopping);
        loop {
            let request = tokio::select! {
                biased;
                message = messages.next() => match message {
                    Ok(Some(message)) => message::parse(&message),
                    Ok(None) => return,
                    Err(e) => Err(e),
                },
                _ = &mut stopping => return,
            };
            let request = match request {
                Ok(request) => request,
                Err(malformed) => {
                    tracing::debug!(peer.uid, peer.pid, "closing a connection: {malformed}");
                    let _ = call::answer(&mut write, &malformed.answer(S::INTERFACE)).await;
                    return;
                }
            };
            let mut call = Call::new(request, &context, &mut write);
            let outcome = tokio::select! {
                // Most calls are answered at once, and need no look at the peer.
                biased;
                outcome = self.dispatch(&mut call) => outcome,
                () = messages.peer_gone() => return,
            };
            if call.finish(outcome).await.is_err() {
                return;
            }
            // Everybody else's turn: a long pipeline must not keep the others waiting.
            tokio::task::yield_now().await;
        }
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
