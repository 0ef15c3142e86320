//! Options that libzmq does not have: what a socket does about losses, slow subscribers, taken paths and odd peers.

use std::time::Duration;

use tidegate_mq::{
    Context, Dealer, Error, Message, Pub, Pull, Push, Req, Router,
    monitor::{CloseReason, EventKind},
    options::{Heartbeat30Peers, ReqOnPeerLoss, SlowSubscriberPolicy},
};

use crate::{
    peer::{Raw, command, greeting, ready},
    rig::{ANYWHERE, disconnected, established, event, fault, options, options_with, until},
};

/// A request whose peer is lost waits, fails, or goes to the next peer.
///
/// Rules: MQ-357, MQ-197, MQ-511.
#[test]
fn a_request_whose_peer_is_lost() {
    let context = Context::new();
    let ask = |policy: ReqOnPeerLoss| {
        let req = Req::with_options(
            &context,
            options_with(|options| {
                options.req_on_peer_loss = policy;
                options.req_correlate = true;
            }),
        )
        .unwrap();
        let endpoint = req.bind_blocking(ANYWHERE).unwrap();
        let monitor = req.monitor();
        let mut first = Raw::up(&endpoint, "REP", "");
        established(&monitor);
        req.send_blocking("question").unwrap();
        let number = first.frame().1;
        assert_eq!(number.len(), 4);
        drop(first);
        event(&monitor, "loss", disconnected);
        (req, endpoint)
    };
    let (req, _) = ask(ReqOnPeerLoss::Fail);
    assert!(matches!(req.recv_blocking(), Err(Error::PeerLost)));
    let (req, _) = ask(ReqOnPeerLoss::Wait);
    assert!(matches!(req.try_recv(), Err(Error::WouldBlock)));
    assert!(matches!(req.try_send("another").unwrap_err().error, Error::WrongState(_)));
    let (req, endpoint) = ask(ReqOnPeerLoss::Resend(1));
    let mut second = Raw::up(&endpoint, "REP", "");
    let frames: Vec<_> = (0..3).map(|_| second.frame()).collect();
    assert_eq!((frames[1].1.len(), &frames[2].1[..]), (0, &b"question"[..]));
    second.send(&crate::peer::message(&[&frames[0].1, b"", b"answer"]));
    assert_eq!(req.recv_blocking().unwrap().parts(), ["answer"]);
}

/// A subscriber that does not read misses messages, which are counted, or is closed.
///
/// Rules: MQ-357, MQ-222, MQ-517.
#[test]
fn a_subscriber_that_is_too_slow() {
    let context = Context::new();
    let publish = |policy: SlowSubscriberPolicy| {
        let slow = options_with(|options| {
            options.pub_slow_policy = policy;
            options.sndhwm = 2;
            options.sndbuf = Some(8192);
        });
        let publisher = Pub::with_options(&context, slow).unwrap();
        let monitor = publisher.monitor();
        let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "SUB", "");
        peer.send(&command("SUBSCRIBE", b""));
        peer.has_been_heard();
        let large = Message::from(vec![7; 1 << 20]);
        until("messages are dropped", || {
            publisher.try_send(large.clone()).unwrap();
            publisher.metrics().out.dropped_full >= 5
        });
        (publisher, monitor, peer)
    };
    let (publisher, monitor, peer) = publish(SlowSubscriberPolicy::Disconnect(5));
    event(&monitor, "end of the connection", disconnected);
    drop((publisher, peer));
    let (publisher, monitor, peer) = publish(SlowSubscriberPolicy::Drop);
    (0..20).for_each(|_| publisher.try_send(vec![7; 1 << 20]).unwrap());
    assert!(publisher.metrics().out.dropped_full >= 25);
    assert!(std::iter::from_fn(|| monitor.try_next()).all(|event| disconnected(&event.kind).is_none()));
    drop(peer);
}

/// What was queued for a peer that is lost goes to another, or with it.
///
/// Rules: MQ-357, MQ-244.
#[test]
fn what_a_lost_peer_had_queued() {
    for requeue in [false, true] {
        let context = Context::new();
        let push = Push::with_options(
            &context,
            options_with(|options| {
                options.requeue_on_loss = requeue;
                options.sndtimeo = Some(Duration::from_millis(200));
                options.sndhwm = 100;
            }),
        )
        .unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(ANYWHERE).unwrap();
        let stalled = Raw::up(&endpoint, "PULL", "");
        established(&monitor);
        // The first ones fill what the system holds for the peer; most wait here.
        while push.send_blocking(vec![7; 100_000]).is_ok() {}
        let mut other = Raw::up(&endpoint, "PULL", "");
        established(&monitor);
        stalled.reset();
        event(&monitor, "loss", disconnected);
        if requeue {
            // Whole ones, of which the lost peer has nothing.
            (0..50).for_each(|_| assert_eq!(other.frame().1.len(), 100_000));
        } else {
            until("they are given up", || push.metrics().out.discarded > 50);
            push.send_blocking("the last").unwrap();
            assert_eq!(other.frame(), (0, b"the last".to_vec()));
        }
    }
}

/// Rules: MQ-357, MQ-263.
#[test]
fn a_path_that_is_taken() {
    let context = Context::new();
    let first = Pull::with_options(&context, options()).unwrap();
    let endpoint = first.bind_blocking("ipc://*").unwrap();
    let second = Pull::with_options(&context, options()).unwrap();
    assert!(matches!(second.bind_blocking(&endpoint), Err(Error::AddressInUse(_))));
    let heir = Pull::with_options(&context, options_with(|options| options.ipc_takeover = true)).unwrap();
    heir.bind_blocking(&endpoint).unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect(&endpoint).unwrap();
    push.send_blocking("for the heir").unwrap();
    assert_eq!(heir.recv_blocking().unwrap().parts(), ["for the heir"]);
}

/// Rules: MQ-357, MQ-126, MQ-119.
#[test]
fn peers_that_are_odd() {
    let context = Context::new();
    let meet = |strict: bool, missing: bool, ready: Vec<u8>| {
        let router = Router::with_options(
            &context,
            options_with(|options| {
                options.strict_identity = strict;
                options.allow_missing_socket_type = missing;
            }),
        )
        .unwrap();
        let monitor = router.monitor();
        let endpoint = router.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::connect(&endpoint);
        peer.send(&[greeting("NULL"), ready].concat());
        event(&monitor, "end of the handshake", |kind| match kind {
            EventKind::HandshakeSucceeded { .. } => Some(None),
            EventKind::HandshakeFailed(reason) => Some(Some(reason.clone())),
            _ => None,
        })
    };
    let invalid = |found: Option<CloseReason>| matches!(found, Some(CloseReason::InvalidMetadata(_)));
    // Libraries exist that name themselves like this.
    let zero = || ready("DEALER", "\0longer than a generated one");
    assert_eq!(meet(false, false, zero()), None);
    assert!(invalid(meet(true, false, zero())));
    assert_eq!(meet(true, false, ready("DEALER", "a name")), None);
    let silent = || command("READY", b"");
    assert!(invalid(meet(false, false, silent())));
    assert_eq!(meet(false, true, silent()), None);
}

/// Peers of protocol 3.0 are sent heartbeats when they have sent one, or always, or never.
///
/// Rules: MQ-357, MQ-171.
#[test]
fn peers_of_an_older_protocol() {
    let context = Context::new();
    let meet = |policy: Heartbeat30Peers, beats: bool| {
        let dealer = Dealer::with_options(
            &context,
            options_with(|options| {
                options.heartbeat_30_peers = policy;
                options.heartbeat_ivl = Some(Duration::from_millis(20));
            }),
        )
        .unwrap();
        let monitor = dealer.monitor();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::connect(&endpoint);
        let mut old = greeting("NULL");
        old[11] = 0;
        peer.send(&[old, ready("DEALER", "")].concat());
        peer.take(64);
        peer.frame();
        established(&monitor);
        if beats {
            peer.has_been_heard();
        }
        (dealer, monitor, peer)
    };
    let beaten = |policy, beats| {
        let (_dealer, _monitor, mut peer) = meet(policy, beats);
        assert_eq!(&peer.frame().1[..5], b"\x04PING");
        // Who then says nothing is lost.
        peer.until_closed();
    };
    beaten(Heartbeat30Peers::Always, false);
    beaten(Heartbeat30Peers::Learned, true);
    for (policy, beats) in [(Heartbeat30Peers::Learned, false), (Heartbeat30Peers::Never, true)] {
        let (dealer, _monitor, mut peer) = meet(policy, beats);
        // Many intervals later there is still nothing but what the application sends.
        let timer = meet(Heartbeat30Peers::Always, false).2.until_closed();
        assert!(timer >= Duration::from_millis(20));
        dealer.send_blocking("first").unwrap();
        assert_eq!(peer.frame(), (0, b"first".to_vec()), "{policy:?}");
    }
}

/// Without any deadline, a peer of another type or mechanism is closed, and the reason is reported.
///
/// Rules: MQ-533.
#[test]
fn who_does_not_fit_is_told_so_at_once() {
    let context = Context::new();
    let pull = Pull::with_options(&context, options_with(|options| options.handshake_ivl = None)).unwrap();
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::connect(&endpoint);
    peer.send(&[greeting("NULL"), ready("PULL", "")].concat());
    assert_eq!(fault(&monitor), CloseReason::InvalidSocketType);
    peer.until_closed();
    let mut peer = Raw::connect(&endpoint);
    peer.send(&greeting("PLAIN"));
    assert_eq!(fault(&monitor), CloseReason::MechanismMismatch);
    peer.until_closed();
}
