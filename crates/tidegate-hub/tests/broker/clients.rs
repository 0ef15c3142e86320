//! What clients see: answers that are theirs, brokers that come and go.

use std::{
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

use tidegate_hub::broker::{
    BrokerConfig, Discovery, HubError, NotifierConfig, RetryPolicy,
    machine::Settings,
    wire::{AttachAck, Code, EventBody, Fixed, Label, Notification, ProcessKey, U64, frames},
};
use tidegate_mq::{Context, Message, Router};

use crate::support::*;

/// And what a wrong secret gets; errors name the endpoint and the remedy.
///
/// Rules: DH-198, M-01.
#[test]
fn a_channel_is_registered_found_and_taken_back() {
    let dir = private_dir();
    let broker = start(config(dir.path()));
    let (producer, consumer) = (hub(broker.endpoint(), "p"), hub(broker.endpoint(), "c"));
    let registration = producer.register(register("a", 1), Some(secret(1, "a")), SOON).unwrap();
    let events = consumer.events(broker.events_endpoint(), &channel("a")).unwrap();
    let look = |byte| Discovery::of(channel("a")).verifier(secret(byte, "a"));
    let found = consumer.discover(&look(1), SOON, RetryPolicy::none()).unwrap();
    assert_eq!(
        (found.channel.block_uuid, Some(found.channel.channel_id)),
        (uuid(1), registration.channel_id())
    );
    let wrong = consumer.discover(&look(2), SOON, RetryPolicy::none()).unwrap_err();
    assert!(matches!(&wrong, HubError::AuthFailed(refused) if refused.code == Some(Code::BadProof)));
    let text = wrong.to_string();
    assert!(text.contains(broker.endpoint()) && text.contains("key file"), "{text}");
    until("the subscription", || {
        producer
            .ready_notify(
                tidegate_hub::broker::wire::ReadyNotify {
                    channel_id: found.channel.channel_id,
                    epoch: U64(1),
                    commit_index: U64(1),
                },
                SOON,
            )
            .unwrap();
        matches!(events.recv_with_timeout(Duration::from_millis(50)), Ok(Some(event)) if matches!(event.body, EventBody::ReadyNotify(_)))
    });
    registration.deregister(SOON).unwrap();
    let gone = consumer.discover(&look(1), SOON, RetryPolicy::none()).unwrap_err();
    assert!(matches!(gone, HubError::NotFound(_)), "{gone}");
    broker.stop().unwrap();
}

/// Also when the broker, asked before, says afterwards that it does not know it.
///
/// Rules: DH-183.
#[test]
fn what_is_no_longer_kept_is_not_registered_again() {
    let dir = private_dir();
    let context = Context::new();
    let router = Router::new(&context).unwrap();
    let endpoint = router.bind_blocking(&format!("ipc://{}/fake.sock", dir.path().display())).unwrap();
    let (beats, beat) = sync_channel(0);
    let broker = thread::spawn(move || {
        let mut registered = 0;
        while let Ok(mut request) = router.recv_blocking() {
            let client = request.pop_front().unwrap();
            let text: serde_json::Value = serde_json::from_slice(&request.parts()[1]).unwrap();
            let (name, status) = match text["type"].as_str().unwrap() {
                "REG_REQ" => {
                    registered += 1;
                    ("REG_ACK", "OK")
                }
                "PING" => ("PONG", "OK"),
                "HB_REQ" => {
                    // Twice: that it was asked, and that it may answer.
                    beats.send(()).unwrap();
                    beats.send(()).unwrap();
                    ("HB_ACK", "UNKNOWN_CLIENT")
                }
                other => panic!("{other}"),
            };
            let reply = serde_json::json!({
                "type": name, "proto": 1, "in_reply_to": text["msg_id"], "ts_ms": 1, "status": status,
                "broker_epoch": "e", "features": [], "channel_id": 1, "replaced": false, "lease_ms": 1000,
            });
            router.send_to_blocking(client, frames(reply.to_string().into_bytes())).unwrap();
        }
        registered
    });
    let hub = hub(&endpoint, "p");
    let leased = tidegate_hub::broker::wire::Register { lease_ms: 1000, ..register("a", 1) };
    let registration = hub.register(leased, Some(secret(1, "a")), SOON).unwrap();
    beat.recv_timeout(SOON).unwrap();
    drop(registration);
    beat.recv_timeout(SOON).unwrap();
    // Ends the thread that keeps registrations, after what it still asks.
    drop(hub);
    context.term_blocking();
    assert_eq!(broker.join().unwrap(), 1);
}

/// Eight threads that share a hub, with notifications beside requests, each get their own answers.
///
/// Rules: DH-202, M-11.
#[test]
fn threads_share_a_hub_without_mixing_answers() {
    let dir = private_dir();
    let mut config = config(dir.path());
    (config.settings.limits.rate, config.settings.limits.burst) = (1_000_000, 1_000_000);
    let broker = start(config);
    let hub = hub(broker.endpoint(), "all");
    let register = |at: u32| {
        let name = format!("c{at}");
        hub.register(register(&name, at + 1), Some(secret(1, &name)), SOON).unwrap()
    };
    let _registrations: Vec<_> = (0..8).map(register).collect();
    let endpoint = format!("ipc://{}/n.sock", dir.path().display());
    let notifier = hub.create_pub(&endpoint, NotifierConfig::new(channel("c0"))).unwrap();
    let notifications = hub.notifications(notifier.endpoint(), &channel("c0"), None).unwrap();
    notifier.wait_for_consumers(1, SOON).unwrap();
    thread::scope(|scope| {
        let heard = scope.spawn(|| {
            let mut last = 0;
            while last < 8_000 {
                let notice = notifications.recv_with_timeout(2 * SOON).unwrap().expect("the last one comes");
                assert_eq!(notice.block_uuid, uuid(1));
                last = last.max(notice.slot_id.0);
            }
        });
        let workers = (0..8_u32).map(|at| {
            let (hub, notifier) = (hub.clone(), &notifier);
            scope.spawn(move || {
                let name = format!("c{at}");
                let look = Discovery::of(channel(&name)).verifier(secret(1, &name));
                for round in 1..=1000_u64 {
                    match round % 4 {
                        0 => assert!(!hub.ping(2 * SOON).unwrap().is_empty()),
                        1 => {
                            let prefix = Some(Label::new(&*name).unwrap());
                            assert_eq!(hub.list(prefix, 2 * SOON).unwrap()[0].block_uuid, uuid(at + 1));
                        }
                        _ => {
                            let found = hub.discover(&look, 2 * SOON, RetryPolicy::none()).unwrap();
                            assert_eq!(found.channel.block_uuid, uuid(at + 1));
                        }
                    }
                    notifier.committed(notice(round));
                }
            })
        });
        workers.collect::<Vec<_>>().into_iter().for_each(|worker| worker.join().unwrap());
        // A full queue drops; the newest gets through once the reader has caught up.
        until("the last notification", || {
            notifier.committed(notice(8_000));
            heard.is_finished()
        });
        heard.join().unwrap();
    });
    assert_eq!(hub.counters().late_replies, 0);
}

fn notice(id: u64) -> Notification {
    Notification { block_uuid: uuid(1), slot_id: U64(id), commit_index: U64(id + 1), ts_ns: id }
}

/// A reply that comes after its request was given up is dropped; the next request gets its own.
///
/// Rules: DH-188, DH-204, M-13.
#[test]
fn late_replies_are_dropped() {
    let dir = private_dir();
    let context = Context::new();
    let router = Router::new(&context).unwrap();
    let endpoint = router.bind_blocking(&format!("ipc://{}/slow.sock", dir.path().display())).unwrap();
    let hub = hub(&endpoint, "c");
    let answer = |mut request: Message| {
        let client = request.pop_front().unwrap();
        let text: serde_json::Value = serde_json::from_slice(&request.parts()[1]).unwrap();
        let id = &text["msg_id"];
        let reply = format!(
            r#"{{"type":"PONG","proto":1,"in_reply_to":{id},"ts_ms":1,"status":"OK","broker_epoch":"e","features":[]}}"#
        );
        router.send_to_blocking(client, frames(reply.into_bytes())).unwrap();
    };
    let error = hub.ping(Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, HubError::Timeout { .. }), "{error}");
    thread::scope(|scope| {
        scope.spawn(|| {
            answer(router.recv_blocking().unwrap());
            answer(router.recv_blocking().unwrap());
        });
        hub.ping(SOON).unwrap();
    });
    assert_eq!((hub.counters().late_replies, hub.counters().zmq_timeout_count), (1, 1));
}

/// Rules: DH-204.
#[test]
fn a_missing_broker_is_named_in_time() {
    let dir = private_dir();
    let endpoint = format!("ipc://{}/nobody.sock", dir.path().display());
    let started = Instant::now();
    let error = hub(&endpoint, "c").ping(Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, HubError::Disconnected { .. }), "{error}");
    assert!(error.to_string().contains(&endpoint) && started.elapsed() < SOON);
}

/// Brokers come and go under load; clients see errors or answers, never wrong ones, and registrations come back.
///
/// Rules: DH-183, DH-204, M-09.
#[test]
fn registrations_survive_restarts_under_load() {
    let dir = private_dir();
    let mut running = Some(start(config(dir.path())));
    let endpoint = config(dir.path()).endpoint;
    let producer = hub(&endpoint, "p");
    let registration = producer.register(register("a", 1), Some(secret(1, "a")), SOON).unwrap();
    let first_epoch = producer.broker_epoch();
    let look = Discovery::of(channel("a")).verifier(secret(1, "a"));
    thread::scope(|scope| {
        let ask = |client: &'static str| {
            let (consumer, look) = (hub(&endpoint, client), look.clone());
            move || {
                let deadline = Instant::now() + Duration::from_secs(4);
                let mut answers = 0;
                while Instant::now() < deadline {
                    match consumer.discover(&look, Duration::from_millis(200), RetryPolicy::none()) {
                        Ok(found) => {
                            assert_eq!(found.channel.block_uuid, uuid(1));
                            answers += 1;
                        }
                        Err(HubError::BadRequest(_)) => thread::sleep(Duration::from_millis(20)),
                        Err(error) => assert!(error.is_transient(), "{error}"),
                    }
                }
                answers
            }
        };
        let clients = [scope.spawn(ask("c1")), scope.spawn(ask("c2"))];
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(300));
            running.take().unwrap().stop().unwrap();
            running = Some(start(config(dir.path())));
        }
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
    until("registered again", || registration.is_current() && producer.broker_epoch() != first_epoch);
    assert!(producer.counters().reregistrations > 0);
    let found = hub(&endpoint, "late").discover(&look, SOON, RetryPolicy::none()).unwrap();
    assert_eq!(found.channel.block_uuid, uuid(1));
    running.take().unwrap().stop().unwrap();
}

/// A broker of the core only: channels are found and kept with it, and extensions are said to be absent.
///
/// Rules: DH-190, M-18.
#[test]
fn a_core_broker_is_enough() {
    let dir = private_dir();
    let settings = Settings { features: Default::default(), ..Settings::default() };
    let broker = start(BrokerConfig { settings, ..config(dir.path()) });
    let (producer, consumer) = (hub(broker.endpoint(), "p"), hub(broker.endpoint(), "c"));
    let leased = tidegate_hub::broker::wire::Register { lease_ms: 1000, ..register("a", 1) };
    let registration = producer.register(leased, Some(secret(1, "a")), SOON).unwrap();
    let look = Discovery::of(channel("a")).verifier(secret(1, "a"));
    let found = consumer.discover(&look, SOON, RetryPolicy::none()).unwrap();
    assert_eq!(consumer.ping(SOON).unwrap(), []);
    let attach = AttachAck {
        channel_id: found.channel.channel_id,
        consumer_id: Label::new("ui").unwrap(),
        config_hash: Fixed([0; 32]),
        process_key: ProcessKey::from_word(1).unwrap(),
    };
    for absent in [consumer.attach_ack(attach, SOON), consumer.list(None, SOON).map(drop)] {
        let error = absent.unwrap_err();
        assert!(matches!(&error, HubError::Unsupported(_)), "{error}");
        assert_eq!(error.number(), 507);
    }
    assert!(registration.is_current());
}

/// A list that no message holds comes in pages, each channel once, in order.
#[test]
fn long_lists_come_in_pages() {
    let dir = private_dir();
    let mut config = config(dir.path());
    (config.settings.limits.rate, config.settings.limits.burst) = (1_000_000, 1_000_000);
    let broker = start(config);
    let hub = hub(broker.endpoint(), "p");
    let register = |name: String, number| hub.register(open_register(&name, number), None, SOON).unwrap();
    let _registrations: Vec<_> = (0..400).map(|at| register(format!("c{at:03}"), at + 1)).collect();
    let names = |prefix: Option<&str>| -> Vec<String> {
        let prefix = prefix.map(|prefix| Label::new(prefix).unwrap());
        let list = hub.list(prefix, SOON).unwrap();
        list.into_iter().map(|channel| channel.channel_name.to_string()).collect()
    };
    let all: Vec<String> = (0..400).map(|at| format!("c{at:03}")).collect();
    assert_eq!(names(None), all);
    assert_eq!(names(Some("c1")), all[100..200]);
    assert_eq!(names(Some("d")), Vec::<String>::new());
}
