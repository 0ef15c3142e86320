//! The fence: the word a producer tests before each write.
//!
//! The word holds the lease deadline in monotonic nanoseconds; 0 means revoked. The conductor moves it forward with each
//! keepalive that was sent and stores 0 when the lease ends. A producer that slept past its deadline therefore fences
//! itself even before it has read the notice of its revocation.
//!
//! The fence is the second line: a driver gives each new producer fresh memory, so a write that slips through lands where
//! nobody reads.

use tidegate_shm::clock::Nanos;
use tidegate_shm::sync::{AtomicU64, Ordering};

/// The word (see the module documentation). One conductor writes it, any number of threads test it.
#[derive(Debug)]
pub struct Fence(AtomicU64);

/// Proof that the fence was open at [`Permit::at`].
#[derive(Debug, Clone, Copy)]
pub struct Permit {
    at: Nanos,
}

impl Fence {
    /// A closed fence.
    #[must_use]
    pub fn closed() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A fence that stays open until something closes it (no-driver mode: the producer is its own authority).
    #[must_use]
    pub fn unlimited() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Opens the fence, or keeps it open, until `deadline`.
    pub fn extend(&self, deadline: Nanos) {
        // Release: pairs with the Acquire in `test`; a writer that sees the new deadline sees the attachment it is for.
        self.0.store(deadline.as_u64(), Ordering::Release);
    }

    /// Closes the fence: no permit is given after this store is seen.
    pub fn revoke(&self) {
        // Release: pairs with the Acquire in `test`.
        self.0.store(0, Ordering::Release);
    }

    /// Tests the fence for one write.
    #[must_use]
    pub fn test(&self, now: Nanos) -> Option<Permit> {
        // Acquire: pairs with the Release in `extend` and `revoke`.
        (now.as_u64() < self.0.load(Ordering::Acquire)).then_some(Permit { at: now })
    }
}

impl Permit {
    /// When the fence was tested.
    #[must_use]
    pub fn at(self) -> Nanos {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fence is open before its deadline and not at it; a revocation closes it for all times.
    /// Rules: TP-296, TP-307.
    #[test]
    fn permits_end_with_the_deadline_and_with_a_revocation() {
        let fence = Fence::closed();
        assert!(fence.test(Nanos::ZERO).is_none());
        fence.extend(Nanos(100));
        assert_eq!(fence.test(Nanos(99)).map(Permit::at), Some(Nanos(99)));
        assert!(fence.test(Nanos(100)).is_none());
        fence.extend(Nanos(200));
        assert!(fence.test(Nanos(100)).is_some());
        fence.revoke();
        for now in [Nanos::ZERO, Nanos(1), Nanos(100)] {
            assert!(fence.test(now).is_none(), "{now:?}");
        }
    }

    #[test]
    fn an_unlimited_fence_closes_only_when_revoked() {
        let fence = Fence::unlimited();
        assert!(fence.test(Nanos(u64::MAX - 1)).is_some());
        fence.revoke();
        assert!(fence.test(Nanos::ZERO).is_none());
    }
}
