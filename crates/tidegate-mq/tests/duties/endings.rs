//! What becomes of messages when an endpoint is given up.

use std::{
    net::{TcpListener, TcpStream},
    time::Duration,
};

use tidegate_mq::{Context, Dealer, Error, Pair, Pull, Push, monitor::EventKind};

use super::{
    kept::Kept,
    peer::{PATIENCE, Raw, address, command, frame, greeting, ready},
    rig::{ANYWHERE, DRIVERS, context, established, event, options, options_with, until},
};

/// Closing what a listener has accepted needs no call of the application; what was received stays readable, and what was
/// queued goes out first.
///
/// Rules: MQ-275.
#[test]
fn an_unbound_endpoint_lets_its_connections_go() {
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "PUSH", "");
        peer.send(&frame(0, b"before"));
        peer.has_been_heard();
        pull.unbind(&endpoint).unwrap();
        peer.until_closed();
        assert!(TcpStream::connect(address(&endpoint)).is_err(), "somebody listens still");
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "before");
        assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));

        let lingering = options_with(|options| {
            options.linger = None;
            options.sndbuf = Some(8192);
        });
        let push = Push::with_options(&context, lingering).unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "PULL", "");
        established(&monitor);
        let large = vec![7; 60_000];
        for _ in 0..30 {
            push.send_blocking(large.clone()).unwrap();
        }
        push.unbind(&endpoint).unwrap();
        assert!(matches!(push.try_send("late").unwrap_err().error, Error::WouldBlock));
        for _ in 0..30 {
            assert_eq!(peer.frame(), (2, large.clone()));
        }
        peer.until_closed();
    }
}

/// A connection that still has much to write is alive: the peer is heard, so that it is not taken for dead, and its PINGs
/// are answered, while its messages are for nobody.
///
/// Rules: MQ-029, MQ-080, MQ-275.
#[test]
fn who_is_being_left_is_still_answered() {
    for driver in DRIVERS {
        let context = context(driver);
        let lingering = options_with(|options| {
            options.linger = None;
            options.sndbuf = Some(8192);
            options.heartbeat_ivl = Some(Duration::from_millis(20));
            options.heartbeat_timeout = Some(Duration::from_millis(500));
        });
        let dealer = Dealer::with_options(&context, lingering).unwrap();
        let monitor = dealer.monitor();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "DEALER", "");
        socket2::SockRef::from(&peer.0).set_recv_buffer_size(65_536).unwrap();
        established(&monitor);
        let large = vec![7; 60_000];
        for _ in 0..60 {
            dealer.send_blocking(large.clone()).unwrap();
        }
        dealer.unbind(&endpoint).unwrap();
        peer.send(&frame(0, b"for nobody"));
        let (mut bodies, mut answers) = (0, 0);
        while bodies < 60 || answers < 40 {
            match peer.frame() {
                (2, body) => {
                    assert_eq!(body, large);
                    bodies += 1;
                    // Together this is longer than the other side waits for a word.
                    if bodies <= 40 {
                        std::thread::sleep(Duration::from_millis(30));
                        peer.send(&command("PING", b"\0\0mine"));
                    }
                }
                (4, body) if body == b"\x04PONGmine" => answers += 1,
                (4, body) => assert_eq!(&body[..5], b"\x04PING"),
                other => panic!("{other:?}"),
            }
        }
        peer.until_closed();
        assert!(matches!(dealer.try_recv(), Err(Error::WouldBlock)));
    }
}

/// What a peer says while a socket is being closed is for nobody, however long it takes to write what was sent.
///
/// Rules: MQ-080.
#[test]
fn a_socket_that_is_being_closed_receives_nothing() {
    for driver in DRIVERS {
        let context = context(driver);
        let dealer =
            Dealer::with_options(&context, options_with(|options| options.sndbuf = Some(8192))).unwrap();
        let monitor = dealer.monitor();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "DEALER", "");
        socket2::SockRef::from(&peer.0).set_recv_buffer_size(65_536).unwrap();
        established(&monitor);
        // More than the system takes while nobody reads.
        dealer.send_blocking(vec![7; 1 << 20]).unwrap();
        let closing = std::thread::spawn(move || dealer.close_blocking(None));
        until("it does not listen", || TcpStream::connect(address(&endpoint)).is_err());
        for _ in 0..50 {
            peer.send(&frame(0, b"late").repeat(10));
            std::thread::sleep(Duration::from_millis(2));
        }
        peer.until_closed();
        let received = event(&monitor, "end", |kind| match kind {
            EventKind::Disconnected { sent, messages_received, .. } if *sent > 1 << 20 => {
                Some(*messages_received)
            }
            _ => None,
        });
        assert!(received < 500, "all were received");
        closing.join().unwrap();
    }
}

/// Rules: MQ-275, MQ-523.
#[test]
fn connections_may_be_kept_without_their_endpoint() {
    for driver in DRIVERS {
        let context = context(driver);
        let push = Push::with_options(&context, options()).unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "PULL", "");
        established(&monitor);
        push.unbind_keep(&endpoint).unwrap();
        until("nobody listens", || TcpStream::connect(address(&endpoint)).is_err());
        for _ in 0..3 {
            push.send_blocking("kept").unwrap();
            assert_eq!(peer.frame(), (0, b"kept".to_vec()));
        }
        assert!(matches!(push.unbind_keep(&endpoint), Err(Error::NotFound(_))));
        peer.has_been_heard();
    }
}

/// Every connection to the endpoint ends; what it has sent and nobody has read is dropped, what is queued for it goes out.
///
/// Rules: MQ-275.
#[test]
fn a_disconnected_endpoint_is_heard_no_more() {
    for driver in DRIVERS {
        let context = context(driver);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let accept = |kind: &str| {
            let mut peer = Raw::of(listener.accept().unwrap().0);
            peer.shake(kind, "");
            peer
        };
        let pull = Pull::with_options(&context, options()).unwrap();
        let other = pull.bind_blocking(ANYWHERE).unwrap();
        let mut peers = [(); 2].map(|()| {
            pull.connect(&endpoint).unwrap();
            accept("PUSH")
        });
        for peer in &mut peers {
            peer.send(&frame(0, b"unread"));
            peer.has_been_heard();
        }
        pull.disconnect(&endpoint).unwrap();
        for mut peer in peers {
            peer.until_closed();
        }
        assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
        assert!(matches!(pull.disconnect(&endpoint), Err(Error::NotFound(_))));
        let mut stays = Raw::up(&other, "PUSH", "");
        stays.send(&frame(0, b"heard"));
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "heard");

        let lingering = options_with(|options| {
            options.linger = Some(PATIENCE);
            options.sndbuf = Some(8192);
            options.sndtimeo = Some(Duration::from_secs(5));
        });
        let push = Push::with_options(&context, lingering).unwrap();
        push.connect(&endpoint).unwrap();
        let mut peer = accept("PULL");
        let large = vec![7; 60_000];
        for _ in 0..30 {
            push.send_blocking(large.clone()).unwrap();
        }
        push.disconnect(&endpoint).unwrap();
        for _ in 0..30 {
            assert_eq!(peer.frame(), (2, large.clone()));
        }
        peer.until_closed();
    }
}

/// A PUSH socket with this linger time that has three messages for somebody who is not there, and was disconnected.
fn gave_up(context: &Context, endpoint: &str, linger: Option<Duration>) -> Push {
    let push = Push::with_options(
        context,
        options_with(|options| {
            options.linger = linger;
            options.reconnect_ivl = Some(Duration::from_millis(10));
        }),
    )
    .unwrap();
    push.connect(endpoint).unwrap();
    for body in ["one", "two", "three"] {
        push.send_blocking(body).unwrap();
    }
    push.disconnect(endpoint).unwrap();
    assert!(matches!(push.try_send("late").unwrap_err().error, Error::WouldBlock));
    assert!(matches!(push.disconnect(endpoint), Err(Error::NotFound(_))));
    push
}

/// What is queued when an endpoint is disconnected that has no connection goes out by the next one, which then ends; a new
/// connect to the same endpoint has nothing to do with it.
///
/// Rules: MQ-275, MQ-276.
#[test]
fn what_is_queued_for_a_disconnected_endpoint_waits_for_a_last_connection() {
    for driver in DRIVERS {
        let context = context(driver);
        for linger in [None, Some(PATIENCE)] {
            let (kept, place) = Kept::new();
            let push = gave_up(&context, &format!("tcp://{place}"), linger);
            let listener = kept.listen();
            let mut peer = Raw::of(listener.accept().unwrap().0);
            peer.shake("PULL", "");
            for body in ["one", "two", "three"] {
                assert_eq!(peer.frame(), (0, body.into()));
            }
            assert!(matches!(push.try_send("late").unwrap_err().error, Error::WouldBlock));
            peer.until_closed();
            until("the pipe is gone", || push.peers().is_empty());
            push.connect(&format!("tcp://{place}")).unwrap();
            let mut peer = Raw::of(listener.accept().unwrap().0);
            peer.shake("PULL", "");
            push.send_blocking("four").unwrap();
            assert_eq!(peer.frame(), (0, b"four".into()));

            let push = gave_up(&context, "inproc://absent", linger);
            push.connect("inproc://absent").unwrap();
            push.send_blocking("four").unwrap();
            let pull = Pull::with_options(&context, options()).unwrap();
            pull.bind_blocking("inproc://absent").unwrap();
            let mut got: Vec<_> = (0..4).map(|_| pull.recv_blocking().unwrap().parts()[0].to_vec()).collect();
            // The two take turns.
            got.retain(|body| body != b"four");
            assert_eq!(got, [&b"one"[..], b"two", b"three"]);
            until("one pipe is left", || pull.peers().len() == 1);
            push.send_blocking("five").unwrap();
            assert_eq!(pull.recv_blocking().unwrap().parts(), ["five"]);
        }
    }
}

/// Nobody came: when the linger time is over, or at once where there is none, or when the endpoint will not be dialed
/// again, the messages are counted as discarded and the endpoint is gone.
///
/// Rules: MQ-275, MQ-080.
#[test]
fn a_disconnected_endpoint_does_not_linger_for_longer_than_it_may() {
    for driver in DRIVERS {
        let context = context(driver);
        let (kept, place) = Kept::new();
        let endpoint = format!("tcp://{place}");
        for endpoint in [endpoint.as_str(), "inproc://absent"] {
            let push = gave_up(&context, endpoint, Some(Duration::ZERO));
            assert_eq!(push.metrics().out.discarded, 3, "nothing lingers");

            let push = gave_up(&context, endpoint, Some(Duration::from_millis(50)));
            until("its time is over", || push.metrics().out.discarded == 3);

            // Closing has a limit of its own.
            let push = gave_up(&context, endpoint, None);
            assert_eq!(push.metrics().out.depth, 3);
            assert_eq!(push.close_blocking(Some(Duration::ZERO)), 3);
        }
        let once = options_with(|options| {
            options.linger = None;
            options.reconnect_ivl = None;
        });
        // Somebody who says nothing, until he is gone.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", silent.local_addr().unwrap());
        let push = Push::with_options(&context, once).unwrap();
        push.connect(&endpoint).unwrap();
        push.send_blocking("for nobody").unwrap();
        push.disconnect(&endpoint).unwrap();
        drop(silent);
        until("nobody will be dialed", || push.metrics().out.discarded == 1);
        // Nobody dials any more, and no name is waited for.
        let pull = Pull::with_options(&context, options()).unwrap();
        pull.bind_blocking("inproc://absent").unwrap();
        assert!(pull.peers().is_empty());
        let listener = kept.listen();
        listener.set_nonblocking(true).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(listener.accept().is_err(), "somebody dials still");
    }
}

/// Whose handshake is complete only after the socket was closed is sent away.
///
/// Rules: MQ-080.
#[test]
fn a_closed_socket_has_no_new_peers() {
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::connect(&endpoint);
        peer.send(&greeting("NULL"));
        peer.take(64);
        tidegate_io::wait::block_on(pull.close(Some(Duration::ZERO)), None).unwrap();
        peer.try_send(&ready("PUSH", ""));
        peer.until_closed();
    }
}

/// What two sockets of a process have for each other is handed over when their context ends: neither waits for the other.
///
/// Rules: MQ-081.
#[test]
fn sockets_of_one_context_do_not_wait_for_each_other() {
    let context = Context::new();
    let [one, other] = [(); 2].map(|()| {
        let mut lingering = options();
        lingering.linger = None;
        Pair::with_options(&context, lingering).unwrap()
    });
    one.bind_blocking("inproc://pair").unwrap();
    other.connect("inproc://pair").unwrap();
    one.try_send("unread").unwrap();
    other.try_send("unread").unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(context.term_blocking()));
    assert_eq!(ended.recv_timeout(PATIENCE).expect("it ends"), 0);
}
