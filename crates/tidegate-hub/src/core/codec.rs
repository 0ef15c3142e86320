//! What the words of the protocol hold: ids, tags, control words, claims, rows.
//!
//! ```text
//! ctl    (tag << 3) | state          tag = id + 1, 0 = never used
//! claim  (first_id mod 2^48) << 16 | count
//! reg    (epoch << 8) | state
//! ```

pub use crate::{
    identity::ProcessKey,
    layout::{InitState, LOCK_POISONED, MAX_SLOT_ID},
};

/// Number of a write; never reused within a channel (DH-048).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u64);

impl SlotId {
    /// The id `distance` further on.
    #[must_use]
    #[inline]
    pub const fn plus(self, distance: u64) -> Self {
        Self(self.0.saturating_add(distance))
    }

    /// `id + 1`, which marks the slot that holds the id.
    #[inline]
    pub const fn tag(self) -> u64 {
        self.0.saturating_add(1)
    }

    /// The id of a tag; none for the tag of a slot that was never used.
    #[inline]
    pub const fn of_tag(tag: u64) -> Option<Self> {
        match tag.checked_sub(1) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }
}

/// Physical number of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotIndex(pub u32);

/// Number of a row of the consumer table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row(pub u32);

impl Row {
    /// Its bit in the masks.
    pub const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }
}

/// State of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Holds nothing.
    Free = 0,
    /// Is being written.
    Writing = 1,
    /// Holds a value.
    Committed = 2,
    /// Holds a value that no new reader may take.
    Draining = 3,
    /// Is still reachable for a writer that was displaced alive.
    Quarantined = 4,
}

/// The control word of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ctl(pub u64);

impl Ctl {
    /// The word for `tag` and `state`.
    #[inline]
    pub const fn new(tag: u64, state: SlotState) -> Self {
        Self((tag << 3) | state as u64)
    }

    /// Which write the slot was last used for.
    #[inline]
    pub const fn tag(self) -> u64 {
        self.0 >> 3
    }

    /// The state; none for codes that do not exist (DH-046).
    #[inline]
    pub const fn state(self) -> Option<SlotState> {
        match self.0 & 7 {
            0 => Some(SlotState::Free),
            1 => Some(SlotState::Writing),
            2 => Some(SlotState::Committed),
            3 => Some(SlotState::Draining),
            4 => Some(SlotState::Quarantined),
            _ => None,
        }
    }

    /// Whether the state is `state`.
    #[inline]
    pub fn is(self, state: SlotState) -> bool {
        self.state() == Some(state)
    }

    /// The word after `transition`; none when the slot is in no state for it (DH-045).
    #[inline]
    pub fn after(self, transition: Transition) -> Option<Self> {
        use SlotState::{Committed, Draining, Free, Quarantined, Writing};
        let state = self.state()?;
        let same = |from, to| (state == from).then(|| Self::new(self.tag(), to));
        match transition {
            Transition::Take(tag) => (tag > self.tag() && matches!(state, Free | Committed | Draining))
                .then(|| Self::new(tag, Writing)),
            Transition::Drain => same(Committed, Draining),
            Transition::Restore => same(Draining, Committed),
            Transition::Commit => same(Writing, Committed),
            Transition::Abort => same(Writing, Free),
            Transition::Discard => same(Draining, Free),
            Transition::Quarantine => same(Writing, Quarantined),
            Transition::EndQuarantine => same(Quarantined, Free),
        }
    }
}

/// The transitions of 5.2; no other exists (DH-045).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// T1, T2, T4: the slot is taken for the id with this tag.
    Take(u64),
    /// T3: no new reader may take the value.
    Drain,
    /// T5: the value is readable again.
    Restore,
    /// T6.
    Commit,
    /// T7: the id becomes a hole.
    Abort,
    /// T8: an operator throws the value away.
    Discard,
    /// T9: the writer was displaced alive.
    Quarantine,
    /// T10: the displaced writer is dead.
    EndQuarantine,
}

/// What a consumer says it is reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim(pub u64);

impl Claim {
    /// Nothing is being read.
    pub const NONE: Self = Self(0);
    /// Most ids that one claim covers.
    pub const MAX_COUNT: u32 = 0xFFFF;

    /// `count` ids from `first` on; at most [`Claim::MAX_COUNT`].
    #[inline]
    pub const fn new(first: SlotId, count: u32) -> Self {
        let count = if count > Self::MAX_COUNT { Self::MAX_COUNT } else { count };
        Self(((first.0 & LOW_48) << 16) | count as u64)
    }

    /// Whether nothing is claimed.
    pub const fn is_none(self) -> bool {
        self.0 & 0xFFFF == 0
    }

    /// Whether `id` may be among the ids. Ids 2^48 apart are taken for each other, so the answer may be a needless yes,
    /// never a wrong no.
    #[inline]
    pub const fn covers(self, id: SlotId) -> bool {
        (id.0.wrapping_sub(self.0 >> 16) & LOW_48) < self.0 & 0xFFFF
    }
}

const LOW_48: u64 = (1 << 48) - 1;

/// State of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// Nobody's.
    Free = 0,
    /// Being filled by a joiner that holds the maintenance lock.
    Joining = 1,
    /// A consumer's.
    Active = 2,
    /// Being given back.
    Leaving = 3,
    /// A consumer's that lost the right of its cursor.
    Evicted = 4,
}

/// Epoch and state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reg(pub u64);

impl Reg {
    /// The word for `epoch` and `state`.
    #[inline]
    pub const fn new(epoch: u64, state: RowState) -> Self {
        Self((epoch << 8) | state as u64)
    }

    /// How often the row was given away.
    pub const fn epoch(self) -> u64 {
        self.0 >> 8
    }

    /// The state; none for codes that do not exist.
    #[inline]
    pub const fn state(self) -> Option<RowState> {
        match self.0 & 0xFF {
            0 => Some(RowState::Free),
            1 => Some(RowState::Joining),
            2 => Some(RowState::Active),
            3 => Some(RowState::Leaving),
            4 => Some(RowState::Evicted),
            _ => None,
        }
    }

    /// Whether the state is `state`.
    #[inline]
    pub fn is(self, state: RowState) -> bool {
        self.state() == Some(state)
    }
}

/// From this value of `handover_state` on, writing goes on in another block (15.3).
pub const HANDOVER_CUT: u32 = 2;
/// The handover was called off.
pub const HANDOVER_CANCELLED: u32 = 4;
/// Bit of `taint`: a writer was displaced alive.
pub const TAINT_SEIZED: u32 = 1;
