//! Where a consumer stands: what it holds, what it has passed, what comes next. Private to the consumer.

use std::collections::VecDeque;

use super::{Claim, Release, SlotId};

/// The ids from the cursor up to the end of what was looked at.
#[derive(Debug)]
pub(super) struct Position {
    low: u64,
    /// One entry per id from `low` on. Never grows beyond its first capacity.
    seen: VecDeque<Seen>,
    held: u32,
    /// Ids to be delivered again.
    open: u32,
    max_held: u32,
    max_range: u32,
    /// Ids below it are resolved, as was seen before.
    end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Being read.
    Held,
    /// Consumed, lost or a hole.
    Passed,
    /// To be delivered again.
    Open,
}

impl Position {
    pub(super) fn new(start: SlotId, max_held: u32, max_range: u32) -> Self {
        let seen = VecDeque::with_capacity(max_range as usize + 1);
        Self { low: start.0, seen, held: 0, open: 0, max_held, max_range, end: 0 }
    }

    /// The cursor: the lowest id that is not passed.
    #[inline]
    pub(super) fn low(&self) -> SlotId {
        SlotId(self.low)
    }

    /// The id to try next.
    #[inline]
    pub(super) fn next(&self) -> SlotId {
        let end = self.seen.len();
        let next = match self.open {
            0 => end,
            _ => self.seen.iter().position(|seen| *seen == Seen::Open).unwrap_or(end),
        };
        self.low().plus(next as u64)
    }

    /// How many ids from the next one on are resolved, as far as is known; `look` is asked for their end when that is less
    /// than `wanted`. The writer stores the end with every commit: looking there each time would slow down both.
    #[inline]
    pub(super) fn resolved(&mut self, wanted: u64, look: impl FnOnce() -> u64) -> u64 {
        let next = self.next().0;
        if self.end < next.saturating_add(wanted) {
            self.end = look();
        }
        self.end.saturating_sub(next)
    }

    pub(super) fn holds_any(&self) -> bool {
        self.held > 0
    }

    /// How many ids from the next one on may be claimed at once; 0 while something is held or to be delivered again.
    pub(super) fn room_for_run(&self) -> u32 {
        if self.seen.is_empty() { self.max_held.min(self.max_range) } else { 0 }
    }

    pub(super) fn max_held(&self) -> u32 {
        self.max_held
    }

    /// Whether one more may be held.
    #[inline]
    pub(super) fn may_hold_more(&self) -> bool {
        self.held < self.max_held
    }

    /// The claim on what is held and `id`; none if that is more than one claim can cover.
    #[inline]
    pub(super) fn claim_with(&self, id: SlotId) -> Option<Claim> {
        let first = self.first_held().map_or(id.0, |held| held.min(id.0));
        let last = self.last_held().map_or(id.0, |held| held.max(id.0));
        let count = last - first + 1;
        (count <= u64::from(self.max_range)).then(|| Claim::new(SlotId(first), count as u32))
    }

    /// The claim on what is held.
    #[inline]
    pub(super) fn held_range(&self) -> Claim {
        match (self.first_held(), self.last_held()) {
            (Some(first), Some(last)) => Claim::new(SlotId(first), (last - first + 1) as u32),
            _ => Claim::NONE,
        }
    }

    /// `id`, which is the next one, is being read.
    #[inline]
    pub(super) fn hold(&mut self, id: SlotId) {
        self.mark(id, Seen::Held);
        self.held += 1;
    }

    /// The next `count` ids are being read. None of them is to be delivered again: all lie behind what was seen.
    #[inline]
    pub(super) fn hold_run(&mut self, count: u32) {
        self.seen.extend(std::iter::repeat_n(Seen::Held, count as usize));
        self.held += count;
    }

    /// `id`, which is the next one, holds nothing.
    #[inline]
    pub(super) fn pass(&mut self, id: SlotId) {
        self.mark(id, Seen::Passed);
        self.settle();
    }

    /// False if `id` is not held.
    #[inline]
    pub(super) fn release(&mut self, id: SlotId, how: Release) -> bool {
        let Some(seen) = self.entry(id).filter(|seen| **seen == Seen::Held) else { return false };
        *seen = if how == Release::Consumed { Seen::Passed } else { Seen::Open };
        self.held -= 1;
        self.open += u32::from(how == Release::Redeliver);
        self.settle();
        true
    }

    /// Consumes the first `count` ids from the cursor on, if that is `first` and all of them are held.
    #[inline]
    pub(super) fn consume_run(&mut self, first: SlotId, count: usize) -> bool {
        let held = self.low() == first
            && self.seen.len() >= count
            && self.seen.iter().take(count).all(|seen| *seen == Seen::Held);
        if held {
            self.seen.drain(..count);
            self.low += count as u64;
            self.held -= count as u32;
            self.settle();
        }
        held
    }

    /// Goes on at `id`, wherever that is; nothing is held.
    pub(super) fn jump(&mut self, id: SlotId) {
        self.seen.clear();
        self.open = 0;
        self.low = id.0;
    }

    #[inline]
    fn mark(&mut self, id: SlotId, state: Seen) {
        match self.entry(id) {
            Some(seen) => {
                let was_open = std::mem::replace(seen, state) == Seen::Open;
                self.open -= u32::from(was_open);
            }
            None => self.seen.push_back(state),
        }
    }

    #[inline]
    fn entry(&mut self, id: SlotId) -> Option<&mut Seen> {
        let at = usize::try_from(id.0.checked_sub(self.low)?).ok()?;
        self.seen.get_mut(at)
    }

    #[inline]
    fn settle(&mut self) {
        while self.seen.front() == Some(&Seen::Passed) {
            self.seen.pop_front();
            self.low += 1;
        }
    }

    #[inline]
    fn first_held(&self) -> Option<u64> {
        // What is passed is not at the front, so without an open one what is held is.
        if self.held == 0 || self.open == 0 {
            return (self.held > 0).then_some(self.low);
        }
        self.seen.iter().position(|seen| *seen == Seen::Held).map(|at| self.low + at as u64)
    }

    #[inline]
    fn last_held(&self) -> Option<u64> {
        if self.held == 0 {
            return None;
        }
        self.seen.iter().rposition(|seen| *seen == Seen::Held).map(|at| self.low + at as u64)
    }
}
