//! The lab: a host that stands in for a machine with RDMA hardware, with the three real services
//! as real processes on real varlink sockets.
//!
//! Every stand-in of the project is here and nowhere else. The services are linked into the lab's
//! program and run from it, one process each, so that `cargo run` has them at hand; what they
//! run is their own `main`, with other roots, descriptors and, for the loader, another kernel.
//! Must never be installed.
//!
//! In reading order:
//! - [`scenario`]: what is played, and how it must end.
//! - [`lab`]: a host, its services, and what is seen of them.
//! - [`layout`]: where everything is on the host, and what services are started with.
//! - [`host`]: the hardware: a sysfs tree and what is plugged in.
//! - [`kernel`]: uevents, `NETLINK_RDMA` replies, `finit_module`.
//! - [`wire`]: how `NETLINK_RDMA` writes its replies.
//! - [`service_manager`]: sockets, processes, readiness, the path unit.
//! - [`journey`]: what is printed as it happens.
//! - [`environment`]: numbers that a run is had again by.

pub mod environment;
pub mod host;
pub mod journey;
pub mod kernel;
pub mod lab;
pub mod layout;
pub mod scenario;
pub mod service_manager;
pub mod wire;
