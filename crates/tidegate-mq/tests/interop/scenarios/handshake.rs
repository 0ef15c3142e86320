//! A peer whose handshake arrives in one piece, as that of a fast libzmq does.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use tidegate_mq::{Push, SocketType};

use super::DRIVERS;
use crate::{
    cell::{Transport, place},
    ours::{self, options},
    peer::PATIENCE,
};

const READY: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PULL";

fn greeting() -> Vec<u8> {
    let mut greeting = vec![0; 64];
    (greeting[0], greeting[9], greeting[10], greeting[11]) = (0xFF, 0x7F, 3, 1);
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// A thread that sends as soon as there is a peer writes by itself, and still not before READY.
///
/// Rules: MQ-130.
#[test]
fn a_quick_sender_does_not_overtake_ready() {
    for driver in DRIVERS {
        let context = ours::context(driver);
        for _ in 0..200 {
            let push = Push::with_options(&context, options()).unwrap();
            let endpoint = push.bind_blocking(&place(Transport::Tcp).0).unwrap();
            let sender = thread::spawn(move || {
                // Never asleep, so that there is no quicker one.
                while push.try_send("work").is_err() {}
                push
            });
            let mut stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&[&greeting(), READY].concat()).unwrap();
            let ready =
                [b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04", SocketType::Push.name().as_bytes()];
            let expected = [&greeting(), ready.concat().as_slice(), b"\x00\x04work"].concat();
            let mut got = vec![0; expected.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, expected, "{}", got.escape_ascii());
            drop(sender.join().unwrap());
        }
        context.term_blocking();
    }
}
