//! See [`Turns`].

use std::time::{Duration, Instant};

/// How a peer takes turns with us, by which its next answer is expected soon or not (MQ-057).
///
/// It is expected when the peer, the last time that it spoke after it was told something, did so within `soon` of the time
/// before. One-way traffic has no turns, and is not expected.
#[derive(Debug, Default)]
pub struct Turns {
    /// When the peer last spoke after it was told something.
    began: Option<Instant>,
    /// How much it had been told by then.
    told: u64,
    is_quick: bool,
}

impl Turns {
    /// The peer has spoken, and was told `told` so far: a number that grows.
    #[inline]
    pub fn heard(&mut self, told: u64, now: Instant, soon: Duration) {
        if told != self.told {
            self.is_quick = self.is_within(now, soon);
            self.began = Some(now);
            self.told = told;
        }
    }

    /// Whether the peer is expected to speak soon.
    #[inline]
    pub fn is_expected(&self, now: Instant, soon: Duration) -> bool {
        self.is_quick && self.is_within(now, soon)
    }

    fn is_within(&self, now: Instant, soon: Duration) -> bool {
        self.began.is_some_and(|began| now.saturating_duration_since(began) < soon)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Rules: MQ-057.
    #[test]
    fn quick_answers_are_expected_and_nothing_else() {
        const SOON: Duration = Duration::from_micros(200);
        let start = Instant::now();
        let mut turns = Turns::default();
        let mut heard = |told, micros| {
            let now = start + Duration::from_micros(micros);
            turns.heard(told, now, SOON);
            turns.is_expected(now, SOON)
        };
        assert!(!heard(10, 0), "spoke for the first time");
        assert!(!heard(10, 10), "speaks without being told anything");
        assert!(heard(20, 150), "answered quickly");
        assert!(heard(20, 349), "the rest of its answer");
        assert!(!heard(20, 350), "goes on unasked");
        assert!(!heard(30, 351), "took its time");
        assert!(heard(40, 550), "is quick again");
        assert!(!turns.is_expected(start + Duration::from_micros(750), SOON), "is late");
    }
}
