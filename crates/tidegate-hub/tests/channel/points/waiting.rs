//! Writers that end between a change and its wake-up: whoever sleeps goes on within a slice (K-11, K-12, P-12).

use std::{mem::offset_of, sync::mpsc::channel, thread};

use tidegate_hub::{
    config::Timeout,
    layout::pages::{ConsumerRow, SyncPage},
    producer::Producer,
};
use tidegate_shm::sync::Ordering::Acquire;

use super::{KILLED, Use, check, join, write_one};
use crate::{
    children::{Child, PATIENCE, role, say},
    world::{LONG, place},
};

/// Nobody wakes the sleeper, nobody cleans up, and it has no deadline.
/// Rules: DH-076, P-12, K-11, K-12.
#[test]
fn a_sleeper_whose_waker_ended_goes_on() {
    let test = "points::waiting::a_sleeper_whose_waker_ended_goes_on";
    if let Some(task) = role("writer") {
        let producer = Producer::create(&Use::AllReaders.config(&task.dir)).unwrap();
        say(format!("block {}", producer.name()));
        (0..2).for_each(|id| assert_eq!(write_one(&producer, LONG), Ok(id)));
        let views = producer.block().inspector_views().unwrap();
        let row = views.consumers.row(0).unwrap();
        let is_asleep = || {
            row.u64::<{ offset_of!(ConsumerRow, cursor) }>().load(Acquire) == 2
                && views.sync.row().u32::<{ offset_of!(SyncPage, data_waiters) }>().load(Acquire) != 0
        };
        while !is_asleep() {
            std::thread::yield_now();
        }
        write_one(&producer, LONG).unwrap();
        return;
    }
    for step in ["w.prefix:3", "w.wake:3"] {
        for _ in 0..4 {
            let dir = place();
            let mut writer = Child::start_at(test, "writer", dir.path(), "", Some(step));
            let mut consumer = join(&writer.wait_for("block"), dir.path());
            let (tell, told) = channel();
            // Only a deadline would make it look once more by itself.
            thread::spawn(move || {
                while let Ok(slot) = consumer.next(Timeout::Infinite) {
                    if tell.send(check(&slot)).is_err() || slot.id().0 == 2 {
                        break;
                    }
                }
            });
            let ids: Vec<_> = (0..3).map(|_| told.recv_timeout(PATIENCE)).collect();
            assert_eq!(ids, [Ok(0), Ok(1), Ok(2)], "{step}");
            assert_eq!(writer.signal(), KILLED, "{step}");
        }
    }
}
