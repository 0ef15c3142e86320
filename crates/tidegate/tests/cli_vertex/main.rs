//! `tidegate vertex`: real vertices with real workers, which are this binary again.
#![cfg(feature = "vertex")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[cfg(feature = "hub")]
mod ends;
#[cfg(feature = "nats")]
mod group;
mod operate;
mod run;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;
mod world;
