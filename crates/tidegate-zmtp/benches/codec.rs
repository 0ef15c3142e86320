//! What a message costs between octets and events: `cargo bench -p tidegate-zmtp --bench codec`.
//!
//! Prints the best of several rounds in ns per message: receiving from pages of 64 KiB, and encoding into a batch.

#![allow(clippy::expect_used, reason = "a bench that cannot run should say so and end")]

use std::{hint::black_box, sync::Arc, time::Instant};

use bytes::BytesMut;
use tidegate_io::{batch::WriteBatch, buffer::Slab, message::Message};
use tidegate_zmtp::{
    auth::Verdict,
    config::{Security, SessionConfig},
    frame,
    mechanism::curve::{CurveClient, CurveServer, SecretKey},
    session::{Event, Session, State},
    socket_type::SocketType,
};

const SIZES: [&[usize]; 8] = [&[8], &[32], &[64], &[256], &[1024], &[8192], &[65_536], &[0, 32]];
const ROUNDS: usize = 100;

fn main() {
    println!("{:>16} {:>10} {:>10} {:>12} {:>12}", "parts", "receive", "encode", "CURVE recv", "CURVE seal");
    for parts in SIZES {
        let message: Message = parts.iter().map(|&len| vec![7; len]).collect();
        let ends = ends(false);
        let curve = self::ends(true);
        println!(
            "{:>16} {:>10.1} {:>10.1} {:>12.1} {:>12.1}",
            format!("{parts:?}"),
            receive(&message, ends),
            encode(&message),
            receive(&message, curve),
            seal(&message, self::ends(true)),
        );
    }
}

/// A PUSH and a PULL whose handshake is complete.
fn ends(encrypted: bool) -> (Session, Session) {
    let mut next = 0_u8;
    let mut random = move |bytes: &mut [u8]| {
        bytes.fill_with(|| {
            next = next.wrapping_mul(5).wrapping_add(77);
            next
        });
    };
    let (client, server) = if encrypted {
        let secret = SecretKey::generate(&mut random);
        let public = secret.public_key();
        let own = SecretKey::generate(&mut random);
        (
            Security::CurveClient(CurveClient { secret: own, server: public }),
            Security::CurveServer(CurveServer { secret }),
        )
    } else {
        (Security::Null { authenticate: false }, Security::Null { authenticate: false })
    };
    let now = Instant::now();
    let mut session = |kind, security| {
        let config = SessionConfig { security, ..SessionConfig::new(kind) };
        Session::new(Arc::new(config), &mut random, now)
    };
    let (mut push, mut pull) = (session(SocketType::Push, client), session(SocketType::Pull, server));
    let mut slab = Slab::default();
    while push.state() != State::Active || pull.state() != State::Active {
        pass(&mut push, &mut pull, &mut slab);
        pass(&mut pull, &mut push, &mut slab);
    }
    (push, pull)
}

fn pass(from: &mut Session, to: &mut Session, slab: &mut Slab) {
    let mut batch = WriteBatch::new(64 * 1024);
    from.fill(&mut batch);
    let octets: Vec<u8> = batch.segments().iter().flatten().copied().collect();
    let now = Instant::now();
    to.receive(BytesMut::from(&octets[..]), now);
    while let Some(event) = to.next_event(slab) {
        if matches!(event, Event::Authenticate(_)) {
            to.verdict(Verdict::accept(), now);
        }
    }
}

fn receive(message: &Message, (mut push, mut pull): (Session, Session)) -> f64 {
    let mut slab = Slab::default();
    best(|| {
        let mut batch = WriteBatch::new(1 << 20);
        let mut messages = 0;
        while batch.len() < 1_000_000 {
            push.encode(message, &mut batch);
            messages += 1;
        }
        let stream: Vec<u8> = batch.segments().iter().flatten().copied().collect();
        let mut pages = Vec::new();
        for piece in stream.chunks(64 * 1024) {
            let mut page = slab.take(64 * 1024);
            page.extend_from_slice(piece);
            pages.push(page);
        }
        let now = Instant::now();
        let start = Instant::now();
        let mut got = 0;
        for page in pages {
            pull.receive(page, now);
            while let Some(event) = pull.next_event(&mut slab) {
                black_box(&event);
                got += 1;
            }
        }
        let time = start.elapsed();
        assert_eq!(got, messages);
        time.as_nanos() as f64 / messages as f64
    })
}

fn encode(message: &Message) -> f64 {
    let mut batch = WriteBatch::new(64 * 1024);
    best(|| fill(&mut batch, |batch| frame::encode(message, batch, 16 * 1024)))
}

fn seal(message: &Message, (mut push, _): (Session, Session)) -> f64 {
    let mut batch = WriteBatch::new(64 * 1024);
    best(|| fill(&mut batch, |batch| push.encode(message, batch)))
}

/// Time of `add` while it fills `batch` ten times.
fn fill(batch: &mut WriteBatch, mut add: impl FnMut(&mut WriteBatch)) -> f64 {
    let start = Instant::now();
    let mut messages = 0;
    for _ in 0..10 {
        while !batch.is_full() {
            add(batch);
            messages += 1;
        }
        let len = batch.len();
        black_box(batch.segments());
        batch.advance(len);
    }
    start.elapsed().as_nanos() as f64 / f64::from(messages)
}

fn best(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}
