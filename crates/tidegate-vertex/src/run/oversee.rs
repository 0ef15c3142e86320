//! The thread that runs a vertex can be stuck in a write: in a file system that does not answer, in a flush that takes minutes.
//! Another one waits for it, so that a fence that was revoked meanwhile has an end all the same (VX-733).

use std::{
    collections::BTreeMap,
    io,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
};

use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::ids::PartitionId;

use crate::fence::{Quiesce, Running, WriteGuard};

/// How the wait for a run ended.
#[derive(Debug)]
pub(super) enum Ended<R> {
    /// With the run.
    By(R),
    /// A partition was fenced so long ago, and these writes of it still run. The thread is left where it is.
    Stuck(PartitionId, Running),
}

/// Runs `run` on a thread of its own and waits for its end, or until writes under one of the guards that `guards` gives have gone
/// on for `longest` after a revoke. Looks at them every `look`.
///
/// # Errors
/// There is no thread left.
pub(super) fn oversee<R: Send + 'static>(
    run: impl FnOnce() -> R + Send + 'static,
    guards: impl Fn() -> Vec<(PartitionId, WriteGuard)>,
    look: Nanos,
    longest: Nanos,
) -> io::Result<Ended<R>> {
    let (end, ended) = sync_channel(1);
    let thread = thread::Builder::new().name("vertex".to_owned()).spawn(move || {
        // Nobody waits any more when it was stuck for too long.
        let _ = end.send(run());
    })?;
    let mut overdue = Overdue::default();
    loop {
        match ended.recv_timeout(look.into()) {
            Ok(result) => {
                let _ = thread.join();
                return Ok(Ended::By(result));
            }
            Err(RecvTimeoutError::Disconnected) => {
                // It panicked, and so does who asked for it.
                return match thread.join() {
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => Err(io::ErrorKind::BrokenPipe.into()),
                };
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let fenced = guards().into_iter().filter(|(_, guard)| guard.is_revoked());
        let running = fenced.filter_map(|(partition, guard)| match guard.quiesce(|| false) {
            Quiesce::Quiesced => None,
            Quiesce::Pending(running) => Some((partition, running)),
        });
        if let Some((partition, running)) = overdue.look(running, monotonic_now(), longest) {
            return Ok(Ended::Stuck(partition, running));
        }
    }
}

/// Since when partitions that were fenced have had writes.
#[derive(Debug, Default)]
struct Overdue {
    since: BTreeMap<PartitionId, Nanos>,
}

impl Overdue {
    /// `running` are those that have some now. The first that has had them all the time for `longest`.
    fn look(
        &mut self,
        running: impl Iterator<Item = (PartitionId, Running)>,
        now: Nanos,
        longest: Nanos,
    ) -> Option<(PartitionId, Running)> {
        let before = std::mem::take(&mut self.since);
        let mut found = None;
        for (partition, running) in running {
            let since = before.get(&partition).copied().unwrap_or(now);
            self.since.insert(partition, since);
            if now.saturating_sub(since) >= longest {
                found = found.or(Some((partition, running)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

    use std::sync::mpsc::channel;

    use tidegate_udf::wire::ids::Generation;

    use super::*;
    use crate::fence::{FenceTable, Reason, WriteKind};

    /// Rules: VX-733.
    #[test]
    fn only_writes_that_go_on_all_the_time_are_overdue() {
        let mut table = FenceTable::create(1, 1).unwrap();
        let (_, guard) = table.bind(PartitionId(7), Generation(1)).unwrap();
        let permit = guard.permit(WriteKind::Sink).unwrap();
        let Quiesce::Pending(one) = guard.quiesce(|| false) else { panic!("a permit that is not counted") };
        let mut overdue = Overdue::default();
        let mut look = |partition: Option<u32>, now| {
            let running = partition.map(|partition| (PartitionId(partition), one));
            overdue.look(running.into_iter(), Nanos(now), Nanos(60)).map(|(partition, _)| partition.0)
        };
        let looks = [(Some(7), 0), (Some(7), 59), (None, 60), (Some(7), 70), (Some(3), 130), (Some(3), 189)];
        for (partition, now) in looks {
            assert_eq!(look(partition, now), None, "at {now}");
        }
        assert_eq!(look(Some(3), 190), Some(3));
        drop(permit);
    }

    /// A write that does not come back: the run is left, and what still runs is told.
    /// Rules: VX-733.
    #[test]
    fn a_run_that_is_stuck_in_a_write_is_left_after_a_revoke() {
        let mut table = FenceTable::create(1, 1).unwrap();
        let (_, guard) = table.bind(PartitionId(0), Generation(1)).unwrap();
        let (writes, stuck) = (guard.clone(), channel::<()>());
        let (begun, begin) = channel();
        let revoked = guard.clone();
        let run = move || {
            let permit = writes.permit(WriteKind::Ledger).unwrap();
            begun.send(()).unwrap();
            let _ = stuck.1.recv();
            drop(permit);
        };
        let guards = move || {
            begin.try_iter().for_each(|()| revoked.revoke(Reason::Operator));
            vec![(PartitionId(0), revoked.clone())]
        };
        let ended = oversee(run, guards, Nanos::from_millis(1), Nanos::from_millis(5)).unwrap();
        let Ended::Stuck(partition, running) = ended else { panic!("{ended:?}") };
        assert_eq!((partition, running.to_string()), (PartitionId(0), "1 ledger".to_owned()));
        drop(stuck.0);
        while guard.quiesce(|| false) != Quiesce::Quiesced {
            thread::yield_now();
        }
    }

    /// Rules: VX-725.
    #[test]
    fn a_run_that_ends_is_waited_for_whatever_was_revoked() {
        let mut table = FenceTable::create(1, 1).unwrap();
        let (_, guard) = table.bind(PartitionId(0), Generation(1)).unwrap();
        guard.revoke(Reason::Operator);
        let guards = move || vec![(PartitionId(0), guard.clone())];
        let ended = oversee(|| 5, guards, Nanos::from_millis(1), Nanos::ZERO).unwrap();
        assert!(matches!(ended, Ended::By(5)), "{ended:?}");
    }
}
