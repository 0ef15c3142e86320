//! Authentication that does not answer, and ciphertext that comes again.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{
    Context, Error, Options, Pull, Push, Rep, SecretKey,
    monitor::CloseReason,
    options::{CurveOptions, CurvePolicy, Mechanism, PlainOptions},
};

use super::{
    child::{self, alone},
    peer::{Raw, address, command, greeting},
    rig::{
        ANYWHERE, DRIVERS, context, disconnected, established, event, fault, options, options_with, until,
    },
};

const HANDSHAKE: Duration = Duration::from_millis(300);

fn plain_server(options: &mut Options) {
    options.handshake_ivl = Some(HANDSHAKE);
    options.mechanism = Mechanism::Plain(PlainOptions::Server { authenticator: None });
}

/// A peer that has shown its name and password and waits for the verdict.
fn asking(endpoint: &str) -> Raw {
    let mut peer = Raw::connect(endpoint);
    peer.send(&[greeting("PLAIN"), command("HELLO", b"\x04name\x08password")].concat());
    peer
}

/// A handler that never answers costs its askers the handshake's time, not more, and nobody else anything.
///
/// Rules: MQ-460, MQ-163, MQ-165.
#[test]
fn a_silent_handler_ends_in_refusal() {
    let Some(driver) = alone("security::a_silent_handler_ends_in_refusal") else { return };
    let context = context(driver);
    let handler = Rep::with_options(&context, options()).unwrap();
    handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
    let pull = Pull::with_options(&context, options_with(plain_server)).unwrap();
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    // Established traffic of another endpoint of the same socket.
    pull.set_options(|options| {
        options.mechanism = Mechanism::Null;
        Ok(())
    })
    .unwrap();
    let open = pull.bind_blocking(ANYWHERE).unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect(&open).unwrap();
    let serves = || {
        push.send_blocking("through").unwrap();
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "through");
    };
    serves();
    let descriptors = child::descriptors();
    let start = Instant::now();
    let mut peers: Vec<_> = (0..100).map(|_| asking(&endpoint)).collect();
    serves();
    for peer in &mut peers {
        peer.until_closed();
    }
    let took = start.elapsed();
    assert!(took >= HANDSHAKE && took < HANDSHAKE * 4, "{took:?}");
    for _ in 0..100 {
        assert!(matches!(fault(&monitor), CloseReason::TimedOut(_)));
    }
    drop(peers);
    serves();
    until("no connection is left", || child::descriptors() <= descriptors);

    // The client goes while the handler thinks; then the handler goes while clients wait.
    for _ in 0..10 {
        asking(&endpoint).reset();
    }
    let mut peer = asking(&endpoint);
    assert!(handler.recv_blocking().unwrap().len() >= 6, "not a question");
    drop(handler);
    peer.until_closed();
    drop(peer);
    serves();
    until("no connection is left", || child::descriptors() <= descriptors);
    context.term_blocking();
}

/// Passes everything on from a client to a server, and sends the client's first MESSAGE a second time.
fn replayer(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut upstream = TcpStream::connect(address(&server)).unwrap();
        let (mut back, mut to_client) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut back, &mut to_client));
        let mut greeting = [0; 64];
        client.read_exact(&mut greeting).unwrap();
        upstream.write_all(&greeting).unwrap();
        loop {
            let mut frame = vec![0; 2];
            if client.read_exact(&mut frame).is_err() {
                return;
            }
            let mut size = u64::from(frame[1]);
            if frame[0] & 2 != 0 {
                frame.resize(9, 0);
                client.read_exact(&mut frame[2..]).unwrap();
                size = u64::from_be_bytes(frame[1..9].try_into().unwrap());
            }
            let head = frame.len();
            frame.resize(head + usize::try_from(size).unwrap(), 0);
            client.read_exact(&mut frame[head..]).unwrap();
            let again = if frame[head..].starts_with(b"\x07MESSAGE") { 2 } else { 1 };
            for _ in 0..again {
                let _ = upstream.write_all(&frame);
            }
        }
    });
    endpoint
}

fn curve_pull(context: &Context) -> (Pull, String, SecretKey) {
    let secret_key = SecretKey::from_bytes([7; 32]);
    let server = CurveOptions::Server { secret_key: secret_key.clone(), policy: CurvePolicy::AnyKey };
    let pull =
        Pull::with_options(context, options_with(|options| options.mechanism = Mechanism::Curve(server)))
            .unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    (pull, endpoint, secret_key)
}

fn curve_push(context: &Context, endpoint: &str, server: &SecretKey) -> Push {
    let client =
        CurveOptions::Client { server_key: server.public_key(), secret_key: SecretKey::from_bytes([9; 32]) };
    let push =
        Push::with_options(context, options_with(|options| options.mechanism = Mechanism::Curve(client)))
            .unwrap();
    push.connect(endpoint).unwrap();
    push
}

/// Ciphertext that comes a second time is not delivered and ends the connection it comes by.
///
/// Rules: MQ-451.
#[test]
fn replayed_ciphertext_ends_the_connection() {
    for driver in DRIVERS {
        let context = context(driver);
        let (pull, endpoint, key) = curve_pull(&context);
        let monitor = pull.monitor();
        let good = curve_push(&context, &endpoint, &key);
        good.send_blocking("good").unwrap();
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "good");
        let bad = curve_push(&context, &replayer(endpoint), &key);
        bad.send_blocking("once").unwrap();
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "once");
        assert_eq!(fault(&monitor), CloseReason::InvalidSequence);
        event(&monitor, "end", disconnected);
        assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)), "delivered twice");
        good.send_blocking("good still").unwrap();
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "good still");
        context.term_blocking();
    }
}

/// A client of another mechanism is turned away by a server that encrypts, which goes on serving.
///
/// Rules: MQ-382, MQ-455.
#[test]
fn clear_text_is_not_let_in() {
    for driver in DRIVERS {
        let context = context(driver);
        let (pull, endpoint, key) = curve_pull(&context);
        let monitor = pull.monitor();
        let good = curve_push(&context, &endpoint, &key);
        good.send_blocking("good").unwrap();
        pull.recv_blocking().unwrap();
        established(&monitor);
        let mut peer = Raw::connect(&endpoint);
        peer.send(&greeting("NULL"));
        assert_eq!(fault(&monitor), CloseReason::MechanismMismatch);
        peer.until_closed();
        let mut peer = Raw::connect(&endpoint);
        peer.send(&[greeting("CURVE"), command("READY", b"")].concat());
        assert_eq!(fault(&monitor), CloseReason::UnexpectedCommand);
        peer.until_closed();
        good.send_blocking("good still").unwrap();
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "good still");
        context.term_blocking();
    }
}
