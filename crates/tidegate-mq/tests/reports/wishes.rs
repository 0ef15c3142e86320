//! What users of other implementations have missed most (chapter 18), where no other test is about just that.

use std::{
    future::Future,
    net::TcpListener,
    time::{Duration, Instant},
};

use tidegate_io::wait::block_on;
use tidegate_mq::{Context, Error, Pair, Pub, Push, Sub};

use crate::{
    peer::Raw,
    rig::{ANYWHERE, PATIENCE, options, until},
};

fn wait<T>(future: impl Future<Output = T>) -> T {
    block_on(future, Instant::now().checked_add(PATIENCE)).expect("in time")
}

/// Whether a peer is there is told apart from whether somebody accepted, and whether it has subscribed from both: what
/// is published then is not lost.
///
/// Rules: MQ-525, MQ-221, MQ-273.
#[test]
fn connected_is_told_from_connecting() {
    let context = Context::new();
    let short = Duration::from_millis(50);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let push = Push::with_options(&context, options()).unwrap();
    // The system has accepted, and that is all.
    assert!(matches!(wait(push.connect_ready(&endpoint, short)), Err(Error::Timeout)));
    let mut peer = Raw::of(listener.accept().unwrap().0);
    peer.shake("PULL", "");
    wait(push.connect_ready(&endpoint, PATIENCE)).unwrap();

    let publisher = Pub::with_options(&context, options()).unwrap();
    let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
    let sub = Sub::with_options(&context, options()).unwrap();
    wait(sub.connect_ready(&endpoint, PATIENCE)).unwrap();
    let subscribed = |count, timeout| publisher.wait_for_subscribers_blocking(b"topic", count, timeout);
    assert!(matches!(subscribed(1, short), Err(Error::Timeout)));
    sub.subscribe("other").unwrap();
    assert!(matches!(subscribed(1, short), Err(Error::Timeout)));
    sub.subscribe("to").unwrap();
    subscribed(1, PATIENCE).unwrap();
    publisher.send_blocking("topic: the first").unwrap();
    assert_eq!(sub.recv_blocking().unwrap().parts(), ["topic: the first"]);
    assert!(matches!(subscribed(2, short), Err(Error::Timeout)));
}

/// A handle that is dropped with everything unsent returns at once, however long it may linger; the end of the context
/// says how much was given up.
///
/// Rules: MQ-527, MQ-081.
#[test]
fn a_dropped_socket_waits_for_nothing() {
    for linger in [None, Some(Duration::from_secs(3600))] {
        let context = Context::new();
        let (done, is_done) = std::sync::mpsc::channel();
        let dropping = context.clone();
        std::thread::spawn(move || {
            let mut lingering = options();
            lingering.linger = linger;
            let push = Push::with_options(&dropping, lingering).unwrap();
            push.connect("tcp://127.0.0.1:9").unwrap();
            (0..7).for_each(|_| push.send_blocking("nobody is there").unwrap());
            drop(push);
            done.send(()).unwrap();
        });
        is_done.recv_timeout(PATIENCE).expect("a drop that waits");
    }
    let context = Context::new();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("tcp://127.0.0.1:9").unwrap();
    (0..7).for_each(|_| push.send_blocking("nobody is there").unwrap());
    assert_eq!(context.term_blocking(), 7);
}

/// An in-process connection that was ended can be made again, by either side, and works as before.
///
/// Rules: MQ-528, MQ-272, MQ-276.
#[test]
fn in_process_links_come_back() {
    let context = Context::new();
    let bound = Pair::with_options(&context, options()).unwrap();
    bound.bind_blocking("inproc://x").unwrap();
    let connected = Pair::with_options(&context, options()).unwrap();
    let bounce = || {
        connected.send_blocking("there").unwrap();
        assert_eq!(bound.recv_blocking().unwrap().parts(), ["there"]);
        bound.send_blocking("and back").unwrap();
        assert_eq!(connected.recv_blocking().unwrap().parts(), ["and back"]);
    };
    for _ in 0..3 {
        connected.connect("inproc://x").unwrap();
        bounce();
        connected.disconnect("inproc://x").unwrap();
        assert!(matches!(connected.try_send("to nobody").unwrap_err().error, Error::WouldBlock));
        until("the link has ended", || {
            bound.try_send("to nobody").is_err_and(|refused| matches!(refused.error, Error::WouldBlock))
        });
    }
    assert!(matches!(connected.try_recv(), Err(Error::WouldBlock)));
}
