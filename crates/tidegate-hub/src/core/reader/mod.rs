//! A consumer: one row, one claim, a cursor (5.5).
//!
//! A payload may be touched from the moment a call here returned [`Acquired`] until the same id is released, and at no
//! other time (DH-058).

mod latest;
mod ordered;
mod position;
mod seek;

use tidegate_shm::sync::Ordering;

use super::{
    Core,
    codec::{Claim, Ctl, Reg, RowState, SlotId, SlotIndex, SlotState},
    config::{Deadline, SyncPolicy, Timing},
    crash::{self, Point},
    ctl_of,
    error::{AcquireError, Holder, RegistryError},
    host::{Counter, ErrorKind, Host, Stamp},
    protocol::{Protocol, Shipped, fence_if},
    registry::{Start, Ticket},
    words::{Control64, Load, Row64, RowNames, Slot32, Slot64, SlotWords, Sync32, Word, Words},
};
use position::Position;

/// The reading side of a block.
#[derive(Debug)]
pub struct Reader<W, H, P = Shipped> {
    seat: Seat<W, H, P>,
    position: Position,
    /// Whether latest-value reading may return the same id again (DH-112).
    allow_repeat: bool,
    /// When it was last noted that this consumer read.
    stamped: u64,
}

/// The row of a reader, and what it does with the words of the block.
#[derive(Debug)]
struct Seat<W, H, P> {
    core: Core<W, H, P>,
    ticket: Ticket,
}

/// A slot that may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acquired {
    /// Its id.
    pub id: SlotId,
    /// Bytes of payload; at most the size of a slot.
    pub len: u64,
    /// When it was committed.
    pub commit_ns: u64,
    /// The user's.
    pub user_flags: u64,
    /// What is known about the digest.
    pub slot_flags: u32,
    /// The slot.
    pub(crate) index: SlotIndex,
    /// The control word under which it was acquired.
    ctl: Ctl,
}

impl Acquired {
    /// No slot yet.
    pub(crate) const NONE: Self = Self {
        id: SlotId(0),
        len: 0,
        commit_ns: 0,
        user_flags: 0,
        slot_flags: 0,
        index: SlotIndex(0),
        ctl: Ctl(0),
    };
}

/// What the release of a slot means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The slot was consumed (DH-104).
    Consumed,
    /// The same id is to be the next result (DH-105).
    Redeliver,
}

/// What was found where an id should be.
enum Found {
    Data(Acquired),
    Hole,
    NotReady,
    Overwritten,
}

impl<W: Words, H: Host, P: Protocol> Reader<W, H, P> {
    /// Joins a block. At most `max_held` slots can be held at a time; latest-value readers hold one.
    ///
    /// # Errors
    /// As [`Core::join`].
    pub fn join(
        core: Core<W, H, P>,
        start: Start,
        names: &RowNames,
        max_held: u32,
        deadline: Deadline,
    ) -> Result<Self, RegistryError> {
        let ticket = core.join(start, names, deadline)?;
        let limit = core.config.max_claim();
        let position = Position::new(ticket.start, max_held.clamp(1, limit), limit);
        Ok(Self { seat: Seat { core, ticket }, position, allow_repeat: false, stamped: 0 })
    }

    /// Lets latest-value reading return the same id again.
    #[must_use]
    pub fn with_repeats(self) -> Self {
        Self { allow_repeat: true, ..self }
    }

    /// Gives the row back.
    ///
    /// # Errors
    /// As [`Core::leave`].
    pub fn leave(self, deadline: Deadline) -> Result<(), RegistryError> {
        self.seat.core.leave(&self.seat.ticket, deadline)
    }

    /// The block.
    #[inline]
    pub fn core(&self) -> &Core<W, H, P> {
        &self.seat.core
    }

    /// Waits until there may be something to read, the block is closed, or there is `news`. False at the deadline; counts
    /// nothing.
    ///
    /// # Errors
    /// The row was taken away.
    pub fn wait_for(&self, deadline: Deadline, news: impl Fn() -> bool) -> Result<bool, AcquireError> {
        let waited = self.seat.core.data_wait(deadline).until::<P, (), AcquireError>(|_| {
            self.seat.check_row()?;
            Ok((self.is_ready() || news()).then_some(()))
        })?;
        Ok(waited.result.is_some())
    }

    fn is_ready(&self) -> bool {
        let there = match self.seat.core.config.sync {
            SyncPolicy::LatestOnly => self.newest().is_some(),
            SyncPolicy::SingleReader | SyncPolicy::AllReaders => self.position.next().0 < self.seat.end(),
        };
        there || self.seat.core.closed().is_some()
    }

    /// Changes how later calls wait.
    pub fn set_timing(&mut self, timing: Timing) {
        self.seat.core.config.timing = timing;
    }

    /// The row and what was promised at the start.
    pub fn ticket(&self) -> &Ticket {
        &self.seat.ticket
    }

    /// The id that is tried next.
    pub fn position(&self) -> SlotId {
        self.position.next()
    }

    /// Whether anything is held.
    pub(crate) fn holds_any(&self) -> bool {
        self.position.holds_any()
    }

    /// Whether what was read from a slot is what was committed. False only after a repair by force, or damage (DH-062).
    #[must_use]
    pub fn validate(&self, acquired: &Acquired) -> bool {
        let ctl = self.seat.core.ctl(acquired.id);
        // DRAINING: the writer wants the slot and waits for this reader's claim (T3); the value is still there.
        let valid = ctl == acquired.ctl || ctl == Ctl::new(acquired.ctl.tag(), SlotState::Draining);
        if !valid {
            self.seat.core.host.count(Counter::ReaderValidationFailed, 1);
        }
        valid
    }

    /// Lets a slot go. No payload of it may be touched any more.
    ///
    /// # Errors
    /// The slot is not held.
    #[inline]
    pub fn release(&mut self, acquired: &Acquired, how: Release) -> Result<(), AcquireError> {
        let before = self.position.low();
        self.give_back(acquired, how)?;
        self.seat.let_go(&self.position, before);
        Ok(())
    }

    /// Notes that a slot is let go; others are told by [`Seat::let_go`].
    #[inline]
    fn give_back(&mut self, acquired: &Acquired, how: Release) -> Result<(), AcquireError> {
        if !self.position.release(acquired.id, how) {
            return Err(AcquireError::InvalidState);
        }
        if how == Release::Consumed {
            self.count_consumed(1, acquired.len);
        }
        Ok(())
    }

    #[inline]
    fn count_consumed(&mut self, slots: u64, bytes: u64) {
        self.seat.core.row_count(self.seat.ticket.row, Row64::SlotsConsumed, slots);
        self.seat.core.row_count(self.seat.ticket.row, Row64::BytesConsumed, bytes);
        self.stamp_read();
    }

    fn stamp_read(&mut self) {
        // Relaxed: this consumer's own word. It says when the slot was acquired, which is near enough to tell whether a
        // millisecond is over, and costs no question for the time.
        let acquired =
            self.seat.core.words.row64(self.seat.ticket.row, Row64::ClaimSince).load(Ordering::Relaxed);
        if acquired.saturating_sub(self.stamped) >= STAMP_EVERY {
            self.stamped = acquired;
            self.seat.core.host.stamp(Stamp::LastRead, self.seat.core.host.now());
        }
    }
}

/// Nanoseconds between two notes of when this consumer read.
const STAMP_EVERY: u64 = 1_000_000;

impl<W: Words, H: Host, P: Protocol> Seat<W, H, P> {
    /// Publishes where this consumer stands, first the cursor, then the claim (DH-060), and wakes the writer.
    #[inline]
    fn let_go(&self, position: &Position, cursor_before: SlotId) {
        if position.low() != cursor_before {
            self.store_cursor(position);
        }
        self.store_claim(position.held_range());
        crash::at(Point::Unclaim);
        self.core.wake_writer();
    }

    #[inline]
    fn store_cursor(&self, position: &Position) {
        // Release: pairs with the acquire of the writer's scan; who sees it sees all reads below it done (DH-059).
        self.core.words.row64(self.ticket.row, Row64::Cursor).store(position.low().0, Ordering::Release);
        crash::at(Point::Cursor);
    }

    #[inline]
    fn store_claim(&self, claim: Claim) {
        // P::CLAIM_STORE is Release: pairs with the acquire of the writer's scan; who sees the claim gone, or a later
        // one, sees the reads under it done (DH-059).
        self.core.words.row64(self.ticket.row, Row64::Claim).store(claim.0, P::CLAIM_STORE);
    }

    /// Claims, and then looks whether the row is still ours.
    #[inline]
    fn claim(&self, position: &Position, claim: Claim) -> Result<(), AcquireError> {
        let since = self.core.words.row64(self.ticket.row, Row64::ClaimSince);
        // Relaxed: the release of the claim publishes it, so that who sees the claim never takes it for older than it is.
        since.store(self.core.host.now_roughly().0, Ordering::Relaxed);
        self.store_claim(claim);
        crash::at(Point::Claim);
        // Pairs with the fence of the writer (5.7): either it sees the claim, or DRAINING and the eviction are seen
        // below.
        fence_if(P::READER_FENCE);
        if !P::MASK_BEFORE_CLAIM {
            self.core.set_bit(Sync32::ActiveMask, self.ticket.row);
        }
        crash::at(Point::ReaderFence);
        let checked = self.check_row();
        if checked.is_err() {
            self.store_claim(position.held_range());
        }
        checked
    }

    #[inline]
    fn check_row(&self) -> Result<(), AcquireError> {
        let ours = Reg::new(self.ticket.epoch, RowState::Active);
        if self.core.reg(self.ticket.row) == ours { Ok(()) } else { Err(AcquireError::Fenced) }
    }

    /// What the slot of a resolved id holds. The id is claimed.
    #[inline]
    fn look(&self, id: SlotId, index: SlotIndex) -> Result<Found, AcquireError> {
        let slot = self.core.words.slot(index);
        let ctl = ctl_of(slot);
        let impossible = || {
            self.core.host.count(Counter::StateTransitionErrors, 1);
            AcquireError::InvalidState
        };
        let state = ctl.state().ok_or_else(impossible)?;
        if ctl.tag() != id.tag() {
            // Older: the id was passed over. Newer: the slot was taken again.
            return Ok(if ctl.tag() < id.tag() { Found::Hole } else { Found::Overwritten });
        }
        match state {
            SlotState::Committed => self.describe(id, index, ctl).map(Found::Data),
            SlotState::Free | SlotState::Quarantined => Ok(Found::Hole),
            SlotState::Draining => Ok(Found::NotReady),
            SlotState::Writing => Err(impossible()),
        }
    }

    #[inline]
    fn describe(&self, id: SlotId, index: SlotIndex, ctl: Ctl) -> Result<Acquired, AcquireError> {
        let slot = self.core.words.slot(index);
        // Relaxed, all: stored before the commit that the load of `ctl` acquired.
        let word = |field| slot.word64(field).load(Ordering::Relaxed);
        let len = word(Slot64::PayloadLen);
        if len > self.core.config.slot_size {
            return Err(AcquireError::InvalidState);
        }
        crash::at(Point::Read);
        Ok(Acquired {
            id,
            len,
            commit_ns: word(Slot64::CommitNs),
            user_flags: word(Slot64::UserFlags),
            slot_flags: slot.word32(Slot32::SlotFlags).load(Ordering::Relaxed),
            index,
            ctl,
        })
    }

    /// The end of what can be read now.
    #[inline]
    fn end(&self) -> u64 {
        self.core.control(Control64::CommitIndex)
    }

    /// Counts and records an error on its way to the caller (DH-100).
    #[inline]
    fn recorded<T>(&self, result: Result<T, AcquireError>) -> Result<T, AcquireError> {
        result.inspect_err(|error| self.record(*error))
    }

    #[cold]
    fn record(&self, error: AcquireError) {
        let kind = match error {
            AcquireError::Timeout => {
                self.core.host.count(Counter::ReaderTimeout, 1);
                self.core.row_count(self.ticket.row, Row64::ReadTimeouts, 1);
                ErrorKind::ReadTimeout
            }
            AcquireError::NotReady => ErrorKind::NotReady,
            AcquireError::Lapped { .. } => ErrorKind::Lapped,
            AcquireError::Locked { holder: Holder::Caller } => ErrorKind::WouldDeadlock,
            AcquireError::Locked { .. } => ErrorKind::Locked,
            AcquireError::Fenced => ErrorKind::Fenced,
            AcquireError::InvalidState => ErrorKind::InvalidState,
            _ => return,
        };
        self.core.host.count(Counter::SlotAcquireErrors, 1);
        self.core.host.error(kind);
    }
}
