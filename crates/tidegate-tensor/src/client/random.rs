//! Small random numbers for ids and jitter; nothing here needs to be unpredictable to an attacker.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::ids::ClientId;

/// A xorshift generator. Seeded per endpoint, so that tests repeat.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// Seeded from the operating system's randomness, which the standard library's hasher draws on.
    pub(super) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(std::process::id()))
    }

    pub(super) fn seeded(seed: u64) -> Self {
        // 0 is the one state xorshift never leaves.
        Self(seed | 1)
    }

    /// Start of a process's correlation ids (TP-290). Kept clear of the sign and of overflow.
    pub(super) fn correlation(&mut self) -> i64 {
        i64::try_from(self.next() >> 2).unwrap_or(1)
    }

    /// A non-zero client id (TP-292).
    pub(super) fn client_id(&mut self) -> ClientId {
        loop {
            let [a, b, c, d, ..] = self.next().to_le_bytes();
            let id = u32::from_le_bytes([a, b, c, d]);
            // The all-ones value is the null of optional fields elsewhere.
            if id != 0 && id != u32::MAX {
                return ClientId::new(id);
            }
        }
    }

    /// The duration, 20 % shorter to 20 % longer.
    pub(super) fn jitter(&mut self, around: Duration) -> Duration {
        let percent = u32::try_from(80 + self.next() % 41).unwrap_or(100);
        around.saturating_mul(percent) / 100
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
