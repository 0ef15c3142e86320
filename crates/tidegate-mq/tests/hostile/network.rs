//! Networks and servers that do not do what they should.

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::fd::AsRawFd,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_mq::{
    Dealer, Error, Message, Pair, Pub, Pull, Push, Router, Sub,
    monitor::{CloseReason, EventKind},
};

use super::{
    child::alone,
    peer::{PATIENCE, Raw, command, greeting, message, ready},
    rig::{
        ANYWHERE, Attacked, DRIVERS, context, disconnected, established, event, fault, options, options_with,
        until,
    },
};

/// A peer that stops reading fills the queue for it, after which the rule of the pattern holds; others are served at
/// full speed, and heartbeats find out.
///
/// Rules: MQ-461, MQ-060, MQ-172.
#[test]
fn a_peer_that_stops_reading_stops_nobody_else() {
    for driver in DRIVERS {
        let context = context(driver);
        let options = options_with(|options| {
            options.sndhwm = 10;
            options.sndbuf = Some(8192);
            options.sndtimeo = Some(Duration::from_millis(100));
            options.router_mandatory = true;
        });
        let large = vec![7_u8; 60_000];

        // One that blocks: when no peer has room, sending waits. With a good peer there is room always.
        let push = Push::with_options(&context, options.clone()).unwrap();
        let endpoint = push.bind_blocking(ANYWHERE).unwrap();
        let _stalled = Raw::up(&endpoint, "PULL", "");
        let fill = || (0..1000).find_map(|_| push.send_blocking(large.clone()).err());
        let full = fill().expect("the queue of a peer that does not read has no end");
        assert!(matches!(full.error, Error::Timeout), "{full:?}");
        assert_eq!(full.message.byte_len(), large.len(), "the message comes back");
        let good = Pull::with_options(&context, self::options()).unwrap();
        good.connect(&endpoint).unwrap();
        for _ in 0..200 {
            push.send_blocking(large.clone()).unwrap();
            assert_eq!(good.recv_blocking().unwrap().byte_len(), large.len());
        }

        // One that drops: the publisher waits for nobody.
        let publisher = Pub::with_options(&context, options.clone()).unwrap();
        let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
        let mut stalled = Raw::up(&endpoint, "SUB", "");
        stalled.send(&command("SUBSCRIBE", b""));
        let good = Sub::with_options(&context, self::options()).unwrap();
        good.subscribe("").unwrap();
        good.connect(&endpoint).unwrap();
        tidegate_io::wait::block_on(publisher.wait_for_subscribers(b"", 2, PATIENCE), None).unwrap().unwrap();
        for _ in 0..200 {
            publisher.send_blocking(large.clone()).unwrap();
            assert_eq!(good.recv_blocking().unwrap().byte_len(), large.len());
        }

        // One that addresses: only who writes to the stalled peer waits.
        let router = Router::with_options(&context, options.clone()).unwrap();
        let endpoint = router.bind_blocking(ANYWHERE).unwrap();
        let monitor = router.monitor();
        let _stalled = Raw::up(&endpoint, "DEALER", "stalled");
        established(&monitor);
        let mut good = Raw::up(&endpoint, "DEALER", "good");
        established(&monitor);
        let to = |name: &str| [name.as_bytes(), &large].into_iter().collect::<Message>();
        let full = (0..1000).find_map(|_| router.send_blocking(to("stalled")).err());
        assert!(matches!(full.unwrap().error, Error::Timeout));
        for _ in 0..50 {
            router.send_blocking(to("good")).unwrap();
            assert_eq!(good.frame().1.len(), large.len());
        }

        // Heartbeats find out.
        let push = Push::with_options(&context, {
            let mut options = options.clone();
            options.heartbeat_ivl = Some(Duration::from_millis(100));
            options
        })
        .unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(ANYWHERE).unwrap();
        let _stalled = Raw::up(&endpoint, "PULL", "");
        established(&monitor);
        while push.try_send(large.clone()).is_ok() {}
        assert!(matches!(fault(&monitor), CloseReason::TimedOut(_)));
        event(&monitor, "end", disconnected);
        context.term_blocking();
    }
}

/// Both applications send and receive as fast as they can; full queues on both sides and a full network between them
/// stop neither for good.
///
/// Rules: MQ-062, MQ-053.
#[test]
fn a_flood_in_both_directions_does_not_lock_up() {
    const COUNT: u32 = 20_000;
    for driver in DRIVERS {
        let contexts = [context(driver), context(driver)];
        let options = options_with(|options| {
            options.sndhwm = 50;
            options.rcvhwm = 50;
            options.sndbuf = Some(8192);
            options.rcvbuf = Some(8192);
        });
        let one = Pair::with_options(&contexts[0], options.clone()).unwrap();
        let two = Pair::with_options(&contexts[1], options).unwrap();
        let endpoint = one.bind_blocking(ANYWHERE).unwrap();
        two.connect(&endpoint).unwrap();
        // First both only send until nothing moves, then both only receive, then both at once.
        let payload = |number: u32| [&number.to_le_bytes()[..], &[1; 3000]].concat();
        let mut sent = [0; 2];
        for (socket, sent) in [&one, &two].into_iter().zip(&mut sent) {
            while socket.send_blocking(payload(*sent)).is_ok() {
                *sent += 1;
                if *sent == 1 {
                    socket
                        .set_options(|options| {
                            options.sndtimeo = Some(Duration::from_millis(200));
                            Ok(())
                        })
                        .unwrap();
                }
            }
            socket
                .set_options(|options| {
                    options.sndtimeo = Some(PATIENCE);
                    Ok(())
                })
                .unwrap();
        }
        thread::scope(|scope| {
            for (socket, sent) in [(&one, sent[0]), (&two, sent[1])] {
                scope.spawn(move || {
                    (sent..COUNT).for_each(|number| socket.send_blocking(payload(number)).unwrap());
                });
                scope.spawn(move || {
                    for number in 0..COUNT {
                        assert_eq!(socket.recv_blocking().unwrap().parts()[0][..4], number.to_le_bytes());
                    }
                });
            }
        });
        contexts.iter().for_each(|context| assert_eq!(context.term_blocking(), 0));
    }
}

/// A server that does `act` to everybody who connects, and tells when somebody did.
fn server(act: impl Fn(Raw) + Send + 'static) -> (String, Receiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let (sender, accepted) = channel();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if sender.send(Instant::now()).is_err() {
                return;
            }
            act(Raw::of(stream));
        }
    });
    (endpoint, accepted)
}

/// A server that accepts and closes at once is tried again ever more rarely: after ten times once a second at most.
///
/// Rules: MQ-463, MQ-279.
#[test]
fn a_server_that_closes_at_once_is_tried_ever_more_rarely() {
    let threads = DRIVERS.map(|driver| {
        thread::spawn(move || {
            let context = context(driver);
            let (endpoint, accepted) = server(drop);
            // A short base, so that ten failures do not take ten seconds.
            let push = Push::with_options(
                &context,
                options_with(|o| o.reconnect_ivl = Some(Duration::from_millis(20))),
            )
            .unwrap();
            push.connect(&endpoint).unwrap();
            let at: Vec<_> = (0..13).map(|_| accepted.recv_timeout(PATIENCE).unwrap()).collect();
            let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps[0] < Duration::from_secs(5), "{gaps:?}");
            assert!(gaps[5] > gaps[0], "{gaps:?}");
            assert!(gaps[10..].iter().all(|gap| *gap >= Duration::from_millis(990)), "{gaps:?}");
            context.term_blocking();
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A port that speaks another protocol: the reason is told, attempts are rare, and the endpoint works as soon as the
/// right server is there.
///
/// Rules: MQ-464, MQ-279, MQ-512.
#[test]
fn a_port_of_another_protocol_does_not_kill_the_endpoint() {
    for driver in DRIVERS {
        let context = context(driver);
        let (sender, right) = channel();
        let mut count = 0;
        let count = move || {
            count += 1;
            count
        };
        let count = std::sync::Mutex::new(count);
        let (endpoint, accepted) = server(move |mut peer| {
            if count.lock().unwrap()() == 1 {
                peer.try_send(b"220 mail.example.org ESMTP\r\n");
                let _ = peer.0.read(&mut [0; 64]);
                return;
            }
            peer.shake("PULL", "");
            sender.send(peer).unwrap();
        });
        let push = Push::with_options(&context, options()).unwrap();
        let monitor = push.monitor();
        push.connect(&endpoint).unwrap();
        push.send_blocking("for the right one").unwrap();
        let first = accepted.recv_timeout(PATIENCE).unwrap();
        assert_eq!(fault(&monitor), CloseReason::UnsupportedVersion);
        let delay = event(&monitor, "retry", |kind| match kind {
            EventKind::ConnectRetried(delay) => Some(*delay),
            _ => None,
        });
        assert!(delay >= Duration::from_secs(1), "{delay:?}");
        let second = accepted.recv_timeout(PATIENCE).unwrap();
        assert!(second - first >= Duration::from_millis(990));
        let mut peer = right.recv_timeout(PATIENCE).unwrap();
        assert_eq!(peer.frame(), (0, b"for the right one".to_vec()));
        context.term_blocking();
    }
}

/// Without descriptors neither accepting nor connecting works, nor does either spin or die; both go on when there are
/// some.
///
/// Rules: MQ-465, MQ-085.
#[test]
fn descriptors_run_out_and_come_back() {
    let Some(driver) = alone("network::descriptors_run_out_and_come_back") else { return };
    let mut attacked = Attacked::new(driver, options());
    let spare = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let push_options = options_with(|options| options.reconnect_ivl = Some(Duration::from_millis(20)));
    let push = Push::with_options(&attacked.context, push_options).unwrap();
    let push_monitor = push.monitor();
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), maximum: old.maximum }).unwrap();

    spare.connect(&super::peer::address(&attacked.endpoint).into()).unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        let errno = event(&attacked.monitor, "failure to accept", |kind| match kind {
            EventKind::AcceptFailed(why) => Some(why.errno()),
            _ => None,
        });
        assert_eq!(errno, 24, "not EMFILE");
    }
    assert!(start.elapsed() >= Duration::from_millis(30), "10 and 20 ms of pauses lie between");
    push.connect(&attacked.endpoint).unwrap();
    let errno = event(&push_monitor, "failure to connect", |kind| match kind {
        EventKind::ConnectFailed(errno) => Some(*errno),
        _ => None,
    });
    assert_eq!(errno, 24, "not EMFILE");
    attacked.serves();

    setrlimit(Resource::Nofile, old).unwrap();
    established(&push_monitor);
    push.send_blocking("back").unwrap();
    assert_eq!(attacked.pull.recv_blocking().unwrap().parts()[0], "back");
    let mut spare = Raw::of(spare.into());
    spare.shake("PUSH", "");
    drop((spare, push));
    attacked.ends_unharmed();
}

/// A peer that breaks the rules and does not read either is closed all the same, and gets no more messages.
///
/// Rules: MQ-105, MQ-461.
#[test]
fn a_deaf_offender_is_closed() {
    for driver in DRIVERS {
        let context = context(driver);
        let options = options_with(|options| {
            options.sndbuf = Some(8192);
            options.sndhwm = 1000;
        });
        let dealer = Dealer::with_options(&context, options).unwrap();
        let monitor = dealer.monitor();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "ROUTER", "");
        established(&monitor);
        for _ in 0..200 {
            dealer.send_blocking(vec![7; 60_000]).unwrap();
        }
        peer.send(&[0xff; 9]);
        assert_eq!(fault(&monitor), CloseReason::MalformedFrame);
        event(&monitor, "end", disconnected);
        context.term_blocking();
    }
}

/// What a peer says before it closes its side is delivered, also when the application is slow to read it.
///
/// Rules: MQ-182, MQ-082.
#[test]
fn the_last_words_of_a_peer_are_delivered() {
    const COUNT: u32 = 5000;
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(&context, options_with(|options| options.rcvhwm = 10)).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::connect(&endpoint);
        peer.0.write_all(&[greeting("NULL"), ready("PUSH", "")].concat()).unwrap();
        let all: Vec<u8> = (0..COUNT).flat_map(|number| message(&[&number.to_le_bytes()])).collect();
        peer.send(&all);
        peer.0.shutdown(std::net::Shutdown::Write).unwrap();
        for number in 0..COUNT {
            assert_eq!(pull.recv_blocking().unwrap().parts()[0], number.to_le_bytes());
        }
        until("the connection is closed", || matches!(peer.0.read(&mut [0; 4096]), Ok(0)));
        context.term_blocking();
    }
}
