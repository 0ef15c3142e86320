//! Deterministic tests over plain memory: one thread, an injected clock, parties that end at named steps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod codec;
mod consumers;
mod counters;
mod crash;
mod errors;
mod policies;
mod registry;
mod semantics;
mod spinlock;
mod stall;
mod takeover;
mod versus_model;
pub(super) mod world;
