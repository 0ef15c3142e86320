//! Calls that are dropped before they are done.

use std::{
    future::Future,
    net::{TcpListener, TcpStream},
    pin::pin,
    task::{Context as TaskContext, Waker},
    time::{Duration, Instant},
};

use tidegate_mq::{Context, Dealer, Error, Pull, Push, monitor::EventKind};

use super::{
    peer::{PATIENCE, Raw, address},
    rig::{event, options, options_with},
};

/// Polls once and drops.
fn glance<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// A bind that is dropped has bound or has not; either way the next one says which, and after an unbind all is as before.
/// A connect that is dropped is registered once, however often it is repeated, and a close that is dropped closes.
///
/// Rules: MQ-079.
#[test]
fn calls_that_are_dropped_have_happened_or_not() {
    let context = Context::new();
    let pull = Pull::with_options(&context, options()).unwrap();
    let endpoint = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("tcp://{}", free.local_addr().unwrap())
    };
    drop(pull.bind(&endpoint));
    assert!(TcpStream::connect(address(&endpoint)).is_err(), "bound by a future that nobody polled");
    for place in [endpoint.as_str(), "inproc://place"] {
        for _ in 0..10 {
            let bound = glance(pull.bind(place)).is_some();
            match pull.bind_blocking(place) {
                Ok(_) => assert!(!bound, "{place} is bound twice"),
                Err(error) => assert!(matches!(error, Error::AddressInUse(_)), "{error}"),
            }
            pull.unbind(place).unwrap();
            assert!(matches!(pull.unbind(place), Err(Error::NotFound(_))), "half bound");
        }
    }

    let dealer = Dealer::with_options(
        &context,
        options_with(|options| {
            options.reconnect_ivl = Some(Duration::from_millis(1));
        }),
    )
    .unwrap();
    let monitor = dealer.monitor();
    for _ in 0..10 {
        assert!(glance(dealer.connect_ready(&endpoint, PATIENCE)).is_none());
    }
    let listener = TcpListener::bind(address(&endpoint)).unwrap();
    let mut peer = Raw::of(listener.accept().unwrap().0);
    peer.shake("DEALER", "");
    event(&monitor, "handshake", |kind| matches!(kind, EventKind::HandshakeSucceeded { .. }).then_some(()));
    // Others would not be far behind.
    listener.set_nonblocking(true).unwrap();
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        assert!(listener.accept().is_err(), "connected twice");
        std::thread::sleep(Duration::from_millis(1));
    }
    dealer.disconnect(&endpoint).unwrap();
    assert!(matches!(dealer.disconnect(&endpoint), Err(Error::NotFound(_))));
    drop(listener);

    // What was queued is sent although nobody waits for it, for as long as the socket lingers, and the socket is closed.
    let push = Push::with_options(&context, options_with(|options| options.linger = None)).unwrap();
    push.connect(&endpoint).unwrap();
    push.send_blocking("last words").unwrap();
    let still_there = push.clone();
    assert!(glance(push.close(None)).is_none());
    assert!(matches!(still_there.try_send("more").unwrap_err().error, Error::Closed));
    drop(still_there);
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking(&endpoint).unwrap();
    assert_eq!(pull.recv_blocking().unwrap().parts()[0], "last words");
}
