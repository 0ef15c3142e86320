//! What revoking a fence takes while other threads write under it.

use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use serde_json::json;
use tidegate::shm::sync::{Arc, AtomicBool, Mutex, Ordering, spin_loop};
use tidegate::vertex::fence::{FenceTable, Guard, Quiesce, Reason, SlotWords, WriteKind};
use tidegate_udf::wire::ids::{Generation, PartitionId};

use super::{Task, failed};
use crate::cli::bench::peer::{finish, histogram, print, recorded};
use crate::output::Stop;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The word is stored.
    Revoked,
    /// No write runs any more.
    Quiesced,
}

/// Revokes again and again, each time under a new generation that a thread takes permits of all the time.
pub(super) fn run(task: &Task, until: Until) -> Result<(), Stop> {
    let mut table = FenceTable::create(1, 1).map_err(|error| failed(&error))?;
    let mut generation = 0;
    let mut next = || {
        generation += 1;
        let bound = table.bind(PartitionId(0), Generation(generation)).map_err(|error| failed(&error))?;
        Ok::<_, Stop>(bound.1)
    };
    let current = Arc::new(Mutex::new(next()?));
    let over = Arc::new(AtomicBool::new(false));
    let (writes, stop) = (current.clone(), over.clone());
    let writer = thread::spawn(move || write(&writes, &stop));
    let mut times = histogram()?;
    let (mut messages, mut begin) = (0u64, None);
    let warm = Instant::now() + task.times.warmup;
    loop {
        // Some writes between two of them.
        thread::yield_now();
        let guard = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let decided = Instant::now();
        guard.revoke(Reason::Operator);
        if until == Until::Quiesced {
            let quiesced = guard.quiesce(|| {
                thread::yield_now();
                decided.elapsed() < task.times.measure
            });
            if quiesced != Quiesce::Quiesced {
                return Err(failed(&"writes did not end"));
            }
        }
        let took = decided.elapsed();
        // No write of the old generation may run when the slot gets its next one.
        while guard.quiesce(|| false) != Quiesce::Quiesced {
            thread::yield_now();
        }
        *current.lock().unwrap_or_else(PoisonError::into_inner) = next()?;
        match begin {
            None if decided >= warm => {
                print(&json!({ "begin": true }));
                begin = Some(Instant::now());
            }
            Some(first) => {
                times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                messages += 1;
                if task.times.is_over(decided.saturating_duration_since(first), messages) {
                    // Relaxed: nothing is published with it.
                    over.store(true, Ordering::Relaxed);
                    let _ = writer.join();
                    let seconds = first.elapsed().as_secs_f64();
                    finish(
                        &json!({ "messages": messages, "seconds": seconds, "histogram": recorded(&times) }),
                    )
                }
            }
            None => {}
        }
    }
}

/// Writes of a microsecond or so, one after the other.
fn write(current: &Mutex<Guard<SlotWords>>, over: &AtomicBool) {
    // Relaxed: nothing is published with it.
    let is_over = || over.load(Ordering::Relaxed);
    while !is_over() {
        let guard = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The last generation is not revoked.
        while !is_over()
            && let Ok(permit) = guard.permit(WriteKind::Request)
        {
            (0..50).for_each(|_| spin_loop());
            drop(permit);
        }
        // Lets the next generation in.
        thread::yield_now();
    }
}
