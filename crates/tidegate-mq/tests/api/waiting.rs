//! Publishers that wait for subscribers: each sender for those whom its message is for, and nobody longer than needed.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context as TaskContext, Waker},
};

use tidegate_mq::{AnySocket, Context, Error, Interest, Pub, SocketType, Sub, XPub, socket::CanSend};

use crate::{
    options,
    support::{expect, nothing, wait},
};

const KINDS: [SocketType; 2] = [SocketType::Pub, SocketType::XPub];

/// A publisher that waits, with room for two messages for each subscriber.
fn publisher(context: &Context, kind: SocketType) -> AnySocket {
    let mut sending = options();
    (sending.sndhwm, sending.xpub_nodrop) = (1, true);
    let publisher = AnySocket::of_type_with(context, kind, sending).unwrap();
    publisher.bind_blocking("inproc://news").unwrap();
    publisher
}

fn subscriber(context: &Context, topics: &[&str]) -> Sub {
    let mut receiving = options();
    receiving.rcvhwm = 1;
    let sub = Sub::with_options(context, receiving).unwrap();
    sub.connect("inproc://news").unwrap();
    for topic in topics {
        sub.subscribe(topic).unwrap();
    }
    sub
}

/// Sends until somebody is full.
fn fill<K: CanSend>(publisher: &tidegate_mq::Socket<K>, topic: &str) {
    (0..2).for_each(|_| publisher.try_send(topic).unwrap());
    assert!(matches!(publisher.try_send(topic).unwrap_err().error, Error::WouldBlock));
}

/// Has a send join those that wait.
fn waits<T>(send: Pin<&mut impl Future<Output = T>>) {
    assert!(send.poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
}

/// A sender whose subscribers have room is held up neither by one that waits for another, nor by one that gave up.
///
/// Rules: MQ-217, MQ-061.
#[test]
fn senders_wait_for_the_subscribers_of_their_own_message() {
    for kind in KINDS {
        let context = Context::new();
        let publisher = publisher(&context, kind);
        let [stalled, busy, healthy] = ["A", "B", "C"].map(|topic| subscriber(&context, &[topic]));
        fill(&publisher, "A");
        assert!(publisher.readiness().unwrap().send, "for others there is room");
        let mut first = Box::pin(publisher.send("A"));
        waits(first.as_mut());
        publisher.try_send("C").unwrap();
        expect(&healthy, &[b"C"]);
        fill(&publisher, "B");
        let mut second = pin!(publisher.send("B"));
        waits(second.as_mut());
        let mut third = pin!(publisher.send("B"));
        waits(third.as_mut());
        drop(first);
        // Room for both, and they wait for nobody but the one that has it.
        (0..2).for_each(|_| expect(&busy, &[b"B"]));
        wait(second).unwrap();
        wait(third).unwrap();
        wait(publisher.send("C")).unwrap();
        expect(&healthy, &[b"C"]);
        (0..2).for_each(|_| expect(&stalled, &[b"A"]));
        nothing(&stalled);
    }
}

/// A publisher is ready to send while some subscriber has room, and while it has none.
///
/// Rules: MQ-217, MQ-048.
#[test]
fn a_publisher_is_ready_while_some_subscriber_has_room() {
    for kind in KINDS {
        let context = Context::new();
        let publisher = publisher(&context, kind);
        let nobody = subscriber(&context, &[]);
        let [a, b] = ["A", "B"].map(|topic| subscriber(&context, &[topic]));
        fill(&publisher, "A");
        fill(&publisher, "B");
        assert!(!publisher.readiness().unwrap().send, "who has not subscribed has no say");
        let mut ready = pin!(publisher.ready(Interest::Send));
        waits(ready.as_mut());
        (0..2).for_each(|_| expect(&b, &[b"B"]));
        assert!(wait(ready).unwrap().send);
        fill(&publisher, "B");
        let mut ready = pin!(publisher.ready(Interest::Send));
        waits(ready.as_mut());
        a.unsubscribe("A").unwrap();
        b.unsubscribe("B").unwrap();
        assert!(wait(ready).unwrap().send);
        drop(nobody);
    }
}

/// Room is kept once every subscriber has it, without a further look by whoever waits for that.
///
/// Rules: MQ-076, MQ-217.
#[test]
fn room_is_kept_once_everybody_has_it() {
    for kind in KINDS {
        let context = Context::new();
        let publisher = publisher(&context, kind);
        let [a, b] = ["A", "B"].map(|topic| subscriber(&context, &[topic]));
        fill(&publisher, "A");
        fill(&publisher, "B");
        let mut reserve = pin!(publisher.reserve());
        waits(reserve.as_mut());
        (0..2).for_each(|_| expect(&a, &[b"A"]));
        waits(reserve.as_mut());
        (0..2).for_each(|_| expect(&b, &[b"B"]));
        wait(reserve).unwrap().send("B").unwrap();
        expect(&b, &[b"B"]);
    }
}

/// Nobody waits for a subscriber that does not want the message any more, whether it says so or the application does.
///
/// Rules: MQ-217, MQ-225.
#[test]
fn a_cancelled_subscription_holds_nobody_up() {
    for kind in KINDS {
        let context = Context::new();
        let publisher = publisher(&context, kind);
        let sub = subscriber(&context, &["A", "B"]);
        fill(&publisher, "A");
        let mut send = pin!(publisher.send("A"));
        waits(send.as_mut());
        let mut other = pin!(publisher.send("B"));
        waits(other.as_mut());
        let mut reserve = pin!(publisher.reserve());
        waits(reserve.as_mut());
        sub.unsubscribe("A").unwrap();
        wait(send).unwrap();
        waits(other.as_mut());
        sub.unsubscribe("B").unwrap();
        wait(other).unwrap();
        drop(wait(reserve).unwrap());
    }
    let context = Context::new();
    let mut by_hand = options();
    (by_hand.sndhwm, by_hand.xpub_nodrop, by_hand.xpub_manual) = (1, true, true);
    let publisher = XPub::with_options(&context, by_hand).unwrap();
    publisher.bind_blocking("inproc://news").unwrap();
    let _sub = subscriber(&context, &["A"]);
    expect(&publisher, &[b"\x01A"]);
    publisher.subscribe("A").unwrap();
    fill(&publisher, "A");
    let mut send = pin!(publisher.send("A"));
    waits(send.as_mut());
    publisher.unsubscribe("A").unwrap();
    wait(send).unwrap();
}

/// With inverted matching it is a new subscription by which somebody does not want a message.
///
/// Rules: MQ-217, MQ-215.
#[test]
fn an_inverted_subscription_holds_nobody_up() {
    let context = Context::new();
    let mut inverted = options();
    (inverted.sndhwm, inverted.rcvhwm, inverted.xpub_nodrop, inverted.invert_matching) = (1, 1, true, true);
    let publisher = Pub::with_options(&context, inverted.clone()).unwrap();
    publisher.bind_blocking("inproc://news").unwrap();
    let sub = Sub::with_options(&context, inverted).unwrap();
    sub.connect("inproc://news").unwrap();
    fill(&publisher, "A");
    let mut send = pin!(publisher.send("A"));
    waits(send.as_mut());
    sub.subscribe("A").unwrap();
    wait(send).unwrap();
}

/// With `xpub_manual_last_value` a message is for the peer that was heard last: when that is another, nobody waits for the
/// one before.
///
/// Rules: MQ-217.
#[test]
fn who_was_heard_before_the_last_holds_nobody_up() {
    let context = Context::new();
    let mut last_value = options();
    (last_value.sndhwm, last_value.xpub_nodrop, last_value.xpub_manual_last_value) = (1, true, true);
    let publisher = XPub::with_options(&context, last_value).unwrap();
    publisher.bind_blocking("inproc://news").unwrap();
    let full = subscriber(&context, &["A"]);
    expect(&publisher, &[b"\x01A"]);
    publisher.subscribe("A").unwrap();
    ["A1", "A2"].iter().for_each(|topic| full.subscribe(topic).unwrap());
    fill(&publisher, "A");
    let other = subscriber(&context, &["A"]);
    let mut send = pin!(publisher.send("A"));
    waits(send.as_mut());
    for expected in [&b"\x01A1"[..], b"\x01A2", b"\x01A"] {
        expect(&publisher, &[expected]);
    }
    wait(send).unwrap();
    nothing(&other);
}

/// Room that is kept is kept with each subscriber: others use what is left with those of their messages, and when it is not
/// kept any more, what the message was not for.
///
/// Rules: MQ-076, MQ-217.
#[test]
fn room_kept_with_others_is_free_again() {
    for is_used in [true, false] {
        for kind in KINDS {
            let context = Context::new();
            let publisher = publisher(&context, kind);
            let [_stalled, healthy] = ["A", "B"].map(|topic| subscriber(&context, &[topic]));
            publisher.try_send("A").unwrap();
            let permit = publisher.try_reserve().unwrap();
            let mut reserve = Box::pin(publisher.reserve());
            waits(reserve.as_mut());
            publisher.try_send("B").unwrap();
            expect(&healthy, &[b"B"]);
            publisher.try_send("B").unwrap();
            let mut send = pin!(publisher.send("B"));
            waits(send.as_mut());
            if is_used {
                permit.send("A").unwrap();
            } else {
                drop(permit);
            }
            wait(send).unwrap();
            (0..2).for_each(|_| expect(&healthy, &[b"B"]));
            drop(reserve);
            assert_eq!(publisher.try_reserve().is_err(), is_used);
        }
    }
}
