//! The choices that the models change one at a time, to see the shipped code fail without them.

use tidegate_shm::sync::{Ordering, fence};

/// Orderings, fences (`None` leaves one out) and steps of the protocol. Each is explained where it is used.
#[allow(missing_docs, reason = "each is explained where it is used")]
pub trait Protocol: 'static {
    const CLAIM_STORE: Ordering = Ordering::Release;
    const READER_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    const WRITER_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    const FLOOR_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    const JOIN_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    const SLEEP_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    const WAKE_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    const COMMIT: Ordering = Ordering::Release;
    const TURN: Ordering = Ordering::Release;
    const TURN_UNDER_MUTEX: bool = true;
    const SEQUENCE_FIRST: bool = true;
    const SECOND_SCAN: bool = true;
    const TAKE_AS_RESERVED: bool = true;
    const INDEX_AFTER_TAKE: bool = true;
    const PREFIX_IN_ORDER: bool = true;
    const LATEST_AFTER_COMMIT: bool = true;
    const MASK_BEFORE_CLAIM: bool = true;
    const EVICTED_BEFORE_MASK: bool = true;
    const TAKEOVER_BY_EXCHANGE: bool = true;
    const COMMIT_BY_EXCHANGE: bool = true;
    const REAP_UNDER_LOCK: bool = true;
    const LOCK: Ordering = Ordering::Acquire;
    const UNLOCK: Ordering = Ordering::Release;
    const DOORWAY: bool = true;
    const ZONE_READ_FENCE: Option<Ordering> = Some(Ordering::Acquire);
    const ZONE_WRITE_FENCE: Option<Ordering> = Some(Ordering::Release);
    const ZONE_END: Ordering = Ordering::Release;
}

/// What everybody uses.
#[derive(Debug, Clone, Copy)]
pub struct Shipped;

impl Protocol for Shipped {}

/// A fence, unless a model leaves it out.
#[inline]
pub(super) fn fence_if(order: Option<Ordering>) {
    if let Some(order) = order {
        fence(order);
    }
}
