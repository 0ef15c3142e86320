//! Options of single patterns, set by number where there is one, seen by the peers of the socket.

use tidegate_mq::{AnySocket, Context, Dealer, Error, Pub, Pull, Push, Router, SocketType, Sub, XPub};

use crate::{
    free_endpoint, numbered, parts,
    peer::{Raw, command, message},
    rig::{ANYWHERE, established, options, options_with, until},
};

/// Rules: MQ-289, MQ-322.
#[test]
fn names_of_peers() {
    let context = Context::new();
    let named = options_with(|options| options.set_raw(5, &[b'n'; 255]).unwrap());
    let dealer = Dealer::with_options(&context, named).unwrap();
    let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
    let other = Dealer::with_options(&context, options()).unwrap();
    let second = other.bind_blocking(ANYWHERE).unwrap();

    let router = Router::with_options(&context, numbered(&[(33, 1)])).unwrap();
    router.set_raw(61, b"chosen").unwrap();
    router.connect(&endpoint).unwrap();
    // At once, and for the one connect only.
    router.try_send(parts([b"chosen", b"early"])).unwrap();
    assert_eq!(dealer.recv_blocking().unwrap().parts()[0], "early");
    assert!(router.raw(61).unwrap().is_empty());
    router.connect(&second).unwrap();
    other.send_blocking("x").unwrap();
    assert_ne!(router.recv_blocking().unwrap().parts()[0], "chosen");

    // Who is not given a name keeps its own.
    let router = Router::with_options(&context, options()).unwrap();
    router.connect(&endpoint).unwrap();
    until("the name is known", || {
        router.try_send(parts([&[b'n'; 255], b"yours"])).is_ok() && dealer.try_recv().is_ok()
    });
}

/// Of twenty messages the last one is kept, all parts of it, and the sender is never held up.
///
/// Rules: MQ-317, MQ-532.
#[test]
fn conflate() {
    let context = Context::new();
    let last = options_with(|options| {
        options.set_raw(54, &crate::int(1)).unwrap();
        options.sndhwm = 1;
        options.rcvhwm = 1;
    });
    let push = Push::with_options(&context, last.clone()).unwrap();
    let endpoint = free_endpoint();
    push.connect(&endpoint).unwrap();
    for number in 0_u8..20 {
        push.try_send(parts([b"number", &[number]])).unwrap();
        assert_eq!(push.metrics().out.depth, 1);
    }
    let pull = Pull::with_options(&context, last).unwrap();
    pull.bind_blocking(&endpoint).unwrap();
    assert_eq!(pull.recv_blocking().unwrap().parts(), [&b"number"[..], &[19]]);
    // The receiving side keeps one as well, whoever sends.
    let mut peer = Raw::up(&endpoint, "PUSH", "");
    let many: Vec<u8> = (0_u8..20).flat_map(|number| message(&[b"number", &[number]])).collect();
    peer.send(&many);
    peer.has_been_heard();
    assert_eq!(pull.recv_blocking().unwrap().parts(), [&b"number"[..], &[19]]);
    assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
}

/// A receiver that keeps the newest message takes every one in process as well: its sender has no limit to reach, and
/// nothing waits there.
///
/// Rules: MQ-250, MQ-270, MQ-271, MQ-532.
#[test]
fn conflate_in_process() {
    const MANY: u32 = 5000;
    let last = || options_with(|options| options.conflate = true);
    for bind_first in [true, false] {
        let context = Context::new();
        let join = |sender: &AnySocket, receiver: &AnySocket| {
            if bind_first {
                receiver.bind_blocking("inproc://a").unwrap();
            }
            sender.connect("inproc://a").unwrap();
            if !bind_first {
                receiver.bind_blocking("inproc://a").unwrap();
            }
        };
        for (sends, receives) in
            [(SocketType::Push, SocketType::Pull), (SocketType::Dealer, SocketType::Dealer)]
        {
            let sender = AnySocket::of_type_with(&context, sends, options()).unwrap();
            let receiver = AnySocket::of_type_with(&context, receives, last()).unwrap();
            join(&sender, &receiver);
            for round in 0..2 {
                for number in 0..MANY {
                    sender.try_send(&number.to_be_bytes()).unwrap();
                    assert_eq!(sender.metrics().out.depth, 0, "it is not left with the sender");
                }
                assert_eq!(receiver.metrics().inbound.depth, 1, "{receives:?} in round {round}");
                assert_eq!(receiver.recv_blocking().unwrap().parts(), [(MANY - 1).to_be_bytes()]);
                assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
            }
            sender.disconnect("inproc://a").unwrap();
            receiver.unbind("inproc://a").unwrap();
        }
    }
}

/// Rules: MQ-343.
#[test]
fn only_the_first_part_subscribes() {
    for (only_first, topics) in [(0, 2), (1, 1)] {
        let context = Context::new();
        let publisher = XPub::with_options(&context, numbered(&[(108, only_first)])).unwrap();
        let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "SUB", "");
        peer.send(&message(&[b"\x01A", b"\x01B"]));
        peer.has_been_heard();
        assert_eq!(publisher.topics_count(), topics, "only_first_subscribe = {only_first}");
    }
}

/// Rules: MQ-327, MQ-329.
#[test]
fn welcomes_and_complements() {
    let context = Context::new();
    let greeting = options_with(|options| options.set_raw(72, b"Welcome").unwrap());
    let publisher = XPub::with_options(&context, greeting).unwrap();
    let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
    let sub = Sub::with_options(&context, options()).unwrap();
    sub.subscribe("W").unwrap();
    sub.connect(&endpoint).unwrap();
    assert_eq!(sub.recv_blocking().unwrap().parts(), ["Welcome"]);

    let publisher = Pub::with_options(&context, numbered(&[(74, 1)])).unwrap();
    let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
    let sub = Sub::with_options(&context, numbered(&[(74, 1)])).unwrap();
    sub.subscribe("A").unwrap();
    sub.connect(&endpoint).unwrap();
    until("the subscription arrived", || publisher.topics_count() == 1);
    for text in ["A", "B"] {
        publisher.send_blocking(text).unwrap();
    }
    assert_eq!(sub.recv_blocking().unwrap().parts(), ["B"]);
}

/// A message of the type of socket that hears of peers by messages.
///
/// Rules: MQ-341, MQ-345.
#[test]
fn peers_are_announced_by_messages() {
    let context = Context::new();
    let router = Router::with_options(&context, numbered(&[(97, 3)])).unwrap();
    let endpoint = router.bind_blocking(ANYWHERE).unwrap();
    let peer = Raw::up(&endpoint, "DEALER", "p");
    assert_eq!(router.recv_blocking().unwrap().parts(), ["p", ""]);
    drop(peer);
    assert_eq!(router.recv_blocking().unwrap().parts(), ["p", ""]);

    let speaking = options_with(|options| {
        options.set_raw(110, b"hello").unwrap();
        options.set_raw(111, b"gone").unwrap();
    });
    let router = Router::with_options(&context, speaking).unwrap();
    let endpoint = router.bind_blocking(ANYWHERE).unwrap();
    let monitor = router.monitor();
    let mut peer = Raw::up(&endpoint, "DEALER", "p");
    established(&monitor);
    assert_eq!(peer.frame(), (0, b"hello".to_vec()));
    drop(peer);
    assert_eq!(router.recv_blocking().unwrap().parts(), ["p", "gone"]);
}

/// Rules: MQ-340.
#[test]
fn properties_are_told_to_peers() {
    let context = Context::new();
    let telling = options_with(|options| {
        options.set_raw(95, b"X-one:1").unwrap();
        options.set_raw(95, b"X-two:2").unwrap();
    });
    let pull = Pull::with_options(&context, options()).unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let push = Push::with_options(&context, telling).unwrap();
    push.connect(&endpoint).unwrap();
    push.send_blocking("x").unwrap();
    let (_, peer) = pull.recv_with_peer_blocking().unwrap();
    let peer = peer.unwrap();
    assert_eq!((peer.property("X-one"), peer.property("x-TWO")), (Some(&b"1"[..]), Some(&b"2"[..])));
    assert_eq!(peer.property("X-three"), None);
}

/// Rules: MQ-330, MQ-331, MQ-332.
#[test]
fn heartbeats_say_what_was_asked_for() {
    let context = Context::new();
    let beating = numbered(&[(75, 50), (76, 12_399), (77, 100)]);
    let publisher = XPub::with_options(&context, beating).unwrap();
    let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::up(&endpoint, "SUB", "");
    // 12.3 s, in tenths.
    let (flags, ping) = peer.frame();
    assert_eq!((flags, &ping[..7]), (4, &b"\x04PING\0\x7b"[..]));
    // Nothing is answered, and the timeout is twice the interval.
    assert!(peer.until_closed() >= std::time::Duration::from_millis(50));
    let quiet = XPub::with_options(&context, options()).unwrap();
    let endpoint = quiet.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::up(&endpoint, "SUB", "");
    peer.send(&command("SUBSCRIBE", b"A"));
    assert_eq!(quiet.recv_blocking().unwrap().parts(), [b"\x01A"]);
    peer.has_been_heard();
}
