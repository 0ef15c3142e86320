//! Publishers and subscribers on real connections.

use std::{
    io::Write,
    net::TcpListener,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{
    AnySocket, Error, Message, Part, Pub, Pull, Push, SocketType, Sub, monitor::CloseReason,
    options::SlowSubscriberPolicy,
};

use super::{
    peer::{PATIENCE, Raw, command, frame},
    rig::{ANYWHERE, DRIVERS, context, established, fault, options, options_with, until},
};

/// The engine takes subscriptions in and counts them against the limits although nobody calls the publisher. What is
/// published after that arrives, and what was published before does not.
///
/// Rules: MQ-220.
#[test]
fn subscriptions_take_effect_without_a_call() {
    for driver in DRIVERS {
        let context = context(driver);
        let publisher =
            Pub::with_options(&context, options_with(|options| options.max_subscriptions = 1)).unwrap();
        let monitor = publisher.monitor();
        let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
        let mut greedy = Raw::up(&endpoint, "SUB", "");
        greedy.send(&command("SUBSCRIBE", b"a"));
        greedy.send(&command("CANCEL", b"a"));
        greedy.send(&command("SUBSCRIBE", b"b"));
        greedy.has_been_heard();
        greedy.send(&command("SUBSCRIBE", b"c"));
        greedy.until_closed();
        assert_eq!(fault(&monitor), CloseReason::SubscriptionLimit);

        let mut peer = Raw::up(&endpoint, "SUB", "");
        established(&monitor);
        publisher.send_blocking("a too early").unwrap();
        peer.send(&command("SUBSCRIBE", b"a"));
        peer.has_been_heard();
        publisher.send_blocking("a in time").unwrap();
        assert_eq!(peer.frame(), (0, b"a in time".to_vec()));
    }
}

/// A subscriber that reads slowly misses messages, and each one it gets has all its parts.
///
/// Rules: MQ-218.
#[test]
fn a_slow_subscriber_gets_whole_messages() {
    const PARTS: u16 = 300;
    const MESSAGES: u16 = 300;
    for driver in DRIVERS {
        let context = context(driver);
        let publisher = Pub::with_options(
            &context,
            options_with(|options| {
                options.sndhwm = 1;
                options.sndbuf = Some(8192);
            }),
        )
        .unwrap();
        let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "SUB", "");
        peer.send(&command("SUBSCRIBE", b""));
        peer.has_been_heard();
        let publish = |number: u16| {
            let part = |index: u16| {
                let numbers = [number.to_le_bytes(), index.to_le_bytes()].concat();
                Part::from([numbers, vec![0; 100]].concat())
            };
            publisher.send_blocking((0..PARTS).map(part).collect::<Message>()).unwrap();
        };
        (0..MESSAGES).for_each(publish);
        // The last one finds room again.
        let last = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut got = Vec::new();
                loop {
                    let mut numbers = Vec::new();
                    for index in 0..PARTS {
                        let (flags, body) = peer.frame();
                        assert_eq!(flags, u8::from(index + 1 < PARTS), "part {index} of {numbers:?}");
                        assert_eq!(body[2..4], index.to_le_bytes());
                        numbers.push(u16::from_le_bytes([body[0], body[1]]));
                    }
                    numbers.dedup();
                    assert_eq!(numbers.len(), 1, "a message made of several");
                    got.push(numbers[0]);
                    if numbers[0] >= MESSAGES {
                        return got;
                    }
                }
            });
            let mut number = MESSAGES;
            while !reader.is_finished() {
                publish(number);
                number += 1;
                thread::sleep(Duration::from_millis(10));
            }
            reader.join().unwrap()
        });
        assert!(last.is_sorted());
        assert!(last.len() < usize::from(MESSAGES), "nothing was dropped");
    }
}

/// A subscriber that was connected to, and disconnected because it read too slowly, is connected to again, and subscribes
/// anew; what another has meanwhile is left to that.
///
/// Rules: MQ-222, MQ-182, MQ-185.
#[test]
fn a_slow_subscriber_is_disconnected_and_dialed_again() {
    let impatient = options_with(|options| {
        options.pub_slow_policy = SlowSubscriberPolicy::Disconnect(1);
        (options.sndhwm, options.rcvhwm) = (1, 1);
        options.sndbuf = Some(8192);
        options.reconnect_ivl = Some(Duration::from_millis(10));
    });
    let text = |body: &str| (0, body.as_bytes().to_vec());
    for (driver, kind) in
        DRIVERS.into_iter().flat_map(|driver| [SocketType::Pub, SocketType::XPub].map(|kind| (driver, kind)))
    {
        let context = context(driver);
        let publisher = AnySocket::of_type_with(&context, kind, impatient.clone()).unwrap();
        let publish_until_cut = || {
            until("the slow one is disconnected", || {
                publisher.send_blocking(vec![b's'; 60_000]).unwrap();
                publisher.peers().iter().all(|peer| !peer.is_connected())
            });
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let next = |topic: &str| {
            let mut peer = Raw::of(listener.accept().unwrap().0);
            peer.shake("SUB", "");
            peer.send(&command("SUBSCRIBE", topic.as_bytes()));
            peer.has_been_heard();
            peer
        };
        publisher.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        let _slow = next("s");
        publish_until_cut();
        let mut other = Raw::up(&publisher.bind_blocking(ANYWHERE).unwrap(), "SUB", "");
        other.send(&command("SUBSCRIBE", b"o"));
        other.has_been_heard();
        let mut again = next("a");
        for body in ["s", "a1", "o1"] {
            publisher.send_blocking(body).unwrap();
        }
        assert_eq!(again.frame(), text("a1"));
        assert_eq!(other.frame(), text("o1"));

        // In process it waits for another to take the name.
        let publisher = AnySocket::of_type_with(&context, kind, impatient.clone()).unwrap();
        let subscriber = |topic| {
            let sub = Sub::with_options(&context, impatient.clone()).unwrap();
            sub.subscribe(topic).unwrap();
            sub
        };
        let slow = subscriber("s");
        slow.bind_blocking("inproc://subscriber").unwrap();
        publisher.connect("inproc://subscriber").unwrap();
        until("the slow one is disconnected", || {
            publisher.send_blocking("s").unwrap();
            publisher.peers().iter().all(|peer| !peer.is_connected())
        });
        slow.unbind("inproc://subscriber").unwrap();
        publisher.bind_blocking("inproc://publisher").unwrap();
        let other = subscriber("o");
        other.connect("inproc://publisher").unwrap();
        let again = subscriber("a");
        again.bind_blocking("inproc://subscriber").unwrap();
        for body in ["a2", "o2"] {
            publisher.send_blocking(body).unwrap();
        }
        assert_eq!(again.recv_blocking().unwrap().parts(), ["a2"]);
        assert_eq!(other.recv_blocking().unwrap().parts(), ["o2"]);
    }
}

/// An endless stream of messages that nobody subscribed to keeps neither a receive from timing out nor the worker from
/// serving others.
///
/// Rules: MQ-072, MQ-236.
#[test]
fn a_stream_of_what_is_not_wanted_holds_nobody_up() {
    for driver in DRIVERS {
        let context = context(driver);
        let sub = Sub::with_options(
            &context,
            options_with(|options| options.rcvtimeo = Some(Duration::from_millis(100))),
        )
        .unwrap();
        sub.subscribe("wanted").unwrap();
        let endpoint = sub.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "PUB", "");
        assert_eq!(peer.frame(), (4, b"\x09SUBSCRIBEwanted".to_vec()));
        let noise = frame(0, b"noise").repeat(1000);
        let stop = Mutex::new(false);
        thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let mut sent = 0_u64;
                while !*stop.lock().unwrap() {
                    peer.0.write_all(&noise).unwrap();
                    sent += 1000;
                }
                peer.send(&frame(0, b"wanted"));
                sent
            });
            let end = Instant::now() + Duration::from_secs(1);
            while Instant::now() < end {
                assert!(matches!(sub.recv_blocking(), Err(Error::Timeout | Error::WouldBlock)));
            }
            let pull = Pull::with_options(&context, options()).unwrap();
            let push = Push::with_options(&context, options()).unwrap();
            push.connect(&pull.bind_blocking(ANYWHERE).unwrap()).unwrap();
            for _ in 0..100 {
                push.send_blocking("served").unwrap();
                assert_eq!(pull.recv_blocking().unwrap().parts()[0], "served");
            }
            *stop.lock().unwrap() = true;
            assert!(sent.join().unwrap() > 10_000, "that was no stream");
        });
        sub.set_options(|options| {
            options.rcvtimeo = Some(PATIENCE);
            Ok(())
        })
        .unwrap();
        assert_eq!(sub.recv_blocking().unwrap().parts()[0], "wanted");
    }
}
