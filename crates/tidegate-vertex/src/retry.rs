//! Delays between tries (VX-601).

use tidegate_shm::clock::Nanos;

/// How long to wait before the next try, of a function and of a sink alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The first delay.
    pub initial: Nanos,
    /// How much longer the next one is; at least 1.
    pub factor: f64,
    /// The longest, before it is spread.
    pub cap: Nanos,
    /// By which share of it a delay is spread to either side, from 0 to 1, so that what failed together is not tried together.
    pub jitter: f64,
}

impl Backoff {
    /// The delay after so many that were before it; `seed` is any number, and the same delay for the same one.
    pub fn delay(&self, before: u32, seed: u64) -> Nanos {
        let factor = self.factor.powi(i32::try_from(before).unwrap_or(i32::MAX));
        // A float that is too large for a number is the largest one.
        let delay = Nanos((self.initial.0 as f64 * factor) as u64).min(self.cap);
        spread(delay, self.jitter, seed)
    }
}

/// Spreads a delay by this share to either side; `seed` is any number.
pub(crate) fn spread(delay: Nanos, share: f64, seed: u64) -> Nanos {
    let least = delay.0 as f64 * (1.0 - share);
    // From 0 to below 1, every bit of the seed counts.
    let place = (mixed(seed) >> 11) as f64 / (1u64 << 53) as f64;
    Nanos((least + place * 2.0 * share * delay.0 as f64) as u64)
}

/// The finalizer of SplitMix64.
fn mixed(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    seed ^ (seed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Nanos = Nanos::from_millis;

    /// Rules: VX-601.
    #[test]
    fn delays_grow_by_the_factor_up_to_the_cap() {
        let backoff = Backoff { initial: MS(10), factor: 3.0, cap: MS(100), jitter: 0.0 };
        let delays = [0, 1, 2, 3, 1000, u32::MAX].map(|before| backoff.delay(before, 7));
        assert_eq!(delays, [MS(10), MS(30), MS(90), MS(100), MS(100), MS(100)]);
        let even = Backoff { factor: 1.0, ..backoff };
        assert_eq!([0, 5, u32::MAX].map(|before| even.delay(before, 7)), [MS(10); 3]);
        let none = Backoff { initial: Nanos::ZERO, ..backoff };
        assert_eq!(none.delay(u32::MAX, 7), Nanos::ZERO);
    }

    /// Rules: VX-601.
    #[test]
    fn delays_are_spread_to_either_side() {
        let backoff = Backoff { initial: MS(1000), factor: 2.0, cap: MS(1000), jitter: 0.2 };
        let delays: Vec<Nanos> = (0..1000).map(|seed| backoff.delay(3, seed)).collect();
        assert!(delays.iter().all(|delay| (MS(800)..MS(1200)).contains(delay)));
        // Over all of it.
        for part in 0..4 {
            let part = MS(800 + part * 100)..MS(900 + part * 100);
            assert!(delays.iter().filter(|delay| part.contains(delay)).count() > 150, "{part:?}");
        }
        assert_eq!(backoff.delay(3, 5), delays[5]);
    }
}
