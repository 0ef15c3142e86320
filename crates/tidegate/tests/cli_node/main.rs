//! Commands beside a real node: lists, inspection, listening, leases by hand, streams, diagnosis, measurements.
#![allow(clippy::expect_used, reason = "a test may fail")]

mod bench;
mod doctor;
mod fields;
mod inspect;
mod leases;
mod listen;
mod lists;
mod streams;
#[path = "../support/mod.rs"]
mod support;
