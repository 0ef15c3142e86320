//! The broker and its clients over real sockets, in one process and in several (25.7).

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may end that way")]

mod attacks;
mod clients;
mod keys;
mod moving;
mod notifications;
mod persistence;
mod processes;
mod support;
