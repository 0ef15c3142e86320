//! Registrations, row by row of 13.4, and looking up what was registered.

use super::{super::*, bench::*};
use crate::broker::{
    host::Inspection,
    wire::{
        AttachAck, BlockUuid, ChannelId, Discover, DropReason, Fixed, Heartbeat, LongText, ProcessKey,
        Register, SchemaHash, SchemaMode, SchemaQuery, SchemaVersion, ShmName,
    },
};

/// Rules: DH-192, M-01.
#[test]
fn register_discover_deregister() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let found = bench.discover("c", find("sensor"), Some(&secret));
    assert!(found.is_ok(), "{found:?}");
    assert_eq!(found.json["shm_name"], "tidegate_sensor_00000001");
    assert_eq!(found.json["first_slot_id"], "0");
    assert_eq!(found.json["producer_alive"], true);
    let request = bench.request("p", deregister(1), Some(&secret));
    let closed = bench.send(&request);
    assert!(closed.is_ok());
    assert!(matches!(closed.events[..], [EventBody::ChannelClosing { .. }]));
    let gone = bench.discover("c", find("sensor"), Some(&secret));
    assert_eq!(gone.outcome(), (Status::NotFound, Some(Code::UnknownChannel)));
}

/// Every row of the table, each with the row before it made not to hold.
///
/// Rules: DH-179, DH-192, M-02, M-04, M-05.
#[test]
fn the_registration_table() {
    let (secret, other) = (verifier(1), verifier(2));
    let fresh = || {
        let mut bench = Bench::new(Settings::default());
        assert!(bench.register("p1", sensor(1, 1), Some(&secret)).is_ok());
        bench
    };
    let refused = |answer: &Answered, code: Code| assert_eq!(answer.outcome(), (code.status(), Some(code)));

    let mut bench = fresh();
    bench.build(&sensor(2, 2));
    let unproven = RequestBody::Register(Box::new(with_verifier(sensor(2, 2), Some(&secret))));
    let forged = bench.request("p2", unproven, Some(&other));
    refused(&bench.send(&forged), Code::BadProof);

    let mut bench = fresh();
    let again = bench.register("p1", sensor(1, 1), Some(&secret));
    assert!(again.is_ok());
    assert_eq!((again.channel_id(), bench.machine.counters().channels), (ChannelId(1), 1));
    refused(&bench.register("p1", sensor(1, 1), Some(&other)), Code::BadProof);
    let changed = Register { schema_hash: SchemaHash::from_bytes([6; 32]), ..sensor(1, 1) };
    refused(&bench.register("p1", changed, Some(&secret)), Code::SchemaConflict);

    let mut bench = fresh();
    let elsewhere = Register { channel_name: name("other"), ..sensor(1, 1) };
    refused(&bench.register("p1", elsewhere, None), Code::UuidReused);

    let mut bench = fresh();
    bench.kill(1);
    let replaced = bench.register("p2", sensor(2, 2), Some(&secret));
    assert!(replaced.is_ok());
    assert_eq!(replaced.json["replaced"], true);
    assert!(matches!(replaced.events[..], [EventBody::ChannelClosing { channel_id: ChannelId(1), .. }]));

    let mut bench = fresh();
    bench.kill(1);
    refused(&bench.register("p2", sensor(2, 2), Some(&other)), Code::BadProof);

    let mut bench = fresh();
    let retyped = Register { schema_hash: SchemaHash::from_bytes([6; 32]), ..sensor(2, 2) };
    let conflict = bench.register("p2", retyped, Some(&secret));
    refused(&conflict, Code::SchemaConflict);
    assert!(conflict.message().contains(&"05".repeat(32)) && conflict.message().contains(&"06".repeat(32)));

    let mut bench = fresh();
    let live = bench.register("p2", sensor(2, 2), Some(&secret));
    refused(&live, Code::LiveOwner);
    assert!(live.message().contains("PROD-1"), "{}", live.message());
}

/// A dead process of another host domain cannot be told from a live one, and age does not help.
///
/// Rules: DH-034, DH-035.
#[test]
fn an_owner_that_cannot_be_asked_about_stays() {
    let mut bench = Bench::new(Settings::default());
    let away = Register { host_domain: label("elsewhere"), ..sensor(1, 1) };
    assert!(bench.register("p1", away, None).is_ok());
    bench.kill(1);
    bench.now += Duration::from_secs(1 << 30);
    let refused = bench.register("p2", sensor(2, 2), None);
    assert_eq!(refused.outcome(), (Status::Conflict, Some(Code::LiveOwner)));
}

/// A lease that ran out allows a replacement with the same secret, and says nothing about the process.
///
/// Rules: DH-035, DH-192, DH-236.
#[test]
fn an_expired_lease_declares_nobody_dead() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    let leased = Register { lease_ms: 2_000, ..sensor(1, 1) };
    let registered = bench.register("p1", leased, Some(&secret));
    assert_eq!(registered.json["lease_ms"], 2000);
    bench.now += Duration::from_millis(1_900);
    let beat = RequestBody::Heartbeat(Heartbeat { channel_id: registered.channel_id() });
    assert!(bench.ask("p1", beat.clone(), None).is_ok());
    bench.now += Duration::from_millis(1_900);
    assert!(bench.tick().is_empty());
    assert_eq!(bench.register("p2", sensor(2, 2), Some(&secret)).reply.code, Some(Code::LiveOwner));
    bench.now += Duration::from_millis(200);
    assert!(bench.tick().is_empty(), "nobody is told that anything died");
    assert_eq!(bench.machine.counters().leases_expired, 1);
    let found = bench.discover("c", find("sensor"), Some(&secret));
    assert_eq!((found.is_ok(), &found.json["producer_alive"]), (true, &serde_json::Value::Bool(true)));
    assert_eq!(bench.register("p2", sensor(2, 2), Some(&verifier(2))).reply.code, Some(Code::LiveOwner));
    assert!(bench.register("p2", sensor(2, 2), Some(&secret)).is_ok());
    assert_eq!(bench.ask("p1", beat, None).reply.status, Status::UnknownClient);
}

/// A consumer whose lease ran out is reported as silent, as dead only if the kernel says so.
///
/// Rules: DH-035, DH-191, M-19.
#[test]
fn a_silent_consumer_is_a_hint() {
    for (kill, expected) in [(false, DropReason::HeartbeatTimeout), (true, DropReason::ProcessDead)] {
        let mut bench = Bench::new(Settings::default());
        let channel_id = bench.register("p", sensor(1, 1), None).channel_id();
        let attach = AttachAck {
            channel_id,
            consumer_id: label("ui"),
            config_hash: Fixed([0; 32]),
            process_key: ProcessKey::from_word(77).unwrap(),
        };
        assert!(matches!(
            bench.ask("c", RequestBody::AttachAck(attach), None).events[..],
            [EventBody::AttachAck(_)]
        ));
        assert_eq!(bench.machine.next_deadline(), None, "without heartbeats there is no lease");
        assert!(bench.ask("c", RequestBody::Heartbeat(Heartbeat { channel_id }), None).is_ok());
        if kill {
            bench.kill(77);
        }
        let due = bench.machine.next_deadline().expect("a lease");
        assert_eq!(due, bench.now + CONSUMER_LEASE);
        bench.now = due;
        let outputs = bench.tick();
        let [Output::Publish { event, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        let EventBody::ConsDrop { reason, .. } = &event.body else { panic!("{event:?}") };
        assert_eq!(*reason, expected);
        assert_eq!(bench.machine.counters().attachments, 0);
        assert!(bench.discover("c", find("sensor"), None).is_ok(), "the channel is as it was");
    }
}

/// How often a consumer has to give a sign does not depend on the lease of its channel.
///
/// Rules: DH-191.
#[test]
fn a_short_lease_of_the_producer_is_not_its_consumers() {
    let mut bench = Bench::new(Settings::default());
    let short = Register { lease_ms: 1_000, ..sensor(1, 1) };
    let channel_id = bench.register("p", short, None).channel_id();
    let attach = AttachAck {
        channel_id,
        consumer_id: label("ui"),
        config_hash: Fixed([0; 32]),
        process_key: ProcessKey::from_word(77).unwrap(),
    };
    assert!(bench.ask("c", RequestBody::AttachAck(attach), None).is_ok());
    assert!(bench.ask("c", RequestBody::Heartbeat(Heartbeat { channel_id }), None).is_ok());
    bench.now += CONSUMER_LEASE / 2;
    assert_eq!(bench.tick(), []);
    assert_eq!((bench.machine.counters().attachments, bench.machine.counters().leases_expired), (1, 1));
}

/// Rules: DH-193, N-32.
#[test]
fn the_block_of_a_dead_producer_is_found_while_it_exists() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    bench.kill(1);
    let found = bench.discover("c", find("sensor"), None);
    assert_eq!((found.is_ok(), &found.json["producer_alive"]), (true, &serde_json::Value::Bool(false)));
    bench.host.blocks.borrow_mut().clear();
    let gone = bench.discover("c", find("sensor"), None);
    assert_eq!(gone.outcome(), (Status::NotFound, Some(Code::StaleOwner)));
    assert_eq!(bench.discover("c", find("sensor"), None).reply.code, Some(Code::UnknownChannel));
}

/// What a block says of itself counts, field by field.
///
/// Rules: DH-194, N-31.
#[test]
fn a_registration_that_does_not_fit_its_block_is_refused() {
    let claims = [
        ("uuid", Register { block_uuid: BlockUuid::new([9; 16]).unwrap(), ..sensor(1, 1) }),
        ("channel", Register { channel_name: name("another"), ..sensor(1, 1) }),
        ("schema", Register { schema_hash: SchemaHash::from_bytes([9; 32]), ..sensor(1, 1) }),
        ("no block", Register { shm_name: ShmName::new("tidegate_x_00000009").unwrap(), ..sensor(1, 1) }),
    ];
    for (what, claim) in claims {
        let mut bench = Bench::new(Settings::default());
        bench.build(&sensor(1, 1));
        let answer = bench.ask("p", RequestBody::Register(Box::new(claim)), None);
        assert_eq!(answer.outcome(), (Status::Error, Some(Code::BadRequest)), "{what}");
        assert!(answer.message().contains(what), "{}", answer.message());
        assert_eq!(bench.machine.counters().channels, 0);
    }
    let mut bench = Bench::new(Settings::default());
    bench.host.blocks.borrow_mut().insert(sensor(1, 1).shm_name.to_string(), Inspection::Unreadable);
    let answer = bench.ask("p", RequestBody::Register(Box::new(sensor(1, 1))), None);
    assert_eq!(answer.outcome(), (Status::Error, Some(Code::BadRequest)));
}

/// Rules: DH-180.
#[test]
fn a_schema_text_must_have_its_hash() {
    let text = "tds1 SensorData size=16 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4}";
    let hash = "5e15452115a763083f10341f190c5da83bde2ce0f44524e2ef5d2b84b837c426";
    let text = wire_text(text);
    let mut bench = Bench::new(Settings::default());
    let wrong = Register { schema_text: Some(text.clone()), ..sensor(1, 1) };
    assert_eq!(bench.register("p", wrong, None).reply.code, Some(Code::FingerprintInconsistent));
    let schema_hash = hash.parse::<SchemaHash>().unwrap();
    let right = Register { schema_text: Some(text), schema_hash, ..sensor(1, 1) };
    assert!(bench.register("p", right, None).is_ok());
    let query = SchemaQuery { channel_name: None, schema_hash: Some(schema_hash) };
    assert_eq!(bench.ask("c", RequestBody::Schema(query), None).json["schema_hash"], hash);
}

fn wire_text(text: &str) -> LongText {
    LongText::new(text).unwrap()
}

/// The refusal names both sides.
///
/// Rules: DH-179.
#[test]
fn a_wrong_schema_is_refused_early_and_named() {
    let version = |major, minor| Some(SchemaVersion { major, minor });
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let expecting = |hash: Option<u8>, schema_version, schema_mode| Discover {
        schema_hash: hash.map(|byte| SchemaHash::from_bytes([byte; 32])),
        schema_version,
        schema_mode,
        ..find("sensor")
    };
    let hash = bench.discover("c", expecting(Some(6), version(2, 0), SchemaMode::Strict), None);
    assert_eq!(hash.outcome(), (Status::SchemaMismatch, Some(Code::Hash)));
    assert!(hash.message().contains(&"05".repeat(32)) && hash.message().contains(&"06".repeat(32)));
    let major = bench.discover("c", expecting(Some(5), version(3, 1), SchemaMode::AllowAppended), None);
    assert_eq!(major.outcome(), (Status::SchemaMismatch, Some(Code::Version)));
    assert!(major.message().contains("2.0") && major.message().contains("3.1"), "{}", major.message());
    for passed in [
        expecting(Some(5), version(2, 7), SchemaMode::Strict),
        expecting(Some(6), version(2, 1), SchemaMode::AllowAppended),
        expecting(Some(6), version(3, 0), SchemaMode::Ignore),
    ] {
        assert!(bench.discover("c", passed, None).is_ok());
    }
}
