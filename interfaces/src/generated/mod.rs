//! Types generated from `interfaces/varlink/*.varlink`, one file an interface. Their
//! documentation is the comments there. Must never be edited by hand.

#![allow(
    missing_docs,
    reason = "the .varlink files document every type and field"
)]

pub(crate) mod detector;
pub(crate) mod loader;
pub(crate) mod orchestrator;
