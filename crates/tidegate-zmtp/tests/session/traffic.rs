//! Frames, messages and commands of an established connection (chapters 3, 5 and 12).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidegate_io::{batch::WriteBatch, message::Message};
use tidegate_zmtp::{
    close::{CloseReason, Limit},
    config::{Limits, SessionConfig},
    session::{Event, State},
    socket_type::SocketType::{self, Dealer, Pub, Pull, Push, Rep, Req, Router, Sub, XPub, XSub},
};

use crate::support::*;

fn pull() -> Side {
    Side::up(config(Pull), Push)
}

fn pull_with(limits: Limits) -> Side {
    Side::up(SessionConfig { limits, ..config(Pull) }, Push)
}

fn message(parts: &[&[u8]]) -> Message {
    parts.iter().copied().collect()
}

/// Rules: MQ-101, MQ-107, MQ-108, MQ-393.
#[test]
fn messages_of_any_form_are_delivered_whole() {
    let big = vec![7; 300];
    let mut side = pull();
    assert_eq!(messages(side.feed(&frame(0, b"one"))), [message(&[b"one"])]);
    assert_eq!(messages(side.feed(&frame(0, b""))), [message(&[b""])]);
    assert_eq!(messages(side.feed(&frame(0, &big))), [message(&[&big])]);
    assert_eq!(
        messages(side.feed(&[long(0, 1), vec![b'x']].concat())),
        [message(&[b"x"])],
        "LONG of one octet"
    );
    assert_eq!(messages(side.feed(&long(0, 0))), [message(&[b""])]);
    assert!(side.feed(&[frame(1, b""), frame(1, &big)].concat()).is_empty(), "not before the last part");
    assert_eq!(messages(side.feed(&frame(0, b""))), [message(&[b"", &big, b""])]);
}

/// Rules: MQ-101, MQ-468.
#[test]
fn every_size_class_is_written_and_read() {
    let mut sender = Side::up(config(Push), Pull);
    let mut receiver = pull();
    for len in [
        0,
        1,
        31,
        32,
        33,
        254,
        255,
        256,
        257,
        4095,
        4096,
        16_383,
        16_384,
        65_535,
        65_536,
        1 << 20,
        (1 << 20) + 1,
    ] {
        let body: Vec<u8> = (0..len).map(|n: usize| n as u8).collect();
        let octets = sender.encode(body.clone());
        assert_eq!(octets, frame(0, &body), "{len}");
        assert_eq!(messages(receiver.feed(&octets)), [message(&[&body])], "{len}");
        let octets = sender.encode(message(&[&body, b"", &body]));
        assert_eq!(octets, [frame(1, &body), frame(1, b""), frame(0, &body)].concat(), "{len}");
        assert_eq!(messages(receiver.feed(&octets)), [message(&[&body, b"", &body])], "{len}");
    }
}

/// Rules: MQ-102, MQ-103, MQ-388, MQ-389, MQ-390.
#[test]
fn malformed_headers_close_at_once() {
    for flags in (0x08..=0xff).chain([0x05, 0x07]) {
        assert_eq!(pull().closes(&[flags]), CloseReason::MalformedFrame, "{flags:#x}");
    }
    for flags in [0x02, 0x03, 0x06] {
        assert_eq!(pull().closes(&[flags, 0x80]), CloseReason::MalformedFrame, "top bit of the size");
    }
}

/// Rules: MQ-391, MQ-392, MQ-102, MQ-105.
#[test]
fn absurd_sizes_are_refused_at_the_header() {
    for size in [1 << 62, (1 << 32) + 1, (1 << 32) + 100, (2 << 30)] {
        assert_eq!(
            pull().closes(&long(0, size)),
            CloseReason::MessageTooLarge(Limit::HardFrame),
            "{size:#x}"
        );
        assert_eq!(
            pull().closes(&long(4, size)),
            CloseReason::MessageTooLarge(Limit::HardFrame),
            "{size:#x}"
        );
    }
    let mut largest = pull();
    assert!(largest.feed(&long(0, (2 << 30) - 1)).is_empty(), "legal, and nothing is reserved yet");
}

/// Rules: MQ-104.
#[test]
fn memory_follows_what_has_arrived() {
    let committed = |size: u64, received: usize| {
        let mut side = pull();
        side.feed(&[long(0, size), vec![0; received]].concat());
        side.session.staging().unwrap().capacity()
    };
    assert!(committed(1 << 30, 0) <= 64 * 1024);
    assert!(committed(1 << 30, 10) <= 64 * 1024);
    assert!(committed(1 << 30, 100_000) <= 200_000);
    assert!(committed(1 << 30, 1_000_000) <= 2_000_000);
    assert!(committed(2 << 20, 1_500_000) < (2 << 20) + 4096, "never more than the body");
    assert!(committed(1 << 20, 10) < (1 << 20) + 4096, "up to 1 MiB at once");
    assert!(committed(1 << 20, 10) >= 1 << 20);
}

/// At no moment is more than twice of what has arrived committed to a frame above 1 MiB, whether it is read into its own
/// buffer or arrives in chunks.
///
/// Rules: MQ-104.
#[test]
fn memory_never_runs_ahead_of_what_has_arrived() {
    const UNTIL: usize = 5 << 20;
    for size in [(1 << 20) + 1, 3_000_000, 1 << 30] {
        for step in [999, 65_536, 100_000, 1_000_000] {
            let bound = |received: usize| (64 * 1024).max(2 * received).min(size);
            let mut read = pull();
            read.feed(&long(0, size as u64));
            let mut received = 0;
            while received < UNTIL
                && let Some(mut buffer) = read.session.staging()
            {
                let room = buffer.capacity() - received;
                assert!(buffer.capacity() <= bound(received), "{received} of {size}: {}", buffer.capacity());
                let count = step.min(room);
                buffer.extend_from_slice(&vec![0; count]);
                received += count;
                read.session.receive_into(buffer, read.now);
            }
            let mut fed = pull();
            fed.feed(&long(0, size as u64));
            let mut received = 0;
            while received + step < size.min(UNTIL) {
                assert!(fed.feed(&vec![0; step]).is_empty());
                received += step;
                let Some(buffer) = fed.session.staging() else { break };
                assert_eq!(buffer.len(), received);
                assert!(buffer.capacity() <= bound(received), "{received} of {size}: {}", buffer.capacity());
                fed.session.receive_into(buffer, fed.now);
            }
        }
    }
}

/// Rules: MQ-104, MQ-028.
#[test]
fn large_frames_are_read_straight_into_their_buffer() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    let octets = [frame(0, &body), frame(0, b"next"), frame(0, &body)].concat();
    for first in [1, 5, 9, 10, 65_536, 2_999_990] {
        let mut side = pull();
        let mut got = messages(side.feed(&octets[..first]));
        let mut at = first;
        let (mut staged, mut grown) = (0, 0);
        while at < octets.len() {
            if let Some(mut buffer) = side.session.staging() {
                let room = buffer.capacity() - buffer.len();
                assert!(room > 0, "a read of nothing would look like the end of the stream");
                let read = room.min(octets.len() - at).min(300_000);
                let place = buffer.as_ptr();
                buffer.extend_from_slice(&octets[at..at + read]);
                assert_eq!(buffer.as_ptr(), place);
                side.session.receive_into(buffer, side.now);
                at += read;
                staged += read;
                grown += 1;
                got.extend(messages(side.events()));
            } else {
                let read = 10_000.min(octets.len() - at);
                got.extend(messages(side.feed(&octets[at..at + read])));
                at += read;
            }
        }
        assert_eq!(got, [message(&[&body]), message(&[b"next"]), message(&[&body])], "after {first}");
        assert!(staged > 2_500_000 && grown < 60, "{staged} octets in {grown} reads");
    }
    assert!(pull().session.staging().is_none(), "nothing is missing");
}

/// A buffer with more room than the frame needs may be filled into the next frames.
///
/// Rules: MQ-028.
#[test]
fn a_staging_buffer_may_come_back_with_more_than_its_frame() {
    let body = vec![3; 100_000];
    let mut side = pull();
    side.feed(&[long(0, 100_000), body[..10].to_vec()].concat());
    let mut buffer = side.session.staging().unwrap();
    buffer.extend_from_slice(&body[10..]);
    buffer.extend_from_slice(&frame(0, b"next"));
    side.session.receive_into(buffer, side.now);
    assert_eq!(messages(side.events()), [message(&[&body]), message(&[b"next"])]);
}

/// Rules: MQ-018, MQ-022, MQ-030.
#[test]
fn large_parts_are_slices_and_small_ones_copies() {
    let inside = |part: &Bytes, chunk: (*const u8, usize)| {
        let start = part.as_ptr() as usize;
        start >= chunk.0 as usize && start + part.len() <= chunk.0 as usize + chunk.1
    };
    let mut side = pull();
    let (small, large) = (vec![1; 256], vec![2; 20_000]);
    let chunk = BytesMut::from(&[frame(1, &small), frame(0, &large)].concat()[..]);
    let place = (chunk.as_ptr(), chunk.len());
    side.session.receive(chunk, side.now);
    let got = messages(side.events()).remove(0);
    assert!(!inside(got.get(0).unwrap().shared().unwrap(), place), "would keep the page alive");
    assert!(inside(got.get(1).unwrap().shared().unwrap(), place), "no copy");
}

/// Parts are copied into the batch or out of the page up to the thresholds, and shared from there on.
///
/// Rules: MQ-356.
#[test]
fn thresholds_say_what_is_copied() {
    for threshold in [300_usize, 5000] {
        let mut side = Side::up(SessionConfig { vectored_threshold: threshold, ..config(Push) }, Pull);
        for (size, shared) in [(threshold - 1, false), (threshold, true)] {
            let body = Bytes::from(vec![7; size]);
            let mut batch = WriteBatch::new(64 * 1024);
            side.session.encode(&Message::from(body.clone()), &mut batch);
            let is_shared = batch.segments().iter().any(|segment| segment.as_ptr() == body.as_ptr());
            assert_eq!(is_shared, shared, "{size} octets, threshold {threshold}");
        }

        let kept = SessionConfig { inline_copy_threshold: threshold, ..config(Pull) };
        for (size, shared) in [(threshold, false), (threshold + 1, true)] {
            let is_shared = shares_page(Side::up(kept.clone(), Push), size);
            assert_eq!(is_shared, shared, "{size} octets, threshold {threshold}");
        }
    }
}

/// Whether a received part of `size` octets lies where it was received.
fn shares_page(mut side: Side, size: usize) -> bool {
    let chunk = BytesMut::from(frame(0, &vec![7; size]).as_slice());
    let page = chunk.as_ptr() as usize..chunk.as_ptr() as usize + chunk.len();
    side.session.receive(chunk, side.now);
    let received = messages(side.events());
    page.contains(&(received[0].parts()[0].as_ptr() as usize))
}

/// Parts of up to 256 octets are copied by whoever queues them, whatever the threshold: they are copied here, too, where
/// that frees the receive page at once.
///
/// Rules: MQ-022, MQ-356.
#[test]
fn a_low_threshold_acts_as_the_usual_one() {
    for threshold in [0, 54, 256] {
        let kept = SessionConfig { inline_copy_threshold: threshold, ..config(Pull) };
        for (size, shared) in [(55, false), (65, false), (256, false), (257, true)] {
            let is_shared = shares_page(Side::up(kept.clone(), Push), size);
            assert_eq!(is_shared, shared, "{size} octets, threshold {threshold}");
        }
    }
}

/// Rules: MQ-394, MQ-106, MQ-105.
#[test]
fn maxmsgsize_is_for_each_part_and_for_commands() {
    let limits = Limits { max_msg_size: Some(10), ..Limits::default() };
    let too_large = CloseReason::MessageTooLarge(Limit::MaxMsgSize);
    let mut side = pull_with(limits);
    assert_eq!(messages(side.feed(&[frame(1, &[0; 10]), frame(0, &[0; 10])].concat())).len(), 1);
    assert_eq!(side.closes(&[0, 11]), too_large, "before any of the body");
    assert_eq!(pull_with(limits).closes(&long(0, 11)), too_large);
    assert_eq!(pull_with(limits).closes(&[4, 11]), too_large);
}

/// Rules: MQ-395, MQ-436, MQ-105.
#[test]
fn endless_messages_end_at_a_limit() {
    let mut side = pull();
    for _ in 0..65_536 {
        assert!(side.feed(&[1, 0]).is_empty());
    }
    assert_eq!(side.closes(&[1, 0]), CloseReason::MessageTooLarge(Limit::MessageParts));

    let mut exact = pull();
    let octets = [[1, 0].repeat(65_535), vec![0, 0]].concat();
    assert_eq!(messages(exact.feed(&octets))[0].len(), 65_536);

    let mut side = pull_with(Limits { message_bytes: 1000, ..Limits::default() });
    assert!(side.feed(&[frame(1, &[0; 500]), frame(1, &[0; 499])].concat()).is_empty());
    assert_eq!(messages(side.feed(&frame(0, &[0]))).len(), 1, "exactly the limit");
    assert!(side.feed(&[frame(1, &[0; 500]), frame(1, &[0; 499])].concat()).is_empty(), "counted anew");
    assert_eq!(side.closes(&[0, 2]), CloseReason::MessageTooLarge(Limit::MessageBytes), "before the body");
}

/// Rules: MQ-395, MQ-427.
#[test]
fn discarded_parts_count_as_well() {
    let mut side = Side::up(config(Pub), Sub);
    let octets = [1, 1, 9].repeat(65_536);
    assert!(side.feed(&octets).is_empty());
    assert_eq!(side.closes(&[1, 0]), CloseReason::MessageTooLarge(Limit::MessageParts));
}

/// Rules: MQ-387, MQ-108.
#[test]
fn an_end_in_mid_message_drops_it() {
    for octets in [vec![0], long(0, 5)[..6].to_vec(), vec![0, 5, b'a'], frame(1, b"part")] {
        let mut side = pull();
        assert!(side.feed(&octets).is_empty());
        side.session.disconnected();
        assert_eq!(closed(side.events(), &side), CloseReason::Disconnected { greeting: false });
    }
}

/// Rules: MQ-109, MQ-419, MQ-167.
#[test]
fn commands_between_parts_do_not_disturb() {
    let mut side = pull();
    let octets = [
        frame(1, b"a"),
        command("PING", b"\0\0ctx"),
        frame(1, b"b"),
        command("PONG", b""),
        command("UNKNOWN", b"data"),
        frame(0, b"c"),
    ];
    assert_eq!(messages(side.feed(&octets.concat())), [message(&[b"a", b"b", b"c"])]);
    assert_eq!(side.output(), command("PONG", b"ctx"));
}

/// Rules: MQ-111, MQ-112, MQ-114, MQ-168, MQ-416, MQ-417, MQ-418, MQ-422.
#[test]
fn malformed_commands_close_and_unknown_ones_are_ignored() {
    for body in [b"".as_slice(), b"\0", b"\0PING", b"\x05PING", b"\xffX", b"\x04PING", b"\x04PING\0"] {
        assert_eq!(pull().closes(&frame(4, body)), CloseReason::MalformedCommand, "{body:?}");
    }
    let mut side = pull();
    assert!(
        side.feed(&[command("HICCUP", b"x"), command("ping", b""), command("X", &[0; 300])].concat())
            .is_empty()
    );
    assert_eq!(side.session.state(), State::Active);
    assert!(side.output().is_empty());
}

/// Rules: MQ-112, MQ-412.
#[test]
fn commands_of_the_handshake_come_too_late() {
    for octets in [
        ready(Push),
        command("HELLO", b"\0\0"),
        command("WELCOME", b""),
        command("INITIATE", b""),
        command("MESSAGE", b""),
    ] {
        assert_eq!(pull().closes(&octets), CloseReason::UnexpectedCommand);
    }
}

/// Rules: MQ-112, MQ-415.
#[test]
fn an_error_after_the_handshake_is_reported_with_its_reason() {
    let cases = [(b"\x04oops".as_slice(), "oops"), (b"\x03400", "400"), (b"\0", "")];
    for (data, reason) in cases {
        let reason = CloseReason::PeerError(Bytes::from_static(reason.as_bytes()));
        assert_eq!(pull().closes(&command("ERROR", data)), reason);
    }
    assert_eq!(pull().closes(&command("ERROR", b"\x09oops")), CloseReason::MalformedError);
}

/// A peer of a type that may talk to `kind`.
fn peer_of(kind: SocketType) -> SocketType {
    SocketType::ALL.into_iter().find(|&peer| kind.accepts(peer)).unwrap()
}

/// Rules: MQ-177, MQ-179, MQ-420.
#[test]
fn only_publishers_take_subscriptions() {
    for kind in SocketType::ALL {
        for (name, subscribes) in [("SUBSCRIBE", true), ("CANCEL", false)] {
            let mut side = Side::up(config(kind), peer_of(kind));
            let events = side.feed(&command(name, b"topic"));
            if matches!(kind, Pub | XPub) {
                match &events[..] {
                    [Event::Subscribe(topic)] if subscribes => assert_eq!(topic, b"topic"),
                    [Event::Cancel(topic)] if !subscribes => assert_eq!(topic, b"topic"),
                    other => panic!("{kind:?} {other:?}"),
                }
            } else {
                assert_eq!(closed(events, &side), CloseReason::UnexpectedCommand, "{kind:?}");
            }
        }
    }
}

/// Rules: MQ-181, MQ-421.
#[test]
fn groups_are_refused_by_every_type() {
    for kind in SocketType::ALL {
        for name in ["JOIN", "LEAVE"] {
            let mut side = Side::up(config(kind), peer_of(kind));
            assert_eq!(side.closes(&command(name, b"group")), CloseReason::UnexpectedCommand, "{kind:?}");
        }
    }
}

/// Rules: MQ-428, MQ-241.
#[test]
fn a_socket_that_only_pushes_is_sent_nothing() {
    for octets in [vec![0, 5], vec![1, 0], frame(0, b"data")] {
        assert_eq!(Side::up(config(Push), Pull).closes(&octets), CloseReason::UnexpectedData);
    }
    for kind in [Req, Rep, Dealer, Router, Sub, XSub, Pull] {
        assert_eq!(
            messages(Side::up(config(kind), peer_of(kind)).feed(&frame(0, b"data"))).len(),
            1,
            "{kind:?}"
        );
    }
}

/// Rules: MQ-177, MQ-219, MQ-427, MQ-430.
#[test]
fn messages_of_subscribers_are_subscriptions_or_go_up_to_xpub_only() {
    let octets = [
        frame(0, b"\x01A"),
        frame(0, b"\x00A"),
        frame(0, b"\x01"),
        frame(0, b""),
        frame(0, b"user"),
        frame(0, b"\x02A"),
        [frame(1, b"x"), frame(0, b"y")].concat(),
    ]
    .concat();
    let subscriptions = ["Subscribe(\"A\")", "Cancel(\"A\")", "Subscribe(\"\")"];
    assert_eq!(history(&Side::up(config(Pub), Sub).feed(&octets)), subscriptions);
    let mut events = Side::up(config(XPub), XSub).feed(&octets);
    let rest = events.split_off(3);
    assert_eq!(history(&events), subscriptions);
    let expected = [message(&[b""]), message(&[b"user"]), message(&[b"\x02A"]), message(&[b"x", b"y"])];
    assert_eq!(messages(rest), expected);
}

/// Rules: MQ-429, MQ-240.
#[test]
fn parts_after_a_subscription_follow_only_first_subscribe() {
    let octets = [frame(1, b"\x01A"), frame(1, b"\x01B"), frame(1, b"user"), frame(0, b"\x00C")].concat();
    let history_of = |kind: SocketType, only_first_subscribe: bool| {
        let side = SessionConfig { only_first_subscribe, ..config(kind) };
        history(&Side::up(side, XSub).feed(&octets))
    };
    let user = |parts: &[&[u8]]| format!("{parts:?}");
    let all = ["Subscribe(\"A\")", "Subscribe(\"B\")", "Cancel(\"C\")", &user(&[b"user"])];
    assert_eq!(history_of(XPub, false), all);
    assert_eq!(history_of(Pub, false), all[..3]);
    // The first part of several is left to the socket, which has to know that it was the first.
    assert_eq!(history_of(XPub, true), [user(&[b"\x01A", b"\x01B", b"user", b"\x00C"])]);
    assert_eq!(history_of(Pub, true), all[..1]);
}

/// Rules: MQ-180, MQ-433, MQ-434.
#[test]
fn topics_are_limited_in_both_forms() {
    let (most, more) = (vec![b't'; 64 * 1024], vec![b't'; 1 << 20]);
    let mut side = Side::up(config(XPub), Sub);
    let octets = [command("SUBSCRIBE", &most), command("CANCEL", &most)].concat();
    assert!(
        matches!(&side.feed(&octets)[..], [Event::Subscribe(a), Event::Cancel(b)] if a == &most && b == &most)
    );
    let octets = frame(0, &[b"\x01", most.as_slice()].concat());
    assert!(matches!(&side.feed(&octets)[..], [Event::Subscribe(topic)] if topic == &most));
    for topic in [&[most.as_slice(), b"t"].concat(), &more] {
        for octets in [
            command("SUBSCRIBE", topic),
            command("CANCEL", topic),
            frame(0, &[b"\x01", topic.as_slice()].concat()),
            frame(0, &[b"\x00", topic.as_slice()].concat()),
        ] {
            assert_eq!(Side::up(config(Pub), Sub).closes(&octets), CloseReason::SubscriptionLimit);
        }
    }
}

/// Rules: MQ-056, MQ-065.
#[test]
fn commands_fill_batches_at_frame_boundaries() {
    let mut side = Side::up(config(Sub), Pub);
    let topics: Vec<Vec<u8>> = (0..3000).map(|n| format!("topic-{n}").into_bytes()).collect();
    for topic in &topics {
        side.session.subscribe(topic);
    }
    let mut batch = tidegate_io::batch::WriteBatch::new(1000);
    let mut written = Vec::new();
    loop {
        side.session.fill(&mut batch);
        if batch.is_empty() {
            break;
        }
        assert!(batch.len() < 1100, "{}", batch.len());
        let octets: Vec<u8> = batch.segments().iter().flatten().copied().collect();
        batch.advance(octets.len());
        let mut publisher = Side::up(config(Pub), Sub);
        assert!(!publisher.feed(&octets).is_empty());
        publisher.session.disconnected();
        assert_eq!(closed(publisher.events(), &publisher), CloseReason::Disconnected { greeting: false });
        written.extend(octets);
    }
    let mut publisher = Side::up(config(Pub), Sub);
    let got: Vec<Vec<u8>> = publisher
        .feed(&written)
        .into_iter()
        .map(|event| match event {
            Event::Subscribe(topic) => topic.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(got, topics);
}

/// Rules: MQ-029.
#[test]
fn while_closing_messages_are_discarded_and_commands_are_not() {
    let mut side = Side::up(config(XPub), XSub);
    side.feed(&frame(1, b"half"));
    side.session.close();
    assert_eq!(side.session.state(), State::Closing);
    let octets =
        [frame(0, b"whole"), frame(0, b"other"), command("PING", b"\0\0"), command("SUBSCRIBE", b"t")]
            .concat();
    assert_eq!(history(&side.feed(&octets)), ["Subscribe(\"t\")"]);
    assert_eq!(side.output(), command("PONG", b""));
    assert_eq!(side.encode("queued"), frame(0, b"queued"), "our own messages still go out");
    let mut push = Side::up(config(Push), Pull);
    push.session.close();
    assert!(push.feed(&frame(0, b"data")).is_empty());
    side.session.disconnected();
    assert_eq!(closed(side.events(), &side), CloseReason::Disconnected { greeting: false });
    assert!(side.encode("late").is_empty());
}

/// Rules: MQ-029.
#[test]
fn closing_before_the_handshake_is_complete_just_ends() {
    for octets in [vec![], greeting("NULL")] {
        let mut side = Side::new(config(Pull));
        side.feed(&octets);
        side.session.close();
        assert_eq!(side.session.state(), State::Closed);
        assert_eq!(side.session.deadline(), None);
        assert!(side.feed(&ready(Push)).is_empty());
        assert!(side.pass(Duration::from_secs(60)).is_empty());
    }
}
