//! Sessions without security or with PLAIN, driven by octets and by time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod greeting;
mod handshake;
mod heartbeat;
mod splits;
mod support;
mod table;
mod traffic;
