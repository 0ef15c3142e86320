//! The core over real blocks: words, counters, audit entries, places held by this process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{mem::offset_of, path::Path, sync::Arc};

use tempfile::TempDir;
use tidegate_hub::{
    attachment::{audit::Operation, consumer_core, writer_core},
    block::{
        AttachOptions, Block, CreateOptions, Role, attach, create,
        registry::{Place, is_held},
    },
    core::{
        Start, TakeOver,
        codec::{Row, SlotIndex},
        config::{Deadline, Timing, WaitStrategy},
        error::{AcquireError, RegistryError},
        host::{Counter, Counters, ErrorKind},
        reader::{Reader, Release},
        words::{Row64, RowNames, Slot64, SlotWords, Word, Words},
        writer::CommitInfo,
    },
    layout::{
        BlockSpec, ChannelName, DigestAlg, Orphan,
        pages::{AuditEntry, MetricsPage, SyncPage},
    },
};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{
        AtomicBool,
        Ordering::{Acquire, Relaxed},
    },
};

const NAMES: RowNames = RowNames { uid: [b'u'; 40], name: [b'n'; 32], pid_namespace: 3 };
const NOW: Deadline = Deadline::Immediate;

fn spec() -> BlockSpec {
    BlockSpec {
        digest_alg: DigestAlg::None,
        max_consumers: 2,
        first_slot_id: 100,
        ..BlockSpec::ring(ChannelName::new("camera").unwrap(), 4, 64)
    }
}

fn new_block(dir: &Path) -> Arc<Block> {
    let options = CreateOptions { dir: dir.to_owned(), ..CreateOptions::default() };
    Arc::new(create(&spec(), &options).unwrap())
}

fn attached(block: &Block, dir: &TempDir, role: Role) -> Arc<Block> {
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(role) };
    Arc::new(attach(&block.descriptor().file_name(), &options).unwrap())
}

macro_rules! metric {
    ($block:expr, $field:ident) => {{
        let views = $block.inspector_views().unwrap();
        views.metrics.row().u64::<{ offset_of!(MetricsPage, $field) }>().load(Relaxed)
    }};
}

/// Rules: DH-242.
#[test]
fn a_value_goes_from_writer_to_reader_and_both_are_counted() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let block = new_block(dir.path());
    let writer = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap().created().unwrap();
    let seen = attached(&block, &dir, Role::Consumer);
    let core = consumer_core(&seen, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let mut reader = Reader::join(core, Start::Latest, &NAMES, 1, NOW).unwrap();
    assert_eq!(reader.acquire_ordered(NOW), Err(AcquireError::QueueEmpty));

    let id = writer.allocate(1, NOW).unwrap().first;
    assert_eq!(id.0, 100);
    let slot = writer.core().config().index(id);
    block.slot_mut(slot.0).unwrap().write_at(0, b"hello").unwrap();
    writer.commit(id, CommitInfo { len: 5, user_flags: 7, slot_flags: 0 }).unwrap();

    let acquired = reader.acquire_ordered(NOW).unwrap();
    assert_eq!((acquired.id, acquired.len, acquired.user_flags), (id, 5, 7));
    let mut bytes = [0; 5];
    seen.slot(slot.0).unwrap().read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    reader.release(&acquired, Release::Consumed).unwrap();

    let views = seen.inspector_views().unwrap();
    let row = views.consumers.row(reader.ticket().row.0).unwrap();
    assert_eq!(row.bytes::<0x80, 40>().to_vec(), [b'u'; 40]);
    assert_eq!(row.bytes::<0xA8, 32>().to_vec(), [b'n'; 32]);
    assert_eq!(row.u64::<0xC8>().load(Relaxed), 3);
    assert_eq!((row.u64::<0x40>().load(Relaxed), row.u64::<0x48>().load(Relaxed)), (1, 5));
    assert_eq!((metric!(seen, total_slots_written), metric!(seen, total_bytes_written)), (1, 5));
    assert_eq!((metric!(seen, writes_attempted), metric!(seen, consumers_joined)), (1, 1));
    reader.leave(NOW).unwrap();
    assert_eq!((metric!(seen, consumers_left), metric!(seen, total_bytes_read_retired)), (1, 5));
}

/// Rules: DH-242, DH-247.
#[test]
fn errors_are_recorded_even_when_performance_is_not_measured() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let block = new_block(dir.path());
    let core = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let host = core.host();
    host.set_measuring(false);
    host.count(Counter::SlotsWritten, 1);
    host.count(Counter::LockTakeovers, 2);
    host.error(ErrorKind::QueueFull);
    host.error(ErrorKind::Fenced);
    assert_eq!((metric!(block, total_slots_written), metric!(block, lock_takeovers)), (0, 2));
    assert!(metric!(block, last_error_timestamp_ns) > 0);
    let page = block.inspector_views().unwrap().metrics;
    assert_eq!(page.row().u32::<{ offset_of!(MetricsPage, last_error_code) }>().load(Relaxed), 207);
    assert_eq!(page.row().u32::<{ offset_of!(MetricsPage, error_sequence) }>().load(Relaxed), 2);
    host.set_measuring(true);
    host.count(Counter::SlotsWritten, 1);
    assert_eq!(metric!(block, total_slots_written), 1);
    for value in [3, 2, 5, 4] {
        host.peak(Counter::ReaderPeak, value);
    }
    assert_eq!(metric!(block, reader_peak_count), 5);
}

#[test]
fn rows_and_slots_that_do_not_exist_lead_nowhere() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let block = new_block(dir.path());
    let core = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let before = std::fs::read(block.path()).unwrap();
    for number in [4, 5, 1 << 20, u32::MAX] {
        Word::store(core.words().row64(Row(number), Row64::Cursor), 7, Relaxed);
        Word::store(core.words().slot(SlotIndex(number)).word64(Slot64::UserFlags), 7, Relaxed);
        core.words().write_names(Row(number), &NAMES);
    }
    assert!(std::fs::read(block.path()).unwrap() == before, "nothing of the block was touched");
}

/// What a program finds of the one that it replaced by `exec`: its own key at places that it does not hold.
///
/// Rules: DH-038, DH-083.
#[test]
fn the_own_key_at_places_that_this_process_does_not_hold_is_a_leftover() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let block = new_block(dir.path());
    let seen = attached(&block, &dir, Role::Consumer);
    let own = seen.own_key().word();
    let views = seen.consumer_views().unwrap();
    views.sync.row().u64::<0>().store(own, Relaxed);
    let row = views.consumers.row(1).unwrap();
    row.u64::<0x08>().store(own, Relaxed);
    row.u64::<0x00>().store(5 << 8 | 2, Relaxed);
    views.sync.row().u32::<0x40>().store(2, Relaxed);

    let core = consumer_core(&seen, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let reader = Reader::join(core, Start::Latest, &NAMES, 1, NOW).unwrap();
    assert_eq!(views.sync.row().u64::<0>().load(Relaxed), 0, "the lock was taken over and opened");
    assert_eq!((metric!(seen, lock_takeovers), metric!(seen, dead_consumers_reaped)), (1, 1));
    assert_eq!(row.u64::<0x00>().load(Relaxed), 5 << 8, "the row is free");
    let entries = seen.region().table::<64>(seen.descriptor().geometry.sync().offset + 0x800, 32).unwrap();
    let operations: Vec<u32> = (0..2)
        .map(|index| entries.row(index).unwrap())
        .map(|row| row.u32::<{ offset_of!(AuditEntry, operation) }>().load(Relaxed))
        .collect();
    assert_eq!(operations, [Operation::LockTakeover as u32, Operation::Reap as u32]);
    assert_eq!(views.sync.row().u64::<{ offset_of!(SyncPage, audit_seq) }>().load(Relaxed), 2);

    let guard = seen.region().guard();
    let place = Place::Row(reader.ticket().row.0);
    assert!(is_held(&seen.descriptor().uuid, place, guard));
    assert!(!is_held(&seen.descriptor().uuid, Place::Maintenance, guard));
    let core = consumer_core(&seen, WaitStrategy::Hybrid, Timing::default()).unwrap();
    assert_eq!(core.reap(NOW), Ok(0), "the row of a living reader of this process stays");
    reader.leave(NOW).unwrap();
    assert!(!is_held(&seen.descriptor().uuid, place, guard));
}

/// Rules: DH-038, DH-044.
#[test]
fn a_writer_that_this_process_was_before_it_replaced_itself_is_adopted_from() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut block = Arc::into_inner(new_block(dir.path())).unwrap();
    let other = attach(
        &block.descriptor().file_name(),
        &AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Writer) },
    );
    assert_eq!(other.map_err(|error| error.code()).err(), Some(206), "one writer per process (DH-039)");
    block.release_writer();
    let again = attached(&block, &dir, Role::Writer);
    let core = writer_core(&again, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let adopted = core.adopt(TakeOver::IfDead, NOW).unwrap();
    assert_eq!(adopted.writer.allocate(1, NOW).unwrap().first.0, 100);
    assert_eq!(metric!(again, writer_adoptions), 1);
}

/// A hundred thousand consumers begin at the oldest id while the writer overwrites whatever it may.
/// Rules: DH-068, DH-059, C-04.
#[test]
fn what_is_promised_to_a_joiner_is_there() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = CreateOptions { dir: dir.path().to_owned(), ..CreateOptions::default() };
    let block = Arc::new(create(&BlockSpec { orphan: Orphan::Advance, ..spec() }, &options).unwrap());
    let writer = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap().created().unwrap();
    let seen = attached(&block, &dir, Role::Consumer);
    let done = AtomicBool::new(false);
    let soon = || Deadline::At(monotonic_now().saturating_add(Nanos::from_secs(30)));
    std::thread::scope(|scope| {
        let (done, writer) = (&done, &writer);
        let writing = scope.spawn(move || {
            while !done.load(Acquire) {
                let id = writer.allocate(1, soon()).unwrap().first;
                let slot = writer.core().config().index(id);
                block.slot_mut(slot.0).unwrap().write_at(0, &id.0.to_le_bytes()).unwrap();
                writer.commit(id, CommitInfo { len: 8, user_flags: 0, slot_flags: 0 }).unwrap();
            }
            writer.allocate(1, soon()).unwrap().first.0
        });
        let mut overtaken = 0;
        let mut last = 0;
        let written = || seen.inspector_views().unwrap().control.row().u64::<0x40>().load(Acquire);
        for round in 0..100_000 {
            let core = consumer_core(&seen, WaitStrategy::Hybrid, Timing::default()).unwrap();
            let mut reader = Reader::join(core, Start::Oldest, &NAMES, 1, soon()).unwrap();
            let start = reader.ticket().start;
            for expected in start.0..start.0 + 2 {
                let acquired = reader.acquire_ordered(soon()).unwrap();
                let mut bytes = [0; 8];
                let slot = reader.core().config().index(acquired.id);
                seen.slot(slot.0).unwrap().read_at(0, &mut bytes).unwrap();
                assert_eq!(
                    (acquired.id.0, u64::from_le_bytes(bytes)),
                    (expected, expected),
                    "from {start:?}"
                );
                reader.release(&acquired, Release::Consumed).unwrap();
            }
            overtaken += u64::from(start.0 > last + 2);
            last = start.0;
            reader.leave(soon()).unwrap();
            // Now and then it is let past everything that there was.
            while round % 64 == 0 && written() < start.0 + 8 {
                std::hint::spin_loop();
            }
        }
        done.store(true, tidegate_shm::sync::Ordering::Release);
        assert!(writing.join().unwrap() > 200_000);
        assert!(overtaken > 1_000, "the writer was hardly ever ahead: {overtaken}");
    });
}

/// Rules: DH-044.
#[test]
fn only_the_recorded_writer_begins_without_adopting() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let block = new_block(dir.path());
    block.writer_views().unwrap().control.row().u64::<0x08>().store(7, Relaxed);
    let core = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap();
    assert!(matches!(core.created(), Err(RegistryError::WriterAlive { owner }) if owner.word() == 7));
}
