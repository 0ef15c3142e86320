//! Timeouts of futures: one thread of the context, started when the first is needed, that sleeps until the next is due.
//! Calls that block their thread need none of this, they sleep by themselves.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::Waker,
    thread,
    time::{Duration, Instant},
};

/// The timers of a context.
#[derive(Clone, Default)]
pub(crate) struct Timers(Arc<Inner>);

struct Inner {
    pending: Mutex<Pending>,
    changed: Condvar,
    /// Starts the thread.
    start: fn(Timers) -> io::Result<()>,
}

impl Default for Inner {
    fn default() -> Self {
        let start = |timers: Timers| {
            thread::Builder::new().name("tidegate-mq-timer".into()).spawn(move || timers.run()).map(drop)
        };
        Self { pending: Mutex::default(), changed: Condvar::new(), start }
    }
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
    /// It is waited for by a waker alone, and rarely: when it is dropped the thread is told, which would else sleep until then.
    is_alarm: bool,
}

impl Timers {
    pub(crate) fn after(&self, delay: Duration) -> Option<Timer> {
        let due = Instant::now().checked_add(delay)?;
        Some(Timer { timers: self.clone(), due, place: None, is_alarm: false })
    }

    /// Has `waker` called when `due` has come, or at once when the system has no thread to spare, unless the timer is dropped
    /// before.
    pub(crate) fn at(&self, due: Instant, waker: &Waker) -> Timer {
        let place = Some(self.wait(due, None, waker));
        Timer { timers: self.clone(), due, place, is_alarm: true }
    }

    /// Has `waker` called when `due` has come. `place` is that of an earlier call, whose waker this one replaces.
    fn wait(&self, due: Instant, place: Option<u64>, waker: &Waker) -> u64 {
        let mut pending = self.lock();
        let place = place.unwrap_or_else(|| {
            pending.last += 1;
            pending.last
        });
        let is_new = match pending.due.entry((due, place)) {
            Entry::Occupied(mut known) => {
                known.get_mut().clone_from(waker);
                false
            }
            Entry::Vacant(free) => {
                free.insert(waker.clone());
                true
            }
        };
        if !pending.running {
            pending.running = (self.0.start)(self.clone()).is_ok();
            if !pending.running {
                drop(pending);
                // The system has no thread to spare: the task looks itself, again and again, until it has or time is up.
                waker.wake_by_ref();
            }
        } else if is_new && pending.due.first_key_value().is_some_and(|(first, _)| *first == (due, place)) {
            self.0.changed.notify_one();
        }
        place
    }

    #[cfg(test)]
    pub(crate) fn without_thread() -> Self {
        let start = |_| Err(io::ErrorKind::WouldBlock.into());
        Self(Arc::new(Inner { start, ..Inner::default() }))
    }

    /// How many are waited for.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        self.lock().due.len()
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
    /// The moment.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Whether the moment has come; if not, `waker` is called then.
    pub(crate) fn is_over(&mut self, waker: &Waker) -> bool {
        if Instant::now() >= self.due {
            return true;
        }
        self.place = Some(self.timers.wait(self.due, self.place, waker));
        false
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.timers.lock().due.remove(&(self.due, place));
            if self.is_alarm {
                self.timers.0.changed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use tidegate_io::{
        sync::{AtomicU32, Ordering},
        wait::block_on,
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(30);
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Waits for a timer of `timers`; returns for how long.
    fn wait(timers: &Timers) -> Duration {
        let start = Instant::now();
        let mut timer = timers.after(SOON).unwrap();
        let over =
            poll_fn(|context| if timer.is_over(context.waker()) { Poll::Ready(()) } else { Poll::Pending });
        block_on(over, Some(start + PATIENCE)).expect("nobody looked when the time was up");
        // At the deadline it is looked at once more, without having been woken.
        assert!(start.elapsed() < PATIENCE, "nobody woke the task");
        start.elapsed()
    }

    #[test]
    fn time_is_up_although_no_thread_can_be_had() {
        let timers = Timers::without_thread();
        assert!(wait(&timers) >= SOON);
        assert_eq!(timers.pending(), 0);
    }

    #[test]
    fn a_thread_that_could_not_be_had_at_first_is_asked_for_again() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let start = |timers: Timers| match ASKED.fetch_add(1, Ordering::Relaxed) {
            0..3 => Err(io::ErrorKind::WouldBlock.into()),
            _ => (Inner::default().start)(timers),
        };
        let timers = Timers(Arc::new(Inner { start, ..Inner::default() }));
        assert!(wait(&timers) >= SOON);
        assert_eq!(ASKED.load(Ordering::Relaxed), 4);
        assert!(timers.lock().running);
    }
}
