//! Tests against the real media driver.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod invoker;
mod lifecycle;
mod messaging;
mod support;
