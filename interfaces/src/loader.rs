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
/// Says what a load would do.
pub const EXPLAIN: &str = "org.rdmahotplug.Loader.Explain";
/// Lists the modules that the policy names.
pub const LIST: &str = "org.rdmahotplug.Loader.List";
/// The policy names no module.
pub const NO_MODULES: &str = "org.rdmahotplug.Loader.NoModules";
/// The index files of the kernel's modules cannot be used.
pub const NO_INDEXES: &str = "org.rdmahotplug.Loader.NoIndexes";
