//! Rows of a `.npy` file.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use tidegate_udf::wire::ids::Position;

use super::{Next, SourceError, failed, known::Known, replaced};
use crate::{
    batch::{Input, Record},
    npy::Header,
};

/// A file, open before the row that comes next.
#[derive(Debug)]
pub(super) struct Rows {
    path: PathBuf,
    file: File,
    header: Header,
    known: Known,
    next: u64,
}

impl Rows {
    pub(super) fn open(
        path: &Path,
        from: Option<(Position, Known)>,
    ) -> Result<(Self, Position), SourceError> {
        let failed = failed(path);
        let mut file = File::open(path).map_err(&failed)?;
        let header = Header::read(&mut file).map_err(&failed)?;
        let header = header.map_err(|fault| SourceError::Npy { path: path.to_owned(), fault })?;
        let known = Known::of(&file, 0).map_err(&failed)?;
        let mut rows = Self { path: path.to_owned(), file, header, known, next: 0 };
        if let Some((resume, known)) = from {
            if resume.0 > rows.count() {
                return Err(SourceError::Gap { resume, found: Position(rows.count()) });
            }
            if let Some(what) = known.differs(&rows.file, rows.offset(resume.0)).map_err(&failed)? {
                return Err(replaced(path, resume, what));
            }
            rows.next = resume.0;
        }
        rows.file.seek(SeekFrom::Start(rows.offset(rows.next))).map_err(&failed)?;
        let position = Position(rows.next);
        Ok((rows, position))
    }

    pub(super) fn next(&mut self, max: usize) -> Result<Next, SourceError> {
        if self.next >= self.count() {
            return Ok(Next::End);
        }
        let position = Position(self.next);
        let len = self.header.row_bytes();
        if len > max as u64 {
            return Err(SourceError::TooLong { position, max });
        }
        let mut value = vec![0; len as usize];
        self.file.read_exact(&mut value).map_err(failed(&self.path))?;
        self.next += 1;
        Ok(Next::Input(Input { position, next: Position(self.next), record: Record::of(value) }))
    }

    pub(super) fn known(&mut self, resume: Position) -> Result<Known, SourceError> {
        self.known.read_up_to(&self.file, self.offset(resume.0)).map_err(failed(&self.path))
    }

    fn count(&self) -> u64 {
        self.header.shape.first().copied().unwrap_or(0)
    }

    /// Where a row begins; within what [`Header`] has checked.
    fn offset(&self, row: u64) -> u64 {
        self.header.data.saturating_add(row.saturating_mul(self.header.row_bytes()))
    }
}
