//! The code that the three services of rdma-hotplug share: their varlink contracts, and the one
//! implementation with which they speak varlink, adopt sockets and log.
//!
//! Responsible for the wire and for nothing else. Must never depend on a service, decide what
//! a device needs, or touch a device or a module.
//!
//! In reading order:
//! - [`detector`], [`loader`], [`orchestrator`]: the contracts, their types generated from
//!   `interfaces/varlink/*.varlink`.
//! - [`names`]: names that cross a boundary, validated once.
//! - [`server`], [`client`]: varlink over `AF_UNIX` stream sockets.
//! - [`activation`]: the sockets that the service manager passes.
//! - [`clock`]: the time that the services exchange.
//! - [`dropin`]: configuration directories, as systemd merges them.
//! - [`journal`]: the orchestrator's journal as bytes.
//! - [`log`]: the destination of log records.
//! - [`netlink`]: numbers in netlink messages.
//! - [`sandbox`]: the restrictions that a service puts on itself.
//! - [`user`]: user names and their numbers.
//! - [`lifecycle`]: notifications to the service manager, and its signals.

pub mod activation;
pub mod client;
pub mod clock;
pub mod detector;
pub mod drivers;
pub mod dropin;
mod generated;
pub mod journal;
pub mod lifecycle;
pub mod loader;
pub mod log;
pub mod names;
pub mod netlink;
pub mod orchestrator;
pub mod sandbox;
pub mod server;
pub mod user;

/// One varlink interface: its name and the text that clients read.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// The reverse-DNS name.
    pub name: &'static str,
    /// The interface definition, word for word as in `interfaces/varlink`.
    pub text: &'static str,
}
