//! What the thread that runs a vertex and those that watch it share.
//!
//! The table of guards is locked for as long as it takes to copy or replace a pointer, and by the running thread only when it
//! claims or loses a partition; the status only while it is replaced. Neither is held across anything that can wait.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Arc, AtomicBool, AtomicU8, AtomicU64, Condvar, Mutex, MutexGuard, Ordering},
};
use tidegate_udf::wire::ids::PartitionId;

use super::{UnknownPartition, Which, status::Status};
use crate::fence::WriteGuard;

/// What is wanted of a partition; of two wishes the greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Wish {
    /// That it runs.
    Run = 0,
    /// That nothing more is read, and what was read is finished.
    Pause = 1,
    /// The same, and then that it is given away.
    Drain = 2,
}

/// What the thread that runs the vertex is in, when it does not come round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// Its own work, or it sleeps.
    Work = 0,
    /// A call of the source.
    Source = 1,
    /// A call of a sink.
    Sink = 2,
    /// A transaction of the ledger.
    Ledger = 3,
    /// A decision in the ownership store.
    Ownership = 4,
}

impl Doing {
    fn name(code: u8) -> &'static str {
        match code {
            1 => "reading from the source",
            2 => "writing to a sink",
            3 => "writing to the ledger",
            4 => "writing to the ownership store",
            _ => "working",
        }
    }
}

pub(crate) struct Board {
    guards: Mutex<Vec<Option<WriteGuard>>>,
    wishes: Vec<AtomicU8>,
    end: AtomicBool,
    /// Somebody waits for a status.
    wanted: AtomicBool,
    said: Mutex<Said>,
    news: Condvar,
    /// When the running thread last came round.
    tick: AtomicU64,
    doing: AtomicU8,
    waker: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Said {
    /// Counts up with each status.
    number: u64,
    at: Nanos,
    status: Status,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("partitions", &self.wishes.len()).finish_non_exhaustive()
    }
}

impl Board {
    /// For so many partitions, none of them owned. `waker` makes the running thread come round.
    pub(crate) fn new(partitions: u32, waker: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            guards: Mutex::new(vec![None; partitions as usize]),
            wishes: (0..partitions).map(|_| AtomicU8::new(Wish::Run as u8)).collect(),
            end: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            said: Mutex::new(Said::default()),
            news: Condvar::new(),
            tick: AtomicU64::new(monotonic_now().0),
            doing: AtomicU8::new(Doing::Work as u8),
            waker: Box::new(waker),
        })
    }

    /// The partition is owned under this guard, or by nobody here.
    pub(crate) fn owns(&self, partition: PartitionId, guard: Option<WriteGuard>) {
        if let Some(slot) = lock(&self.guards).get_mut(partition.0 as usize) {
            *slot = guard;
        }
    }

    /// The running thread has come round.
    pub(crate) fn tick(&self) {
        // Relaxed: for people.
        self.tick.store(monotonic_now().0, Ordering::Relaxed);
    }

    /// The running thread begins or ends something that may take long.
    pub(crate) fn doing(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    pub(crate) fn wish(&self, partition: PartitionId) -> Wish {
        let wish = self.wishes.get(partition.0 as usize).map_or(0, |wish| wish.load(Ordering::Relaxed));
        match wish {
            1 => Wish::Pause,
            2 => Wish::Drain,
            _ => Wish::Run,
        }
    }

    pub(crate) fn set_wish(&self, which: Which, wish: Wish) -> Result<(), UnknownPartition> {
        // Relaxed: nothing is published with it.
        let store = |word: &AtomicU8| word.store(wish as u8, Ordering::Relaxed);
        match which {
            Which::All => self.wishes.iter().for_each(store),
            Which::One(partition) => {
                let unknown = UnknownPartition { partition, count: self.wishes.len() };
                store(self.wishes.get(partition.0 as usize).ok_or(unknown)?);
            }
        }
        Ok(())
    }

    pub(crate) fn end(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// Whether the vertex is to end when everything is drained.
    pub(crate) fn is_to_end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    pub(crate) fn wake(&self) {
        (self.waker)();
    }

    /// Whether somebody waits for a status.
    pub(crate) fn wants_status(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// What there is to know now, told by the running thread.
    pub(crate) fn say(&self, status: Status) {
        let mut said = lock(&self.said);
        *said = Said { number: said.number + 1, at: monotonic_now(), status };
        self.news.notify_all();
    }

    pub(super) fn guards(
        &self,
        which: Which,
    ) -> Result<Vec<(PartitionId, Option<WriteGuard>)>, UnknownPartition> {
        let guards = lock(&self.guards);
        let all = (0..).map(PartitionId).zip(guards.iter().cloned());
        match which {
            Which::All => Ok(all.collect()),
            Which::One(partition) => {
                let unknown = UnknownPartition { partition, count: guards.len() };
                let guard = guards.get(partition.0 as usize).ok_or(unknown)?;
                Ok(vec![(partition, guard.clone())])
            }
        }
    }

    /// A status that was told after this call began, or the last one when that takes longer than `patience`.
    pub(super) fn status(&self, patience: Duration) -> Status {
        let deadline = Instant::now() + patience;
        let mut said = lock(&self.said);
        let known = said.number;
        if !patience.is_zero() {
            self.wanted.store(true, Ordering::Relaxed);
            drop(said);
            self.wake();
            said = lock(&self.said);
        }
        while said.number == known {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            said = self.news.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut status = said.status.clone();
        let age = monotonic_now().saturating_sub(said.at);
        drop(said);
        status.age_ms = age.0 / 1_000_000;
        let quiet = monotonic_now().saturating_sub(Nanos(self.tick.load(Ordering::Relaxed)));
        status.last_seen_ms = quiet.0 / 1_000_000;
        Doing::name(self.doing.load(Ordering::Relaxed)).clone_into(&mut status.doing);
        let guards = lock(&self.guards);
        for partition in &mut status.partitions {
            // The fence as it is, whatever the running thread knows of it.
            if guards
                .get(partition.partition as usize)
                .and_then(Option::as_ref)
                .is_some_and(WriteGuard::is_revoked)
            {
                partition.revoked = true;
            }
        }
        status
    }
}

/// The data is whole at every moment: a thread that panicked while it had the lock changes nothing about that.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
