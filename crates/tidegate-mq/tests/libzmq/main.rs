//! libzmq's own tests, told again for these sockets (chapter 17 of the specification, MQ-510).
//!
//! Every test names the libzmq test it answers to: `libzmq: FILE/CASE.`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    reason = "helpers of tests fail by panicking"
)]
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../hostile/child.rs"]
mod child;
mod codec;
mod context;
mod curve_client;
mod endpoints;
mod fork;
mod fuzzers;
mod heartbeat;
mod inproc;
mod link;
mod manual;
mod metadata;
mod patterns;
mod proxy;
mod publish;
mod raw;
mod request;
mod router;
mod security;
mod settings;
mod stream;
mod support;
mod watch;
mod watermark;
