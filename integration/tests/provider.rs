//! Devices of all kinds without hardware, and modules whose initialisation does not end: the
//! modules of vm/provider on a stock Debian kernel, with the services as installed. Four boots
//! serve all tests.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong, and a line what it measured"
)]

#[path = "provider/detector.rs"]
mod detector;
#[path = "provider/hung.rs"]
mod hung;
#[path = "provider/protocols.rs"]
mod protocols;
#[allow(dead_code, reason = "each rig's tests use a part")]
mod rig;
