//! Arbitrary octets, for sockets that others rely on: the committed corpora of the fuzz targets, each input as it is and
//! with some octets changed. Whatever comes, nothing breaks, and a good peer is served afterwards.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
};

use tidegate_mq::{
    AnySocket, Context, ContextOptions, Options, PublicKey, Pull, Push, SocketType,
    options::{CurveOptions, CurvePolicy, Mechanism},
};
use tidegate_zmtp::z85;

use crate::{raw, security::key, support::*};

macro_rules! corpus {
    ($name:literal) => {
        include_str!(concat!("../../../../fuzz/seeds/", $name, ".txt"))
    };
}

/// At most `count` inputs of a corpus, from all over it, and the same with changes.
fn inputs(corpus: &str, count: usize) -> Vec<Vec<u8>> {
    let lines: Vec<_> = corpus.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() > 5, "{} inputs", lines.len());
    let mut dice = Dice(lines.len() as u64);
    let mut inputs = Vec::new();
    for line in lines.iter().step_by(lines.len().div_ceil(count)) {
        let octets = (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap());
        let input: Vec<u8> = octets.collect();
        let mut changed = input.clone();
        for _ in 0..4 {
            let len = changed.len().max(1);
            match changed.get_mut(dice.roll(len)) {
                Some(octet) => *octet = dice.roll(256) as u8,
                None => changed.push(dice.roll(256) as u8),
            }
        }
        inputs.extend([input, changed]);
    }
    inputs
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// Says `octets` and hears what comes until the other side is done.
fn say(stream: &mut TcpStream, octets: &[u8]) {
    let _ = stream.write_all(octets);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// `octets` behind what `prepare` says reach a bound socket, each in a connection of its own.
fn attack_bound(options: Options, friend: Options, octets: &[Vec<u8>], prepare: impl Fn(&mut TcpStream)) {
    let context = context();
    let pull = Pull::with_options(&context, options).unwrap();
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let push = Push::with_options(&context, friend).unwrap();
    push.connect(&endpoint).unwrap();
    for octets in octets {
        let mut stream = raw::connect(&endpoint);
        prepare(&mut stream);
        say(&mut stream, octets);
        while pull.try_recv().is_ok() {}
    }
    push.send_blocking("a good peer").unwrap();
    until("the good peer is heard", || {
        pull.try_recv().is_ok_and(|message| parts(&message) == [b"a good peer"])
    });
}

/// The same for sockets that connect.
fn attack_connecting(options: &Options, octets: &[Vec<u8>], prepare: impl Fn(&mut TcpStream)) {
    let context = context();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    for octets in octets {
        let pull = Pull::with_options(&context, options.clone()).unwrap();
        let monitor = pull.monitor();
        pull.connect(&endpoint).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        raw::patient(&stream);
        prepare(&mut stream);
        say(&mut stream, octets);
        partings(&monitor, &endpoint, 1);
    }
    let friend = Push::with_options(&context, crate::support::options()).unwrap();
    let endpoint = friend.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let pull = Pull::with_options(&context, crate::support::options()).unwrap();
    pull.connect(&endpoint).unwrap();
    friend.send_blocking("still alive").unwrap();
    expect(&pull, &[b"still alive"]);
}

/// Without the octet that chooses what the target does with the rest.
fn streams(corpus: &str, count: usize) -> Vec<Vec<u8>> {
    inputs(corpus, count).into_iter().map(|input| input.get(1..).unwrap_or_default().to_vec()).collect()
}

fn curve(server: bool) -> Mechanism {
    Mechanism::Curve(match server {
        true => CurveOptions::Server { secret_key: key(1), policy: CurvePolicy::AnyKey },
        false => CurveOptions::Client { server_key: key(1).public_key(), secret_key: key(2) },
    })
}

/// libzmq: test_bind_fuzzer, test_bind_stream_fuzzer.
///
/// Rules: MQ-375, MQ-469.
#[test]
fn bind() {
    attack_bound(options(), options(), &streams(corpus!("mq_greeting"), 100), |_| {});
}

/// libzmq: test_connect_fuzzer, test_connect_stream_fuzzer.
///
/// Rules: MQ-375, MQ-469.
#[test]
fn connect() {
    attack_connecting(&options(), &streams(corpus!("mq_greeting"), 100), |_| {});
}

/// libzmq: test_bind_null_fuzzer, test_connect_null_fuzzer.
///
/// Rules: MQ-375, MQ-469.
#[test]
fn null() {
    let octets = streams(corpus!("mq_frames"), 100);
    let up = |stream: &mut TcpStream| raw::handshake(stream, 1, "PUSH", b"");
    attack_bound(options(), options(), &octets, up);
    attack_connecting(&options(), &octets, up);
    let greeted = |stream: &mut TcpStream| raw::greet(stream, 1, "NULL");
    let properties: Vec<_> =
        streams(corpus!("mq_metadata"), 100).iter().map(|octets| raw::command("READY", octets)).collect();
    attack_bound(options(), options(), &properties, greeted);
    attack_connecting(&options(), &properties, greeted);
}

/// libzmq: test_bind_curve_fuzzer, test_connect_curve_fuzzer.
///
/// Rules: MQ-375, MQ-469.
#[test]
fn curves() {
    let octets = streams(corpus!("mq_curve_handshake"), 100);
    let greeted = |stream: &mut TcpStream| raw::greet(stream, 1, "CURVE");
    let server = with(|options| options.mechanism = curve(true));
    let client = with(|options| options.mechanism = curve(false));
    attack_bound(server, client.clone(), &octets, greeted);
    attack_connecting(&client, &octets, greeted);
}

/// Any value of any length for any option is set or refused, and what was set can be read and used.
///
/// libzmq: test_socket_options_fuzzer.
///
/// Rules: MQ-287, MQ-469.
#[test]
fn socket_options() {
    let context = context();
    let mut dice = Dice(7);
    let mut accepted = 0;
    for round in 0..40_000 {
        let number = dice.roll(130) as i32 - 5;
        let len = [0, 1, 3, 4, 4, 4, 8, 32, 40, 41, 255, 256, 300][dice.roll(13)];
        let value: Vec<u8> = match dice.roll(3) {
            0 => (0..len).map(|_| dice.roll(256) as u8).collect(),
            1 => (dice.roll(7) as i32 - 2).to_ne_bytes().into_iter().cycle().take(len).collect(),
            _ => b"127.0.0.1/8:X-name".iter().copied().cycle().take(len).collect(),
        };
        let mut options = options();
        let before = options.raw(number).ok();
        match options.set_raw(number, &value) {
            Ok(()) => accepted += 1,
            Err(error) => {
                assert!(matches!(error.errno(), 22 | 95), "{number} {error}");
                assert_eq!(options.raw(number).ok(), before, "{number}: refused, and changed");
            }
        }
        let _ = ContextOptions::default().set_raw(number, &value);
        // Sockets cost more than options, so that not every round makes one.
        if round % 10 == 0
            && let Ok(socket) = AnySocket::of_type_with(&context, SocketType::Router, options)
        {
            let _ = socket.set_raw(number, &value);
            let _ = socket.raw(number);
            let bound = socket.bind_blocking("inproc://options");
            assert!(bound.is_ok() || bound.is_err_and(|error| error.errno() == 22), "{number}");
        }
    }
    assert!(accepted > 1000, "{accepted}");
    drop(Context::new());
}

/// libzmq: test_z85_decode_fuzzer.
///
/// Rules: MQ-314, MQ-469.
#[test]
fn z85_decode() {
    let mut decoded = 0;
    for input in inputs(corpus!("mq_z85"), 1000) {
        if let Ok(octets) = z85::decode(&input) {
            assert_eq!(z85::encode(&octets).unwrap().as_bytes(), input);
            decoded += 1;
        }
        let mut options = Options::default();
        for number in [48, 49, 50] {
            let set = options.set_raw(number, &input);
            assert_eq!(set.is_ok(), is_key(&input), "{input:?}");
        }
    }
    assert!(decoded > 0);
}

/// Whether it is a key in any of the forms that libzmq takes: 32 octets, or 40 letters with or without a zero octet.
fn is_key(input: &[u8]) -> bool {
    let text = input.strip_suffix(b"\0").filter(|text| text.len() == 40).unwrap_or(input);
    input.len() == 32 || PublicKey::parse(text).is_ok()
}
