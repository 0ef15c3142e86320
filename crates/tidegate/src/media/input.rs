//! Bytes of a file or stream, counted, with errors that name where they came from.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::{MediaError, Part};

/// A readable input. `position` counts the bytes handed out; bytes that were only peeked at wait in `peeked`.
pub(super) struct Input {
    name: String,
    reader: Reader,
    /// Length of a regular file.
    len: Option<u64>,
    position: u64,
    peeked: Vec<u8>,
}

enum Reader {
    File(BufReader<File>),
    Stream(BufReader<Box<dyn Read + Send>>),
}

impl Input {
    /// Opens a regular file, or a pipe or device as a stream.
    pub(super) fn file(path: &Path) -> Result<Self, MediaError> {
        let name = path.display().to_string();
        let open = |source| MediaError::Open { name: name.clone(), source };
        let file = File::open(path).map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        if metadata.is_dir() {
            return Err(MediaError::Directory { name });
        }
        if !metadata.is_file() {
            return Ok(Self::stream(&name, Box::new(file)));
        }
        let reader = Reader::File(BufReader::new(file));
        Ok(Self { name, reader, len: Some(metadata.len()), position: 0, peeked: Vec::new() })
    }

    pub(super) fn stream(name: &str, stream: Box<dyn Read + Send>) -> Self {
        let reader = Reader::Stream(BufReader::new(stream));
        Self { name: name.to_owned(), reader, len: None, position: 0, peeked: Vec::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn into_name(self) -> String {
        self.name
    }

    /// Length of a regular file; unknown for streams.
    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next `count` bytes without taking them; fewer only when the input ends before. Only before the first read.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8], MediaError> {
        let missing = count.saturating_sub(self.peeked.len());
        let Self { reader, peeked, .. } = self;
        let outcome = reader.as_read().take(missing as u64).read_to_end(peeked);
        self.check(outcome)?;
        Ok(self.peeked.get(..count).unwrap_or(&self.peeked))
    }

    /// Replaces `buffer` by exactly the next `count` bytes.
    ///
    /// The buffer grows with the bytes that arrive, or to `count` when a regular file is known to hold as many.
    pub(super) fn fill(&mut self, buffer: &mut Vec<u8>, count: usize, part: Part) -> Result<(), MediaError> {
        buffer.clear();
        let end = self.position.saturating_add(count as u64);
        match self.len {
            Some(len) if end > len => return Err(self.truncated(part, end, len)),
            Some(_) => buffer.try_reserve_exact(count).map_err(|_| self.out_of_memory(count))?,
            None => {}
        }
        let outcome = Read::take(&mut *self, count as u64).read_to_end(buffer);
        self.check(outcome)?;
        if buffer.len() < count {
            return Err(self.truncated(part, end, self.position));
        }
        Ok(())
    }

    /// Like [`fill`](Self::fill), but `false` when the input ends right here.
    pub(super) fn fill_or_end(
        &mut self,
        buffer: &mut Vec<u8>,
        count: usize,
        part: Part,
    ) -> Result<bool, MediaError> {
        if self.at_end()? {
            return Ok(false);
        }
        self.fill(buffer, count, part).map(|()| true)
    }

    /// Replaces `line` by the bytes up to and including the next newline, at most `max`. Without a newline within
    /// `max` bytes, or when the input ends, the line lacks it.
    pub(super) fn line(&mut self, line: &mut Vec<u8>, max: usize) -> Result<(), MediaError> {
        line.clear();
        let outcome = Read::take(&mut *self, max as u64).read_until(b'\n', line);
        self.check(outcome).map(drop)
    }

    /// Whether all bytes are read.
    pub(super) fn at_end(&mut self) -> Result<bool, MediaError> {
        let outcome = self.fill_buf().map(<[u8]>::is_empty);
        self.check(outcome)
    }

    /// Goes to a byte of a regular file.
    pub(super) fn seek(&mut self, position: u64) -> Result<(), MediaError> {
        let Reader::File(file) = &mut self.reader else {
            return Err(MediaError::NotRewindable { name: self.name.clone() });
        };
        let outcome = file.seek(SeekFrom::Start(position));
        self.check(outcome)?;
        self.peeked.clear();
        self.position = position;
        Ok(())
    }

    pub(super) fn truncated(&self, part: Part, expected: u64, found: u64) -> MediaError {
        MediaError::Truncated { name: self.name.clone(), part, expected, found }
    }

    fn out_of_memory(&self, bytes: usize) -> MediaError {
        MediaError::OutOfMemory { name: self.name.clone(), bytes: bytes as u64 }
    }

    fn check<T>(&self, outcome: io::Result<T>) -> Result<T, MediaError> {
        outcome.map_err(|source| match source.kind() {
            io::ErrorKind::OutOfMemory => {
                MediaError::OutOfMemory { name: self.name.clone(), bytes: self.position }
            }
            _ => MediaError::Read { name: self.name.clone(), offset: self.position, source },
        })
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.peeked.is_empty() { self.reader.as_buf_read().fill_buf() } else { Ok(&self.peeked) }
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount as u64;
        if self.peeked.is_empty() {
            self.reader.as_buf_read().consume(amount);
        } else {
            self.peeked.drain(..amount.min(self.peeked.len()));
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if self.peeked.is_empty() {
            self.reader.as_read().read(buffer)?
        } else {
            let count = buffer.len().min(self.peeked.len());
            for (to, from) in buffer.iter_mut().zip(self.peeked.drain(..count)) {
                *to = from;
            }
            count
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl Reader {
    fn as_read(&mut self) -> &mut dyn Read {
        match self {
            Self::File(file) => file,
            Self::Stream(stream) => stream,
        }
    }

    fn as_buf_read(&mut self) -> &mut dyn BufRead {
        match self {
            Self::File(file) => file,
            Self::Stream(stream) => stream,
        }
    }
}
