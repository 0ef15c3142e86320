//! `tidegate hub`: what it prints about a block, how it ends, and what it changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

mod block;
mod exits;
mod export;
#[path = "../cli_node/fields.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod fields;
mod golden;
