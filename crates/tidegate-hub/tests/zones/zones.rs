use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tidegate_hub::{
    block::{CreateOptions, Role, create},
    config::{BufferPolicy, ConsumerConfig, HubConfig, HubTimeouts, Timeout},
    consumer::Consumer,
    error::TxError,
    layout::{ChannelName, DigestAlg, DigestPolicy, Secret, SecurityLevel},
    lock::LockError,
    producer::Producer,
    schema::{HubSchema, SchemaMode, ZoneLayout},
    zone::{DigestCheck, Zone, ZoneError, Zones},
};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use crate::{
    Bench, Pose, Telemetry, attach_in,
    children::{Child, PATIENCE, linger, role, say},
    soon, spec, zones_of,
};

fn telemetry(zones: &Zones, index: usize) -> Zone<'_, Telemetry> {
    zones.zone(index, SchemaMode::Strict).unwrap()
}

/// The text and where each field lies, against bytes.
///
/// Rules: DH-137, DH-138, DH-174.
#[test]
fn fields_lie_where_the_text_says() {
    assert_eq!(
        Telemetry::TEXT,
        "tds1 Telemetry size=56 align=8 {beats:u64@0+8;pose:Pose{x:f64@0+8;y:f64@8+8}@8+16;\
         temperatures:u32[3]@24+12;trim:i16@36+2;mode:u8@38+1;_pad0:u8[1]@39+1;drift:i64@40+8;sum:u64@48+8}"
    );
    assert_eq!(Pose::TEXT, "tds1 Pose size=16 align=8 {x:f64@0+8;y:f64@8+8}");
    let bench = Bench::new();
    let zones = zones_of(&bench.block);
    let zone = telemetry(&zones, 0);
    let shared = zone.shared().unwrap();
    assert_eq!(shared.beats().fetch_add(0x0102_0304, SeqCst), 0);
    shared.temperatures().get(2).unwrap().store(0x0A0B_0C0D, Relaxed);
    assert_eq!((shared.temperatures().len(), shared.temperatures().get(3).is_none()), (3, true));
    shared.trim().store(-2, Relaxed);
    assert_eq!(shared.mode().compare_exchange(0, 200, SeqCst), Ok(0));
    shared.drift().store(i64::MIN, Relaxed);
    let guard = zone.guard(soon()).unwrap().into_guard();
    guard.fields().unwrap().pose().store(&Pose { x: 1.5, y: -2.5 });
    guard.fields().unwrap().sum().store(&77);
    drop(guard);

    let bytes = bench.block.zone(0).unwrap().to_vec();
    assert_eq!(bytes[..8], 0x0102_0304_u64.to_le_bytes());
    assert_eq!((&bytes[8..16], &bytes[16..24]), (&1.5_f64.to_le_bytes()[..], &(-2.5_f64).to_le_bytes()[..]));
    assert_eq!((&bytes[24..32], &bytes[32..36]), (&[0; 8][..], &[0x0D, 0x0C, 0x0B, 0x0A][..]));
    assert_eq!((&bytes[36..38], bytes[38], bytes[39]), (&[0xFE, 0xFF][..], 200, 0));
    assert_eq!((&bytes[40..48], &bytes[48..56]), (&i64::MIN.to_le_bytes()[..], &77_u64.to_le_bytes()[..]));

    let read = telemetry(&zones, 0).fields().unwrap();
    assert_eq!((read.beats().load(Relaxed), read.trim().load(Relaxed)), (0x0102_0304, -2));
    assert_eq!((read.mode().load(Relaxed), read.drift().load(Relaxed)), (200, i64::MIN));
    let temperatures: Vec<u32> = read.temperatures().iter().map(|word| word.load(Relaxed)).collect();
    assert_eq!(temperatures, [0, 0, 0x0A0B_0C0D]);
    let copy = zone.snapshot(soon()).unwrap();
    assert_eq!((copy.pose.into_inner(), copy.sum.into_inner()), (Pose { x: 1.5, y: -2.5 }, 77));
    assert_eq!((copy.beats.load(Relaxed), copy.temperatures[2].load(Relaxed)), (0x0102_0304, 0x0A0B_0C0D));
}

/// Rules: DH-137, Z-10.
#[test]
fn size_and_schema_are_checked_before_anything_is_reached() {
    /// As large as `Telemetry`, and something else.
    #[repr(C)]
    #[derive(ZoneLayout)]
    struct Other {
        a: AtomicU64,
        b: [AtomicU64; 6],
    }

    let bench = Bench::new();
    let zones = zones_of(&bench.block);
    let code = |index, mode| zones.zone::<Telemetry>(index, mode).map(drop).map_err(|error| error.code());
    assert_eq!(code(0, SchemaMode::Strict), Ok(()));
    assert_eq!(code(2, SchemaMode::Strict), Err(306));
    assert_eq!(code(2, SchemaMode::Ignore), Err(306));
    assert_eq!(code(3, SchemaMode::Strict), Err(117), "untyped");
    assert_eq!(code(3, SchemaMode::Ignore), Ok(()));
    assert_eq!(code(4, SchemaMode::Ignore), Err(903));
    let other = zones.zone::<Other>(0, SchemaMode::Strict).map(drop).unwrap_err();
    assert!(matches!(other, ZoneError::SchemaMismatch(_)), "{other}");
    let small = zones.zone::<Telemetry>(2, SchemaMode::Strict).map(drop).unwrap_err();
    assert!(matches!(small, ZoneError::ZoneTooSmall { index: 2, size: 16, needed: 56 }));
}

/// Rules: DH-139, N-26.
#[test]
fn consumers_write_only_where_they_may() {
    let bench = Bench::new();
    let block = bench.attach(Role::Consumer);
    let of_consumer = zones_of(&block);
    let own = telemetry(&of_consumer, 1);
    let refused = [
        own.shared().map(drop),
        own.guard(soon()).map(drop),
        own.update(soon(), |_| ()),
        own.repair(soon(), |_| ()),
        own.update_digest(soon()),
    ];
    for error in refused {
        assert!(matches!(error, Err(ZoneError::ReadOnly { index: 1 })), "{error:?}");
    }
    let of_writer = zones_of(&bench.block);
    telemetry(&of_writer, 1).update(soon(), |zone| zone.sum().store(&5)).unwrap();
    assert_eq!(own.snapshot(soon()).unwrap().sum.into_inner(), 5, "they may look");
    telemetry(&of_consumer, 0).update(soon(), |zone| zone.sum().store(&6)).unwrap();
    let block = bench.attach(Role::Inspector);
    let of_inspector = zones_of(&block);
    assert!(of_inspector.locks().is_none());
    let seen = telemetry(&of_inspector, 0);
    assert_eq!(seen.snapshot(soon()).unwrap().sum.into_inner(), 6);
    assert!(matches!(seen.shared(), Err(ZoneError::ReadOnly { index: 0 })));
}

/// Updates all fields with one number for ever.
fn updater(dir: &Path) {
    let block = attach_in(dir, Role::Consumer);
    let zones = zones_of(&block);
    let zone = telemetry(&zones, 0);
    for number in 1.. {
        zone.update(soon(), |fields| {
            fields.beats().store(number, Relaxed);
            fields.pose().store(&Pose { x: number as f64, y: number as f64 });
            fields.sum().store(&number);
        })
        .unwrap();
        if number == 100 {
            say("updating");
        }
    }
}

/// Rules: DH-140, Z-08.
#[test]
fn snapshots_are_never_torn() {
    if let Some(dir) = role("updater") {
        return updater(&dir);
    }
    let bench = Bench::new();
    let mut child = Child::start("zones::snapshots_are_never_torn", "updater", bench.path());
    child.wait_for("updating");
    let block = bench.attach(Role::Inspector);
    let zones = zones_of(&block);
    let zone = telemetry(&zones, 0);
    let (mut last, mut different) = (0, 0);
    // However the two are scheduled, most of these see an update that runs.
    let until = monotonic_now().saturating_add(Nanos(PATIENCE.as_nanos() as u64));
    while different < 2_000 && monotonic_now() < until {
        let copy = zone.snapshot(soon()).unwrap();
        let number = copy.beats.load(Relaxed);
        assert_eq!(copy.pose.into_inner(), Pose { x: number as f64, y: number as f64 });
        assert_eq!(copy.sum.into_inner(), number);
        assert!(number >= last, "older than the one before");
        different += u32::from(number > last);
        last = number;
    }
    assert_eq!(different, 2_000, "the other process stood still");
}

/// Rules: DH-141, DH-149, Z-08.
#[test]
fn an_update_that_a_kill_cut_off_is_torn_until_repaired() {
    if let Some(dir) = role("victim") {
        let block = attach_in(&dir, Role::Consumer);
        let zones = zones_of(&block);
        return telemetry(&zones, 0)
            .update(soon(), |fields| {
                fields.sum().store(&1);
                say("half done");
                linger();
            })
            .unwrap();
    }
    let bench = Bench::new();
    let test = "zones::an_update_that_a_kill_cut_off_is_torn_until_repaired";
    let mut child = Child::start(test, "victim", bench.path());
    child.wait_for("half done");
    let zones = zones_of(&bench.block);
    let zone = telemetry(&zones, 0);
    let alive = zone.snapshot(Timeout::Immediate).unwrap_err();
    assert!(matches!(alive, ZoneError::Timeout { index: 0 }), "{alive}");
    assert!(!zone.is_torn(), "its writer lives");
    child.kill();
    child.collect();
    for deadline in [Timeout::Immediate, soon()] {
        let error = zone.snapshot(deadline).unwrap_err();
        assert!(matches!(error, ZoneError::TornZone { index: 0, writer: Some(_) }), "{error}");
        assert_eq!(error.code(), 305);
    }
    let outcome = zone.guard(soon()).unwrap();
    assert!(outcome.is_recovered(), "the next holder was not told");
    let guard = outcome.into_guard();
    assert!(guard.is_torn());
    let refused = guard.update(|_| ()).unwrap_err();
    assert!(matches!(refused, ZoneError::TornZone { .. }), "{refused}");
    drop(guard);
    assert!(zone.guard(soon()).unwrap().is_recovered(), "it still is");
    zone.repair(soon(), |fields| fields.sum().store(&2)).unwrap();
    assert_eq!(zone.snapshot(soon()).unwrap().sum.into_inner(), 2);
    assert!(!zone.guard(soon()).unwrap().is_recovered());
    zone.update(soon(), |fields| fields.sum().store(&3)).unwrap();
}

/// Rules: DH-140, DH-141.
#[test]
fn an_update_that_panics_is_torn() {
    let bench = Bench::new();
    let zones = zones_of(&bench.block);
    for index in [0, 1] {
        let zone = telemetry(&zones, index);
        let panicked = catch_unwind(AssertUnwindSafe(|| zone.update(soon(), |_| panic!("half done"))));
        assert!(panicked.is_err());
        let torn = zone.snapshot(soon()).unwrap_err();
        assert!(matches!(torn, ZoneError::TornZone { writer: None, .. }), "{torn}");
        zone.repair(soon(), |fields| fields.sum().store(&9)).unwrap();
        assert_eq!(zone.snapshot(soon()).unwrap().sum.into_inner(), 9);
        let inner = zone.update(soon(), |_| zone.update(soon(), |_| ()).unwrap_err()).unwrap();
        assert!(matches!(inner, ZoneError::Busy { .. }), "an update inside of an update: {inner}");
    }
}

/// Rules: DH-142, Z-09.
#[test]
fn a_digest_knows_its_generation() {
    let bench = Bench::new();
    let zones = zones_of(&bench.block);
    let zone = telemetry(&zones, 0);
    assert_eq!(zone.verify_digest().unwrap(), DigestCheck::Stale, "there is none");
    zone.update(soon(), |fields| fields.sum().store(&1)).unwrap();
    zone.update_digest(soon()).unwrap();
    assert_eq!(zone.verify_digest().unwrap(), DigestCheck::Match);
    let byte = |value| bench.block.zone_mut(0).unwrap().write_at(255, &[value]).unwrap();
    byte(1);
    assert_eq!(zone.verify_digest().unwrap(), DigestCheck::Mismatch, "the whole zone is hashed");
    byte(0);
    assert_eq!(zone.verify_digest().unwrap(), DigestCheck::Match);
    zone.update(soon(), |fields| fields.sum().store(&1)).unwrap();
    assert_eq!(zone.verify_digest().unwrap(), DigestCheck::Stale);
    let (inner, digest) = zone
        .update(soon(), |_| (zone.update_digest(soon()).unwrap_err(), zone.verify_digest().unwrap()))
        .unwrap();
    assert!(matches!(inner, ZoneError::Busy { .. }), "{inner}");
    assert_eq!(digest, DigestCheck::Stale);
    zone.update_digest(soon()).unwrap();
    assert_eq!(zone.verify_digest().unwrap(), DigestCheck::Match);
}

/// Rules: DH-142, DH-156, DH-163.
#[test]
fn digests_of_zones_need_a_table_and_their_key() {
    let mut off = spec();
    off.digest_alg = DigestAlg::None;
    let bench = Bench::of(&off);
    let without = zones_of(&bench.block);
    let error = telemetry(&without, 0).update_digest(soon()).unwrap_err();
    assert_eq!(error.code(), 304, "{error}");

    let mut keyed = spec();
    keyed.digest_alg = DigestAlg::KeyedBlake3;
    keyed.digest_policy = DigestPolicy::Enforced;
    keyed.security = SecurityLevel::AuthenticatedSlots;
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let [secret, other] = [1, 2].map(|byte| Secret::new(&[byte; 32]).unwrap());
    let options =
        CreateOptions { dir: dir.path().to_owned(), secret: Some(&secret), ..CreateOptions::default() };
    let block = Arc::new(create(&keyed, &options).unwrap());
    let with_key = Zones::new(&block, Some(&secret), &HubTimeouts::default()).unwrap();
    telemetry(&with_key, 0).update_digest(soon()).unwrap();
    assert_eq!(telemetry(&with_key, 0).verify_digest().unwrap(), DigestCheck::Match);
    let with_other = Zones::new(&block, Some(&other), &HubTimeouts::default()).unwrap();
    assert_eq!(telemetry(&with_other, 0).verify_digest().unwrap(), DigestCheck::Mismatch);
    let without = zones_of(&block);
    assert_eq!(telemetry(&without, 0).verify_digest().unwrap_err().code(), 119);
}

/// Zones of a channel are declared by their types and used by closures, from both ends.
///
/// Rules: DH-139, DH-143, DH-170.
#[test]
fn a_channel_declares_its_zones_by_type() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let channel = ChannelName::new("robot").unwrap();
    let config =
        HubConfig { dir: dir.path().to_owned(), ..HubConfig::new(channel, BufferPolicy::ring(4), 64) }
            .with_zone::<Telemetry>("arm")
            .with_shared_zone::<Telemetry>("leg");
    let locks: Vec<_> = config.zones.iter().map(|zone| (zone.text_index, zone.lock)).collect();
    assert_eq!(locks, [(Some(1), Some(0)), (Some(2), Some(1))]);
    let many = (0..5).fold(config.clone(), |config, _| config.with_zone::<Telemetry>("more"));
    assert_eq!((many.zones[3].lock, many.zones[4].lock), (Some(3), None));

    let producer = Producer::create(&config).unwrap();
    let reading = ConsumerConfig { dir: dir.path().to_owned(), ..ConsumerConfig::default() };
    let consumer = Consumer::attach(&producer.name(), &reading).unwrap();
    let (ours, theirs) = (producer.zones().unwrap(), consumer.zones().unwrap());
    let add = |zones: &Zones, index, by: u64| {
        zones.with_zone::<Telemetry, _, _>(index, Timeout::Default, |zone| {
            assert!(!zone.is_recovered());
            let sum = zone.fields().unwrap().sum().load() + by;
            zone.update(|fields| fields.sum().store(&sum)).unwrap();
            if by == 0 { Err("nothing") } else { Ok(sum) }
        })
    };
    assert_eq!(
        (add(&ours, 0, 1).unwrap(), add(&ours, 1, 2).unwrap(), add(&theirs, 1, 3).unwrap()),
        (1, 2, 5)
    );
    assert!(matches!(add(&ours, 1, 0), Err(TxError::User("nothing"))));
    assert!(matches!(add(&theirs, 0, 1), Err(TxError::Zone(ZoneError::ReadOnly { .. }))));
    assert!(matches!(add(&ours, 2, 1), Err(TxError::Zone(ZoneError::NoSuchZone { .. }))));
    let [sum] = [&ours].map(|zones| telemetry(zones, 1).snapshot(Timeout::Default).unwrap().sum.into_inner());
    assert_eq!(sum, 5, "the producer sees what the consumer wrote");

    // Who dies over a change of fields leaves a zone that has to be repaired, and the next one is told.
    let broken = catch_unwind(AssertUnwindSafe(|| {
        ours.with_zone::<Telemetry, (), ()>(0, Timeout::Default, |zone| {
            let _ = zone.update(|_| panic!("in the middle"));
            Ok(())
        })
    }));
    assert!(broken.is_err());
    let told = ours.with_zone::<Telemetry, _, ()>(0, Timeout::Default, |zone| Ok(zone.is_recovered()));
    assert!(told.unwrap());
}

/// What waits for as long as by default waits for as long as its handle says.
///
/// Rules: DH-097, DH-140, DH-151.
#[test]
fn the_default_time_of_zones_and_locks_is_that_of_the_handle() {
    let bench = Bench::new();
    let timeouts = HubTimeouts { lock_acquire: Duration::from_millis(1), ..HubTimeouts::default() };
    let zones = Zones::new(&bench.block, None, &timeouts).unwrap();
    let zone = telemetry(&zones, 0);
    let lock = zones.locks().unwrap().alloc_lock("gripper", Timeout::Default).unwrap();
    let _held = (zone.guard(Timeout::Default).unwrap(), lock.acquire(Timeout::Default).unwrap());
    // On another thread, since locks are recursive.
    let (guard, lock) = std::thread::scope(|scope| {
        let waiting = || {
            let guard = zone.guard(Timeout::Default).map(drop).unwrap_err();
            (guard, lock.acquire(Timeout::Default).map(drop).unwrap_err())
        };
        scope.spawn(waiting).join().unwrap()
    });
    assert!(matches!(guard, ZoneError::Lock(LockError::Timeout { .. })), "{guard:?}");
    assert!(matches!(lock, LockError::Timeout { .. }), "{lock:?}");
}
