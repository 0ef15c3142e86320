//! The time that is measured, kept by the end that receives.

use std::time::Instant;

use serde_json::{Value, json};

use crate::task::{Task, print};

/// Messages after which the clock is looked at.
const GLANCE: u64 = 64;
/// Larger messages are slow enough to look at the clock for each.
const LARGE: usize = 16 << 10;

pub struct Window<'a> {
    task: &'a Task,
    warm: Instant,
    first: Option<Instant>,
    seen: u64,
    messages: u64,
    bytes: u64,
}

#[derive(PartialEq, Eq)]
pub enum Place {
    Before,
    /// The first one: it only starts the clock.
    Begin,
    Inside,
    /// The last one, which no longer counts.
    End,
}

impl<'a> Window<'a> {
    /// The warm-up begins now.
    pub fn new(task: &'a Task) -> Self {
        Self { task, warm: Instant::now() + task.warmup, first: None, seen: 0, messages: 0, bytes: 0 }
    }

    pub fn take(&mut self, bytes: usize) -> Place {
        self.seen += 1;
        if self.seen.is_multiple_of(GLANCE) || bytes > LARGE {
            let now = Instant::now();
            match self.first {
                None if now >= self.warm => {
                    self.first = Some(now);
                    print(&json!({ "begin": true }));
                    return Place::Begin;
                }
                Some(first) => {
                    let elapsed = now - first;
                    let enough = self.messages >= self.task.least || elapsed >= self.task.longest;
                    if elapsed >= self.task.measure && enough {
                        return Place::End;
                    }
                }
                None => {}
            }
        }
        if self.first.is_none() {
            return Place::Before;
        }
        self.messages += 1;
        self.bytes += bytes as u64;
        Place::Inside
    }

    pub fn result(&self) -> Value {
        let seconds = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        json!({ "messages": self.messages, "bytes": self.bytes, "seconds": seconds })
    }
}
