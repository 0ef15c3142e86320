//! Digests from end to end: what does not fit its digest is not handed out.

use std::{mem::offset_of, path::Path};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, CorruptionRecovery, HubConfig, VerifyAt},
    consumer::Consumer,
    error::{AcquireError, ReadBatchError, TxError, VerifyError, WriteError},
    integrity::{ChecksumError, ChecksumFault},
    layout::{ChannelName, DigestAlg, DigestPolicy, Secret, SyncPolicy, pages::MetricsPage},
    producer::Producer,
};
use tidegate_shm::sync::Ordering::Relaxed;

use crate::{
    children::{Child, role, say},
    world::{LONG, NOW, attach, config, consumer_config, number, place, receive, send, send_all},
};

fn enforced(dir: &Path) -> HubConfig {
    HubConfig {
        digest_alg: DigestAlg::Blake3,
        digest_policy: DigestPolicy::Enforced,
        ..config(dir, BufferPolicy::ring(8))
    }
}

fn authenticated(dir: &Path) -> HubConfig {
    config(dir, BufferPolicy::ring(8)).authenticated(secret())
}

fn secret() -> Secret {
    Secret::new(&[7; 32]).unwrap()
}

fn with_secret(held: u32) -> ConsumerConfig {
    ConsumerConfig { secret: Some(secret()), max_held: held, ..ConsumerConfig::default() }
}

/// Flips a bit of the payload of `id`, as no producer does.
fn flip(producer: &Producer, id: u64) {
    let slot = producer.block().slot_mut((id % 8) as u32).unwrap();
    let mut byte = [0];
    slot.read_at(3, &mut byte).unwrap();
    slot.write_at(3, &[byte[0] ^ 1]).unwrap();
}

fn counted<const AT: usize>(producer: &Producer) -> u64 {
    producer.block().inspector_views().unwrap().metrics.row().u64::<AT>().load(Relaxed)
}

fn refused(consumer: &Consumer) -> ChecksumError {
    consumer.last_checksum_error().unwrap()
}

/// A reader that is always at the newest slot of a writer at full speed never sees one whose digest is missing or late.
///
/// Rules: DH-153, G-04.
#[test]
fn a_digest_is_there_before_its_slot_is_visible() {
    if let Some(task) = role("writer") {
        let config = HubConfig { sync: SyncPolicy::LatestOnly, ..enforced(&task.dir) };
        let producer = Producer::create(&config).unwrap();
        say(format!("block {}", producer.name()));
        loop {
            // Ids are passed over where the reader is.
            let mut slot = producer.write(LONG).unwrap();
            let id = slot.id().0;
            slot.put_bytes(&id.to_le_bytes()).unwrap();
            slot.commit().unwrap();
        }
    }
    let dir = place();
    let test = "digests::a_digest_is_there_before_its_slot_is_visible";
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let mut consumer = Consumer::attach(&name, &consumer_config(dir.path())).unwrap();
    for _ in 0..20_000 {
        let slot = consumer.next(LONG).unwrap();
        assert_eq!(number(&slot.to_vec()), slot.id().0);
    }
    let metrics = consumer.metrics().unwrap();
    assert_eq!(metrics.checksum_errors, 0);
    writer.kill();
}

/// Rules: DH-111, DH-155, C-13, G-02.
#[test]
fn a_flipped_bit_is_not_delivered() {
    let dir = place();
    let producer = Producer::create(&enforced(dir.path())).unwrap();
    let mut consumer = attach(&producer, ConsumerConfig::default());
    send_all(&producer, 0..3);
    flip(&producer, 1);
    assert_eq!(receive(&mut consumer), Some(0));
    assert_eq!(consumer.next(NOW).map(drop), Err(AcquireError::InvalidState));
    assert_eq!(refused(&consumer), ChecksumError { id: 1, kind: ChecksumFault::Mismatch });
    assert_eq!(counted::<{ offset_of!(MetricsPage, checksum_failures) }>(&producer), 1);
    let result = consumer.with_next(NOW, |_| Ok::<_, ()>(()));
    assert!(matches!(result, Err(TxError::Checksum(ChecksumError { id: 1, .. }))), "{result:?}");
    // It stays the next one until it fits again.
    flip(&producer, 1);
    assert_eq!(receive(&mut consumer), Some(1));
    assert_eq!(receive(&mut consumer), Some(2));
}

/// Rules: DH-111, C-13.
#[test]
fn what_does_not_fit_is_skipped_on_request() {
    let dir = place();
    let producer = Producer::create(&enforced(dir.path())).unwrap();
    let skipping = ConsumerConfig { corruption: CorruptionRecovery::Skip, ..ConsumerConfig::default() };
    let mut consumer = attach(&producer, skipping);
    send_all(&producer, 0..6);
    flip(&producer, 0);
    flip(&producer, 3);
    flip(&producer, 4);
    assert_eq!(receive(&mut consumer), Some(1));
    assert_eq!(receive(&mut consumer), Some(2));
    consumer.set_corruption_recovery(CorruptionRecovery::Abort);
    assert_eq!(consumer.next(NOW).map(drop), Err(AcquireError::InvalidState));
    assert_eq!(consumer.skip_to_next_valid(NOW), Ok(2));
    assert_eq!(receive(&mut consumer), Some(5));
    assert_eq!(consumer.skip_to_next_valid(NOW), Err(AcquireError::QueueEmpty));
}

/// Rules: DH-111, C-13.
#[test]
fn a_repair_in_place_is_waited_for() {
    let dir = place();
    let producer = Producer::create(&enforced(dir.path())).unwrap();
    let waiting = ConsumerConfig { corruption: CorruptionRecovery::WaitRetry, ..ConsumerConfig::default() };
    let mut consumer = attach(&producer, waiting);
    send(&producer, 7);
    flip(&producer, 0);
    assert_eq!(consumer.next(NOW).map(drop), Err(AcquireError::InvalidState));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let tries = counted::<{ offset_of!(MetricsPage, digests_verified) }>(&producer);
            // The reader has looked at least once more.
            while counted::<{ offset_of!(MetricsPage, digests_verified) }>(&producer) == tries {
                std::thread::yield_now();
            }
            flip(&producer, 0);
        });
        assert_eq!(number(&consumer.next(LONG).unwrap().to_vec()), 7);
    });
}

/// Rules: DH-155.
#[test]
fn of_a_batch_that_does_not_fit_nothing_is_delivered() {
    let dir = place();
    let producer = Producer::create(&enforced(dir.path())).unwrap();
    let mut consumer = attach(&producer, ConsumerConfig { max_held: 4, ..ConsumerConfig::default() });
    let mut batch = producer.acquire_write_batch(3, LONG).unwrap();
    for index in 0..3 {
        batch.put_bytes(index, &(index as u64).to_le_bytes()).unwrap();
    }
    batch.commit().unwrap();
    flip(&producer, 2);
    let outcome = consumer.acquire_read_batch(3, NOW).map(drop);
    assert_eq!(outcome, Err(ReadBatchError::Acquire(AcquireError::InvalidState)));
    assert_eq!(refused(&consumer).id, 2);
    flip(&producer, 2);
    let batch = consumer.acquire_read_batch(3, NOW).unwrap();
    let numbers: Vec<_> = batch.iter().map(|(_, bytes)| number(&bytes.to_vec())).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

/// Rules: DH-153, DH-156.
#[test]
fn manual_digests_are_made_and_checked_when_asked_for() {
    let dir = place();
    let manual = HubConfig { digest_policy: DigestPolicy::Manual, ..enforced(dir.path()) };
    let producer = Producer::create(&manual).unwrap();
    let mut consumer = attach(&producer, ConsumerConfig { max_held: 4, ..ConsumerConfig::default() });
    send(&producer, 0);
    let mut slot = producer.write(LONG).unwrap();
    slot.put_bytes(&1_u64.to_le_bytes()).unwrap();
    slot.update_digest().unwrap();
    // Hashed anew by the commit.
    slot.write_at(0, &[9]).unwrap();
    slot.commit().unwrap();
    let mut batch = producer.acquire_write_batch(2, LONG).unwrap();
    batch.update_digest(0).unwrap();
    batch.put_bytes(0, &2_u64.to_le_bytes()).unwrap();
    batch.update_digest(0).unwrap();
    batch.commit().unwrap();

    let missing = VerifyError::Checksum(ChecksumError { id: 0, kind: ChecksumFault::Missing });
    assert_eq!(consumer.next(NOW).unwrap().verify(), Err(missing));
    let slot = consumer.next(NOW).unwrap();
    assert_eq!((number(&slot.to_vec()), slot.verify()), (9, Ok(())));
    flip(&producer, 1);
    assert!(matches!(slot.verify(), Err(VerifyError::Checksum(ChecksumError { id: 1, .. }))));
    drop(slot);
    let slot = consumer.next(NOW).unwrap();
    assert_eq!((number(&slot.to_vec()), slot.verify()), (2, Ok(())));
    drop(slot);
    assert!(matches!(consumer.next(NOW).unwrap().verify(), Err(VerifyError::Checksum(_))));

    let none =
        HubConfig { channel: ChannelName::new("none").unwrap(), ..config(dir.path(), BufferPolicy::ring(2)) };
    let producer = Producer::create(&none).unwrap();
    let mut consumer = attach(&producer, ConsumerConfig::default());
    let mut slot = producer.write(LONG).unwrap();
    assert_eq!(slot.update_digest(), Err(WriteError::DigestsDisabled));
    slot.commit().unwrap();
    assert_eq!(
        producer.acquire_write_batch(1, LONG).unwrap().update_digest(0),
        Err(WriteError::DigestsDisabled)
    );
    assert_eq!(consumer.next(NOW).unwrap().verify(), Err(VerifyError::DigestsDisabled));
}

/// A payload that changes while it is read is found out when it is given back, if that is wanted.
///
/// Rules: DH-155.
#[test]
fn what_changes_while_it_is_read_is_noticed() {
    let dir = place();
    let producer = Producer::create(&enforced(dir.path())).unwrap();
    for (at, noticed) in [(VerifyAt::Acquire, false), (VerifyAt::Release, true), (VerifyAt::Both, true)] {
        let mut consumer = attach(&producer, ConsumerConfig { verify_at: at, ..ConsumerConfig::default() });
        let id = send(&producer, 1);
        let slot = consumer.next(NOW).unwrap();
        flip(&producer, id);
        drop(slot);
        assert_eq!(consumer.last_checksum_error().map(|error| error.id), noticed.then_some(id), "{at:?}");
        consumer.detach().unwrap();
    }
}

/// Rules: DH-158, G-05.
#[test]
fn what_was_verified_cannot_be_changed_any_more() {
    let dir = place();
    let producer = Producer::create(&authenticated(dir.path())).unwrap();
    let mut consumer = attach(&producer, with_secret(4));
    send_all(&producer, 0..4);
    let slot = consumer.next(NOW).unwrap();
    flip(&producer, 0);
    assert_eq!(number(&slot.to_vec()), 0);
    assert_eq!(slot.read_into(&mut [0; 8]), 8);
    drop(slot);
    let mut batch = consumer.acquire_read_batch(3, NOW).unwrap();
    for id in 1..4 {
        flip(&producer, id);
    }
    let numbers = |batch: &tidegate_hub::consumer::ReadBatch<'_>| -> Vec<u64> {
        batch.iter().map(|(_, bytes)| number(&bytes.to_vec())).collect()
    };
    assert_eq!(numbers(&batch), [1, 2, 3]);
    batch.consume_first(1).unwrap();
    assert_eq!(numbers(&batch), [2, 3]);
    drop(batch);
    let id = send(&producer, 9);
    flip(&producer, id);
    assert_eq!(consumer.next(NOW).map(drop), Err(AcquireError::InvalidState));
    assert!(matches!(refused(&consumer), ChecksumError { kind: ChecksumFault::TagMismatch { .. }, .. }));
}
