//! What handles tell about their block, and handlers that a thread feeds (9.3).

use std::{
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread,
};

use tidegate_hub::{
    cancel,
    config::{ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    core::{Start, error::AcquireError as Error, repair::ResetRefusal, writer::SlotResetError},
    identity::Liveness,
    inspect::Inspector,
    layout::SyncPolicy,
    producer::Producer,
};

use crate::{
    children::{Child, PATIENCE, linger, role, say},
    world::{LONG, attach, consumer_config, number, place, receive, ring, send, send_all},
};

fn every(dir: &std::path::Path) -> HubConfig {
    HubConfig { sync: SyncPolicy::AllReaders, ..ring(dir, 8) }
}

/// Every consumer is shown with who it is and what it holds back; a dead one is pointed out.
///
/// Rules: DH-235.
#[test]
fn a_producer_knows_its_consumers() {
    if let Some(task) = role("reader") {
        let config = ConsumerConfig { uid: "CONS-child".to_owned(), ..consumer_config(&task.dir) };
        let consumer = Consumer::attach(&task.block, &config).unwrap();
        say(format!("row {}", consumer.row()));
        linger();
        return;
    }
    let dir = place();
    let producer = Producer::create(&every(dir.path())).unwrap();
    let mut child =
        Child::start("handles::a_producer_knows_its_consumers", "reader", dir.path(), &producer.name());
    let row: u32 = child.wait_for("row").parse().unwrap();
    send_all(&producer, 0..3);
    let mut shown = Vec::new();
    producer.for_each_consumer(|consumer| shown.push(consumer.clone())).unwrap();
    let [consumer] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!((consumer.row, consumer.uid.as_str(), consumer.lag), (row, "CONS-child", 3));
    assert_eq!(consumer.liveness, Liveness::Alive);
    assert!(producer.check_consumer_health().unwrap().is_empty());
    // The process's own thread would remove it; an inspector of the same words shows what it sees before.
    child.kill();
    let start = std::time::Instant::now();
    while producer.consumer_count() > 0 {
        assert!(start.elapsed() < PATIENCE);
        thread::yield_now();
    }
    producer.for_each_consumer(|consumer| panic!("{consumer:?}")).unwrap();
}

/// Numbers are read and reset through the handles, and times are noted where the sheet says.
///
/// Rules: DH-245, DH-246.
#[test]
fn handles_tell_numbers_and_times() {
    let dir = place();
    let producer = Producer::create(&every(dir.path())).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    let before = producer.metrics().unwrap();
    assert_eq!((before.last_write_time, before.last_read_time), (0, 0));
    send_all(&producer, 0..2);
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(0), Some(1)));
    let after = consumer.metrics().unwrap();
    assert_eq!((after.total_writes_committed, after.total_reads_completed), (2, 2));
    assert!(after.last_write_time > 0 && after.last_read_time > 0);
    assert!(after.last_read_time >= after.last_write_time);
    assert_eq!((consumer.slots_consumed(), consumer.bytes_consumed()), (2, 16));
    producer.reset_metrics().unwrap();
    let reset = producer.metrics().unwrap();
    assert_eq!((reset.total_writes_committed, reset.last_write_time), (0, after.last_write_time));
    let name = producer.name();
    let kept = HubConfig { unlink_on_close: false, ..every(dir.path()) };
    drop(producer);
    let kept_producer = Producer::create(&kept).unwrap();
    let kept_name = kept_producer.name();
    assert_ne!(name, kept_name);
    let block = kept_producer.block().clone();
    kept_producer.close().unwrap();
    let control = block.inspector_views().unwrap().control;
    let closed =
        control.row().u64::<{ std::mem::offset_of!(tidegate_hub::layout::pages::ControlPage, closed_ns) }>();
    assert!(closed.load(tidegate_shm::sync::Ordering::Relaxed) > 0);
}

/// A slot that this process is writing is its guard's; one that is in order is left alone.
///
/// Rules: DH-256.
#[test]
fn slots_in_use_are_not_reset() {
    let dir = place();
    let producer = Producer::create(&every(dir.path())).unwrap();
    send(&producer, 0);
    let open = producer.write(LONG).unwrap();
    let state = |index| producer.query_slot_state(index).unwrap().map(|slot| slot.slot_id);
    assert_eq!((state(0), state(1), state(8)), (Some(Some(0)), Some(Some(1)), None));
    let refused = |index| producer.force_reset_slot(index).unwrap_err();
    assert_eq!(refused(0), SlotResetError::Refused(ResetRefusal::NotStuck));
    assert!(matches!(refused(1), SlotResetError::Refused(ResetRefusal::OwnerAlive { .. })));
    assert_eq!(producer.recover_stuck_slots().unwrap(), 0);
    open.commit().unwrap();
    assert_eq!(send(&producer, 2), 2);
}

/// A handler that fails or panics spoils its own slot only.
///
/// Rules: DH-136.
#[test]
fn handlers_go_on_after_failures() {
    let dir = place();
    let producer = Arc::new(Producer::create(&every(dir.path())).unwrap());
    let consumer =
        attach(&producer, ConsumerConfig { start: Some(Start::Oldest), ..consumer_config(dir.path()) });
    let (sender, read) = channel();
    let reader = consumer.run(tell(sender)).unwrap();
    let mut turn = 0_u64;
    let writer = producer
        .run(move |slot| {
            turn += 1;
            match turn {
                1 => Err("no"),
                2 => panic!("on purpose"),
                _ => slot.put_bytes(&turn.to_le_bytes()).map_err(|_| "long"),
            }
        })
        .unwrap();
    let first: Vec<u64> = (0..10).map(|_| read.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(first, (3..13).collect::<Vec<u64>>(), "each once, in spite of a failure of the reader");
    let producer = writer.stop().unwrap();
    let consumer = reader.stop().unwrap();
    assert_eq!(consumer.row(), 0);
    assert!(Arc::into_inner(producer).is_some(), "the thread is gone");
}

/// Fails at the fifth slot once, which comes again.
fn tell(to: Sender<u64>) -> impl FnMut(&tidegate_hub::consumer::ReadSlot<'_>) -> Result<(), String> {
    let mut calls = 0;
    move |slot| {
        calls += 1;
        if calls == 5 {
            return Err("once".to_owned());
        }
        // The test may have heard enough.
        let _ = to.send(number(&slot.to_vec()));
        Ok(())
    }
}

/// Waits without end are ended by one call, and later calls wait again.
///
/// Rules: DH-097.
#[test]
fn all_waits_of_a_process_are_cancelled() {
    if let Some(task) = role("waiter") {
        let config = HubConfig { sync: SyncPolicy::AllReaders, ..ring(&task.dir, 2) };
        let producer = Producer::create(&config).unwrap();
        let mut consumer = attach(&producer, consumer_config(&task.dir));
        let full = || send_all(&producer, 0..2);
        thread::scope(|scope| {
            let reader = scope.spawn(|| consumer.next(Timeout::Infinite).map(drop).unwrap_err());
            until_asleep(&producer);
            cancel::cancel_waits();
            assert_eq!(reader.join().unwrap(), Error::Timeout);
        });
        cancel::allow_waits();
        full();
        let inspector = Inspector::of(producer.block().clone()).unwrap();
        let before = inspector.metrics().total_writes_attempted;
        thread::scope(|scope| {
            let writer = scope.spawn(|| producer.write(Timeout::Infinite).map(drop).unwrap_err());
            while inspector.metrics().total_writes_attempted == before {
                thread::yield_now();
            }
            cancel::cancel_waits();
            assert_eq!(writer.join().unwrap(), Error::Timeout);
        });
        cancel::allow_waits();
        assert_eq!(receive(&mut consumer), Some(0));
        say("done");
        return;
    }
    let dir = place();
    let mut child = Child::start("handles::all_waits_of_a_process_are_cancelled", "waiter", dir.path(), "");
    child.wait_for("done");
    child.succeed();
}

/// Waits until the consumer sleeps in the kernel.
fn until_asleep(producer: &Producer) {
    let sync = producer.block().inspector_views().unwrap().sync;
    let waiters =
        sync.row().u32::<{ std::mem::offset_of!(tidegate_hub::layout::pages::SyncPage, data_waiters) }>();
    while waiters.load(tidegate_shm::sync::Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
}
