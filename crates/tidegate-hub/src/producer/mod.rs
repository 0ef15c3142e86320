//! Producers: making a block or taking one over, and writing its slots (chapters 6, 8, 9).
//!
//! ```text
//!  Producer --write--------------> WriteSlot   --commit--> visible     (dropped: aborted)
//!           --acquire_write_batch> WriteBatch  --commit--> visible together
//!           --with_write, with_typed_write     the same as closures
//! ```
//!
//! A payload is reached as a [`SpanMut`](tidegate_shm::region::SpanMut) or by copies, never as a reference.

mod batch;
mod digest;
mod handler;
mod look;
mod notify;
mod open;
mod slot;
mod transaction;
mod typed;

use std::{mem::offset_of, path::Path, sync::Arc, thread, time::Duration};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{AtomicU32, Ordering},
};

pub use batch::WriteBatch;
pub use handler::Runner;
pub use slot::WriteSlot;
pub use transaction::WriteTx;

use crate::{
    attachment::{Process, WriterWords, sampling},
    block::Block,
    broker::Notifier,
    cancel,
    config::{HubTimeouts, Timeout},
    core::{
        codec::SlotId,
        config::Deadline,
        words::{Control64, Load, Words},
        writer::{CommitInfo, Writer},
    },
    error::{AcquireError, WriteError, kind_of},
    handover::{Predecessors, glance},
    layout::{Descriptor, Secret, pages::ControlPage},
    upkeep::{Member, ProducerMember},
    zone::{ZoneError, Zones},
};
use digest::Digests;
pub(crate) use typed::TypedCheck;

/// How soon a producer that lingers notices that it is to end.
const LINGER_SLICE: Nanos = Nanos::from_millis(10);

/// The writer of a channel. Its threads share it.
#[derive(Debug)]
pub struct Producer {
    writer: Writer<WriterWords, Process>,
    block: Arc<Block>,
    member: Arc<ProducerMember>,
    timeouts: HubTimeouts,
    end: EndOfLife,
    zero_on_acquire: bool,
    sample_every: u32,
    /// Operations since the last one that was timed.
    operations: AtomicU32,
    typed: TypedCheck,
    digests: Option<Digests>,
    secret: Option<Secret>,
    /// Ids that the writer before left open.
    abandoned: u64,
    /// Who is told of commits.
    notifier: Option<Notifier>,
    /// 1 while a handover is under way, and after it was made.
    handing_over: AtomicU32,
    /// The blocks that the channel was in before.
    predecessors: Predecessors,
}

/// What happens when the producer ends.
#[derive(Debug, Clone, Copy)]
struct EndOfLife {
    unlink: bool,
    linger: Duration,
    /// Over already.
    done: bool,
}

impl Producer {
    /// What the block is.
    pub fn descriptor(&self) -> &Descriptor {
        self.block.descriptor()
    }

    /// The file of the block; its name is what consumers attach.
    pub fn path(&self) -> &Path {
        self.block.path()
    }

    /// Name of the file, as [`Consumer::attach`](crate::consumer::Consumer::attach) takes it.
    pub fn name(&self) -> String {
        self.block.descriptor().file_name()
    }

    /// The mapped block.
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// The coordination core underneath.
    pub fn writer(&self) -> &Writer<WriterWords, Process> {
        &self.writer
    }

    /// The flexible zones of the block and its shared locks (chapter 10).
    ///
    /// # Errors
    /// The locks cannot be used from here: their owners live in other namespaces.
    pub fn zones(&self) -> Result<Zones, ZoneError> {
        Zones::new(&self.block, self.secret.as_ref(), &self.timeouts)
    }

    /// Ids that will never hold data because the writer before died with them (DH-084).
    pub fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// The id that comes next, unless a sibling thread takes it.
    pub fn next_id(&self) -> SlotId {
        // Acquire: pairs with the release of the thread that moved it.
        SlotId(Load::load(self.writer.core().words().control64(Control64::WriteIndex), Ordering::Acquire))
    }

    /// Rows of the consumer table that take part.
    pub fn consumer_count(&self) -> u32 {
        self.writer.core().active_consumers()
    }

    /// A slot to be written.
    ///
    /// # Errors
    /// One of the nine kinds; nothing was changed (DH-054).
    #[inline]
    pub fn write(&self, timeout: Timeout) -> Result<WriteSlot<'_>, AcquireError> {
        let started = self.sampled();
        let first = self.allocate(1, timeout).map_err(kind_of)?.first;
        Ok(WriteSlot::new(self, first, started))
    }

    /// A slot to be written, without waiting.
    ///
    /// # Errors
    /// As [`Producer::write`].
    #[inline]
    pub fn try_write(&self) -> Result<WriteSlot<'_>, AcquireError> {
        self.write(Timeout::Immediate)
    }

    /// `n` slots with consecutive ids, or none (DH-119).
    ///
    /// # Errors
    /// One of the nine kinds, or more slots than the ring has.
    pub fn acquire_write_batch(&self, n: u32, timeout: Timeout) -> Result<WriteBatch<'_>, WriteError> {
        let allocation = self.allocate(n, timeout)?;
        Ok(WriteBatch::new(self, allocation))
    }

    /// Copies `bytes` into the next slot and commits it.
    ///
    /// # Errors
    /// One of the nine kinds, or more bytes than a slot has.
    #[inline]
    pub fn send(&self, bytes: &[u8], timeout: Timeout) -> Result<SlotId, WriteError> {
        let available = self.descriptor().spec.slot_size;
        if bytes.len() as u64 > available {
            return Err(WriteError::TooLong { len: bytes.len() as u64, available });
        }
        let mut slot = self.write(timeout)?;
        slot.put_bytes(bytes)?;
        slot.commit()
    }

    /// Beats for this producer, for those who do without the process's thread (DH-233).
    pub fn heartbeat(&self) {
        self.member.beat();
    }

    /// Removes dead consumers now instead of when they are in the way.
    ///
    /// # Errors
    /// The maintenance lock could not be had in time.
    pub fn reap(&self) -> Result<u32, crate::error::RegistryError> {
        self.writer.core().reap(self.maintenance_deadline())
    }

    /// Changes how long later calls wait. Heartbeats keep the interval they began with.
    ///
    /// # Errors
    /// Every value that is not valid.
    pub fn set_timeouts(&mut self, timeouts: HubTimeouts) -> Result<(), crate::config::ConfigInvalid> {
        timeouts.validate()?;
        self.writer.set_timing(timeouts.timing());
        self.timeouts = timeouts;
        Ok(())
    }

    /// Starts or stops measuring performance (DH-247).
    pub fn set_metrics_enabled(&self, on: bool) {
        self.writer.core().host().set_measuring(on);
    }

    /// Ends the channel: consumers read what there is and are then told that it is closed (DH-239). Cancelling the waits of
    /// the process ends `close_linger` (DH-097).
    ///
    /// # Errors
    /// The right was lost: somebody else writes the block, and it was left alone.
    pub fn close(mut self) -> Result<(), AcquireError> {
        self.finish(self.end.linger)
    }

    #[inline]
    fn allocate(&self, n: u32, timeout: Timeout) -> Result<crate::core::writer::Allocation, WriteError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        self.writer.allocate(n, timeout.deadline(self.timeouts.write_acquire))
    }

    /// The secret of the channel.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    pub(crate) fn member(&self) -> &Arc<ProducerMember> {
        &self.member
    }

    /// See [`Writer::hold_floor`].
    pub(crate) fn hold_floor(&mut self, consumers: u32, until: Nanos) {
        self.writer.hold_floor(consumers, until);
    }

    /// False if another handover is under way, or was made.
    pub(crate) fn start_handover(&self) -> bool {
        // Acquire: pairs with the release of the one who ended the one before.
        self.handing_over.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Blocks that the channel has left and that are still there.
    pub(crate) fn predecessors(&self) -> &Predecessors {
        &self.predecessors
    }

    /// The channel was in these blocks before.
    pub(crate) fn follow(&mut self, predecessors: Predecessors) {
        self.predecessors = predecessors;
    }

    /// Ends a block that nobody was told of: it goes, whatever is done with blocks that were used.
    pub(crate) fn discard(mut self) {
        self.end.unlink = true;
    }

    /// It was called off.
    pub(crate) fn end_handover(&self) {
        // Release: pairs with the acquire of the next one.
        self.handing_over.store(0, Ordering::Release);
    }

    fn maintenance_deadline(&self) -> Deadline {
        Timeout::Default.deadline(self.timeouts.maintenance_lock)
    }

    /// Commits a slot; its digest is in place, its flags in `info` (DH-153).
    #[inline]
    fn commit_slot(
        &self,
        id: SlotId,
        info: CommitInfo,
        started: Option<Nanos>,
    ) -> Result<SlotId, WriteError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        self.writer.commit(id, info)?;
        self.tell_committed(id);
        if let Some(started) = started {
            sampling::record_write(self.writer.core().host(), started);
            self.beat_if_due();
        }
        Ok(id)
    }

    fn abort_slot(&self, id: SlotId) {
        if self.block.check().is_ok() {
            // Not ours any more means that somebody else resolved it.
            let _ = self.writer.abort(id);
        }
    }

    /// When this operation is one of those that are timed, its start (DH-244).
    #[inline]
    fn sampled(&self) -> Option<Nanos> {
        sampling::is_due(&self.operations, self.sample_every, self.writer.core().host()).then(monotonic_now)
    }

    /// A beat on the way, should the thread be late (DH-232).
    fn beat_if_due(&self) {
        if self.member.is_overdue(monotonic_now()) {
            self.member.beat();
        }
    }

    fn finish(&mut self, linger: Duration) -> Result<(), AcquireError> {
        if std::mem::replace(&mut self.end.done, true) {
            return Ok(());
        }
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        if glance(self.writer.core().words().views()).0.is_cut() {
            // Its end is that of the handover.
            return Ok(());
        }
        // Who reads there still is told of this block before it ends.
        self.predecessors.finish();
        self.abort_open_slots();
        self.writer.start_closing()?;
        let until = monotonic_now().saturating_add(linger.into());
        while !cancel::is_cancelled() && monotonic_now() < until {
            thread::sleep(LINGER_SLICE.min(until.saturating_sub(monotonic_now())).into());
        }
        self.note::<{ offset_of!(ControlPage, closed_ns) }>();
        self.writer.finish_closing(|| {
            if self.end.unlink {
                self.block.remove_name();
            }
        })
    }

    /// Notes the time in a word of the control page.
    fn note<const AT: usize>(&self) {
        let page = self.writer.core().words().views().control.row();
        // Relaxed: for people.
        page.u64::<AT>().store(monotonic_now().0, Ordering::Relaxed);
    }

    /// Ids whose guards were leaked (DH-118).
    fn abort_open_slots(&self) {
        let words = self.writer.core().words();
        // Acquire, both: pairs with the release of the thread that moved them.
        let from = Load::load(words.control64(Control64::CommitIndex), Ordering::Acquire);
        let to = Load::load(words.control64(Control64::WriteIndex), Ordering::Acquire);
        for id in (from..to).map(SlotId).filter(|id| self.writer.is_open(*id)) {
            self.abort_slot(id);
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // As closing with no linger (DH-240). Who lost the right leaves the block alone.
        let _ = self.finish(Duration::ZERO);
    }
}
