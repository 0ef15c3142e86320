//! Messages from standard input, until it ends or the command does.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use tidegate::mq::Message;

use super::format::{self, Format, FormatError};
use super::life::Life;
use crate::output::{Exit, Stop};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Standard input as messages.
pub(super) struct Input {
    format: Format,
    life: Life,
    /// Readable once only what stands ready is wanted.
    enough: Option<UnixStream>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were used.
    used: usize,
    /// Bytes of the buffer in which there is no end of line.
    searched: usize,
    ended: bool,
    /// Messages read so far.
    count: u64,
}

impl Input {
    pub(super) fn new(format: Format, life: Life) -> Self {
        Self { format, life, enough: None, buffer: Vec::new(), used: 0, searched: 0, ended: false, count: 0 }
    }

    /// Waits for no more input once `enough` can be read.
    pub(super) fn until(self, enough: UnixStream) -> Self {
        Self { enough: Some(enough), ..self }
    }

    /// The next message; `None` at the end of the input or of the command, or when there was enough.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Stop> {
        loop {
            let taken = self.take().map_err(|error| Stop::Error {
                exit: Exit::Failed,
                code: "bad_input",
                message: format!("message {} of standard input: {error}", self.count + 1),
            })?;
            if let Some(message) = taken {
                self.count += 1;
                return Ok(Some(message));
            }
            if self.ended || !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// A message out of the buffer.
    fn take(&mut self) -> Result<Option<Message>, FormatError> {
        let waiting = self.buffer.get(self.used..).unwrap_or_default();
        if self.format == Format::Frames {
            return match format::from_frames(waiting)? {
                Some((message, length)) => {
                    self.used += length;
                    Ok(Some(message))
                }
                None if self.ended && !waiting.is_empty() => Err(FormatError::CutShort),
                None => Ok(None),
            };
        }
        let unseen = waiting.get(self.searched..).unwrap_or_default();
        let (line, used) = match unseen.iter().position(|&byte| byte == b'\n') {
            Some(end) => (waiting.get(..self.searched + end), self.searched + end + 1),
            // The last line may lack its end.
            None if self.ended && !waiting.is_empty() => (Some(waiting), waiting.len()),
            None => {
                self.searched = waiting.len();
                return Ok(None);
            }
        };
        let line = line.unwrap_or_default();
        let message = match self.format {
            Format::Json => format::from_json(line)?,
            _ => format::from_text(line)?,
        };
        self.used += used;
        self.searched = 0;
        Ok(Some(message))
    }

    /// Reads more; false when the command is over, or nothing stands ready and there was enough.
    fn fill(&mut self) -> Result<bool, Stop> {
        let failed = |error: io::Error| Stop::Error {
            exit: Exit::Failed,
            code: "io",
            message: format!("cannot read standard input: {error}"),
        };
        let stdin = io::stdin();
        loop {
            let mut fds = vec![PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.life, PollFlags::IN)];
            fds.extend(self.enough.as_ref().map(|enough| PollFd::new(enough, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() || fds[0].revents().is_empty() => return Ok(false),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        self.buffer.drain(..self.used);
        self.used = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK, 0);
        // Not through the buffer of the standard library, which would hide what was read from the next poll.
        let read = rustix::io::read(&stdin, &mut self.buffer[before..]);
        self.buffer.truncate(before + read.unwrap_or(0));
        match read {
            Ok(0) => self.ended = true,
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        Ok(true)
    }
}

/// A file that must be there: a key, a password, a list of either. One that is too large is refused rather than cut: what
/// remains of it would admit others than it says.
pub(super) fn read_file(path: &std::path::Path, what: &str) -> Result<Vec<u8>, Stop> {
    /// Far more than a sensible list holds, and little enough to be read at once.
    const MOST: u64 = 16 << 20;
    let failed = |error: io::Error| {
        let (exit, code) = crate::output::exit_of_io(&error);
        Stop::Error { exit, code, message: format!("cannot read {what} {}: {error}", path.display()) }
    };
    let mut bytes = Vec::new();
    // One more, to find out whether there is more.
    std::fs::File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MOST {
        return Err(Stop::usage(format!(
            "cannot read {what} {}: it is larger than {} MiB, the most that is read; check the path",
            path.display(),
            MOST >> 20,
        )));
    }
    Ok(bytes)
}
