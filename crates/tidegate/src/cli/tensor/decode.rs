//! `tidegate tensor decode`: control messages from hexadecimal digits to their fields.
//!
//! Every input gives one result, in order. An input that is no message is reported and the next one is tried; the command
//! then ends with exit code 1.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tidegate::sbe::control::{self, ShmRegionSuperblock, SlotHeader};
use tidegate::sbe::{AnyMessage, DecodeError};

use crate::output::{Exit, Output, Report, Stop, error_object, exit_of_io};

/// Longest line that is read: twice the digits of the largest message of Aeron, 16 MiB.
const MAX_LINE: u64 = 64 << 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Decode {
    /// Messages as hexadecimal digits, one per argument; space between digits is ignored
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    hex: Vec<String>,
    /// Read messages from a file, one per line; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Take the digits for a structure of shared memory, which has no message header
    #[arg(long)]
    layout: Option<Layout>,
}

const EXAMPLES: &str = "\
Examples:
  tidegate tensor decode '0900 0600 8503 0100 ffff0000 00000000 00 00000000'
  xxd -p -c0 message.bin | tidegate tensor decode --file - --json
  head -c64 header.ring | xxd -p -c0 | tidegate tensor decode --layout superblock --file -";

/// A structure that stands in shared memory without a message header.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Layout {
    /// The first 64 bytes of a region file
    Superblock,
    /// One slot of a header ring, 256 bytes
    Slot,
}

impl Decode {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let mut failed = false;
        let mut decode = |number: usize, digits: &[u8]| match self.decode(digits) {
            Ok(decoded) => decoded.print(output),
            Err(problem) => {
                failed = true;
                problem.print(number, output)
            }
        };
        match &self.file {
            Some(path) => each_line(path, decode)?,
            None => {
                for (index, digits) in self.hex.iter().enumerate() {
                    decode(index + 1, digits.as_bytes())?;
                }
            }
        }
        if failed { Err(Stop::Reported(Exit::Failed)) } else { Ok(()) }
    }

    fn decode(&self, digits: &[u8]) -> Result<Decoded, Problem> {
        let bytes = parse_hex(digits)?;
        let (name, template, values) = match self.layout {
            None => return Ok(Decoded::from(AnyMessage::decode(&bytes)?)),
            Some(Layout::Superblock) => (
                "ShmRegionSuperblock",
                ShmRegionSuperblock::TEMPLATE_ID,
                ShmRegionSuperblock::decode_body(&bytes)?.to_json(),
            ),
            Some(Layout::Slot) => {
                ("SlotHeader", SlotHeader::TEMPLATE_ID, SlotHeader::decode_body(&bytes)?.to_json())
            }
        };
        Ok(Decoded { schema: control::SCHEMA.name, template, name, values })
    }
}

/// A message and its fields.
pub(super) struct Decoded {
    schema: &'static str,
    template: u16,
    name: &'static str,
    values: Value,
}

impl From<AnyMessage<'_>> for Decoded {
    fn from(message: AnyMessage<'_>) -> Self {
        Self {
            schema: message.schema().name,
            template: message.template_id(),
            name: message.name(),
            values: message.to_json(),
        }
    }
}

impl Decoded {
    pub(super) fn print(self, output: &mut Output) -> Result<(), Stop> {
        output.result(|| self.text(), || self.json())
    }

    /// One line per field.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{} {} (template {})\n", self.schema, self.name, self.template);
        write_fields(&mut text, &self.values, 1);
        text
    }

    /// Name and fields on one line.
    pub(super) fn line(&self) -> String {
        let mut text = self.name.to_owned();
        write_inline(&mut text, &self.values);
        text
    }

    /// The object of one message, the same in every command that prints messages.
    pub(super) fn json(&self) -> Value {
        json!({
            "schema": self.schema,
            "template": self.template,
            "message": self.name,
            "values": self.values,
        })
    }
}

/// Why one input is not a message.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("no digits; give the bytes of a message in hexadecimal")]
    Empty,
    #[error("`{found}` at digit {position} is not hexadecimal; give only 0-9, a-f and space")]
    Digit { found: String, position: usize },
    #[error("{digits} digits make no whole number of bytes; one is missing or too many")]
    Odd { digits: usize },
    #[error("not a message: {0}")]
    Message(#[from] DecodeError),
}

impl Problem {
    fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::Digit { .. } | Self::Odd { .. } => "hex",
            Self::Message(error) => decode_error_code(error),
        }
    }

    /// On standard output with `--json`, so that results stay one per input; else on standard error.
    fn print(&self, number: usize, output: &mut Output) -> Result<(), Stop> {
        let message = self.to_string();
        if output.json() {
            let error = || json!({ "input": number, "error": error_object(self.code(), None, &message) });
            return output.result(String::new, error);
        }
        let _ = writeln!(io::stderr(), "tidegate: input {number}: {message}");
        Ok(())
    }
}

/// The stable word for bytes that are no message of ours, or a broken one.
pub(super) fn decode_error_code(error: &DecodeError) -> &'static str {
    if error.is_foreign() { "foreign" } else { "malformed" }
}

/// Why the inputs cannot be read.
#[derive(Debug, thiserror::Error)]
enum InputError {
    #[error("cannot read {path}: {source}; name a file of hexadecimal digits, one message per line")]
    Read { path: String, source: io::Error },
    #[error(
        "line {line} of {path} is longer than {MAX_LINE} bytes, no message is; put one message on a line"
    )]
    LineTooLong { path: String, line: usize },
}

impl Report for InputError {
    fn exit(&self) -> Exit {
        match self {
            Self::Read { source, .. } => exit_of_io(source).0,
            Self::LineTooLong { .. } => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read { source, .. } => exit_of_io(source).1,
            Self::LineTooLong { .. } => "line_too_long",
        }
    }
}

/// Calls `each` with the number and text of every line that is not blank.
fn each_line(path: &Path, mut each: impl FnMut(usize, &[u8]) -> Result<(), Stop>) -> Result<(), Stop> {
    let stdin = path.as_os_str() == "-";
    let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let failed = |source| InputError::Read { path: name.clone(), source };
    let mut reader: Box<dyn BufRead> = if stdin {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(std::fs::File::open(path).map_err(failed)?))
    };
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let len = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut text).map_err(failed)?;
        if len == 0 {
            break;
        }
        if len as u64 == MAX_LINE && text.last() != Some(&b'\n') {
            return Err(InputError::LineTooLong { path: name, line }.into());
        }
        if !text.trim_ascii().is_empty() {
            each(line, &text)?;
        }
    }
    Ok(())
}

fn parse_hex(text: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut digits = text.iter().filter(|byte| !byte.is_ascii_whitespace()).enumerate();
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let digit = |(index, &byte): (usize, &u8)| {
        let value = char::from(byte).to_digit(16);
        value
            .map(|value| value as u8)
            .ok_or_else(|| Problem::Digit { found: byte.escape_ascii().to_string(), position: index + 1 })
    };
    while let Some(high) = digits.next() {
        let high = digit(high)?;
        let Some(low) = digits.next() else {
            return Err(Problem::Odd { digits: 2 * bytes.len() + 1 });
        };
        bytes.push(high << 4 | digit(low)?);
    }
    if bytes.is_empty() { Err(Problem::Empty) } else { Ok(bytes) }
}

/// Fields for people: `name: value` per line, groups indented with a dash at each entry.
fn write_fields(text: &mut String, fields: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    for (name, value) in fields.as_object().into_iter().flatten() {
        match value.as_array() {
            None => text.push_str(&format!("{indent}{name}: {}\n", plain(value))),
            Some(entries) => {
                text.push_str(&format!("{indent}{name}: {}\n", count(entries.len())));
                for entry in entries {
                    let mut inner = String::new();
                    write_fields(&mut inner, entry, depth + 2);
                    // The dash takes the place of the last two spaces before the first field.
                    let dashed = inner.replacen("  ".repeat(depth + 2).as_str(), &format!("{indent}  - "), 1);
                    text.push_str(&dashed);
                }
            }
        }
    }
}

/// Fields behind each other, each after a space: ` name=value`, entries of groups in braces.
fn write_inline(text: &mut String, fields: &Value) {
    for (name, value) in fields.as_object().into_iter().flatten() {
        match value.as_array() {
            None => text.push_str(&format!(" {name}={}", plain(value))),
            Some(entries) => {
                text.push_str(&format!(" {name}=["));
                for entry in entries {
                    text.push('{');
                    write_inline(text, entry);
                    text.push_str(" }");
                }
                text.push(']');
            }
        }
    }
}

fn count(entries: usize) -> String {
    match entries {
        0 => "none".to_owned(),
        1 => "1 entry".to_owned(),
        more => format!("{more} entries"),
    }
}

fn plain(value: &Value) -> String {
    if let Some(hex) = value.get("hex").and_then(Value::as_str) {
        return format!("0x{hex}");
    }
    if let Some(number) = value.get("value") {
        return match value.get("enum").and_then(Value::as_str) {
            Some(name) => format!("{name} ({number})"),
            None => format!("unlisted ({number})"),
        };
    }
    match value {
        Value::Null => "not provided".to_owned(),
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(parse_hex(b" 00 fF\t1\n2").unwrap(), [0, 255, 0x12]);
        assert!(matches!(parse_hex(b" \n"), Err(Problem::Empty)));
        assert!(matches!(parse_hex(b"00 1"), Err(Problem::Odd { digits: 3 })));
        let Err(Problem::Digit { found, position }) = parse_hex(b"0 0\xff") else { panic!() };
        assert_eq!((found.as_str(), position), ("\\xff", 3));
    }

    #[test]
    fn fields_on_one_line() {
        let values = json!({
            "id": 7, "code": {"enum": "OK", "value": 0}, "none": null, "empty": [],
            "pools": [{"poolId": 1}, {"poolId": 2}],
        });
        let mut text = String::new();
        write_inline(&mut text, &values);
        assert_eq!(text, " id=7 code=OK (0) none=not provided empty=[] pools=[{ poolId=1 }{ poolId=2 }]");
    }

    #[test]
    fn fields_for_people() {
        let values = json!({
            "id": 7, "code": {"enum": "OK", "value": 0}, "odd": {"enum": null, "value": 9}, "none": null,
            "text": "a", "data": {"hex": "00ff"}, "empty": [],
            "pools": [{"poolId": 1, "tags": [{"tag": "x"}]}, {"poolId": 2, "tags": []}],
        });
        let mut text = String::new();
        write_fields(&mut text, &values, 1);
        let expected = [
            "  id: 7",
            "  code: OK (0)",
            "  odd: unlisted (9)",
            "  none: not provided",
            "  text: \"a\"",
            "  data: 0x00ff",
            "  empty: none",
            "  pools: 2 entries",
            "    - poolId: 1",
            "      tags: 1 entry",
            "        - tag: \"x\"",
            "    - poolId: 2",
            "      tags: none",
            "",
        ];
        assert_eq!(text.split('\n').collect::<Vec<_>>(), expected);
    }
}
