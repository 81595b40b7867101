//! What both targets do: bytes in over a connected socket, answers out. Every answer must be a
//! varlink message, whatever came in, and the connection must come to its end.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use interfaces::activation::Endpoint;
use interfaces::lifecycle::Wishes;
use interfaces::server::{Admission, Call, CallError, Service, serve};
use interfaces::{Interface, detector, loader, orchestrator};
use serde_json::{Map, Value};

/// More does not fit into a socket at once, and nobody reads meanwhile.
const MAX_LEN: usize = 100_000;

/// Decodes the arguments of every kind of call and says that it could.
struct Decoder;

impl Service for Decoder {
    const PRODUCT: &'static str = "fuzz";
    const INTERFACE: Interface = Interface {
        name: "f",
        text: "interface f.f\n",
    };

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            "f.Load" => drop(call.arguments::<loader::LoadArgs>()?),
            "f.List" => drop(call.arguments::<detector::ListArgs>()?),
            "f.Wait" => drop(call.arguments::<orchestrator::WaitArgs>()?),
            method => return Err(CallError::method_not_found(method)),
        }
        call.reply(&Map::new()).await
    }
}

/// Serves one connection that sends `bytes` and nothing more, and returns what it was answered.
///
/// # Panics
/// When an answer is no varlink message, or the connection does not end.
pub fn answers(bytes: &[u8]) -> Vec<Value> {
    let bytes = bytes.get(..MAX_LEN).unwrap_or(bytes);
    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let mut wishes = Wishes::catch().unwrap();
            let endpoint = Endpoint::Connected(server);
            let served = serve(endpoint, Arc::new(Decoder), &mut wishes, None, Admission::default());
            let in_time = tokio::time::timeout(Duration::from_secs(10), served).await;
            in_time.expect("the connection did not end").unwrap();
        });
    let mut answered = Vec::new();
    match client.read_to_end(&mut answered) {
        // The service has closed before it read everything, after a message that ends the
        // connection; the kernel gives what was answered first, and then says so (unix(7)).
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read.unwrap()),
    }
    assert!(
        answered.is_empty() || answered.ends_with(b"\0"),
        "an answer was cut"
    );
    answered
        .split(|&byte| byte == 0)
        .filter(|answer| !answer.is_empty())
        .map(|answer| serde_json::from_slice(answer).expect("an answer is not JSON"))
        .collect()
}
