//! Where randomness comes from.

/// A source of random bytes, injected so that a session is a function of its inputs (MQ-031).
///
/// Outside tests it must be the operating system's generator: keys are made from it.
pub trait Random {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Random for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}
