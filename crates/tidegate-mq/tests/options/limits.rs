//! Limits: of what waits, of what one peer may send, of what one peer may ask for.

use tidegate_mq::{
    Context, Error, Message, Options, Pull, Push, XPub,
    monitor::{CloseReason, Monitor},
};

use crate::{
    peer::{Raw, command, frame, greeting, message, ready},
    rig::{ANYWHERE, established, fault, options, options_with, until},
};

/// What is sent is limited in bytes, too, exceeded by one message at most; the limit may change under way.
///
/// Rules: MQ-353, MQ-516.
#[test]
fn bytes_that_wait_to_be_sent_are_limited() {
    let context = Context::new();
    let push = Push::with_options(&context, options_with(|options| options.sndhwm_bytes = 100_000)).unwrap();
    push.connect("inproc://nobody").unwrap();
    let fill = || (0..1000).take_while(|_| push.try_send(vec![7; 30_000]).is_ok()).count();
    assert_eq!(fill(), 4);
    push.set_options(|options| {
        options.sndhwm_bytes = 200_000;
        Ok(())
    })
    .unwrap();
    assert_eq!(fill(), 3);
    push.set_options(|options| {
        options.sndhwm_bytes = 0;
        Ok(())
    })
    .unwrap();
    assert_eq!(fill(), 993, "only the number of messages counts");
}

/// Rules: MQ-353, MQ-516.
#[test]
fn bytes_that_wait_to_be_received_are_limited() {
    const SIZE: usize = 30_000;
    let context = Context::new();
    let pull = Pull::with_options(&context, options_with(|options| options.rcvhwm_bytes = 100_000)).unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::up(&endpoint, "PUSH", "");
    let sender = std::thread::spawn(move || {
        (0..300).for_each(|_| peer.send(&frame(0, &[7; SIZE])));
        peer
    });
    until("the queue is full", || pull.metrics().inbound.stalls > 0);
    let depth = pull.metrics().inbound.depth;
    assert!((3..=5).contains(&depth), "{depth} messages of {SIZE} bytes");
    // Reading goes on when there is room, and the limit may change under way.
    for _ in 0..100 {
        assert_eq!(pull.recv_blocking().unwrap().byte_len(), SIZE);
        assert!(pull.metrics().inbound.depth <= 5);
    }
    pull.set_options(|options| {
        options.rcvhwm_bytes = 0;
        Ok(())
    })
    .unwrap();
    until("all of them wait", || pull.metrics().inbound.depth == 200);
    sender.join().unwrap();
}

/// A PULL that an octet peer sends `octets` to.
fn sent(options: Options, octets: &[u8]) -> (Pull, Monitor, Raw) {
    let context = Context::new();
    let pull = Pull::with_options(&context, options).unwrap();
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::up(&endpoint, "PUSH", "");
    peer.send(octets);
    (pull, monitor, peer)
}

/// What is just within the limit arrives, what is just beyond closes the connection for that reason.
fn bounded(limit: impl Fn(&mut Options), within: &[u8], beyond: &[u8], name: &str) {
    let (pull, _monitor, _peer) = sent(options_with(&limit), within);
    pull.recv_blocking().unwrap();
    let (pull, monitor, mut peer) = sent(options_with(&limit), beyond);
    let reason = fault(&monitor);
    assert!(matches!(reason, CloseReason::MessageTooLarge(_)), "{reason}");
    assert!(reason.to_string().contains(name), "{reason}");
    peer.until_closed();
    assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
}

/// Rules: MQ-298, MQ-354.
#[test]
fn messages_are_limited() {
    let one = |size: usize| frame(0, &vec![7; size]);
    let many = |count: usize, size: usize| message(&vec![vec![7; size].as_slice(); count]);
    bounded(|options| options.maxmsgsize = Some(1000), &one(1000), &one(1001), "maxmsgsize");
    bounded(|options| options.hard_frame_limit = 1000, &one(1000), &one(1001), "hard_frame_limit");
    // The tighter one counts.
    let both = |options: &mut Options| {
        options.maxmsgsize = Some(2000);
        options.hard_frame_limit = 1000;
    };
    bounded(both, &one(1000), &one(1001), "hard_frame_limit");
    // Parts that are all small enough add up.
    bounded(|options| options.max_message_bytes = 1000, &many(4, 250), &many(5, 250), "max_message_bytes");
    bounded(|options| options.max_message_parts = 3, &many(3, 1), &many(4, 1), "max_message_parts");
}

/// Rules: MQ-354.
#[test]
fn commands_of_the_handshake_are_limited() {
    let context = Context::new();
    let limited = options_with(|options| options.max_handshake_command = 512);
    let pull = Pull::with_options(&context, limited).unwrap();
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let shake = |size: usize| {
        let mut peer = Raw::connect(&endpoint);
        let mut data = ready("PUSH", "")[8..].to_vec();
        let rest = u32::try_from(size - 6 - data.len() - 1 - 3 - 4).unwrap();
        data.extend([&b"\x03X-a"[..], &rest.to_be_bytes(), &vec![b'v'; rest as usize]].concat());
        let ready = command("READY", &data);
        peer.send(&[greeting("NULL"), ready].concat());
        peer
    };
    let _within = shake(512);
    established(&monitor);
    let mut beyond = shake(513);
    let reason = fault(&monitor);
    assert!(reason.to_string().contains("max_handshake_command"), "{reason}");
    beyond.until_closed();
}

/// Rules: MQ-355.
#[test]
fn subscriptions_of_one_peer_are_limited() {
    let asked = |limit: fn(&mut Options), within: &[&[u8]], beyond: &[u8]| {
        let context = Context::new();
        let publisher = XPub::with_options(&context, options_with(limit)).unwrap();
        let monitor = publisher.monitor();
        let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
        // Each of them may have as much.
        let mut peers = [(); 2].map(|()| Raw::up(&endpoint, "SUB", ""));
        for peer in &mut peers {
            within.iter().for_each(|topic| peer.send(&command("SUBSCRIBE", topic)));
            peer.has_been_heard();
        }
        assert_eq!(publisher.topics_count(), within.len());
        peers[0].send(&command("SUBSCRIBE", beyond));
        assert_eq!(fault(&monitor), CloseReason::SubscriptionLimit);
        peers[0].until_closed();
        peers[1].has_been_heard();
    };
    asked(|options| options.max_topic_bytes = 10, &[&[7; 10]], &[7; 11]);
    asked(|options| options.max_subscriptions = 3, &[b"a", b"b", b"c"], b"d");
    asked(|options| options.max_subscription_bytes = 20, &[&[1; 9], &[2; 9]], &[3; 9]);
}

/// The limit on what is sent is a number of messages as well, of which zero is none.
///
/// Rules: MQ-299.
#[test]
fn messages_that_wait_are_limited() {
    let context = Context::new();
    let push = Push::with_options(&context, options_with(|options| options.sndhwm = 3)).unwrap();
    push.connect("inproc://nobody").unwrap();
    let fill = || (0..5000).take_while(|_| push.try_send(Message::from("x")).is_ok()).count();
    assert_eq!(fill(), 3);
    push.set_raw(23, &crate::int(5)).unwrap();
    assert_eq!(fill(), 2);
    push.set_raw(23, &crate::int(1)).unwrap();
    assert_eq!((fill(), push.metrics().out.depth), (0, 5), "nothing is dropped");
    push.set_raw(23, &crate::int(0)).unwrap();
    assert_eq!(fill(), 5000);
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://nobody").unwrap();
    for _ in 0..5005 {
        pull.recv_blocking().unwrap();
    }
}

/// A value that no number could set is refused where the field is set, too, and changes nothing.
///
/// Rules: MQ-287, MQ-342, MQ-320, MQ-354, MQ-356.
#[test]
fn fields_have_the_range_that_they_have_by_number() {
    type Case = (&'static str, fn(&mut Options));
    let refused: [Case; 11] = [
        ("in_batch_size", |options| options.in_batch_size = 0),
        ("out_batch_size", |options| options.out_batch_size = 0),
        ("max_message_parts", |options| options.max_message_parts = 0),
        ("max_handshake_command", |options| options.max_handshake_command = 511),
        ("max_pending_handshakes", |options| options.max_pending_handshakes = 0),
        ("max_pending_handshakes_per_ip", |options| options.max_pending_handshakes_per_ip = 0),
        ("vectored_threshold", |options| options.vectored_threshold = 0),
        ("inline_copy_threshold", |options| options.inline_copy_threshold = 65_537),
        ("tos", |options| options.tos = 256),
        ("zap_domain", |options| options.zap_domain = "d".repeat(256)),
        ("bindtodevice", |options| options.bindtodevice = "d".repeat(16)),
    ];
    let context = Context::new();
    let push = Push::new(&context).unwrap();
    for (name, set) in refused {
        let is_told = |error: &Error| matches!(error, Error::InvalidOption { option, .. } if *option == name);
        assert!(
            Push::with_options(&context, options_with(set)).is_err_and(|error| is_told(&error)),
            "{name}"
        );
        let live = push.set_options(|options| {
            options.sndhwm = 7;
            set(options);
            Ok(())
        });
        assert!(live.is_err_and(|error| is_told(&error)), "{name}");
        assert_eq!(push.options().sndhwm, 1000, "{name}");
    }
    let at_the_edge = options_with(|options| {
        (options.in_batch_size, options.out_batch_size) = (1, 1);
        (options.max_message_parts, options.tos) = (1, 255);
        // Beyond what a number can say is no fault.
        options.sndhwm = u32::MAX;
    });
    Push::with_options(&context, at_the_edge).unwrap();
}
