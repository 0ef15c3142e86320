//! The commit word: one 64-bit word that says which frame a slot holds and whether it is complete.
//!
//! ```text
//! bit 63 .................. 1   0
//!     sequence number           1 = committed, 0 = being written
//! ```
//!
//! The writer never waits and never looks at readers. It marks the slot as being written, writes, and marks it as
//! committed; a reader loads the word, reads, and loads the word again. If both loads give the same committed word, no
//! byte in between was touched (TP-002). Since sequence numbers only grow, the second check can be made at any later
//! time, so a reader may also work on the shared bytes directly and check when it is done (TP-116).
//!
//! # Orderings
//!
//! | where | what | pairs with |
//! |---|---|---|
//! | writer, `begin` | store in-progress Release, then fence Release | the reader's fence before its second load: who read a byte of this frame also sees the in-progress word |
//! | writer, `commit` | store committed Release | the reader's acquiring first load: who sees it sees all bytes of the frame |
//! | reader, `begin` | load Relaxed, then fence Acquire | the writer's `commit` |
//! | reader, `validate` | fence Acquire, then load Relaxed | the writer's `begin` |
//!
//! An acquiring load is written as relaxed load plus fence because only relaxed loads are promised to work on pages
//! mapped read-only. That the store in `begin` is itself a Release is asked for by the sheet (TP-107); the fence after
//! it is what counts (TP-108). All orderings come from one trait, `Orderings`, so that the models in
//! `tests/loom_commit.rs` can weaken one at a time in the shipped code and see it break.

use std::marker::PhantomData;

use crate::{
    region::{LoadU64, StoreU64},
    sync::{Ordering, fence_if},
};

/// The largest sequence number: 63 bits. A larger one loses its highest bit when written, and no reader that asks for
/// it accepts anything.
pub const MAX_SEQ: u64 = u64::MAX >> 1;

/// The word of a slot in which frame `seq` is being written.
pub const fn in_progress(seq: u64) -> u64 {
    seq << 1
}

/// The word of a slot that holds frame `seq`.
pub const fn committed(seq: u64) -> u64 {
    (seq << 1) | 1
}

/// The writing half. One thread at a time may write a slot (TP-109).
#[derive(Debug, Clone, Copy)]
pub struct CommitWriter<W, O = Shipped> {
    word: W,
    orderings: PhantomData<O>,
}

impl<W: StoreU64> CommitWriter<W> {
    /// The writer of the slot that `word` guards.
    #[inline]
    pub fn new(word: W) -> Self {
        Self { word, orderings: PhantomData }
    }
}

impl<W: StoreU64, O: Orderings> CommitWriter<W, O> {
    /// For models only: a writer with other orderings.
    #[cfg(loom)]
    pub fn with_orderings(word: W) -> Self {
        Self { word, orderings: PhantomData }
    }

    /// Marks the slot as being written. All writes to the slot come after this. Whoever ends here, by choice or by
    /// death, leaves a slot that no reader accepts (TP-112).
    #[inline]
    pub fn begin(&self, seq: u64) {
        // The Release of the store orders what was written before, for the next load-acquire of anybody.
        self.word.store(in_progress(seq), O::BEGIN_STORE);
        // Pairs with the fence of `CommitReader::validate`.
        fence_if(O::BEGIN_FENCE);
    }

    /// Marks the slot as holding the frame `seq`. All writes to the slot come before this.
    #[inline]
    pub fn commit(&self, seq: u64) {
        // Pairs with the fence of `CommitReader::begin`.
        self.word.store(committed(seq), O::COMMIT_STORE);
    }
}

/// The reading half.
#[derive(Debug, Clone, Copy)]
pub struct CommitReader<W, O = Shipped> {
    word: W,
    orderings: PhantomData<O>,
}

impl<W: LoadU64> CommitReader<W> {
    /// A reader of the slot that `word` guards.
    #[inline]
    pub fn new(word: W) -> Self {
        Self { word, orderings: PhantomData }
    }
}

impl<W: LoadU64, O: Orderings> CommitReader<W, O> {
    /// For models only: a reader with other orderings.
    #[cfg(loom)]
    pub fn with_orderings(word: W) -> Self {
        Self { word, orderings: PhantomData }
    }

    /// Looks at the slot once; never waits for a frame to be committed (TP-115). All reads of the slot come after
    /// this.
    #[inline]
    pub fn begin(&self) -> CommitToken {
        let word = self.word.load_relaxed();
        // Pairs with the store of `CommitWriter::commit`.
        fence_if(O::READ_FENCE);
        CommitToken(word)
    }

    /// Whether everything read from the slot since `token` was taken belongs to the frame of the token. May be asked
    /// any number of times, at any later time (TP-116). A token of a frame that was not committed never validates.
    #[inline]
    #[must_use]
    pub fn validate(&self, token: CommitToken) -> bool {
        // Pairs with the fence of `CommitWriter::begin`.
        fence_if(O::VALIDATE_FENCE);
        token.is_committed() && self.word.load_relaxed() == token.0
    }
}

/// What the commit word was when reading began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitToken(u64);

impl CommitToken {
    /// Whether the slot held a complete frame.
    pub const fn is_committed(self) -> bool {
        self.0 & 1 == 1
    }

    /// The frame that the slot held or was about to hold.
    pub const fn seq(self) -> u64 {
        self.0 >> 1
    }

    /// Whether the slot held the complete frame `seq` (TP-113, TP-118).
    pub const fn holds(self, seq: u64) -> bool {
        self.is_committed() && self.seq() == seq
    }
}

#[cfg(loom)]
pub use orderings::Orderings;
#[cfg(not(loom))]
use orderings::Orderings;
pub use orderings::Shipped;

/// Where the orderings come from. Only models may see the trait, so nobody else can choose other ones.
mod orderings {
    use super::Ordering;

    /// The orderings of the commit word; `None` leaves a fence out.
    #[allow(missing_docs, reason = "each is explained where it is used")]
    pub trait Orderings {
        const BEGIN_STORE: Ordering = Ordering::Release;
        const BEGIN_FENCE: Option<Ordering> = Some(Ordering::Release);
        const COMMIT_STORE: Ordering = Ordering::Release;
        const READ_FENCE: Option<Ordering> = Some(Ordering::Acquire);
        const VALIDATE_FENCE: Option<Ordering> = Some(Ordering::Acquire);
    }

    /// The orderings everybody uses.
    #[derive(Debug, Clone, Copy)]
    pub struct Shipped;

    impl Orderings for Shipped {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    use crate::sync::AtomicU64;

    /// Rules: TP-107, TP-112.
    #[test]
    fn the_word_is_the_number_and_a_commit_bit() {
        let word = AtomicU64::new(0);
        let writer = CommitWriter::new(&word);
        writer.begin(5);
        assert_eq!(word.load(Ordering::Relaxed), 10);
        writer.commit(5);
        assert_eq!(word.load(Ordering::Relaxed), 11);
        writer.begin(MAX_SEQ);
        assert_eq!(word.load(Ordering::Relaxed), u64::MAX - 1);
        writer.commit(MAX_SEQ);
        assert_eq!(word.load(Ordering::Relaxed), u64::MAX);
    }

    /// A frame that is being written and one of another number are both refused.
    /// Rules: TP-112, TP-113, TP-118, TC-061, TC-062.
    #[test]
    fn only_the_committed_frame_asked_for_is_accepted() {
        let word = AtomicU64::new(in_progress(5));
        let reader = CommitReader::new(&word);
        let token = reader.begin();
        assert_eq!((token.is_committed(), token.seq(), token.holds(5)), (false, 5, false));
        assert!(!reader.validate(token), "an unchanged word of an unfinished frame must not validate");

        word.store(27, Ordering::Relaxed);
        let token = reader.begin();
        assert_eq!(
            (token.is_committed(), token.seq(), token.holds(13), token.holds(5)),
            (true, 13, true, false)
        );
        assert!(!token.holds(13 + MAX_SEQ + 1), "the highest bit counts");
    }

    /// Rules: TP-113, TP-116, TC-063, TC-065.
    #[test]
    fn validation_fails_for_ever_once_the_slot_is_reused() {
        let word = AtomicU64::new(committed(5));
        let reader = CommitReader::new(&word);
        let token = reader.begin();
        assert!(reader.validate(token) && reader.validate(token));
        let writer = CommitWriter::new(&word);
        writer.begin(7);
        assert!(!reader.validate(token));
        writer.commit(7);
        assert!(!reader.validate(token));
        assert!(reader.validate(reader.begin()));
    }
}
