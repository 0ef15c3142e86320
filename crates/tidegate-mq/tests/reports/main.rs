//! What a socket tells: events (chapter 9), errors (chapter 11), and the log, in which nothing of a peer stands as it
//! came.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../hostile/peer.rs"]
mod peer;
#[path = "../hostile/rig.rs"]
mod rig;

mod errors;
mod events;
mod log;
mod wishes;
mod words;
