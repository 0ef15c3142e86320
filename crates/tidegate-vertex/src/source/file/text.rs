//! A file of records that are cut out of its bytes.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tidegate_udf::wire::ids::Position;

use super::{Next, SourceError, failed, known::Known, replaced, rotated};
use crate::{
    batch::{Input, Record},
    source::framing::{Cut, Cutter, Framing, FramingError},
};

/// A file, open, and how far it was read.
#[derive(Debug)]
pub(super) struct Text {
    path: PathBuf,
    file: File,
    known: Known,
    framing: Framing,
    cutter: Cutter,
    /// Bytes that were read and not cut, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Place of these in the file.
    offset: u64,
    follow: bool,
    /// The files that were read before this one and are not committed as a whole, the oldest first: no more than there are
    /// records under way.
    before: Vec<(Known, File)>,
}

impl Text {
    pub(super) fn open(
        path: &Path,
        framing: Framing,
        follow: bool,
        from: Option<(Position, Known)>,
    ) -> Result<(Self, Position), SourceError> {
        let file = match &from {
            Some((_, known)) if follow => renamed(path, known).map_err(failed(path))?,
            _ => None,
        };
        let file = match file {
            Some(file) => file,
            None => File::open(path).map_err(failed(path))?,
        };
        let base = from.as_ref().map_or(0, |(_, known)| known.base);
        let now = Known::of(&file, base).map_err(failed(path))?;
        let mut text = Self {
            path: path.to_owned(),
            file,
            known: now,
            framing,
            cutter: Cutter::new(framing),
            buffer: Vec::new(),
            start: 0,
            offset: 0,
            follow,
            before: Vec::new(),
        };
        let Some((resume, known)) = from else { return Ok((text, Position(0))) };
        let failed = failed(path);
        let offset = resume.0.saturating_sub(base);
        let found = text.file.metadata().map_err(&failed)?.len();
        if offset > found {
            return Err(SourceError::Gap { resume, found: Position(base + found) });
        }
        if let Some(what) = known.differs(&text.file, offset).map_err(&failed)? {
            return Err(replaced(path, resume, what));
        }
        text.known = known;
        text.seek(offset)?;
        Ok((text, resume))
    }

    pub(super) fn next(&mut self, max: usize) -> Result<Next, SourceError> {
        let mut at_end = false;
        loop {
            let position = Position(self.known.base + self.offset);
            let last = at_end && !self.follow;
            let cut = self.cutter.cut(&self.buffer[self.start..], last, max);
            let cut = cut.map_err(|fault| SourceError::Record { position, fault })?;
            match cut {
                Cut::Record { taken, value } => {
                    self.take(taken);
                    let next = Position(self.known.base + self.offset);
                    return Ok(Next::Input(Input { position, next, record: Record::of(value) }));
                }
                Cut::Unfit { taken, fault } => return Ok(self.unfit(taken, &fault)),
                Cut::Skip { taken } => self.take(taken),
                Cut::More if last => return Ok(Next::End),
                Cut::More if at_end => match self.follow(max)? {
                    Some(next) => return Ok(next),
                    None => at_end = false,
                },
                Cut::More => at_end = self.fill()? == 0,
            }
        }
    }

    /// By what the file is known when everything below `resume` is committed.
    pub(super) fn known(&mut self, resume: Position) -> Result<Known, SourceError> {
        let failed = failed(&self.path);
        // Of the file in which the last committed record ends; those before it are of no use any more.
        let reached = self.before.iter().rposition(|(before, _)| before.base < resume.0).unwrap_or(0);
        let done = if resume.0 > self.known.base { self.before.len() } else { reached };
        self.before.drain(..done);
        let (known, file) =
            self.before.first().map_or((self.known, &self.file), |(known, file)| (*known, file));
        known.read_up_to(file, resume.0.saturating_sub(known.base)).map_err(failed)
    }

    /// Nothing is behind what was read: waits, or goes on with the file that took the name of this one.
    fn follow(&mut self, max: usize) -> Result<Option<Next>, SourceError> {
        let path = self.path.clone();
        let failed = failed(&path);
        let own = self.file.metadata().map_err(&failed)?;
        if own.len() < self.offset {
            let (resume, found) = (self.known.base + self.offset, self.known.base + own.len());
            return Err(SourceError::Gap { resume: Position(resume), found: Position(found) });
        }
        let newest = match File::open(&path) {
            Ok(file) => file,
            // Renamed away, and nothing in its place yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Next::Idle)),
            Err(error) => return Err(failed(error)),
        };
        let other = newest.metadata().map_err(&failed)?;
        if (other.dev(), other.ino()) == (own.dev(), own.ino()) {
            return Ok(Some(Next::Idle));
        }
        // Whoever wrote it may have written until it opened the other one.
        if self.fill()? > 0 {
            return Ok(None);
        }
        let position = Position(self.known.base + self.offset);
        let rest = self.cutter.cut(&self.buffer[self.start..], true, max);
        let rest = rest.map_err(|fault| SourceError::Record { position, fault })?;
        match rest {
            Cut::Record { taken, value } => {
                self.take(taken);
                let next = Position(self.known.base + self.offset);
                return Ok(Some(Next::Input(Input { position, next, record: Record::of(value) })));
            }
            Cut::Unfit { taken, fault } => return Ok(Some(self.unfit(taken, &fault))),
            Cut::Skip { .. } | Cut::More => {}
        }
        let between = rotated::between(&path, &own, &other)?;
        let successor = match between {
            None => newest,
            Some(path) => File::open(&path).map_err(&failed)?,
        };
        let base = self.known.base + self.offset;
        let known = Known::of(&successor, base).map_err(failed)?;
        let old = std::mem::replace(&mut self.file, successor);
        if self.offset > 0 {
            self.before.push((self.known, old));
        }
        self.known = known;
        self.cutter = Cutter::new(self.framing);
        (self.start, self.offset) = (0, 0);
        self.buffer.clear();
        Ok(None)
    }

    /// The bytes of a record that says nothing.
    fn unfit(&mut self, taken: usize, fault: &FramingError) -> Next {
        let position = Position(self.known.base + self.offset);
        let value = self.buffer[self.start..self.start + taken].to_vec();
        self.take(taken);
        let next = Position(self.known.base + self.offset);
        Next::Unfit(Input { position, next, record: Record::of(value) }, fault.to_string())
    }

    fn take(&mut self, taken: usize) {
        self.start += taken;
        self.offset += taken as u64;
    }

    /// Reads more behind what is there; how much.
    fn fill(&mut self) -> Result<usize, SourceError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let len = self.buffer.len();
        self.buffer.resize(len + READ, 0);
        let read = loop {
            match self.file.read(&mut self.buffer[len..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(len + read.as_ref().copied().unwrap_or(0));
        read.map_err(failed(&self.path))
    }

    /// Goes on at an offset, with everything known that stands before it.
    fn seek(&mut self, offset: u64) -> Result<(), SourceError> {
        while self.cutter.needs_beginning() && self.offset < offset {
            let cut = self.cutter.cut(&self.buffer[self.start..], false, READ);
            match cut.map_err(|fault| SourceError::Record { position: Position(self.known.base), fault })? {
                Cut::Skip { taken } | Cut::Record { taken, .. } | Cut::Unfit { taken, .. } => {
                    self.take(taken)
                }
                Cut::More if self.fill()? == 0 => break,
                Cut::More => {}
            }
        }
        self.buffer.clear();
        (self.start, self.offset) = (0, offset);
        self.file.seek(SeekFrom::Start(offset)).map_err(failed(&self.path))?;
        Ok(())
    }
}

/// The file that is known, under its own name or under the one it has got since; `None` when it has its own.
fn renamed(path: &Path, known: &Known) -> io::Result<Option<File>> {
    let is_known = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino()) == (known.device, known.inode);
    if fs::metadata(path).is_ok_and(|metadata| is_known(&metadata)) {
        return Ok(None);
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.metadata().is_ok_and(|metadata| is_known(&metadata)) {
            return File::open(entry.path()).map(Some);
        }
    }
    Ok(None)
}

/// Bytes that are read at once.
pub(super) const READ: usize = 256 * 1024;
