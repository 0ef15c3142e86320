//! Files without a name until they are complete, and mappings with different rights that forks do not inherit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod children;
mod mounts;

use std::{
    fs,
    ops::Range,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::Command,
};

use children::{Child, role};
use mounts::with_mount;
use rustix::{fs::Mode, process::umask};
use tidegate_shm::{
    fork::{ForkGuard, Forked},
    region::{
        Access, AccessError, CreateError, CreateOptions, Draft, GuardedRegion, MapError, Region, RegionDir,
    },
    sync::Ordering,
};

const LEN: u64 = 5 * 4096;
/// The writable part of the consumers' mappings below.
const MIDDLE: Range<u64> = 4096..3 * 4096;

fn options(len: u64) -> CreateOptions {
    CreateOptions { mode: 0o600, prefault: false, ..CreateOptions::new(len) }
}

fn names_in(place: &Path) -> Vec<String> {
    fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A published file, as its maker and as somebody who may write the middle of it only.
fn both(place: &Path) -> (GuardedRegion, GuardedRegion) {
    let dir = RegionDir::open_base(place).unwrap();
    let draft = Draft::new(&dir, "block", &options(LEN)).unwrap();
    let writer = draft.map(0..LEN).unwrap();
    draft.publish().unwrap();
    let file = dir.open_file("block", Access::ReadWrite).unwrap();
    (writer, file.map_guarded(LEN, MIDDLE).unwrap())
}

/// Rules: DH-016, DH-018, DH-019.
#[test]
fn a_draft_has_no_name_until_it_is_published() {
    if let Some(place) = role("masked") {
        umask(Mode::from_raw_mode(0));
        let dir = RegionDir::open_base(&place).unwrap();
        let draft = Draft::new(&dir, "block", &options(LEN)).unwrap();
        assert!(draft.is_hidden() && draft.huge_page_size() == 0);
        draft.map(0..LEN).unwrap().span_mut(0, 5).unwrap().write_at(0, b"whole").unwrap();
        assert!(names_in(&place).is_empty(), "visible before it is complete");
        draft.publish().unwrap();
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    Child::start("a_draft_has_no_name_until_it_is_published", "masked", place.path()).succeed();
    assert_eq!(names_in(place.path()), ["block"]);
    let path = place.path().join("block");
    assert_eq!(&fs::read(&path).unwrap()[..5], b"whole");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

    let dir = RegionDir::open_base(place.path()).unwrap();
    drop(Draft::new(&dir, "other", &options(LEN)).unwrap());
    assert_eq!(names_in(place.path()), ["block"], "a draft that was given up leaves nothing");
}

/// Rules: DH-016, DH-017.
#[test]
fn publishing_never_replaces() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = RegionDir::open_base(place.path()).unwrap();
    let [first, second] = [1, 2].map(|_| Draft::new(&dir, "block", &options(LEN)).unwrap());
    first.publish().unwrap();
    let before = dir.stat("block").unwrap();
    assert!(matches!(second.publish(), Err(CreateError::AlreadyExists { .. })));
    assert_eq!(dir.stat("block").unwrap().ino, before.ino);

    let visible = Draft::new_visible(&dir, "visible", &options(LEN)).unwrap();
    assert!(!visible.is_hidden() && place.path().join("visible").exists());
    let refused = Draft::new_visible(&dir, "visible", &options(LEN));
    assert!(matches!(refused, Err(CreateError::AlreadyExists { .. })), "{refused:?}");
    drop(visible);
    assert!(!place.path().join("visible").exists(), "given up, so removed");
    Draft::new_visible(&dir, "visible", &options(LEN)).unwrap().publish().unwrap();
    assert!(place.path().join("visible").exists());
}

/// Rules: DH-018, L-22.
#[test]
fn a_full_file_system_is_found_when_the_draft_is_made() {
    with_mount("tmpfs", c"size=64k", |place| {
        let dir = RegionDir::open_base(place).unwrap();
        for hidden in [true, false] {
            let make = if hidden { Draft::new } else { Draft::new_visible };
            let refused = make(&dir, "large", &options(128 << 10));
            assert!(matches!(refused, Err(CreateError::NoSpace { needed: 131_072, .. })), "{refused:?}");
            assert!(names_in(place).is_empty());
        }
        let fits = Draft::new(&dir, "fits", &options(64 << 10)).unwrap();
        fits.map(0..64 << 10).unwrap().span_mut(0, 64 << 10).unwrap().fill(1);
    });
}

/// Rules: DH-010.
#[test]
fn only_the_writable_part_gives_views_that_write() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let (writer, consumer) = both(place.path());
    for offset in [0, 4088, 3 * 4096, LEN - 8] {
        let refused = Err(AccessError::ReadOnly { offset, len: 8, start: MIDDLE.start, end: MIDDLE.end });
        assert_eq!(consumer.atomic_u64_mut(offset).map(|_| ()), refused);
        assert_eq!(consumer.span_mut(offset, 8).map(|_| ()), refused);
        assert_eq!(consumer.shared_span_mut(offset, 8).map(|_| ()), refused);
        assert_eq!(consumer.table_mut::<8>(offset, 1).map(|_| ()), refused);
        assert_eq!(consumer.record_mut::<8>(offset).map(|_| ()), refused);
        assert_eq!(consumer.pieces_mut(offset, 1, 8, 64).map(|_| ()), refused);
        writer.atomic_u64_mut(offset).unwrap().store(offset, Ordering::Relaxed);
        assert_eq!(consumer.atomic_u64(offset).unwrap().load(Ordering::Relaxed), offset);
    }
    assert!(consumer.atomic_u32_mut(4092).is_err() && consumer.atomic_u32_mut(4096).is_ok());
    consumer.span_mut(MIDDLE.start, MIDDLE.end - MIDDLE.start).unwrap().fill(7);
    assert_eq!(writer.span(4096, 8192).unwrap().to_vec(), [7; 8192]);
    assert!(consumer.span_mut(4096, 8193).is_err() && consumer.span_mut(4096, u64::MAX).is_err());

    let dir = RegionDir::open_base(place.path()).unwrap();
    let open = |access| dir.open_file("block", access).unwrap();
    assert!(matches!(open(Access::ReadOnly).map_guarded(LEN, MIDDLE), Err(MapError::ReadOnlyFile)));
    assert!(open(Access::ReadOnly).map_guarded(LEN, 0..0).is_ok());
    let outside = open(Access::ReadWrite).map_guarded(LEN, 4096..LEN + 1);
    assert!(matches!(outside, Err(MapError::TooShort { .. })), "{outside:?}");
}

/// L-25: also code that does not ask this library cannot write the read-only part.
/// Rules: DH-010, L-25.
#[test]
fn a_stray_store_outside_of_the_writable_part_faults() {
    if let Some(place) = role("stray") {
        let (_, consumer) = both(&place);
        let at: u64 = std::env::var("STRAY_AT").unwrap().parse().unwrap();
        let address = consumer.span(at, 1).unwrap().as_ptr().cast_mut();
        // SAFETY: mapped for as long as `consumer`; whether it can be written is what is tested.
        unsafe { address.write_volatile(9) };
        return;
    }
    for (at, faults) in [(0, true), (4095, true), (4096, false), (12_287, false), (12_288, true)] {
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_stray_store_outside_of_the_writable_part_faults"])
            .envs([("TIDEGATE_TEST_ROLE", "stray"), ("STRAY_AT", &at.to_string())])
            .env("TIDEGATE_TEST_PLACE", place.path())
            .output()
            .unwrap()
            .status;
        assert_eq!(status.signal() == Some(libc::SIGSEGV), faults, "store at {at}: {status}");
        let written = fs::read(place.path().join("block")).unwrap()[at];
        assert_eq!(written == 9, !faults, "store at {at}");
    }
}

/// Rules: DH-011, L-26.
#[test]
fn a_forked_child_has_neither_the_mapping_nor_a_valid_handle() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let (writer, consumer) = both(place.path());
    let before = ForkGuard::new().unwrap();
    assert!(writer.check().is_ok() && consumer.check().is_ok());
    let address = format!("{:x}-", writer.span(0, 1).unwrap().as_ptr() as u64);
    assert!(fs::read_to_string("/proc/self/maps").unwrap().contains(&address));
    let in_child = || {
        if writer.check().is_ok() || consumer.check().is_ok() || before.check().is_ok() {
            return 1;
        }
        if fs::read_to_string("/proc/self/maps").unwrap().contains(&address) {
            return 2;
        }
        // Neither handle gives out what is not there, nor does one without the right to write.
        let refused = [
            writer.span(0, 1).err(),
            writer.span_mut(0, 1).err(),
            writer.record_mut::<64>(0).err(),
            consumer.atomic_u64_mut(MIDDLE.start).err(),
            consumer.atomic_u32(0).err(),
            Region::clone(&consumer).shared_span(0, 1).err(),
            Region::clone(&consumer).read(0, &mut [0]).err(),
        ];
        if refused != [Some(AccessError::Forked(Forked)); 7] {
            return 5;
        }
        // A guard made here is another process's, and dropping inherited handles unmaps nothing.
        let own = ForkGuard::new().unwrap();
        if own.check().is_err() || own.process() == before.process() {
            return 3;
        }
        let dir = RegionDir::open_base(place.path()).unwrap();
        let again = dir.open_file("block", Access::ReadOnly).unwrap().map_guarded(LEN, 0..0).unwrap();
        drop((writer.clone(), consumer.clone()));
        if again.check().is_err() || again.span(0, LEN).unwrap().to_vec() != vec![0; LEN as usize] {
            return 4;
        }
        0
    };
    // SAFETY: the child only runs `in_child`, whose allocations glibc keeps possible after a fork, and then ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(in_child)).unwrap_or(9);
        // SAFETY: ends the child without running anything of the test harness.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made; `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "child: {status:#x}");
    assert!(writer.check().is_ok() && before.check().is_ok(), "the parent is not concerned");
}

#[test]
fn pieces_lie_where_their_stride_says_and_nowhere_else() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let (writer, consumer) = both(place.path());
    let pieces = writer.pieces_mut(4096, 3, 50, 64).unwrap();
    let seen = consumer.pieces(4096, 3, 50, 64).unwrap();
    assert_eq!((pieces.count(), seen.count()), (3, 3));
    for index in 0..3 {
        pieces.get(index).unwrap().fill(index as u8 + 1);
        assert_eq!(seen.get(index).unwrap().to_vec(), [index as u8 + 1; 50]);
        let between = writer.span(4096 + u64::from(index) * 64 + 50, 14).unwrap();
        assert_eq!(between.to_vec(), [0; 14], "what lies between belongs to none");
    }
    for outside in [3, 4, u32::MAX] {
        assert!(pieces.get(outside).is_none() && seen.get(outside).is_none());
    }
    // The last one needs no more than its own bytes behind it.
    assert!(writer.pieces(LEN - 114, 2, 50, 64).is_ok() && writer.pieces(LEN - 113, 2, 50, 64).is_err());
    assert!(writer.pieces(0, u32::MAX, 1, 4096).is_err() && writer.pieces(0, 2, 1, u64::MAX).is_err());
    assert!(writer.pieces(0, 1, u64::MAX, 0).is_err() && writer.pieces(8, 2, u64::MAX, u64::MAX).is_err());
    assert!(writer.pieces(LEN, 0, 50, 64).unwrap().get(0).is_none());
    let end = MIDDLE.end - 114;
    assert!(consumer.pieces_mut(end, 2, 50, 64).is_ok() && consumer.pieces_mut(end + 1, 2, 50, 64).is_err());

    drop((writer, consumer, seen));
    assert_eq!(pieces.get(1).unwrap().to_vec(), [2; 50], "the pieces keep their mapping");
}

#[test]
fn tables_have_exactly_their_rows() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let (writer, consumer) = both(place.path());
    let table = writer.table_mut::<64>(4096, 3).unwrap();
    let seen = consumer.table::<64>(4096, 3).unwrap();
    assert_eq!((table.rows(), seen.rows()), (3, 3));
    for (index, row) in (0..).zip(table.iter()) {
        row.u64::<0x38>().store(index + 1, Ordering::Relaxed);
        row.u32::<0x04>().store(index as u32 + 10, Ordering::Relaxed);
        row.bytes::<0x10, 4>().copy_from(&[index as u8; 4]).unwrap();
    }
    for index in 0..3 {
        let row = seen.row(index).unwrap();
        assert_eq!(row.u64::<0x38>().load(Ordering::Relaxed), u64::from(index) + 1);
        assert_eq!(row.u32::<0x04>().load(Ordering::Relaxed), index + 10);
        assert_eq!(row.bytes::<0x10, 4>().to_vec(), [index as u8; 4]);
        let offset = 4096 + u64::from(index) * 64 + 0x38;
        assert_eq!(writer.atomic_u64(offset).unwrap().load(Ordering::Relaxed), u64::from(index) + 1);
    }
    for outside in [3, 4, u32::MAX] {
        assert!(table.row(outside).is_none() && seen.row(outside).is_none());
    }
    assert!(writer.table::<64>(LEN - 64, 1).is_ok() && writer.table::<64>(LEN - 64, 2).is_err());
    assert!(writer.table::<4096>(0, u32::MAX).is_err() && writer.table::<64>(u64::MAX - 7, 1).is_err());
    assert!(matches!(writer.record::<64>(4), Err(AccessError::Misaligned { offset: 4, align: 8 })));
    assert!(writer.table::<64>(LEN, 0).unwrap().row(0).is_none());

    let record = writer.record_mut::<64>(4096).unwrap();
    drop((writer, consumer, table, seen));
    assert_eq!(record.row().u64::<0x38>().swap(5, Ordering::Relaxed), 1, "the record keeps its mapping");
    assert_eq!(record.row().u64::<0x38>().fetch_and(4, Ordering::Relaxed), 5);
    assert_eq!(record.as_record().row().u64::<0x38>().load(Ordering::Relaxed), 4);
}

/// Rules: DH-027, DH-030.
#[test]
fn the_account_of_huge_pages_is_the_kernels() {
    const HUGE: u64 = 2 << 20;
    for (mount, expected) in [(c"size=16m,huge=always", 2 * HUGE), (c"size=16m,huge=never", 0)] {
        with_mount("tmpfs", mount, |place| {
            let dir = RegionDir::open_base(place).unwrap();
            assert_eq!(dir.huge_page_size().unwrap(), 0);
            let draft = Draft::new(&dir, "block", &options(2 * HUGE)).unwrap();
            let region = draft.map(0..2 * HUGE).unwrap();
            assert_eq!(region.advise_huge().unwrap(), expected, "{mount:?}");
        });
    }
}

/// Rules: DH-027, DH-028.
#[test]
fn hugetlbfs_files_are_mapped_in_huge_pages() {
    with_mount("hugetlbfs", c"", |place| {
        let dir = RegionDir::open_base(place).unwrap();
        let page = dir.huge_page_size().unwrap();
        assert_eq!(page, 2 << 20);
        let draft = Draft::new(&dir, "block", &options(page))
            .expect("this test needs one free huge page: echo 4 > /proc/sys/vm/nr_overcommit_hugepages");
        assert_eq!(draft.huge_page_size(), page);
        let region = draft.map(0..page).unwrap();
        region.span_mut(page - 8, 8).unwrap().fill(1);
        assert_eq!(region.huge_bytes().unwrap(), page);
        draft.publish().unwrap();
        let file = dir.open_file("block", Access::ReadWrite).unwrap();
        let consumer = file.map_guarded(page, 0x4000..0x8000).unwrap();
        consumer.span_mut(0x4000, 8).unwrap().fill(2);
        assert!(consumer.span_mut(0, 8).is_err(), "refused by the handle, although on the same page");
        assert_eq!(region.span(0x4000, 8).unwrap().to_vec(), [2; 8]);
    });
}
