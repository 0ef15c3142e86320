//! A value that is not what it must be, in words.

use std::fmt;

/// One value of a block or of a configuration that is refused, and what would have been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// Name of the field as the sheet has it.
    pub field: &'static str,
    /// Which of several equal fields (zone, table entry, byte of a reserved range), if there are several.
    pub index: Option<u64>,
    /// What is accepted.
    pub expected: Expected,
    /// What was found.
    pub found: u64,
}

/// What is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Exactly this.
    Value(u64),
    /// Anything between these two, both included.
    Range(u64, u64),
    /// What the words say.
    Rule(&'static str),
}

impl Mismatch {
    /// `found` where only `expected` is accepted.
    pub fn value(field: &'static str, expected: u64, found: u64) -> Self {
        Self { field, index: None, expected: Expected::Value(expected), found }
    }

    /// `found` outside of `lowest` to `highest`.
    pub fn range(field: &'static str, lowest: u64, highest: u64, found: u64) -> Self {
        Self { field, index: None, expected: Expected::Range(lowest, highest), found }
    }

    /// `found` against a rule in words.
    pub fn rule(field: &'static str, rule: &'static str, found: u64) -> Self {
        Self { field, index: None, expected: Expected::Rule(rule), found }
    }

    /// The same for field number `index` of several.
    #[must_use]
    pub fn at(self, index: u64) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.field)?;
        if let Some(index) = self.index {
            write!(f, "[{index}]")?;
        }
        match self.expected {
            Expected::Value(value) => write!(f, " is {}, expected {value}", self.found),
            Expected::Range(lowest, highest) => {
                write!(f, " is {}, expected {lowest} to {highest}", self.found)
            }
            Expected::Rule(rule) => write!(f, " is {}, expected {rule}", self.found),
        }
    }
}
