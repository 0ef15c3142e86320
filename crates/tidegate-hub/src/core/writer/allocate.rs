//! Allocating: first every slot is secured, which can be undone, then ids are given away (5.4).

use tidegate_shm::{
    clock::Nanos,
    sync::{MutexGuard, Ordering},
};

use super::{BATCH_AHEAD, CommitInfo, OpenSlot, Parked, Place, TURN_TAKEN, TURN_WANTED, Writer};
use crate::core::{
    codec::{Ctl, MAX_SLOT_ID, SlotId, SlotState, Transition},
    config::{Deadline, OnHeld, Overflow},
    crash::{self, Point},
    error::{AcquireError, Holder, WriteError},
    host::{Counter, ErrorKind, Host},
    protocol::{Protocol, fence_if},
    wait::Probes,
    words::{Control64, Load, Slot32, Slot64, SlotWords, Sync32, Word, WriterWords},
};

/// Consecutive ids whose slots are WRITING and belong to the caller until committed or aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "slots that are neither committed nor aborted stop the channel"]
pub struct Allocation {
    /// The first id.
    pub first: SlotId,
    /// How many.
    pub count: u32,
}

impl Allocation {
    /// The ids.
    pub fn ids(self) -> impl Iterator<Item = SlotId> {
        (0..u64::from(self.count)).map(move |k| self.first.plus(k))
    }
}

/// What became of the slots of a request.
enum Reservation {
    /// All are secured; with `guarded`, from readers too.
    Secured { guarded: bool },
    /// The one is being read and is to be passed over.
    PassOver,
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// Takes `n` slots with consecutive ids, or none (DH-119). None for `n = 0`.
    ///
    /// # Errors
    /// A failed or timed-out call leaves the slots and the write index as they were (DH-054), except for ids passed over
    /// because their slots were being read (DH-055).
    #[inline]
    pub fn allocate(&self, n: u32, deadline: Deadline) -> Result<Allocation, WriteError> {
        self.core.host.count(Counter::WritesAttempted, 1);
        let result = self.allocate_checked(n, deadline);
        if result == Err(AcquireError::QueueFull.into()) && deadline != Deadline::Immediate {
            // Who said that it would not wait has no error to report, who would have waited has (DH-100).
            self.core.host.count(Counter::SlotAcquireErrors, 1);
            self.core.host.error(ErrorKind::QueueFull);
        }
        self.recorded(Counter::SlotAcquireErrors, result)
    }

    #[inline]
    fn allocate_checked(&self, n: u32, deadline: Deadline) -> Result<Allocation, WriteError> {
        let available = self.core.config.slot_count.get();
        if n > available {
            return Err(WriteError::BatchTooLarge { requested: n, available });
        }
        self.check()?;
        let next = SlotId(self.own(Control64::WriteIndex));
        if n == 0 {
            return Ok(Allocation { first: next, count: 0 });
        }
        if self.core.config.is_lossy() {
            // Whoever reads it does not keep it.
            self.core.words.expect_write(self.core.config.index(next));
        } else {
            self.expect_write(self.core.config.index(next));
        }
        self.take_turn(deadline)?;
        let result = self.allocate_in_turn(n, deadline);
        self.give_turn_back();
        result
    }

    /// Takes the turn: no other thread of this process allocates until it is [given back](Self::give_turn_back).
    #[inline]
    pub(super) fn take_turn(&self, deadline: Deadline) -> Result<(), AcquireError> {
        // Acquire: pairs with the release of the thread that had the turn before.
        if self.turn.compare_exchange(0, TURN_TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait_for_turn(deadline)?;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn give_turn_back(&self) {
        // P::TURN is Release: pairs with the acquire of the thread that takes the turn next, so that it sees the ids that
        // were given away.
        if self.turn.swap(0, P::TURN) & TURN_WANTED != 0 {
            self.pass_turn_on();
        }
    }

    /// Wakes those that want the turn. Taking the mutex first means that nobody is between looking and sleeping.
    #[cold]
    fn pass_turn_on(&self) {
        if P::TURN_UNDER_MUTEX {
            drop(self.lock_prefix());
        }
        self.moved.notify_all();
    }

    #[inline]
    fn allocate_in_turn(&self, n: u32, deadline: Deadline) -> Result<Allocation, WriteError> {
        let config = &self.core.config;
        let mut may_pass_over = if n == 1 && config.on_held == OnHeld::Skip && config.slots() >= 2 {
            config.slot_count.get()
        } else {
            0
        };
        loop {
            let first = SlotId(self.own(Control64::WriteIndex));
            if first.0.saturating_add(u64::from(n)) > MAX_SLOT_ID {
                return Err(WriteError::IdSpaceExhausted);
            }
            self.in_flight_gate(first, n, deadline)?;
            if config.is_lossy() {
                self.raise_floor(first, n);
            } else {
                self.floor_gate(first, n, deadline)?;
            }
            if !P::INDEX_AFTER_TAKE {
                self.publish(Control64::WriteIndex, first.0 + u64::from(n));
            }
            match self.reserve(first, n, deadline, may_pass_over > 0)? {
                Reservation::Secured { guarded } => {
                    self.blocked.end();
                    self.take(first, n, guarded)?;
                    return Ok(Allocation { first, count: n });
                }
                Reservation::PassOver => {
                    may_pass_over -= 1;
                    self.burn(first);
                }
            }
        }
    }

    /// Waits until no other thread of this process is allocating.
    #[cold]
    fn wait_for_turn(&self, deadline: Deadline) -> Result<(), AcquireError> {
        let mut parked = self.lock_prefix();
        let mut taken = self.take_turn_or_ask();
        // One chance also for a caller that cannot wait: the other thread is likely to be done in a moment.
        if !taken && deadline == Deadline::Immediate {
            parked = self.park_for(parked, self.core.config.timing.spin);
            taken = self.take_turn_or_ask();
        }
        while !taken {
            if parked.is_over {
                return Err(AcquireError::Closed { handed_over: true });
            }
            parked = self.park(parked, deadline)?;
            taken = self.take_turn_or_ask();
        }
        Ok(())
    }

    /// Takes the turn, or leaves a note that it is wanted. Must be called under the mutex, which whoever finds the note takes
    /// before waking: no wake-up comes between the note and the sleep.
    fn take_turn_or_ask(&self) -> bool {
        // Acquire: pairs with the release of the thread that had the turn before. A note that is left for nobody costs
        // one needless wake-up call.
        self.turn.fetch_or(TURN_TAKEN | TURN_WANTED, Ordering::Acquire) & TURN_TAKEN == 0
    }

    /// Sleeps until a sibling thread moves something; an error when there is no time for that.
    pub(super) fn park<'a>(
        &self,
        parked: MutexGuard<'a, Parked>,
        deadline: Deadline,
    ) -> Result<MutexGuard<'a, Parked>, AcquireError> {
        let host = &self.core.host;
        if deadline == Deadline::Immediate {
            return Err(AcquireError::QueueFull);
        }
        let started = host.now();
        if deadline.passed(started) || host.is_cancelled() {
            host.count(Counter::WriterFullTimeout, 1);
            return Err(AcquireError::Timeout);
        }
        let slice = self.core.config.timing.futex_slice.min(deadline.left(started));
        let parked = self.park_for(parked, slice);
        self.count_waiting(host.now().saturating_sub(started), true);
        self.check()?;
        Ok(parked)
    }

    fn park_for<'a>(&self, mut parked: MutexGuard<'a, Parked>, time: Nanos) -> MutexGuard<'a, Parked> {
        parked.threads += 1;
        let mut parked = self.core.host.park(&self.moved, parked, time);
        parked.threads -= 1;
        parked
    }

    /// Never laps an id that a sibling thread is still writing.
    #[inline]
    fn in_flight_gate(&self, first: SlotId, n: u32, deadline: Deadline) -> Result<(), AcquireError> {
        let needed = self.core.config.overrun(first.0.saturating_add(u64::from(n)));
        if self.own(Control64::CommitIndex) >= needed {
            return Ok(());
        }
        let mut parked = self.lock_prefix();
        loop {
            let resolved = self.own(Control64::CommitIndex);
            if resolved >= needed {
                return Ok(());
            }
            if self.own_thread_holds(resolved, needed) {
                return Err(AcquireError::Locked { holder: Holder::Caller });
            }
            // Ids in flight are unread, so the ring is full (DH-088).
            let fail = self.core.config.overflow == Overflow::Fail;
            parked = self.park(parked, if fail { Deadline::Immediate } else { deadline })?;
        }
    }

    /// Whether there are unresolved ids in `from..to`, all of them being written by the calling thread (DH-056). There may be
    /// none: those of other threads can be resolved meanwhile.
    fn own_thread_holds(&self, from: u64, to: u64) -> bool {
        let ticket = self.core.host.thread_ticket();
        let mut unresolved =
            (from..to).map(|id| self.place(SlotId(id))).filter(|place| !self.resolved(*place)).peekable();
        unresolved.peek().is_some()
            && unresolved.all(|place| {
                // Relaxed: stored by this thread, or by another with another ticket.
                let owner: u32 = place.slot.word32(Slot32::OwnerThread).load(Ordering::Relaxed);
                owner == ticket
            })
    }

    /// Secures the slots of a request. On any other outcome all of them are as before.
    #[inline]
    fn reserve(
        &self,
        first: SlotId,
        n: u32,
        deadline: Deadline,
        may_pass_over: bool,
    ) -> Result<Reservation, AcquireError> {
        // The acquiring load of the mask pairs with the eviction: only after the bit was seen is the cursor of the row
        // not honoured any more, and then its claim is looked at behind the fence below.
        let guarded = self.core.config.is_lossy() || self.core.mask(Sync32::EvictedMask) != 0;
        if guarded {
            // On the way while the slots are: each has been written by its consumer since it was looked at.
            let rows = self.core.mask(Sync32::ActiveMask) | self.core.mask(Sync32::EvictedMask);
            self.core.rows(rows).for_each(|row| self.core.words.expect_claim(row));
        }
        let ahead = first.plus(u64::from(BATCH_AHEAD));
        let mut ahead = self.core.config.indices(ahead, n.saturating_sub(BATCH_AHEAD));
        for place in self.places(first, n) {
            if let Some((_, index)) = ahead.next() {
                // On the way by the time its turn comes: consumers have the lines of all slots of a batch.
                self.expect_write(index);
            }
            if let Err(error) = self.drain(place, guarded) {
                self.restore(first, place.behind(first));
                return Err(error);
            }
            crash::at(Point::ReserveOne);
        }
        crash::at(Point::ReserveAll);
        if !guarded {
            return Ok(Reservation::Secured { guarded });
        }
        // Pairs with the fence of the reader (5.7): either it sees DRAINING, or its claim is seen below.
        fence_if(P::WRITER_FENCE);
        crash::at(Point::WriterFence);
        let outcome = self.wait_for_readers(first, n, deadline, may_pass_over);
        if !matches!(outcome, Ok(Reservation::Secured { .. })) {
            self.restore(first, n);
        }
        outcome
    }

    fn wait_for_readers(
        &self,
        first: SlotId,
        n: u32,
        deadline: Deadline,
        may_pass_over: bool,
    ) -> Result<Reservation, AcquireError> {
        let core = &self.core;
        let timing = &core.config.timing;
        let mut probes = Probes::new(timing);
        let waited = core.drain_wait(deadline).until::<P, _, AcquireError>(|time| {
            if time > Nanos::ZERO {
                self.check()?;
            }
            if !self.is_held(first, n) {
                return Ok(Some(Reservation::Secured { guarded: true }));
            }
            if may_pass_over && (time >= timing.spin || deadline == Deadline::Immediate) {
                return Ok(Some(Reservation::PassOver));
            }
            if probes.due(time) {
                self.reap_dead_rows();
            }
            Ok(None)
        })?;
        self.count_waiting(waited.time, waited.slept);
        if let Some(outcome) = waited.result {
            return Ok(outcome);
        }
        // As with the floor: who never waits for long is blocked all the same.
        if self.blocked.is_due(core.host.now(), timing) {
            self.reap_dead_rows();
            if !self.is_held(first, n) {
                return Ok(Reservation::Secured { guarded: true });
            }
        }
        core.host.count(Counter::WriterDrainTimeout, 1);
        Err(AcquireError::Timeout)
    }

    /// Keeps new readers off a slot, where that is needed.
    #[inline]
    fn drain(&self, place: Place<W::SlotMut<'_>>, guarded: bool) -> Result<(), AcquireError> {
        let ctl = place.ctl();
        match ctl.state() {
            Some(SlotState::Free) => Ok(()),
            // The floor is above it: every consumer has passed it.
            Some(SlotState::Committed) if !guarded => Ok(()),
            Some(SlotState::Committed) => {
                self.mark_owner(place, self.core.host.thread_ticket(), self.core.host.now_roughly());
                // AcqRel: the fence that follows is what readers are ordered by; Release keeps the mark before it.
                self.core.transition(place.slot, ctl, Transition::Drain, Ordering::AcqRel)
            }
            // QUARANTINED too: nobody allocates in a block that was seized.
            _ => {
                self.core.host.count(Counter::StateTransitionErrors, 1);
                Err(AcquireError::InvalidState)
            }
        }
    }

    /// Whether a claim covers one of the slots that are DRAINING. Must come after the fence.
    fn is_held(&self, first: SlotId, n: u32) -> bool {
        let core = &self.core;
        let rows = core.mask(Sync32::ActiveMask) | core.mask(Sync32::EvictedMask);
        let mut readers = 0;
        for row in core.rows(rows) {
            let claim = core.claim_of(row);
            let covers = |ctl: Ctl| SlotId::of_tag(ctl.tag()).is_some_and(|id| claim.covers(id));
            if !claim.is_none() && self.slots(first, n).any(|ctl| ctl.is(SlotState::Draining) && covers(ctl))
            {
                readers += 1;
            }
        }
        core.host.peak(Counter::ReaderPeak, readers);
        readers > 0
    }

    fn slots(&self, first: SlotId, n: u32) -> impl Iterator<Item = Ctl> {
        self.places(first, n).map(|place| place.ctl())
    }

    /// T5 for the first `n` slots of a request: the old values can be read again.
    fn restore(&self, first: SlotId, n: u32) {
        let mut restored = false;
        for place in self.places(first, n) {
            let ctl = place.ctl();
            if ctl.is(SlotState::Draining) {
                // Release: pairs with the reader's acquire; the payload is that of the commit, whose release the
                // exchange continues. A foreign word is counted.
                let _ = self.core.transition(place.slot, ctl, Transition::Restore, Ordering::Release);
                self.clear_owner(place);
                restored = true;
            }
        }
        if restored {
            // Who wanted the newest value and met DRAINING sleeps until there is one.
            self.core.wake_readers();
        }
    }

    /// Leaves `id` without a slot: a hole (DH-055).
    fn burn(&self, id: SlotId) {
        crash::at(Point::Burn);
        self.publish(Control64::WriteIndex, id.0.saturating_add(1));
        self.core.host.count(Counter::SlotsSkippedHeld, 1);
        self.count_wraps(id, 1);
        self.resolve_prefix();
    }

    /// Makes the slots WRITING, then gives the ids away (DH-053).
    #[inline]
    fn take(&self, first: SlotId, n: u32, guarded: bool) -> Result<(), AcquireError> {
        let end = first.0.saturating_add(u64::from(n));
        let (ticket, now) = (self.core.host.thread_ticket(), self.core.host.now_roughly());
        let whole = CommitInfo { len: self.core.config.slot_size, ..CommitInfo::default() };
        for place in self.places(first, n) {
            self.mark_owner(place, ticket, now);
            let from = place.ctl();
            let take = Transition::Take(place.id.tag());
            let taken = if guarded && from.is(SlotState::Committed) && P::TAKE_AS_RESERVED {
                // What was reserved was DRAINING. Who made it readable again took this writer's place.
                Err(AcquireError::InvalidState)
            } else {
                // AcqRel: Acquire pairs with the release of the last reader's claim through `is_held`; Release with the
                // acquiring load of a reader that finds the slot taken.
                self.core.transition(place.slot, from, take, Ordering::AcqRel)
            };
            if let Err(error) = taken {
                self.check_owner()?;
                self.give_up(first, place.behind(first), n);
                return Err(error);
            }
            // What it is committed with unless told otherwise. Not before the exchange: to whoever was displaced the slot
            // may be one that is read.
            OpenSlot(place).describe(whole);
            crash::at(Point::TakeOne);
        }
        crash::at(Point::TakeAll);
        self.publish(Control64::WriteIndex, end);
        crash::at(Point::Index);
        self.count_wraps(first, n);
        Ok(())
    }

    /// A foreign word was met at the slot after `taken`: the ids taken become holes, as adoption would have it.
    fn give_up(&self, first: SlotId, taken: u32, n: u32) {
        for place in self.places(first, taken) {
            let ctl = Ctl::new(place.id.tag(), SlotState::Writing);
            let _ = self.core.transition(place.slot, ctl, Transition::Abort, Ordering::Release);
            self.clear_owner(place);
        }
        self.restore(first, n);
        self.publish(Control64::WriteIndex, first.0.saturating_add(u64::from(taken)));
        self.resolve_prefix();
    }

    /// DH-047: stored before the exchange that makes it true.
    #[inline]
    fn mark_owner(&self, place: Place<W::SlotMut<'_>>, ticket: u32, now: Nanos) {
        // Relaxed: the exchange that follows releases them.
        place.slot.word64(Slot64::Owner).store(self.core.key.word(), Ordering::Relaxed);
        place.slot.word32(Slot32::OwnerThread).store(ticket, Ordering::Relaxed);
        place.slot.word64(Slot64::StateSince).store(now.0, Ordering::Relaxed);
    }

    /// DH-057.
    #[inline]
    fn count_wraps(&self, first: SlotId, n: u32) {
        let config = &self.core.config;
        // No request is longer than the ring, so it reaches the end at most once.
        let left = config.slots() - u64::from(config.index(first).0);
        if u64::from(n) >= left {
            self.core.host.count(Counter::WriterGenerationWraps, 1);
        }
    }
}
