//! Publishing in two phases: a frame is complete first and reachable then.

use std::marker::PhantomData;

use thiserror::Error;
use tidegate_shm::sync::Ordering;

use super::{Orders, Own, Peer, Shipped, Violation, aligned, within, words::Access};
use crate::wire::{
    frame::{self, FLAGS_AT, Frame, HEADER_LEN, PUBLISHED, Place},
    ids::RingPos,
    segment::{Geometry, Word},
};

/// The one writer of a ring.
#[derive(Debug)]
pub struct Publisher<O, P, S = Shipped> {
    own: O,
    peer: P,
    ring: Geometry,
    head: u64,
    batches: u64,
    seen: Credit,
    orders: PhantomData<S>,
}

/// The words of the reader as they were last accepted.
#[derive(Debug, Clone, Copy, Default)]
struct Credit {
    grant: u64,
    grant_batches: u64,
    consumed: u64,
    consumed_batches: u64,
}

/// Why a frame was not published. Nothing became visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The payload does not fit a frame.
    #[error("a payload of {payload_len} bytes does not fit a frame of {max_frame}")]
    TooLong {
        /// Bytes of the payload.
        payload_len: usize,
        /// Longest frame.
        max_frame: u32,
    },
    /// The reader has not granted enough; try again when it did.
    #[error("the reader has not granted enough")]
    NoCredit,
    /// The writer lost its right while it wrote.
    #[error("the right to write was lost before the frame was complete")]
    Abandoned,
    /// The reader broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl<O: Own, P: Peer> Publisher<O, P> {
    /// The writer of a fresh ring of this geometry, which was checked.
    pub fn new(own: O, peer: P, ring: Geometry) -> Self {
        Self::with_orders(own, peer, ring)
    }
}

impl<O: Own, P: Peer, S: Orders> Publisher<O, P, S> {
    pub(super) fn with_orders(own: O, peer: P, ring: Geometry) -> Self {
        Self { own, peer, ring, head: 0, batches: 0, seen: Credit::default(), orders: PhantomData }
    }

    /// Publishes a frame (VX-210). The first frame of a batch costs a batch of credit. `still_valid` is asked when all bytes
    /// are written and nothing is visible yet; if it says no, nothing becomes visible.
    ///
    /// # Errors
    /// As [`PublishError`] says.
    pub fn publish(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        still_valid: impl FnOnce() -> bool,
    ) -> Result<(), PublishError> {
        let max_frame = self.ring.max_frame;
        let too_long = PublishError::TooLong { payload_len: payload.len(), max_frame };
        let frame_len = frame::frame_len(payload.len()).filter(|&len| len <= max_frame).ok_or(too_long)?;
        let payload_len = u32::try_from(payload.len()).map_err(|_| too_long)?;
        let at = self.offset(self.head);
        let to_end = self.ring.capacity - at;
        let filler = if to_end < u64::from(frame_len) { to_end } else { 0 };
        let batches = u64::from(frame.frag_index == 0);
        if !self.has_credit(filler + u64::from(frame_len), batches)? {
            return Err(PublishError::NoCredit);
        }
        if filler > 0 {
            // Shorter than the longest frame, because one did not fit.
            let header = frame::encode_filler(self.ring.session, RingPos(self.head), filler as u32);
            self.write_header(at, &header).map_err(Violation::from)?;
            self.show(at, &header).map_err(Violation::from)?;
        }
        let position = self.head + filler;
        let place = Place { session: self.ring.session, position: RingPos(position), payload_len, frame_len };
        let header = frame.encode(&place);
        let end = position + u64::from(frame_len);
        if !S::HEAD_LAST {
            self.own.store(Word::Head, end, S::HEAD);
        }
        let at = self.offset(position);
        self.write_header(at, &header).map_err(Violation::from)?;
        self.own.write(at + u64::from(HEADER_LEN), payload).map_err(Violation::from)?;
        if !still_valid() {
            return Err(PublishError::Abandoned);
        }
        self.show(at, &header).map_err(Violation::from)?;
        self.head = end;
        self.batches += batches;
        // Release: pairs with the load of `Reader::take`; who sees this head sees filler and frame complete.
        self.own.store(Word::Head, self.head, S::HEAD);
        // Release: as the sheet has it; the reader only bounds it.
        self.own.store(Word::Batches, self.batches, Ordering::Release);
        Ok(())
    }

    /// Batches published so far.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Whether that much may be written (VX-301).
    ///
    /// # Errors
    /// The reader took a grant back, granted more than there is, or consumed what was not published (VX-121, VX-303).
    fn has_credit(&mut self, bytes: u64, batches: u64) -> Result<bool, Violation> {
        let load = |word| self.peer.load(word, S::SEE_GRANT);
        // Acquire and in this order: pairs with the stores of `Reader::release`, where what was consumed comes first. So
        // the grant is never newer than what is seen as consumed, and an honest reader keeps the bound below; and all its
        // reads of the bytes that the grant covers again are done.
        let seen = if S::GRANT_BEFORE_CONSUMED {
            let (grant, grant_batches) = (load(Word::GrantPos), load(Word::GrantBatches));
            let (consumed, consumed_batches) = (load(Word::Consumed), load(Word::ConsumedBatches));
            Credit { grant, grant_batches, consumed, consumed_batches }
        } else {
            let (consumed, consumed_batches) = (load(Word::Consumed), load(Word::ConsumedBatches));
            let (grant, grant_batches) = (load(Word::GrantPos), load(Word::GrantBatches));
            Credit { grant, grant_batches, consumed, consumed_batches }
        };
        let last = self.seen;
        aligned("consumed", seen.consumed)?;
        within("consumed", seen.consumed, last.consumed, self.head)?;
        within("consumed_batches", seen.consumed_batches, last.consumed_batches, self.batches)?;
        within("grant_pos", seen.grant, last.grant, seen.consumed + self.ring.capacity)?;
        let most = seen.consumed_batches + u64::from(self.ring.max_in_flight);
        within("grant_batches", seen.grant_batches, last.grant_batches, most)?;
        self.seen = seen;
        Ok(self.head + bytes <= seen.grant && self.batches + batches <= seen.grant_batches)
    }

    /// Everything but the flags, which become 0: an earlier lap may have left the bit of a complete frame.
    fn write_header(&self, at: u64, header: &[u8; 128]) -> Access<()> {
        // Relaxed: nobody looks before the head moves.
        self.own.store_flags(at, 0, Ordering::Relaxed)?;
        self.own.write(at, &header[..FLAGS_AT as usize])?;
        self.own.write(at + FLAGS_AT + 4, &header[FLAGS_AT as usize + 4..])
    }

    fn show(&self, at: u64, header: &[u8; 128]) -> Access<()> {
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *header;
        let flags = u32::from_le_bytes([a, b, c, d]) | PUBLISHED;
        // Release: the frame is complete when it says so, also for who looks at the ring after a crash.
        self.own.store_flags(at, flags, S::FLAGS)
    }

    fn offset(&self, position: u64) -> u64 {
        position & (self.ring.capacity - 1)
    }
}
