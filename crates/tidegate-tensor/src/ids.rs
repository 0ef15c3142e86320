//! Newtypes for the ids of the tensor pool, so that no two of them can be mixed up.

use std::fmt;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number as it stands on the wire.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number as it stands on the wire.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// One tensor source (`streamId` in messages). Not an Aeron stream id.
    StreamId(u32)
}
id! {
    /// A client of a driver: one (stream, role) of one process. Consumer and producer ids on the wire are client ids
    /// (TP-486).
    ClientId(u32)
}
id! {
    /// A lease issued by a driver; unique while that driver process lives (TP-252).
    LeaseId(u64)
}
id! {
    /// One incarnation of a stream's regions; only grows (TP-122). 0 means "no regions" (TP-124).
    Epoch(u64)
}
id! {
    /// Number of a frame inside an epoch; 63 bits are usable.
    Seq(u64)
}
id! {
    /// A payload pool of a stream.
    PoolId(u16)
}
id! {
    /// Node id for trace ids, 1..=1023 (TP-271).
    NodeId(u16)
}
id! {
    /// An Aeron transport address; signed in Aeron, carried as u32 in messages.
    AeronStreamId(i32)
}
id! {
    /// Matches a driver's answer to a request (TP-290).
    CorrelationId(i64)
}
id! {
    /// An Aeron session: one publication of one client. Names the sender of a message.
    SessionId(i32)
}

impl Epoch {
    /// "No regions" (TP-124).
    pub const NONE: Self = Self::new(0);
}

impl Seq {
    /// The largest sequence the 63 bits of a commit word can carry.
    pub const MAX: Self = Self::new(u64::MAX >> 1);
}

impl NodeId {
    /// Smallest and largest assignable ids (TP-271).
    pub const RANGE: std::ops::RangeInclusive<u16> = 1..=1023;
}

/// A stream as a user names it: by number, or by a name that the node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamRef {
    /// By number.
    Id(StreamId),
    /// By configured or dynamic name.
    Name(String),
}

impl StreamRef {
    /// The name, if it was given by name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Id(_) => None,
        }
    }
}

/// A text that names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamRefError {
    /// A number that no stream has.
    #[error("a stream number lies between 1 and 4294967295")]
    Number,
    /// Neither a number nor a name.
    #[error("a stream is a number, or a name of 1 to 64 letters, digits, '.', '_' or '-'")]
    Name,
}

impl std::str::FromStr for StreamRef {
    type Err = StreamRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return match text.parse() {
                Ok(0) | Err(_) => Err(StreamRefError::Number),
                Ok(id) => Ok(Self::Id(StreamId::new(id))),
            };
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(StreamRefError::Name)
    }
}

impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => write!(f, "'{name}'"),
        }
    }
}

/// What a client is for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The only writer.
    Producer,
    /// A reader.
    Consumer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        })
    }
}

impl Role {
    pub(crate) fn from_wire(role: tidegate_sbe::driver::Role) -> Self {
        match role {
            tidegate_sbe::driver::Role::Producer => Self::Producer,
            tidegate_sbe::driver::Role::Consumer => Self::Consumer,
        }
    }
}
