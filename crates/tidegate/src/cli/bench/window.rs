//! The time that is measured, kept by the end that receives (MQ-501).

use std::time::Instant;

use serde_json::{Value, json};

use super::peer::{Times, print};

/// Messages after which the clock is looked at.
const GLANCE: u64 = 64;
/// Larger messages are slow enough to look at the clock for each.
const LARGE: usize = 16 << 10;

/// Begins after a warm-up, and lasts until both time and messages are enough, or it was too long.
pub(crate) struct Window {
    warm: Instant,
    times: Times,
    glance: u64,
    first: Option<Instant>,
    seen: u64,
    messages: u64,
    bytes: u64,
}

/// Where a message lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Before,
    /// The first one: it only starts the clock.
    Begin,
    Inside,
    /// The last one, which no longer counts.
    End,
}

impl Window {
    /// The warm-up begins now.
    pub(crate) fn new(times: Times) -> Self {
        Self {
            warm: Instant::now() + times.warmup,
            times,
            glance: GLANCE,
            first: None,
            seen: 0,
            messages: 0,
            bytes: 0,
        }
    }

    /// For messages that come slowly.
    pub(crate) fn of_rare_messages(times: Times) -> Self {
        Self { glance: 1, ..Self::new(times) }
    }

    /// Takes note of a message of so many bytes.
    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) -> Place {
        self.seen += 1;
        if self.seen.is_multiple_of(self.glance) || bytes > LARGE {
            let now = Instant::now();
            match self.first {
                None if now >= self.warm => {
                    self.first = Some(now);
                    print(&json!({ "begin": true }));
                    return Place::Begin;
                }
                Some(first) if self.times.is_over(now - first, self.messages) => return Place::End,
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
    pub(crate) fn result(&self) -> Value {
        let seconds = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        json!({ "messages": self.messages, "bytes": self.bytes, "seconds": seconds })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EVER: Duration = Duration::from_secs(3600);

    fn window(warmup: Duration, measure: Duration, least: u64, longest: Duration) -> Window {
        Window::new(Times { warmup, measure, least, longest })
    }

    /// Where the first messages lie, up to the last one if there is one.
    fn places(window: &mut Window) -> Vec<Place> {
        let mut places = Vec::new();
        while places.len() < 10_000 && places.last() != Some(&Place::End) {
            places.push(window.take(64));
        }
        places
    }

    /// What comes during the warm-up does not count, nor do the two messages that start and stop the clock.
    ///
    /// Rules: MQ-501.
    #[test]
    fn the_clock_runs_from_one_message_to_another_after_the_warm_up() {
        assert!(places(&mut window(EVER, EVER, 0, EVER)).iter().all(|place| *place == Place::Before));
        let mut window = window(Duration::ZERO, Duration::ZERO, 0, EVER);
        let before = Instant::now();
        let places = places(&mut window);
        let times = |wanted| places.iter().filter(|place| **place == wanted).count();
        assert_eq!(places.len(), 2 * GLANCE as usize);
        assert_eq!(
            [times(Place::Begin), times(Place::Inside), times(Place::End)],
            [1, GLANCE as usize - 1, 1]
        );
        let result = window.result();
        assert_eq!(result["messages"], GLANCE - 1);
        assert_eq!(result["bytes"], 64 * (GLANCE - 1));
        assert!(result["seconds"].as_f64() <= Some(before.elapsed().as_secs_f64()));
    }

    /// Rules: MQ-503.
    #[test]
    fn both_time_and_messages_must_be_enough() {
        let last = |places: Vec<Place>| (places.len(), places.last() == Some(&Place::End));
        let by_messages = last(places(&mut window(Duration::ZERO, Duration::ZERO, 1000, EVER)));
        assert_eq!(by_messages, (1088, true));
        let by_time = last(places(&mut window(Duration::ZERO, EVER, 1000, EVER)));
        assert_eq!(by_time, (10_000, false));
        let given_up = last(places(&mut window(Duration::ZERO, Duration::ZERO, u64::MAX, Duration::ZERO)));
        assert_eq!(given_up, (128, true));
    }
}
