//! Models of the ring: every interleaving of a publisher and a reader and every stale value that the memory model allows,
//! up to a number of preemptions, over the shipped code; and for each choice of [`Orders`] that the argument rests on, that
//! the code fails without it (VX-326).
//!
//! The bytes of the ring are memory that two threads may not use at once.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-udf --release --lib ring::models::`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::process::Command;

use tidegate_shm::sync::{Ordering, thread};

use super::{
    Orders, PublishError, Publisher, Reader, Shipped,
    plain::{Memory, frame, ring},
};
use crate::wire::ids::BatchId;

/// Room for two frames of 256 bytes.
const CAPACITY: u64 = 512;

/// The publisher sends batches as long as it has credit or has given up so many times; the reader reads what is there, so
/// many times. Returns the number of runs.
fn exchange<S: Orders>(sends: u64, in_flight: u32, preemptions: usize) -> usize {
    #![allow(clippy::disallowed_types, reason = "runs of a model are counted outside of it")]
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let counting = runs.clone();
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(preemptions);
    explorer.max_branches = 20_000;
    explorer.check(move || {
        counting.fetch_add(1, SeqCst);
        let (down, up) = (Memory::new(CAPACITY), Memory::new(CAPACITY));
        let geometry = ring(CAPACITY, 256, in_flight);
        let mut reader = Reader::<_, _, S>::with_orders(up.clone(), down.clone(), geometry);
        reader.open();
        let mut publisher = Publisher::<_, _, S>::with_orders(down, up, geometry);
        let sender = thread::spawn(move || {
            let mut sent = 0;
            for _ in 0..sends + 1 {
                match publisher.publish(&frame(sent + 1), &[sent as u8 + 1; 128], || true) {
                    Ok(()) => sent += 1,
                    Err(PublishError::NoCredit) => thread::yield_now(),
                    Err(error) => panic!("false accusation: {error}"),
                }
                if sent == sends {
                    break;
                }
            }
        });
        let mut received = 0;
        for _ in 0..sends + 1 {
            match reader.take() {
                Ok(Some(taken)) => {
                    received += 1;
                    assert_eq!(taken.frame.batch, BatchId(received), "order");
                    let mut payload = Vec::new();
                    reader.copy_payload(&taken, &mut payload).unwrap();
                    assert_eq!(payload, [received as u8; 128], "wrong bytes");
                    let _ = reader.release(taken);
                }
                Ok(None) => thread::yield_now(),
                Err(violation) => panic!("false accusation: {violation}"),
            }
        }
        sender.join().unwrap();
    });
    runs.load(SeqCst)
}

/// Cases: CT-56.
/// Rules: VX-210, VX-220, VX-300, VX-301, VX-303, VX-326.
#[test]
fn no_frame_is_seen_before_it_is_complete_and_nobody_is_accused() {
    let runs = exchange::<Shipped>(3, 4, 3);
    assert!(runs > 100, "{runs} runs");
}

/// Rules: VX-302, VX-326.
#[test]
fn a_window_of_one_batch_is_no_different() {
    let runs = exchange::<Shipped>(3, 1, 3);
    assert!(runs > 100, "{runs} runs");
}

/// Defines orders that lack one thing, and the test that the model breaks without it.
macro_rules! needed {
    ($($name:ident: $field:ident: $kind:ty = $value:expr, $report:expr;)*) => {$(
        #[test]
        fn $name() {
            struct Mutant;
            impl Orders for Mutant {
                const $field: $kind = $value;
            }
            assert!(breaks($report, || exchange::<Mutant>(3, 4, 3)));
        }
    )*};
}

needed! {
    the_release_of_the_head: HEAD: Ordering = Ordering::Relaxed, ACCUSED_OR_RACE;
    the_acquire_of_the_head: SEE_HEAD: Ordering = Ordering::Relaxed, ACCUSED_OR_RACE;
    the_head_after_the_frame: HEAD_LAST: bool = false, ACCUSED_OR_RACE;
    the_release_of_the_grant: GRANT: Ordering = Ordering::Relaxed, ACCUSED_OR_RACE;
    the_acquire_of_the_grant: SEE_GRANT: Ordering = Ordering::Relaxed, ACCUSED_OR_RACE;
    the_grant_loaded_before_what_was_consumed: GRANT_BEFORE_CONSUMED: bool = false, &["false accusation"];
    what_was_consumed_stored_before_the_grant: CONSUMED_BEFORE_GRANT: bool = false, &["false accusation"];
}

/// Either a check fires or loom reports memory used by two threads at once.
const ACCUSED_OR_RACE: &[&str] = &["false accusation", "Causality violation"];

/// Says, in a process of its own because a broken model may end in an abort, whether the model of the calling test breaks
/// in one of the expected ways.
fn breaks<R>(reports: &[&str], model: impl FnOnce() -> R) -> bool {
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
    !output.status.success() && reports.iter().any(|report| text.contains(report))
}
