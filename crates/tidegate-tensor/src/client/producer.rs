//! The producer handle: what an application writes frames with.

use std::sync::{Mutex, PoisonError};

use tidegate_sbe::control::FrameDescriptor;
use tidegate_shm::sync::{Arc, AtomicBool, AtomicU64, Ordering};

use super::error::PublishError;
use super::handoff::Handoff;
use super::lease::{LeaseLoss, Refusal};
use crate::clock::Clock;
use crate::config::Profile;
use crate::frame::{
    Announcement, Claim, ClaimError, CommitError, Fence, FlushHook, FrameMeta, PutError, RingWriter,
    WriteOptions,
};
use crate::ids::{ClientId, Epoch, NodeId, Seq, StreamId};
use crate::region::store::StoreSettings;
use crate::region::{RegionSpec, WriteRegions};
use crate::tensor::TensorLayout;
use crate::transport::{OfferError, Publication};

/// How often a back-pressured descriptor is offered again before it is given up (TP-197).
const DESCRIPTOR_ATTEMPTS: u32 = 8;

/// What to produce, and how.
#[derive(Debug, Clone, Default)]
pub struct ProducerConfig {
    /// The stream; `None` lets the driver allocate one.
    pub stream: Option<StreamId>,
    /// A fixed client id, or `None` for a random one.
    pub client: Option<ClientId>,
    /// Announced on the metadata stream, so that consumers find the stream by name.
    pub name: Option<String>,
    /// Demand huge pages, or forbid them; `None` leaves it to the driver.
    pub huge_pages: Option<bool>,
    /// Ask for this node id.
    pub node: Option<NodeId>,
    /// See [`WriteOptions`].
    pub write: WriteOptions,
    /// Report success when nobody subscribes to the descriptors (TP-196).
    pub drop_unconnected_descriptors: bool,
    /// Put the time of publication into each descriptor (TP-191).
    pub publish_descriptor_timestamp: bool,
    /// Where the regions come from.
    pub regions: RegionSource,
}

/// Who creates and announces the regions of a producer.
#[derive(Debug, Clone, Default)]
pub enum RegionSource {
    /// A tensor driver, which grants a lease.
    #[default]
    Driver,
    /// The producer itself (no-driver mode). Needs a stream id.
    Own {
        /// Where and how files are made.
        store: StoreSettings,
        /// Slots and pools.
        profile: Profile,
    },
}

/// Counters of a producer; they cover all epochs.
#[derive(Debug, Default)]
pub struct ProducerStats {
    /// Frames committed.
    pub committed: AtomicU64,
    /// Descriptors sent.
    pub announced: AtomicU64,
    /// Descriptors given up because of back-pressure.
    pub back_pressured: AtomicU64,
    /// Descriptors that met no subscriber.
    pub not_connected: AtomicU64,
    /// Descriptors refused for another reason.
    pub refused: AtomicU64,
    /// Frames that fitted no pool.
    pub too_large: AtomicU64,
}

/// Writes frames of one stream. Used from one thread at a time; may move between threads.
///
/// While there is no lease every call fails with [`PublishError::NotAttached`], and succeeds again after the client has
/// attached anew: in a new epoch, from sequence 0 on. Dropping the producer gives its lease back.
pub struct Producer {
    shared: Arc<ProducerShared>,
    clock: Arc<dyn Clock>,
    seen_regions: u64,
    seen_publication: u64,
    attached: Option<Attached>,
    publication: Option<Box<dyn Publication>>,
    /// Kept here while there is no writer to hold it.
    flush: Option<FlushHook>,
}

/// What a producer has while it holds a lease.
struct Attached {
    writer: RingWriter,
    attachment: Arc<Attachment>,
}

/// Everything the conductor and the handle share.
pub(super) struct ProducerShared {
    pub config: ProducerConfig,
    pub regions: Handoff<Arc<Attachment>>,
    pub publication: Handoff<Box<dyn Publication>>,
    pub status: Mutex<ProducerStatus>,
    pub stats: ProducerStats,
    /// Set when the handle is gone.
    pub released: AtomicBool,
    /// Set when the client is gone.
    pub closed: AtomicBool,
}

/// The regions of one lease and the fence that guards them.
pub(super) struct Attachment {
    pub regions: Arc<WriteRegions>,
    pub fence: Arc<Fence>,
    /// Next sequence of the epoch, for QosProducer (TP-214).
    next_seq: AtomicU64,
}

/// Where a producer stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerStatus {
    /// The stream, once known.
    pub stream: Option<StreamId>,
    /// The client id in use.
    pub client: Option<ClientId>,
    /// The node id of the lease, if the driver assigns them.
    pub node: Option<NodeId>,
    /// The epoch being written; `None` while there is no lease.
    pub epoch: Option<Epoch>,
    /// Why the last lease ended.
    pub loss: Option<LeaseLoss>,
    /// The last refusal of the driver since then.
    pub refusal: Option<Refusal>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Producer {
    pub(super) fn new(shared: Arc<ProducerShared>, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared,
            clock,
            seen_regions: 0,
            seen_publication: 0,
            attached: None,
            publication: None,
            flush: None,
        }
    }

    /// Copies a frame into its slot and announces it. `payload` holds the tensor as `layout` describes it.
    ///
    /// # Errors
    /// [`PublishError::Unannounced`] when the frame was written but its descriptor did not go out; with every other error
    /// nothing was written.
    #[inline]
    pub fn offer(
        &mut self,
        layout: &TensorLayout,
        payload: &[u8],
        meta: FrameMeta,
    ) -> Result<Seq, PublishError> {
        let now = self.clock.monotonic();
        match self.write(|writer| writer.put(layout, payload, meta, now))? {
            Ok(seq) => {
                count(&self.shared.stats.committed);
                self.announce_due().map(|()| seq)
            }
            Err(PutError::Claim(error)) => Err(self.claim_failed(error)),
            Err(PutError::Commit(error)) => Err(self.commit_failed(error)),
        }
    }

    /// Takes a slot for `len` bytes to be filled in place, for example by a device.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], [`PublishError::ClaimsExhausted`], [`PublishError::NotAttached`].
    pub fn try_claim(&mut self, len: usize) -> Result<Claim, PublishError> {
        let now = self.clock.monotonic();
        self.write(|writer| writer.claim(len, now))?.map_err(|error| self.claim_failed(error))
    }

    /// Commits a claim: writes its header, makes it visible, announces it. Does not touch the payload.
    ///
    /// # Errors
    /// As [`Producer::offer`]; [`PublishError::StaleClaim`] when the claim's epoch is over.
    pub fn commit(
        &mut self,
        claim: &mut Claim,
        layout: &TensorLayout,
        meta: FrameMeta,
    ) -> Result<Seq, PublishError> {
        let now = self.clock.monotonic();
        match self.write(|writer| writer.commit(claim, layout, meta, now))? {
            Ok(seq) => {
                count(&self.shared.stats.committed);
                self.announce_due().map(|()| seq)
            }
            Err(error) => {
                let announced = self.announce_due();
                Err(announced.err().unwrap_or_else(|| self.commit_failed(error)))
            }
        }
    }

    /// Gives a claim up. Its slot stays in progress; consumers count a gap.
    pub fn abort(&mut self, claim: Claim) {
        if let Some(attached) = &mut self.attached {
            attached.writer.abort(claim);
            // What was waiting behind the claim can go out now; failures are counted.
            let _counted = self.announce_due();
        }
    }

    /// Arms a committed claim again under a new sequence number, with the same buffer; fixed-pool mode only.
    ///
    /// # Errors
    /// [`PublishError::Claim`] outside fixed-pool mode, [`PublishError::StaleClaim`], [`PublishError::NotAttached`].
    pub fn queue_claim(&mut self, claim: &mut Claim) -> Result<Seq, PublishError> {
        let now = self.clock.monotonic();
        self.write(|writer| writer.queue(claim, now))?.map_err(|error| self.commit_failed(error))
    }

    /// Sets the hook that makes device writes visible (TP-454), or removes it.
    pub fn set_flush_hook(&mut self, hook: Option<FlushHook>) {
        match &mut self.attached {
            Some(attached) => attached.writer.set_flush_hook(hook),
            None => self.flush = hook,
        }
    }

    /// Where the producer stands.
    #[must_use]
    pub fn status(&self) -> ProducerStatus {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &ProducerStats {
        &self.shared.stats
    }

    /// Largest payload of the current regions, in bytes; `None` while there is no lease.
    #[must_use]
    pub fn max_payload(&mut self) -> Option<usize> {
        self.refresh();
        self.attached.as_ref()?.writer.largest_stride()
    }

    /// The regions being written; `None` while there is no lease.
    #[must_use]
    pub fn regions(&mut self) -> Option<RegionSpec> {
        self.refresh();
        self.attached.as_ref().map(|attached| attached.attachment.regions.spec().clone())
    }

    /// Whether somebody subscribes to the descriptors at the moment.
    #[must_use]
    pub fn is_connected(&mut self) -> bool {
        self.refresh();
        self.publication.as_ref().is_some_and(|publication| publication.is_connected())
    }

    /// Takes over what the conductor handed out since the last call.
    fn refresh(&mut self) {
        if let Some(publication) = self.shared.publication.take_if_newer(&mut self.seen_publication) {
            self.publication = publication;
        }
        if let Some(attachment) = self.shared.regions.take_if_newer(&mut self.seen_regions) {
            if let Some(mut old) = self.attached.take() {
                self.flush = old.writer.take_flush_hook();
            }
            self.attached = attachment.map(|attachment| {
                let (regions, fence) = (Arc::clone(&attachment.regions), Arc::clone(&attachment.fence));
                let mut writer = RingWriter::new(regions, fence, self.shared.config.write);
                writer.set_flush_hook(self.flush.take());
                Attached { writer, attachment }
            });
        }
    }

    /// Lets `action` use the writer and notes the next sequence for QoS.
    #[inline]
    fn write<T>(&mut self, action: impl FnOnce(&mut RingWriter) -> T) -> Result<T, PublishError> {
        self.refresh();
        let Some(Attached { writer, attachment }) = &mut self.attached else {
            return Err(self.not_attached());
        };
        let outcome = action(writer);
        // Relaxed: a statistic.
        attachment.next_seq.store(writer.next_seq().get(), Ordering::Relaxed);
        Ok(outcome)
    }

    fn not_attached(&self) -> PublishError {
        // Acquire: pairs with the Release of the closing conductor.
        if self.shared.closed.load(Ordering::Acquire) {
            return PublishError::Closed;
        }
        PublishError::NotAttached { reason: self.status().loss }
    }

    fn claim_failed(&self, error: ClaimError) -> PublishError {
        match error {
            ClaimError::Fenced | ClaimError::SeqExhausted => self.not_attached(),
            ClaimError::SlotHeld => PublishError::ClaimsExhausted,
            ClaimError::TooLarge { len, largest } => {
                count(&self.shared.stats.too_large);
                PublishError::TooLarge { len, largest }
            }
        }
    }

    fn commit_failed(&self, error: CommitError) -> PublishError {
        match error {
            CommitError::Fenced => self.not_attached(),
            CommitError::OtherEpoch { epoch } => PublishError::StaleClaim { claim: epoch },
            other => PublishError::Claim(other),
        }
    }

    /// Sends the descriptors that are in order; reports the last failure.
    fn announce_due(&mut self) -> Result<(), PublishError> {
        let Some(Attached { writer, .. }) = &mut self.attached else { return Ok(()) };
        let stream = writer.stream();
        let epoch = writer.epoch();
        let mut outcome = Ok(());
        while let Some(announcement) = writer.next_due() {
            let timestamp =
                self.shared.config.publish_descriptor_timestamp.then(|| self.clock.monotonic().as_u64());
            let sent = send_descriptor(&mut self.publication, stream, epoch, announcement, timestamp);
            if let Err(cause) = sent {
                outcome = self.shared.unannounced(announcement.seq, cause);
            } else {
                count(&self.shared.stats.announced);
            }
        }
        outcome
    }
}

impl Attachment {
    pub(super) fn new(regions: WriteRegions, fence: Fence) -> Self {
        Self { regions: Arc::new(regions), fence: Arc::new(fence), next_seq: AtomicU64::new(0) }
    }

    /// The next sequence to be used (TP-214).
    pub(super) fn next_seq(&self) -> u64 {
        // Relaxed: a statistic.
        self.next_seq.load(Ordering::Relaxed)
    }
}

impl ProducerShared {
    fn unannounced(&self, seq: Seq, cause: OfferError) -> Result<(), PublishError> {
        match cause {
            OfferError::BackPressured => count(&self.stats.back_pressured),
            OfferError::NotConnected => {
                count(&self.stats.not_connected);
                if self.config.drop_unconnected_descriptors {
                    return Ok(());
                }
            }
            _ => count(&self.stats.refused),
        }
        Err(PublishError::Unannounced { seq, cause })
    }
}

fn send_descriptor(
    publication: &mut Option<Box<dyn Publication>>,
    stream: StreamId,
    epoch: Epoch,
    announcement: Announcement,
    timestamp_ns: Option<u64>,
) -> Result<(), OfferError> {
    let publication = publication.as_mut().ok_or(OfferError::NotConnected)?;
    let descriptor = FrameDescriptor {
        stream_id: stream.get(),
        epoch: epoch.get(),
        seq: announcement.seq.get(),
        timestamp_ns,
        meta_version: announcement.meta_version,
        trace_id: announcement.trace_id,
    };
    let mut message = [0; 8 + FrameDescriptor::BLOCK_LENGTH as usize];
    let len = descriptor.encode(&mut message).map_err(|_| OfferError::TooLong)?;
    let message = message.get(..len).ok_or(OfferError::TooLong)?;
    for _ in 1..DESCRIPTOR_ATTEMPTS {
        match publication.offer(message) {
            Ok(_) => return Ok(()),
            Err(OfferError::BackPressured | OfferError::AdminAction) => tidegate_shm::sync::spin_loop(),
            Err(other) => return Err(other),
        }
    }
    publication.offer(message).map(|_| ())
}

fn count(counter: &AtomicU64) {
    // Relaxed: a statistic, counted by one thread.
    counter.store(counter.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
}

impl Drop for Producer {
    fn drop(&mut self) {
        // The mapping goes first, so that nothing is written once the detach is on its way.
        self.attached = None;
        // Release: pairs with the Acquire of the conductor.
        self.shared.released.store(true, Ordering::Release);
    }
}
