//! Live options: changed on a socket that is connected already, they hold from that moment on.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context as TaskContext, Waker},
    time::{Duration, Instant},
};

use tidegate_io::wait::block_on;
use tidegate_mq::{
    AnySocket, Context, Dealer, Error, Pub, Pull, Push, Rep, Req, Result, Router, Socket, SocketType, Sub,
    XPub, monitor::EventKind, socket::CanReceive,
};

use crate::{
    int, numbered, parts,
    peer::{Raw, command},
    rig::{ANYWHERE, PATIENCE, established, event, options, options_with, until},
};

#[track_caller]
fn expect<K: CanReceive>(socket: &Socket<K>, expected: &[&[u8]]) {
    let message = socket.recv_blocking().unwrap();
    let got: Vec<&[u8]> = message.parts().iter().map(|part| part.as_slice()).collect();
    assert_eq!(got, expected);
}

fn bound<K: CanReceive>(socket: Result<Socket<K>>) -> (Socket<K>, String) {
    let socket = socket.unwrap();
    let endpoint = socket.bind_blocking(ANYWHERE).unwrap();
    (socket, endpoint)
}

fn connected<K: CanReceive>(socket: Result<Socket<K>>, endpoint: &str) -> Socket<K> {
    let socket = socket.unwrap();
    let monitor = socket.monitor();
    socket.connect(endpoint).unwrap();
    established(&monitor);
    socket
}

/// Rules: MQ-290, MQ-287.
#[test]
fn topics_by_number() {
    let context = Context::new();
    let (publisher, endpoint) = bound(XPub::with_options(&context, options()));
    let sub = connected(Sub::with_options(&context, options()), &endpoint);
    sub.set_raw(6, b"A").unwrap();
    expect(&publisher, &[b"\x01A"]);
    for topic in ["A1", "B1"] {
        publisher.send_blocking(topic).unwrap();
    }
    expect(&sub, &[b"A1"]);
    sub.set_raw(6, b"B").unwrap();
    expect(&publisher, &[b"\x01B"]);
    sub.set_raw(7, b"A").unwrap();
    expect(&publisher, &[b"\0A"]);
    for topic in ["A2", "B2"] {
        publisher.send_blocking(topic).unwrap();
    }
    expect(&sub, &[b"B2"]);
    assert!(matches!(sub.try_recv(), Err(Error::WouldBlock)));

    // On an XPUB they are for the peer that was heard last, if that is done by hand.
    let by_hand = XPub::with_options(&context, numbered(&[(71, 1)])).unwrap();
    let endpoint = by_hand.bind_blocking(ANYWHERE).unwrap();
    let sub = connected(Sub::with_options(&context, options()), &endpoint);
    sub.subscribe("").unwrap();
    expect(&by_hand, &[b"\x01"]);
    by_hand.set_raw(6, b"X").unwrap();
    for topic in ["Y", "X"] {
        by_hand.send_blocking(topic).unwrap();
    }
    expect(&sub, &[b"X"]);
    by_hand.set_raw(7, b"X").unwrap();
    by_hand.send_blocking("X").unwrap();
    by_hand.set_raw(6, b"Z").unwrap();
    by_hand.send_blocking("Z").unwrap();
    expect(&sub, &[b"Z"]);

    let push = Push::new(&context).unwrap();
    for number in [6, 7] {
        assert!(push.set_raw(number, b"A").is_err());
    }
}

/// Rules: MQ-300.
#[test]
fn timeouts() {
    let context = Context::new();
    let dealer = Dealer::new(&context).unwrap();
    dealer.bind_blocking("inproc://x").unwrap();
    dealer.set_raw(27, &int(20)).unwrap();
    assert!(matches!(dealer.recv_blocking(), Err(Error::Timeout)));
    dealer.set_raw(28, &int(20)).unwrap();
    assert!(matches!(dealer.send_blocking("x").unwrap_err().error, Error::Timeout));
    for number in [27, 28] {
        dealer.set_raw(number, &int(0)).unwrap();
    }
    assert!(matches!(dealer.recv_blocking(), Err(Error::WouldBlock | Error::Timeout)));
    assert!(matches!(dealer.send_blocking("x").unwrap_err().error, Error::WouldBlock | Error::Timeout));
}

/// Rules: MQ-294.
#[test]
fn linger() {
    let context = Context::new();
    let push = Push::new(&context).unwrap();
    assert_eq!(push.options().linger, None);
    push.connect("tcp://127.0.0.1:9").unwrap();
    push.send_blocking("never sent").unwrap();
    // With what it was made with, this would wait for ever.
    push.set_raw(17, &int(0)).unwrap();
    assert_eq!(context.term_blocking(), 1);
}

/// Rules: MQ-302.
#[test]
fn router_mandatory() {
    let context = Context::new();
    let (router, _) = bound(Router::with_options(&context, options()));
    router.try_send(parts([b"nobody", b"x"])).unwrap();
    router.set_raw(33, &int(1)).unwrap();
    let refused = router.try_send(parts([b"nobody", b"x"])).unwrap_err();
    assert!(matches!(refused.error, Error::HostUnreachable));
    router.set_raw(33, &int(0)).unwrap();
    router.try_send(parts([b"nobody", b"x"])).unwrap();
}

/// Rules: MQ-319, MQ-289.
#[test]
fn router_handover() {
    let context = Context::new();
    let (router, endpoint) = bound(Router::with_options(&context, options()));
    let monitor = router.monitor();
    let mut first = Raw::up(&endpoint, "DEALER", "same");
    established(&monitor);
    let mut refused = Raw::up(&endpoint, "DEALER", "same");
    event(&monitor, "refusal", |kind| matches!(kind, EventKind::RoutingIdInUse).then_some(()));
    refused.until_closed();
    router.set_raw(56, &int(1)).unwrap();
    let heir = options_with(|options| options.set_raw(5, b"same").unwrap());
    let heir = Dealer::with_options(&context, heir).unwrap();
    heir.connect(&endpoint).unwrap();
    established(&monitor);
    first.until_closed();
    router.send_blocking(parts([b"same", b"yours"])).unwrap();
    expect(&heir, &[b"yours"]);
}

/// Rules: MQ-307.
#[test]
fn xpub_verbose_and_verboser() {
    let context = Context::new();
    let (publisher, endpoint) = bound(XPub::with_options(&context, options()));
    let mut subs: Vec<Sub> =
        (0..4).map(|_| connected(Sub::with_options(&context, options()), &endpoint)).collect();
    let told = |expected: &[&[u8]]| {
        expected.iter().for_each(|one| expect(&publisher, &[one]));
    };
    // Only the first subscription of a topic is told, at first: the second, of another topic, shows that.
    for sub in &subs[..2] {
        sub.subscribe("A").unwrap();
    }
    until("both are known", || publisher.peers().iter().filter(|peer| peer.is_connected()).count() == 4);
    subs[1].subscribe("mark").unwrap();
    told(&[b"\x01A", b"\x01mark"]);
    publisher.set_raw(40, &int(1)).unwrap();
    subs[2].subscribe("A").unwrap();
    told(&[b"\x01A"]);
    subs[2].unsubscribe("A").unwrap();
    subs[2].subscribe("mark").unwrap();
    told(&[b"\x01mark"]);
    publisher.set_raw(78, &int(1)).unwrap();
    subs[3].subscribe("A").unwrap();
    told(&[b"\x01A"]);
    subs[3].unsubscribe("A").unwrap();
    told(&[b"\0A"]);
    subs.clear();
}

/// Rules: MQ-325.
#[test]
fn xpub_nodrop() {
    let context = Context::new();
    let small = numbered(&[(23, 2)]);
    let publisher = Pub::with_options(&context, small).unwrap();
    publisher.bind_blocking("inproc://x").unwrap();
    let sub = Sub::with_options(&context, numbered(&[(24, 2)])).unwrap();
    sub.subscribe("").unwrap();
    sub.connect("inproc://x").unwrap();
    publisher.wait_for_subscribers_blocking(b"", 1, PATIENCE).unwrap();
    (0..10).for_each(|_| publisher.try_send("dropped beyond four").unwrap());
    publisher.set_raw(69, &int(1)).unwrap();
    assert!(matches!(publisher.try_send("x").unwrap_err().error, Error::WouldBlock));
    publisher.set_raw(69, &int(0)).unwrap();
    publisher.try_send("dropped").unwrap();
    assert_eq!(publisher.metrics().out.depth + sub.metrics().inbound.depth, 4);
}

/// Who waits when a socket ceases to wait for its peers goes on.
///
/// Rules: MQ-325, MQ-302, MQ-287.
#[test]
fn a_send_that_waits_is_under_the_options_of_now() {
    let context = Context::new();
    let waits = |send: Pin<&mut dyn Future<Output = _>>| {
        assert!(send.poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
    };
    let patience = || Instant::now().checked_add(PATIENCE);

    let publisher = Pub::with_options(&context, numbered(&[(23, 1), (69, 1)])).unwrap();
    publisher.bind_blocking("inproc://news").unwrap();
    let sub = Sub::with_options(&context, numbered(&[(24, 1)])).unwrap();
    sub.subscribe("").unwrap();
    sub.connect("inproc://news").unwrap();
    publisher.wait_for_subscribers_blocking(b"", 1, PATIENCE).unwrap();
    (0..2).for_each(|_| publisher.try_send("kept").unwrap());
    let mut send = pin!(publisher.send("dropped"));
    waits(send.as_mut());
    publisher.set_raw(69, &int(0)).unwrap();
    block_on(send, patience()).unwrap().unwrap();

    let router = Router::with_options(&context, numbered(&[(23, 1), (33, 1)])).unwrap();
    router.bind_blocking("inproc://router").unwrap();
    let named = options_with(|options| {
        options.set_raw(5, b"D").unwrap();
        options.rcvhwm = 1;
    });
    let dealer = Dealer::with_options(&context, named).unwrap();
    dealer.connect("inproc://router").unwrap();
    (0..2).for_each(|_| router.try_send(parts([b"D", b"k"])).unwrap());
    let mut send = pin!(router.send(parts([b"D", b"d"])));
    waits(send.as_mut());
    router.set_raw(33, &int(0)).unwrap();
    block_on(send, patience()).unwrap().unwrap();
}

/// Rules: MQ-315.
#[test]
fn probe_router() {
    let context = Context::new();
    for (kind, peer) in
        [(SocketType::Dealer, "ROUTER"), (SocketType::Router, "DEALER"), (SocketType::Req, "ROUTER")]
    {
        let socket = AnySocket::of_type_with(&context, kind, options()).unwrap();
        let endpoint = socket.bind_blocking(ANYWHERE).unwrap();
        let mut before = Raw::up(&endpoint, peer, "");
        before.has_been_heard();
        socket.set_raw(51, &int(1)).unwrap();
        let mut probed = Raw::up(&endpoint, peer, "");
        assert_eq!(probed.frame(), (0, Vec::new()), "{kind:?}");
    }
}

/// Rules: MQ-316.
#[test]
fn req_correlate_and_relaxed() {
    let context = Context::new();
    let (router, endpoint) = bound(Router::with_options(&context, options()));
    let req = connected(Req::with_options(&context, options()), &endpoint);
    req.send_blocking("plain").unwrap();
    let request = router.recv_blocking().unwrap();
    assert_eq!((request.len(), request.parts()[1].len()), (3, 0));
    assert!(matches!(req.try_send("early").unwrap_err().error, Error::WrongState(_)));
    req.set_raw(53, &int(1)).unwrap();
    req.set_raw(52, &int(1)).unwrap();
    req.send_blocking("numbered").unwrap();
    let request = router.recv_blocking().unwrap();
    assert_eq!((request.len(), request.parts()[1].len(), request.parts()[2].len()), (4, 4, 0));
    // The reply to the first request is known to be late.
    router.send_blocking(parts([&request.parts()[0], b"", b"late"])).unwrap();
    router.send_blocking(parts([&request.parts()[0], &request.parts()[1], b"", b"right"])).unwrap();
    expect(&req, &[b"right"]);
}

/// Rules: MQ-299, MQ-287.
#[test]
fn receive_limit() {
    let context = Context::new();
    let pull = Pull::with_options(&context, numbered(&[(24, 2)])).unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::up(&endpoint, "PUSH", "");
    (0..10).for_each(|_| peer.send(&crate::peer::frame(0, b"x")));
    until("the queue is full", || pull.metrics().inbound.depth == 2);
    peer.send(&command("PING", b"\0\0"));
    pull.set_raw(24, &int(6)).unwrap();
    until("more is let in", || pull.metrics().inbound.depth == 6);
    pull.set_raw(24, &int(0)).unwrap();
    until("all is let in", || pull.metrics().inbound.depth == 10);
}

/// What a REQ does when its peer is lost, and whether a REP reports a reply that cannot go, may change under way, too.
///
/// Rules: MQ-357.
#[test]
fn the_loss_of_a_peer() {
    let context = Context::new();
    let (rep, endpoint) = bound(Rep::with_options(&context, options()));
    let req = connected(Req::with_options(&context, options()), &endpoint);
    req.send_blocking("question").unwrap();
    expect(&rep, &[b"question"]);
    req.set_options(|options| {
        options.req_on_peer_loss = tidegate_mq::options::ReqOnPeerLoss::Fail;
        Ok(())
    })
    .unwrap();
    block_on(rep.close(Some(Duration::ZERO)), None);
    assert!(matches!(req.recv_blocking(), Err(Error::PeerLost)));
}
