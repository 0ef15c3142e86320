//! What happened on a pipe, in numbers (MQ-067).
//!
//! Written under the socket's lock only, hence by plain load and store; read at any time without it. A reader may see
//! one number newer than another.
//!
//! In a quiet moment, for each direction: `entered = left + dropped_by_rule + discarded + depth`. What never entered
//! because the queue was full is in `dropped_full`, because of the budget in `dropped_over_budget`, what had no queue to enter in `unroutable`, and outbound messages that left are either written or, at the loss
//! of a connection, in `lost_in_flight`.

use std::{collections::HashMap, sync::Arc};

use tidegate_io::{
    peer::PeerKey,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock},
};

/// Counters of one direction of a pipe.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    entered: AtomicU64,
    entered_bytes: AtomicU64,
    left: AtomicU64,
    left_bytes: AtomicU64,
    dropped_full: AtomicU64,
    dropped_over_budget: AtomicU64,
    dropped_by_rule: AtomicU64,
    discarded: AtomicU64,
    depth: AtomicU64,
    deepest: AtomicU64,
    stalls: AtomicU64,
}

/// Counters of one pipe, or of the pipes of a socket that are gone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// From the application to the peer.
    pub(crate) out: Flow,
    /// From the peer to the application.
    pub(crate) inbound: Flow,
    lost_in_flight: AtomicU64,
    unroutable: AtomicU64,
}

/// One direction of a pipe, or of a socket, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowReading {
    /// Messages that entered the queue.
    pub entered: u64,
    /// Payload bytes of these.
    pub entered_bytes: u64,
    /// Messages taken out: for writing, or by the application.
    pub left: u64,
    /// Payload bytes of these.
    pub left_bytes: u64,
    /// Messages that did not enter because the queue was full.
    pub dropped_full: u64,
    /// Messages that did not enter because all queues of the context together held what they may.
    pub dropped_over_budget: u64,
    /// Messages that entered and were dropped by a rule of the pattern: filtered, not asked for, replaced by a newer.
    pub dropped_by_rule: u64,
    /// Messages that were queued when their pipe ended.
    pub discarded: u64,
    /// Messages queued now.
    pub depth: u64,
    /// Most messages ever queued at once.
    pub deepest: u64,
    /// How often the queue became full.
    pub stalls: u64,
}

/// A pipe, or a socket, in numbers (MQ-067).
///
/// In a quiet moment, for each direction: `entered = left + dropped_by_rule + discarded + depth`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// From the application to the peer.
    pub out: FlowReading,
    /// From the peer to the application.
    pub inbound: FlowReading,
    /// Messages that were being written when a connection was lost (MQ-184).
    pub lost_in_flight: u64,
    /// Messages for nobody: an unknown routing id, nothing behind it, or a requester that is gone.
    pub unroutable: u64,
}

/// Adds to a counter that only the holder of the socket's lock writes.
#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    // Relaxed: a number for people, it orders nothing; the lock keeps other writers away.
    let now = counter.load(Ordering::Relaxed);
    counter.store(now.wrapping_add(by), Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    // Relaxed: see `bump`.
    counter.load(Ordering::Relaxed)
}

impl Flow {
    #[inline]
    pub(super) fn entered(&self, messages: usize, bytes: usize, depth: usize) {
        bump(&self.entered, messages as u64);
        bump(&self.entered_bytes, bytes as u64);
        self.depth(depth);
        if depth as u64 > read(&self.deepest) {
            // Relaxed: see `bump`.
            self.deepest.store(depth as u64, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn left(&self, messages: usize, bytes: usize, depth: usize) {
        bump(&self.left, messages as u64);
        bump(&self.left_bytes, bytes as u64);
        self.depth(depth);
    }

    /// Messages taken out so far.
    #[inline]
    pub(super) fn has_left(&self) -> u64 {
        read(&self.left)
    }

    #[inline]
    pub(super) fn depth(&self, depth: usize) {
        // Relaxed: see `bump`.
        self.depth.store(depth as u64, Ordering::Relaxed);
    }

    /// Messages went over to the queue of another pipe, unread.
    pub(super) fn moved_to(&self, other: &Self, messages: usize, bytes: usize) {
        bump(&other.entered, messages as u64);
        bump(&other.entered_bytes, bytes as u64);
        other.depth(messages);
        bump(&self.entered, (messages as u64).wrapping_neg());
        bump(&self.entered_bytes, (bytes as u64).wrapping_neg());
        self.depth(0);
    }

    pub(super) fn dropped_full(&self) {
        bump(&self.dropped_full, 1);
    }

    pub(super) fn dropped_over_budget(&self) {
        bump(&self.dropped_over_budget, 1);
    }

    pub(super) fn dropped_by_rule(&self) {
        bump(&self.dropped_by_rule, 1);
    }

    pub(super) fn discarded(&self, messages: usize) {
        bump(&self.discarded, messages as u64);
    }

    pub(super) fn stalled(&self) {
        bump(&self.stalls, 1);
    }

    fn reading(&self) -> FlowReading {
        FlowReading {
            entered: read(&self.entered),
            entered_bytes: read(&self.entered_bytes),
            left: read(&self.left),
            left_bytes: read(&self.left_bytes),
            dropped_full: read(&self.dropped_full),
            dropped_over_budget: read(&self.dropped_over_budget),
            dropped_by_rule: read(&self.dropped_by_rule),
            discarded: read(&self.discarded),
            depth: read(&self.depth),
            deepest: read(&self.deepest),
            stalls: read(&self.stalls),
        }
    }

    fn absorb(&self, other: &FlowReading) {
        bump(&self.entered, other.entered);
        bump(&self.entered_bytes, other.entered_bytes);
        bump(&self.left, other.left);
        bump(&self.left_bytes, other.left_bytes);
        bump(&self.dropped_full, other.dropped_full);
        bump(&self.dropped_over_budget, other.dropped_over_budget);
        bump(&self.dropped_by_rule, other.dropped_by_rule);
        bump(&self.discarded, other.discarded);
        bump(&self.stalls, other.stalls);
        if other.deepest > read(&self.deepest) {
            // Relaxed: see `bump`.
            self.deepest.store(other.deepest, Ordering::Relaxed);
        }
    }
}

impl Counters {
    pub(super) fn lost_in_flight(&self, messages: u64) {
        bump(&self.lost_in_flight, messages);
    }

    pub(super) fn unroutable(&self) {
        bump(&self.unroutable, 1);
    }

    /// The numbers now.
    pub(crate) fn reading(&self) -> Reading {
        Reading {
            out: self.out.reading(),
            inbound: self.inbound.reading(),
            lost_in_flight: read(&self.lost_in_flight),
            unroutable: read(&self.unroutable),
        }
    }

    /// Adds the numbers of a pipe that is gone.
    pub(super) fn absorb(&self, other: &Reading) {
        self.out.absorb(&other.out);
        self.inbound.absorb(&other.inbound);
        bump(&self.lost_in_flight, other.lost_in_flight);
        bump(&self.unroutable, other.unroutable);
    }
}

impl FlowReading {
    fn plus(self, other: Self) -> Self {
        Self {
            entered: self.entered + other.entered,
            entered_bytes: self.entered_bytes + other.entered_bytes,
            left: self.left + other.left,
            left_bytes: self.left_bytes + other.left_bytes,
            dropped_full: self.dropped_full + other.dropped_full,
            dropped_over_budget: self.dropped_over_budget + other.dropped_over_budget,
            dropped_by_rule: self.dropped_by_rule + other.dropped_by_rule,
            discarded: self.discarded + other.discarded,
            depth: self.depth + other.depth,
            deepest: self.deepest.max(other.deepest),
            stalls: self.stalls + other.stalls,
        }
    }
}

impl Reading {
    /// Both together; `deepest` is the larger one.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            out: self.out.plus(other.out),
            inbound: self.inbound.plus(other.inbound),
            lost_in_flight: self.lost_in_flight + other.lost_in_flight,
            unroutable: self.unroutable + other.unroutable,
        }
    }
}

/// The numbers of a socket: of each of its pipes, and of those that are gone.
///
/// Its lock is taken when pipes come and go, and by those who read; never where messages pass (MQ-364).
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    past: Counters,
    pipes: Mutex<HashMap<PeerKey, Arc<Counters>>>,
}

impl Ledger {
    /// The counters of a new pipe.
    pub(super) fn open(&self, key: PeerKey, counters: &Arc<Counters>) {
        self.pipes().insert(key, counters.clone());
    }

    /// The pipe is gone; its numbers stay.
    pub(super) fn close(&self, key: PeerKey, counters: &Counters) {
        let mut pipes = self.pipes();
        pipes.remove(&key);
        self.past.absorb(&counters.reading());
    }

    /// Counts a message that nobody was to get.
    pub(super) fn unroutable(&self) {
        self.past.unroutable();
    }

    /// All together.
    pub(crate) fn reading(&self) -> Reading {
        let pipes = self.pipes();
        pipes.values().fold(self.past.reading(), |sum, counters| sum.plus(counters.reading()))
    }

    fn pipes(&self) -> MutexGuard<'_, HashMap<PeerKey, Arc<Counters>>> {
        lock(&self.pipes)
    }
}
