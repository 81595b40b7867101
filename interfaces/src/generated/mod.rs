//! Types generated from `interfaces/varlink/*.varlink`, one file an interface, and from
//! `interfaces/proto/journal.proto`. Their documentation is the comments there. Must never be edited by hand.

#![allow(
    missing_docs,
    reason = "the files that they are made from document every type and field"
)]

pub(crate) mod detector;
#[rustfmt::skip]
pub(crate) mod journal;
pub(crate) mod loader;
pub(crate) mod orchestrator;
