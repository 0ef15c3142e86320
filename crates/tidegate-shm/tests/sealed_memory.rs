//! Memory that is passed by descriptor: what the kernel refuses to whoever received it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    fs::OpenOptions,
    os::fd::{AsFd, AsRawFd},
};

use rustix::{
    fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
};
use tidegate_shm::region::{MapError, SealError, SealedMemory};

const LEN: u64 = 4 * 4096;

fn received(memory: &SealedMemory) -> SealedMemory {
    SealedMemory::receive(memory.as_fd().try_clone_to_owned().unwrap()).unwrap()
}

/// Cases: CT-06.
/// Rules: VX-100, VX-101.
#[test]
fn who_received_it_can_read_and_not_write() {
    let memory = SealedMemory::create("test", LEN).unwrap();
    let own = memory.map(0..LEN).unwrap();
    memory.seal_writers().unwrap();
    let theirs = received(&memory);
    assert!(theirs.has_sealed_writers().unwrap());
    let view = theirs.map(0..0).unwrap();
    own.span_mut(100, 5).unwrap().write_at(0, b"after").unwrap();
    let mut bytes = [0; 5];
    view.read(100, &mut bytes).unwrap();
    assert_eq!(&bytes, b"after", "the maker's mapping is not the one that was received");

    assert!(matches!(theirs.map(0..LEN), Err(MapError::Kernel { .. })), "mapped for writing");
    assert_eq!(rustix::io::pwrite(&theirs, b"x", 0), Err(Errno::PERM));
    let path = format!("/proc/self/fd/{}", theirs.as_fd().as_raw_fd());
    let reopened = OpenOptions::new().read(true).write(true).open(path);
    let written = reopened.map_err(|_| Errno::PERM).and_then(|file| rustix::io::pwrite(&file, b"x", 0));
    assert_eq!(written, Err(Errno::PERM));
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(&theirs, hole, 0, 4096), Err(Errno::PERM));
    for len in [0, LEN - 1, LEN + 1] {
        assert_eq!(ftruncate(&theirs, len), Err(Errno::PERM), "{len}");
    }
    assert_eq!(fcntl_add_seals(&theirs, SealFlags::WRITE), Err(Errno::PERM));
}

/// Cases: CT-06.
/// Rules: VX-100.
#[test]
fn memory_that_is_handed_over_for_writing_keeps_its_size() {
    let memory = SealedMemory::create("test", LEN).unwrap();
    memory.seal_seals().unwrap();
    let theirs = received(&memory);
    assert!(!theirs.has_sealed_writers().unwrap());
    let view = memory.map(0..0).unwrap();
    theirs.map(0..LEN).unwrap().span_mut(LEN - 4, 4).unwrap().write_at(0, b"here").unwrap();
    let mut bytes = [0; 4];
    view.read(LEN - 4, &mut bytes).unwrap();
    assert_eq!(&bytes, b"here");
    for len in [0, LEN + 1] {
        assert_eq!(ftruncate(&theirs, len), Err(Errno::PERM), "{len}");
    }
    // A hole reads as zeros and is no fault.
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&theirs, hole, LEN - 4096, 4096).unwrap();
    view.read(LEN - 4, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4]);
}

/// Rules: VX-100.
#[test]
fn memory_whose_size_can_change_is_refused() {
    let partly = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    fcntl_add_seals(&partly, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    assert!(matches!(SealedMemory::receive(partly), Err(SealError::NotSealed { .. })), "seals can be added");
    let growing = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    fcntl_add_seals(&growing, SealFlags::SHRINK | SealFlags::SEAL).unwrap();
    assert!(matches!(SealedMemory::receive(growing), Err(SealError::NotSealed { .. })), "grows");
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(SealedMemory::receive(file.into()), Err(SealError::NotSealed { .. })), "a plain file");
}
