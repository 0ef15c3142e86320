//! Why an input was not read or an output not written.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::npy::NpyHeaderError;
use super::y4m::Y4mHeaderError;
use crate::tensor::tensor::TensorError;

/// What went wrong with a media file. `name` is the path as given, or `standard input`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The file cannot be opened.
    #[error("cannot open {name}: {source}")]
    Open {
        /// The input.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// A directory cannot be read as frames.
    #[error("{name} is a directory; name a file in it")]
    Directory {
        /// The input.
        name: String,
    },
    /// Reading failed midway.
    #[error("reading {name} failed at byte {offset}: {source}")]
    Read {
        /// The input.
        name: String,
        /// Bytes read before.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The input ends too early.
    #[error(
        "{name} ends inside {part}: {expected} bytes are needed up to there, {found} are there; {}", part.remedy()
    )]
    Truncated {
        /// The input.
        name: String,
        /// What is incomplete.
        part: Part,
        /// Bytes from the start of the input to the end of that part.
        expected: u64,
        /// Bytes of the whole input.
        found: u64,
    },
    /// The input goes on where it should end.
    #[error("{name} goes on after its array of {expected} bytes; save one array per file")]
    Trailing {
        /// The input.
        name: String,
        /// Bytes from the start of the input to the end of its last frame.
        expected: u64,
    },
    /// There is not a single byte.
    #[error("{name} is empty; was it written to the end?")]
    Empty {
        /// The input.
        name: String,
    },
    /// The content is of no format we read.
    #[error(
        "{name} is neither .npy nor .y4m{}; convert it, or describe raw frames with --dtype and --shape",
        looks_like.map(|what| format!(" (it looks like {what})")).unwrap_or_default()
    )]
    UnknownFormat {
        /// The input.
        name: String,
        /// What the first bytes suggest.
        looks_like: Option<&'static str>,
    },
    /// A raw layout was given for a file that describes itself.
    #[error("{name} is a {format} file and states its own type and shape; leave out --dtype and --shape")]
    RawNotWanted {
        /// The input.
        name: String,
        /// The format found.
        format: &'static str,
    },
    /// The whole-array option was given for a format without an array.
    #[error("{name} is a {format} file, which has no array to keep whole; leave out --whole")]
    SingleNotWanted {
        /// The input.
        name: String,
        /// The format found.
        format: &'static str,
    },
    /// The `.npy` header is wrong, or describes what tensors cannot hold.
    #[error("{name}: {source}")]
    NpyHeader {
        /// The input.
        name: String,
        /// What is wrong.
        source: NpyHeaderError,
    },
    /// The `.y4m` header or the header of a picture is wrong.
    #[error("{name}: {source}")]
    Y4mHeader {
        /// The input.
        name: String,
        /// What is wrong.
        source: Y4mHeaderError,
    },
    /// The shape is one no tensor can have.
    #[error("{name} has no shape a tensor can carry: {source}")]
    Tensor {
        /// The input.
        name: String,
        /// What is wrong.
        source: TensorError,
    },
    /// An axis of length 0.
    #[error("{name} holds no elements (one of its axes has length 0); there is nothing to publish")]
    NoElements {
        /// The input.
        name: String,
    },
    /// One frame is more than a payload slot can hold.
    #[error("one frame of {name} is {bytes} bytes, at most {max} fit a payload slot; publish smaller pieces")]
    FrameTooLarge {
        /// The input.
        name: String,
        /// Bytes of one frame.
        bytes: u64,
        /// Most bytes of one frame.
        max: u64,
    },
    /// Frames of a Fortran-order array are interleaved, and there are too many bytes to hold.
    #[error(
        "{name} is in Fortran order, which spreads each frame over the whole file, and at {bytes} bytes it is larger \
         than {max}; save it in C order with np.save(path, np.ascontiguousarray(array))"
    )]
    InterleavedTooLarge {
        /// The input.
        name: String,
        /// Bytes of the array.
        bytes: u64,
        /// Most bytes that are held.
        max: u64,
    },
    /// The system has no memory for one frame.
    #[error("no memory for {bytes} bytes of {name}; publish smaller frames")]
    OutOfMemory {
        /// The input.
        name: String,
        /// Bytes needed.
        bytes: u64,
    },
    /// A stream cannot be played again.
    #[error("{name} cannot be played a second time; save it to a file first")]
    NotRewindable {
        /// The input.
        name: String,
    },
    /// The output cannot be created, written or put in its place.
    #[error("cannot write {}: {source}; nothing was left there, name a place that exists and has room", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A frame does not fit the array that is being written.
    #[error(
        "frame {frame} is {found}, but {} holds {expected}; an array has one type and shape, \
         write the other frames to another file",
        path.display()
    )]
    ShapeChanged {
        /// The output.
        path: PathBuf,
        /// Number of the frame in this file, from 0.
        frame: u64,
        /// Type and shape of the frames before.
        expected: String,
        /// Type and shape of this frame.
        found: String,
    },
    /// A frame with fewer bytes than its layout spans.
    #[error("frame {frame} has {found} bytes, its shape needs {expected}; it was not written")]
    ShortFrame {
        /// Number of the frame in this file, from 0.
        frame: u64,
        /// Bytes the layout spans.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
}

/// A part of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What comes before the first frame.
    Header,
    /// The line before the bytes of a picture, of this frame.
    FrameHeader(u64),
    /// The bytes of this frame, from 0.
    Frame(u64),
    /// The bytes of this frame, from 0, of an input that does not describe itself.
    RawFrame(u64),
    /// All the frames.
    Array,
}

impl Part {
    /// What to do when it is incomplete.
    fn remedy(self) -> &'static str {
        match self {
            Self::RawFrame(_) => "it is cut short, or its frames are not what --dtype and --shape say",
            _ => "the file is cut short, get it again from where it came",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("its header"),
            Self::FrameHeader(frame) => write!(f, "the header of frame {frame}"),
            Self::Frame(frame) | Self::RawFrame(frame) => write!(f, "frame {frame}"),
            Self::Array => f.write_str("its array"),
        }
    }
}
