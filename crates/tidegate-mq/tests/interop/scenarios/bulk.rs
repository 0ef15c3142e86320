//! Many topics, large messages, peers that do not keep up; and IPv6.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{Error, Pub, Pull, Push, SocketType, Sub};

use super::{DRIVERS, NEWEST, Pairing, they_bind};
use crate::{
    cell::{Transport, place},
    ours::{self, Ours, options, wait_up},
    peer::{PATIENCE, Peer, words},
};

const TOPICS: usize = 5000;
const LARGE: usize = 100 << 20;

fn topic(index: usize) -> String {
    format!("topic {index:05}")
}

/// A SUB of ours finds a publisher that was killed and started again, with all its subscriptions.
///
/// Rules: MQ-232, MQ-508.
#[test]
fn topics_of_ours_survive_their_publisher() {
    for driver in DRIVERS {
        let context = ours::context(driver);
        let sub = Sub::with_options(&context, options()).unwrap();
        (0..TOPICS).for_each(|index| sub.subscribe(topic(index)).unwrap());
        sub.subscribe("end").unwrap();
        let (mut endpoint, _) = place(Transport::Tcp);
        for start in 0..2 {
            let mut peer = Peer::start(NEWEST);
            peer.ask("open s c PUB sndhwm=0");
            endpoint = peer.ask(format!("bind s {endpoint}"));
            if start == 0 {
                sub.connect(&endpoint).unwrap();
            }
            let deadline = Instant::now() + PATIENCE;
            loop {
                assert!(Instant::now() < deadline, "the subscriptions do not arrive");
                peer.ask(format!("topics_send s {TOPICS}"));
                let mut heard = HashSet::new();
                while let Some(got) = sub.take_within(Duration::from_millis(100)) {
                    if got.parts()[0] == "end" {
                        break;
                    }
                    heard.insert(got.parts()[0].clone());
                }
                if heard.len() == TOPICS {
                    break;
                }
            }
        }
        context.term_blocking();
    }
}

/// Rules: MQ-180, MQ-508.
#[test]
fn topics_of_theirs_survive_our_publisher() {
    for driver in DRIVERS {
        let context = ours::context(driver);
        let mut peer = Peer::start(NEWEST);
        // libzmq drops subscriptions that its limit for sending has no room for.
        peer.ask("open s c SUB sndhwm=0 rcvhwm=0 reconnect_ivl=10");
        peer.ask(format!("topics_subscribe s {TOPICS}"));
        let (mut endpoint, _) = place(Transport::Tcp);
        for start in 0..2 {
            let mut options = options();
            options.sndhwm = 0;
            let publisher = Pub::with_options(&context, options).unwrap();
            endpoint = publisher.bind_blocking(&endpoint).unwrap();
            if start == 0 {
                peer.ask(format!("connect s {endpoint}"));
            }
            for index in 0..TOPICS {
                publisher.await_subscriber(topic(index).as_bytes()).unwrap();
            }
            peer.tell(format!("topics_recv s {TOPICS}"));
            (0..TOPICS).for_each(|index| publisher.send_blocking(topic(index)).unwrap());
            peer.answer();
            assert_eq!(Box::new(publisher).finish(PATIENCE), 0);
        }
        context.term_blocking();
    }
}

/// Rules: MQ-508.
#[test]
fn a_hundred_mebibytes() {
    for driver in DRIVERS {
        let Pairing { mut peer, ours, context, .. } =
            they_bind(Peer::start(NEWEST), driver, (SocketType::Pair, options()), (SocketType::Pair, ""));
        let mut large = vec![0; LARGE];
        large[LARGE - 3..].copy_from_slice(b"end");
        ours.put(large.into()).unwrap();
        assert_eq!(peer.ask("large_recv s"), format!("{LARGE} {}", words(["end"])));
        peer.tell(format!("large_send s {LARGE}"));
        let got = ours.take().unwrap();
        peer.answer();
        assert_eq!((got.byte_len(), &got.parts()[0][LARGE - 3..]), (LARGE, b"end".as_slice()));
        context.term_blocking();
    }
}

/// Size of the messages of a flood, and how long a sender waits until it takes a queue for full.
const FLOOD: (usize, Duration) = (65_536, Duration::from_millis(300));
/// More than the queues and the system's buffers on the way hold.
const TOO_MANY: u32 = 2000;

/// A peer that does not read stops the sender; when it reads again everything is there.
///
/// Rules: MQ-508.
#[test]
fn a_stalled_peer_of_theirs() {
    for driver in DRIVERS {
        let mut options = options();
        options.sndhwm = 10;
        let context = ours::context(driver);
        let push = Push::with_options(&context, options).unwrap();
        let mut peer = Peer::start(NEWEST);
        peer.ask("open s c PULL rcvhwm=10");
        let endpoint = peer.ask(format!("bind s {}", place(Transport::Tcp).0));
        let monitor = push.monitor();
        push.connect(&endpoint).unwrap();
        wait_up(&monitor);

        let (size, quiet) = FLOOD;
        let mut count = 0_u32;
        let mut deadline = Instant::now() + quiet;
        while Instant::now() < deadline {
            let mut message = vec![0; size + 4];
            message[..4].copy_from_slice(&count.to_le_bytes());
            match push.try_send(message) {
                Ok(()) => {
                    count += 1;
                    assert!(count < TOO_MANY, "nothing holds the sender up");
                    deadline = Instant::now() + quiet;
                }
                Err(refused) => {
                    assert!(matches!(refused.error, Error::WouldBlock), "{refused}");
                    thread::yield_now();
                }
            }
        }
        assert!(count >= 20, "both queues are used: {count}");
        peer.ask(format!("drain s {count}"));
        push.send_blocking(count.to_le_bytes().as_slice()).unwrap();
        assert_eq!(peer.ask("recv s"), words([count.to_le_bytes()]));
        context.term_blocking();
    }
}

/// Rules: MQ-508.
#[test]
fn a_stalled_socket_of_ours() {
    for driver in DRIVERS {
        let mut options = options();
        options.rcvhwm = 10;
        let context = ours::context(driver);
        let pull = Pull::with_options(&context, options).unwrap();
        let endpoint = pull.bind_blocking(&place(Transport::Tcp).0).unwrap();
        let mut peer = Peer::start(NEWEST);
        peer.ask("open s c PUSH sndhwm=10");
        peer.ask(format!("connect s {endpoint}"));
        peer.wait_up("s");
        let (size, quiet) = FLOOD;
        let count: u32 = peer.ask(format!("flood s {size} {}", quiet.as_millis())).parse().unwrap();
        assert!((20..TOO_MANY).contains(&count), "{count} messages were taken");
        for index in 0..count {
            assert_eq!(pull.recv_blocking().unwrap().parts()[0][..4], index.to_le_bytes());
        }
        peer.ask(format!("send s {}", words(["more"])));
        assert_eq!(pull.recv_blocking().unwrap().parts(), ["more"]);
        context.term_blocking();
    }
}

/// Rules: MQ-508.
#[test]
fn ipv6() {
    for driver in DRIVERS {
        let context = ours::context(driver);
        let mut peer = Peer::start(NEWEST);
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking("tcp://[::1]:*").unwrap();
        peer.ask("open s c PUSH ipv6=1");
        peer.ask(format!("connect s {endpoint}"));
        peer.ask(format!("send s {}", words(["up"])));
        assert_eq!(pull.recv_blocking().unwrap().parts(), ["up"]);

        peer.ask("open t c PULL ipv6=1");
        let endpoint = peer.ask("bind t tcp://[::1]:*");
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(&endpoint).unwrap();
        push.send_blocking("down").unwrap();
        assert_eq!(peer.ask("recv t"), words(["down"]));
        context.term_blocking();
    }
}
