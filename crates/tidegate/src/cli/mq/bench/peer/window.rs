//! The time that is measured, kept by the end that receives (MQ-501).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Task, print};

/// Messages after which the clock is looked at.
const GLANCE: u64 = 64;
/// Larger messages are slow enough to look at the clock for each.
const LARGE: usize = 16 << 10;

/// Begins after a warm-up, and lasts until both time and messages are enough, or it was too long.
pub(super) struct Window {
    warm: Instant,
    measure: Duration,
    longest: Duration,
    least: u64,
    glance: u64,
    first: Option<Instant>,
    seen: u64,
    messages: u64,
    bytes: u64,
}

/// Where a message lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    /// The first one: it only starts the clock.
    Begin,
    Inside,
    /// The last one, which no longer counts.
    End,
}

impl Window {
    /// The warm-up begins now.
    pub(super) fn new(task: &Task) -> Self {
        Self {
            warm: Instant::now() + task.warmup,
            measure: task.measure,
            longest: task.longest,
            least: task.least,
            glance: GLANCE,
            first: None,
            seen: 0,
            messages: 0,
            bytes: 0,
        }
    }

    /// For messages that come slowly.
    pub(super) fn of_rare_messages(task: &Task) -> Self {
        Self { glance: 1, ..Self::new(task) }
    }

    /// Takes note of a message of so many bytes.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) -> Place {
        self.seen += 1;
        if self.seen.is_multiple_of(self.glance) || bytes > LARGE {
            let now = Instant::now();
            match self.first {
                None if now >= self.warm => {
                    self.first = Some(now);
                    print(&json!({ "begin": true }));
                    return Place::Begin;
                }
                Some(first) if self.is_over(now - first) => return Place::End,
                _ => {}
            }
        }
        if self.first.is_none() {
            return Place::Before;
        }
        self.messages += 1;
        self.bytes += bytes as u64;
        Place::Inside
    }

    /// What was measured, when it is over.
    pub(super) fn result(&self) -> Value {
        let seconds = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        json!({ "messages": self.messages, "bytes": self.bytes, "seconds": seconds })
    }

    fn is_over(&self, elapsed: Duration) -> bool {
        elapsed >= self.measure && (self.messages >= self.least || elapsed >= self.longest)
    }
}
