//! Gap accounting of one epoch (7.3). Pure.

use crate::ids::Seq;

/// Follows the sequence of the descriptors of one epoch. Start a new one for each mapping (TP-127).
#[derive(Debug, Default)]
pub struct SeqTracker {
    last: Option<Seq>,
}

/// What a descriptor's sequence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeqStep {
    /// Newer than anything seen; so many frames were missed before it.
    Forward {
        /// Frames between the last one seen and this one.
        gap: u64,
    },
    /// The last one once more; dropped silently (TP-132).
    Duplicate,
    /// Older than the last one: somebody else writes, or a bug; unmap (TP-132).
    Regression,
}

impl SeqTracker {
    /// Takes the sequence of a descriptor in. Only a step forward moves the tracker.
    ///
    /// The first one of an epoch sets the baseline without a gap, also when it is 0 (TP-119, TP-120).
    pub fn step(&mut self, seq: Seq) -> SeqStep {
        let gap = match self.last {
            None => 0,
            Some(last) if seq == last => return SeqStep::Duplicate,
            Some(last) if seq < last => return SeqStep::Regression,
            Some(last) => seq.get() - last.get() - 1,
        };
        self.last = Some(seq);
        SeqStep::Forward { gap }
    }

    /// The last sequence seen.
    #[must_use]
    pub fn last(&self) -> Option<Seq> {
        self.last
    }
}
