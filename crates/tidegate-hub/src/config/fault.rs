//! What is wrong with a configuration.

use std::fmt;

use crate::layout::{Mismatch, SecurityLevel};

/// A configuration that cannot be used; nothing was made (DH-095).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not valid: {}", list(.faults))]
pub struct ConfigInvalid {
    /// Every field that is wrong.
    pub faults: Vec<Fault>,
}

impl ConfigInvalid {
    /// The code of annex B.
    pub fn code(&self) -> u16 {
        153
    }
}

/// One field that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A value out of range, or that does not go with another one.
    Value(Mismatch),
    /// A secret is missing, or given where none is used.
    Secret {
        /// The level asked for.
        level: SecurityLevel,
    },
    /// A block that is to be adopted must be named.
    AdoptWithoutUuid,
    /// A reader of the newest value holds one slot.
    MaxHeld {
        /// Asked for.
        max_held: u32,
    },
}

impl Fault {
    /// Name of the field.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Value(mismatch) => mismatch.field,
            Self::Secret { .. } => "secret",
            Self::AdoptWithoutUuid => "uuid",
            Self::MaxHeld { .. } => "max_held",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(mismatch) => mismatch.fmt(f),
            Self::Secret { level } => {
                write!(
                    f,
                    "secret does not go with security level {level}; give one exactly at levels 1 and 2"
                )
            }
            Self::AdoptWithoutUuid => f.write_str("uuid is missing; name the block that is to be adopted"),
            Self::MaxHeld { max_held } => write!(f, "max_held is {max_held}, expected 1 to 65535"),
        }
    }
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
}
