//! What the three services of rdma-hotplug share: their varlink contracts, and the one way in
//! which all of them speak varlink, adopt sockets and log.
//!
//! Responsible for the wire and for nothing behind it. Must never depend on a service, decide
//! what a device needs, or touch a device or a module.
//!
//! In reading order:
//! - [`detector`], [`loader`], [`orchestrator`]: the contracts, their types generated from
//!   `interfaces/varlink/*.varlink`.
//! - [`names`]: names that crossed a boundary, validated once.
//! - [`server`], [`client`]: varlink over `AF_UNIX` stream sockets.
//! - [`activation`]: the sockets that the service manager hands over.
//! - [`clock`]: the time between the services.
//! - [`dropin`]: configuration directories, as systemd merges them.
//! - [`journal`]: the orchestrator's journal as bytes.
//! - [`log`]: where log records go.
//! - [`netlink`]: numbers in netlink messages.
//! - [`sandbox`]: what a service takes from itself.
//! - [`user`]: user names and their numbers.
//! - [`lifecycle`]: the service manager, and what it wants.

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
