//! Owners as people and programs are told about them.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::identity::{Liveness, ProcessKey};

/// Whoever a word names as owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Which process.
    pub key: ProcessKey,
    /// What is known about it.
    pub liveness: Liveness,
}

impl Owner {
    /// Whether the kernel says that it is gone.
    pub fn is_dead(&self) -> bool {
        self.liveness == Liveness::Dead
    }
}

impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("Owner", 4)?;
        fields.serialize_field("pid", &self.key.pid())?;
        fields.serialize_field("key", &self.key.word().to_string())?;
        fields.serialize_field("start_ticks", &self.key.start_ticks().to_string())?;
        fields.serialize_field("liveness", liveness_word(self.liveness))?;
        fields.end()
    }
}

/// What is known about a process, in the word that text and JSON use.
pub fn liveness_word(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Dead => "DEAD",
        Liveness::Unknown => "unknown",
    }
}

/// As a field of JSON.
pub(super) fn liveness_field<S: Serializer>(liveness: &Liveness, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(liveness_word(*liveness))
}

/// A duration as a field of JSON, in whole milliseconds.
pub(super) fn millis<S: Serializer>(time: &Option<std::time::Duration>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        None => to.serialize_none(),
    }
}

/// A key as a field of JSON.
pub(super) fn key_field<S: Serializer>(key: &Option<ProcessKey>, to: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => to.collect_str(&key.word()),
        None => to.serialize_none(),
    }
}
