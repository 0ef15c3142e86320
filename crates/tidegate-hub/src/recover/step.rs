//! What was done: for the caller, for the log (DH-261).

use std::fmt;

use serde::Serialize;

use crate::identity::ProcessKey;

/// One thing that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it was done to.
    pub object: String,
    /// What was done.
    pub done: String,
    /// Its value before.
    pub before: String,
    /// Its value after.
    pub after: String,
    /// Why.
    pub reason: String,
    /// Whether by force.
    pub forced: bool,
}

impl Step {
    pub(super) fn new(object: impl Into<String>, done: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            object: object.into(),
            done: done.into(),
            before: String::new(),
            after: String::new(),
            reason: reason.into(),
            forced: false,
        }
    }

    pub(super) fn between(self, before: &impl ToString, after: &impl ToString) -> Self {
        Self { before: before.to_string(), after: after.to_string(), ..self }
    }

    pub(super) fn by_force(self, forced: bool) -> Self {
        Self { forced, ..self }
    }

    pub(super) fn log(&self, block: &str, actor: ProcessKey) {
        let Self { object, done, before, after, reason, forced } = self;
        if *forced {
            tracing::warn!(block, %actor, object, done, before, after, reason, "repaired by force");
        } else {
            tracing::info!(block, %actor, object, done, before, after, reason, "repaired");
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.done)
    }
}
