//! The block of the sheet's examples (19.2): eight slots that every consumer reads, its writer killed while it wrote id 1042,
//! two live consumers and a dead one.

use std::mem::offset_of;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate::hub::block::{AttachOptions, Block, CreateOptions, Role, attach, create};
use tidegate::hub::core::codec::{Claim, Ctl, Reg, RowState, SlotId, SlotState};
use tidegate::hub::identity::ProcessKey;
use tidegate::hub::layout::pages::{ConsumerRow, ControlPage, LockRecord, MetricsPage, SlotRecord, SyncPage};
use tidegate::hub::layout::{BlockSpec, BlockUuid, ChannelName, ZoneSpec};
use tidegate::shm::clock::monotonic_now;
use tidegate::shm::process::ProcessId;
use tidegate::shm::sync::Ordering::Relaxed;

use crate::support::{Outcome, place, run};

/// Held while the file of an example is made.
static MAKING: Mutex<()> = Mutex::new(());

/// Name of the file of the example.
pub(crate) const NAME: &str = "tidegate_sensor_temperature_9f3c21ab";

pub(crate) struct Example {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) block: Arc<Block>,
    /// Pids of the writer, which is dead, and of the consumers, of which the last one is dead.
    pub(crate) pids: [u32; 4],
    consumers: Vec<Child>,
}

/// A process that does nothing, and its key.
pub(crate) fn process() -> (Child, ProcessKey) {
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    let id = ProcessId::of(child.id()).unwrap();
    (child, ProcessKey::new(id.pid, id.start_time).unwrap())
}

/// The key of a process that is gone.
pub(crate) fn dead_process() -> ProcessKey {
    let (mut child, key) = process();
    child.kill().unwrap();
    child.wait().unwrap();
    key
}

pub(crate) fn spec() -> BlockSpec {
    BlockSpec {
        zones: vec![ZoneSpec {
            lock: Some(0),
            consumer_writable: true,
            ..ZoneSpec::untyped("metadata", 256)
        }],
        ..BlockSpec::ring(ChannelName::new("sensor_temperature").unwrap(), 8, 4096)
    }
}

impl Example {
    pub(crate) fn new() -> Self {
        let dir = place();
        let mut uuid = [7; 16];
        uuid[..4].copy_from_slice(&[0x9f, 0x3c, 0x21, 0xab]);
        let options = CreateOptions {
            dir: dir.path().to_owned(),
            uuid: Some(BlockUuid::new(uuid).unwrap()),
            ..CreateOptions::default()
        };
        // The one that makes it is not the writer of the example; a process is the writer of a block once only, and all
        // examples have the same uuid.
        let turn = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        drop(create(&spec(), &options).unwrap());
        drop(turn);
        let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
        let block = Arc::new(attach(NAME, &options).unwrap());
        let writer = dead_process();
        let ((first, first_key), (second, second_key)) = (process(), process());
        let gone = dead_process();
        let example = Self {
            dir,
            pids: [writer.pid(), first.id(), second.id(), gone.pid()],
            block,
            consumers: vec![first, second],
        };
        example.fill(writer);
        example.join(0, first_key, "CONS-ui-01", 1, 1041, Some(1041));
        example.join(1, second_key, "CONS-logger-01", 2, 1042, None);
        example.join(2, gone, "CONS-probe-02", 12, 1036, None);
        example.lock(gone);
        example
    }

    /// Runs `tidegate hub` with these words and this block's directory.
    pub(crate) fn hub(&self, words: &[&str]) -> Outcome {
        let dir = self.dir.path().to_str().unwrap();
        run(["hub"].into_iter().chain(words.iter().copied()).chain(["--dir", dir]))
    }

    /// The text with pids as in the sheet, and without what is said about heartbeats that grow old while a slow test runs.
    pub(crate) fn as_in_the_sheet(&self, text: &str) -> String {
        let timely = |line: &&str| !line.contains("lives, its last heartbeat");
        let mut text =
            text.lines().filter(timely).map(|line| line.replace(" STALE", "") + "\n").collect::<String>();
        for (pid, fixed) in self.pids.iter().zip(["12345", "23456", "34567", "45678"]) {
            text = text.replace(&pid.to_string(), fixed);
        }
        text
    }

    /// Makes the block healthy but for its history: a live writer, nothing open, nobody dead.
    pub(crate) fn heal(&self) -> Child {
        let (child, key) = process();
        let views = self.block.writer_views().unwrap();
        views.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().store(key.word(), Relaxed);
        views.control.row().u64::<{ offset_of!(ControlPage, writer_heartbeat_ns) }>().store(ago(0), Relaxed);
        let slot = views.slot_records.row(2).unwrap();
        slot.u64::<{ offset_of!(SlotRecord, ctl) }>().store(Ctl::new(1043, SlotState::Committed).0, Relaxed);
        slot.u64::<{ offset_of!(SlotRecord, owner) }>().store(0, Relaxed);
        views.control.row().u64::<{ offset_of!(ControlPage, commit_index) }>().store(1043, Relaxed);
        let row = views.consumers.row(2).unwrap();
        row.u64::<{ offset_of!(ConsumerRow, reg) }>().store(Reg::new(1, RowState::Free).0, Relaxed);
        row.u64::<{ offset_of!(ConsumerRow, owner) }>().store(0, Relaxed);
        views.sync.row().u32::<{ offset_of!(SyncPage, active_mask) }>().store(3, Relaxed);
        let lock = views.locks.row(8).unwrap();
        lock.u64::<{ offset_of!(LockRecord, owner) }>().store(0, Relaxed);
        lock.u32::<{ offset_of!(LockRecord, recursion) }>().store(0, Relaxed);
        child
    }

    fn fill(&self, writer: ProcessKey) {
        let views = self.block.writer_views().unwrap();
        let control = views.control.row();
        for (word, value) in [
            (control.u64::<{ offset_of!(ControlPage, writer_owner) }>(), writer.word()),
            (control.u64::<{ offset_of!(ControlPage, writer_epoch) }>(), 3),
            (control.u64::<{ offset_of!(ControlPage, writer_heartbeat_ns) }>(), ago(46)),
            (control.u64::<{ offset_of!(ControlPage, writer_attached_ns) }>(), ago(26)),
            (control.u64::<{ offset_of!(ControlPage, read_index) }>(), 1036),
            (control.u64::<{ offset_of!(ControlPage, floor_intent) }>(), 1036),
            (control.u64::<{ offset_of!(ControlPage, commit_index) }>(), 1042),
            (control.u64::<{ offset_of!(ControlPage, latest_tag) }>(), 1042),
            (control.u64::<{ offset_of!(ControlPage, write_index) }>(), 1043),
        ] {
            word.store(value, Relaxed);
        }
        for id in 1035..=1042_u64 {
            let open = id == 1042;
            let state = if open { SlotState::Writing } else { SlotState::Committed };
            let slot = views.slot_records.row((id % 8) as u32).unwrap();
            let age = if open { 45 } else { 1041 - id + 45 };
            slot.u64::<{ offset_of!(SlotRecord, ctl) }>().store(Ctl::new(id + 1, state).0, Relaxed);
            slot.u64::<{ offset_of!(SlotRecord, state_since_ns) }>().store(ago(age), Relaxed);
            slot.u64::<{ offset_of!(SlotRecord, commit_ns) }>().store(ago(age), Relaxed);
            slot.u64::<{ offset_of!(SlotRecord, payload_len) }>().store(4096, Relaxed);
            slot.u64::<{ offset_of!(SlotRecord, owner) }>()
                .store(if open { writer.word() } else { 0 }, Relaxed);
            slot.u32::<{ offset_of!(SlotRecord, owner_thread) }>().store(1, Relaxed);
        }
        let metrics = views.metrics.row();
        for (word, value) in [
            (metrics.u64::<{ offset_of!(MetricsPage, total_slots_written) }>(), 1_234_567),
            (metrics.u64::<{ offset_of!(MetricsPage, total_slots_read_retired) }>(), 1_234_560),
            (metrics.u64::<{ offset_of!(MetricsPage, total_bytes_written) }>(), 5_056_786_432),
            (metrics.u64::<{ offset_of!(MetricsPage, uptime_seconds) }>(), 95_400),
            (metrics.u64::<{ offset_of!(MetricsPage, writes_attempted) }>(), 1_234_609),
            (metrics.u64::<{ offset_of!(MetricsPage, writer_timeout_count) }>(), 42),
            (metrics.u64::<{ offset_of!(MetricsPage, writer_blocked_total_ns) }>(), 123_000_000),
            (metrics.u64::<{ offset_of!(MetricsPage, reader_race_detected) }>(), 5),
            (metrics.u64::<{ offset_of!(MetricsPage, reader_peak_count) }>(), 3),
        ] {
            word.store(value, Relaxed);
        }
        metrics.u32::<{ offset_of!(MetricsPage, last_error_code) }>().store(201, Relaxed);
        metrics.u32::<{ offset_of!(MetricsPage, error_sequence) }>().store(42, Relaxed);
    }

    fn join(&self, row: u32, key: ProcessKey, uid: &str, beat: u64, cursor: u64, claim: Option<u64>) {
        let views = self.block.writer_views().unwrap();
        let place = views.consumers.row(row).unwrap();
        let claim = claim.map_or(0, |id| Claim::new(SlotId(id), 1).0);
        for (word, value) in [
            (place.u64::<{ offset_of!(ConsumerRow, reg) }>(), Reg::new(1, RowState::Active).0),
            (place.u64::<{ offset_of!(ConsumerRow, owner) }>(), key.word()),
            (place.u64::<{ offset_of!(ConsumerRow, cursor) }>(), cursor),
            (place.u64::<{ offset_of!(ConsumerRow, claim) }>(), claim),
            (place.u64::<{ offset_of!(ConsumerRow, claim_since_ns) }>(), ago(3)),
            (place.u64::<{ offset_of!(ConsumerRow, last_heartbeat_ns) }>(), ago(beat)),
            (place.u64::<{ offset_of!(ConsumerRow, joined_ns) }>(), ago(20)),
            (place.u64::<{ offset_of!(ConsumerRow, start_id) }>(), 1000),
        ] {
            word.store(value, Relaxed);
        }
        place.bytes::<{ offset_of!(ConsumerRow, uid) }, 40>().write_at(0, uid.as_bytes()).unwrap();
        let mask = views.sync.row();
        mask.u32::<{ offset_of!(SyncPage, active_mask) }>().fetch_or(1 << row, Relaxed);
    }

    fn lock(&self, owner: ProcessKey) {
        let locks = self.block.writer_views().unwrap().locks;
        let lock = locks.row(8).unwrap();
        lock.u64::<{ offset_of!(LockRecord, owner) }>().store(owner.word(), Relaxed);
        lock.u64::<{ offset_of!(LockRecord, acquired_ns) }>().store(ago(12), Relaxed);
        lock.u32::<{ offset_of!(LockRecord, recursion) }>().store(1, Relaxed);
        lock.u32::<{ offset_of!(LockRecord, flags) }>().store(1, Relaxed);
        lock.bytes::<{ offset_of!(LockRecord, label) }, 16>().write_at(0, b"calib").unwrap();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        for consumer in &mut self.consumers {
            let _ = consumer.kill();
            let _ = consumer.wait();
        }
    }
}

/// The monotonic clock so many seconds ago.
pub(crate) fn ago(seconds: u64) -> u64 {
    monotonic_now().as_u64() - seconds * 1_000_000_000
}
