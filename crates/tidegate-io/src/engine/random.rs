//! Randomness for delays and names of temporary files, where nothing secret depends on it.

use std::hash::{BuildHasher, RandomState};

/// A xorshift generator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A generator seeded by the process's random hash keys.
    pub(super) fn seeded() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        let mut x = self.0;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        x
    }

    /// A number in `[0, 1)`.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
