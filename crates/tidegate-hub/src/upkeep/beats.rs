//! How a handle beats (16.1).

use tidegate_shm::{
    clock::Nanos,
    sync::{AtomicU64, Ordering},
};

use crate::config::HubTimeouts;

/// When beats of a handle are due, and by whom.
#[derive(Debug)]
pub(crate) struct Beats {
    interval: Nanos,
    stale: Nanos,
    by_thread: bool,
    /// The beat after which the caller was reminded last.
    reminded: AtomicU64,
}

impl Beats {
    /// Those that `timeouts` ask for, by the thread of the process or by the caller.
    pub(crate) fn new(timeouts: &HubTimeouts, by_thread: bool) -> Self {
        Self {
            interval: timeouts.heartbeat_interval.into(),
            stale: timeouts.heartbeat_stale.into(),
            by_thread,
            reminded: AtomicU64::new(0),
        }
    }

    /// Whether the thread beats.
    pub(crate) fn by_thread(&self) -> bool {
        self.by_thread
    }

    /// How often the thread beats, if it does.
    pub(crate) fn every(&self) -> Option<Nanos> {
        self.by_thread.then_some(self.interval)
    }

    /// Whether the beat at `last` is older than half the interval.
    pub(crate) fn is_overdue(&self, last: u64, now: Nanos) -> bool {
        now.0.saturating_sub(last) > self.interval.0 / 2
    }

    /// Whether a beat at `last`, if there was one, is too old.
    pub(crate) fn is_stale(&self, last: u64, now: Nanos) -> bool {
        last != 0 && now.0.saturating_sub(last) > self.stale.0
    }

    /// Warns if the caller is to beat, and its last beat is stale; once for each beat that no other one followed. When to
    /// look again.
    pub(crate) fn remind(&self, handle: &'static str, block: &str, last: u64, now: Nanos) -> Option<Nanos> {
        if self.by_thread {
            return None;
        }
        let age = now.0.saturating_sub(last);
        if age < self.stale.0 {
            return Some(Nanos(last.saturating_add(self.stale.0)));
        }
        // Relaxed: of one thread.
        if self.reminded.swap(last, Ordering::Relaxed) != last {
            let age_ms = age / 1_000_000;
            tracing::warn!(
                block,
                handle,
                age_ms,
                "nobody beats for this handle, and others take it for stale"
            );
        }
        Some(now.saturating_add(self.stale))
    }
}
