//! Publishers and subscribers: what is subscribed to, in which form, and who is told.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use tidegate_mq::{Context, Options, Pub, Sub, XPub, XSub};

use crate::{raw, support::*};

fn xpub(context: &Context, endpoint: &str, change: impl FnOnce(&mut Options)) -> (XPub, String) {
    let publisher = XPub::with_options(context, with(change)).unwrap();
    let endpoint = publisher.bind_blocking(endpoint).unwrap();
    (publisher, endpoint)
}

fn sub(context: &Context, endpoint: &str, topics: &[&str]) -> Sub {
    let sub = Sub::with_options(context, options()).unwrap();
    for topic in topics {
        sub.subscribe(topic).unwrap();
    }
    sub.connect(endpoint).unwrap();
    sub
}

fn mock_subscriber(minor: u8, subscribe: &[u8]) {
    let context = context();
    let (publisher, endpoint) = xpub(&context, "tcp://127.0.0.1:*", |_| {});
    let mut stream = raw::connect(&endpoint);
    raw::handshake(&mut stream, minor, "SUB", b"");
    stream.write_all(subscribe).unwrap();
    expect(&publisher, &[b"\x01A"]);
    publisher.send_blocking("B").unwrap();
    publisher.send_blocking(message(["ALOL", "more"])).unwrap();
    assert_eq!(raw::read_frame(&mut stream).unwrap(), (1, b"ALOL".to_vec()));
    assert_eq!(raw::read_frame(&mut stream).unwrap(), (0, b"more".to_vec()));
}

/// libzmq: test_mock_pub_sub/mock_sub_command, test_mock_pub_sub/mock_sub_legacy.
///
/// Rules: MQ-177, MQ-226, MQ-215.
#[test]
fn mock_sub() {
    for minor in [0, 1] {
        mock_subscriber(minor, b"\x04\x0B\x09SUBSCRIBEA");
        mock_subscriber(minor, b"\x00\x02\x01A");
    }
}

fn mock_publisher(minor: u8, expected: &[u8], expected_live: &[u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let context = context();
    let sub = sub(&context, &format!("tcp://{}", listener.local_addr().unwrap()), &["A"]);
    let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
    raw::handshake(&mut stream, minor, "PUB", b"");
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received, expected);
    sub.subscribe("B").unwrap();
    sub.unsubscribe("B").unwrap();
    let mut received = vec![0; expected_live.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received, expected_live);
    stream.write_all(&[raw::frame(0, b"Cold"), raw::frame(0, b"ALOL")].concat()).unwrap();
    expect(&sub, &[b"ALOL"]);
}

/// libzmq: test_mock_pub_sub/mock_pub_command, test_mock_pub_sub/mock_pub_legacy.
///
/// Rules: MQ-178, MQ-231, MQ-232, MQ-233.
#[test]
fn mock_pub() {
    mock_publisher(1, b"\x04\x0B\x09SUBSCRIBEA", b"\x04\x0B\x09SUBSCRIBEB\x04\x08\x06CANCELB");
    mock_publisher(0, b"\x00\x02\x01A", b"\x00\x02\x01B\x00\x02\x00B");
}

/// libzmq: test_pub_invert_matching.
///
/// Rules: MQ-215, MQ-233, MQ-329.
#[test]
fn invert_matching() {
    for endpoint in TRANSPORTS {
        let context = context();
        let publisher = Pub::with_options(&context, with(|options| options.invert_matching = true)).unwrap();
        let endpoint = publisher.bind_blocking(endpoint).unwrap();
        let make = |topic: &str| {
            let sub = Sub::with_options(&context, with(|options| options.invert_matching = true)).unwrap();
            sub.subscribe(topic).unwrap();
            sub.connect(&endpoint).unwrap();
            sub
        };
        let subs = [make("A"), make("B"), make("AB")];
        until("the subscriptions are known", || publisher.topics_count() == 3);
        for topic in ["A", "AB", "B", "C", ""] {
            publisher.send_blocking(topic).unwrap();
        }
        for (sub, expected) in
            subs.iter().zip([&["B", "C", ""][..], &["A", "AB", "C", ""], &["A", "B", "C", ""]])
        {
            for topic in expected {
                expect(sub, &[topic.as_bytes()]);
            }
            nothing(sub);
        }
    }
}

/// libzmq: test_pubsub_topics_count.
///
/// Rules: MQ-229, MQ-230, MQ-347.
#[test]
fn topics_count() {
    for endpoint in TRANSPORTS {
        let context = context();
        let publisher = Pub::with_options(&context, options()).unwrap();
        let endpoint = publisher.bind_blocking(endpoint).unwrap();
        let first = sub(&context, &endpoint, &[]);
        let second = sub(&context, &endpoint, &[]);
        for (number, topic) in ["A", "AB", "ABC", "", "A", "A"].iter().enumerate() {
            first.subscribe(topic).unwrap();
            let count = (number + 1).min(4);
            assert_eq!(first.topics_count(), count);
            until("the publisher knows", || publisher.topics_count() == count);
        }
        second.subscribe("A").unwrap();
        second.subscribe("D").unwrap();
        assert_eq!(second.topics_count(), 2);
        until("the publisher knows", || publisher.topics_count() == 5);
        first.unsubscribe("A").unwrap();
        first.unsubscribe("A").unwrap();
        assert_eq!(first.topics_count(), 4);
        first.unsubscribe("A").unwrap();
        first.unsubscribe("not there").unwrap();
        assert_eq!(first.topics_count(), 3);
        first.unsubscribe("AB").unwrap();
        until("the publisher knows", || publisher.topics_count() == 4);
        drop(second);
        until("the publisher knows", || publisher.topics_count() == 2);
    }
}

/// libzmq: test_sub_forward.
///
/// Rules: MQ-237, MQ-226, MQ-238.
#[test]
fn sub_forward() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (front, at_front) = xpub(&context, endpoint, |_| {});
        let back = XSub::with_options(&context, options()).unwrap();
        let at_back = back.bind_blocking(&endpoint.replace("//a", "//b")).unwrap();
        let publisher = Pub::with_options(&context, options()).unwrap();
        publisher.connect(&at_back).unwrap();
        let sub = sub(&context, &at_front, &[""]);
        // The device, by hand: the subscription one way, the message the other.
        back.send_blocking(front.recv_blocking().unwrap()).unwrap();
        wait(publisher.wait_for_subscribers(b"", 1, PATIENCE)).unwrap();
        publisher.send_blocking("").unwrap();
        front.send_blocking(back.recv_blocking().unwrap()).unwrap();
        expect(&sub, &[b""]);
    }
}

/// libzmq: test_xpub_welcome_msg.
///
/// Rules: MQ-227, MQ-327.
#[test]
fn welcome() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = xpub(&context, endpoint, |options| options.xpub_welcome_msg = "W".into());
        let sub = sub(&context, &endpoint, &["W"]);
        expect(&publisher, &[b"\x01W"]);
        publisher.send_blocking("W too").unwrap();
        expect(&sub, &[b"W"]);
        expect(&sub, &[b"W too"]);
    }
}

/// libzmq: test_xpub_topic/long_topic (245 and 246 octets cross the limit of short frames).
///
/// Rules: MQ-178, MQ-226.
#[test]
fn long_topic() {
    for endpoint in TRANSPORTS {
        for len in [1, 244, 245, 246, 247, 255, 256, 10_000] {
            let context = context();
            let (publisher, endpoint) = xpub(&context, endpoint, |_| {});
            let topic = "T".repeat(len);
            let sub = sub(&context, &endpoint, &[&topic]);
            expect(&publisher, &[format!("\x01{topic}").as_bytes()]);
            publisher.send_blocking(topic.as_str()).unwrap();
            expect(&sub, &[topic.as_bytes()]);
            sub.unsubscribe(&topic).unwrap();
            expect(&publisher, &[format!("\0{topic}").as_bytes()]);
        }
    }
}

/// libzmq: test_xpub_verbose/xpub_verbose_one_sub.
///
/// Rules: MQ-223, MQ-307.
#[test]
fn verbose_one_sub() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = xpub(&context, endpoint, |_| {});
        let sub = sub(&context, &endpoint, &["A"]);
        expect(&publisher, &[b"\x01A"]);
        sub.subscribe("B").unwrap();
        expect(&publisher, &[b"\x01B"]);
        sub.subscribe("A").unwrap();
        sub.subscribe("C").unwrap();
        // The second A is nothing new.
        expect(&publisher, &[b"\x01C"]);
        set_verbose(&publisher, true, false);
        sub.subscribe("A").unwrap();
        expect(&publisher, &[b"\x01A"]);
        publisher.send_blocking("A").unwrap();
        publisher.send_blocking("B").unwrap();
        expect(&sub, &[b"A"]);
        expect(&sub, &[b"B"]);
        nothing(&sub);
    }
}

fn set_verbose(publisher: &XPub, verbose: bool, verboser: bool) {
    publisher
        .set_options(|options| {
            options.xpub_verbose = verbose;
            options.xpub_verboser = verboser;
            Ok(())
        })
        .unwrap();
}

/// libzmq: test_xpub_verbose/xpub_verbose_two_subs.
///
/// Rules: MQ-223, MQ-307.
#[test]
fn verbose_two_subs() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = xpub(&context, endpoint, |_| {});
        let first = sub(&context, &endpoint, &["A"]);
        expect(&publisher, &[b"\x01A"]);
        let second = sub(&context, &endpoint, &["A", "B"]);
        expect(&publisher, &[b"\x01B"]);
        set_verbose(&publisher, true, false);
        second.subscribe("A").unwrap();
        expect(&publisher, &[b"\x01A"]);
        publisher.send_blocking("A").unwrap();
        publisher.send_blocking("B").unwrap();
        expect(&first, &[b"A"]);
        expect(&second, &[b"A"]);
        expect(&second, &[b"B"]);
        nothing(&publisher);
    }
}

/// libzmq: test_xpub_verbose/xpub_verboser_one_sub, xpub_verboser_two_subs.
///
/// Rules: MQ-223, MQ-225, MQ-230, MQ-307.
#[test]
fn verboser() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = xpub(&context, endpoint, |_| {});
        // Of A nobody is left only after the second one.
        let first = sub(&context, &endpoint, &["A"]);
        expect(&publisher, &[b"\x01A"]);
        let second = sub(&context, &endpoint, &["A", "B"]);
        expect(&publisher, &[b"\x01B"]);
        first.unsubscribe("A").unwrap();
        second.unsubscribe("A").unwrap();
        expect(&publisher, &[b"\0A"]);
        nothing(&publisher);
        set_verbose(&publisher, false, true);
        for sub in [&first, &second] {
            sub.subscribe("A").unwrap();
            expect(&publisher, &[b"\x01A"]);
            sub.subscribe("A").unwrap();
            expect(&publisher, &[b"\x01A"]);
        }
        for sub in [&first, &second] {
            // The subscriber counts: one of two makes no difference.
            sub.unsubscribe("A").unwrap();
            sub.unsubscribe("A").unwrap();
            expect(&publisher, &[b"\0A"]);
        }
        nothing(&publisher);
        set_verbose(&publisher, false, false);
        first.subscribe("B").unwrap();
        first.subscribe("C").unwrap();
        expect(&publisher, &[b"\x01C"]);
    }
}

/// libzmq: test_xsub_verbose.
///
/// Rules: MQ-237, MQ-346.
#[test]
fn xsub_verbose() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, endpoint) = xpub(&context, endpoint, |options| options.xpub_verboser = true);
        let xsub = XSub::with_options(&context, options()).unwrap();
        xsub.connect(&endpoint).unwrap();
        for _ in 0..2 {
            xsub.send_blocking("\x01A").unwrap();
            expect(&publisher, &[b"\x01A"]);
        }
        // Two were asked for, so that the first cancel is kept back, and unknown ones are swallowed.
        xsub.send_blocking("\0A").unwrap();
        xsub.send_blocking("\0unknown").unwrap();
        xsub.send_blocking("\x01B").unwrap();
        expect(&publisher, &[b"\x01B"]);
        xsub.send_blocking("\0A").unwrap();
        expect(&publisher, &[b"\0A"]);
        xsub.set_options(|options| {
            options.xsub_verbose_unsubscribe = true;
            Ok(())
        })
        .unwrap();
        for _ in 0..2 {
            xsub.send_blocking("\x01A").unwrap();
            expect(&publisher, &[b"\x01A"]);
        }
        xsub.send_blocking("\0A").unwrap();
        expect(&publisher, &[b"\0A"]);
        // The publisher's set has lost it with the first; what a peer does not hold is not notified.
        xsub.send_blocking("\0A").unwrap();
        xsub.send_blocking("\x01C").unwrap();
        expect(&publisher, &[b"\x01C"]);
    }
}
