//! What the store says about a partition: who owns it and how far it was committed (10.2). One JSON document, always written as a
//! whole, so that a claim and a commit exclude each other.

use serde::{Deserialize, Serialize};
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

/// The document of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Version of the form.
    pub v: u32,
    /// The pipeline, 16 hexadecimal digits.
    pub uid: String,
    /// Generation of the owner.
    pub generation: u64,
    /// Who it is, for people.
    pub owner: String,
    /// Random number of the session, 16 hexadecimal digits.
    pub nonce: String,
    /// How long the owner may be silent, in milliseconds.
    pub lease_ms: u64,
    /// Counts every write.
    pub hb: u64,
    /// When it was claimed, for people.
    pub claimed_ms: u64,
    /// Whether the owner has given it away.
    #[serde(default)]
    pub released: bool,
    /// The last epoch that counts.
    pub commit: Option<Commit>,
    /// The epoch that is about to become visible.
    pub intent: Option<Intent>,
}

/// A committed epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its number.
    pub epoch: u64,
    /// Whose it was.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// Digest of its record, hexadecimal.
    pub digest: String,
    /// Position of the next record to read.
    pub resume: u64,
    /// By what the source is known again, hexadecimal.
    #[serde(default)]
    pub identity: String,
    /// States of the sinks.
    pub sinks: Vec<SinkState>,
}

/// State of one sink at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkState {
    /// The sink.
    pub name: String,
    /// Its token, hexadecimal.
    pub token: String,
}

/// An epoch that is about to become visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Who is about to.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// Its number.
    pub epoch: u64,
    /// Position of its first input.
    pub first: u64,
    /// Position of its last input.
    pub last: u64,
    /// Inputs.
    pub count: u64,
    /// First and last position and count of each batch, where ids are made of batches.
    pub bounds: Option<Vec<(u64, u64, u64)>>,
}

/// What this host knows of a partition from its own ledger and sinks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// The highest generation.
    pub generation: Generation,
    /// The highest committed epoch.
    pub epoch: EpochId,
}

impl Document {
    /// Its generation.
    pub fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    /// Epoch and position of the last commit.
    pub fn committed(&self) -> Option<(EpochId, Position)> {
        self.commit.as_ref().map(|commit| (EpochId(commit.epoch), Position(commit.resume)))
    }

    /// What in it is older than what is known here (VX-714).
    pub fn behind(&self, known: &Known) -> Option<&'static str> {
        let epoch = self.commit.as_ref().map_or(0, |commit| commit.epoch);
        if self.generation < known.generation.0 {
            Some("its generation is lower than one that was used here")
        } else if epoch < known.epoch.0 {
            Some("its committed epoch is lower than one that was committed here")
        } else {
            None
        }
    }
}

/// The order in which live instances may claim a partition that is free: the first at once, each other one a quarter of the lease
/// after the one before (VX-718). Place of `own` among them.
pub fn rank(partition: PartitionId, own: &str, instances: &[String]) -> usize {
    let weight = |instance: &str| {
        let key = [&partition.0.to_be_bytes(), instance.as_bytes()].concat();
        (twox_hash::XxHash3_64::oneshot(&key), instance.to_owned())
    };
    let ours = weight(own);
    instances.iter().filter(|other| other.as_str() != own && weight(other) > ours).count()
}
