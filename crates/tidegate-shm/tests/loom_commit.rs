//! Models of the commit word: every interleaving and every stale value that the memory model allows, over the shipped
//! code, and proof for each ordering that the shipped code is wrong without it.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-shm --release --test loom_commit`.

#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_types, reason = "runs of a model are counted outside of it")]

mod broken;

use std::sync::atomic::{AtomicUsize as StdUsize, Ordering::SeqCst};

use broken::breaks;
use tidegate_shm::{
    commit::{CommitReader, CommitWriter, Orderings, Shipped},
    sync::{Arc, AtomicU64, Ordering, thread},
};

/// A slot with two payload words, each of which is `10 * frame + word` in a frame that is whole.
struct Slot {
    word: AtomicU64,
    payload: [AtomicU64; 2],
}

impl Slot {
    /// A slot that holds frame 0.
    fn new() -> Self {
        Self { word: AtomicU64::new(1), payload: [AtomicU64::new(0), AtomicU64::new(1)] }
    }

    fn write<O: Orderings>(&self, frame: u64) {
        let writer = CommitWriter::<_, O>::with_orderings(&self.word);
        writer.begin(frame);
        // Relaxed: stands for the opaque copies of the payload.
        for (index, word) in self.payload.iter().enumerate() {
            word.store(10 * frame + index as u64, Ordering::Relaxed);
        }
        writer.commit(frame);
    }

    fn read_payload(&self) -> [u64; 2] {
        [0, 1].map(|index: usize| self.payload[index].load(Ordering::Relaxed))
    }

    fn reader<O: Orderings>(&self) -> CommitReader<&AtomicU64, O> {
        CommitReader::with_orderings(&self.word)
    }
}

fn whole(frame: u64) -> [u64; 2] {
    [10 * frame, 10 * frame + 1]
}

/// Explores a model and returns how often it ran and how often `accepted` and `refused` were counted; panics as the
/// model does.
fn explore(model: impl Fn(&Counts) + Send + Sync + 'static) -> (usize, usize, usize) {
    let counts = std::sync::Arc::new(Counts::default());
    let inner = counts.clone();
    loom::model(move || {
        inner.runs.fetch_add(1, SeqCst);
        model(&inner);
    });
    let counts = [&counts.runs, &counts.accepted, &counts.refused].map(|count| count.load(SeqCst));
    (counts[0], counts[1], counts[2])
}

/// Counted outside of the models' memory.
#[derive(Default)]
struct Counts {
    runs: StdUsize,
    accepted: StdUsize,
    refused: StdUsize,
}

impl Counts {
    fn count(&self, accepted: bool) {
        let count = if accepted { &self.accepted } else { &self.refused };
        count.fetch_add(1, SeqCst);
    }
}

/// A writer goes around twice while a reader makes one attempt: what is accepted must be whole.
fn lapping<O: Orderings + 'static>() -> (usize, usize, usize) {
    explore(|counts| {
        let slot = Arc::new(Slot::new());
        let writing = slot.clone();
        let writer = thread::spawn(move || {
            writing.write::<O>(1);
            writing.write::<O>(2);
        });
        let reader = slot.reader::<O>();
        let token = reader.begin();
        let accepted = if token.is_committed() {
            let payload = slot.read_payload();
            let valid = reader.validate(token);
            assert!(!valid || payload == whole(token.seq()), "torn: {payload:?} accepted as {}", token.seq());
            valid
        } else {
            false
        };
        counts.count(accepted);
        writer.join().unwrap();
    })
}

/// A reader keeps a view and validates after each use: the first failure ends the view, later ones stay failures.
fn revalidating<O: Orderings + 'static>() -> (usize, usize, usize) {
    explore(|counts| {
        let slot = Arc::new(Slot::new());
        let writing = slot.clone();
        let writer = thread::spawn(move || writing.write::<O>(1));
        let reader = slot.reader::<O>();
        let token = reader.begin();
        let mut was_valid = token.is_committed();
        for _ in 0..2 {
            let payload = slot.read_payload();
            let valid = reader.validate(token);
            assert!(!valid || payload == whole(token.seq()), "torn: {payload:?} accepted as {}", token.seq());
            assert!(was_valid || !valid, "a view became valid again");
            was_valid = valid;
        }
        counts.count(was_valid);
        writer.join().unwrap();
    })
}

struct NoBeginFence;
impl Orderings for NoBeginFence {
    const BEGIN_FENCE: Option<Ordering> = None;
}

struct RelaxedCommit;
impl Orderings for RelaxedCommit {
    const COMMIT_STORE: Ordering = Ordering::Relaxed;
}

struct NoReadFence;
impl Orderings for NoReadFence {
    const READ_FENCE: Option<Ordering> = None;
}

struct NoValidateFence;
impl Orderings for NoValidateFence {
    const VALIDATE_FENCE: Option<Ordering> = None;
}

struct RelaxedBegin;
impl Orderings for RelaxedBegin {
    const BEGIN_STORE: Ordering = Ordering::Relaxed;
}

/// Rules: TP-002, TP-107, TP-108, TP-110, TP-113, TP-114.
#[test]
fn a_lapped_reader_never_accepts_a_torn_frame() {
    let (runs, accepted, refused) = lapping::<Shipped>();
    assert!(runs > 100 && accepted > 0 && refused > 0, "{runs} runs, {accepted} accepted, {refused} refused");
}

/// Rules: TP-002, TP-116, TC-065.
#[test]
fn a_kept_view_is_refused_once_the_slot_is_reused() {
    let (runs, accepted, refused) = revalidating::<Shipped>();
    assert!(runs > 100 && accepted > 0 && refused > 0, "{runs} runs, {accepted} accepted, {refused} refused");
}

/// Rules: TP-108.
#[test]
fn the_release_fence_after_begin_is_needed() {
    assert!(breaks("the_release_fence_after_begin_is_needed", "torn", lapping::<NoBeginFence>));
}

/// Rules: TP-108, TP-116.
#[test]
fn the_release_fence_after_begin_is_needed_by_kept_views() {
    assert!(breaks(
        "the_release_fence_after_begin_is_needed_by_kept_views",
        "torn",
        revalidating::<NoBeginFence>
    ));
}

/// Rules: TP-110.
#[test]
fn the_release_of_commit_is_needed() {
    assert!(breaks("the_release_of_commit_is_needed", "torn", lapping::<RelaxedCommit>));
}

/// Rules: TP-113.
#[test]
fn the_acquire_of_the_first_load_is_needed() {
    assert!(breaks("the_acquire_of_the_first_load_is_needed", "torn", lapping::<NoReadFence>));
}

/// Rules: TP-114.
#[test]
fn the_acquire_fence_before_the_second_load_is_needed() {
    assert!(breaks("the_acquire_fence_before_the_second_load_is_needed", "torn", lapping::<NoValidateFence>));
}

/// Rules: TP-114, TP-116.
#[test]
fn the_acquire_fence_before_the_second_load_is_needed_by_kept_views() {
    assert!(breaks(
        "the_acquire_fence_before_the_second_load_is_needed_by_kept_views",
        "torn",
        revalidating::<NoValidateFence>
    ));
}

/// The fence alone orders the frame; that the store is a Release as well is for programs that read the word alone.
#[test]
fn a_relaxed_store_before_the_fence_would_do() {
    let (runs, accepted, refused) = lapping::<RelaxedBegin>();
    assert!(runs > 100 && accepted > 0 && refused > 0, "{runs} runs, {accepted} accepted, {refused} refused");
}
