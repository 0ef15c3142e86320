//! Guards and closures: what is committed, aborted, consumed and delivered again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidegate_hub::{
    config::{ConsumerConfig, HubConfig, OnReadError},
    consumer::{Consumer, ReadSlot},
    core::codec::SlotId,
    error::{AcquireError, Holder, TxError, WriteError},
    inspect::Inspector,
    producer::{Producer, WriteBatch, WriteSlot},
};

use crate::world::{LONG, NOW, attach, consumer_config, number, place, receive, ring, send, send_all};

fn pair(dir: &std::path::Path) -> (Producer, Consumer) {
    let producer = Producer::create(&ring(dir, 4)).unwrap();
    let consumer = attach(&producer, consumer_config(dir));
    (producer, consumer)
}

/// Rules: DH-127, DH-132, DH-066, DH-067, X-03, X-06.
#[test]
fn a_slot_is_visible_exactly_when_it_was_committed() {
    let dir = place();
    let (producer, mut consumer) = pair(dir.path());
    let mut slot = producer.write(NOW).unwrap();
    slot.write_at(1, b"abc").unwrap();
    assert!(slot.write_at(62, b"abc").is_err());
    assert!(matches!(slot.set_len(65), Err(WriteError::TooLong { len: 65, available: 64 })));
    slot.set_user_flags(9);
    assert_eq!(consumer.try_next().err(), Some(AcquireError::QueueEmpty));
    slot.commit().unwrap();
    let read = consumer.try_next().unwrap();
    assert_eq!((read.len(), read.user_flags(), &read.to_vec()[..4]), (64, 9, &b"\0abc"[..]));
    let mut bytes = [0; 2];
    read.read_at(2, &mut bytes).unwrap();
    assert_eq!(&bytes, b"bc");
    assert!(read.read_at(63, &mut bytes).is_err());
    drop(read);
    producer.write(NOW).unwrap().abort();
    drop(producer.write(NOW).unwrap());
    let mut empty = producer.write(NOW).unwrap();
    empty.set_len(0).unwrap();
    assert_eq!(empty.commit(), Ok(SlotId(3)));
    let read = consumer.try_next().unwrap();
    assert_eq!((read.id(), read.len()), (SlotId(3), 0), "holes are stepped over, an empty value is one");
}

/// Rules: DH-105, DH-133, DH-104, C-11, X-04.
#[test]
fn a_value_is_consumed_unless_reading_it_failed() {
    let dir = place();
    let (producer, mut consumer) = pair(dir.path());
    send_all(&producer, 0..3);
    consumer.try_next().unwrap().nack();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _slot = consumer.try_next().unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(unwound.is_err());
    assert!(matches!(consumer.with_next(NOW, |_| Err::<(), _>("no")), Err(TxError::User("no"))));
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        consumer.with_next::<(), ()>(NOW, |_| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(unwound.is_err());
    assert_eq!(consumer.with_next::<_, ()>(NOW, |slot| Ok(number(&slot.to_vec()))).unwrap(), 0);
    assert_eq!(receive(&mut consumer), Some(1));
    consumer.detach().unwrap();

    let advancing = ConsumerConfig { on_read_error: OnReadError::Advance, ..consumer_config(dir.path()) };
    let mut consumer = attach(&producer, advancing);
    assert!(matches!(consumer.with_next(NOW, |_| Err::<(), _>("no")), Err(TxError::User("no"))));
    assert_eq!(receive(&mut consumer), None);
}

/// Rules: DH-125, DH-126, DH-066, X-01, X-02, X-05.
#[test]
fn a_write_closure_commits_on_success_alone() {
    let dir = place();
    let (producer, mut consumer) = pair(dir.path());
    let written = producer.with_write::<_, ()>(NOW, |slot| {
        slot.put_bytes(&5u64.to_le_bytes()).map_err(drop)?;
        Ok(slot.id())
    });
    assert_eq!(written.unwrap(), SlotId(0));
    let too_long = producer.with_write(NOW, |slot| {
        slot.put_bytes(&[0; 65])?;
        Ok(())
    });
    assert!(matches!(too_long, Err(TxError::User(WriteError::TooLong { len: 65, available: 64 }))));
    let aborted = producer.with_write::<_, ()>(NOW, |slot| {
        slot.abort();
        Ok(4)
    });
    assert_eq!(aborted.unwrap(), 4);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        producer.with_write::<(), ()>(NOW, |_| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(unwound.is_err());
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(5), None));
    assert_eq!(consumer.position(), SlotId(4), "three holes");
    send_all(&producer, 4..8);
    let mut called = false;
    let full = producer.with_write::<_, ()>(NOW, |_| {
        called = true;
        Ok(())
    });
    assert!(matches!(full, Err(TxError::Acquire(AcquireError::QueueFull))) && !called);
}

/// Rules: DH-129, DH-056, N-25.
#[test]
fn transactions_nest_until_a_thread_would_wait_for_itself() {
    let dir = place();
    let (producer, mut consumer) = pair(dir.path());
    let slots: Vec<WriteSlot<'_>> = (0..4).map(|_| producer.write(NOW).unwrap()).collect();
    assert_eq!(producer.write(LONG).err(), Some(AcquireError::Locked { holder: Holder::Caller }));
    drop(slots);
    assert_eq!(receive(&mut consumer), None, "four holes");
    let nested = producer.with_write::<_, TxError<()>>(NOW, |outer| {
        let inner = producer.with_write(NOW, |inner| Ok(inner.id()))?;
        Ok((outer.id(), inner))
    });
    assert_eq!(nested.unwrap(), (SlotId(4), SlotId(5)));

    let second = Producer::create(&ring(dir.path(), 4)).unwrap();
    let mut other = attach(&second, consumer_config(dir.path()));
    let inner_fails = producer.with_write::<_, ()>(NOW, |outer| {
        let inner = second.with_write(NOW, |_| Err::<(), _>("no"));
        assert!(matches!(inner, Err(TxError::User("no"))));
        Ok(outer.id())
    });
    assert_eq!(inner_fails.unwrap(), SlotId(6), "of two blocks each goes its own way");
    let outer_fails = producer.with_write(NOW, |_| {
        second.with_write(NOW, |inner| inner.put_bytes(&[7; 8])).map_err(drop)?;
        Err::<(), _>(())
    });
    assert!(outer_fails.is_err());
    assert_eq!(other.try_next().unwrap().to_vec(), [7; 8]);
    assert_eq!(other.try_next().err(), Some(AcquireError::QueueEmpty));
}

/// Rules: DH-129.
#[test]
fn a_value_can_be_asked_for_by_its_id() {
    let dir = place();
    let (producer, mut consumer) = pair(dir.path());
    send(&producer, 0);
    drop(producer.try_write().unwrap());
    send(&producer, 2);
    let mut read = |id| consumer.with_read::<_, ()>(SlotId(id), NOW, |slot| Ok(number(&slot.to_vec())));
    assert_eq!(read(2).unwrap(), 2);
    assert!(matches!(read(1), Err(TxError::Acquire(AcquireError::QueueEmpty))), "a hole");
    assert_eq!(receive(&mut consumer), Some(2), "what comes behind it is next");
}

/// Rules: DH-118, DH-239, C-12.
#[test]
fn leaked_guards_do_no_harm() {
    let dir = place();
    let (producer, mut consumer) = pair(dir.path());
    send(&producer, 0);
    std::mem::forget(producer.write(NOW).unwrap());
    send(&producer, 2);
    assert_eq!(receive(&mut consumer), Some(0));
    assert_eq!(consumer.try_next().err(), Some(AcquireError::QueueEmpty), "nothing behind the open slot");
    producer.close().unwrap();
    std::mem::forget(consumer.try_next().unwrap());
    let readers = Inspector::of(consumer.block().clone()).unwrap().show_readers(None);
    let held: Vec<_> = readers.iter().filter(|slot| !slot.readers.is_empty()).collect();
    assert_eq!(
        (held.len(), held[0].id, held[0].readers[0].row),
        (1, Some(2), consumer.row()),
        "it stays held"
    );
    assert_eq!(consumer.try_next().err(), Some(AcquireError::Closed { handed_over: false }));
    consumer.detach().unwrap();
}

/// Rules: DH-128, N-25.
#[test]
fn a_slot_is_cleared_before_it_is_written_if_that_is_wanted() {
    let dir = place();
    let clearing = HubConfig { zero_on_acquire: true, ..ring(dir.path(), 2) };
    let producer = Producer::create(&clearing).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    for _ in 0..2 {
        producer.send(&[0xAB; 64], NOW).unwrap();
        drop(consumer.try_next().unwrap());
    }
    producer.write(NOW).unwrap().commit().unwrap();
    assert_eq!(consumer.try_next().unwrap().to_vec(), [0; 64]);
    producer.acquire_write_batch(1, NOW).unwrap().commit().unwrap();
    assert_eq!(consumer.try_next().unwrap().to_vec(), [0; 64]);

    let (producer, mut consumer) = pair(dir.path());
    for _ in 0..4 {
        producer.send(&[0xAB; 64], NOW).unwrap();
        drop(consumer.try_next().unwrap());
    }
    producer.write(NOW).unwrap().commit().unwrap();
    assert_eq!(consumer.try_next().unwrap().to_vec(), [0xAB; 64], "what it held before");
}

/// What must not compile, with what the compiler says about it.
///
/// Rules: DH-114, DH-117, DH-132, X-03, N-23.
#[test]
fn guards_do_not_outlive_what_they_guard() {
    trybuild::TestCases::new().compile_fail("tests/channel/compile_fail/*.rs");
}

/// Rules: DH-134, N-23.
#[test]
fn guards_can_go_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<WriteSlot<'_>>();
    is_send::<WriteBatch<'_>>();
    is_send::<ReadSlot<'_>>();
    is_sync::<ReadSlot<'_>>();
    is_send::<Consumer>();
    is_sync::<Producer>();

    let dir = place();
    let (producer, mut consumer) = pair(dir.path());
    std::thread::scope(|scope| {
        let slots: Vec<_> = (0..3).map(|_| producer.write(NOW).unwrap()).collect();
        for mut slot in slots.into_iter().rev() {
            scope.spawn(move || {
                let id = slot.id().0;
                slot.put_bytes(&id.to_le_bytes()).unwrap();
                slot.commit().unwrap();
            });
        }
    });
    assert_eq!((0..3).map(|_| receive(&mut consumer)).collect::<Vec<_>>(), [0, 1, 2].map(Some));
}
