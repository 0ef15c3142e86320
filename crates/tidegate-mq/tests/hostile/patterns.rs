//! Peers that break the rules of a pattern.

use std::time::Duration;

use tidegate_mq::{
    Error, Message, Pair, Rep, Req, Router,
    monitor::{CloseReason, EventKind},
};

use super::{
    child::{self, alone},
    peer::{Raw, frame, message},
    rig::{
        ANYWHERE, DRIVERS, context, disconnected, established, event, fault, options, options_with, until,
    },
};

/// Without handover a routing id belongs to who has it; a newcomer is turned away and may have it later.
///
/// Rules: MQ-408, MQ-208.
#[test]
fn a_taken_routing_id_is_refused() {
    for driver in DRIVERS {
        let context = context(driver);
        let router = Router::with_options(&context, options()).unwrap();
        let monitor = router.monitor();
        let endpoint = router.bind_blocking(ANYWHERE).unwrap();
        let mut first = Raw::up(&endpoint, "DEALER", "one");
        established(&monitor);
        for _ in 0..3 {
            let mut second = Raw::up(&endpoint, "DEALER", "one");
            event(&monitor, "refusal", |kind| matches!(kind, EventKind::RoutingIdInUse).then_some(()));
            second.until_closed();
            event(&monitor, "end", disconnected);
            first.send(&message(&[b"still"]));
            assert_eq!(router.recv_blocking().unwrap(), ["one", "still"].into_iter().collect::<Message>());
            router.send_blocking(["one", "here"].into_iter().collect::<Message>()).unwrap();
            assert_eq!(first.frame(), (0, b"here".to_vec()));
        }
        first.reset();
        event(&monitor, "end", disconnected);
        let mut third = Raw::up(&endpoint, "DEALER", "one");
        established(&monitor);
        router.send_blocking(["one", "yours"].into_iter().collect::<Message>()).unwrap();
        assert_eq!(third.frame(), (0, b"yours".to_vec()));
        context.term_blocking();
    }
}

/// With handover the last one to come has the id, those before are closed, and nothing of them stays.
///
/// Rules: MQ-409, MQ-209, MQ-068.
#[test]
fn a_thousand_fight_for_one_routing_id() {
    let Some(driver) = alone("patterns::a_thousand_fight_for_one_routing_id") else { return };
    let context = context(driver);
    let router =
        Router::with_options(&context, options_with(|options| options.router_handover = true)).unwrap();
    let monitor = router.monitor();
    let endpoint = router.bind_blocking(ANYWHERE).unwrap();
    let mut owner = Raw::up(&endpoint, "DEALER", "one");
    established(&monitor);
    let descriptors = child::descriptors();
    for number in 0..1000_u32 {
        let mut newcomer = Raw::up(&endpoint, "DEALER", "one");
        established(&monitor);
        owner.until_closed();
        owner = newcomer_owns(&router, newcomer, number);
        if number == 0 {
            newcomer = Raw::up(&endpoint, "DEALER", "two");
            established(&monitor);
            newcomer.reset();
        }
    }
    drop(monitor);
    until("the others are gone", || child::descriptors() <= descriptors);
    owner.send(&message(&[b"mine"]));
    assert_eq!(router.recv_blocking().unwrap(), ["one", "mine"].into_iter().collect::<Message>());
    context.term_blocking();
}

fn newcomer_owns(router: &Router, mut newcomer: Raw, number: u32) -> Raw {
    let text = number.to_string();
    router.send_blocking(["one", &text].into_iter().collect::<Message>()).unwrap();
    assert_eq!(newcomer.frame(), (0, text.into_bytes()));
    newcomer
}

/// A second peer of a PAIR is told to go.
///
/// Rules: MQ-411, MQ-245.
#[test]
fn a_second_pair_peer_is_closed() {
    for driver in DRIVERS {
        let context = context(driver);
        let pair = Pair::with_options(&context, options()).unwrap();
        let monitor = pair.monitor();
        let endpoint = pair.bind_blocking(ANYWHERE).unwrap();
        let mut first = Raw::up(&endpoint, "PAIR", "");
        established(&monitor);
        let mut second = Raw::up(&endpoint, "PAIR", "");
        second.try_send(&message(&[b"unheard"]));
        event(&monitor, "refusal", |kind| matches!(kind, EventKind::PairBusy).then_some(()));
        second.until_closed();
        first.send(&message(&[b"heard"]));
        assert_eq!(pair.recv_blocking().unwrap().parts()[0], "heard");
        pair.send_blocking("answer").unwrap();
        assert_eq!(first.frame(), (0, b"answer".to_vec()));
        drop(first);
        event(&monitor, "end", disconnected);
        let mut third = Raw::up(&endpoint, "PAIR", "");
        established(&monitor);
        third.send(&message(&[b"next"]));
        assert_eq!(pair.recv_blocking().unwrap().parts()[0], "next");
        context.term_blocking();
    }
}

/// A request without an empty part is nothing, and its sender stays.
///
/// Rules: MQ-435.
#[test]
fn a_request_without_delimiter_is_discarded() {
    for driver in DRIVERS {
        let context = context(driver);
        let rep = Rep::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "DEALER", "");
        peer.send(&message(&[b"no delimiter"]));
        peer.send(&message(&[b"id", b"id", b"none either"]));
        peer.send(&message(&[b"id", b"", b"a request"]));
        assert_eq!(rep.recv_blocking().unwrap(), Message::from("a request"));
        rep.send_blocking("a reply").unwrap();
        let reply = [peer.frame(), peer.frame(), peer.frame()];
        assert_eq!(reply, [(1, b"id".to_vec()), (1, Vec::new()), (0, b"a reply".to_vec())]);
        context.term_blocking();
    }
}

/// An envelope of more parts than a message may have ends the connection, before anything is delivered.
///
/// Rules: MQ-436.
#[test]
fn an_envelope_without_end_is_cut_off() {
    for driver in DRIVERS {
        let context = context(driver);
        let rep = Rep::with_options(&context, options()).unwrap();
        let monitor = rep.monitor();
        let endpoint = rep.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "DEALER", "");
        peer.try_send(&[frame(1, b"r").repeat(70_000), message(&[b"", b"request"])].concat());
        assert!(matches!(fault(&monitor), CloseReason::MessageTooLarge(_)));
        peer.until_closed();
        assert!(matches!(rep.try_recv(), Err(Error::WouldBlock)));
        context.term_blocking();
    }
}

/// A REQ socket takes one reply of the right form, from who has the request; other replies are nothing, and what is no
/// reply at all ends the connection.
///
/// Rules: MQ-437, MQ-438, MQ-194.
#[test]
fn a_reply_nobody_asked_for_is_discarded() {
    for driver in DRIVERS {
        let context = context(driver);
        let req = Req::with_options(&context, options()).unwrap();
        let monitor = req.monitor();
        let endpoint = req.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "REP", "");
        established(&monitor);
        peer.send(&message(&[b"", b"unasked"]));
        peer.has_been_heard();
        for round in [b"one", b"two"] {
            req.send_blocking(round.as_slice()).unwrap();
            assert_eq!([peer.frame(), peer.frame()], [(1, Vec::new()), (0, round.to_vec())]);
            peer.send(&[message(&[b"", round]), message(&[b"", b"once more"])].concat());
            assert_eq!(req.recv_blocking().unwrap(), Message::from(round.as_slice()));
        }
        req.send_blocking("three").unwrap();
        peer.frame();
        peer.send(&message(&[b"no delimiter"]));
        assert_eq!(fault(&monitor), CloseReason::MalformedMessage);
        peer.until_closed();
        assert!(matches!(req.try_recv(), Err(Error::WouldBlock)), "what was no reply was received");
        context.term_blocking();
    }
}

/// A message of a routing id and nothing else goes nowhere and disturbs nobody.
///
/// Rules: MQ-439.
#[test]
fn a_routing_id_alone_is_not_a_message() {
    for driver in DRIVERS {
        let context = context(driver);
        let router = Router::with_options(&context, options()).unwrap();
        let monitor = router.monitor();
        let endpoint = router.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "DEALER", "one");
        established(&monitor);
        let _dropped_or_refused = router.send_blocking("one");
        router.send_blocking(["one", "whole"].into_iter().collect::<Message>()).unwrap();
        assert_eq!(peer.frame(), (0, b"whole".to_vec()));
        peer.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(std::io::Read::read(&mut peer.0, &mut [0]).is_err(), "something else was sent");
        context.term_blocking();
    }
}
