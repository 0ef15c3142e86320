//! Why a pipeline file is not one, and where.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;
use tidegate_udf::wire::segment::SegmentFault;

use super::place;

/// Why a pipeline file is not one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the pipeline file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of another kind.
    #[error("the pipeline file is not valid: {}", .0.to_string().trim_end())]
    Syntax(#[from] toml::de::Error),
    /// An unknown or missing key, or a value of another kind, in a part that has a kind.
    #[error("{message}")]
    Key {
        /// The key, or the part if it lacks one.
        key: String,
        /// Which of several parts of this name, counted from 0.
        number: usize,
        /// The key, what was found, and what may be there.
        message: String,
    },
    /// A key that this version does not have yet.
    #[error("{key} belongs to phase {phase} of the vertex, which this version does not have; leave it out")]
    Later {
        /// The key, with its value where others are known.
        key: String,
        /// The phase.
        phase: u32,
    },
    /// A setting of the command line that is none.
    #[error("{setting:?} is not KEY=VALUE with a key such as udf.workers")]
    Setting {
        /// As given.
        setting: String,
    },
    /// The file of a schema cannot be read.
    #[error("{key}: cannot read {}", .path.display())]
    Schema {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A value that cannot be.
    #[error("{key} is {found}; it has to be {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// Which of several parts of this name, counted from 0.
        number: usize,
        /// Its value.
        found: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// Sizes of the rings that do not fit each other.
    #[error("transport: {0}")]
    Transport(#[from] SegmentFault),
    /// Any of these, and where: the line only if it can be said and `error` does not say it.
    #[error("{}{}: {error}", .path.display(), .line.map_or(String::new(), |line| format!(":{line}")))]
    At {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: Option<usize>,
        /// What is wrong there.
        error: Box<Self>,
    },
}

impl ConfigError {
    /// The error with its place in the file.
    pub(super) fn at(self, path: &Path, text: &str) -> Self {
        let line = match &self {
            Self::Value { key, number, .. } => place::line_in(text, key, *number),
            Self::Key { key, number, .. } => place::line_in(text, key, *number),
            // With a value where the value is what is wrong.
            Self::Later { key, .. } => place::line_of(text, key.split(" = ").next().unwrap_or(key)),
            Self::Transport(_) => place::line_of(text, "transport"),
            _ => None,
        };
        Self::At { path: path.to_owned(), line, error: Box::new(self) }
    }
}
