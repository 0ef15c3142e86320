//! Messages between clients of an embedded driver.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::{CHANNEL, DEADLINE, Node, eventually, receive, send};
use tidegate_aeron::{AeronError, OfferError, Resource};

/// The size and shape of an attach response: 40 pools, each with a 900-byte URI.
fn attach_response() -> Vec<u8> {
    (0..40_u8).flat_map(|pool| [pool; 60].into_iter().chain([b'a' + pool % 26; 900])).collect()
}

#[test]
fn a_message_arrives_with_its_session_stream_and_position() {
    let node = Node::start();
    let mut subscription = node.client.add_subscription(CHANNEL, 1000, DEADLINE).unwrap();
    let mut publication = node.client.add_publication(CHANNEL, 1000, DEADLINE).unwrap();
    let sent_to = send(&mut publication, b"hello");
    let mut seen = None;
    eventually("the message", || {
        let mut handler = |fragment: tidegate_aeron::Fragment<'_>| {
            seen = Some((fragment.data.to_vec(), fragment.session_id, fragment.stream_id, fragment.position));
        };
        subscription.poll(10, &mut handler).unwrap();
        seen.is_some()
    });
    assert_eq!(seen, Some((b"hello".to_vec(), publication.session_id(), 1000, sent_to)));
    assert_eq!(publication.position(), Some(sent_to));
    assert_eq!((publication.channel(), publication.stream_id()), (CHANNEL, 1000));
    assert_eq!((subscription.channel(), subscription.stream_id()), (CHANNEL, 1000));
}

/// Rules: TP-020, TP-021, TC-016.
#[test]
fn messages_longer_than_a_fragment_arrive_whole() {
    let node = Node::start();
    let mut subscription = node.client.add_subscription(CHANNEL, 1000, DEADLINE).unwrap();
    let mut publication = node.client.add_publication(CHANNEL, 1000, DEADLINE).unwrap();
    let response = attach_response();
    assert!(response.len() > 20 * publication.max_payload_length(), "the response must need many fragments");
    let long: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    for message in [&response, &long] {
        send(&mut publication, message);
        assert_eq!(receive(&mut subscription, 1), std::slice::from_ref(message));
    }
    assert_eq!(subscription.discarded_fragments(), 0);
}

#[test]
fn fragments_of_two_publishers_are_not_mixed() {
    let node = Node::start();
    let mut subscription = node.client.add_subscription(CHANNEL, 1000, DEADLINE).unwrap();
    let mut first = node.client.add_exclusive_publication(CHANNEL, 1000, DEADLINE).unwrap();
    let mut second = node.client.add_exclusive_publication(CHANNEL, 1000, DEADLINE).unwrap();
    assert_ne!(first.session_id(), second.session_id());
    eventually("both images", || subscription.image_count() == 2);
    for round in 0..10 {
        send(&mut first, &vec![round; 30_000]);
        send(&mut second, &vec![100 + round; 40_000]);
        // One fragment at a time, so that the two streams interleave.
        let mut messages = Vec::new();
        eventually("both messages", || {
            subscription.poll(1, &mut |fragment| messages.push(fragment.data.to_vec())).unwrap();
            messages.len() == 2
        });
        messages.sort();
        assert_eq!(messages, [vec![round; 30_000], vec![100 + round; 40_000]]);
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused_before_it_is_sent() {
    let node = Node::start();
    let _subscription = node.client.add_subscription("aeron:ipc", 7, DEADLINE).unwrap();
    let mut publication = node.client.add_publication("aeron:ipc?term-length=64k", 7, DEADLINE).unwrap();
    eventually("the subscriber", || publication.is_connected());
    let max = publication.max_message_length();
    assert_eq!(max, 8 << 10);
    assert_eq!(publication.offer(&vec![0; max + 1]), Err(OfferError::TooLong { length: max + 1, max }));
    let max = publication.max_payload_length();
    let claimed = publication.try_claim(max + 1, |_| Ok::<_, ()>(()));
    assert_eq!(claimed, Err(OfferError::TooLong { length: max + 1, max }));
    let longest = vec![0; publication.max_message_length()];
    send(&mut publication, &longest);
}

#[test]
fn claimed_bytes_are_sent_unless_filling_them_fails() {
    let node = Node::start();
    let mut subscription = node.client.add_subscription(CHANNEL, 1, DEADLINE).unwrap();
    let mut publication = node.client.add_publication(CHANNEL, 1, DEADLINE).unwrap();
    eventually("the subscriber", || publication.is_connected());

    assert_eq!(publication.try_claim(4, |_| Err("no")), Err(OfferError::Aborted));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        publication.try_claim(4, |_| -> Result<(), ()> { panic!("while filling") })
    }));
    assert!(panicked.is_err());
    let fill = |bytes: &mut [u8]| {
        bytes.copy_from_slice(b"good");
        Ok::<_, ()>(())
    };
    let position = publication.try_claim(4, fill).unwrap();
    assert_eq!(receive(&mut subscription, 1), [b"good"]);
    assert_eq!(publication.position(), Some(position));
}

#[test]
fn a_subscriber_that_lags_pushes_back_and_nothing_is_lost() {
    let node = Node::start();
    let mut subscription = node.client.add_subscription("aeron:ipc", 1, DEADLINE).unwrap();
    let mut publication = node.client.add_publication("aeron:ipc?term-length=64k", 1, DEADLINE).unwrap();
    eventually("the subscriber", || publication.is_connected());
    let mut sent = 0_u32;
    loop {
        match publication.offer(&[&sent.to_ne_bytes()[..], &[0; 1000]].concat()) {
            Ok(_) => sent += 1,
            Err(OfferError::AdminAction) => {}
            Err(error) => {
                assert_eq!(error, OfferError::BackPressured);
                break;
            }
        }
        assert!(sent < 200, "no back-pressure after three terms");
    }
    let messages = receive(&mut subscription, sent as usize);
    let numbers: Vec<_> = messages.iter().map(|m| u32::from_ne_bytes(m[..4].try_into().unwrap())).collect();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
    send(&mut publication, b"again");
}

#[test]
fn nobody_is_connected_until_somebody_subscribes() {
    let node = Node::start();
    let mut publication = node.client.add_publication(CHANNEL, 1, DEADLINE).unwrap();
    assert!(!publication.is_connected());
    assert_eq!(publication.offer(b"lost"), Err(OfferError::NotConnected));
    assert_eq!(publication.try_claim(4, |_| Ok::<_, ()>(())), Err(OfferError::NotConnected));
    let subscription = node.client.add_subscription(CHANNEL, 1, DEADLINE).unwrap();
    eventually("the subscriber", || publication.is_connected());
    eventually("the publisher", || subscription.is_connected());
}

#[test]
fn images_are_listed_and_their_changes_noticed() {
    let node = Node::start();
    let subscription = node.client.add_subscription(CHANNEL, 1, DEADLINE).unwrap();
    let mut sessions = vec![1, 2, 3];
    subscription.image_sessions(&mut sessions);
    assert_eq!((sessions.len(), subscription.image_count(), subscription.is_connected()), (0, 0, false));

    let before = node.client.image_changes();
    let publication = node.client.add_exclusive_publication(CHANNEL, 1, DEADLINE).unwrap();
    eventually("a notice of arrival", || node.client.image_changes() > before);
    subscription.image_sessions(&mut sessions);
    assert_eq!(sessions, [publication.session_id()]);

    let before = node.client.image_changes();
    drop(publication);
    eventually("a notice of departure", || node.client.image_changes() > before);
    eventually("the image's end", || subscription.image_count() == 0);
}

#[test]
fn ends_work_on_other_threads() {
    let node = Node::start();
    let mut subscription = node.client.add_subscription(CHANNEL, 1, DEADLINE).unwrap();
    let mut publication = node.client.add_publication(CHANNEL, 1, DEADLINE).unwrap();
    let clone = node.client.clone();
    let sender = std::thread::spawn(move || {
        for number in 0..1000_u32 {
            send(&mut publication, &number.to_ne_bytes());
        }
        clone.id()
    });
    let receiver = std::thread::spawn(move || receive(&mut subscription, 1000));
    assert_eq!(sender.join().unwrap(), node.client.id());
    let messages = receiver.join().unwrap();
    assert!(messages.iter().zip(0..1000_u32).all(|(message, number)| *message == number.to_ne_bytes()));
}

#[test]
fn a_panic_of_the_handler_reaches_the_poller_and_costs_one_message() {
    let node = Node::start();
    let mut subscription = node.client.add_subscription(CHANNEL, 1, DEADLINE).unwrap();
    let mut publications =
        [(), ()].map(|()| node.client.add_exclusive_publication(CHANNEL, 1, DEADLINE).unwrap());
    eventually("both images", || subscription.image_count() == 2);
    for publication in &mut publications {
        send(publication, b"first");
        send(publication, b"second");
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut handler = |fragment: tidegate_aeron::Fragment<'_>| {
            assert_eq!(fragment.data, b"", "the handler's own words");
        };
        eventually("the first message", || subscription.poll(10, &mut handler).unwrap() > 10);
    }));
    let text = *panicked.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("the handler's own words"), "{text}");
    // The rest of the stream that panicked, and all of the other.
    let mut rest = receive(&mut subscription, 3);
    rest.sort();
    assert_eq!(rest, [&b"first"[..], b"second", b"second"]);
}

#[test]
fn a_client_may_be_dropped_before_what_was_made_from_it() {
    let Node { client, driver, scratch } = Node::start();
    let mut subscription = client.add_subscription(CHANNEL, 1, DEADLINE).unwrap();
    let mut publication = client.add_publication(CHANNEL, 1, DEADLINE).unwrap();
    let pending = client.add_subscription_async(CHANNEL, 2).unwrap();
    let counter = client.add_counter(2001, "kept", DEADLINE).unwrap();
    drop(client);
    send(&mut publication, b"still");
    assert_eq!(receive(&mut subscription, 1), [b"still"]);
    counter.add(1);
    drop((publication, pending, counter));
    drop(subscription);
    driver.close().unwrap();
    assert!(!scratch.path().exists());
}

/// What the retry of TP-488 builds on.
#[test]
fn a_clash_of_term_lengths_is_recognised_and_resolved_by_joining() {
    let node = Node::start();
    let _existing = node.client.add_publication("aeron:ipc", 1000, DEADLINE).unwrap();
    let error = node.client.add_publication(CHANNEL, 1000, DEADLINE).unwrap_err();
    assert!(error.is_channel_conflict(), "{error}");
    let conflict = error.channel_conflict().unwrap();
    assert_eq!(
        (conflict.parameter, conflict.existing, conflict.requested),
        ("term-length", 1 << 20, 4 << 20)
    );
    let asked_for = Resource::Publication { channel: CHANNEL.into(), stream_id: 1000 };
    assert_eq!(error.resource(), Some(&asked_for));
    assert!(error.code().is_some_and(|code| code > 0), "{error:?}");

    node.client.add_publication("aeron:ipc", 1000, DEADLINE).unwrap();
    node.client.add_publication("aeron:ipc?term-length=1048576|alias=same", 1000, DEADLINE).unwrap();
    let error = node.client.add_publication("aeron:ipc?mtu=4096", 1000, DEADLINE).unwrap_err();
    assert_eq!(error.channel_conflict().map(|conflict| conflict.parameter), Some("mtu"));
    node.client.add_exclusive_publication(CHANNEL, 1000, DEADLINE).unwrap();
    node.client.add_subscription(CHANNEL, 1000, DEADLINE).unwrap();
}

#[test]
fn other_refusals_name_the_channel_and_are_no_clash() {
    let node = Node::start();
    let error = node.client.add_publication("aeron:carrier-pigeon", 3, DEADLINE).unwrap_err();
    assert!(matches!(error, AeronError::Registration { .. }), "{error:?}");
    assert!(!error.is_channel_conflict());
    assert!(error.to_string().contains("'aeron:carrier-pigeon' stream 3"), "{error}");

    let error = node.client.add_subscription("aeron:ipc\0", 3, DEADLINE).unwrap_err();
    assert!(matches!(error, AeronError::InvalidText { .. }), "{error:?}");
    let error = node.client.add_subscription(&"x".repeat(4096), 3, DEADLINE).unwrap_err();
    assert!(matches!(error, AeronError::InvalidText { .. }), "{error:?}");
    assert!(!node.client.is_closed());
}

#[test]
fn counters_are_shared_with_every_client_of_the_driver() {
    let node = Node::start();
    let counter = node.client.add_counter(2042, "tidegate frames published", DEADLINE).unwrap();
    counter.set(40);
    counter.add(2);
    assert_eq!(counter.get(), 42);

    let other =
        tidegate_aeron::Client::connect(&tidegate_aeron::ClientOptions::new(node.driver.dir())).unwrap();
    let find = |id: i32| {
        let mut found = None;
        other.counters(|info| {
            if info.id == id {
                found = Some((info.type_id, info.label.to_owned(), info.value));
            }
        });
        found
    };
    assert_eq!(find(counter.id()), Some((2042, "tidegate frames published".to_owned(), 42)));
    let id = counter.id();
    drop(counter);
    eventually("the counter's end", || find(id).is_none_or(|(type_id, _, _)| type_id != 2042));

    let panicked = catch_unwind(AssertUnwindSafe(|| other.counters(|_| panic!("while reading counters"))));
    assert!(panicked.is_err());
    let error = node.client.add_counter(1, &"x".repeat(381), DEADLINE).unwrap_err();
    assert!(matches!(error, AeronError::InvalidText { .. }), "{error:?}");
}

#[test]
fn clients_have_ids_of_their_own() {
    let node = Node::start();
    let other =
        tidegate_aeron::Client::connect(&tidegate_aeron::ClientOptions::new(node.driver.dir())).unwrap();
    assert_ne!(other.id(), node.client.id());
    let first = node.client.next_correlation_id();
    assert!(other.next_correlation_id() > first);
    assert_eq!(node.client.dir(), node.scratch.path());
    assert_eq!(node.client.failure(), None);
}

#[test]
fn an_abandoned_request_leaves_nothing_behind() {
    let node = Node::start();
    drop(node.client.add_publication_async(CHANNEL, 5).unwrap());
    let mut pending = node.client.add_publication_async(CHANNEL, 6).unwrap();
    let mut granted = None;
    eventually("the answer", || {
        granted = pending.poll().unwrap();
        granted.is_some()
    });
    assert!(pending.poll().unwrap().is_none());
    drop((pending, granted));
    // Were one of them still there, its term length would clash.
    for stream_id in [5, 6] {
        eventually("the publication's end", || {
            node.client.add_publication("aeron:ipc?term-length=64k", stream_id, DEADLINE).is_ok()
        });
    }
}
