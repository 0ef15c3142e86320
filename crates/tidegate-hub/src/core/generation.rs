//! The generation of a flexible zone (10.1): readers notice that what they copied was changed meanwhile, and that whoever
//! changed it died over it.
//!
//! ```text
//!  even            nobody writes
//!  odd             last_writer is at work; if it is dead, or nobody, the zone is torn
//! ```
//!
//! The one who updates first says who it is, then makes the generation odd with an exchange, so that of two at once,
//! whom no lock keeps apart, the second is refused.

use std::marker::PhantomData;

use tidegate_shm::sync::Ordering;

use super::{
    codec::ProcessKey,
    protocol::{Protocol, Shipped, fence_if},
    words::{Load, Word},
};

/// What is known about a zone before it is updated or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneState {
    /// It is whole, at this generation.
    Whole(u64),
    /// Somebody writes it, or died while writing it. None: the update was left by a panic.
    Writing {
        /// The odd generation.
        generation: u64,
        /// Who.
        writer: Option<ProcessKey>,
    },
}

/// The first words of a zone control line.
#[derive(Debug, Clone, Copy)]
pub struct GenerationWords<L, P = Shipped> {
    generation: L,
    last_writer: L,
    last_write_ns: L,
    protocol: PhantomData<P>,
}

impl<L, P> GenerationWords<L, P> {
    /// The words `write_generation`, `last_writer` and `last_write_ns`.
    pub fn new(generation: L, last_writer: L, last_write_ns: L) -> Self {
        Self { generation, last_writer, last_write_ns, protocol: PhantomData }
    }
}

impl<L: Load<u64>, P: Protocol> GenerationWords<L, P> {
    /// The state of the zone.
    pub fn state(&self) -> ZoneState {
        // Acquire: pairs with the release of `end`; what is copied after this is at least as new.
        let generation = self.generation.load(Ordering::Acquire);
        if generation.is_multiple_of(2) {
            return ZoneState::Whole(generation);
        }
        // Relaxed: the acquiring load above comes before, and the writer stores its key before the odd generation.
        let writer = ProcessKey::from_word(self.last_writer.load(Ordering::Relaxed));
        ZoneState::Writing { generation, writer }
    }

    /// Whether what was copied since [`state`](Self::state) gave `generation` is of that generation.
    pub fn is_still(&self, generation: u64) -> bool {
        // Pairs with the fence of `begin`: if the copy has a byte of the next update, the load below sees its odd
        // generation or a later one.
        fence_if(P::ZONE_READ_FENCE);
        // Relaxed: the fence orders it.
        self.generation.load(Ordering::Relaxed) == generation
    }
}

impl<L: Word<u64>, P: Protocol> GenerationWords<L, P> {
    /// Begins an update of a zone found in state `from` by `key`; returns the odd generation. None if somebody else began
    /// one.
    pub fn begin(&self, from: ZoneState, key: ProcessKey) -> Option<u64> {
        let (found, odd) = match from {
            ZoneState::Whole(generation) => (generation, generation.wrapping_add(1)),
            ZoneState::Writing { generation, .. } => (generation, generation.wrapping_add(2)),
        };
        // Release: pairs with the acquire of `state`; who sees the odd generation sees whose it is.
        self.last_writer.store(key.word(), Ordering::Release);
        self.generation.compare_exchange(found, odd, Ordering::AcqRel).ok()?;
        // Pairs with the fence of `is_still`: the odd generation comes before what is written under it.
        fence_if(P::ZONE_WRITE_FENCE);
        Some(odd)
    }

    /// Ends the update that [`begin`](Self::begin) gave `odd` for; returns the generation of the new content.
    pub fn end(&self, odd: u64, now: u64) -> u64 {
        let even = odd.wrapping_add(1);
        // Relaxed: for people.
        self.last_write_ns.store(now, Ordering::Relaxed);
        // Release: pairs with the acquire of `state`.
        self.generation.store(even, P::ZONE_END);
        even
    }

    /// Leaves the update half done: the zone is torn, although its writer lives.
    pub fn leave_torn(&self) {
        // Release: pairs with the load of `state` of whoever judges the zone.
        self.last_writer.store(0, Ordering::Release);
    }
}
