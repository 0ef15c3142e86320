//! Commit word, doorbell and mappings between threads of one process, where the sanitizers can see both sides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{sync::mpsc::channel, thread};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    commit::{CommitReader, CommitWriter},
    doorbell::{Ringer, Waiter},
    region::{CreateOptions, RegionDir, RegionMut, create_region},
    sync::Ordering,
};

const FRAMES: u64 = 20_000;

fn region(len: u64) -> RegionMut {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = RegionDir::open_base(place.path()).unwrap();
    create_region(&dir, "region", &CreateOptions::new(len)).unwrap()
}

fn patience() -> Nanos {
    monotonic_now().saturating_add(Nanos::from_secs(60))
}

/// The writer hands over each frame by doorbell and goes on without waiting; what the reader accepts is whole.
/// Rules: TP-002, TP-116.
#[test]
fn frames_pass_between_threads_without_a_race() {
    // Commit word, latest frame, bell, waiters, then the payload of 1 KiB.
    let region = region(2048);
    let (latest, bell, waiters, payload) = (8, 16, 20, 1024);
    let writing = region.clone();
    let writer = thread::spawn(move || {
        let commit = CommitWriter::new(writing.atomic_u64(0).unwrap());
        let ringer =
            Ringer::new(writing.atomic_u32(bell).unwrap(), writing.as_region().atomic_u32(waiters).unwrap());
        for frame in 1..=FRAMES {
            commit.begin(frame);
            writing.write(payload, &[frame as u8; 1024]).unwrap();
            commit.commit(frame);
            writing.atomic_u64(latest).unwrap().store(frame, Ordering::Relaxed);
            ringer.ring();
        }
    });
    let commit = CommitReader::new(region.as_region().atomic_u64(0).unwrap());
    let waiter =
        Waiter::new(region.as_region().atomic_u32(bell).unwrap(), region.atomic_u32(waiters).unwrap());
    let (mut seen, mut accepted) = (0, 0);
    while seen < FRAMES {
        let newest = || region.atomic_u64(latest).unwrap().load(Ordering::Relaxed);
        assert!(waiter.wait_until(patience(), || newest() > seen), "stuck at frame {seen}");
        seen = newest();
        let token = commit.begin();
        let mut bytes = [0; 1024];
        region.read(payload, &mut bytes).unwrap();
        if commit.validate(token) {
            assert_eq!(bytes, [token.seq() as u8; 1024]);
            accepted += 1;
        }
    }
    writer.join().unwrap();
    assert!(accepted > 0, "the last frame at least is not overwritten");
}

/// The last handle decides when the memory goes, on whichever thread it is dropped.
#[test]
fn a_mapping_lives_as_long_as_its_last_handle() {
    let region = region(4096);
    region.write(0, b"still here").unwrap();
    let (send, receive) = channel();
    let holder = thread::spawn(move || {
        let span: tidegate_shm::region::SharedSpan = receive.recv().unwrap();
        span.as_span().to_vec()
    });
    send.send(region.shared_span(0, 10).unwrap()).unwrap();
    drop(region);
    assert_eq!(holder.join().unwrap(), b"still here");
}
