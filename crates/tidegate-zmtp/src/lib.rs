//! ZMTP 3.1 as pure state machines: bytes and time in, bytes and events out.
//!
//! - [`session`]: one connection from greeting to end. It takes received bytes, gives [`Event`](session::Event)s and
//!   fills write batches; it does no I/O, reads no clock and draws no randomness of its own.
//! - [`greeting`], [`frame`], [`command`], [`metadata`], [`socket_type`]: the formats.
//! - [`mechanism`]: NULL, PLAIN and CURVE.
//! - [`auth`]: questions to an authenticator, and its verdicts.
//! - [`close`]: why a connection ends; one reason for each rule that a peer can break.

#![forbid(unsafe_code)]

pub mod auth;
pub mod close;
pub mod command;
pub mod config;
pub mod frame;
pub mod greeting;
pub mod mechanism;
pub mod metadata;
pub mod random;
pub mod session;
pub mod socket_type;
pub mod z85;
pub mod zap;

pub use self::{session::PeerInfo, socket_type::SocketType};
