//! In which order commits are announced. Pure.
//!
//! Sequence numbers are given out at claim time and claims are committed in any order, but announcements leave in
//! sequence order, because a consumer takes a step back for a second writer (TP-449). A committed frame therefore waits
//! for older open claims, as long as it is at most half the ring ahead of them; then it goes, and they are never announced.
//!
//! Capture times follow the same order: no frame is older than the one before it in the sequence (TP-193).
//!
//! Invariant: an entry is either open, one per slot, or committed and at most half the ring ahead of the oldest entry.
//! That bounds the queue, so nothing allocates after [`AnnounceOrder::new`] (TP-471).

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::writer::Announcement;
use crate::ids::Seq;
use crate::layout::SlotCount;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct AnnounceOrder {
    /// How far a commit may be ahead of the oldest open claim.
    window: u64,
    /// By ascending sequence.
    waiting: VecDeque<Entry>,
    due: VecDeque<Announcement>,
    /// Capture time of the frame announced last.
    announced_time: u64,
}

#[derive(Debug)]
struct Entry {
    seq: Seq,
    commit: Option<Commit>,
}

#[derive(Debug, Clone, Copy)]
struct Commit {
    announcement: Announcement,
    timestamp: u64,
}

impl AnnounceOrder {
    pub(super) fn new(slots: SlotCount) -> Self {
        let entries = 2 * slots.get() as usize;
        Self {
            window: u64::from(slots.get() / 2).max(1),
            waiting: VecDeque::with_capacity(entries),
            due: VecDeque::with_capacity(entries),
            announced_time: 0,
        }
    }

    /// Whether no claim is waited for.
    pub(super) fn is_clear(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A claim was made; `seq` is higher than all before.
    pub(super) fn open(&mut self, seq: Seq) {
        self.waiting.push_back(Entry { seq, commit: None });
    }

    /// Capture times that fit the frame `seq`: not before the frame in front of it, not after the one behind it.
    pub(super) fn times_for(&self, seq: Seq) -> RangeInclusive<u64> {
        let place = self.waiting.partition_point(|entry| entry.seq < seq);
        let time = |entry: &Entry| entry.commit.map(|commit| commit.timestamp);
        let before = self.waiting.range(..place).rev().find_map(time).unwrap_or(self.announced_time);
        let after = self.waiting.range(place..).find_map(time).unwrap_or(u64::MAX);
        before..=after
    }

    /// Announces a frame that nothing has to wait for.
    pub(super) fn announce(&mut self, announcement: Announcement, timestamp: u64) {
        self.announced_time = self.announced_time.max(timestamp);
        self.due.push_back(announcement);
    }

    /// The open claim of this frame was committed. False when younger frames were announced already, and this one never
    /// will be.
    pub(super) fn commit(&mut self, announcement: Announcement, timestamp: u64) -> bool {
        let Ok(place) = self.waiting.binary_search_by_key(&announcement.seq, |entry| entry.seq) else {
            return false;
        };
        self.waiting[place].commit = Some(Commit { announcement, timestamp });
        self.settle();
        true
    }

    /// Forgets the open claims that `is_abandoned`, and announces what waited for them.
    pub(super) fn forget(&mut self, mut is_abandoned: impl FnMut(Seq) -> bool) {
        self.waiting.retain(|entry| entry.commit.is_some() || !is_abandoned(entry.seq));
        self.settle();
    }

    /// Whether the claim of this frame is still waited for.
    pub(super) fn awaits(&self, seq: Seq) -> bool {
        self.waiting.binary_search_by_key(&seq, |entry| entry.seq).is_ok()
    }

    /// The next announcement to send.
    pub(super) fn next_due(&mut self) -> Option<Announcement> {
        self.due.pop_front()
    }

    fn settle(&mut self) {
        let newest = self.waiting.iter().rev().find(|entry| entry.commit.is_some()).map(|entry| entry.seq);
        let Some(newest) = newest else { return };
        while let Some(front) = self.waiting.front() {
            match front.commit {
                Some(commit) => self.announce(commit.announcement, commit.timestamp),
                // Held too long: the others go ahead.
                None if newest.get().saturating_sub(front.seq.get()) > self.window => {}
                None => return,
            }
            self.waiting.pop_front();
        }
    }
}
