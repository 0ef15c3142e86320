//! Refusals by the authenticators of either side.

use std::{thread, time::Duration};

use tidegate_mq::{
    Context, Message, Rep, SocketType,
    monitor::{CloseReason, EventKind},
    options::{CurveOptions, CurvePolicy, Mechanism as Options, PlainOptions},
};

use super::{DRIVERS, NEWEST};
use crate::{
    cell::{Transport, place},
    ours::{self, options, wait_for},
    peer::{Peer, event, words},
    security::{Mechanism, Role},
};

const MECHANISMS: [Mechanism; 3] = [Mechanism::Null, Mechanism::Plain, Mechanism::Curve];
const DOMAIN: &str = "global";
/// What a libzmq with a misspelt PLAIN ERROR of its own makes of a well-formed one (MQ-535).
const UNEXPECTED_COMMAND: u32 = 0x1000_0001;

/// Status of an authentication failure, if it is one.
fn auth_status(event: &EventKind) -> Option<u16> {
    match event {
        EventKind::HandshakeFailed(CloseReason::AuthFailed(code)) => Some(code.status()),
        _ => None,
    }
}

/// A libzmq server answers with `status`.
fn they_refuse(version: &'static str, mechanism: Mechanism, status: u16) {
    eprintln!("libzmq {version} refuses with {status}, {mechanism:?}");
    for driver in DRIVERS {
        let mut peer = Peer::start(version);
        peer.ask(format!("zap c {status} {}", mechanism.credentials()));
        // A refused connection stays open until this is over (MQ-536).
        let server =
            format!("handshake_ivl=200 zap_domain={} {}", words([DOMAIN]), mechanism.theirs(Role::Theirs));
        peer.ask(format!("open s c PULL {server}"));
        let endpoint = peer.ask(format!("bind s {}", place(Transport::Tcp).0));

        let context = ours::context(driver);
        let mut options = options();
        options.mechanism = mechanism.ours(Role::Theirs);
        // Releases before 4.3.3 keep the connection for ever with NULL.
        options.handshake_ivl = Some(Duration::from_secs(1));
        let push = ours::open(&context, SocketType::Push, options);
        let monitor = push.watch();
        push.dial(&endpoint).unwrap();
        if status == 300 {
            wait_for(&monitor, "another attempt", |event| {
                matches!(event, EventKind::ConnectRetried(_)).then_some(())
            });
            wait_for(&monitor, "another stream", |event| {
                assert!(!matches!(event, EventKind::Stopped));
                matches!(event, EventKind::Connected(_)).then_some(())
            });
        } else {
            assert_eq!(wait_for(&monitor, "the refusal", auth_status), status);
            wait_for(&monitor, "giving up", |event| matches!(event, EventKind::Stopped).then_some(()));
        }
        context.term_blocking();
    }
}

/// Rules: MQ-508, MQ-535, MQ-536.
#[test]
fn theirs_of_4_3_5() {
    for mechanism in MECHANISMS {
        for status in [300, 400, 500] {
            they_refuse(NEWEST, mechanism, status);
        }
    }
}

/// Rules: MQ-508, MQ-536.
#[test]
fn theirs_of_4_2_5() {
    for mechanism in MECHANISMS {
        for status in [300, 400] {
            they_refuse("4.2.5", mechanism, status);
        }
    }
}

/// An ERROR that claims to be longer than it is.
///
/// Rules: MQ-132.
#[test]
fn theirs_of_4_1_6_in_curve() {
    they_refuse("4.1.6", Mechanism::Curve, 400);
}

/// The handler of a context: refuses everybody with `status`, and checks what it is asked.
fn handle(context: &Context, mechanism: Mechanism, status: u16) -> thread::JoinHandle<()> {
    let handler = Rep::new(context).unwrap();
    handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
    thread::spawn(move || {
        while let Ok(request) = handler.recv_blocking() {
            let parts = request.parts();
            assert_eq!(parts[0], "1.0");
            assert_eq!(parts[2], DOMAIN);
            assert_eq!(words(&parts[6..]), mechanism.credentials());
            let status = status.to_string();
            let answer: Message =
                ["1.0".into(), parts[1].clone(), status.into(), "".into(), "".into(), "".into()]
                    .into_iter()
                    .collect::<Message>();
            if handler.send_blocking(answer).is_err() {
                break;
            }
        }
    })
}

/// Ours asks its ZAP handler, which answers with `status`; a libzmq client of the given release takes note.
fn we_refuse(version: &'static str, mechanism: Mechanism, status: u16) {
    eprintln!("we refuse libzmq {version} with {status}, {mechanism:?}");
    for driver in DRIVERS {
        let context = ours::context(driver);
        let handler = handle(&context, mechanism, status);
        let mut options = options();
        options.zap_domain = DOMAIN.into();
        options.mechanism = match mechanism.ours(Role::Ours) {
            Options::Plain(_) => Options::Plain(PlainOptions::Server { authenticator: None }),
            Options::Curve(CurveOptions::Server { secret_key, .. }) => {
                Options::Curve(CurveOptions::Server { secret_key, policy: CurvePolicy::Zap })
            }
            other => other,
        };
        let pull = ours::open(&context, SocketType::Pull, options);
        let monitor = pull.watch();
        let endpoint = pull.listen(&place(Transport::Tcp).0).unwrap();
        let mut peer = Peer::start(version);
        peer.ask(format!("open s c PUSH reconnect_ivl=10 {}", mechanism.theirs(Role::Ours)));
        peer.ask(format!("connect s {endpoint}"));

        assert_eq!(wait_for(&monitor, "the refusal", auth_status), status);
        if status == 300 {
            peer.wait("s", event::DISCONNECTED);
            peer.wait("s", event::CONNECTED);
        } else {
            let failed = event::HANDSHAKE_FAILED_AUTH | event::HANDSHAKE_FAILED_PROTOCOL;
            let expected = match mechanism {
                Mechanism::Plain => (event::HANDSHAKE_FAILED_PROTOCOL, UNEXPECTED_COMMAND),
                _ => (event::HANDSHAKE_FAILED_AUTH, status.into()),
            };
            assert_eq!(peer.wait_any("s", failed), expected);
        }
        context.term_blocking();
        handler.join().unwrap();
    }
}

/// Rules: MQ-136, MQ-159, MQ-508, MQ-536.
#[test]
fn ours_to_4_3_5() {
    for mechanism in MECHANISMS {
        for status in [300, 400, 500] {
            we_refuse(NEWEST, mechanism, status);
        }
    }
}
