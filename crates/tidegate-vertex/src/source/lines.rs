//! Lines of a file as records. The position of a line is its byte offset; the newline is not part of the value. A last line
//! without a newline is a record: the file is finished.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use tidegate_udf::wire::ids::{PartitionId, Position};

use super::{Abilities, AckMode, Budget, Identity, Polled, Positions, Replay, Resume, Source, SourceError};
use crate::batch::{Input, Record};

/// A file that is read once from its beginning.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    offset: u64,
    /// A line that was read and did not fit the budget.
    kept: Option<Input>,
}

impl Lines {
    /// Opens the file.
    ///
    /// # Errors
    /// [`SourceError::Read`].
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(|source| SourceError::Read { path: path.to_owned(), source })?;
        Ok(Self { reader: BufReader::new(file), path: path.to_owned(), offset: 0, kept: None })
    }

    /// The next line, if there is one.
    fn line(&mut self, max: usize) -> Result<Option<Input>, SourceError> {
        let position = Position(self.offset);
        let mut value = Vec::new();
        // Never more in memory than a line may have, whatever the file is.
        let limit = max as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut value);
        let len = read.map_err(|source: io::Error| SourceError::Read { path: self.path.clone(), source })?;
        if len == 0 {
            return Ok(None);
        }
        self.offset += len as u64;
        if value.last() == Some(&b'\n') {
            value.pop();
        } else if value.len() > max {
            return Err(SourceError::TooLong { position, max });
        }
        Ok(Some(Input { position, next: Position(self.offset), record: Record::of(value) }))
    }
}

impl Source for Lines {
    fn abilities(&self) -> Abilities {
        Abilities { positions: Positions::Stable, replay: Replay::Yes, ack: AckMode::None, ordered: true }
    }

    fn partitions(&self) -> u32 {
        1
    }

    fn open(&mut self, _: PartitionId, from: Option<&Resume>) -> Result<Position, SourceError> {
        let resume = from.map_or(Position(0), |from| from.position);
        let failed = |source| SourceError::Read { path: self.path.clone(), source };
        let found = self.reader.get_ref().metadata().map_err(failed)?.len();
        if resume.0 > found {
            return Err(SourceError::Gap { resume, found: Position(found) });
        }
        self.offset = self.reader.seek(SeekFrom::Start(resume.0)).map_err(failed)?;
        Ok(resume)
    }

    fn poll(&mut self, _: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        let (mut inputs, mut room) = (Vec::new(), max.bytes);
        while inputs.len() < max.records {
            let next = match self.kept.take() {
                Some(input) => Some(input),
                None => self.line(max.value)?,
            };
            let Some(input) = next else { break };
            let len = input.record.len();
            if len > room && !inputs.is_empty() {
                self.kept = Some(input);
                break;
            }
            room = room.saturating_sub(len);
            inputs.push(input);
        }
        Ok(if inputs.is_empty() { Polled::End } else { Polled::Inputs(inputs) })
    }
    fn identity(&mut self, _: PartitionId, _: Position) -> Result<Identity, SourceError> {
        Ok(Identity::default())
    }

    fn pending(&self, _: PartitionId) -> Option<u64> {
        let len = self.reader.get_ref().metadata().ok()?.len();
        Some(len.saturating_sub(self.offset))
    }
}
