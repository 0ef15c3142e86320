//! Handles do not cross a fork.

use tidegate_hub::{config::Timeout, error::AcquireError, producer::Producer};

use crate::world::{NOW, attach, consumer_config, place, receive, ring, send};

/// Rules: DH-011.
#[test]
fn a_forked_child_is_refused_and_does_not_disturb_its_parent() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 4)).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    send(&producer, 0);
    let open = producer.write(NOW).unwrap();
    // SAFETY: the child uses its copy of this thread alone, and ends without running what the others left behind.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let fenced = Some(AcquireError::Fenced);
        let mut failed = 0;
        failed |= i32::from(producer.try_write().err() != fenced);
        failed |= i32::from(producer.acquire_write_batch(2, NOW).is_ok()) << 1;
        failed |= i32::from(consumer.next(Timeout::Infinite).err() != fenced) << 2;
        failed |= i32::from(consumer.seek_latest().err() != fenced) << 3;
        failed |= i32::from(open.commit().is_ok()) << 4;
        drop(consumer);
        drop(producer);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(failed) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made; `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "child: {status:#x}");
    open.commit().unwrap();
    assert_eq!(send(&producer, 2), 2);
    assert_eq!(receive(&mut consumer), Some(0));
    assert_eq!(consumer.backlog(), 2);
}
