//! Timeouts of futures: one thread of the context, started when the first is needed, that sleeps until the next is due.
//! Calls that block their thread need none of this, they sleep by themselves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::Waker,
    thread,
    time::{Duration, Instant},
};

/// The timers of a context.
#[derive(Clone, Default)]
pub(crate) struct Timers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    due: BTreeMap<(Instant, u64), Waker>,
    last: u64,
    running: bool,
}

/// Thread that finds nothing to do for this long ends.
const IDLE: Duration = Duration::from_secs(10);

/// A moment that somebody waits for. Dropping it leaves nothing behind (MQ-042).
pub(crate) struct Timer {
    timers: Timers,
    due: Instant,
    /// Its place among the pending ones, once somebody waits.
    place: Option<u64>,
}

impl Timers {
    pub(crate) fn after(&self, delay: Duration) -> Option<Timer> {
        let due = Instant::now().checked_add(delay)?;
        Some(Timer { timers: self.clone(), due, place: None })
    }

    fn add(&self, due: Instant, waker: &Waker) -> u64 {
        let mut pending = self.lock();
        pending.last += 1;
        let place = pending.last;
        pending.due.insert((due, place), waker.clone());
        let first = pending.due.first_key_value().is_some_and(|(key, _)| *key == (due, place));
        if !pending.running {
            let timers = self.clone();
            pending.running =
                thread::Builder::new().name("tidegate-mq-timer".into()).spawn(move || timers.run()).is_ok();
        } else if first {
            self.0.changed.notify_one();
        }
        place
    }

    fn run(&self) {
        let mut pending = self.lock();
        let mut idle_since = None;
        loop {
            let now = Instant::now();
            let mut due = Vec::new();
            while let Some(entry) = pending.due.first_entry()
                && entry.key().0 <= now
            {
                due.push(entry.remove());
            }
            if !due.is_empty() {
                drop(pending);
                due.into_iter().for_each(Waker::wake);
                pending = self.lock();
                continue;
            }
            let sleep = match pending.due.first_key_value() {
                Some(((at, _), _)) => {
                    idle_since = None;
                    at.saturating_duration_since(now)
                }
                None => {
                    let since = *idle_since.get_or_insert(now);
                    if now.saturating_duration_since(since) >= IDLE {
                        pending.running = false;
                        return;
                    }
                    IDLE
                }
            };
            pending = self.0.changed.wait_timeout(pending, sleep).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer {
    /// Whether the moment has come; if not, `waker` is called then.
    pub(crate) fn is_over(&mut self, waker: &Waker) -> bool {
        if Instant::now() >= self.due {
            return true;
        }
        match self.place {
            None => self.place = Some(self.timers.add(self.due, waker)),
            Some(place) => {
                if let Some(known) = self.timers.lock().due.get_mut(&(self.due, place)) {
                    known.clone_from(waker);
                } else {
                    self.place = Some(self.timers.add(self.due, waker));
                }
            }
        }
        false
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.timers.lock().due.remove(&(self.due, place));
        }
    }
}
