//! Commands beside a real node: lists, inspection, listening, leases by hand, diagnosis.
#![allow(clippy::expect_used, reason = "a test may fail")]

mod doctor;
mod fields;
mod inspect;
mod leases;
mod listen;
mod lists;
#[path = "../support/mod.rs"]
mod support;
