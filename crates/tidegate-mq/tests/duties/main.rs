//! What a socket owes its users, whatever the peer does: who is admitted, that each direction goes on without the other,
//! and that messages stay whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod admission;
mod calls;
mod descriptors;
mod directions;
mod driver;
mod endings;
mod given_up;
mod heartbeats;
mod identities;
#[path = "../../../tidegate-io/tests/kept/mod.rs"]
mod kept;
mod many;
mod near;
#[path = "../hostile/peer.rs"]
mod peer;
mod profile;
mod publishing;
mod returns;
#[path = "../hostile/rig.rs"]
mod rig;
