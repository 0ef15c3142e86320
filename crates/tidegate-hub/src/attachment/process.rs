//! The calling process as the core asks about it: time, sleep, who lives, and where counters and errors are kept.

use std::{
    cell::Cell,
    mem::offset_of,
    sync::{Arc, OnceLock},
    thread,
};

use tidegate_shm::{
    clock::{Nanos, monotonic_now, monotonic_roughly},
    region::{AccessError, Record, RecordMut, TableMut},
    sync::{AtomicBool, AtomicU32, AtomicU64, Condvar, MutexGuard, Ordering, spin_loop},
};

use super::{
    audit::{AuditRing, Entry, Operation},
    counters,
};
use crate::{
    block::Block,
    cancel,
    core::{
        codec::{Ctl, SlotState},
        host::{AuditEvent, Counter, Counters, ErrorKind, Host, Liveness, Place, Stamp},
    },
    identity::ProcessKey,
    layout::pages::{ConsumerRow, ControlPage, MetricsPage, SyncPage},
    upkeep,
};

/// The calling process, attached to one block. Clones share their settings.
#[derive(Debug, Clone)]
pub struct Process {
    block: Arc<Block>,
    metrics: RecordMut<4096>,
    consumers: TableMut<256>,
    audit: AuditRing,
    sync: RecordMut<4096>,
    control: Record<4096>,
    /// Who was there when the process's thread last looked; none if it does not look for this handle.
    seen: Arc<OnceLock<Seen>>,
    /// Whether performance counters are kept (DH-247).
    measuring: Arc<AtomicBool>,
}

impl Process {
    /// This process at `block`.
    ///
    /// # Errors
    /// The role may not write area S.
    pub fn new(block: Arc<Block>) -> Result<Self, AccessError> {
        let geometry = &block.descriptor().geometry;
        let rows = block.descriptor().spec.max_consumers;
        Ok(Self {
            metrics: block.region().record_mut(geometry.metrics().offset)?,
            consumers: block.region().table_mut(geometry.consumers().offset, rows)?,
            audit: AuditRing::new(&block)?,
            sync: block.region().record_mut(geometry.sync().offset)?,
            control: block.region().record(geometry.control().offset)?,
            seen: Arc::default(),
            measuring: Arc::new(AtomicBool::new(true)),
            block,
        })
    }

    /// The block.
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// The metrics page.
    pub fn metrics(&self) -> &RecordMut<4096> {
        &self.metrics
    }

    /// The audit ring; written under the maintenance lock.
    pub fn audit_ring(&self) -> &AuditRing {
        &self.audit
    }

    /// Whether performance counters are kept.
    #[inline]
    pub fn is_measuring(&self) -> bool {
        // Relaxed: a switch that orders nothing.
        self.measuring.load(Ordering::Relaxed)
    }

    /// Starts or stops performance counters; errors, repairs and heartbeats are always counted (DH-247).
    pub fn set_measuring(&self, on: bool) {
        self.measuring.store(on, Ordering::Relaxed);
    }

    /// Notes who is there, for somebody who is going to watch all of them. Must be called before looking at their keys.
    pub fn note_seen(&self) {
        let now = self.present();
        let seen = self.seen.get_or_init(Seen::default);
        for (word, value) in seen.0.iter().zip(now) {
            // Relaxed: only compared, by one who asks again if it is stale.
            word.store(value, Ordering::Relaxed);
        }
    }

    /// What changes when somebody comes, goes or takes over.
    fn present(&self) -> [u64; 3] {
        let sync = self.sync.row();
        let masks = [
            sync.u32::<{ offset_of!(SyncPage, active_mask) }>(),
            sync.u32::<{ offset_of!(SyncPage, evicted_mask) }>(),
        ];
        // Relaxed: a hint.
        let [active, evicted] = masks.map(|mask| u64::from(mask.load(Ordering::Relaxed)));
        [
            sync.u64::<{ offset_of!(SyncPage, registry_epoch) }>().load(Ordering::Relaxed),
            active << 32 | evicted,
            self.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().load(Ordering::Relaxed),
        ]
    }

    /// Whether the consumer at `row` said that it lives in another pid namespace.
    fn is_foreign(&self, row: u32) -> bool {
        // Relaxed: written before the row became ACTIVE, under the lock.
        self.consumers.row(row).is_some_and(|row| {
            row.u32::<{ offset_of!(ConsumerRow, flags) }>().load(Ordering::Relaxed) & FOREIGN != 0
        })
    }
}

impl Host for Process {
    #[inline]
    fn now(&self) -> Nanos {
        monotonic_now()
    }

    #[inline]
    fn now_roughly(&self) -> Nanos {
        monotonic_roughly()
    }

    #[inline]
    fn pause(&self) {
        spin_loop();
    }

    fn sleep(&self, time: Nanos) {
        thread::sleep(time.into());
    }

    fn park<'a, T>(&self, condition: &Condvar, guard: MutexGuard<'a, T>, time: Nanos) -> MutexGuard<'a, T> {
        // A thread that panicked left nothing half done, see `Writer`.
        condition.wait_timeout(guard, time.into()).unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }

    fn liveness(&self, key: ProcessKey, place: Place) -> Liveness {
        let foreign = matches!(place, Place::Row(row) if self.is_foreign(row));
        self.block.liveness(key, place, foreign)
    }

    fn hold(&self, place: Place) -> bool {
        self.block.hold(place)
    }

    fn release(&self, place: Place) {
        self.block.release(place);
    }

    fn is_cancelled(&self) -> bool {
        cancel::is_cancelled()
    }

    fn waits(&self) {
        let Some(seen) = self.seen.get() else { return };
        if seen.0.iter().map(|word| word.load(Ordering::Relaxed)).ne(self.present()) {
            upkeep::look();
        }
    }

    #[inline]
    fn thread_ticket(&self) -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        thread_local! {
            static TICKET: Cell<u32> = const { Cell::new(0) };
        }
        if TICKET.get() == 0 {
            // Relaxed: numbers only have to differ.
            TICKET.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        TICKET.get()
    }
}

impl Counters for Process {
    #[inline]
    fn count(&self, counter: Counter, amount: u64) {
        if !counters::is_performance(counter) || self.is_measuring() {
            // Relaxed: counters order nothing (17.1).
            counters::word(&self.metrics.row(), counter).fetch_add(amount, Ordering::Relaxed);
        }
    }

    #[inline]
    fn stamp(&self, stamp: Stamp, at: Nanos) {
        if self.is_measuring() {
            let page = self.metrics.row();
            let word = match stamp {
                Stamp::LastWrite => page.u64::<{ offset_of!(MetricsPage, last_write_ns) }>(),
                Stamp::LastRead => page.u64::<{ offset_of!(MetricsPage, last_read_ns) }>(),
            };
            // Relaxed: statistics.
            word.store(at.0, Ordering::Relaxed);
        }
    }

    fn peak(&self, counter: Counter, value: u64) {
        let word = counters::word(&self.metrics.row(), counter);
        // Relaxed: as above.
        let mut highest = word.load(Ordering::Relaxed);
        while value > highest {
            match word.compare_exchange(highest, value, Ordering::Relaxed) {
                Ok(_) => break,
                Err(found) => highest = found,
            }
        }
    }

    fn error(&self, error: ErrorKind) {
        let page = self.metrics.row();
        // Relaxed: errors of several processes at once may mix, which the sheet allows for.
        page.u64::<{ offset_of!(MetricsPage, last_error_timestamp_ns) }>()
            .store(monotonic_now().0, Ordering::Relaxed);
        page.u32::<{ offset_of!(MetricsPage, last_error_code) }>().store(error as u32, Ordering::Relaxed);
        page.u32::<{ offset_of!(MetricsPage, error_sequence) }>().fetch_add(1, Ordering::Relaxed);
    }

    fn audit(&self, event: AuditEvent) {
        let key = |owner: Option<ProcessKey>| owner.map_or(0, ProcessKey::word);
        let own = self.block.own_key();
        let (operation, target, before, after) = match event {
            AuditEvent::Reaped { row, owner } => (Operation::Reap, row.0.into(), key(owner), 0),
            AuditEvent::Evicted { row, owner } => (Operation::Evict, row.0.into(), key(owner), key(owner)),
            AuditEvent::LockTakenOver { from } => (Operation::LockTakeover, 0, from.word(), own.word()),
            AuditEvent::SpinlockTakenOver { lock, from } => {
                (Operation::LockTakeover, lock.into(), from.word(), own.word())
            }
            AuditEvent::Adopted { from } => (Operation::Adopt, 0, key(from), own.word()),
            AuditEvent::Seized { from } => (Operation::Seize, 0, from.word(), own.word()),
            AuditEvent::Abandoned { id } => {
                let spec = &self.block.descriptor().spec;
                let index = id.0.saturating_sub(spec.first_slot_id) % u64::from(spec.slot_count.max(1));
                let word = |state| Ctl::new(id.tag(), state).0;
                (Operation::ResetSlot, index, word(SlotState::Writing), word(SlotState::Free))
            }
        };
        let forced = operation == Operation::Seize;
        tracing::info!(block = %self.block.descriptor().uuid, ?operation, target, before, after, "block repaired");
        self.audit.write(&Entry { actor: own, operation, forced, target, before, after });
    }
}

/// What [`Process::present`] was.
#[derive(Debug, Default)]
struct Seen([AtomicU64; 3]);

/// Flag of a row: its consumer lives in another pid namespace.
const FOREIGN: u32 = 1;
