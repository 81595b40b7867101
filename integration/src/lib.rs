//! The lab: a simulated host with RDMA hardware, with the three real services as real processes on
//! real varlink sockets.
//!
//! Every stand-in of the project is here and nowhere else. The services are linked into the lab's
//! program and run from it, in one process each, so that `cargo run` has them available. They run
//! their own `main`, with different roots, descriptors and, for the loader, a different kernel.
//! Must never be installed.
//!
//! In reading order:
//! - [`scenario`]: the scenario, and its required end.
//! - [`lab`]: a host, its services, and their observed state.
//! - [`layout`]: the paths of the host, and the arguments of the services.
//! - [`host`]: the hardware: a sysfs tree and the devices that are plugged in.
//! - [`kernel`]: uevents, `NETLINK_RDMA` replies, `finit_module`.
//! - [`wire`]: the wire format of `NETLINK_RDMA` replies.
//! - [`service_manager`]: sockets, processes, readiness.
//! - [`report`]: the printed report of a run.
//! - [`environment`]: the numbers with which a run can be repeated.

pub mod environment;
pub mod host;
pub mod kernel;
pub mod lab;
pub mod layout;
pub mod report;
pub mod scenario;
pub mod service_manager;
pub mod wire;
