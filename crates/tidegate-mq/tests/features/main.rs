//! What sockets of a context share and what is told of connections: the ceiling of queued bytes, limits of accepting,
//! monitors, and the account of what was lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../hostile/child.rs"]
mod child;
#[path = "../hostile/peer.rs"]
mod peer;
#[path = "../hostile/rig.rs"]
mod rig;

mod accepting;
mod batches;
mod ceiling;
mod embedded;
mod events;
mod lost;
mod opening;
mod pausing;
mod storm;
