//! `major.minor` of a schema (12.3). Minor: optional fields appended. Major: everything else.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The version of a schema. It is not part of the text and not hashed (DH-169).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaVersion {
    /// Changes with everything but an appended optional field.
    pub major: u16,
    /// Changes with each appended optional field.
    pub minor: u16,
}

impl SchemaVersion {
    /// The version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for SchemaVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let number = |digits: &str| {
            let canonical = digits == "0" || !digits.starts_with(['0', '+']);
            if canonical { digits.parse::<u16>().ok() } else { None }
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self::new(number(major)?, number(minor)?)))
            .ok_or_else(|| VersionError { found: text.chars().take(32).collect() })
    }
}

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("schema version: expected \"MAJOR.MINOR\" with numbers of 0..=65535, found {found:?}")]
pub struct VersionError {
    /// What was there, at most 32 characters of it.
    pub found: String,
}
