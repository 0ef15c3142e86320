//! In which order commits are announced. Pure.
//!
//! Sequence numbers are given out at claim time and claims are committed in any order, but announcements leave in
//! sequence order, because a consumer takes a step back for a second writer (TP-449). A committed frame therefore waits
//! for older open claims, as long as it is at most half the ring ahead of them; then it goes, and they are never announced.
//!
//! Capture times follow the same order: no frame is older than the one before it in the sequence (TP-193).
//!
//! Invariant: an entry is either open, one per slot, or committed and at most half the ring ahead of an open one. That
//! bounds the queue, so nothing allocates after [`AnnounceOrder::new`] (TP-471).

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
        while let Some(first) = self.waiting.iter().position(|entry| entry.commit.is_some()) {
            let ahead_of = |open: &Entry| newest.get().saturating_sub(open.seq.get());
            let open = first.checked_sub(1).and_then(|last| self.waiting.get(last));
            if open.is_some_and(|open| ahead_of(open) <= self.window) {
                return;
            }
            // Claims held too long: the others go ahead.
            self.waiting.drain(..first);
            if let Some(commit) = self.waiting.pop_front().and_then(|entry| entry.commit) {
                self.announce(commit.announcement, commit.timestamp);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(slots: u32) -> AnnounceOrder {
        AnnounceOrder::new(SlotCount::new(slots).unwrap())
    }

    fn announcement(seq: u64) -> Announcement {
        Announcement { seq: Seq::new(seq), meta_version: None, trace_id: None }
    }

    fn due(order: &mut AnnounceOrder) -> Vec<u64> {
        std::iter::from_fn(|| order.next_due()).map(|announcement| announcement.seq.get()).collect()
    }

    /// Rules: TP-449, TC-199.
    #[test]
    fn commits_leave_in_sequence_order() {
        for slots in [4, 8] {
            let mut order = order(slots);
            (0..3).for_each(|seq| order.open(Seq::new(seq)));
            assert!(order.commit(announcement(2), 0));
            assert!(order.commit(announcement(1), 0));
            assert!(due(&mut order).is_empty());
            assert!(order.commit(announcement(0), 0));
            assert_eq!(due(&mut order), [0, 1, 2], "{slots} slots");
            assert!(order.is_clear());
        }
    }

    /// The window is half the ring, counted from what is committed, not from what is claimed.
    /// Rules: TP-449.
    #[test]
    fn an_old_claim_holds_up_half_a_ring_at_most() {
        let mut order = order(8);
        (0..8).for_each(|seq| order.open(Seq::new(seq)));
        for seq in 1..=4 {
            assert!(order.commit(announcement(seq), 0));
            assert!(due(&mut order).is_empty());
        }
        assert!(order.awaits(Seq::new(0)));
        assert!(order.commit(announcement(5), 0));
        assert_eq!(due(&mut order), [1, 2, 3, 4, 5]);
        assert!(!order.awaits(Seq::new(0)));
        assert!(!order.commit(announcement(0), 0), "too late");
        assert!(due(&mut order).is_empty());
    }

    #[test]
    fn nothing_waits_for_an_abandoned_claim() {
        let mut order = order(8);
        (0..4).for_each(|seq| order.open(Seq::new(seq)));
        order.commit(announcement(1), 0);
        order.commit(announcement(3), 0);
        order.forget(|seq| seq == Seq::new(0));
        assert_eq!(due(&mut order), [1]);
        order.forget(|seq| seq == Seq::new(2));
        assert_eq!(due(&mut order), [3]);
    }

    /// Rules: TP-193.
    #[test]
    fn capture_times_must_fit_between_their_neighbours() {
        let mut order = order(8);
        order.announce(announcement(0), 10);
        (1..5).for_each(|seq| order.open(Seq::new(seq)));
        assert_eq!(order.times_for(Seq::new(3)), 10..=u64::MAX);
        order.commit(announcement(3), 30);
        assert_eq!(order.times_for(Seq::new(1)), 10..=30);
        assert_eq!(order.times_for(Seq::new(4)), 30..=u64::MAX);
        order.commit(announcement(1), 15);
        assert_eq!(order.times_for(Seq::new(2)), 15..=30);
    }

    /// What a claim can go through.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Open,
        Commit(usize),
        Forget(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Open), (0..8usize).prop_map(Step::Commit), (0..8usize).prop_map(Step::Forget)]
    }

    proptest! {
        /// What TP-449 promises, for any course of events: announcements go up; none is withheld but for an older open
        /// claim at most half the ring behind; none is lost unless younger ones went ahead; the queues never grow.
        /// Rules: TP-449, TP-471.
        #[test]
        fn announcements_go_up_and_wait_no_longer_than_the_window(
            shift in 0..5u32,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let slots = 1u64 << shift;
            let window = (slots / 2).max(1);
            let mut order = order(1 << shift);
            let capacities = (order.waiting.capacity(), order.due.capacity());
            let (mut next, mut open, mut withheld) = (0, Vec::new(), Vec::new());
            let mut last: Option<u64> = None;
            for step in steps {
                match step {
                    // One claim a slot, as the claim table sees to.
                    Step::Open if open.iter().all(|seq| seq % slots != next % slots) => {
                        order.open(Seq::new(next));
                        open.push(next);
                        next += 1;
                    }
                    Step::Commit(which) if which < open.len() => {
                        let seq = open.remove(which);
                        let in_time = last.is_none_or(|last| seq > last);
                        prop_assert_eq!(order.commit(announcement(seq), 0), in_time);
                        if in_time {
                            withheld.push(seq);
                        }
                    }
                    Step::Forget(which) if which < open.len() => {
                        let gone = open.remove(which);
                        order.forget(|seq| seq.get() == gone);
                    }
                    Step::Open | Step::Commit(_) | Step::Forget(_) => {}
                }
                for seq in due(&mut order) {
                    prop_assert!(last.is_none_or(|last| seq > last), "{seq} after {last:?}");
                    prop_assert!(withheld.contains(&seq), "{seq} was not committed");
                    withheld.retain(|waiting| *waiting != seq);
                    last = Some(seq);
                }
                let newest = withheld.iter().max().copied().unwrap_or(0);
                for seq in &withheld {
                    let holds_up = |older: &u64| {
                        older < seq && newest - older <= window && last.is_none_or(|last| *older > last)
                    };
                    prop_assert!(open.iter().any(holds_up), "{seq} waits for nothing; open: {open:?}");
                }
                prop_assert_eq!((order.waiting.capacity(), order.due.capacity()), capacities);
            }
        }
    }
}
