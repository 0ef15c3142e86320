//! See [`Signal`].

use std::marker::PhantomData;

use crate::sync::{AtomicBool, Ordering};

/// A wake-up that is on its way or not (MQ-058).
///
/// Whoever has something new for the receiver makes it visible, then raises the signal, and wakes the receiver only if
/// told so. The receiver lowers the signal and then looks for news. Both are read-modify-write operations of one word,
/// so they have one order: a raise that comes after the last lowering wakes, and the news of one that came before it
/// is seen by the receiver, since lowering reads what raising wrote.
#[derive(Debug)]
pub struct Signal<O = Shipped> {
    raised: AtomicBool,
    orderings: PhantomData<O>,
}

impl Signal {
    /// A signal that is not raised.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { raised: AtomicBool::new(false), orderings: PhantomData }
    }

    /// A signal that is not raised.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self::with_orderings()
    }
}

impl Default for Signal {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(private_bounds, reason = "orderings are public to models only")]
impl<O: Orderings> Signal<O> {
    /// For models only: a signal with other orderings.
    #[cfg(loom)]
    pub fn with_orderings() -> Self {
        Self { raised: AtomicBool::new(false), orderings: PhantomData }
    }

    /// Raises the signal. True when the receiver must be woken; false when a wake-up is already on its way.
    #[inline]
    pub fn raise(&self) -> bool {
        // Pairs with `lower`: what was written before is seen by the receiver after.
        !self.raised.swap(true, O::RAISE)
    }

    /// Lowers the signal; to be called by the receiver before it looks for news. True when it was raised.
    #[inline]
    pub fn lower(&self) -> bool {
        // Pairs with `raise`. A mere store would not read what a raise wrote.
        self.raised.swap(false, O::LOWER)
    }
}

mod orderings {
    use super::Ordering;

    /// The memory orderings of a [`Signal`](super::Signal); models weaken them one by one.
    pub trait Orderings {
        /// Of [`Signal::raise`](super::Signal::raise).
        const RAISE: Ordering = Ordering::Release;
        /// Of [`Signal::lower`](super::Signal::lower).
        const LOWER: Ordering = Ordering::Acquire;
    }

    /// The orderings in use.
    #[derive(Debug, Clone, Copy)]
    pub struct Shipped;
    impl Orderings for Shipped {}
}

#[cfg(loom)]
pub use orderings::Orderings;
#[cfg(not(loom))]
use orderings::Orderings;
pub use orderings::Shipped;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Rules: MQ-058.
    #[test]
    fn a_receiver_is_woken_once_until_it_has_run() {
        let signal = Signal::new();
        assert!(signal.raise());
        assert!(!signal.raise());
        assert!(signal.lower());
        assert!(!signal.lower());
        assert!(signal.raise());
    }
}
