//! What the store says about a partition: who owns it and how far it was committed (10.2). One JSON document, always written as a
//! whole, so that a claim and a commit exclude each other.

use serde::{Deserialize, Serialize};
use tidegate_udf::wire::ids::{EpochId, Generation, Position};

use super::super::message::{hex as bytes_hex, unhex};
use crate::{
    own::{Committed, Intended, Known},
    sink::Token,
    source::{Identity, Resume},
};

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
        let is_other = |commit: &Commit| {
            known
                .committed
                .as_ref()
                .is_some_and(|own| own.epoch.0 == commit.epoch && hex(own.digest) != commit.digest)
        };
        if self.generation < known.generation.0 {
            Some("its generation is lower than one that was used here")
        } else if epoch < known.epoch().0 {
            Some("its committed epoch is lower than one that was committed here")
        } else if self.commit.as_ref().is_some_and(is_other) {
            Some("its committed epoch is another one than that of the same number here")
        } else {
            None
        }
    }
}

impl Commit {
    /// What a session says that it has committed.
    pub fn of(committed: &Committed) -> Self {
        let Committed { epoch, generation, digest, resume, tokens } = committed;
        let state =
            |(name, token): &(String, Token)| SinkState { name: name.clone(), token: bytes_hex(&token.0) };
        Self {
            epoch: epoch.0,
            generation: generation.0,
            digest: hex(*digest),
            resume: resume.position.0,
            identity: bytes_hex(&resume.identity.0),
            sinks: tokens.iter().map(state).collect(),
        }
    }

    /// What was committed; `None` when it is not what a session writes.
    pub fn committed(&self) -> Option<Committed> {
        let mut tokens = Vec::with_capacity(self.sinks.len());
        for SinkState { name, token } in &self.sinks {
            tokens.push((name.clone(), Token(unhex(token)?)));
        }
        Some(Committed {
            epoch: EpochId(self.epoch),
            generation: Generation(self.generation),
            digest: u128::from_str_radix(&self.digest, 16).ok()?,
            resume: Resume { position: Position(self.resume), identity: Identity(unhex(&self.identity)?) },
            tokens,
        })
    }
}

impl Intent {
    /// What a session is about to make visible.
    pub fn of(intended: &Intended) -> Self {
        let Intended { generation, epoch, first, last, count } = *intended;
        Self { generation: generation.0, epoch: epoch.0, first: first.0, last: last.0, count, bounds: None }
    }

    /// What was intended.
    pub fn intended(&self) -> Intended {
        Intended {
            generation: Generation(self.generation),
            epoch: EpochId(self.epoch),
            first: Position(self.first),
            last: Position(self.last),
            count: self.count,
        }
    }
}

fn hex(digest: u128) -> String {
    format!("{digest:032x}")
}
