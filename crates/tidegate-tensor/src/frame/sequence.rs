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

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(seqs: &[u64]) -> Vec<SeqStep> {
        let mut tracker = SeqTracker::default();
        seqs.iter().map(|seq| tracker.step(Seq::new(*seq))).collect()
    }

    const fn forward(gap: u64) -> SeqStep {
        SeqStep::Forward { gap }
    }

    /// Rules: TP-119, TC-066.
    #[test]
    fn a_gap_is_what_lies_between() {
        assert_eq!(steps(&[0, 1, 4, 5]), [forward(0), forward(0), forward(2), forward(0)]);
        assert_eq!(steps(&[10, 310, 311]), [forward(0), forward(299), forward(0)]);
    }

    /// Rules: TP-120, TC-067.
    #[test]
    fn the_first_one_sets_the_baseline_whatever_it_is() {
        assert_eq!(steps(&[100]), [forward(0)]);
        assert_eq!(steps(&[0, 0]), [forward(0), SeqStep::Duplicate], "0 was seen");
        assert_eq!(SeqTracker::default().last(), None);
    }

    /// Rules: TP-119, TP-132.
    #[test]
    fn a_repetition_is_no_step_back() {
        assert_eq!(steps(&[9, 9, 3, 10]), [forward(0), SeqStep::Duplicate, SeqStep::Regression, forward(0)]);
    }
}
