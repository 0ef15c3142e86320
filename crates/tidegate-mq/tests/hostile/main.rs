//! What a hostile or broken peer can do to a socket, over real connections: that connection is closed for the reason the
//! specification names, and the peer beside it notices nothing (chapter 12).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod child;
mod flood;
mod handshake;
mod memory;
mod network;
mod patterns;
mod peer;
mod rig;
mod security;
mod shutdown;
