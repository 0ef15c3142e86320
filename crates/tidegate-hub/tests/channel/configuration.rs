//! Configurations: everything that is wrong is said at once, and nothing is made.

use std::time::Duration;

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, HubTimeouts, IfExists, Timeout},
    consumer::Consumer,
    error::{AcquireError, OpenError},
    layout::{DigestAlg, DigestPolicy, OnHeld, Overflow, Secret, SecurityLevel, SyncPolicy},
    producer::Producer,
};

use crate::world::{LONG, config, consumer_config, place, ring, send};

/// Rules: DH-095, DH-085, DH-099, N-19.
#[test]
fn every_wrong_field_is_named_and_nothing_is_made() {
    let dir = place();
    let wrong = HubConfig {
        sync: SyncPolicy::AllReaders,
        overflow: Overflow::DropOldest,
        slot_size: 0,
        max_consumers: 33,
        security: SecurityLevel::AttachTag,
        if_exists: IfExists::Adopt,
        timeouts: HubTimeouts {
            futex_slice: Duration::from_millis(11),
            heartbeat_stale: Duration::from_secs(3),
            ..HubTimeouts::default()
        },
        ..config(dir.path(), BufferPolicy::Single)
    };
    let Err(OpenError::Config(error)) = Producer::create(&wrong) else { panic!() };
    let mut fields: Vec<&str> = error.faults.iter().map(|fault| fault.field()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "futex_slice",
            "heartbeat_stale",
            "max_consumers",
            "overflow",
            "secret",
            "slot_size",
            "sync",
            "uuid"
        ]
    );
    assert!(fields.iter().all(|field| error.to_string().contains(field)), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(Producer::create(&ring(dir.path(), 1)).is_err());

    let wrong = ConsumerConfig { max_held: 0, uid: "x".repeat(41), ..consumer_config(dir.path()) };
    let Err(OpenError::Config(error)) = Consumer::attach("tidegate_x_00000000", &wrong) else { panic!() };
    assert_eq!(error.faults.len(), 2);
}

/// Rules: DH-096, N-19.
#[test]
fn presets_are_what_they_are_for() {
    let dir = place();
    let base = || HubConfig { digest_alg: DigestAlg::Blake3, ..ring(dir.path(), 4) };
    let low = base().low_latency();
    assert_eq!((low.digest_alg, low.effective_on_held()), (DigestAlg::None, OnHeld::Skip));
    assert_eq!(base().high_throughput().digest_alg, DigestAlg::None);
    let reliable = base().reliable();
    assert_eq!(
        (reliable.digest_alg, reliable.digest_policy, reliable.overflow),
        (DigestAlg::Blake3, DigestPolicy::Enforced, Overflow::Block)
    );
    let authenticated = base().authenticated(Secret::new(&[1; 32]).unwrap());
    assert_eq!(authenticated.security, SecurityLevel::AuthenticatedSlots);
    for preset in [low, base().high_throughput(), reliable, authenticated] {
        preset.validate().unwrap();
    }
    config(dir.path(), BufferPolicy::Single).low_latency().validate().unwrap();
}

/// Rules: DH-099, DH-156, P-13, G-08.
#[test]
fn values_that_contradict_each_other_are_refused() {
    let dir = place();
    let fields = |config: &HubConfig| -> Vec<&'static str> {
        let Err(OpenError::Config(error)) = Producer::create(config) else { panic!("{config:?}") };
        error.faults.iter().map(|fault| fault.field()).collect()
    };
    let timeouts = |stale| HubTimeouts { heartbeat_stale: stale, ..HubTimeouts::default() };
    let interval = HubTimeouts::default().heartbeat_interval;
    let silent = HubConfig { timeouts: timeouts(interval), ..ring(dir.path(), 4) };
    assert_eq!(fields(&silent), ["heartbeat_stale"]);
    let silent = HubConfig { timeouts: timeouts(2 * interval - Duration::from_nanos(1)), ..silent };
    assert_eq!(fields(&silent), ["heartbeat_stale"]);
    HubConfig { timeouts: timeouts(2 * interval), ..silent }.validate().unwrap();

    let unsealed = HubConfig { digest_policy: DigestPolicy::Enforced, ..ring(dir.path(), 4) };
    assert_eq!(unsealed.digest_alg, DigestAlg::None);
    assert_eq!(fields(&unsealed), ["digest_policy"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Rules: DH-097, DH-098, P-15.
#[test]
fn set_timeouts_is_for_the_next_default_call() {
    let dir = place();
    let mut producer = Producer::create(&ring(dir.path(), 2)).unwrap();
    let mut consumer = crate::world::attach(&producer, consumer_config(dir.path()));
    let short = HubTimeouts {
        write_acquire: Duration::from_millis(1),
        read_acquire: Duration::from_millis(1),
        ..HubTimeouts::default()
    };
    let long = HubTimeouts {
        write_acquire: Duration::from_secs(60),
        read_acquire: Duration::from_secs(60),
        ..HubTimeouts::default()
    };
    producer.set_timeouts(short.clone()).unwrap();
    consumer.set_timeouts(short).unwrap();
    assert_eq!(consumer.next(Timeout::Default).err(), Some(AcquireError::Timeout));
    (0..2).for_each(|id| assert_eq!(send(&producer, id), id, "a timeout that was named stays what it is"));
    assert_eq!(producer.write(Timeout::Default).err(), Some(AcquireError::Timeout));
    assert!(producer.set_timeouts(HubTimeouts { futex_slice: Duration::ZERO, ..long.clone() }).is_err());
    assert_eq!(
        producer.write(Timeout::Default).err(),
        Some(AcquireError::Timeout),
        "nothing of it was taken"
    );

    producer.set_timeouts(long.clone()).unwrap();
    consumer.set_timeouts(long).unwrap();
    // Three times as long as the defaults that these calls would have waited without.
    let later = Duration::from_millis(300);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            producer.write(Timeout::Default).map(|slot| slot.commit()).unwrap().unwrap();
            std::thread::sleep(later);
            send(&producer, 3)
        });
        std::thread::sleep(later);
        let mut ids: Vec<u64> = (0..3).map(|_| consumer.next(LONG).unwrap().id().0).collect();
        ids.push(consumer.next(Timeout::Default).unwrap().id().0);
        assert_eq!((ids, writing.join().unwrap()), (vec![0, 1, 2, 3], 3));
    });
}

/// Rules: DH-017.
#[test]
fn a_block_that_exists_is_left_alone_replaced_or_adopted() {
    let dir = place();
    let uuid = tidegate_hub::layout::BlockUuid::new([7; 16]).unwrap();
    let named =
        |if_exists| HubConfig { uuid: Some(uuid), unlink_on_close: false, if_exists, ..ring(dir.path(), 4) };
    let first = Producer::create(&named(IfExists::Adopt)).unwrap();
    first.send(b"a", crate::world::NOW).unwrap();
    for policy in [IfExists::Fail, IfExists::ReplaceIfDead, IfExists::Adopt] {
        assert!(Producer::create(&named(policy)).is_err(), "{policy:?}: it lives");
    }
    drop(first);
    assert!(Producer::create(&named(IfExists::Fail)).is_err());
    assert!(Producer::create(&named(IfExists::Adopt)).is_err(), "closed");
    let second = Producer::create(&named(IfExists::ReplaceIfDead)).unwrap();
    assert_eq!(second.next_id().0, 0);
}
