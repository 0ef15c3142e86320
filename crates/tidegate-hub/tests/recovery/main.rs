//! Looking into blocks and repairing them, with real processes that are really killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod damage;
mod diagnosis;
mod evidence;
mod metrics;
mod procedures;
mod repairs;
mod world;
