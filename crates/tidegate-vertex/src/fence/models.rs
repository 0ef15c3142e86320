//! Models of permit, revoke and quiesce over the shipped code; and for each choice of [`Steps`], that the code fails without
//! it (VX-725, VX-326).
//!
//! What is written under a permit is memory that may not be used by two threads at once: who has quiesced uses it without
//! any further order.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-vertex --release --lib fence::models::`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::process::Command;

use tidegate_shm::sync::{AtomicU64, CheckedCell, thread};

use super::*;

struct Slot {
    word: AtomicU64,
    written: CheckedCell,
}

impl FenceWords for Arc<Slot> {
    fn word(&self, order: Ordering) -> u64 {
        self.word.load(order)
    }
    fn exchange(&self, current: u64, new: u64, order: Ordering) -> bool {
        self.word.compare_exchange(current, new, order, Ordering::Acquire).is_ok()
    }
    fn deadline(&self) -> Nanos {
        Nanos::MAX
    }
    fn note(&self, _: Reason, _: Nanos) {}
}

/// One writer takes two permits while another thread revokes, quiesces and then uses what is written. Returns the number of
/// runs in which both a write and a refusal were seen.
fn model<S: Steps>() -> usize {
    #![allow(clippy::disallowed_types, reason = "runs of a model are counted outside of it")]
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    let mixed = std::sync::Arc::new(AtomicUsize::new(0));
    let counting = mixed.clone();
    loom::model(move || {
        let slot = Arc::new(Slot { word: AtomicU64::new(5), written: CheckedCell::new(0) });
        let guard = Guard::<_, S>::new(slot.clone(), Generation(5), || Nanos::ZERO);
        let writing = guard.clone();
        let writer = thread::spawn(move || {
            let mut done = 0;
            for _ in 0..2 {
                if let Ok(permit) = writing.permit(WriteKind::Sink) {
                    permit.words.written.write(1);
                    done += 1;
                }
            }
            done
        });
        guard.revoke(Reason::Operator);
        let ended = guard.quiesce(|| false);
        if ended == Quiesce::Quiesced {
            slot.written.write(2);
        }
        let done = writer.join().unwrap();
        if ended == Quiesce::Quiesced {
            assert_eq!(slot.written.read(), 2, "a write after quiesced");
        }
        if done == 1 {
            counting.fetch_add(1, SeqCst);
        }
        assert!(guard.permit(WriteKind::Sink).is_err() && guard.is_revoked());
    });
    mixed.load(SeqCst)
}

/// Rules: VX-326, VX-721, VX-725.
#[test]
fn after_quiesced_nothing_is_written() {
    assert!(model::<Shipped>() > 0, "no run in which the revoke came between two writes");
}

/// Defines steps that lack one thing, and the test that the model breaks without it (VX-725).
macro_rules! needed {
    ($($name:ident: $field:ident: $kind:ty = $value:expr;)*) => {$(
        #[test]
        fn $name() {
            struct Mutant;
            impl Steps for Mutant {
                const $field: $kind = $value;
            }
            assert!(breaks(|| model::<Mutant>()));
        }
    )*};
}

needed! {
    the_count_before_the_test: COUNT_FIRST: bool = false;
    the_fence_of_the_permit: PERMIT_FENCE: Option<Ordering> = None;
    the_fence_of_the_revoke: REVOKE_FENCE: Option<Ordering> = None;
    the_release_of_the_drop: UNCOUNT: Ordering = Ordering::Relaxed;
    the_acquire_of_the_last_look: SEE_COUNT: Ordering = Ordering::Relaxed;
}

/// Says, in a process of its own because a broken model may end in an abort, whether the model of the calling test breaks.
fn breaks<R>(model: impl FnOnce() -> R) -> bool {
    const INSIDE: &str = "TIDEGATE_BROKEN_MODEL";
    if std::env::var_os(INSIDE).is_some() {
        model();
        // Not broken: the caller's assertion must not fail in here.
        return true;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let reports = ["Causality violation", "a write after quiesced"];
    !output.status.success() && reports.iter().any(|report| text.contains(report))
}
