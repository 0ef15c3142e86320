//! Reading: each word once, each header copied before it is looked at.

use std::marker::PhantomData;

use super::{Orders, Own, Peer, Shipped, Violation, aligned, within};
use crate::wire::{
    frame::{self, FLAGS_AT, Frame, HEADER_LEN, PUBLISHED, Parsed},
    ids::RingPos,
    segment::{Geometry, Word},
};

/// The one reader of a ring.
#[derive(Debug)]
pub struct Reader<O, P, S = Shipped> {
    own: O,
    peer: P,
    ring: Geometry,
    /// Everything below was consumed.
    position: u64,
    batches: u64,
    granted_pos: u64,
    granted_batches: u64,
    /// What was granted when the caller was last told to ring.
    announced: u64,
    /// The head as it was last accepted.
    head: u64,
    /// Nothing more is granted.
    ends: bool,
    orders: PhantomData<S>,
}

/// A frame that was found, to be given back with [`Reader::release`].
#[derive(Debug)]
pub struct Taken {
    /// Its header, checked.
    pub frame: Frame,
    /// Bytes it takes in the ring.
    pub frame_len: u32,
    position: u64,
    payload_len: u32,
}

impl<O: Own, P: Peer> Reader<O, P> {
    /// The reader of a fresh ring of this geometry, which was checked. Nothing is granted before [`Reader::open`].
    pub fn new(own: O, peer: P, ring: Geometry) -> Self {
        Self::with_orders(own, peer, ring)
    }
}

impl<O: Own, P: Peer, S: Orders> Reader<O, P, S> {
    pub(super) fn with_orders(own: O, peer: P, ring: Geometry) -> Self {
        Self {
            own,
            peer,
            ring,
            position: 0,
            batches: 0,
            granted_pos: 0,
            granted_batches: 0,
            announced: 0,
            head: 0,
            ends: false,
            orders: PhantomData,
        }
    }

    /// Grants the whole ring (VX-305).
    pub fn open(&mut self) {
        self.grant();
        self.announced = self.granted_pos;
    }

    /// Whether the head is not where reading stopped: worth a call of [`Reader::take`].
    pub fn is_behind(&self) -> bool {
        // Acquire: as in `take`.
        self.peer.load(Word::Head, S::SEE_HEAD) != self.position
    }

    /// The next frame, if there is one.
    ///
    /// # Errors
    /// The writer broke the protocol; nothing more can be read (VX-220).
    pub fn take(&mut self) -> Result<Option<Taken>, Violation> {
        loop {
            // Acquire: pairs with the store of `Publisher::publish`; the frames below are complete.
            let head = self.peer.load(Word::Head, S::SEE_HEAD);
            within("head", head, self.head.max(self.position), self.granted_pos)?;
            aligned("head", head)?;
            self.head = head;
            let batches = self.peer.load(Word::Batches, S::SEE_HEAD);
            within("batches", batches, 0, self.granted_batches)?;
            if head == self.position {
                return Ok(None);
            }
            let at = self.position & (self.ring.capacity - 1);
            let position = self.position;
            let flags = self.peer.load_flags(at, S::SEE_HEAD)?;
            if flags & PUBLISHED == 0 {
                return Err(Violation::Unpublished { position });
            }
            let mut header = [0; HEADER_LEN as usize];
            let (before, behind) = header.split_at_mut(FLAGS_AT as usize);
            let (own_flags, behind) = behind.split_at_mut(4);
            self.peer.read(at, before)?;
            own_flags.copy_from_slice(&flags.to_le_bytes());
            self.peer.read(at + FLAGS_AT + 4, behind)?;
            let to_end = self.ring.capacity - at;
            let Geometry { session, max_frame, .. } = self.ring;
            let parsed =
                frame::decode(&header, session, RingPos(position), max_frame, to_end, head - position)
                    .map_err(|fault| Violation::Frame { position, fault })?;
            match parsed {
                Parsed::Filler { frame_len } => self.position += u64::from(frame_len),
                Parsed::Frame { frame, payload_len, frame_len } => {
                    return Ok(Some(Taken { frame, frame_len, position, payload_len }));
                }
            }
        }
    }

    /// Appends the payload of a frame to `to`. The bytes were copied once and do not change any more.
    ///
    /// # Errors
    /// The checksum of the payload, if there is one, does not match.
    pub fn copy_payload(&self, taken: &Taken, to: &mut Vec<u8>) -> Result<(), Violation> {
        let start = to.len();
        let at = (taken.position & (self.ring.capacity - 1)) + u64::from(HEADER_LEN);
        self.peer.append(at, taken.payload_len as usize, to)?;
        if let Some(expected) = taken.frame.payload_crc {
            let found = frame::payload_crc(&to[start..]);
            if found != expected {
                return Err(Violation::Payload { position: taken.position, found, expected });
            }
        }
        Ok(())
    }

    /// Gives the place of a frame back and grants it again. Whether the caller has to ring the bell for that: the writer may
    /// sleep until it gets more than it was told of with the last such ring.
    ///
    /// No wake-up is lost by the rings that are left out. A writer sleeps when a frame and its filler, less than two of the
    /// longest, do not fit what it sees granted, which is what was announced at least. Every frame that it has published is
    /// taken some time, and when the last of them is released, the head seen here is where the writer is. Batches do not
    /// count: the runtime admits no more of them than may be on their way, and each is admitted after the grants that let its
    /// request and its answer pass (VX-302).
    #[must_use = "a writer without credit may sleep"]
    pub fn release(&mut self, taken: Taken) -> bool {
        self.position = taken.position + u64::from(taken.frame_len);
        if !taken.frame.more {
            self.batches += 1;
        }
        if !S::CONSUMED_BEFORE_GRANT {
            self.grant();
        }
        // Release: pairs with the load of `Publisher::has_credit`; all reads of the frame are done.
        self.own.store(Word::Consumed, self.position, S::CONSUMED);
        self.own.store(Word::ConsumedBatches, self.batches, S::CONSUMED);
        if S::CONSUMED_BEFORE_GRANT {
            self.grant();
        }
        let left = self.announced.saturating_sub(self.head.max(self.position));
        let may_sleep = left < 2 * u64::from(self.ring.max_frame);
        if may_sleep {
            self.announced = self.granted_pos;
        }
        may_sleep
    }

    /// Grants nothing more: what still comes from a writer that goes on writing is at most what was granted.
    pub fn end(&mut self) {
        self.ends = true;
    }

    /// The whole ring, from what was consumed on (VX-302).
    fn grant(&mut self) {
        if self.ends {
            return;
        }
        self.granted_pos = self.position + self.ring.capacity;
        self.granted_batches = self.batches + u64::from(self.ring.max_in_flight);
        // Release: pairs with the load of `Publisher::has_credit`; who may write the bytes again sees them read.
        self.own.store(Word::GrantPos, self.granted_pos, S::GRANT);
        self.own.store(Word::GrantBatches, self.granted_batches, S::GRANT);
    }
}
