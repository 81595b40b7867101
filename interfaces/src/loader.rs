//! The contract of the loader, `org.rdmahotplug.Loader`. Must never hold anything that is not
//! in its interface file.

use crate::Interface;
pub use crate::generated::loader::*;

/// The interface as it is served.
pub const INTERFACE: Interface = Interface {
    name: "org.rdmahotplug.Loader",
    text: include_str!("../varlink/org.rdmahotplug.Loader.varlink"),
};

/// Loads modules by name or alias.
pub const LOAD: &str = "org.rdmahotplug.Loader.Load";
