//! Clients without a thread of their own.

use std::time::Duration;

use crate::support::{CHANNEL, DEADLINE, Node, eventually, receive, send};
use tidegate_aeron::{AeronError, Client, ClientOptions};

fn invoked(node: &Node) -> Client {
    Client::connect(&ClientOptions { use_invoker: true, ..ClientOptions::new(node.driver.dir()) }).unwrap()
}

/// Rules: TP-438.
#[test]
fn an_invoked_client_advances_only_by_do_work() {
    let node = Node::start();
    let client = invoked(&node);
    let mut pending = client.add_publication_async(CHANNEL, 1).unwrap();
    // The same request of a client with a thread is answered meanwhile.
    node.client.add_publication(CHANNEL, 2, DEADLINE).unwrap();
    assert!(pending.poll().unwrap().is_none(), "answered without do_work");
    let mut publication = None;
    eventually("the answer", || {
        client.do_work();
        publication = pending.poll().unwrap();
        publication.is_some()
    });
    let mut publication = publication.unwrap();

    let mut subscription = client.add_subscription(CHANNEL, 1, DEADLINE).unwrap();
    eventually("the image", || {
        client.do_work();
        subscription.image_count() == 1
    });
    send(&mut publication, b"invoked");
    assert_eq!(receive(&mut subscription, 1), [b"invoked"]);
}

#[test]
fn a_client_with_a_thread_has_no_work_for_the_caller() {
    let node = Node::start();
    let _pending = node.client.add_publication_async(CHANNEL, 1).unwrap();
    assert_eq!(node.client.do_work(), 0);
}

#[test]
fn waiting_drives_the_client_and_has_a_deadline() {
    let node = Node::start();
    let client = invoked(&node);
    let error = client.add_publication(CHANNEL, 1, Duration::ZERO).unwrap_err();
    assert!(matches!(error, AeronError::TimedOut { .. }), "{error:?}");
    client.add_publication(CHANNEL, 1, DEADLINE).unwrap();
}

#[test]
fn invoked_clients_may_be_driven_from_several_threads() {
    let node = Node::start();
    let client = invoked(&node);
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..20 {
                    let stream_id = 100 * thread + round;
                    let mut subscription = client.add_subscription(CHANNEL, stream_id, DEADLINE).unwrap();
                    let mut publication =
                        client.add_publication("aeron:ipc?term-length=64k", stream_id, DEADLINE).unwrap();
                    eventually("the image", || {
                        client.do_work();
                        subscription.image_count() == 1
                    });
                    send(&mut publication, b"x");
                    assert_eq!(receive(&mut subscription, 1), [b"x"]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!client.is_closed());
}

/// A client that nobody drives is expelled by its driver and finds out when it is driven again.
#[test]
fn an_undriven_client_fails_instead_of_working_on() {
    let scratch = crate::support::Scratch::new();
    let mut options = tidegate_aeron::MediaDriverOptions::new(scratch.path());
    options.client_liveness_timeout = Duration::from_secs(3);
    let driver = tidegate_aeron::MediaDriver::launch(&options).unwrap();
    let client =
        Client::connect(&ClientOptions { use_invoker: true, ..ClientOptions::new(driver.dir()) }).unwrap();
    let mut publication = client.add_publication(CHANNEL, 1, DEADLINE).unwrap();
    let started = std::time::Instant::now();
    eventually("the timeout", || started.elapsed() > Duration::from_millis(3_200));
    client.do_work();
    assert!(client.is_closed());
    assert!(
        matches!(client.failure(), Some(AeronError::ClientClosed { code: 1002, .. })),
        "{:?}",
        client.failure()
    );
    assert_eq!(publication.offer(b"x"), Err(tidegate_aeron::OfferError::Closed));
    assert!(matches!(client.add_publication(CHANNEL, 1, DEADLINE), Err(AeronError::ClientClosed { .. })));
}
