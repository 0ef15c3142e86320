//! Errors of this crate.
//!
//! Codes keep the two number spaces of the C library apart: a positive code is one of Aeron's own (11 is its generic
//! error, 1000 a driver timeout), a negative code is an operating system error number with its sign changed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a client asks its media driver for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// A publication whose log is shared with all publishers of the channel and stream.
    Publication {
        /// The channel URI as given.
        channel: Box<str>,
        /// The Aeron stream id.
        stream_id: i32,
    },
    /// A publication with a log of its own.
    ExclusivePublication {
        /// The channel URI as given.
        channel: Box<str>,
        /// The Aeron stream id.
        stream_id: i32,
    },
    /// A subscription.
    Subscription {
        /// The channel URI as given.
        channel: Box<str>,
        /// The Aeron stream id.
        stream_id: i32,
    },
    /// A counter.
    Counter {
        /// The counter's type id.
        type_id: i32,
        /// The counter's label.
        label: Box<str>,
    },
}

impl Resource {
    /// The channel URI and stream id; `None` for a counter.
    pub fn stream(&self) -> Option<(&str, i32)> {
        match self {
            Self::Publication { channel, stream_id }
            | Self::ExclusivePublication { channel, stream_id }
            | Self::Subscription { channel, stream_id } => Some((channel, *stream_id)),
            Self::Counter { .. } => None,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publication { channel, stream_id } => {
                write!(out, "publication on '{channel}' stream {stream_id}")
            }
            Self::ExclusivePublication { channel, stream_id } => {
                write!(out, "exclusive publication on '{channel}' stream {stream_id}")
            }
            Self::Subscription { channel, stream_id } => {
                write!(out, "subscription to '{channel}' stream {stream_id}")
            }
            Self::Counter { type_id, label } => write!(out, "counter '{label}' of type {type_id}"),
        }
    }
}

/// Why a media driver or a client could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AeronError {
    /// A live media driver owns the directory.
    #[error(
        "a media driver{} already runs in {}; connect to it, stop it, or choose another directory",
        Pid(*pid), dir.display()
    )]
    DriverActive {
        /// The driver's directory.
        dir: PathBuf,
        /// The driver's process id as it wrote it, when known. It may belong to another pid namespace.
        pid: Option<i64>,
    },
    /// No live media driver was found in the directory.
    #[error("no media driver answered in {} within {waited:?}; start one there, or check the path", dir.display())]
    NoDriver {
        /// Where a driver was expected.
        dir: PathBuf,
        /// How long it was awaited.
        waited: Duration,
    },
    /// A dead media driver left the directory, and cleaning was not allowed.
    #[error("a media driver that no longer runs left {}; remove it, or allow dir_delete_on_start", dir.display())]
    StaleDirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds something that no media driver made, so it is not cleaned.
    #[error(
        "{} is not a media driver's directory: it contains '{}'; choose an empty or absent directory",
        dir.display(), entry.display()
    )]
    ForeignDirectory {
        /// The directory.
        dir: PathBuf,
        /// The entry that does not belong there.
        entry: PathBuf,
    },
    /// The file system has too little room for the driver's files.
    #[error(
        "{} has {available} bytes free, a media driver needs {needed} before its first stream; free some or mount a \
         larger file system",
        dir.display()
    )]
    NoSpace {
        /// The directory.
        dir: PathBuf,
        /// Bytes needed for the driver's own files.
        needed: u64,
        /// Bytes available to this user.
        available: u64,
    },
    /// The operating system denied access.
    #[error("permission denied to {operation} {}; run as its owner or choose another directory", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
    },
    /// The operating system refused for another reason.
    #[error("could not {operation} {}: {}", path.display(), std::io::Error::from_raw_os_error(*errno))]
    Os {
        /// The path.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// The operating system's error number; 0 when it gave none.
        errno: i32,
    },
    /// An option has a value that cannot work.
    #[error("option {option} {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A channel or label cannot be passed on.
    #[error("{resource}: the text {reason}")]
    InvalidText {
        /// What was asked for.
        resource: Box<Resource>,
        /// What is wrong with its channel or label.
        reason: &'static str,
    },
    /// The media driver refused a resource.
    #[error("the media driver refused the {resource} (code {code}): {message}")]
    Registration {
        /// What was asked for.
        resource: Box<Resource>,
        /// Aeron's code.
        code: i32,
        /// Aeron's text.
        message: Box<str>,
    },
    /// The media driver did not answer in time.
    #[error(
        "the media driver did not answer within {waited:?} to the request for the {resource}; is it running?"
    )]
    TimedOut {
        /// What was asked for.
        resource: Box<Resource>,
        /// How long the answer was awaited.
        waited: Duration,
    },
    /// The client is closed for good, usually because its media driver went away; connect a new one.
    #[error("the client is closed (code {code}): {message}; drop it and connect a new one")]
    ClientClosed {
        /// Aeron's code; 1000 when the driver went away.
        code: i32,
        /// Aeron's text.
        message: Box<str>,
    },
    /// The C library reported an error.
    #[error("could not {operation} (code {code}): {message}")]
    Library {
        /// What was tried.
        operation: &'static str,
        /// Positive: Aeron's code. Negative: an operating system error number.
        code: i32,
        /// Aeron's text.
        message: Box<str>,
    },
}

impl AeronError {
    /// Aeron's code (positive) or the operating system's (negative); `None` for what this crate found itself.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Registration { code, .. }
            | Self::ClientClosed { code, .. }
            | Self::Library { code, .. } => Some(*code),
            Self::Os { errno, .. } => Some(-errno),
            _ => None,
        }
    }

    /// What was asked for, for errors about one resource.
    pub fn resource(&self) -> Option<&Resource> {
        match self {
            Self::InvalidText { resource, .. }
            | Self::Registration { resource, .. }
            | Self::TimedOut { resource, .. } => Some(resource),
            _ => None,
        }
    }

    /// Whether a publication was refused because the stream's existing publication has another `term-length` or `mtu`
    /// (TP-488). Adding it again without these two parameters joins the existing one.
    pub fn is_channel_conflict(&self) -> bool {
        self.channel_conflict().is_some()
    }

    /// The parameter and both values behind [`is_channel_conflict`](Self::is_channel_conflict).
    pub fn channel_conflict(&self) -> Option<ChannelConflict> {
        let Self::Registration { message, .. } = self else { return None };
        ChannelConflict::parse(message)
    }
}

/// The parameter by which a publication differs from the one its stream already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelConflict {
    /// `term-length` or `mtu`.
    pub parameter: &'static str,
    /// The existing publication's value in bytes.
    pub existing: u64,
    /// The refused value in bytes.
    pub requested: u64,
}

impl ChannelConflict {
    /// Reads the driver's text, `... different 'term-length': existing=4194304 requested=1048576`.
    fn parse(message: &str) -> Option<Self> {
        let (_, rest) = message.split_once("existing publication has different '")?;
        let (name, rest) = rest.split_once("': existing=")?;
        let parameter = ["term-length", "mtu"].into_iter().find(|known| *known == name)?;
        let (existing, rest) = rest.split_once(" requested=")?;
        let requested = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self { parameter, existing: existing.parse().ok()?, requested: requested.parse().ok()? })
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// A subscriber has not caught up; offer again later.
    #[error("back-pressured: a subscriber has not caught up yet")]
    BackPressured,
    /// Nobody subscribes.
    #[error("nobody is subscribed")]
    NotConnected,
    /// The log is rotating; offer again at once.
    #[error("the log is rotating; offer again")]
    AdminAction,
    /// The publication or its client is closed; connect a new client.
    #[error("the publication is closed; connect a new client")]
    Closed,
    /// The stream has reached its last position; add a new publication.
    #[error("the stream has reached its last position; add a new publication")]
    MaxPositionExceeded,
    /// The message is longer than this way of sending allows.
    #[error("a message of {length} bytes is longer than the {max} that this publication can send")]
    TooLong {
        /// The message's length in bytes.
        length: usize,
        /// The greatest length in bytes.
        max: usize,
    },
    /// The filling function gave up, so nothing was sent.
    #[error("the message was abandoned while it was being filled in")]
    Aborted,
    /// The C library reported something else.
    #[error(transparent)]
    Other(AeronError),
}

struct Pid(Option<i64>);

impl fmt::Display for Pid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(out, " (pid {pid})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(message: &str) -> AeronError {
        let resource = Box::new(Resource::Publication { channel: "aeron:ipc".into(), stream_id: 1000 });
        AeronError::Registration { resource, code: 11, message: message.into() }
    }

    #[test]
    fn a_conflict_names_the_parameter_and_both_values() {
        let conflict = refusal(
            "async_add_publication registration error\n(22) Invalid argument\n[f, x.c:1] existing publication has \
             different 'mtu': existing=1408 requested=4096\n[g, y.c:2] \n",
        )
        .channel_conflict();
        assert_eq!(conflict, Some(ChannelConflict { parameter: "mtu", existing: 1408, requested: 4096 }));
    }

    #[test]
    fn other_refusals_are_no_conflict() {
        for text in [
            "existing publication has different 'session-id': existing=1 requested=2",
            "existing publication has different spies simulate connection: requested=true",
            "existing publication has different 'mtu': existing=many requested=2",
            "unknown host",
        ] {
            assert!(!refusal(text).is_channel_conflict(), "{text}");
        }
    }

    #[test]
    fn messages_name_what_and_where() {
        let text = refusal("unknown host").to_string();
        assert!(text.contains("'aeron:ipc' stream 1000") && text.contains("code 11"), "{text}");
        let active = AeronError::DriverActive { dir: "/dev/shm/x".into(), pid: Some(7) }.to_string();
        assert!(active.starts_with("a media driver (pid 7) already runs in /dev/shm/x"), "{active}");
    }
}
