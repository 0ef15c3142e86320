//! The ends of a vertex in NATS, against a real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod cluster;
mod gaps;
mod ids;
mod kv;
mod late;
mod leases;
mod own;
mod proofs;
mod queue;
mod server;
mod strict;
mod takeover;
mod vertex;
mod world;
mod zombies;
