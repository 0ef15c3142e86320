//! Files as sources: each file is a partition, in the order of their names.
//!
//! | format | a record | position |
//! |---|---|---|
//! | `ndjson` | a line | its byte offset |
//! | `csv` | a row below the header row, as a JSON object | its byte offset |
//! | `npy` | a row of the array, as its bytes | its index |
//!
//! A file is read to its end. With `follow` the end is where the next record will be, and a file that was renamed away is
//! finished before the one that took its name is begun; its positions go on behind those of the old one. A file that becomes
//! shorter is refused: what was in it may not have been read.

mod known;
mod rows;
mod text;
mod watch;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tidegate_udf::wire::ids::{PartitionId, Position};

use self::{known::Known, rows::Rows, text::Text, watch::Watch};
use super::{
    Abilities, AckMode, Budget, Identity, Polled, Positions, Replay, Resume, Source, SourceError,
    framing::Framing,
};
use crate::{batch::Input, wake::Waker};

/// The keys of a source of kind `file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// The file, or several with `*`, `?` and `[...]`.
    pub path: PathBuf,
    /// How records stand in it.
    #[serde(default)]
    pub format: Format,
    /// Whether more may come.
    #[serde(default)]
    pub follow: bool,
}

/// How records stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines.
    #[default]
    Ndjson,
    /// Rows below a header row.
    Csv,
    /// Rows of an array.
    Npy,
}

/// Files that are read.
#[derive(Debug)]
pub struct Files {
    partitions: Vec<Partition>,
    follow: bool,
    /// Tells when there is more.
    _watch: Option<Watch>,
}

#[derive(Debug)]
struct Partition {
    path: PathBuf,
    format: Format,
    body: Option<Body>,
    /// A record that was read and did not fit the budget.
    kept: Option<Input>,
}

#[derive(Debug)]
enum Body {
    Text(Text),
    Rows(Rows),
}

impl FileSource {
    /// What it can do.
    pub fn abilities(&self) -> Abilities {
        Abilities { positions: Positions::Stable, replay: Replay::Yes, ack: AckMode::None, ordered: true }
    }
}

impl Files {
    /// Looks for the files.
    ///
    /// # Errors
    /// There is none, or what there is cannot be read.
    pub fn open(config: &FileSource, waker: &Waker) -> Result<Self, SourceError> {
        let FileSource { path, format, follow } = config;
        if *follow && *format == Format::Npy {
            return Err(SourceError::FollowNpy { path: path.clone() });
        }
        let paths = paths(path)?;
        for path in &paths {
            File::open(path).map_err(failed(path))?;
        }
        let watch = if *follow {
            let path = paths.first().unwrap_or(path);
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some(Watch::start(dir, waker.clone()).map_err(failed(dir))?)
        } else {
            None
        };
        let partition = |path| Partition { path, format: *format, body: None, kept: None };
        Ok(Self { partitions: paths.into_iter().map(partition).collect(), follow: *follow, _watch: watch })
    }
}

impl Source for Files {
    fn abilities(&self) -> Abilities {
        Abilities { positions: Positions::Stable, replay: Replay::Yes, ack: AckMode::None, ordered: true }
    }

    fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    fn open(&mut self, partition: PartitionId, from: Option<&Resume>) -> Result<Position, SourceError> {
        let Some(partition) = self.partitions.get_mut(partition.0 as usize) else { return Ok(Position(0)) };
        let from = match from {
            None => None,
            Some(Resume { position, identity }) => {
                let known = Known::decode(identity);
                let what = "the form of what the ledger kept";
                let known = known.ok_or_else(|| replaced(&partition.path, *position, what))?;
                Some((*position, known))
            }
        };
        let path = &partition.path;
        let (body, position) = match partition.format {
            Format::Npy => {
                let (rows, position) = Rows::open(path, from)?;
                (Body::Rows(rows), position)
            }
            Format::Ndjson | Format::Csv => {
                let framing = if partition.format == Format::Csv { Framing::Csv } else { Framing::Ndjson };
                let (text, position) = Text::open(path, framing, self.follow, from)?;
                (Body::Text(text), position)
            }
        };
        (partition.body, partition.kept) = (Some(body), None);
        Ok(position)
    }

    fn poll(&mut self, partition: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        let Some(partition) = self.partitions.get_mut(partition.0 as usize) else { return Ok(Polled::End) };
        let Some(body) = &mut partition.body else { return Ok(Polled::Idle) };
        let (mut inputs, mut room) = (Vec::new(), max.bytes);
        while inputs.len() < max.records {
            let next = match partition.kept.take() {
                Some(input) => Next::Input(input),
                None => body.next(max.value)?,
            };
            let input = match next {
                Next::Input(input) => input,
                Next::Idle if inputs.is_empty() => return Ok(Polled::Idle),
                Next::End if inputs.is_empty() => return Ok(Polled::End),
                Next::Idle | Next::End => break,
            };
            let len = input.record.len();
            if len > room && !inputs.is_empty() {
                partition.kept = Some(input);
                break;
            }
            room = room.saturating_sub(len);
            inputs.push(input);
        }
        Ok(Polled::Inputs(inputs))
    }

    fn identity(&mut self, partition: PartitionId, resume: Position) -> Result<Identity, SourceError> {
        let body =
            self.partitions.get_mut(partition.0 as usize).and_then(|partition| partition.body.as_mut());
        match body {
            Some(Body::Text(text)) => text.known(resume).map(|known| known.encode()),
            Some(Body::Rows(rows)) => rows.known(resume).map(|known| known.encode()),
            None => Ok(Identity::default()),
        }
    }
}

/// What comes next in a file.
#[derive(Debug)]
enum Next {
    Input(Input),
    /// Nothing now.
    Idle,
    /// Nothing any more.
    End,
}

impl Body {
    fn next(&mut self, max: usize) -> Result<Next, SourceError> {
        match self {
            Self::Text(text) => text.next(max),
            Self::Rows(rows) => rows.next(max),
        }
    }
}

/// The files that a path with wildcards names, in order.
fn paths(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let text = path.to_str().unwrap_or_default();
    if !text.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let wrong = |error: glob::PatternError| failed(path)(io::Error::new(io::ErrorKind::InvalidInput, error));
    let found: Result<Vec<PathBuf>, glob::GlobError> = glob::glob(text).map_err(wrong)?.collect();
    let mut found = found.map_err(|error| failed(path)(error.into()))?;
    found.sort();
    if found.is_empty() {
        return Err(failed(path)(io::ErrorKind::NotFound.into()));
    }
    Ok(found)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SourceError {
    move |source| SourceError::Read { path: path.to_owned(), source }
}

fn replaced(path: &Path, resume: Position, what: &'static str) -> SourceError {
    SourceError::Replaced { name: path.display().to_string(), resume, what }
}

#[cfg(test)]
mod tests;
