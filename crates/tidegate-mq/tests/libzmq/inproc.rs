//! In-process links: binding late, many at a time, and their ends.

use std::time::{Duration, Instant};

use tidegate_mq::{Context, Dealer, Error, Pair, Pub, Pull, Push, Router, Sub, XPub, XSub};

use crate::support::*;

/// libzmq: test_inproc_connect/bind_before_connect, connect_before_bind.
///
/// Rules: MQ-268.
#[test]
fn bind_and_connect_in_either_order() {
    for bind_first in [true, false] {
        let context = context();
        let bound = Pair::with_options(&context, options()).unwrap();
        let connected = Pair::with_options(&context, options()).unwrap();
        if bind_first {
            bound.bind_blocking("inproc://a").unwrap();
        }
        connected.connect("inproc://a").unwrap();
        connected.send_blocking("foobar").unwrap();
        if !bind_first {
            bound.bind_blocking("inproc://a").unwrap();
        }
        expect(&bound, &[b"foobar"]);
        bounce(&bound, &connected);
    }
}

/// libzmq: test_inproc_connect/connect_before_bind_pub_sub.
///
/// Rules: MQ-268, MQ-217.
#[test]
fn connect_before_bind_pub_sub() {
    let context = context();
    let publisher = Pub::with_options(&context, options()).unwrap();
    publisher.connect("inproc://a").unwrap();
    // Nobody has asked for this.
    publisher.send_blocking("before").unwrap();
    let sub = Sub::with_options(&context, options()).unwrap();
    sub.subscribe("").unwrap();
    sub.bind_blocking("inproc://a").unwrap();
    publisher.send_blocking("after").unwrap();
    expect(&sub, &[b"after"]);
}

/// libzmq: test_inproc_connect/connect_before_bind_ctx_term, connect_only.
///
/// Rules: MQ-268, MQ-080.
#[test]
fn connect_only() {
    for wait_for_it in [true, false] {
        let context = context();
        let sockets: Vec<_> = (0..20)
            .map(|number| {
                let socket = Pair::with_options(&context, options()).unwrap();
                socket.connect(&format!("inproc://{}", number % 3)).unwrap();
                socket
            })
            .collect();
        if wait_for_it {
            let started = Instant::now();
            assert_eq!(context.term_blocking(), 0);
            assert!(started.elapsed() < Duration::from_secs(20));
            assert!(matches!(sockets[0].try_recv(), Err(Error::Terminated)));
        }
    }
}

/// libzmq: test_inproc_connect/multiple_connects.
///
/// Rules: MQ-268, MQ-188.
#[test]
fn multiple_connects() {
    let context = context();
    let connected: Vec<_> = (0..10_u8)
        .map(|number| {
            let push = Push::with_options(&context, options()).unwrap();
            push.connect("inproc://a").unwrap();
            push.send_blocking(&[number]).unwrap();
            push
        })
        .collect();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://a").unwrap();
    let mut heard: Vec<u8> = (0..10).map(|_| pull.recv_blocking().unwrap().parts()[0][0]).collect();
    heard.sort_unstable();
    assert_eq!(heard, (0..10).collect::<Vec<_>>());
    assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
    drop(connected);
}

/// libzmq: test_inproc_connect/multiple_threads.
///
/// Rules: MQ-268, MQ-072.
#[test]
fn multiple_threads() {
    let context = context();
    let threads: Vec<_> = (0..30_u8)
        .map(|number| {
            let context = context.clone();
            std::thread::spawn(move || {
                let push = Push::with_options(&context, with(|options| options.linger = None)).unwrap();
                push.connect("inproc://a").unwrap();
                push.send_blocking(&[number]).unwrap();
            })
        })
        .collect();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://a").unwrap();
    let mut heard: Vec<u8> = threads.iter().map(|_| pull.recv_blocking().unwrap().parts()[0][0]).collect();
    heard.sort_unstable();
    assert_eq!(heard, (0..30).collect::<Vec<_>>());
    for thread in threads {
        thread.join().unwrap();
    }
}

/// libzmq: test_inproc_connect/simultaneous_connect_bind_threads.
///
/// Rules: MQ-268.
#[test]
fn simultaneous_connect_and_bind() {
    let context = context();
    for round in 0..200 {
        let endpoint = format!("inproc://{round}");
        let (bound, connected) = std::thread::scope(|scope| {
            let bind = scope.spawn(|| {
                let pull = Pull::with_options(&context, options()).unwrap();
                pull.bind_blocking(&endpoint).unwrap();
                pull
            });
            let connect = scope.spawn(|| {
                let push = Push::with_options(&context, options()).unwrap();
                push.connect(&endpoint).unwrap();
                push.send_blocking("foobar").unwrap();
                push
            });
            (bind.join().unwrap(), connect.join().unwrap())
        });
        expect(&bound, &[b"foobar"]);
        connected.send_blocking("more").unwrap();
        expect(&bound, &[b"more"]);
    }
}

/// libzmq: test_inproc_connect/routing_id.
///
/// Rules: MQ-271, MQ-206.
#[test]
fn routing_id() {
    for bind_first in [true, false] {
        let context = context();
        let dealer =
            Dealer::with_options(&context, with(|options| options.set_raw(5, b"A").unwrap())).unwrap();
        let router = Router::with_options(&context, options()).unwrap();
        if bind_first {
            router.bind_blocking("inproc://a").unwrap();
        }
        dealer.connect("inproc://a").unwrap();
        dealer.send_blocking("foobar").unwrap();
        if !bind_first {
            router.bind_blocking("inproc://a").unwrap();
        }
        expect(&router, &[b"A", b"foobar"]);
        router.send_blocking(message(["A", "back"])).unwrap();
        expect(&dealer, &[b"back"]);
    }
}

/// libzmq: test_inproc_connect/unbind.
///
/// Rules: MQ-272, MQ-268.
#[test]
fn unbind_and_rebind() {
    let context = context();
    let first = Pair::with_options(&context, options()).unwrap();
    first.bind_blocking("inproc://a").unwrap();
    let busy = Pair::with_options(&context, options()).unwrap().bind_blocking("inproc://a").unwrap_err();
    assert!(matches!(busy, Error::AddressInUse(_)));
    first.unbind("inproc://a").unwrap();
    assert!(matches!(first.unbind("inproc://a"), Err(Error::NotFound(_))));
    let second = Pair::with_options(&context, options()).unwrap();
    second.bind_blocking("inproc://a").unwrap();
    let connected = Pair::with_options(&context, options()).unwrap();
    connected.connect("inproc://a").unwrap();
    connected.send_blocking("foobar").unwrap();
    expect(&second, &[b"foobar"]);
    assert!(matches!(first.try_recv(), Err(Error::WouldBlock)));
    // Links that exist outlast the name.
    second.unbind("inproc://a").unwrap();
    bounce(&second, &connected);
}

/// libzmq: test_inproc_connect/shutdown_during_pend.
///
/// Rules: MQ-268, MQ-083.
#[test]
fn shutdown_while_pending() {
    let context = context();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://a").unwrap();
    push.send_blocking("never arrives").unwrap();
    assert_eq!(context.term_blocking(), 1);
    assert!(matches!(push.try_send("").unwrap_err().error, Error::Terminated));
    assert!(matches!(Pull::new(&context), Err(Error::Terminated)));
}

fn changes(publisher: &XPub, expected: &[&[u8]]) {
    for change in expected {
        expect(publisher, &[change]);
    }
    assert!(matches!(publisher.try_recv(), Err(Error::WouldBlock)));
}

/// libzmq: test_disconnect_inproc.
///
/// Rules: MQ-275, MQ-271, MQ-224.
#[test]
fn disconnect() {
    let context: Context = context();
    let publisher = XPub::with_options(&context, options()).unwrap();
    publisher.bind_blocking("inproc://a").unwrap();
    let sub = XSub::with_options(&context, options()).unwrap();
    sub.connect("inproc://a").unwrap();
    sub.send_blocking("\x01A").unwrap();
    for round in 0..3 {
        changes(&publisher, &[b"\x01A"]);
        publisher.send_blocking(message(["A", "this is the message"])).unwrap();
        expect(&sub, &[b"A", b"this is the message"]);
        publisher.send_blocking(message(["A", "unread, then disconnected"])).unwrap();
        sub.disconnect("inproc://a").unwrap();
        changes(&publisher, &[b"\0A"]);
        publisher.send_blocking(message(["A", "for nobody"])).unwrap();
        assert!(matches!(sub.try_recv(), Err(Error::WouldBlock)), "{round}");
        assert!(matches!(sub.disconnect("inproc://a"), Err(Error::NotFound(_))));
        sub.connect("inproc://a").unwrap();
    }
}
