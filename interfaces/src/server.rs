//! The varlink server of all three services: accepts connections, reads calls, answers what
//! is wrong with them, and hands the rest to a [`Service`].
//!
//! One task a connection, so that a slow call or a reader that has stalled costs only itself.
//! Every ill-formed call is answered; only an ill-formed message ends its connection, after an
//! answer that says what was wrong with it. Must never know what a method means.

mod call;
mod feed;
mod message;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::Interface;
use crate::activation::Endpoint;
pub use call::{Call, CallError, Peer};
pub use feed::{Feed, Snapshot};
use message::MessageReader;

/// How long accepting pauses when the process is out of file descriptors. Connections wait in
/// the socket's backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const VARLINK_SERVICE: Interface = Interface {
    name: "org.varlink.service",
    text: include_str!("../varlink/org.varlink.service.varlink"),
};

/// What stands behind a socket.
pub trait Service: Send + Sync + 'static {
    /// The program's name, for `GetInfo`.
    const PRODUCT: &'static str;
    /// The interface that is served, beside `org.varlink.service`.
    const INTERFACE: Interface;

    /// Answers one call of a method of [`Self::INTERFACE`].
    ///
    /// Runs until it returns or the peer is gone, whichever comes first: it must bear being
    /// dropped at any `.await`.
    fn call(&self, call: &mut Call<'_>) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// Serves `endpoint` until `stop` completes or, for a connected socket, until the peer is gone.
/// Connections that are still open when `stop` completes are closed.
///
/// # Errors
/// When the socket cannot be used at all.
pub async fn serve<S: Service>(
    endpoint: Endpoint,
    service: Arc<S>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    match endpoint {
        Endpoint::Connected(stream) => {
            stream.set_nonblocking(true)?;
            let stream = UnixStream::from_std(stream)?;
            tokio::select! {
                () = connection(stream, service) => Ok(()),
                () = stop => Ok(()),
            }
        }
        Endpoint::Listening(listener) => {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            let mut connections = JoinSet::new();
            tokio::pin!(stop);
            loop {
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            connections.spawn(connection(stream, Arc::clone(&service)));
                        }
                        Err(e) => {
                            tracing::warn!("cannot accept a connection: {e}");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    // Reaping keeps the set as small as the number of open connections.
                    Some(_) = connections.join_next() => {}
                }
            }
        }
    }
}

/// Answers the calls of one connection, one after the other, until it ends.
async fn connection<S: Service>(stream: UnixStream, service: Arc<S>) {
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
    let (read, mut write) = stream.into_split();
    let mut messages = MessageReader::new(read);
    loop {
        let request = match messages.next().await {
            Ok(Some(message)) => message::parse(&message),
            Ok(None) => return,
            Err(e) => Err(e),
        };
        let request = match request {
            Ok(request) => request,
            Err(malformed) => {
                tracing::info!(peer.uid, peer.pid, "closing a connection: {malformed}");
                let _ = call::answer(&mut write, &malformed.answer()).await;
                return;
            }
        };
        let mut call = Call::new(request, peer, &mut write);
        let outcome = tokio::select! {
            outcome = dispatch(&*service, &mut call) => outcome,
            () = messages.peer_gone() => return,
        };
        if call.finish(outcome).await.is_err() {
            return;
        }
    }
}

async fn dispatch<S: Service>(service: &S, call: &mut Call<'_>) -> Result<(), CallError> {
    match call.method() {
        "org.varlink.service.GetInfo" => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Arguments {}
            let Arguments {} = call.arguments()?;
            #[derive(Serialize)]
            struct Info {
                vendor: &'static str,
                product: &'static str,
                version: &'static str,
                url: &'static str,
                interfaces: [&'static str; 2],
            }
            let info = Info {
                vendor: "rdma-hotplug",
                product: S::PRODUCT,
                version: env!("CARGO_PKG_VERSION"),
                url: env!("CARGO_PKG_REPOSITORY"),
                interfaces: [VARLINK_SERVICE.name, S::INTERFACE.name],
            };
            call.reply(&info).await
        }
        "org.varlink.service.GetInterfaceDescription" => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Arguments {
                interface: String,
            }
            let Arguments { interface } = call.arguments()?;
            let Some(found) = [VARLINK_SERVICE, S::INTERFACE]
                .into_iter()
                .find(|i| i.name == interface)
            else {
                return Err(CallError::interface_not_found(&interface));
            };
            call.reply(&serde_json::json!({ "description": found.text }))
                .await
        }
        method if interface_of(method) == S::INTERFACE.name => service.call(call).await,
        method => Err(CallError::method_not_found(method)),
    }
}

/// The part of a method's full name before the last dot.
fn interface_of(method: &str) -> &str {
    method
        .rsplit_once('.')
        .map_or("", |(interface, _)| interface)
}
