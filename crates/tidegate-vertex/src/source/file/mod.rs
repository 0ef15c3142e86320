//! Files as sources: each file is a partition, in the order of their names; one that comes between others in a later run gets
//! a number behind theirs.
//!
//! | format | a record | position |
//! |---|---|---|
//! | `ndjson` | a line | its byte offset |
//! | `csv` | a row below the header row, as a JSON object | its byte offset |
//! | `npy` | a row of the array, as its bytes | its index |
//!
//! A file is read to its end. With `follow` the end is where the next record will be, and a file that was renamed away is
//! finished before the one that took its name next is begun; its positions go on behind those of the old one. A file that becomes
//! shorter is refused: what was in it may not have been read.

mod known;
mod rotated;
mod rows;
mod text;
mod watch;

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
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
    /// As it was configured.
    path: PathBuf,
    format: Format,
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
    /// What was read and did not fit the budget.
    kept: Option<Next>,
    /// A file that the ledger knows and that is not there.
    gone: bool,
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

    /// Whether its keys fit each other.
    pub(crate) fn check(&self) -> Result<(), SourceError> {
        match self.follow && self.format == Format::Npy {
            true => Err(SourceError::FollowNpy { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// Files that there are now.
    pub(crate) fn count(&self) -> usize {
        paths(&self.path).map_or(0, |paths| paths.len())
    }
}

/// Bytes of a file that are read at once, before they are records.
pub(crate) const READ: usize = text::READ;

impl Files {
    /// Looks for the files.
    ///
    /// # Errors
    /// There is none, or what there is cannot be read.
    pub fn open(config: &FileSource, waker: &Waker) -> Result<Self, SourceError> {
        config.check()?;
        let FileSource { path, format, follow } = config;
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
        let partition = |path| Partition { path, format: *format, body: None, kept: None, gone: false };
        let partitions = paths.into_iter().map(partition).collect();
        Ok(Self { path: path.clone(), format: *format, partitions, follow: *follow, _watch: watch })
    }
}

impl Source for Files {
    fn abilities(&self) -> Abilities {
        Abilities { positions: Positions::Stable, replay: Replay::Yes, ack: AckMode::None, ordered: true }
    }

    fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// A file keeps the number that it had, whatever files there are beside it now.
    fn remember(&mut self, known: &[Option<Resume>]) {
        let mut files: Vec<Option<Partition>> =
            std::mem::take(&mut self.partitions).into_iter().map(Some).collect();
        let mut take = |is_it: &dyn Fn(&Partition) -> bool| {
            files.iter_mut().find(|file| file.as_ref().is_some_and(is_it)).and_then(Option::take)
        };
        let mut numbered: Vec<Option<Partition>> = Vec::new();
        numbered.resize_with(known.len(), || None);
        let by_path =
            |identity: &Identity, file: &Partition| Known::was_at(identity, &file.path) == Some(true);
        let by_inode = |identity: &Identity, file: &Partition| {
            let metadata = std::fs::metadata(&file.path);
            let known = Known::decode(identity);
            known
                .zip(metadata.ok())
                .is_some_and(|(known, now)| (known.device, known.inode) == (now.dev(), now.ino()))
        };
        type Way<'a> = &'a dyn Fn(&Identity, &Partition) -> bool;
        let ways: [Way<'_>; 2] = [&by_path, &by_inode];
        for way in ways {
            for (place, resume) in numbered.iter_mut().zip(known) {
                if let (None, Some(Resume { identity, .. })) = (&place, resume) {
                    *place = take(&|file| way(identity, file));
                }
            }
        }
        // What is left has no number yet, or nobody knows its name.
        let mut rest = files.into_iter().flatten();
        for (place, resume) in numbered.iter_mut().zip(known) {
            let nameless = |resume: &Resume| Known::was_at(&resume.identity, Path::new("")).is_none();
            if place.is_none() && resume.as_ref().is_none_or(nameless) {
                *place = rest.next();
            }
        }
        let gone =
            || Partition { path: self.path.clone(), format: self.format, body: None, kept: None, gone: true };
        self.partitions = numbered.into_iter().map(|file| file.unwrap_or_else(gone)).chain(rest).collect();
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
        if partition.gone {
            let resume = from.map_or(Position(0), |(position, _)| position);
            return Err(replaced(path, resume, "its file, which is not there any more,"));
        }
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
                Some(next) => next,
                None => body.next(max.value)?,
            };
            let input = match next {
                Next::Input(input) => input,
                Next::Unfit(input, fault) if inputs.is_empty() => return Ok(Polled::Unfit(input, fault)),
                Next::Unfit(..) => {
                    partition.kept = Some(next);
                    break;
                }
                Next::Idle if inputs.is_empty() => return Ok(Polled::Idle),
                Next::End if inputs.is_empty() => return Ok(Polled::End),
                Next::Idle | Next::End => break,
            };
            let len = input.record.len();
            if len > room && !inputs.is_empty() {
                partition.kept = Some(Next::Input(input));
                break;
            }
            room = room.saturating_sub(len);
            inputs.push(input);
        }
        Ok(Polled::Inputs(inputs))
    }

    fn identity(&mut self, partition: PartitionId, resume: Position) -> Result<Identity, SourceError> {
        let partition = self.partitions.get_mut(partition.0 as usize);
        let body = partition.and_then(|partition| Some((partition.body.as_mut()?, &partition.path)));
        match body {
            Some((Body::Text(text), path)) => text.known(resume).map(|known| known.encode(path)),
            Some((Body::Rows(rows), path)) => rows.known(resume).map(|known| known.encode(path)),
            None => Ok(Identity::default()),
        }
    }

    fn lineage(&self, identity: &Identity) -> u64 {
        Known::decode(identity).map_or(0, |known| known.lineage())
    }
}

/// What comes next in a file.
#[derive(Debug)]
enum Next {
    Input(Input),
    /// A record that no function can be given, and what is wrong with it.
    Unfit(Input, String),
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
