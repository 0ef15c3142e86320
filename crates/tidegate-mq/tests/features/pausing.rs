//! An XPUB whose application does not read, and peers of its own process.

use std::time::{Duration, Instant};

use tidegate_mq::{Context, Sub, XPub};

use super::rig::{options, options_with, until};

/// Where notifications repeat, a peer in process is held up as one on a stream is, and goes on when they are read: none
/// is dropped, none overtakes another.
///
/// Rules: MQ-228, MQ-271.
#[test]
fn an_inproc_peer_is_held_up_by_unread_notifications() {
    const TOPICS: u32 = 5000;
    for manual in [false, true] {
        let context = Context::new();
        let verbose = options_with(|options| {
            options.xpub_verbose = !manual;
            options.xpub_manual = manual;
            options.rcvtimeo = Some(Duration::from_secs(10));
        });
        let publisher = XPub::with_options(&context, verbose).unwrap();
        publisher.bind_blocking("inproc://topics").unwrap();
        let subscriber = Sub::with_options(&context, options()).unwrap();
        subscriber.connect("inproc://topics").unwrap();
        for topic in 0..TOPICS {
            subscriber.subscribe(topic.to_be_bytes().as_slice()).unwrap();
        }
        assert_eq!(publisher.metrics().inbound.stalls, 1, "it was never held up");
        if !manual {
            let known = publisher.topics_count();
            assert!((1001..=1300).contains(&known), "{known} subscriptions were taken unread");
        }
        for topic in 0..TOPICS {
            let notice = publisher.recv_blocking().unwrap();
            let bytes = notice.parts()[0].as_slice();
            assert_eq!((bytes[0], &bytes[1..]), (1, topic.to_be_bytes().as_slice()));
        }
        assert!(publisher.metrics().inbound.stalls > 1, "the rest came at once");
        // It is not held up for ever.
        subscriber.subscribe("last").unwrap();
        let by = Instant::now() + Duration::from_secs(10);
        until("the last topic is told", || match publisher.try_recv() {
            Ok(notice) => notice.parts()[0].as_slice() == b"\x01last",
            Err(_) => Instant::now() > by,
        });
        context.term_blocking();
    }
}
