//! Named cases of PUB, XPUB, SUB and XSUB.

use std::task::Waker;

use tidegate_io::wait::Budget;

use super::*;

fn subscribed(topic: &str) -> Command {
    Command::Subscribe(Bytes::copy_from_slice(topic.as_bytes()))
}

fn cancelled(topic: &str) -> Command {
    Command::Cancel(Bytes::copy_from_slice(topic.as_bytes()))
}

/// Everything an XPUB has to tell.
fn told(rig: &mut Rig) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| rig.recv().ok()).map(|mut parts| parts.remove(0)).collect()
}

/// Three subscribers with overlapping topics.
///
/// Rules: MQ-215, MQ-216, MQ-471.
#[test]
fn each_subscriber_gets_each_matching_message_once() {
    let mut rig = Rig::new(SocketType::Pub);
    let peers = ["A", "AB", "ABC"].map(|topic| {
        let peer = rig.accept();
        assert_eq!(rig.subscribe(peer, topic), Received::Taken);
        peer
    });
    assert_eq!(rig.subscribe(peers[0], "AB"), Received::Taken);
    rig.send(&[b"ABC", b"1"]).expect("never blocks");
    rig.send(&[b"AX"]).expect("never blocks");
    rig.send(&[b"B", b"A"]).expect("only the first part counts");
    assert_eq!(rig.take(peers[0]), [text(&["ABC", "1"]), text(&["AX"])]);
    assert_eq!(rig.take(peers[1]), [text(&["ABC", "1"])]);
    assert_eq!(rig.take(peers[2]), [text(&["ABC", "1"])]);
    assert_eq!(rig.cancel(peers[1], "AB"), Received::Taken);
    rig.send(&[b"ABC"]).expect("never blocks");
    assert!(rig.take(peers[1]).is_empty());
}

/// Only what was queued behind another message speaks for a stream of them; a message for nobody does not, so that the next
/// one is written at once.
///
/// Rules: MQ-057.
#[test]
fn a_message_for_nobody_is_not_queued_behind_another() {
    let mut rig = Rig::new(SocketType::Pub);
    let peer = rig.accept();
    assert_eq!(rig.subscribe(peer, "A"), Received::Taken);
    let behind = |rig: &mut Rig, subject: &[u8]| {
        rig.send(&[subject]).expect("never blocks");
        rig.effects().behind
    };
    assert!(!behind(&mut rig, b"B"));
    assert!(!behind(&mut rig, b"A"), "the first one");
    assert!(behind(&mut rig, b"A"));
    assert!(!behind(&mut rig, b"B"));
    assert_eq!(rig.take(peer).len(), 2);
    assert!(rig.take(peer).is_empty());
    assert!(!behind(&mut rig, b"A"), "the queue was found empty");
}

/// Rules: MQ-432, MQ-216.
#[test]
fn one_cancel_ends_a_topic_subscribed_twice_in_either_form() {
    for kind in [SocketType::Pub, SocketType::XPub] {
        let mut rig = Rig::new(kind);
        let peer = rig.accept();
        assert_eq!(rig.subscribe(peer, "A"), Received::Taken);
        assert_eq!(rig.receive(peer, &[b"\x01A"]), Received::Taken);
        assert_eq!(rig.cancel(peer, "A"), Received::Taken);
        rig.send(&[b"A"]).expect("never blocks");
        assert!(rig.take(peer).is_empty());
        assert_eq!(rig.state.topics_count(), Ok(0));
    }
}

/// Where nothing more may be queued, an XPUB reads on from a peer once its application has read what came before, or others
/// have made room.
///
/// Rules: MQ-066.
#[test]
fn an_xpub_over_the_budget_waits_to_be_read() {
    let budget = Arc::new(Budget::new(1500));
    let mut rig = Rig::new(SocketType::XPub);
    rig.state.share(Share::new(budget.clone(), Waker::noop().clone()));
    let peer = rig.accept();
    let long = [b'x'; 1000];
    let resumed = |rig: &mut Rig| rig.effects().list.contains(&Effect::Resume { link: 1 });
    assert_eq!(rig.receive(peer, &[&long]), Received::Taken);
    assert_eq!(rig.receive(peer, &[&long]), Received::Full);
    assert_eq!(rig.subscribe(peer, "a"), Received::Full);
    assert!(!resumed(&mut rig));
    rig.recv().expect("there are two");
    assert!(resumed(&mut rig), "there is room");

    let _ = budget.change(0, 1500);
    assert_eq!(rig.receive(peer, &[&long]), Received::Full);
    rig.recv().expect("there are two");
    assert!(!resumed(&mut rig));
    assert_eq!(told(&mut rig).len(), 2);
    assert!(resumed(&mut rig), "all was read");
    assert_eq!(rig.cancel(peer, "a"), Received::Taken);
}

/// Rules: MQ-427, MQ-219, MQ-430.
#[test]
fn user_messages_reach_an_xpub_and_not_a_pub() {
    let mut rig = Rig::new(SocketType::Pub);
    let peer = rig.accept();
    assert_eq!(rig.receive(peer, &[b"hi"]), Received::Taken);
    assert_eq!(rig.receive(peer, &[b""]), Received::Taken);
    assert_eq!(rig.reading(peer).inbound.dropped_by_rule, 2);
    let mut rig = Rig::new(SocketType::XPub);
    let peer = rig.accept();
    assert_eq!(rig.receive(peer, &[b"hi", b"there"]), Received::Taken);
    assert_eq!(rig.receive(peer, &[b""]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["hi", "there"])));
    assert_eq!(rig.recv(), Ok(text(&[""])));
}

/// Rules: MQ-429, MQ-240, MQ-343.
#[test]
fn only_first_subscribe_leaves_later_parts_alone() {
    for (only_first, topics, rest) in [(false, 2, vec!["x"]), (true, 1, vec!["x", "\u{1}B"])] {
        let mut rig = Rig::with(SocketType::XPub, |settings| settings.only_first_subscribe = only_first);
        let peer = rig.accept();
        assert_eq!(rig.receive(peer, &[b"\x01A", b"x", b"\x01B"]), Received::Taken);
        assert_eq!(rig.state.topics_count(), Ok(topics));
        let mut last = Vec::new();
        while let Ok(parts) = rig.recv() {
            last = parts;
        }
        assert_eq!(last, text(&rest));
    }
}

/// libzmq: test_hwm_pubsub/defaults. A full subscriber misses messages, others do not, and it is counted.
///
/// Rules: MQ-217, MQ-067, MQ-517.
#[test]
fn a_slow_subscriber_misses_messages() {
    let mut rig = Rig::with(SocketType::Pub, |settings| settings.send = messages(100));
    let (slow, fast) = (rig.accept(), rig.accept());
    for peer in [slow, fast] {
        assert_eq!(rig.subscribe(peer, ""), Received::Taken);
    }
    for n in 0..1000_u32 {
        rig.send(&[&n.to_be_bytes()]).expect("never blocks");
        assert_eq!(rig.take(fast).len(), 1);
    }
    assert_eq!(rig.take(slow).len(), 100);
    assert_eq!(rig.reading(slow).out.dropped_full, 900);
    assert_eq!(rig.reading(fast).out.dropped_full, 0);
    rig.send(&[b"again"]).expect("never blocks");
    assert_eq!(rig.take(slow), [text(&["again"])], "rejoined with the credit");
}

/// Rules: MQ-222.
#[test]
fn a_slow_subscriber_may_be_disconnected() {
    for kind in [SocketType::Pub, SocketType::XPub] {
        let mut rig = Rig::with(kind, |settings| {
            settings.slow = SlowPolicy::DisconnectAfter(3);
            settings.send = messages(1);
        });
        let peer = rig.accept();
        assert_eq!(rig.subscribe(peer, "t"), Received::Taken);
        let closes = |rig: &mut Rig| rig.effects().list.iter().any(|e| matches!(e, Effect::Close { .. }));
        (0..3).for_each(|_| rig.send(&[b"t"]).expect("never blocks"));
        assert!(!closes(&mut rig), "two missed");
        rig.send(&[b"t"]).expect("never blocks");
        assert!(closes(&mut rig), "three missed");
        assert_eq!(rig.state.subscribers(b"t"), Ok(0));
        assert!(rig.take(peer).is_empty());
        if kind == SocketType::XPub {
            assert_eq!(
                told(&mut rig),
                [] as [Vec<u8>; 0],
                "the unread subscription and its end undo each other"
            );
        }
    }
}

/// The pipe of a dialed one waits for the next connection, which subscribes anew.
///
/// Rules: MQ-222, MQ-182.
#[test]
fn a_dialed_subscriber_may_come_back_after_it_was_disconnected() {
    for kind in [SocketType::Pub, SocketType::XPub] {
        let mut rig = Rig::with(kind, |settings| {
            settings.slow = SlowPolicy::DisconnectAfter(1);
            settings.send = messages(1);
        });
        let key = rig.dial();
        for is_told in [true, false] {
            let peer = rig.up(key);
            assert_eq!(rig.subscribe(peer, "t"), Received::Taken);
            (0..2).for_each(|_| rig.send(&[b"t"]).expect("never blocks"));
            assert_eq!(rig.subscribe(peer, "t"), Received::Stale);
            if is_told {
                rig.down(peer, true);
                assert_ne!(rig.accept().key, key, "its key is not free");
            }
            let peer = rig.up(key);
            rig.send(&[b"t"]).expect("never blocks");
            assert_eq!(rig.subscribe(peer, "u"), Received::Taken);
            rig.send(&[b"u"]).expect("never blocks");
            assert_eq!(rig.take(peer), [text(&["u"])]);
        }
    }
}

/// libzmq: test_xpub_nodrop, test_hwm_pubsub/blocking.
///
/// Rules: MQ-217, MQ-325.
#[test]
fn nodrop_waits_before_anybody_is_served() {
    for kind in [SocketType::Pub, SocketType::XPub] {
        let mut rig = Rig::with(kind, |settings| {
            settings.nodrop = true;
            settings.send = messages(2);
        });
        let (slow, fast, other) = (rig.accept(), rig.accept(), rig.accept());
        for (peer, topic) in [(slow, "a"), (fast, "a"), (other, "b")] {
            assert_eq!(rig.subscribe(peer, topic), Received::Taken);
        }
        (0..2).for_each(|_| rig.send(&[b"a"]).expect("room"));
        assert_eq!(rig.take(fast).len(), 2);
        let full = Err(SendRefusal::WouldBlock(Awaited::RoomOn(slow.key)));
        assert_eq!(rig.send(&[b"a"]), full);
        assert!(rig.take(fast).is_empty(), "nobody got it");
        assert_eq!(rig.send(&[b"b"]), Ok(()), "a full peer that does not match is no obstacle");
        rig.effects();
        assert_eq!(rig.take_some(slow, 1).len(), 1);
        let told = |effects: &Effects<u32>| effects.list.contains(&Effect::WakeFor(slow.key));
        let all_told = |effects: &Effects<u32>| effects.list.contains(&Effect::WakeAllFor(slow.key));
        assert!(told(&rig.effects()));
        assert_eq!(rig.send(&[b"a"]), Ok(()));
        rig.effects();
        assert_eq!(rig.send(&[b"a"]), full);
        assert_eq!(rig.cancel(slow, "z"), Received::Taken);
        assert_eq!(rig.subscribe(slow, "y"), Received::Taken);
        let effects = rig.effects();
        assert!(!told(&effects) && !all_told(&effects), "it is as full as before");
        assert_eq!(rig.cancel(slow, "a"), Received::Taken);
        assert!(all_told(&rig.effects()), "a full peer that does not match any more is no obstacle");
        assert_eq!(rig.send(&[b"a"]), Ok(()));
        rig.effects();
        rig.down(slow, false);
        assert!(all_told(&rig.effects()), "a full peer that is gone blocks nobody");
    }
}

/// libzmq: test_pub_invert_matching.
///
/// Rules: MQ-215, MQ-329.
#[test]
fn inverted_matching_gives_the_complement() {
    let mut rig = Rig::with(SocketType::Pub, |settings| settings.invert_matching = true);
    let (some, none) = (rig.accept(), rig.accept());
    assert_eq!(rig.subscribe(some, "pre"), Received::Taken);
    rig.send(&[b"prefix"]).expect("never blocks");
    rig.send(&[b"other"]).expect("never blocks");
    assert_eq!(rig.take(some), [text(&["other"])]);
    assert_eq!(rig.take(none), [text(&["prefix"]), text(&["other"])]);

    let mut rig = Rig::with(SocketType::Sub, |settings| settings.invert_matching = true);
    rig.state.subscribe(Bytes::from_static(b"pre")).expect("a SUB");
    let peer = rig.accept();
    assert_eq!(rig.receive(peer, &[b"prefix"]), Received::Taken);
    assert_eq!(rig.receive(peer, &[b"other"]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["other"])));
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
}

/// libzmq: test_xpub_welcome_msg. On PUB too; also after a reconnect.
///
/// Rules: MQ-227, MQ-327.
#[test]
fn the_welcome_message_comes_first() {
    for kind in [SocketType::Pub, SocketType::XPub] {
        let mut rig = Rig::with(kind, |settings| settings.welcome = Part::from("W"));
        let key = rig.dial();
        for _ in 0..2 {
            let peer = rig.up(key);
            assert_eq!(rig.subscribe(peer, ""), Received::Taken);
            rig.send(&[b"news"]).expect("never blocks");
            assert_eq!(rig.take(peer), [text(&["W"]), text(&["news"])]);
            rig.down(peer, true);
        }
    }
}

/// Rules: MQ-433, MQ-180.
#[test]
fn subscriptions_are_limited_per_peer() {
    let limits = |settings: &mut Settings| {
        settings.subscriptions = SubscriptionLimits { topic: 8, topics: 3, bytes: 12 };
    };
    for (kind, manual) in [(SocketType::Pub, false), (SocketType::XPub, false), (SocketType::XPub, true)] {
        let violates = |topics: &[&str]| {
            let mut rig = Rig::with(kind, limits);
            rig.state.configure(|settings| settings.xpub_manual = manual);
            let (other, peer) = (rig.accept(), rig.accept());
            assert_eq!(rig.subscribe(other, "ok"), Received::Taken);
            let results: Vec<Received> = topics.iter().map(|topic| rig.subscribe(peer, topic)).collect();
            let violation = Received::Violation(Violation::SubscriptionLimit);
            rig.down(peer, false);
            assert_eq!(rig.subscribe(other, "fine"), Received::Taken, "others are unaffected");
            results.iter().position(|result| *result == violation)
        };
        assert_eq!(violates(&["a", "b", "c", "a", "d"]), Some(4), "distinct topics");
        assert_eq!(violates(&["12345678", "123456789"]), Some(1), "one long topic");
        assert_eq!(violates(&["12345", "67890", "abc"]), Some(2), "bytes together");
    }
}

/// libzmq: test_xpub_topic/long_topic; and a topic of 64 KiB.
///
/// Rules: MQ-434.
#[test]
fn long_topics_come_and_go() {
    for len in [245, 246, 64 << 10] {
        let mut rig = Rig::new(SocketType::XPub);
        let peer = rig.accept();
        let topic = "t".repeat(len);
        assert_eq!(rig.subscribe(peer, &topic), Received::Taken);
        assert_eq!(told(&mut rig), [[b"\x01", topic.as_bytes()].concat()]);
        rig.send(&[topic.as_bytes()]).expect("never blocks");
        assert_eq!(rig.take(peer).len(), 1);
        assert_eq!(rig.cancel(peer, &topic), Received::Taken);
        assert_eq!(told(&mut rig), [[b"\x00", topic.as_bytes()].concat()]);
    }
}

/// libzmq: test_xpub_verbose. Notifications in each mode, for two peers with the same topic.
///
/// Rules: MQ-223, MQ-224, MQ-225, MQ-307, MQ-431.
#[test]
fn notifications_by_verbosity() {
    let run = |set: fn(&mut Settings)| {
        let mut rig = Rig::with(SocketType::XPub, set);
        let (a, b) = (rig.accept(), rig.accept());
        let mut all = Vec::new();
        let mut step = |rig: &mut Rig, result: Received| {
            assert_eq!(result, Received::Taken);
            all.push(told(rig).concat());
        };
        for (peer, topic) in [(a, "t"), (a, "t"), (b, "t")] {
            let result = rig.subscribe(peer, topic);
            step(&mut rig, result);
        }
        for (peer, topic) in [(a, "never"), (a, "t"), (b, "t")] {
            let result = rig.cancel(peer, topic);
            step(&mut rig, result);
        }
        all
    };
    const ON: &[u8] = b"\x01t";
    const OFF: &[u8] = b"\x00t";
    assert_eq!(run(|_| {}), [ON, b"", b"", b"", b"", OFF]);
    assert_eq!(run(|s| s.set_xpub_verbose(true)), [ON, ON, ON, b"", b"", OFF]);
    assert_eq!(run(|s| s.set_xpub_verboser(true)), [ON, ON, ON, b"", OFF, OFF]);
    let cleared: fn(&mut Settings) = |s| {
        s.set_xpub_verboser(true);
        s.set_xpub_verbose(true);
    };
    assert_eq!(run(cleared), [ON, ON, ON, b"", b"", OFF]);
    assert_eq!(run(|s| s.set_xpub_verboser(false)), [ON, b"", b"", b"", b"", OFF]);
}

/// libzmq: test_xpub_manual/basic, unsubscribe, xpub_proxy_unsubscribe_on_disconnect, missing_subscriptions.
///
/// Rules: MQ-224, MQ-326.
#[test]
fn by_hand_a_peer_gets_what_the_application_says() {
    let mut rig = Rig::with(SocketType::XPub, |settings| settings.xpub_manual = true);
    assert_eq!(rig.state.subscribe(Bytes::from_static(b"B")), Ok(()), "no last peer: no effect");
    let (a, other) = (rig.accept(), rig.accept());
    assert_eq!(rig.subscribe(a, "A"), Received::Taken);
    assert_eq!(rig.subscribe(other, "A"), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["\u{1}A"])));
    rig.state.subscribe(Bytes::from_static(b"XA")).expect("manual");
    rig.send(&[b"A"]).expect("never blocks");
    rig.send(&[b"XA"]).expect("never blocks");
    assert_eq!(rig.take(a), [text(&["XA"])]);
    assert!(rig.take(other).is_empty());
    assert_eq!(rig.recv(), Ok(text(&["\u{1}A"])), "every subscription is told");
    rig.state.subscribe(Bytes::from_static(b"B")).expect("manual");
    rig.down(a, false);
    assert_eq!(rig.recv(), Ok(text(&["\u{0}A"])), "as the peer asked, not as set by hand");
    rig.state.subscribe(Bytes::from_static(b"C")).expect("manual");
    let reuses_key = rig.accept();
    assert_eq!(reuses_key.key, a.key);
    rig.send(&[b"C"]).expect("never blocks");
    rig.send(&[b"XA"]).expect("never blocks");
    assert!(rig.take(reuses_key).is_empty(), "nothing attaches to a dead peer or its successor");
    rig.send(&[b"B"]).expect("never blocks");
    assert_eq!(rig.take(other), [text(&["B"])]);
    assert_eq!(rig.cancel(other, "A"), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["\u{0}A"])));
    rig.state.unsubscribe(Bytes::from_static(b"B")).expect("manual");
    rig.send(&[b"B"]).expect("never blocks");
    assert!(rig.take(other).is_empty());
}

/// libzmq: test_last_value (xpub_manual_last_value).
///
/// Rules: MQ-326.
#[test]
fn the_last_value_goes_to_the_newcomer_only() {
    let mut rig = Rig::with(SocketType::XPub, |settings| {
        (settings.xpub_manual, settings.xpub_last_value) = (true, true);
    });
    let peers = [rig.accept(), rig.accept()];
    for peer in peers {
        assert_eq!(rig.subscribe(peer, "t"), Received::Taken);
        assert_eq!(rig.recv(), Ok(text(&["\u{1}t"])));
        rig.state.subscribe(Bytes::from_static(b"t")).expect("manual");
        rig.send(&[b"t", b"last value"]).expect("never blocks");
    }
    rig.send(&[b"t", b"for all"]).expect("never blocks");
    for peer in peers {
        assert_eq!(rig.take(peer), [text(&["t", "last value"]), text(&["t", "for all"])]);
    }
}

/// Rules: MQ-228.
#[test]
fn unread_notifications_pause_their_peer_where_they_repeat() {
    for (verbose, expected) in [(true, Received::Full), (false, Received::Taken)] {
        let mut rig = Rig::with(SocketType::XPub, |settings| {
            settings.set_xpub_verbose(verbose);
            settings.receive = messages(10);
        });
        let (peer, other) = (rig.accept(), rig.accept());
        for n in 0..1000 {
            assert_eq!(rig.subscribe(peer, &n.to_string()), Received::Taken);
        }
        assert_eq!(rig.subscribe(peer, "one more"), expected);
        assert_eq!(rig.subscribe(other, "own"), Received::Taken);
        rig.effects();
        (0..1002).for_each(|_| drop(rig.recv().expect("none was dropped")));
        assert_eq!(rig.effects().list.contains(&Effect::Resume { link: 1 }), verbose);
    }
}

/// Rules: MQ-228, MQ-062.
#[test]
fn unread_user_messages_pause_their_peer() {
    let mut rig = Rig::with(SocketType::XPub, |settings| settings.receive = messages(4));
    let peer = rig.accept();
    for expected in [Received::Taken, Received::Taken, Received::Taken, Received::Full] {
        assert_eq!(rig.receive(peer, &[b"user"]), expected);
    }
    rig.effects();
    rig.recv().expect("four are there");
    assert!(rig.effects().list.is_empty());
    rig.recv().expect("three are there");
    assert_eq!(rig.effects().list, [Effect::Resume { link: 1 }]);
}

/// libzmq: test_xpub_manual/user_message and the typed form.
///
/// Rules: MQ-226.
#[test]
fn events_are_typed() {
    let mut rig = Rig::new(SocketType::XPub);
    let peer = rig.try_accept("who").expect("let in");
    assert_eq!(rig.subscribe(peer, "t"), Received::Taken);
    let (event, from) = rig.state.recv_event().expect("one event");
    assert_eq!(event, Event::Subscribe(Bytes::from_static(b"t")));
    assert_eq!(from.expect("known").routing_id, "who");
    assert_eq!(rig.cancel(peer, "t"), Received::Taken);
    assert_eq!(rig.receive(peer, &[b"user"]), Received::Taken);
    assert_eq!(rig.state.recv_event().expect("two").0, Event::Unsubscribe(Bytes::from_static(b"t")));
    assert_eq!(rig.state.recv_event().expect("one").0, Event::Message(message(&[b"user"])));
}

/// Rules: MQ-185, MQ-515.
#[test]
fn subscriptions_end_with_their_connection_and_return_with_the_next() {
    let mut publisher = Rig::new(SocketType::Pub);
    let key = publisher.dial();
    let peer = publisher.up(key);
    assert_eq!(publisher.subscribe(peer, "t"), Received::Taken);
    publisher.send(&[b"t"]).expect("never blocks");
    publisher.down(peer, true);
    assert_eq!(publisher.state.subscribers(b"t"), Ok(0));
    let peer = publisher.up(key);
    publisher.send(&[b"t"]).expect("never blocks");
    assert!(publisher.take(peer).is_empty());

    let mut subscriber = Rig::with(SocketType::Sub, |settings| settings.send = messages(2));
    for n in 0..1500 {
        subscriber.state.subscribe(Bytes::from(format!("{n:04}"))).expect("a SUB");
    }
    let key = subscriber.dial();
    for _ in 0..2 {
        let peer = subscriber.up(key);
        let replayed = subscriber.commands(peer);
        assert_eq!(replayed.len(), 1500, "all of them, whatever the limits");
        assert_eq!(replayed[7], subscribed("0007"));
        subscriber.down(peer, true);
    }
}

/// libzmq: test_pubsub_topics_count; counting on the subscriber's side.
///
/// Rules: MQ-229, MQ-230, MQ-231, MQ-347.
#[test]
fn a_subscriber_counts_and_repeats() {
    for (repeat, expected) in [(true, vec!["a", "a"]), (false, vec!["a"])] {
        let mut rig = Rig::with(SocketType::Sub, |settings| settings.forward_duplicates = repeat);
        let peer = rig.accept();
        let topic = Bytes::from_static(b"a");
        (0..2).for_each(|_| rig.state.subscribe(topic.clone()).expect("a SUB"));
        let expected: Vec<Command> = expected.into_iter().map(subscribed).collect();
        assert_eq!(rig.commands(peer), expected);
        assert_eq!(rig.state.topics_count(), Ok(1));
        rig.state.unsubscribe(topic.clone()).expect("a SUB");
        assert_eq!(rig.commands(peer), []);
        assert_eq!(rig.receive(peer, &[b"abc"]), Received::Taken);
        assert_eq!(rig.recv(), Ok(text(&["abc"])), "still held");
        rig.state.unsubscribe(topic.clone()).expect("a SUB");
        rig.state.unsubscribe(topic.clone()).expect("unknown by now, nothing happens");
        assert_eq!(rig.commands(peer), [cancelled("a")]);
        assert_eq!(rig.receive(peer, &[b"abc"]), Received::Taken);
        assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock), "filtered here");
        assert_eq!(rig.state.topics_count(), Ok(0));
    }
    assert_eq!(Rig::new(SocketType::Push).state.topics_count(), Err(NotSupported));
}

/// libzmq: test_xsub_verbose.
///
/// Rules: MQ-237, MQ-346.
#[test]
fn an_xsub_cancels_with_the_last_or_always() {
    for (always, expected) in [(false, vec![2]), (true, vec![0, 1, 2, 3])] {
        let mut rig = Rig::with(SocketType::XSub, |settings| settings.verbose_unsubscribe = always);
        let peer = rig.accept();
        (0..3).for_each(|_| rig.send(&[b"\x01A"]).expect("never blocks"));
        assert_eq!(rig.commands(peer).len(), 3, "duplicates are forwarded");
        for n in 0..4 {
            rig.send(&[b"\x00A"]).expect("never blocks");
            let told = rig.commands(peer);
            assert_eq!(told, if expected.contains(&n) { vec![cancelled("A")] } else { vec![] }, "cancel {n}");
        }
    }
}

/// Rules: MQ-237, MQ-238, MQ-239.
#[test]
fn an_xsub_sends_user_messages_upstream_and_filters_nothing() {
    let mut rig = Rig::with(SocketType::XSub, |settings| settings.send = messages(1));
    let peers = [rig.accept(), rig.accept()];
    rig.send(&[b"hi", b"there"]).expect("never blocks");
    assert_eq!(rig.take(peers[0]), [text(&["hi", "there"])]);
    rig.send(&[b""]).expect("never blocks");
    rig.send(&[b"\x01A"]).expect("never blocks");
    assert_eq!(rig.take(peers[0]), [text(&[""])]);
    assert_eq!(rig.take(peers[1]), [text(&["hi", "there"])]);
    assert_eq!(rig.reading(peers[1]).out.dropped_full, 1);
    assert_eq!(rig.commands(peers[1]), [subscribed("A")], "subscriptions are never dropped");
    assert_eq!(rig.receive(peers[0], &[b"not asked for"]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["not asked for"])));
}

/// Rules: MQ-234, MQ-062.
#[test]
fn a_full_subscriber_stops_reading_and_drops_nothing() {
    for kind in [SocketType::Sub, SocketType::XSub] {
        let mut rig = Rig::with(kind, |settings| settings.receive = messages(4));
        rig.state.subscribe(Bytes::new()).expect("subscribes");
        let peer = rig.accept();
        let results: Vec<Received> = (0..6_u8).map(|n| rig.receive(peer, &[&[n]])).collect();
        assert_eq!(results[..3], [Received::Taken; 3]);
        assert_eq!(results[3..], [Received::Full; 3], "what was read already is kept");
        rig.effects();
        for n in 0..6_u8 {
            assert_eq!(rig.recv(), Ok(vec![vec![n]]));
            let resumed = rig.effects().list.contains(&Effect::Resume { link: 1 });
            assert_eq!(resumed, n == 3, "at the low-water mark");
        }
    }
}

/// Who waits for subscribers is told of changes.
///
/// Rules: MQ-221.
#[test]
fn changes_of_subscriptions_are_noted() {
    let mut rig = Rig::new(SocketType::Pub);
    let peer = rig.accept();
    rig.effects();
    assert_eq!(rig.subscribe(peer, "t"), Received::Taken);
    assert!(rig.effects().subscriptions);
    assert_eq!(rig.state.subscribers(b"topic"), Ok(1));
    assert_eq!(rig.cancel(peer, "t"), Received::Taken);
    assert!(rig.effects().subscriptions);
    assert_eq!(rig.state.subscribers(b"topic"), Ok(0));
}
