//! Errors, their numbers, and whom they concern.

use std::{error::Error as _, io, thread};

use tidegate_mq::{
    BindEndpoint, Context, Error, Pub, Pull, Push, Req, SendError,
    monitor::{CloseReason, EventKind},
    options::ReqOnPeerLoss,
};

use crate::{
    peer::{Raw, command, frame, greeting, message},
    rig::{ANYWHERE, PATIENCE, disconnected, established, event, fault, options, options_with},
};

/// Each kind of error has the number that libzmq gives it, and says something.
///
/// Rules: MQ-371.
#[test]
fn every_error_has_its_number() {
    const LIBZMQ: i32 = 156_384_712;
    let text = || "what it is about".to_owned();
    let endpoint = "nonsense".parse::<BindEndpoint>().unwrap_err();
    let system = || io::Error::from_raw_os_error(28);
    let table = [
        (Error::WouldBlock, 11),
        (Error::Timeout, 11),
        (Error::WrongState("x"), LIBZMQ + 51),
        (Error::HostUnreachable, 113),
        (Error::PeerLost, 113),
        (Error::NotSupported("x"), 95),
        (Error::ProtocolNotSupported { endpoint: text(), scheme: text() }, 93),
        (Error::IncompatibleProtocol { endpoint: text(), ours: "PUB", theirs: "REP" }, LIBZMQ + 52),
        (Error::Terminated, LIBZMQ + 53),
        (Error::Closed, 88),
        (Error::Forked, 88),
        (Error::Endpoint(endpoint), 22),
        (Error::InvalidOption { option: "option", problem: "wrong" }, 22),
        (Error::InvalidMessage("x"), 22),
        (Error::AddressInUse(text()), 98),
        (Error::AddressNotAvailable(text()), 99),
        (Error::NoDevice(text()), 19),
        (Error::NameTooLong(text()), 36),
        (Error::NotFound(text()), 2),
        (Error::TooManySockets { limit: 3 }, 24),
        (Error::NoIoThread(text()), LIBZMQ + 54),
        (Error::MessageTooLarge { size: 2, limit: 1 }, 90),
        (Error::System { what: text(), source: system() }, 28),
        (Error::System { what: text(), source: io::Error::other("of our own") }, 5),
    ];
    for (error, errno) in &table {
        assert_eq!(error.errno(), *errno, "{error:?}");
        assert!(error.to_string().len() > 5, "{error:?}");
    }
    // Causes can be followed.
    let failed = Error::System { what: text(), source: system() };
    let cause = failed.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(cause.raw_os_error(), Some(28));
    let refused = SendError { message: tidegate_mq::Message::from("x"), error: failed };
    assert!(refused.source().unwrap().source().is_some());
}

/// What a call does wrong is told with its number and, for a send, with the message.
///
/// Rules: MQ-371, MQ-372.
#[test]
fn calls_fail_with_the_right_number() {
    let context = Context::new();
    let push = Push::with_options(&context, options()).unwrap();
    let number = |result: Result<String, Error>| result.unwrap_err().errno();
    assert_eq!(number(push.bind_blocking("tcp:/x")), 22);
    assert_eq!(number(push.bind_blocking("carrier-pigeon://x")), 93);
    assert_eq!(number(push.bind_blocking("tcp://203.0.113.1:1")), 19);
    assert_eq!(number(push.bind_blocking(&format!("ipc:///tmp/{}", "x".repeat(108)))), 36);
    assert_eq!(number(push.bind_blocking("ipc:///no/such/directory/socket")), 2);
    let bound = push.bind_blocking(ANYWHERE).unwrap();
    let other = Push::with_options(&context, options()).unwrap();
    assert_eq!(number(other.bind_blocking(&bound)), 98);
    assert_eq!(push.unbind("tcp://127.0.0.1:1").unwrap_err().errno(), 2);
    push.bind_blocking("inproc://x").unwrap();
    let publisher = Pub::with_options(&context, options()).unwrap();
    assert_eq!(publisher.connect("inproc://x").unwrap_err().errno(), 156_384_764);
    let failed = other.try_send("comes back").unwrap_err();
    assert_eq!((failed.error.errno(), failed.message.parts()[0].as_slice()), (11, &b"comes back"[..]));
    let req = Req::with_options(&context, options()).unwrap();
    assert_eq!(req.try_recv().unwrap_err().errno(), 156_384_763);
}

/// A call that waits for a good peer is not told of bad ones; they are events. Only who asked for it hears of a loss.
///
/// Rules: MQ-373.
#[test]
fn what_peers_do_wrong_concerns_nobody_else() {
    let context = Context::new();
    let pull = Pull::with_options(&context, options()).unwrap();
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let waiting = thread::spawn({
        let pull = pull.clone();
        move || pull.recv_blocking()
    });
    // Before, in and after the handshake.
    Raw::connect(&endpoint).send(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(fault(&monitor), CloseReason::UnsupportedVersion);
    Raw::connect(&endpoint).send(&[greeting("NULL"), frame(0, b"early")].concat());
    assert_eq!(fault(&monitor), CloseReason::UnexpectedCommand);
    for wrong in [command("SUBSCRIBE", b"x"), vec![0x80, 0], command("ERROR", b"\x05oh no")] {
        Raw::up(&endpoint, "PUSH", "").send(&wrong);
        fault(&monitor);
    }
    let mut half = Raw::up(&endpoint, "PUSH", "");
    half.send(&frame(1, b"the first part of two"));
    half.has_been_heard();
    half.reset();
    event(&monitor, "reset", disconnected);
    assert!(!waiting.is_finished());
    assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
    Raw::up(&endpoint, "PUSH", "").send(&message(&[b"good"]));
    assert_eq!(waiting.join().unwrap().unwrap().parts(), ["good"]);
    assert_eq!(pull.metrics().inbound.entered, 1);

    // Sending knows nothing of it either: the message waits for the next peer.
    let push = Push::with_options(&context, options()).unwrap();
    let monitor = push.monitor();
    let endpoint = push.bind_blocking(ANYWHERE).unwrap();
    let sending = thread::spawn({
        let push = push.clone();
        move || push.send_blocking("for somebody").unwrap()
    });
    Raw::connect(&endpoint).send(&[0; 64]);
    assert_eq!(fault(&monitor), CloseReason::UnsupportedVersion);
    let mut good = Raw::up(&endpoint, "PULL", "");
    assert_eq!(good.frame(), (0, b"for somebody".to_vec()));
    sending.join().unwrap();

    let telling = options_with(|options| options.req_on_peer_loss = ReqOnPeerLoss::Fail);
    let req = Req::with_options(&context, telling).unwrap();
    let monitor = req.monitor();
    let endpoint = req.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::up(&endpoint, "REP", "");
    established(&monitor);
    req.send_blocking("question").unwrap();
    peer.frame();
    peer.frame();
    peer.reset();
    assert!(matches!(req.recv_blocking(), Err(Error::PeerLost)));
}

/// An attempt that fails is an event with the system's number, not an error of `connect`.
///
/// Rules: MQ-373.
#[test]
fn a_refused_connection_is_an_event() {
    let context = Context::new();
    let push = Push::with_options(&context, options()).unwrap();
    let monitor = push.monitor();
    // On an address of this process, so that nobody else binds the port.
    let [_, first, second, third] = std::process::id().to_be_bytes();
    let own = std::net::Ipv4Addr::new(127, first | 64, second, third);
    let free = std::net::TcpListener::bind((own, 0)).unwrap().local_addr().unwrap();
    push.connect(&format!("tcp://{free}")).unwrap();
    let errno = event(&monitor, "failure", |kind| match kind {
        EventKind::ConnectFailed(errno) => Some(*errno),
        _ => None,
    });
    assert_eq!(errno, 111);
    push.try_send("waits").unwrap();
    assert!(monitor.next_blocking(Some(PATIENCE)).is_ok());
}
