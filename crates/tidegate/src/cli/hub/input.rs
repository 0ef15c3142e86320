//! Lines of a file or pipe as records, until the input or the command ends.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use tidegate::hub::schema::{CsvColumns, RecordMut, Schema};

use super::schema::Format;
use crate::cli::signal::Interrupt;
use crate::output::{Exit, Stop, exit_of_io};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Longest line.
const LONGEST: usize = 16 << 20;
/// Most characters of CSV for one byte of a record, be it a number, a text or a comma.
const LONGEST_BYTE: usize = 64;

/// A line that is no record, or a record.
pub(super) type Parsed = Result<Vec<u8>, String>;

/// The input, line by line.
pub(super) struct Input<'a> {
    from: OwnedFd,
    name: String,
    schema: &'a Schema,
    /// Columns, once the first line of CSV was read.
    columns: Option<CsvColumns<'a>>,
    format: Format,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were used.
    used: usize,
    /// Bytes after those in which there is no end of line.
    searched: usize,
    ended: bool,
    /// Number of the line last read, from 1 on.
    line: u64,
}

impl<'a> Input<'a> {
    pub(super) fn open(path: &Path, format: Format, schema: &'a Schema) -> Result<Self, Stop> {
        let (opened, name) = if path == Path::new("-") {
            (rustix::io::dup(io::stdin()).map_err(io::Error::from), "standard input".to_owned())
        } else {
            (File::open(path).map(OwnedFd::from), path.display().to_string())
        };
        let from = opened.map_err(|error| unreadable(&name, &error))?;
        Ok(Self {
            from,
            name,
            schema,
            columns: None,
            format,
            buffer: Vec::new(),
            used: 0,
            searched: 0,
            ended: false,
            line: 0,
        })
    }

    /// The next line as a record, or what is wrong with it; none at the end of the input or of the command. Empty lines are
    /// passed over.
    pub(super) fn next(&mut self, interrupt: &Interrupt) -> Result<Option<Parsed>, Stop> {
        while let Some(line) = self.next_line(interrupt)? {
            self.line += 1;
            let line = match String::from_utf8(line) {
                Ok(line) => line,
                Err(error) => {
                    let column = error.utf8_error().valid_up_to() + 1;
                    return Ok(Some(Err(self.at(column, "expected UTF-8"))));
                }
            };
            if line.trim().is_empty() {
                continue;
            }
            let unended = line.strip_suffix('\r').unwrap_or(&line);
            match self.format {
                Format::Ndjson => return Ok(Some(self.json_record(unended))),
                Format::Csv if self.columns.is_none() => self.head(unended)?,
                Format::Csv => {
                    let (text, further) = self.join_quoted(line, interrupt)?;
                    let parsed = self.csv_record(text.strip_suffix('\r').unwrap_or(&text));
                    self.line += further;
                    return Ok(Some(parsed));
                }
            }
        }
        Ok(None)
    }

    fn at(&self, column: usize, what: impl std::fmt::Display) -> String {
        format!("{}, line {}, column {column}: {what}", self.name, self.line)
    }

    fn json_record(&self, line: &str) -> Parsed {
        let value = serde_json::from_str(line).map_err(|error| {
            // It says "... at line 1 column 7", where 1 is this line.
            let text = error.to_string();
            let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
            self.at(error.column(), what)
        })?;
        let mut bytes = vec![0; self.schema.size() as usize];
        let mut record = RecordMut::new(self.schema, &mut bytes).map_err(|error| self.at(1, error))?;
        record.put_json(self.line, &value).map_err(|error| format!("{}, {error}", self.name))?;
        Ok(bytes)
    }

    /// A record of CSV goes on in the next line while a quote is open; returns how many lines were added. None is longer than all
    /// its fields can be: a quote that is still open then is a mistake.
    fn join_quoted(&mut self, mut text: String, interrupt: &Interrupt) -> Result<(String, u64), Stop> {
        let longest = LONGEST_BYTE * (self.schema.size() as usize + 1);
        let mut further = 0;
        while text.len() <= longest
            && matches!(split(text.strip_suffix('\r').unwrap_or(&text)), Err(Misquoted { is_open: true, .. }))
            && let Some(line) = self.next_line(interrupt)?
        {
            further += 1;
            let Ok(line) = String::from_utf8(line) else { break };
            text.push('\n');
            text.push_str(&line);
        }
        Ok((text, further))
    }

    fn csv_record(&self, line: &str) -> Parsed {
        let Some(columns) = &self.columns else {
            return Err(self.at(1, "the names of the columns are missing"));
        };
        let fields = split(line).map_err(|wrong| {
            self.at(wrong.column, "a quote that is not closed, or not escaped by another")
        })?;
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let mut bytes = vec![0; self.schema.size() as usize];
        columns.put_row(self.line, &fields, &mut bytes).map_err(|error| format!("{}, {error}", self.name))?;
        Ok(bytes)
    }

    /// The first line of CSV. Without it nothing that follows means anything.
    fn head(&mut self, line: &str) -> Result<(), Stop> {
        let bad = |message| Stop::Error { exit: Exit::Failed, code: "bad_input", message };
        let names = split(line).map_err(|wrong| bad(self.at(wrong.column, "a quote that is not closed")))?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let columns = CsvColumns::in_order(self.schema, &names);
        self.columns = Some(columns.map_err(|error| bad(format!("{}, {error}", self.name)))?);
        Ok(())
    }

    /// The next line without its end.
    fn next_line(&mut self, interrupt: &Interrupt) -> Result<Option<Vec<u8>>, Stop> {
        loop {
            let waiting = self.buffer.get(self.used..).unwrap_or_default();
            let unseen = waiting.get(self.searched..).unwrap_or_default();
            if let Some(end) = unseen.iter().position(|byte| *byte == b'\n') {
                let line = waiting.get(..self.searched + end).unwrap_or_default().to_vec();
                self.used += line.len() + 1;
                self.searched = 0;
                return Ok(Some(line));
            }
            if self.ended {
                // The last line may lack its end.
                let line = waiting.to_vec();
                self.used = self.buffer.len();
                self.searched = 0;
                return Ok((!line.is_empty()).then_some(line));
            }
            self.searched = waiting.len();
            if self.searched > LONGEST {
                let message = format!("{}, line {}: longer than {LONGEST} bytes", self.name, self.line + 1);
                return Err(Stop::Error { exit: Exit::Failed, code: "bad_input", message });
            }
            if !self.fill(interrupt)? {
                return Ok(None);
            }
        }
    }

    /// Reads more; false when the command was told to stop.
    fn fill(&mut self, interrupt: &Interrupt) -> Result<bool, Stop> {
        loop {
            let mut fds = [PollFd::new(&self.from, PollFlags::IN), PollFd::new(interrupt, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(unreadable(&self.name, &errno.into())),
            }
        }
        self.buffer.drain(..self.used);
        self.used = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK, 0);
        let read = rustix::io::read(&self.from, self.buffer.get_mut(before..).unwrap_or_default());
        self.buffer.truncate(before + read.unwrap_or(0));
        match read {
            Ok(0) => self.ended = true,
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(errno) => return Err(unreadable(&self.name, &errno.into())),
        }
        Ok(true)
    }
}

fn unreadable(name: &str, error: &io::Error) -> Stop {
    let (exit, code) = exit_of_io(error);
    Stop::Error { exit, code, message: format!("cannot read {name}: {error}") }
}

/// A quote that is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Misquoted {
    column: usize,
    /// Whether it is only not closed yet.
    is_open: bool,
}

/// The fields of a line of CSV.
fn split(line: &str) -> Result<Vec<String>, Misquoted> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let column = line.len() - rest.len() + 1;
        let (field, after) = match (rest.strip_prefix('"'), rest.find(',')) {
            (Some(quoted), _) => take_quoted(quoted).ok_or(Misquoted { column, is_open: true })?,
            (None, end) => {
                let (field, after) = rest.split_at(end.unwrap_or(rest.len()));
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(Misquoted { column: line.len() - after.len() + 1, is_open: false }),
        }
    }
}

/// What stands in quotes, of which the first is gone, and what comes behind.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('"')?;
        field.push_str(before);
        match behind.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Some((field, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Misquoted, split};

    #[test]
    fn fields_are_split_at_commas_outside_of_quotes() {
        assert_eq!(split("1,,3").unwrap(), ["1", "", "3"]);
        assert_eq!(split(r#""a,b","say ""x""",c"#).unwrap(), ["a,b", r#"say "x""#, "c"]);
        assert_eq!(split("").unwrap(), [""]);
        assert_eq!(split("a,").unwrap(), ["a", ""]);
        assert_eq!(split(r#"a,"b"#), Err(Misquoted { column: 3, is_open: true }));
        assert_eq!(split(r#""b"c,d"#), Err(Misquoted { column: 4, is_open: false }));
    }
}
