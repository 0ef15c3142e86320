//! Producers and consumers, in one process and in several that are killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod children;
mod configuration;
mod crashes;
mod digests;
mod exchange;
mod forks;
mod guards;
mod handles;
mod kept;
mod lives;
mod points;
mod processes;
mod records;
mod stress;
mod world;
