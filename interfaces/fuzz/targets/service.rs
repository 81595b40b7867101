//! The service under the fuzz targets: bytes are sent over a connected socket, and the replies are
//! returned. Every reply must be a varlink message for any input, and the connection must end.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use interfaces::activation::Endpoint;
use interfaces::lifecycle::Signals;
use interfaces::server::{Admission, Call, CallError, Service, serve};
use interfaces::{Interface, detector, loader, orchestrator};
use serde_json::{Map, Value};

/// The longest input. A socket does not hold more, and nothing reads it while it is written.
const MAX_LEN: usize = 100_000;

/// A service that decodes the arguments of every kind of call and replies if it could.
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

/// Serves one connection that sends only `bytes`, and returns the replies.
///
/// # Panics
/// Panics if a reply is not a varlink message, or if the connection does not end.
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
            let mut signals = Signals::catch().unwrap();
            let endpoint = Endpoint::Connected(server);
            let served = serve(endpoint, Arc::new(Decoder), &mut signals, None, Admission::default());
            let in_time = tokio::time::timeout(Duration::from_secs(10), served).await;
            in_time.expect("the connection did not end").unwrap();
        });
    let mut answered = Vec::new();
    match client.read_to_end(&mut answered) {
        // The service closed the connection before it read all input, after a message that ends the
        // connection. The kernel delivers the replies first and then returns this error (unix(7)).
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
