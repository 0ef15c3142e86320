//! The consumer handle: what an application reads frames with.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidegate_sbe::control::FrameDescriptor;
use tidegate_shm::sync::{Arc, AtomicBool, AtomicU64, Ordering};

use super::error::PollError;
use super::handoff::Handoff;
use super::lease::{LeaseLoss, Refusal};
use super::mapping::MappingState;
use crate::frame::{EpochStats, FrameDrop, FrameView, InvalidFrame, MappedEpoch, SeqStep, SeqTracker};
use crate::ids::{ClientId, Epoch, NodeId, Seq, StreamId};
use crate::region::RegionSpec;
use crate::transport::Subscription;
use crate::uri::FallbackUri;

/// What to consume, and how.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// The stream.
    pub stream: StreamId,
    /// A fixed client id, or `None` for a random one.
    pub client: Option<ClientId>,
    /// Where the regions come from.
    pub origin: RegionOrigin,
    /// Create the stream when the driver does not know it. Off by default: a typing error should not make a stream.
    pub create: bool,
    /// Demand huge pages, or forbid them; `None` takes what is there.
    pub huge_pages: Option<bool>,
    /// Largest rate wanted in frames per second, 0 for all. A wish that producers may decline (TP-177).
    pub max_rate_hz: u32,
    /// Whether this consumer may map shared memory at all (TP-186).
    pub supports_shm: bool,
}

/// Where a consumer's regions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegionOrigin {
    /// A tensor driver, which grants a lease.
    Driver,
    /// Announces of a producer without a driver.
    Announced,
    /// Configured by hand; announces are welcome but not needed (IP-89).
    Fixed(RegionSpec),
}

impl ConsumerConfig {
    /// All frames of `stream`, through a driver.
    #[must_use]
    pub fn new(stream: StreamId) -> Self {
        Self {
            stream,
            client: None,
            origin: RegionOrigin::Driver,
            create: false,
            huge_pages: None,
            max_rate_hz: 0,
            supports_shm: true,
        }
    }
}

/// Frames lost, by reason (7.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// The descriptor never came.
    pub gap: u64,
    /// Overwritten before or while it was read.
    pub late: u64,
    /// The slot described no valid frame.
    pub invalid: u64,
}

/// What a consumer has seen, over all epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerTotals {
    /// Frames delivered.
    pub frames: u64,
    /// Frames lost.
    pub drops: Drops,
    /// Epochs mapped.
    pub epochs: u64,
}

/// What became of a frame (TP-458).
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadOutcome<'a> {
    /// The frame. Validate after use.
    Frame(FrameView<'a>),
    /// Frames whose descriptors never came, in front of the next one.
    DroppedGap {
        /// How many.
        frames: u64,
    },
    /// Overwritten before or while it was read, or not committed yet.
    DroppedLate {
        /// Which one.
        seq: Seq,
    },
    /// The slot describes no valid frame.
    DroppedInvalid {
        /// Which one.
        seq: Seq,
        /// What is wrong with it.
        why: InvalidFrame,
    },
    /// No regions at the moment.
    NotMapped,
    /// Shared memory is not in use; see [`Consumer::payload_fallback_uri`].
    Fallback,
}

/// Where a consumer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// The stream.
    pub stream: StreamId,
    /// The client id in use.
    pub client: Option<ClientId>,
    /// The node id of the lease, if the driver assigns them.
    pub node: Option<NodeId>,
    /// State of the mapping.
    pub state: MappingState,
    /// Where payloads are to be had while shared memory is not used.
    pub fallback_uri: Option<FallbackUri>,
    /// Why the last lease ended.
    pub loss: Option<LeaseLoss>,
    /// The last refusal of the driver since then.
    pub refusal: Option<Refusal>,
    /// Why the last mapping attempt failed.
    pub map_error: Option<String>,
}

/// Reads frames of one stream. Polled from one thread at a time; may move between threads.
///
/// Dropping it gives its lease back.
pub struct Consumer {
    shared: Arc<ConsumerShared>,
    seen_mapping: u64,
    seen_descriptors: u64,
    descriptors: Option<Box<dyn Subscription>>,
    reading: Reading,
}

/// The part of a consumer that a descriptor changes.
struct Reading {
    max_gap: u64,
    mapped: Option<Arc<MappedEpoch>>,
    tracker: SeqTracker,
    /// A descriptor of a higher epoch was seen: nothing of this mapping is accepted any more (TP-130).
    superseded: bool,
    totals: ConsumerTotals,
    last_warning: Option<Instant>,
}

/// Everything the conductor and the handle share.
pub(super) struct ConsumerShared {
    pub config: ConsumerConfig,
    pub mapping: Handoff<Arc<MappedEpoch>>,
    pub descriptors: Handoff<Box<dyn Subscription>>,
    pub status: Mutex<ConsumerStatus>,
    /// Epoch in which the reader saw the sequence go back; 0 for none (TP-132).
    pub regressed: AtomicU64,
    /// Set when the handle is gone.
    pub released: AtomicBool,
    /// Set when the client is gone.
    pub closed: AtomicBool,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Consumer {
    pub(super) fn new(shared: Arc<ConsumerShared>, max_gap: u64) -> Self {
        Self {
            reading: Reading {
                max_gap,
                mapped: None,
                tracker: SeqTracker::default(),
                superseded: false,
                totals: ConsumerTotals::default(),
                last_warning: None,
            },
            shared,
            seen_mapping: 0,
            seen_descriptors: 0,
            descriptors: None,
        }
    }

    /// As [`Consumer::poll`], and tells of the frames that were lost as well, in their place.
    ///
    /// A frame that is overwritten while the handler has it is told of once more, as [`ReadOutcome::DroppedLate`].
    ///
    /// # Errors
    /// As [`Consumer::poll`].
    pub fn poll_outcomes(
        &mut self,
        limit: usize,
        handler: &mut dyn FnMut(ReadOutcome<'_>),
    ) -> Result<usize, PollError> {
        self.refresh();
        let Some(descriptors) = &mut self.descriptors else {
            // Acquire: pairs with the Release of the closing conductor.
            return if self.shared.closed.load(Ordering::Acquire) { Err(PollError::Closed) } else { Ok(0) };
        };
        let (reading, shared) = (&mut self.reading, &self.shared);
        let polled = descriptors.poll(limit, &mut |message| {
            // Streams may carry messages of others; what does not decode is not ours (TP-008).
            if let Ok(descriptor) = FrameDescriptor::decode(message.bytes) {
                reading.on_descriptor(&descriptor, shared, handler);
            }
        });
        // A dead transport is the conductor's business; it hands out a new subscription.
        Ok(polled.unwrap_or_else(|_| {
            self.descriptors = None;
            0
        }))
    }

    /// Handles at most `limit` descriptors and calls `handler` for each frame that could be opened. Returns how many
    /// descriptors were handled; 0 means that there was nothing to do. Never blocks.
    ///
    /// The view shows the slot in place. A handler that keeps or acts on what it read calls [`FrameView::validate`]
    /// first, or copies with [`FrameView::copy_to`]. A frame that is overwritten before the handler returns counts as
    /// late, not as delivered (TP-116).
    ///
    /// # Errors
    /// [`PollError::Closed`] once the client is gone.
    pub fn poll(
        &mut self,
        limit: usize,
        handler: &mut dyn FnMut(&FrameView<'_>),
    ) -> Result<usize, PollError> {
        self.poll_outcomes(limit, &mut |outcome| {
            if let ReadOutcome::Frame(frame) = outcome {
                handler(&frame);
            }
        })
    }

    /// Opens one frame by its number.
    #[must_use]
    pub fn read_frame(&mut self, seq: Seq) -> ReadOutcome<'_> {
        self.refresh();
        let Some(mapped) = self.reading.mapped.as_ref().filter(|mapped| !mapped.is_stopped()) else {
            return match self.state() {
                MappingState::Fallback => ReadOutcome::Fallback,
                _ => ReadOutcome::NotMapped,
            };
        };
        // A slot whose content is older than what was accepted from it is stale, whatever its word says (TP-117).
        let slots = u64::from(mapped.regions().spec().slots().get());
        if self.reading.tracker.last().is_some_and(|last| seq.get().saturating_add(slots) <= last.get()) {
            return ReadOutcome::DroppedLate { seq };
        }
        match mapped.read(seq) {
            Ok(frame) => ReadOutcome::Frame(frame),
            Err(FrameDrop::Invalid(why)) => ReadOutcome::DroppedInvalid { seq, why },
            Err(FrameDrop::Late) => ReadOutcome::DroppedLate { seq },
        }
    }

    /// State of the mapping.
    #[must_use]
    pub fn state(&self) -> MappingState {
        self.shared.lock().state
    }

    /// Whether frames come through shared memory (TP-459).
    #[must_use]
    pub fn uses_shm(&self) -> bool {
        self.state() != MappingState::Fallback
    }

    /// Where payloads are to be had otherwise (TP-459).
    #[must_use]
    pub fn payload_fallback_uri(&self) -> Option<FallbackUri> {
        self.shared.lock().fallback_uri.clone()
    }

    /// Where the consumer stands.
    #[must_use]
    pub fn status(&self) -> ConsumerStatus {
        self.shared.lock().clone()
    }

    /// What it has seen so far.
    #[must_use]
    pub fn totals(&self) -> ConsumerTotals {
        self.reading.totals()
    }

    fn refresh(&mut self) {
        if let Some(descriptors) = self.shared.descriptors.take_if_newer(&mut self.seen_descriptors) {
            self.descriptors = descriptors;
        }
        if let Some(mapping) = self.shared.mapping.take_if_newer(&mut self.seen_mapping) {
            self.reading.adopt(mapping);
        }
    }
}

impl Reading {
    /// Starts over with a new mapping, or none (TP-127).
    fn adopt(&mut self, mapping: Option<Arc<MappedEpoch>>) {
        self.totals = self.totals();
        self.totals.epochs += u64::from(mapping.is_some());
        self.mapped = mapping;
        self.tracker = SeqTracker::default();
        self.superseded = false;
    }

    fn totals(&self) -> ConsumerTotals {
        let mut totals = self.totals;
        if let Some(mapped) = &self.mapped {
            let stats = mapped.stats();
            // Relaxed: counted by this very thread.
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let add = |total: &mut u64, counter: &AtomicU64| *total = total.saturating_add(read(counter));
            add(&mut totals.frames, &stats.delivered);
            // Gaps are as large as a descriptor says, so their sum may reach the end.
            add(&mut totals.drops.gap, &stats.gap);
            add(&mut totals.drops.late, &stats.late);
            add(&mut totals.drops.invalid, &stats.invalid);
        }
        totals
    }

    fn on_descriptor(
        &mut self,
        descriptor: &FrameDescriptor,
        shared: &ConsumerShared,
        handler: &mut dyn FnMut(ReadOutcome<'_>),
    ) {
        let Some(mapped) = self.mapped.as_deref().filter(|mapped| !mapped.is_stopped()) else { return };
        let (stream, epoch) = (mapped.regions().spec().stream(), mapped.regions().spec().epoch());
        // Several streams may share one descriptor stream (TP-036).
        if descriptor.stream_id != stream.get() || self.superseded {
            return;
        }
        let described = Epoch::new(descriptor.epoch);
        if described != epoch {
            self.superseded = described > epoch;
            return;
        }
        let seq = Seq::new(descriptor.seq);
        let stats = mapped.stats();
        match self.tracker.step(seq) {
            SeqStep::Duplicate => return,
            SeqStep::Regression => {
                mapped.stop();
                // Release: pairs with the Acquire of the conductor, which unmaps.
                shared.regressed.store(epoch.get(), Ordering::Release);
                return;
            }
            SeqStep::Forward { gap: 0 } => {}
            SeqStep::Forward { gap } => {
                EpochStats::add(&stats.gap, gap);
                if self.max_gap != 0 && gap >= self.max_gap {
                    warn_gap(&mut self.last_warning, stream, gap);
                }
                handler(ReadOutcome::DroppedGap { frames: gap });
            }
        }
        stats.saw(seq);
        match mapped.read(seq) {
            Ok(frame) => {
                handler(ReadOutcome::Frame(frame));
                if frame.validate().is_ok() {
                    EpochStats::add(&stats.delivered, 1);
                } else {
                    EpochStats::add(&stats.late, 1);
                    handler(ReadOutcome::DroppedLate { seq });
                }
            }
            Err(FrameDrop::Late) => {
                EpochStats::add(&stats.late, 1);
                handler(ReadOutcome::DroppedLate { seq });
            }
            Err(FrameDrop::Invalid(why)) => {
                EpochStats::add(&stats.invalid, 1);
                handler(ReadOutcome::DroppedInvalid { seq, why });
            }
        }
    }
}

/// At most once a second (TP-468).
fn warn_gap(last: &mut Option<Instant>, stream: StreamId, gap: u64) {
    let now = Instant::now();
    if last.is_none_or(|last| now - last >= Duration::from_secs(1)) {
        *last = Some(now);
        tracing::warn!(%stream, gap, "the consumer fell far behind and resynchronised");
    }
}

impl ConsumerShared {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, ConsumerStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.reading.mapped = None;
        // Release: pairs with the Acquire of the conductor.
        self.shared.released.store(true, Ordering::Release);
    }
}
