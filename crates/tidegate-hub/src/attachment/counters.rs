//! Where the counters of the metrics page lie, and which of them can be turned off.

use std::mem::offset_of;

use tidegate_shm::region::{RowMut, SharedU64Mut};

use crate::{core::host::Counter, layout::pages::MetricsPage};

/// Defines the field of the metrics page that each counter is kept in.
macro_rules! places {
    ($($counter:ident = $field:ident,)*) => {
        /// The word of a counter.
        #[inline]
        pub fn word<'a>(page: &RowMut<'a, 4096>, counter: Counter) -> SharedU64Mut<'a> {
            match counter {
                $(Counter::$counter => page.u64::<{ offset_of!(MetricsPage, $field) }>(),)*
            }
        }
    };
}

places! {
    WriterTimeout = writer_timeout_count,
    WriterBlockedNs = writer_blocked_total_ns,
    WriteLockContention = write_lock_contention,
    WriterGenerationWraps = write_generation_wraps,
    ReaderNotReady = reader_not_ready_count,
    ReaderRaceDetected = reader_race_detected,
    ReaderValidationFailed = reader_validation_failed,
    ReaderPeak = reader_peak_count,
    StateTransitionErrors = state_transition_errors,
    SlotAcquireErrors = slot_acquire_errors,
    SlotCommitErrors = slot_commit_errors,
    SlotsWritten = total_slots_written,
    BytesWritten = total_bytes_written,
    ReadsAttemptedRetired = reads_attempted_retired,
    SlotsReadRetired = total_slots_read_retired,
    BytesReadRetired = total_bytes_read_retired,
    WritesAttempted = writes_attempted,
    WriterFullTimeout = writer_full_timeout_count,
    WriterDrainTimeout = writer_drain_timeout_count,
    WriterRefused = writer_refused_count,
    SlotsAborted = slots_aborted,
    SlotsSkippedHeld = slots_skipped_held,
    SlotsDroppedOldest = slots_dropped_oldest,
    SlotsUnobserved = slots_unobserved,
    BatchWrites = batch_writes,
    DrainWaits = drain_waits,
    WakeupsSent = wakeups_sent,
    FloorScans = floor_scans,
    ReaderTimeout = reader_timeout_count,
    ReaderLappedSlots = reader_lapped_slots,
    ConsumersJoined = consumers_joined,
    ConsumersLeft = consumers_left,
    ConsumersEvicted = consumers_evicted,
    DeadConsumersReaped = dead_consumers_reaped,
    PeakConsumers = peak_consumer_count,
    LockErrors = lock_errors,
    LockTakeovers = lock_takeovers,
    MaintenanceLockWaits = maintenance_lock_waits,
    WriterAdoptions = writer_adoptions,
    WriterSeizures = writer_seizures,
}

/// Whether a counter measures performance, so that it stops when metrics are turned off (DH-247).
#[inline]
pub fn is_performance(counter: Counter) -> bool {
    matches!(
        counter,
        Counter::WriterBlockedNs
            | Counter::WriterGenerationWraps
            | Counter::SlotsWritten
            | Counter::BytesWritten
            | Counter::ReadsAttemptedRetired
            | Counter::SlotsReadRetired
            | Counter::BytesReadRetired
            | Counter::WritesAttempted
            | Counter::BatchWrites
            | Counter::DrainWaits
            | Counter::WakeupsSent
            | Counter::FloorScans
            | Counter::ReaderPeak
    )
}
