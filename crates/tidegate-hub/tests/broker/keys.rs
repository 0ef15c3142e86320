//! CURVE: who may talk to whom, and what only one of them can read.

use std::{path::Path, time::Duration};

use tidegate_hub::broker::{
    AllowedClient, Broker, BrokerConfig, BrokerCurve, BrokerError, Discovery, HubConfig, HubCurve, HubError,
    MessageHub, NotifierConfig, NotifierCurve, RetryPolicy,
    place::read_secret_key,
    wire::{ClientId, Code, Notification, Register, SealedSecret, U64, Z85Key},
};
use tidegate_mq::{SecretKey, new_secret_key};

use crate::support::*;

/// A wrong key is told from a missing broker; the right one works beside it; an id belongs to its key.
///
/// Rules: DH-208, M-16.
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

/// Rules: DH-209, M-16.
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

/// A broker that admits these keys, each under its id if it has one.
fn guarded(dir: &Path, server: &SecretKey, clients: &[(&SecretKey, Option<&str>)]) -> Broker {
    let clients = clients.iter().map(|(key, id)| AllowedClient {
        key: key.public_key(),
        client_id: id.map(|id| ClientId::new(id).unwrap()),
    });
    let curve = BrokerCurve { secret_key: server.clone(), clients: clients.collect() };
    start(BrokerConfig { curve: Some(curve), ..config(dir) })
}

fn keyed(broker: &Broker, client: &str, secret_key: &SecretKey) -> MessageHub {
    let curve = HubCurve { server_key: broker.public_key().unwrap(), secret_key: secret_key.clone() };
    let client_id = ClientId::new(client).unwrap();
    MessageHub::connect(HubConfig { endpoint: broker.endpoint().into(), client_id, curve: Some(curve) })
        .unwrap()
}

/// Whoever comes under the id of somebody else does not get in, so that no reply of that one goes to him; the owner of
/// the id goes on undisturbed.
///
/// Rules: DH-208, M-16.
#[test]
fn an_id_is_not_lent() {
    let dir = private_dir();
    let (server, owner, thief) = (new_secret_key(), new_secret_key(), new_secret_key());
    let broker = guarded(dir.path(), &server, &[(&owner, Some("owner")), (&thief, Some("thief"))]);
    let hub = keyed(&broker, "owner", &owner);
    hub.ping(SOON).unwrap();
    let stolen = keyed(&broker, "owner", &thief).ping(Duration::from_millis(1500)).unwrap_err();
    assert!(matches!(stolen, HubError::KeyRefused { .. }), "{stolen}");
    assert_eq!(stolen.number(), 503);
    hub.ping(SOON).unwrap();
    keyed(&broker, "thief", &thief).ping(SOON).unwrap();
    let other = keyed(&broker, "free", &thief).ping(SOON).unwrap_err();
    assert!(
        matches!(&other, HubError::AuthFailed(refused) if refused.code == Some(Code::IdentityMismatch)),
        "{other}"
    );
}

/// The secret of a channel reaches the consumer that it was sealed for, through a broker that cannot read it, and nobody
/// else: not another admitted key, and not a client that did not ask.
///
/// Rules: DH-208.
#[test]
fn a_sealed_secret_reaches_whom_it_was_sealed_for() {
    let dir = private_dir();
    let [server, producer, consumer, other] = [(); 4].map(|()| new_secret_key());
    let broker = guarded(dir.path(), &server, &[(&producer, None), (&consumer, None), (&other, None)]);
    let sealed = SealedSecret::seal(&[1; 32], &consumer.public_key()).unwrap();
    let with = |allow_sealed, number| Register {
        allow_sealed,
        sealed_secrets: [(Z85Key(consumer.public_key()), sealed.clone())].into(),
        ..register(if allow_sealed { "a" } else { "b" }, number)
    };
    let hub = keyed(&broker, "p", &producer);
    let _a = hub.register(with(true, 1), Some(secret(1, "a")), SOON).unwrap();
    let _b = hub.register(with(false, 2), Some(secret(1, "b")), SOON).unwrap();
    let found = |name: &str, client: &str, key: &SecretKey, wants: bool| {
        let look = Discovery::of(channel(name)).verifier(secret(1, name));
        let look = if wants { look.sealed_secret() } else { look };
        keyed(&broker, client, key).discover(&look, SOON, RetryPolicy::none()).unwrap().sealed_secret
    };
    let got = found("a", "c", &consumer, true).expect("a sealed secret");
    assert_eq!(**got.open(&consumer).unwrap(), [1; 32]);
    assert_eq!(found("a", "c2", &consumer, false), None, "not asked for");
    assert_eq!(found("a", "o", &other, true), None, "sealed for somebody else");
    assert_eq!(found("b", "c3", &consumer, true), None, "the producer does not allow it");
}

/// Notifications under CURVE reach those whose keys are listed; others, and those without a key, hear nothing.
///
/// Rules: DH-208, DH-215.
#[test]
fn notifications_are_for_listed_keys() {
    let dir = private_dir();
    let (server, listed, stranger) = (new_secret_key(), new_secret_key(), new_secret_key());
    let broker = guarded(dir.path(), &server, &[(&listed, None), (&stranger, None)]);
    let producer = keyed(&broker, "p", &listed);
    let own = new_secret_key();
    let curve = NotifierCurve { secret_key: own.clone(), clients: Some(vec![listed.public_key()]) };
    let config = NotifierConfig { curve: Some(curve), ..NotifierConfig::new(channel("a")) };
    let notifier = producer.create_pub(&format!("ipc://{}/n.sock", dir.path().display()), config).unwrap();
    let hear = |hub: &MessageHub, key| hub.notifications(notifier.endpoint(), &channel("a"), key).unwrap();
    let key = Some(own.public_key());
    let outsiders = [
        hear(&keyed(&broker, "s", &stranger), key),
        hear(&keyed(&broker, "t", &listed), Some(server.public_key())),
        hear(&keyed(&broker, "u", &listed), None),
    ];
    let listener = hear(&keyed(&broker, "c", &listed), key);
    notifier.wait_for_consumers(1, SOON).unwrap();
    let notice = Notification { block_uuid: uuid(1), slot_id: U64(7), commit_index: U64(8), ts_ns: 1 };
    notifier.committed(notice);
    assert_eq!(listener.recv_with_timeout(SOON).unwrap(), Some(notice));
    assert!(notifier.wait_for_consumers(2, Duration::from_millis(300)).is_err(), "nobody else came in");
    for outsider in &outsiders {
        assert_eq!(outsider.recv_with_timeout(Duration::ZERO).unwrap(), None);
    }
}

/// Without CURVE a broker listens in a private directory or on loopback, and refuses to start elsewhere.
///
/// Rules: DH-185, DH-210, DH-211, M-17, N-35.
#[test]
fn a_broker_that_strangers_could_reach_does_not_start() {
    let dir = private_dir();
    let refused = |endpoint: &str, insecure_tcp| {
        let config = BrokerConfig { endpoint: endpoint.into(), insecure_tcp, ..config(dir.path()) };
        let error = Broker::start(config, Box::new(Everything)).unwrap_err().to_string();
        assert!(error.contains(endpoint.trim_start_matches("ipc://").trim_end_matches("/b.sock")), "{error}");
        error
    };
    assert!(refused("tcp://0.0.0.0:5570", true).contains("CURVE"));
    assert!(refused("tcp://127.0.0.1:0", false).contains("insecure_tcp"));
    use std::os::unix::fs::PermissionsExt;
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(refused(&format!("ipc://{}/b.sock", open.display()), true).contains("chmod 700"));
    let loopback =
        BrokerConfig { endpoint: "tcp://127.0.0.1:*".into(), insecure_tcp: true, ..config(dir.path()) };
    let broker = start(loopback);
    hub(broker.endpoint(), "c").ping(SOON).unwrap();
}
