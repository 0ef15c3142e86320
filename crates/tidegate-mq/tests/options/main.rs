//! What options do (chapter 8): each is set on a socket, and its effect is looked for where it must show. Their defaults,
//! ranges and numbers are in `api_options.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../reports/log.rs"]
mod log;
#[path = "../hostile/peer.rs"]
mod peer;
#[path = "../hostile/rig.rs"]
mod rig;

mod choices;
mod durations;
mod engine;
mod limits;
mod live;
mod patterns;
mod security;
mod stream;

use std::net::{Ipv4Addr, TcpListener};

use tidegate_mq::{Message, Options, Part};

/// An endpoint that nobody is bound to, on a loopback address of this process, so that nobody else comes to be.
fn free_endpoint() -> String {
    let [_, first, second, third] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, first | 64, second, third);
    format!("tcp://{}", TcpListener::bind((own, 0)).unwrap().local_addr().unwrap())
}

/// The value of an option that libzmq writes as an integer.
fn int(value: i32) -> [u8; 4] {
    value.to_ne_bytes()
}

/// A message of these parts.
fn parts<const N: usize>(parts: [&[u8]; N]) -> Message {
    parts.into_iter().map(Part::copy_from).collect()
}

/// Options as set by libzmq's numbers.
fn numbered(settings: &[(i32, i32)]) -> Options {
    rig::options_with(|options| {
        for (number, value) in settings {
            options.set_raw(*number, &int(*value)).unwrap();
        }
    })
}
