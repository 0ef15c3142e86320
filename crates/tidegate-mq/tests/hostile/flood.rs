//! Peers that send too much, or what their partner's type does not take.

use tidegate_mq::{
    Message, Pub, Sub, XPub,
    monitor::{CloseReason, EventKind},
};

use super::{
    child::{self, alone},
    peer::{Raw, command, frame, greeting, long, message, ready},
    rig::{ANYWHERE, Attacked, DRIVERS, context, event, fault, options, options_with, until},
};

/// Memory that a test may use without anybody having asked for it.
const NOISE: usize = 2 << 20;

/// A frame that says it is enormous costs nothing until its octets come, and is refused by the limit.
///
/// Rules: MQ-391, MQ-104.
#[test]
fn a_giant_that_never_comes_costs_nothing() {
    let Some(driver) = alone("flood::a_giant_that_never_comes_costs_nothing") else { return };
    let mut attacked = Attacked::new(driver, options());
    let before = child::resident("self");
    for flags in [0, 1] {
        let mut peer = Raw::up(&attacked.endpoint, "PUSH", "");
        peer.send(&long(flags, 1 << 62));
        assert!(matches!(fault(&attacked.monitor), CloseReason::MessageTooLarge(_)));
        peer.until_closed();
    }
    // Within the limits, and silent after that: what is reserved is not touched.
    let peers: Vec<_> = (0..100)
        .map(|_| {
            let mut peer = Raw::up(&attacked.endpoint, "PUSH", "");
            peer.send(&[long(0, 1 << 30), vec![1; 100]].concat());
            peer
        })
        .collect();
    attacked.serves();
    let grown = child::resident("self").saturating_sub(before);
    assert!(grown < 100 * (64 << 10) + NOISE, "{grown} octets for what did not come");
    drop(peers);
    attacked.ends_unharmed();
}

/// A message without end is cut off, by its number of parts or by its size.
///
/// Rules: MQ-395, MQ-105.
#[test]
fn a_message_without_end_is_cut_off() {
    for driver in DRIVERS {
        for (part, limit) in [(&b""[..], 70_000), (&[7; 200][..], 70_000)] {
            let options = options_with(|options| options.max_message_bytes = 5_000_000);
            let attacked = Attacked::new(driver, options);
            let mut peer = Raw::up(&attacked.endpoint, "PUSH", "");
            let many = frame(1, part).repeat(1000);
            let mut sent = 0;
            while sent < limit && peer.try_send(&many) {
                sent += 1000;
            }
            assert!(matches!(fault(&attacked.monitor), CloseReason::MessageTooLarge(_)));
            peer.until_closed();
            attacked.ends_unharmed();
        }
    }
}

/// Who is sent away for a fault, and does not read what is still written, may send what it likes: nothing of it is kept.
#[test]
fn nothing_is_kept_of_who_is_sent_away() {
    /// With the pages that a worker reads into.
    const MOST: usize = NOISE + (8 << 20);
    let Some(driver) = alone("flood::nothing_is_kept_of_who_is_sent_away") else { return };
    let context = context(driver);
    let limited = options_with(|options| {
        options.max_subscriptions = 1;
        options.sndbuf = Some(8192);
    });
    let publisher = Pub::with_options(&context, limited).unwrap();
    let mut peer = Raw::up(&publisher.bind_blocking(ANYWHERE).unwrap(), "SUB", "");
    peer.send(&command("SUBSCRIBE", b""));
    peer.has_been_heard();
    // More than the system takes while nobody reads.
    publisher.send_blocking(vec![7; 16 << 20]).unwrap();
    let many = frame(0, &[7; 200]).repeat(5000);
    let before = child::resident("self");
    peer.send(&command("SUBSCRIBE", b"one too many"));
    let (mut sent, mut grown) = (0, 0);
    while peer.try_send(&many) {
        sent += many.len();
        grown = grown.max(child::resident("self").saturating_sub(before));
    }
    assert!(sent > 2 * MOST, "only {sent} octets were read");
    assert!(grown < MOST, "{grown} octets for {sent} that nobody wants");
}

/// Only a publisher is subscribed to.
///
/// Rules: MQ-420, MQ-179.
#[test]
fn a_subscription_to_a_socket_that_does_not_publish_is_refused() {
    for driver in DRIVERS {
        let mut attacked = Attacked::new(driver, options());
        for name in ["SUBSCRIBE", "CANCEL"] {
            let mut peer = Raw::up(&attacked.endpoint, "PUSH", "");
            peer.send(&[command(name, b"topic"), frame(0, b"after")].concat());
            assert_eq!(fault(&attacked.monitor), CloseReason::UnexpectedCommand);
            peer.until_closed();
            attacked.serves();
        }
        attacked.ends_unharmed();
    }
}

/// A few PINGs are answered, a flood of them ends the connection, whether the answers are read or not.
///
/// Rules: MQ-424, MQ-170.
#[test]
fn a_flood_of_pings_is_cut_off() {
    for driver in DRIVERS {
        for reads in [true, false] {
            let attacked = Attacked::new(driver, options());
            let mut peer = Raw::up(&attacked.endpoint, "PUSH", "");
            let ping = command("PING", b"\0\0abc");
            for _ in 0..50 {
                peer.send(&ping);
                assert_eq!(peer.frame(), (4, b"\x04PONGabc".to_vec()));
            }
            let mut sent = 50;
            while sent < 100_000 && peer.try_send(&ping.repeat(10)) {
                sent += 10;
                if reads && sent <= 900 {
                    (0..10).for_each(|_| assert_eq!(peer.frame().1, b"\x04PONGabc"));
                }
            }
            assert_eq!(fault(&attacked.monitor), CloseReason::PingFlood);
            peer.until_closed();
            attacked.ends_unharmed();
        }
    }
}

/// Subscriptions are limited in number and length for each peer, by default to a million of the ten million that this
/// one has, and neither a crowd of them nor their removal keeps others from what they get.
///
/// Rules: MQ-433, MQ-180, MQ-434.
#[test]
fn too_many_subscriptions_end_the_subscriber_only() {
    const MOST: u32 = 1_000_000;
    const WANTED: u32 = 10_000_000;
    for driver in DRIVERS {
        let context = context(driver);
        let publisher = Pub::with_options(&context, options()).unwrap();
        let monitor = publisher.monitor();
        let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
        let good = Sub::with_options(&context, options()).unwrap();
        good.subscribe("good").unwrap();
        good.connect(&endpoint).unwrap();
        until("the good subscription", || publisher.topics_count() == 1);
        let round = || {
            for _ in 0..2000 {
                publisher.send_blocking("good news").unwrap();
                assert_eq!(good.recv_blocking().unwrap().parts()[0], "good news");
            }
        };
        round();

        let mut peer = Raw::up(&endpoint, "SUB", "");
        let some = |from: u32| {
            let commands = (from..from + 10_000).map(|number| command("SUBSCRIBE", &number.to_be_bytes()));
            commands.flatten().collect::<Vec<u8>>()
        };
        (0..MOST).step_by(10_000).for_each(|from| peer.send(&some(from)));
        until("the crowd", || publisher.topics_count() == MOST as usize + 1);
        round();
        let mut more = (MOST..WANTED).step_by(10_000);
        assert!(more.any(|from| !peer.try_send(&some(from))), "all of them were taken");
        assert_eq!(fault(&monitor), CloseReason::SubscriptionLimit);
        peer.until_closed();
        until("all are gone", || publisher.topics_count() == 1);

        let mut peer = Raw::up(&endpoint, "SUB", "");
        peer.send(&command("SUBSCRIBE", &[b'x'; 65_536]));
        until("the longest topic", || publisher.topics_count() == 2);
        peer.send(&command("CANCEL", &[b'x'; 65_536]));
        until("it is gone", || publisher.topics_count() == 1);
        peer.send(&command("SUBSCRIBE", &vec![b'x'; 1 << 20]));
        assert_eq!(fault(&monitor), CloseReason::SubscriptionLimit);
        peer.until_closed();
        round();
        context.term_blocking();
    }
}

/// A topic is there or not, in whichever form and however often it was asked for; a cancellation of another is nothing.
///
/// Rules: MQ-431, MQ-432.
#[test]
fn subscriptions_of_one_peer_do_not_count() {
    for driver in DRIVERS {
        let context = context(driver);
        let publisher = XPub::with_options(&context, options()).unwrap();
        let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "SUB", "");
        peer.send(&command("CANCEL", b"never"));
        peer.send(&[command("SUBSCRIBE", b"a"), frame(0, b"\x01a"), command("SUBSCRIBE", b"a")].concat());
        peer.send(&frame(0, b"\x01b"));
        let next = || publisher.recv_blocking().unwrap().parts()[0].to_vec();
        assert_eq!((next(), next()), (b"\x01a".to_vec(), b"\x01b".to_vec()));
        // Only now: unread, the two would cancel each other out.
        peer.send(&command("CANCEL", b"b"));
        assert_eq!(next(), b"\0b");
        publisher.send_blocking("abc").unwrap();
        assert_eq!(peer.frame(), (0, b"abc".to_vec()));
        peer.send(&frame(0, b"\0a"));
        assert_eq!(next(), b"\0a");
        publisher.send_blocking("abd").unwrap();
        peer.send(&command("SUBSCRIBE", b""));
        assert_eq!(next(), b"\x01");
        publisher.send_blocking("last").unwrap();
        assert_eq!(peer.frame(), (0, b"last".to_vec()), "what nobody wanted was sent");
        context.term_blocking();
    }
}

/// Connections that are reset at any point of their stream leave nothing, and what arrives of them is whole.
///
/// Rules: MQ-462, MQ-387.
#[test]
fn ten_thousand_resets_in_the_middle_leave_nothing() {
    const RESETS: usize = 10_000;
    /// No more events than a monitor holds.
    const AT_ONCE: usize = 200;
    let Some(driver) = alone("flood::ten_thousand_resets_in_the_middle_leave_nothing") else { return };
    // Who finds the backlog full tries again after a second.
    let attacked = Attacked::new(driver, options_with(|options| options.backlog = 4096));
    let empty = child::descriptors();
    let parts: [&[u8]; 3] = [b"first", &[b'x'; 300], &[b'y'; 40_000]];
    let whole = [greeting("NULL"), ready("PUSH", ""), message(&parts), message(&parts)].concat();
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    let hear = || {
        while let Ok(got) = attacked.pull.try_recv() {
            assert_eq!(got, parts.into_iter().collect::<Message>(), "a message is not what was sent");
        }
    };
    let mut settled = 0;
    for number in 0..RESETS {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        // Half of the points lie in the handshake and the first small frames.
        let most = if dice & 1 == 0 { 500 } else { whole.len() };
        let len = (dice >> 8) as usize % most;
        let mut peer = Raw::connect(&attacked.endpoint);
        peer.send(&whole[..len]);
        peer.reset();
        hear();
        if number % AT_ONCE == AT_ONCE - 1 {
            for _ in 0..AT_ONCE {
                event(&attacked.monitor, "end", |kind| match kind {
                    // It may be over before it is taken in.
                    EventKind::Disconnected { .. } | EventKind::AcceptFailed(_) => Some(()),
                    _ => None,
                });
            }
            hear();
        }
        if number == RESETS / 5 {
            settled = child::resident("self");
        }
    }
    until("the last of them is gone", || child::descriptors() <= empty);
    let grown = child::resident("self").saturating_sub(settled);
    child::say(&format!("measured: {grown} octets more after {RESETS} resets"));
    assert!(grown < 4 << 20, "{grown} octets more than after a fifth of them");
    hear();
    attacked.ends_unharmed();
}
