//! XPUB in manual mode: the application decides what subscribers get.

use tidegate_mq::{Context, Options, Sub, XPub, XSub};

use crate::support::*;

fn manual(context: &Context, endpoint: &str) -> (XPub, String) {
    made(context, endpoint, |options| options.xpub_manual = true)
}

fn last_value(context: &Context, endpoint: &str) -> (XPub, String) {
    made(context, endpoint, |options| options.xpub_manual_last_value = true)
}

fn made(context: &Context, endpoint: &str, change: impl FnOnce(&mut Options)) -> (XPub, String) {
    let publisher = XPub::with_options(context, with(change)).unwrap();
    let endpoint = publisher.bind_blocking(endpoint).unwrap();
    (publisher, endpoint)
}

/// An XSUB filters nothing, so that it shows what the publisher sends.
fn xsub(context: &Context, endpoint: &str) -> XSub {
    let xsub = XSub::with_options(context, options()).unwrap();
    xsub.connect(endpoint).unwrap();
    xsub
}

/// Subscribes, and sees the notice come.
#[track_caller]
fn asks(xsub: &XSub, publisher: &XPub, topic: &str) {
    xsub.subscribe(topic).unwrap();
    expect(publisher, &[&[b"\x01", topic.as_bytes()].concat()]);
}

/// libzmq: test_xpub_manual/basic.
///
/// Rules: MQ-226, MQ-326.
#[test]
fn basic() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = manual(&context, endpoint);
        // Nobody to attach to yet: accepted, without effect.
        publisher.subscribe("X").unwrap();
        let xsub = xsub(&context, &endpoint);
        asks(&xsub, &publisher, "A");
        publisher.subscribe("B").unwrap();
        for topic in ["A", "X", "B"] {
            publisher.send_blocking(topic).unwrap();
        }
        expect(&xsub, &[b"B"]);
        nothing(&xsub);
    }
}

/// libzmq: test_xpub_manual/unsubscribe, test_xpub_manual_last_value/unsubscribe.
///
/// Rules: MQ-226, MQ-326.
#[test]
fn unsubscribe() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = manual(&context, endpoint);
        let xsub = xsub(&context, &endpoint);
        asks(&xsub, &publisher, "A");
        publisher.subscribe("A").unwrap();
        publisher.send_blocking("A").unwrap();
        xsub.unsubscribe("A").unwrap();
        expect(&publisher, &[b"\0A"]);
        // Still subscribed until the application says so.
        publisher.send_blocking("A again").unwrap();
        publisher.unsubscribe("A").unwrap();
        publisher.subscribe("B").unwrap();
        publisher.send_blocking("A too late").unwrap();
        publisher.send_blocking("B").unwrap();
        for text in ["A", "A again", "B"] {
            expect(&xsub, &[text.as_bytes()]);
        }
        nothing(&xsub);
    }
}

/// libzmq: test_xpub_manual/unsubscribe_on_disconnect, test_xpub_manual_last_value/unsubscribe_on_disconnect.
///
/// Rules: MQ-224.
#[test]
fn unsubscribe_on_disconnect() {
    for endpoint in TRANSPORTS {
        for make in [manual, last_value] {
            let context = context();
            let (publisher, endpoint) = make(&context, endpoint);
            let gone = xsub(&context, &endpoint);
            asks(&gone, &publisher, "A");
            publisher.subscribe("B").unwrap();
            publisher.send_blocking("A").unwrap();
            publisher.send_blocking("B").unwrap();
            expect(&gone, &[b"B"]);
            drop(gone);
            // The notice says what the peer had asked for, not what it was given.
            expect(&publisher, &[b"\0A"]);
            nothing(&publisher);
            publisher.subscribe("C").unwrap();
            let other = xsub(&context, &endpoint);
            asks(&other, &publisher, "other");
            publisher.subscribe("other").unwrap();
            for topic in ["B", "C", "other"] {
                publisher.send_blocking(topic).unwrap();
            }
            expect(&other, &[b"other"]);
            nothing(&other);
        }
    }
}

/// libzmq: test_xpub_manual/xpub_proxy_unsubscribe_on_disconnect, missing_subscriptions.
///
/// Rules: MQ-224, MQ-367.
#[test]
fn proxy_unsubscribe_on_disconnect() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (front, at_front) = manual(&context, endpoint);
        let back = XSub::with_options(&context, options()).unwrap();
        let at_back = back.bind_blocking(&endpoint.replace("//a", "//b")).unwrap();
        let publisher = XPub::with_options(&context, options()).unwrap();
        publisher.connect(&at_back).unwrap();
        // What a manual proxy does with each notice of the front.
        let forward = |expected: &[u8]| {
            let notice = front.recv_blocking().unwrap();
            assert_eq!(parts(&notice), [expected]);
            let topic = &expected[1..];
            if expected[0] == 1 { front.subscribe(topic) } else { front.unsubscribe(topic) }.unwrap();
            back.send_blocking(notice).unwrap();
        };
        let make = |topic: &str| {
            let sub = Sub::with_options(&context, options()).unwrap();
            sub.subscribe(topic).unwrap();
            sub.connect(&at_front).unwrap();
            sub
        };
        let first = make("1");
        forward(b"\x011");
        let second = make("2");
        forward(b"\x012");
        expect(&publisher, &[b"\x011"]);
        expect(&publisher, &[b"\x012"]);
        for topic in ["1", "2"] {
            publisher.send_blocking(topic).unwrap();
            front.send_blocking(back.recv_blocking().unwrap()).unwrap();
        }
        expect(&first, &[b"1"]);
        expect(&second, &[b"2"]);
        drop(first);
        forward(b"\x001");
        drop(second);
        forward(b"\x002");
        expect(&publisher, &[b"\x001"]);
        expect(&publisher, &[b"\x002"]);
    }
}

/// libzmq: test_xpub_manual/unsubscribe_cleanup, test_xpub_manual_last_value/unsubscribe_cleanup.
///
/// Rules: MQ-224, MQ-326.
#[test]
fn unsubscribe_cleanup() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = manual(&context, endpoint);
        let xsub_socket = xsub(&context, &endpoint);
        asks(&xsub_socket, &publisher, "A");
        publisher.subscribe("XA").unwrap();
        publisher.send_blocking("XA").unwrap();
        expect(&xsub_socket, &[b"XA"]);
        xsub_socket.unsubscribe("A").unwrap();
        expect(&publisher, &[b"\0A"]);
        publisher.unsubscribe("XA").unwrap();
        asks(&xsub_socket, &publisher, "B");
        publisher.subscribe("XB").unwrap();
        publisher.send_blocking("XA").unwrap();
        publisher.send_blocking("XB").unwrap();
        expect(&xsub_socket, &[b"XB"]);
        drop(xsub_socket);
        // Only what it held at the end.
        expect(&publisher, &[b"\0B"]);
        nothing(&publisher);
    }
}

/// libzmq: test_xpub_manual/user_message.
///
/// Rules: MQ-226, MQ-239.
#[test]
fn user_message() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = manual(&context, endpoint);
        let xsub = xsub(&context, &endpoint);
        asks(&xsub, &publisher, "A");
        xsub.send_blocking(message(["X", "second part"])).unwrap();
        expect(&publisher, &[b"X", b"second part"]);
    }
}

/// libzmq: test_xpub_manual_last_value/basic, xpub_proxy_unsubscribe_on_disconnect, missing_subscriptions.
///
/// Rules: MQ-326, MQ-226.
#[test]
fn last_value_to_one_peer() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = last_value(&context, endpoint);
        let first = xsub(&context, &endpoint);
        asks(&first, &publisher, "A");
        publisher.subscribe("A").unwrap();
        publisher.send_blocking(message(["A", "for the first"])).unwrap();
        let second = xsub(&context, &endpoint);
        asks(&second, &publisher, "A");
        publisher.subscribe("A").unwrap();
        publisher.send_blocking(message(["A", "for the second"])).unwrap();
        publisher.send_blocking(message(["A", "for both"])).unwrap();
        expect(&first, &[b"A", b"for the first"]);
        expect(&first, &[b"A", b"for both"]);
        expect(&second, &[b"A", b"for the second"]);
        expect(&second, &[b"A", b"for both"]);
    }
}
