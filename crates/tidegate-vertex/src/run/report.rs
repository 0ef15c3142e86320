//! What became of every input (VX-003).

/// Counts at the end of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Inputs read.
    pub read: u64,
    /// Inputs whose outputs were written.
    pub delivered: u64,
    /// Inputs without outputs.
    pub filtered: u64,
    /// Inputs that could not be processed and were left out as configured.
    pub dropped: u64,
    /// Outputs written.
    pub outputs: u64,
    /// Answers of a generation that was over.
    pub stale: u64,
    /// Sessions of workers that ended while the vertex ran.
    pub restarts: u64,
    /// Partitions that stopped: number, position of the input, reason.
    pub stopped: Vec<(u32, u64, String)>,
}

impl Report {
    /// Inputs that are still to be read again: read, and without an outcome.
    pub fn returned(&self) -> u64 {
        self.read.saturating_sub(self.delivered + self.filtered + self.dropped)
    }
}
