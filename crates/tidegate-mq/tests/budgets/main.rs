//! What messages and connections may cost: allocations, memory, wake-ups, system calls.
//!
//! Every test runs in a process of its own for each driver, since the counts are of whole processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../hostile/child.rs"]
mod child;
#[path = "../hostile/peer.rs"]
mod peer;
#[path = "../hostile/rig.rs"]
mod rig;

mod allocations;
mod batches;
mod idle;
mod system_calls;
