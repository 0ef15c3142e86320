//! Consumers: attaching a block and reading its slots (chapters 7, 8, 9).
//!
//! ```text
//!  Consumer --next--------------> ReadSlot    (dropped: consumed; dropped while unwinding: not)
//!           --acquire_read_batch> ReadBatch   (dropped: consumed as a whole)
//!           --with_next, with_typed_next      the same as closures
//!           --seek_to, seek_latest, peek, ... where the next one comes from
//! ```
//!
//! A payload is reached as a [`Span`](tidegate_shm::region::Span) or by copies, never as a reference: other processes
//! may write there against all rules.

mod batch;
mod handover;
mod keep;
mod membership;
mod open;
mod seek;
mod slot;
mod transaction;
mod verify;

use std::sync::Arc;

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    region::AccessError,
    sync::{AtomicU32, Ordering},
};

pub use batch::ReadBatch;
pub use handover::HandoverIterator;
pub use keep::{KeptSlot, Watcher};
pub use slot::ReadSlot;

use crate::{
    attachment::{ConsumerWords, Process, sampling},
    block::Block,
    config::{HubTimeouts, OnReadError, Timeout},
    core::{
        Ticket,
        codec::SlotId,
        config::Deadline,
        reader::{Acquired, Reader},
        words::{Row64, Words},
    },
    error::{AcquireError, RegistryError},
    inspect::Inspector,
    layout::{Descriptor, Secret},
    metrics::HubMetrics,
    producer::TypedCheck,
    schema::SchemaMode,
    upkeep::{ConsumerMember, Member},
    zone::{ZoneError, Zones},
};
use verify::Checker;

/// A reader of a channel, for one thread at a time.
#[derive(Debug)]
pub struct Consumer {
    /// None once it has left.
    reader: Option<Reader<ConsumerWords, Process>>,
    block: Arc<Block>,
    member: Arc<ConsumerMember>,
    ticket: Ticket,
    timeouts: HubTimeouts,
    newest_only: bool,
    on_read_error: OnReadError,
    /// The slot that was acquired last, one by one.
    current: Acquired,
    /// Slots of a batch; has room for all that may be held.
    batch: Vec<Acquired>,
    sample_every: u32,
    /// When the reading of `current` began, if it is timed.
    started: Option<Nanos>,
    /// Operations since the last one that was timed.
    operations: AtomicU32,
    typed: TypedCheck,
    schema_mode: SchemaMode,
    min_minor: u16,
    checker: Option<Checker>,
    secret: Option<Secret>,
}

impl Consumer {
    /// What the block is.
    pub fn descriptor(&self) -> &Descriptor {
        self.block.descriptor()
    }

    /// The mapped block.
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// The row of the consumer table.
    pub fn row(&self) -> u32 {
        self.ticket.row.0
    }

    /// The first id that was promised (DH-068).
    pub fn start_id(&self) -> SlotId {
        self.ticket.start
    }

    /// The coordination core underneath; none once the consumer has left.
    pub fn reader(&self) -> Option<&Reader<ConsumerWords, Process>> {
        self.reader.as_ref()
    }

    /// The next slot that holds data; with LatestOnly the newest one that was not returned before (DH-112). Holes are
    /// stepped over (DH-110).
    ///
    /// # Errors
    /// One of the nine kinds. After `Lapped` reading goes on behind what was lost.
    #[inline]
    pub fn next(&mut self, timeout: Timeout) -> Result<ReadSlot<'_>, AcquireError> {
        self.started = self.sampled();
        self.acquire_until(timeout.deadline(self.timeouts.read_acquire))?;
        Ok(ReadSlot::new(self))
    }

    /// As [`Consumer::next`], without waiting.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    #[inline]
    pub fn try_next(&mut self) -> Result<ReadSlot<'_>, AcquireError> {
        self.next(Timeout::Immediate)
    }

    /// Beats for this consumer, for those who do without the process's thread (DH-233).
    pub fn heartbeat(&self) {
        self.member.beat();
    }

    /// The numbers of the block (DH-245).
    ///
    /// # Errors
    /// None while this process is the one that opened the block.
    pub fn metrics(&self) -> Result<HubMetrics, AccessError> {
        Ok(Inspector::of(self.block.clone())?.metrics())
    }

    /// Slots that this consumer has consumed.
    pub fn slots_consumed(&self) -> u64 {
        self.counted(Row64::SlotsConsumed)
    }

    /// Bytes of the slots that this consumer has consumed.
    pub fn bytes_consumed(&self) -> u64 {
        self.counted(Row64::BytesConsumed)
    }

    fn counted(&self, field: Row64) -> u64 {
        let Some(reader) = &self.reader else { return 0 };
        // Relaxed: this consumer's own word.
        reader.core().words().row64(self.ticket.row, field).load(Ordering::Relaxed)
    }

    /// Changes how long later calls wait. Heartbeats keep the interval they began with.
    ///
    /// # Errors
    /// Every value that is not valid.
    pub fn set_timeouts(&mut self, timeouts: HubTimeouts) -> Result<(), crate::config::ConfigInvalid> {
        timeouts.validate()?;
        if let Some(reader) = &mut self.reader {
            reader.set_timing(timeouts.timing());
        }
        self.timeouts = timeouts;
        Ok(())
    }

    /// Gives the place back; what was not read is left for the next consumer, if the policy keeps it (DH-070, DH-071).
    ///
    /// # Errors
    /// The maintenance lock could not be had in time, or the row was taken away.
    pub fn detach(mut self) -> Result<(), RegistryError> {
        self.leave()
    }

    /// The flexible zones of the block and its shared locks (chapter 10).
    ///
    /// # Errors
    /// The locks cannot be used from here: their owners live in other namespaces.
    pub fn zones(&self) -> Result<Zones, ZoneError> {
        Zones::new(&self.block, self.secret.as_ref(), &self.timeouts)
    }

    /// Acquires `current`.
    #[inline]
    fn acquire_until(&mut self, deadline: Deadline) -> Result<(), AcquireError> {
        match &self.checker {
            Some(checker) if checker.checks() => self.acquire_checked(deadline),
            _ => self.acquire_unchecked(deadline),
        }
    }

    #[inline]
    fn acquire_unchecked(&mut self, deadline: Deadline) -> Result<(), AcquireError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        let Some(reader) = &mut self.reader else { return Err(AcquireError::Fenced) };
        if !self.newest_only {
            return reader.acquire_ordered_into(deadline, &mut self.current);
        }
        self.current = reader.acquire_latest(deadline)?;
        Ok(())
    }

    /// When this operation is one of those that are timed, its start (DH-244).
    #[inline]
    fn sampled(&self) -> Option<Nanos> {
        let host = self.reader.as_ref()?.core().host();
        sampling::is_due(&self.operations, self.sample_every, host).then(monotonic_now)
    }

    /// The read that began at `started` is over; a beat on the way, should the thread be late (DH-231).
    fn sample(&self, started: Nanos) {
        if let Some(reader) = &self.reader {
            sampling::record_read(reader.core().host(), started);
        }
        if self.member.is_overdue(monotonic_now()) {
            self.member.beat();
        }
    }

    fn maintenance_deadline(&self) -> Deadline {
        Timeout::Default.deadline(self.timeouts.maintenance_lock)
    }

    fn leave(&mut self) -> Result<(), RegistryError> {
        let deadline = self.maintenance_deadline();
        let Some(reader) = self.reader.take() else { return Ok(()) };
        if self.block.check().is_err() {
            return Ok(());
        }
        reader.leave(deadline)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::warn!(block = %self.block.descriptor().uuid, %error, "the consumer's row was not given back");
        }
    }
}
