//! The broker and its clients over real sockets: restarts under load, keys, secrets, late replies (25.7).

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may end that way")]

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_hub::broker::{
    AllowedClient, Broker, BrokerConfig, BrokerCurve, BrokerError, Discovery, HubConfig, HubCurve, HubError,
    MessageHub, NotifierConfig, RetryPolicy, Verifier,
    host::{BlockFacts, HostView, Inspection, Liveness},
    place::{RuntimeDir, read_secret_key},
    wire::{
        ChannelName, ClientId, Code, EventBody, Fixed, Label, Notification, ProcessKey, Register,
        SchemaVersion, ShmName, U64,
    },
};
use tidegate_mq::{Context, Dealer, Options, Router, SecretKey, new_secret_key, options::RoutingId};

const SOON: Duration = Duration::from_secs(5);

/// A host on which every process lives and every block is as the registration says.
struct Everything;

impl HostView for Everything {
    fn domain(&self) -> &str {
        "here"
    }

    fn liveness(&self, _: ProcessKey) -> Liveness {
        Liveness::Alive
    }

    fn inspect(&self, name: &ShmName) -> Inspection {
        let (channel, digits) = name.as_str().strip_prefix("tidegate_").unwrap().rsplit_once('_').unwrap();
        Inspection::Found(BlockFacts {
            block_uuid: uuid(u32::from_str_radix(digits, 16).unwrap()),
            channel_name: ChannelName::new(channel).unwrap(),
            schema_hash: Fixed([0; 32]),
            is_ready: true,
        })
    }
}

fn uuid(number: u32) -> Fixed<16> {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Fixed(bytes)
}

fn channel(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn register(name: &str, number: u32) -> Register {
    Register {
        channel_name: channel(name),
        shm_name: ShmName::new(format!("tidegate_{name}_{number:08x}")).unwrap(),
        block_uuid: uuid(number),
        policy: Label::new("RingBuffer").unwrap(),
        sync: Label::new("AllReaders").unwrap(),
        unit_block_size: 4096,
        ring_buffer_capacity: 8,
        schema_hash: Fixed([0; 32]),
        schema_version: SchemaVersion { major: 1, minor: 0 },
        schema_text: None,
        shared_secret_hash: None,
        secret_proof: None,
        key_id: Some(Fixed([1; 8])),
        key_epoch: Some(1),
        producer_uid: Label::new(format!("PROD-{number}")).unwrap(),
        producer_name: None,
        process_key: U64(u64::from(number)),
        host_domain: Label::new("here").unwrap(),
        zmq_endpoint: None,
        zmq_pubkey: None,
        lease_ms: 0,
        first_slot_id: U64(0),
        predecessor_uuid: None,
        allow_sealed: false,
        sealed_secrets: BTreeMap::new(),
    }
}

fn config(dir: &Path) -> BrokerConfig {
    let dir = RuntimeDir::open(dir).unwrap();
    BrokerConfig::new(dir.broker_endpoint(), dir.events_endpoint())
}

fn start(config: BrokerConfig) -> Broker {
    Broker::start(config, Box::new(Everything)).unwrap()
}

fn hub(endpoint: &str, client: &str) -> MessageHub {
    let client_id = ClientId::new(client).unwrap();
    MessageHub::connect(HubConfig { endpoint: endpoint.into(), client_id, curve: None }).unwrap()
}

fn private_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn secret(byte: u8, name: &str) -> Verifier {
    Verifier::derive(&[byte; 32], &channel(name)).unwrap()
}

/// Waits until `is_so`, which has to be soon.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// M-01, and what a wrong secret gets; errors name the endpoint and the remedy.
///
/// Rules: DH-198.
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

/// M-09: brokers come and go under load; clients see errors or answers, never wrong ones, and registrations come back.
///
/// Rules: DH-183, DH-204.
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

/// M-11: threads that share a hub each get their own answers.
///
/// Rules: DH-202.
#[test]
fn threads_share_a_hub_without_mixing_answers() {
    let dir = private_dir();
    let mut config = config(dir.path());
    config.settings.limits.rate = 1_000_000;
    config.settings.limits.burst = 1_000_000;
    let broker = start(config);
    let hub = hub(broker.endpoint(), "all");
    let _registrations: Vec<_> = (0..4)
        .map(|at| {
            hub.register(register(&format!("c{at}"), at + 1), Some(secret(1, &format!("c{at}"))), SOON)
                .unwrap()
        })
        .collect();
    thread::scope(|scope| {
        for at in 0..4_u32 {
            let hub = hub.clone();
            scope.spawn(move || {
                let name = format!("c{at}");
                let look = Discovery::of(channel(&name)).verifier(secret(1, &name));
                for _ in 0..250 {
                    let found = hub.discover(&look, SOON, RetryPolicy::none()).unwrap();
                    assert_eq!(found.channel.block_uuid, uuid(at + 1));
                }
            });
        }
    });
    assert_eq!(hub.counters().late_replies, 0);
}

/// M-13: a reply that comes after its request was given up is dropped; the next request gets its own.
///
/// Rules: DH-188, DH-204.
#[test]
fn late_replies_are_dropped() {
    let dir = private_dir();
    let context = Context::new();
    let router = Router::new(&context).unwrap();
    let endpoint = router.bind_blocking(&format!("ipc://{}/slow.sock", dir.path().display())).unwrap();
    let hub = hub(&endpoint, "c");
    let answer = |mut request: tidegate_mq::Message| {
        let client = request.pop_front().unwrap();
        let text: serde_json::Value = serde_json::from_slice(&request.parts()[1]).unwrap();
        let id = &text["msg_id"];
        let reply = format!(
            r#"{{"type":"PONG","proto":1,"in_reply_to":{id},"ts_ms":1,"status":"OK","broker_epoch":"e","features":[]}}"#
        );
        router.send_to_blocking(client, tidegate_hub::broker::wire::frames(reply.into_bytes())).unwrap();
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

/// A wrong key is told from a missing broker; the right one works beside it; an id belongs to its key.
///
/// Rules: DH-208.
#[test]
fn curve_admits_listed_keys_only() {
    let dir = private_dir();
    let (server, known, stranger) = (new_secret_key(), new_secret_key(), new_secret_key());
    let mut config = config(dir.path());
    let clients =
        vec![AllowedClient { key: known.public_key(), client_id: Some(ClientId::new("c").unwrap()) }];
    config.curve = Some(BrokerCurve { secret_key: server.clone(), clients });
    let broker = start(config);
    let connect = |client: &str, secret_key: &SecretKey, server: &SecretKey| {
        let curve = Some(HubCurve { server_key: server.public_key(), secret_key: secret_key.clone() });
        let client_id = ClientId::new(client).unwrap();
        MessageHub::connect(HubConfig { endpoint: broker.endpoint().into(), client_id, curve }).unwrap()
    };
    assert!(connect("c", &known, &server).ping(SOON).is_ok());
    let refused = connect("c", &stranger, &server).ping(Duration::from_millis(1500)).unwrap_err();
    assert!(matches!(refused, HubError::KeyRefused { .. }), "{refused}");
    assert!(refused.to_string().contains(broker.endpoint()));
    let wrong_server = connect("c", &known, &stranger).ping(Duration::from_millis(1500)).unwrap_err();
    assert!(
        matches!(wrong_server, HubError::KeyRefused { .. } | HubError::Disconnected { .. }),
        "{wrong_server}"
    );
    let other_id = connect("d", &known, &server).ping(SOON).unwrap_err();
    assert!(
        matches!(&other_id, HubError::AuthFailed(r) if r.code == Some(Code::IdentityMismatch)),
        "{other_id}"
    );
}

/// M-07 over the wire: garbage of every form gets an answer or none, and the connection goes on.
///
/// Rules: DH-186.
#[test]
fn garbage_does_not_end_the_connection() {
    let dir = private_dir();
    let broker = start(config(dir.path()));
    let context = Context::new();
    let mut options = Options::default();
    options.routing_id = Some(RoutingId::new("g").unwrap());
    options.rcvtimeo = Some(SOON);
    let dealer = Dealer::with_options(&context, options).unwrap();
    dealer.connect(broker.endpoint()).unwrap();
    let exchange = |body: Vec<u8>| {
        dealer.send_blocking(tidegate_hub::broker::wire::frames(body)).unwrap();
        let reply = dealer.recv_blocking().unwrap();
        serde_json::from_slice::<serde_json::Value>(&reply.parts()[1]).unwrap()["code"].clone()
    };
    dealer.send_blocking("no magic").unwrap();
    let head = r#""proto":1,"msg_id":"1","client_id":"g","ts_ms":1"#;
    assert_eq!(exchange(vec![b' '; 65 << 10]), "LIMIT");
    assert_eq!(exchange(vec![0xff; 100]), "BAD_REQUEST");
    assert_eq!(exchange(br#"{"type":"PING""#.to_vec()), "BAD_REQUEST");
    assert_eq!(
        exchange(
            format!(r#"{{"type":"PING",{head},"x":{}{}}}"#, "[".repeat(16), "]".repeat(16)).into_bytes()
        ),
        "BAD_REQUEST"
    );
    assert_eq!(exchange(format!(r#"{{"type":"NEW",{head}}}"#).into_bytes()), "UNKNOWN_TYPE");
    assert_eq!(
        exchange(format!(r#"{{"type":"DISC_REQ",{head},"channel_name":"A"}}"#).into_bytes()),
        "NAME_INVALID"
    );
    let ping = format!(r#"{{"type":"PING",{head},"x":{}{}}}"#, "[".repeat(15), "]".repeat(15));
    assert!(exchange(ping.into_bytes()).is_null(), "depth 16 is allowed");
    assert_eq!(broker.metrics().registry.dropped, 1);
}

/// N-35: no file by default; with one, it has the registry after a stop and no secret.
///
/// Rules: DH-212, DH-213, DH-164.
#[test]
fn the_registry_is_kept_only_when_asked() {
    let dir = private_dir();
    let file = dir.path().join("registry");
    let mut kept = config(dir.path());
    kept.persist = Some(file.clone());
    let broker = start(config(dir.path()));
    let producer = hub(broker.endpoint(), "p");
    let registration = producer.register(register("a", 1), Some(secret(0x5a, "a")), SOON).unwrap();
    broker.stop().unwrap();
    assert!(!file.exists());
    let broker = start(kept.clone());
    until("registered again", || registration.is_current() && broker.metrics().registry.channels == 1);
    drop((registration, producer));
    broker.stop().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("tidegate_a_00000001") && !text.contains(&"5a".repeat(32)));
    let broker = start(kept);
    let look = Discovery::of(channel("a")).verifier(secret(0x5a, "a"));
    assert!(hub(broker.endpoint(), "c").discover(&look, SOON, RetryPolicy::none()).is_ok());
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

/// N-36: thinned out, and the last of a burst is announced all the same.
///
/// Rules: DH-217.
#[test]
fn the_last_commit_of_a_burst_is_announced() {
    let dir = private_dir();
    let (producer, consumer) = (hub("ipc:///nobody", "p"), hub("ipc:///nobody", "c"));
    let config = NotifierConfig { notify_every: 10, ..NotifierConfig::new(channel("a")) };
    let notifier = producer.create_pub(&format!("ipc://{}/n.sock", dir.path().display()), config).unwrap();
    let notifications = consumer.notifications(notifier.endpoint(), &channel("a")).unwrap();
    notifier.wait_for_consumers(1, SOON).unwrap();
    for id in 1..=25 {
        notifier.committed(Notification {
            block_uuid: uuid(1),
            slot_id: U64(id),
            commit_index: U64(id + 1),
            ts_ns: id,
        });
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&25) {
        heard.push(notifications.recv_with_timeout(SOON).unwrap().expect("one more").slot_id.0);
    }
    assert!(heard.len() <= 5, "{heard:?}");
}

/// Rules: DH-209.
#[test]
fn keys_that_others_may_read_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = private_dir();
    let path = dir.path().join("broker.key");
    std::fs::write(&path, new_secret_key().expose_z85().as_bytes()).unwrap();
    let chmod =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(&path, 0o644);
    assert!(matches!(read_secret_key(&path), Err(BrokerError::NotPrivate { .. })));
    chmod(&path, 0o600);
    assert!(read_secret_key(&path).is_ok());
    chmod(dir.path(), 0o755);
    assert!(matches!(read_secret_key(&path), Err(BrokerError::NotPrivate { .. })));
    chmod(dir.path(), 0o700);
}
