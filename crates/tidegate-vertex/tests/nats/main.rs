//! The ends of a vertex in NATS, against a real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod ids;
mod leases;
mod own;
mod server;
mod strict;
mod takeover;
mod vertex;
mod zombies;
