//! Why a configuration was refused, and what it warns about.

use std::fmt;

use thiserror::Error;

use super::range::IdRange;
use crate::channel::{ChannelError, Clash};
use crate::ids::AeronStreamId;

/// A configuration that a driver must not start with (TP-463). Each error names the key, what was found and what is
/// allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not TOML.
    #[error("line {line}: not valid TOML: {problem}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// The parser's description.
        problem: String,
    },
    /// A value of the wrong type or outside its limits.
    #[error("`{key}` ({origin}) must be {allowed}, found {found}")]
    Value {
        /// Full key.
        key: String,
        /// Where the value comes from.
        origin: Origin,
        /// The value, cut when long.
        found: String,
        /// What the key takes.
        allowed: &'static str,
    },
    /// A channel that cannot be parsed.
    #[error("`{key}` ({origin}): {source}")]
    Channel {
        /// Full key.
        key: String,
        /// Where the value comes from.
        origin: Origin,
        /// What is wrong with it.
        source: ChannelError,
    },
    /// A key without a default is not there.
    #[error("`{key}` is missing ({origin}); it must be {allowed}")]
    Missing {
        /// Full key.
        key: String,
        /// The table that lacks it.
        origin: Origin,
        /// What the key takes.
        allowed: &'static str,
    },
    /// A profile without payload pools (TP-465).
    #[error(
        "profile `{profile}` has no payload pools; add at least one `[[profiles.{profile}.payload_pools]]`"
    )]
    NoPools {
        /// Name of the profile.
        profile: String,
    },
    /// Two pools of one profile have the same id (TP-465).
    #[error("profile `{profile}` has two pools with id {pool_id}; pool ids are unique within a profile")]
    DuplicatePool {
        /// Name of the profile.
        profile: String,
        /// The id.
        pool_id: u16,
    },
    /// A name that no profile has (TP-465, TP-466).
    #[error(
        "`{key}` names profile `{found}`, which is not defined; add `[profiles.{found}]` or correct the name"
    )]
    UnknownProfile {
        /// Full key.
        key: String,
        /// The name.
        found: String,
    },
    /// Dynamic streams are allowed but there is no profile to create them from (TP-465).
    #[error("`policies.allow_dynamic_streams` is true but no profile is defined; add a `[profiles.<name>]`")]
    NoProfile,
    /// Neither dynamic nor configured streams (TP-466).
    #[error("no stream can ever exist: add a `[streams.<name>]` or set `policies.allow_dynamic_streams`")]
    NoStreams,
    /// Two streams have one id (TP-466).
    #[error("streams `{first}` and `{second}` both have id {stream_id}; stream ids are unique")]
    DuplicateStream {
        /// The id.
        stream_id: u32,
        /// Name of the stream defined first.
        first: String,
        /// Name of the other.
        second: String,
    },
    /// Two ranges overlap, or a range contains an id that is used otherwise (TP-030).
    #[error(
        "`{first_key}` ({first}) and `{second_key}` ({second}) overlap; ids must be used for one purpose only"
    )]
    Overlap {
        /// Key of the first range or id.
        first_key: String,
        /// The first range; an id alone is a range of one.
        first: IdRange,
        /// Key of the second range or id.
        second_key: String,
        /// The second range.
        second: IdRange,
    },
    /// Two channels that the media driver would refuse on one stream id (TP-487).
    #[error(
        "`{first_key}` and `{second_key}` use stream id {stream_id} with {clash}; state one value for both"
    )]
    ChannelClash {
        /// The shared stream id.
        stream_id: AeronStreamId,
        /// Key of the first channel.
        first_key: String,
        /// Key of the second channel.
        second_key: String,
        /// The values.
        clash: Clash,
    },
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The configuration file.
    File {
        /// Line, from 1.
        line: usize,
    },
    /// The environment, which wins over the file (TP-462).
    Environment {
        /// The variable.
        variable: String,
    },
    /// A default, or set by the program.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line } => write!(f, "line {line}"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Program => f.write_str("default or set by the program"),
        }
    }
}

/// A key of the file that means nothing here. The file loads, the operator is told (TP-463).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// Full key.
    pub key: String,
    /// Line, from 1.
    pub line: usize,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: unknown key `{}` is ignored", self.line, self.key)
    }
}
