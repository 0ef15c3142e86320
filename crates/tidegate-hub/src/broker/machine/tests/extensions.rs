//! A broker with less than all, restored, draining, and reports that it passes on.

use super::{super::*, bench::*};
use crate::broker::{
    host::{BlockFacts, Inspection},
    wire::{BlockUuid, ChecksumErrorReport, Heartbeat, ProcessKey, Register, SchemaHash, U64},
};

/// Rules: DH-190, M-18.
#[test]
fn a_core_broker_knows_no_extensions() {
    let mut bench = Bench::new(Settings { features: BTreeSet::new(), ..Settings::default() });
    let registered = bench.register("p", sensor(1, 1), None);
    assert!(registered.is_ok() && registered.reply.features.is_empty());
    let beat =
        bench.ask("p", RequestBody::Heartbeat(Heartbeat { channel_id: registered.channel_id() }), None);
    assert_eq!(beat.outcome(), (Status::Error, Some(Code::UnknownType)));
    assert!(bench.discover("c", find("sensor"), None).is_ok());
    assert!(bench.ask("p", deregister(1), None).events.is_empty());
}

/// Rules: DH-157.
#[test]
fn a_checksum_report_is_relayed_as_it_is() {
    let mut bench = Bench::new(Settings::default());
    let channel_id = bench.register("p", sensor(1, 1), None).channel_id();
    let report = ChecksumErrorReport {
        channel_id,
        slot_id: U64((1 << 53) + 1),
        error: label("ChecksumMismatch"),
        process_key: ProcessKey::from_word(4).unwrap(),
    };
    let relayed = bench.ask("c", RequestBody::ChecksumErrorReport(report.clone()), None);
    assert_eq!(relayed.events, [EventBody::ChecksumErrorReport(report)]);
}

/// Restored entries answer OK only after a look at the block; dead ones are not restored.
///
/// Rules: DH-213, DH-214, M-15.
#[test]
fn what_is_restored_is_checked_first() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let away = Register { channel_name: name("away"), host_domain: label("elsewhere"), ..sensor(2, 2) };
    assert!(bench.register("q", away, None).is_ok());
    let dead = Register { channel_name: name("dead"), ..sensor(3, 3) };
    assert!(bench.register("r", dead, None).is_ok());
    let text = serde_json::to_string(&bench.machine.snapshot(&bench.host)).unwrap();
    assert!(!text.contains("secret_proof"), "{text}");

    let mut after = Bench::new(Settings::default());
    after.kill(3);
    let (snapshot, now) = (serde_json::from_str(&text).unwrap(), after.now());
    after.machine.restore(snapshot, now, &after.host);
    assert_eq!(after.machine.counters().channels, 2);
    let unknown = after.discover("c", find("away"), None);
    assert_eq!(unknown.outcome(), (Status::Pending, Some(Code::RestoredUnverified)));
    after.build(&sensor(1, 1));
    assert!(after.discover("c", find("sensor"), Some(&secret)).is_ok());

    let mut moved = Bench::new(Settings::default());
    moved.build(&sensor(1, 1));
    let other = BlockFacts {
        block_uuid: BlockUuid::new([0xEE; 16]).unwrap(),
        channel_name: name("sensor"),
        schema_hash: SchemaHash::from_bytes([5; 32]),
        is_ready: true,
    };
    moved.host.blocks.borrow_mut().insert(sensor(1, 1).shm_name.to_string(), Inspection::Found(other));
    let (snapshot, now) = (serde_json::from_str(&text).unwrap(), moved.now());
    moved.machine.restore(snapshot, now, &moved.host);
    assert_eq!(moved.discover("c", find("sensor"), Some(&secret)).reply.code, Some(Code::StaleOwner));
}

/// What ran on this host before it was started anew is dead. Of a channel of elsewhere nothing can be known but what its
/// producer says, which registers again if it lives: until then it waits, and then it goes.
///
/// Rules: DH-214, DH-183.
#[test]
fn what_nobody_confirms_is_not_kept() {
    let mut bench = Bench::new(Settings::default());
    let here = Register { host_domain: label("boot-0/pid:[4026531836]"), ..sensor(1, 1) };
    assert!(bench.register("p", here, None).is_ok());
    for (channel, owner) in [("away", 2_u8), ("back", 3)] {
        let elsewhere = label("boot-7/pid:[4026531836]");
        let away =
            Register { channel_name: name(channel), host_domain: elsewhere, ..sensor(owner.into(), owner) };
        assert!(bench.register("q", away, None).is_ok());
    }
    let mut snapshot = bench.machine.snapshot(&bench.host);
    assert_eq!(snapshot.host_domain, Some(label(DOMAIN)));
    snapshot.host_domain = Some(label("boot-0/pid:[4026531836]"));

    let mut after = Bench::new(Settings::default());
    let now = after.now();
    after.machine.restore(snapshot, now, &after.host);
    assert_eq!(after.machine.counters().channels, 2, "that of the boot before is gone");
    assert!(after.register("n", sensor(4, 4), None).is_ok(), "its name is free");
    let waiting = after.discover("c", find("away"), None);
    assert_eq!(waiting.outcome(), (Status::Pending, Some(Code::RestoredUnverified)));
    let back = Register {
        channel_name: name("back"),
        host_domain: label("boot-7/pid:[4026531836]"),
        ..sensor(3, 3)
    };
    assert!(after.register("q", back, None).is_ok());
    after.now += Duration::from_secs(60);
    let events = after.tick();
    assert!(
        matches!(&events[..], [Output::Publish { event, .. }]
            if matches!(&event.body, EventBody::ChannelClosing { channel_name, .. } if *channel_name == name("away"))),
        "{events:?}"
    );
    assert_eq!(after.discover("c", find("away"), None).reply.code, Some(Code::UnknownChannel));
    assert!(after.discover("c", find("back"), None).is_ok());
}

/// Only look-ups and farewells are answered while the broker drains.
#[test]
fn a_draining_broker_answers_little() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    bench.machine.drain();
    assert!(bench.discover("c", find("sensor"), None).is_ok());
    let ping = bench.request("c", RequestBody::Ping, None);
    assert_eq!(bench.handle("c", None, &ping.encode()), []);
    assert!(bench.ask("p", deregister(1), None).is_ok());
}

proptest::proptest! {
    /// Whatever bytes come, there is an answer or none, and the broker goes on.
    ///
    /// Rules: DH-186, M-07.
    #[test]
    fn garbage_is_answered_or_dropped(
        body in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        at in 0..600_usize,
        byte in proptest::num::u8::ANY,
    ) {
        let mut bench = Bench::new(Settings::default());
        bench.handle("g", None, &body);
        let mut request = bench.request("p", RequestBody::Register(Box::new(sensor(1, 1))), None).encode();
        if let Some(place) = request.get_mut(at) {
            *place = byte;
        }
        bench.build(&sensor(1, 1));
        bench.handle("p", None, &request);
        request.truncate(at);
        bench.handle("q", None, &request);
        proptest::prop_assert!(bench.ask("h", RequestBody::Ping, None).is_ok());
    }
}
