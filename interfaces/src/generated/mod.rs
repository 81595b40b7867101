//! Types generated from `interfaces/varlink/*.varlink`, one file an interface, and from
//! `interfaces/proto/journal.proto`. Their documentation is the comments there. Must never be edited by hand.

#![allow(
    missing_docs,
    reason = "the files that they are made from document every type and field"
)]

// As their generators write them: tests/freshness.rs compares every byte.
#[rustfmt::skip]
pub(crate) mod detector;
#[rustfmt::skip]
pub(crate) mod journal;
#[rustfmt::skip]
pub(crate) mod loader;
#[rustfmt::skip]
pub(crate) mod orchestrator;
