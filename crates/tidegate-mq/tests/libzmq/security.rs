//! Mechanisms, and the handlers that decide about peers.

use std::{io::Write, sync::Arc, thread::JoinHandle};

use tidegate_io::sync::{AtomicUsize, Ordering};
use tidegate_mq::{
    Context, Dealer, Error, Message, Options, PublicKey, Rep, SecretKey,
    monitor::{CloseReason, EventKind, Monitor},
    new_secret_key,
    options::{CurveOptions, CurvePolicy, Mechanism, PlainOptions},
};
use tidegate_zmtp::close::Deadline;

use crate::{raw, support::*};

/// What a handler answers: changes of the seven parts of a correct reply.
pub type Answer = fn(&Message, &mut Vec<Vec<u8>>);

/// A ZAP handler on a thread of its own, and how often it was asked.
pub struct Handler {
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    context: Context,
}

impl Handler {
    pub fn start(context: &Context, answer: Answer) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let handler = Rep::with_options(context, with(|options| options.rcvtimeo = None)).unwrap();
        handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
        let count = asked.clone();
        let thread = std::thread::spawn(move || {
            while let Ok(request) = handler.recv_blocking() {
                count.fetch_add(1, Ordering::SeqCst);
                let id = request.parts()[1].to_vec();
                let mut reply: Vec<Vec<u8>> = [b"1.0", &id[..], b"200", b"OK", b"a user", b""]
                    .into_iter()
                    .map(<[u8]>::to_vec)
                    .collect();
                answer(&request, &mut reply);
                if handler.send_blocking(reply.into_iter().collect::<Message>()).is_err() {
                    break;
                }
            }
        });
        Self { asked, thread: Some(thread), context: context.clone() }
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.context.term_blocking();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Admits the domain `ours` only, and in it the user admin or the key that the context's test uses.
#[expect(clippy::ptr_arg, reason = "an `Answer`, and others add parts")]
pub fn careful(request: &Message, reply: &mut Vec<Vec<u8>>) {
    let part = |index: usize| request.parts().get(index).map(|part| part.as_slice());
    assert_eq!(part(0), Some(&b"1.0"[..]));
    assert_eq!(part(3), Some(&b"127.0.0.1"[..]));
    let admitted = part(2) == Some(b"ours")
        && match part(5) {
            Some(b"NULL") => request.len() == 6,
            Some(b"PLAIN") => part(6) == Some(b"admin") && part(7) == Some(b"password"),
            Some(b"CURVE") => part(6) == Some(key(1).public_key().as_bytes()),
            _ => false,
        };
    if !admitted {
        reply[2] = b"400".to_vec();
    }
}

/// Always the same key for a number.
pub fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes([number; 32])
}

pub fn curve_server() -> Mechanism {
    Mechanism::Curve(CurveOptions::Server { secret_key: key(9), policy: CurvePolicy::Zap })
}

fn curve_client(server_key: PublicKey, secret_key: SecretKey) -> Mechanism {
    Mechanism::Curve(CurveOptions::Client { server_key, secret_key })
}

fn plain_client(password: &str) -> Mechanism {
    Mechanism::Plain(PlainOptions::Client { username: "admin".into(), password: password.into() })
}

fn plain_server() -> Mechanism {
    Mechanism::Plain(PlainOptions::Server { authenticator: None })
}

pub fn secured(mechanism: Mechanism, domain: &str) -> Options {
    with(|options| {
        options.mechanism = mechanism;
        options.zap_domain = domain.into();
    })
}

pub struct Server {
    pub socket: Dealer,
    pub monitor: Monitor,
    pub endpoint: String,
}

pub fn serve(context: &Context, options: Options) -> Server {
    let socket = Dealer::with_options(context, options).unwrap();
    let monitor = socket.monitor();
    let endpoint = socket.bind_blocking("tcp://127.0.0.1:*").unwrap();
    Server { socket, monitor, endpoint }
}

fn client(context: &Context, server: &Server, mechanism: Mechanism) -> (Dealer, Monitor) {
    let socket = Dealer::with_options(context, secured(mechanism, "")).unwrap();
    let monitor = socket.monitor();
    socket.connect(&server.endpoint).unwrap();
    (socket, monitor)
}

/// Why the handshake failed.
#[track_caller]
fn failure(monitor: &Monitor) -> CloseReason {
    let failed = event(monitor, |kind| {
        assert!(!matches!(kind, EventKind::HandshakeSucceeded { .. }));
        matches!(kind, EventKind::HandshakeFailed(_))
    });
    let EventKind::HandshakeFailed(reason) = failed.kind else { unreachable!() };
    reason
}

/// The event and its first value, as libzmq numbers them.
#[track_caller]
pub fn number(monitor: &Monitor) -> (u64, u64) {
    let (event, values) = EventKind::HandshakeFailed(failure(monitor)).to_libzmq().unwrap();
    (event, values[0])
}

const NO_DETAIL: u64 = 0x0800;
pub const PROTOCOL: u64 = 0x2000;
const AUTH: u64 = 0x4000;

fn succeeds(context: &Context, server: &Server, mechanism: Mechanism) {
    let (client, monitor) = client(context, server, mechanism);
    peers(&monitor, &server.endpoint, 1);
    peers(&server.monitor, &server.endpoint, 1);
    bounce(&client, &server.socket);
}

/// libzmq: test_security_null/no_domain, wrong_domain, right_domain.
///
/// Rules: MQ-161, MQ-318.
#[test]
fn null() {
    let context = context();
    let handler = Handler::start(&context, careful);
    succeeds(&context, &serve(&context, secured(Mechanism::Null, "")), Mechanism::Null);
    assert_eq!(handler.asked(), 0);
    let wrong = serve(&context, secured(Mechanism::Null, "theirs"));
    let (refused, seen) = client(&context, &wrong, Mechanism::Null);
    assert_eq!(number(&wrong.monitor), (AUTH, 400));
    assert_eq!(number(&seen), (AUTH, 400));
    assert_eq!(handler.asked(), 1);
    assert!(matches!(refused.try_recv(), Err(Error::WouldBlock)));
    succeeds(&context, &serve(&context, secured(Mechanism::Null, "ours")), Mechanism::Null);
    assert_eq!(handler.asked(), 2);
}

/// libzmq: test_security_null/vanilla_socket, test_security_plain/vanilla_socket,
/// test_security_curve/unauthenticated_message (a message of ZMTP 1.0 is not delivered).
///
/// Rules: MQ-094, MQ-095.
#[test]
fn unauthenticated_message() {
    let context = context();
    let _handler = Handler::start(&context, careful);
    for mechanism in [Mechanism::Null, plain_server(), curve_server()] {
        let server = serve(&context, secured(mechanism, "ours"));
        let mut stream = raw::connect(&server.endpoint);
        stream.write_all(b"\x01\0\x02\0hi and more, so that nobody waits for the rest of a greeting that is long enough").unwrap();
        assert!(raw::is_closed(&mut stream));
        partings(&server.monitor, &server.endpoint, 1);
        assert!(matches!(server.socket.try_recv(), Err(Error::WouldBlock)));
    }
}

/// libzmq: test_security_plain/success, wrong_credentials, client_as_server.
///
/// Rules: MQ-090, MQ-161, MQ-280, MQ-311, MQ-312, MQ-513.
#[test]
fn plain() {
    let context = context();
    let handler = Handler::start(&context, careful);
    let server = serve(&context, secured(plain_server(), "ours"));
    succeeds(&context, &server, plain_client("password"));
    let (_refused, monitor) = client(&context, &server, plain_client("bogus"));
    assert_eq!(number(&server.monitor), (AUTH, 400));
    assert_eq!(number(&monitor), (AUTH, 400));
    // It does not try again by itself.
    event(&monitor, |kind| matches!(kind, EventKind::Stopped));
    assert_eq!(handler.asked(), 2);
    // Two servers have nothing to say to each other, and nobody is asked.
    let mut short = secured(plain_server(), "ours");
    short.handshake_ivl = Some(QUIET);
    let confused = Dealer::with_options(&context, short).unwrap();
    let monitor = confused.monitor();
    confused.connect(&server.endpoint).unwrap();
    assert_eq!(failure(&monitor), CloseReason::TimedOut(Deadline::Handshake));
    assert_eq!(handler.asked(), 2);
}

/// libzmq: test_security_curve/curve_security_with_valid_credentials.
///
/// Rules: MQ-161, MQ-313, MQ-314.
#[test]
fn curve() {
    let context = context();
    let handler = Handler::start(&context, careful);
    let server = serve(&context, secured(curve_server(), "ours"));
    succeeds(&context, &server, curve_client(key(9).public_key(), key(1)));
    assert_eq!(handler.asked(), 1);
}

/// Keys of the wrong server do not open, and zero keys do not even make options.
///
/// libzmq: test_security_curve/garbage_server_key.
///
/// Rules: MQ-279, MQ-314.
#[test]
fn curve_wrong_server_key() {
    let context = context();
    let handler = Handler::start(&context, careful);
    let server = serve(&context, secured(curve_server(), "ours"));
    let (_client, _monitor) = client(&context, &server, curve_client(key(8).public_key(), key(1)));
    assert_eq!(number(&server.monitor), (PROTOCOL, 0x1100_0001));
    assert_eq!(handler.asked(), 0);
    // Zero keys do not even make options.
    for number in [48, 49, 50] {
        let mut options = options();
        let set = options.set_raw(number, &[0; 32]);
        assert!(set.is_err() || Dealer::with_options(&context, options).is_err(), "{number}");
    }
}

/// libzmq: test_security_curve/bogus_client_keys.
///
/// Rules: MQ-161, MQ-280.
#[test]
fn curve_bogus_client() {
    let context = context();
    let handler = Handler::start(&context, careful);
    let server = serve(&context, secured(curve_server(), "ours"));
    let (_client, monitor) = client(&context, &server, curve_client(key(9).public_key(), new_secret_key()));
    assert_eq!(number(&server.monitor), (AUTH, 400));
    assert_eq!(number(&monitor), (AUTH, 400));
    assert_eq!(handler.asked(), 1);
}

/// libzmq: test_security_curve/null_client, plain_client.
///
/// Rules: MQ-099.
#[test]
fn curve_other_mechanisms() {
    let context = context();
    let handler = Handler::start(&context, careful);
    let server = serve(&context, secured(curve_server(), "ours"));
    for mechanism in [Mechanism::Null, plain_client("password")] {
        let (_client, monitor) = client(&context, &server, mechanism);
        assert_eq!(number(&server.monitor), (PROTOCOL, 0x1100_0002));
        let _ = monitor;
    }
    assert_eq!(handler.asked(), 0);
}

/// Sends bytes after the greeting to a CURVE server and tells how it fails.
fn curve_injection(sent: &[u8]) -> (u64, u64) {
    let context = context();
    let server = serve(&context, secured(curve_server(), "ours"));
    let mut stream = raw::connect(&server.endpoint);
    raw::greet(&mut stream, 1, "CURVE");
    stream.write_all(sent).unwrap();
    let number = number(&server.monitor);
    assert!(raw::is_closed(&mut stream));
    number
}

fn hello(length: usize, name: &str, version: [u8; 2]) -> Vec<u8> {
    let mut data = vec![0; length];
    data[..2].copy_from_slice(&version);
    raw::command(name, &data)
}

/// libzmq: test_security_curve/curve_security_invalid_hello_wrong_length, _command_name, _version.
///
/// Rules: MQ-363.
#[test]
fn curve_invalid_hello() {
    assert_eq!(curve_injection(&hello(193, "HELLO", [1, 0])), (PROTOCOL, 0x1000_0013));
    assert_eq!(curve_injection(&hello(194, "HELLX", [1, 0])), (PROTOCOL, 0x1000_0001));
    assert_eq!(curve_injection(&hello(194, "HELLO", [2, 0])), (PROTOCOL, 0x1000_0013));
    // Well-formed, and the box does not open.
    assert_eq!(curve_injection(&hello(194, "HELLO", [1, 0])), (PROTOCOL, 0x1100_0001));
}

/// libzmq: test_security_no_zap_handler/* (without a handler everybody is refused, with or without enforcement).
///
/// Rules: MQ-162, MQ-338, MQ-135.
#[test]
fn no_handler() {
    for enforce in [false, true] {
        for (server, client_side) in [
            (Mechanism::Null, Mechanism::Null),
            (plain_server(), plain_client("password")),
            (curve_server(), curve_client(key(9).public_key(), key(1))),
        ] {
            let context = context();
            let mut options = secured(server, "ours");
            options.zap_enforce_domain = enforce;
            let server = serve(&context, options);
            let (_client, _monitor) = client(&context, &server, client_side);
            assert_eq!(number(&server.monitor).0, NO_DETAIL);
        }
    }
}

fn zap_fault(answer: Answer, expected: (u64, u64)) {
    for (server, client_side) in [
        (Mechanism::Null, Mechanism::Null),
        (plain_server(), plain_client("password")),
        (curve_server(), curve_client(key(9).public_key(), key(1))),
    ] {
        let context = context();
        let _handler = Handler::start(&context, answer);
        let server = serve(&context, secured(server, "ours"));
        let (_client, _monitor) = client(&context, &server, client_side);
        assert_eq!(number(&server.monitor), expected);
    }
}

/// libzmq: test_security_zap/test_zap_wrong_version.
///
/// Rules: MQ-159.
#[test]
fn zap_wrong_version() {
    zap_fault(|_, reply| reply[0] = b"1.1".to_vec(), (PROTOCOL, 0x2000_0003));
}

/// libzmq: test_security_zap/test_zap_wrong_request_id.
///
/// Rules: MQ-159.
#[test]
fn zap_wrong_request_id() {
    zap_fault(|_, reply| reply[1] = b"not this".to_vec(), (PROTOCOL, 0x2000_0002));
}

/// libzmq: test_security_zap/test_zap_wrong_status_invalid.
///
/// Rules: MQ-159.
#[test]
fn zap_wrong_status() {
    zap_fault(|_, reply| reply[2] = b"100".to_vec(), (PROTOCOL, 0x2000_0004));
}

/// libzmq: test_security_zap/test_zap_too_many_parts.
///
/// Rules: MQ-159.
#[test]
fn zap_too_many_parts() {
    zap_fault(|_, reply| reply.push(b"more".to_vec()), (PROTOCOL, 0x2000_0001));
}

/// libzmq: test_security_zap/test_zap_wrong_status_internal_error (status 500 on both sides).
///
/// Rules: MQ-159, MQ-280.
#[test]
fn zap_internal_error() {
    for (server, client_side) in [
        (Mechanism::Null, Mechanism::Null),
        (plain_server(), plain_client("password")),
        (curve_server(), curve_client(key(9).public_key(), key(1))),
    ] {
        let context = context();
        let _handler = Handler::start(&context, |_, reply| reply[2] = b"500".to_vec());
        let server = serve(&context, secured(server, "ours"));
        let (_client, monitor) = client(&context, &server, client_side);
        assert_eq!(number(&server.monitor), (AUTH, 500));
        assert_eq!(number(&monitor), (AUTH, 500));
    }
}

/// libzmq: test_security_zap/test_zap_wrong_status_temporary_failure (300: nothing is said, and the client tries again).
///
/// Rules: MQ-159, MQ-536.
#[test]
fn zap_temporary_failure() {
    let context = context();
    let handler = Handler::start(&context, |_, reply| reply[2] = b"300".to_vec());
    let server = serve(&context, secured(Mechanism::Null, "ours"));
    let mut stream = raw::connect(&server.endpoint);
    raw::greet(&mut stream, 1, "NULL");
    stream.write_all(&raw::command("READY", &raw::property("Socket-Type", b"DEALER"))).unwrap();
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut said).unwrap();
    assert!(!said.windows(5).any(|name| name == b"ERROR"), "{said:?}");
    assert_eq!(number(&server.monitor), (AUTH, 300));
    let (_client, monitor) = client(&context, &server, Mechanism::Null);
    event(&monitor, |kind| matches!(kind, EventKind::ConnectRetried(_)));
    until("it is asked again", || handler.asked() >= 3);
}

/// libzmq: test_security_zap/test_zap_unsuccessful_no_handler, _disconnect, _do_not_recv, _do_not_send.
///
/// Rules: MQ-162, MQ-163, MQ-165.
#[test]
fn zap_handler_that_fails() {
    for recv in [false, true] {
        for leave in [false, true] {
            let context = context();
            let handler = Rep::with_options(&context, options()).unwrap();
            handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
            let mut impatient = secured(plain_server(), "ours");
            impatient.handshake_ivl = Some(QUIET);
            let server = serve(&context, impatient);
            let (_client, _monitor) = client(&context, &server, plain_client("password"));
            if recv {
                assert_eq!(handler.recv_blocking().unwrap().parts()[5], "PLAIN");
            }
            if leave {
                drop(handler);
            }
            assert_eq!(number(&server.monitor).0, NO_DETAIL, "{recv} {leave}");
            partings(&server.monitor, &server.endpoint, 1);
        }
    }
}
