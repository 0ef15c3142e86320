//! The coordination core: how a writer and its consumers share a ring of slots without trusting that the other side
//! lives (section 5 of the sheet).
//!
//! | module | gives |
//! |---|---|
//! | [`words`] | the words of a block by name, over a mapping or over a model's atomics |
//! | [`codec`] | what the words hold; the transitions of a slot |
//! | [`config`], [`error`], [`host`] | what comes in from outside, what can go wrong |
//! | [`protocol`] | every ordering that matters, so that models can weaken it |
//! | [`writer`] | allocate, commit, abort, the floor |
//! | [`reader`] | acquire, release, validate |
//! | `lock`, `registry` | the maintenance lock; joining, leaving, evicting, reaping |
//! | [`spinlock`] | the locks that users share |
//! | [`generation`] | noticing torn zones |
//! | `adopt` | taking over a block from a dead writer |
//! | [`repair`] | standing in for a dead writer to reset single slots |
//! | [`crash`] | named steps at which tests end a process |
//!
//! # Invariants
//!
//! - `read_index <= floor_intent`, `read_index <= commit_index <= write_index <= commit_index + slot_count` (DH-052).
//! - A slot changes by one exchange that names its old word, and only as [`codec::Transition`] allows (DH-045).
//! - Nobody writes a slot while a claim covers its id, and nobody reads one without a claim (DH-058). The store of the
//!   claim and the store of DRAINING are each followed by a SeqCst fence and a load of the other's word, so one of the
//!   two sides backs off.
//! - What others write is a hint: it may make a party wait, and is never used as an address (DH-043).

pub mod codec;
pub mod config;
pub mod crash;
pub mod error;
pub mod generation;
pub mod host;
pub mod protocol;
pub mod reader;
pub mod repair;
pub mod spinlock;
pub mod words;
pub mod writer;

mod adopt;
mod event;
pub(crate) mod lock;
mod registry;
mod wait;

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod plain;
#[cfg(all(test, not(loom)))]
mod tests;

use std::marker::PhantomData;

use tidegate_shm::{clock::Nanos, sync::Ordering};

pub use adopt::{Adopted, TakeOver};
pub use registry::{Start, Ticket};

use codec::{Claim, Ctl, ProcessKey, Reg, Row, SlotId};
use config::{CoreConfig, Deadline};
use host::{Counter, Host};
use protocol::{Protocol, Shipped};
use wait::{Polling, Wait};
use words::{Control32, Control64, Load, Row64, Slot64, SlotWords, Sync32, Word, Words, WriterWords};

/// One block as one process sees it.
#[derive(Debug, Clone)]
pub struct Core<W, H, P = Shipped> {
    words: W,
    host: H,
    config: CoreConfig,
    key: ProcessKey,
    protocol: PhantomData<P>,
}

impl<W: Words, H: Host, P: Protocol> Core<W, H, P> {
    /// The block with these words and this geometry, for the process `key`.
    pub fn new(words: W, host: H, config: CoreConfig, key: ProcessKey) -> Self {
        Self { words, host, config, key, protocol: PhantomData }
    }

    /// Geometry and policies.
    #[inline]
    pub fn config(&self) -> &CoreConfig {
        &self.config
    }

    /// The words of the block.
    #[inline]
    pub fn words(&self) -> &W {
        &self.words
    }

    /// Clock, liveness and counters.
    #[inline]
    pub fn host(&self) -> &H {
        &self.host
    }

    /// The calling process.
    pub fn key(&self) -> ProcessKey {
        self.key
    }

    /// Number of rows that take part.
    pub fn active_consumers(&self) -> u32 {
        self.mask(Sync32::ActiveMask).count_ones()
    }

    /// Rows that take part.
    pub(crate) fn active_rows(&self) -> impl Iterator<Item = Row> + use<W, H, P> {
        self.rows(self.mask(Sync32::ActiveMask))
    }

    /// The control word of the slot of `id`.
    #[inline]
    fn ctl(&self, id: SlotId) -> Ctl {
        ctl_of(self.words.slot(self.config.index(id)))
    }

    /// A word of the control page that somebody else stores.
    #[inline]
    fn control(&self, field: Control64) -> u64 {
        // Acquire: pairs with the release of the writer's store (DH-049).
        self.words.control64(field).load(Ordering::Acquire)
    }

    #[inline]
    fn reg(&self, row: Row) -> Reg {
        // Acquire: pairs with the releasing stores of the registry.
        Reg(self.words.row64(row, Row64::Reg).load(Ordering::Acquire))
    }

    #[inline]
    fn claim_of(&self, row: Row) -> Claim {
        // Acquire: pairs with the release of the reader; who sees a claim gone sees its reads done.
        Claim(self.words.row64(row, Row64::Claim).load(Ordering::Acquire))
    }

    #[inline]
    fn mask(&self, field: Sync32) -> u32 {
        // Acquire: pairs with the AcqRel of whoever set the bit; who sees the bit sees the row behind it.
        self.words.sync32(field).load(Ordering::Acquire) & self.config.row_bits()
    }

    /// All rows of a mask, or all there are.
    #[inline]
    fn rows(&self, mask: u32) -> impl Iterator<Item = Row> + use<W, H, P> {
        (0..self.config.max_consumers.min(32)).map(Row).filter(move |row| mask & row.bit() != 0)
    }

    #[inline]
    pub(crate) fn wake_writer(&self) {
        let woken =
            event::wake::<P, _>(self.words.sync32(Sync32::DrainSeq), self.words.sync32(Sync32::DrainWaiters));
        if woken {
            self.host.count(Counter::WakeupsSent, 1);
        }
    }

    /// Waits until `from` is resolved, the block is closed, or there is `news`; false at the deadline. Takes no part: nothing is
    /// claimed, nobody's death is looked for, and it sleeps without slices, so the deadline is what a missed wake-up costs.
    pub(crate) fn await_commit(&self, from: SlotId, deadline: Deadline, news: impl Fn() -> bool) -> bool {
        let mut wait = self.data_wait(deadline);
        wait.timing.futex_slice = Nanos::MAX;
        let waited = wait.until::<P, (), std::convert::Infallible>(|_| {
            let there = self.control(Control64::CommitIndex) > from.0 || self.closed().is_some();
            Ok((there || news()).then_some(()))
        });
        let Ok(waited) = waited;
        waited.result.is_some()
    }

    /// Waiting for the writer to publish.
    #[inline]
    fn data_wait(&self, deadline: Deadline) -> Wait<'_, H, W::C32<'_>, W::S32<'_>> {
        let sequence = self.words.control32(Control32::DataSeq);
        self.wait_on(deadline, sequence, self.words.sync32(Sync32::DataWaiters), Polling::Eager)
    }

    /// Waiting for consumers to let go.
    fn drain_wait(&self, deadline: Deadline) -> Wait<'_, H, W::S32<'_>, W::S32<'_>> {
        let sequence = self.words.sync32(Sync32::DrainSeq);
        self.wait_on(deadline, sequence, self.words.sync32(Sync32::DrainWaiters), Polling::Gentle)
    }

    #[inline]
    fn wait_on<S, F>(&self, deadline: Deadline, sequence: S, flag: F, polling: Polling) -> Wait<'_, H, S, F> {
        let CoreConfig { wait: strategy, timing, .. } = self.config;
        Wait { host: &self.host, strategy, timing, deadline, sequence, flag, polling }
    }

    /// Adds to a counter of the caller's own row.
    #[inline]
    fn row_count(&self, row: Row, field: Row64, amount: u64) {
        let word = self.words.row64(row, field);
        // Relaxed: statistics, and nobody else stores it.
        word.store(word.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }
}

/// The control word of a slot.
#[inline]
fn ctl_of(slot: impl SlotWords) -> Ctl {
    // Acquire: pairs with the exchange that stored it, of this process or another; who sees COMMITTED sees the payload.
    Ctl(slot.word64(Slot64::Ctl).load(Ordering::Acquire))
}

impl<W: WriterWords, H: Host, P: Protocol> Core<W, H, P> {
    /// Wakes all who sleep on this block for data or news of it.
    #[inline]
    pub(crate) fn wake_readers(&self) {
        let woken = event::wake::<P, _>(
            self.words.control32_mut(Control32::DataSeq),
            self.words.sync32(Sync32::DataWaiters),
        );
        if woken {
            self.host.count(Counter::WakeupsSent, 1);
        }
    }
}
