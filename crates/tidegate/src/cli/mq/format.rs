//! Messages as text, as JSON and as length-prefixed frames, both ways.
//!
//! | form | a message | a part |
//! |---|---|---|
//! | text | a line | its bytes, a tab between two parts; `\\`, `\t`, `\n`, `\r` and `\xNN` stand for what is not printable |
//! | JSON | an array on a line | a string, or `{"base64": "..."}` when the bytes are no UTF-8 |
//! | frames | number of parts (4 bytes, big-endian), then the parts | length (4 bytes, big-endian), then the bytes |
//!
//! What one command prints, another one reads: `tidegate mq pull ... | tidegate mq push ...` loses nothing in any form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tidegate::mq::{Message, Part};

/// How messages are written and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
    Frames,
}

/// Why input is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("\\{0} is no escape; write \\\\ for a backslash, or use --json or --frames")]
    Escape(char),
    #[error("the line ends within an escape; write \\\\ for a backslash, or use --json or --frames")]
    EscapeCutShort,
    #[error("not a JSON array of strings and {{\"base64\":\"...\"}} objects: {0}")]
    Json(String),
    #[error("a message of no parts cannot be sent; give at least one, which may be empty")]
    NoParts,
    #[error("{0} parts announced; a message has at most {MOST_PARTS}")]
    TooManyParts(u32),
    #[error("a part of {0} bytes announced; a part has at most {MOST_BYTES}")]
    TooLarge(u32),
    #[error("the input ends within a message")]
    CutShort,
}

/// Most parts of a message that is read.
const MOST_PARTS: u32 = 65_536;
/// Most bytes of a part that is read.
const MOST_BYTES: u32 = i32::MAX as u32;

/// A message as one line of text.
pub(super) fn to_text(message: &Message) -> String {
    let mut line = String::with_capacity(message.byte_len() + message.len());
    for (index, part) in message.parts().iter().enumerate() {
        if index > 0 {
            line.push('\t');
        }
        escape(part.as_slice(), &mut line);
    }
    line
}

fn escape(bytes: &[u8], line: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                control if control.is_control() => {
                    let mut utf8 = [0; 4];
                    for byte in control.encode_utf8(&mut utf8).bytes() {
                        line.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                printable => line.push(printable),
            }
        }
        for byte in chunk.invalid() {
            line.push_str(&format!("\\x{byte:02x}"));
        }
    }
}

/// Reads a line of text.
pub(super) fn from_text(line: &[u8]) -> Result<Message, FormatError> {
    line.split(|&byte| byte == b'\t').map(unescape).collect()
}

fn unescape(text: &[u8]) -> Result<Part, FormatError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let escape = rest.next().ok_or(FormatError::EscapeCutShort)?;
        bytes.push(match escape {
            b'\\' => b'\\',
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'x' => {
                let mut digit = || {
                    let digit = char::from(rest.next().ok_or(FormatError::EscapeCutShort)?);
                    digit.to_digit(16).map(|value| value as u8).ok_or(FormatError::Escape('x'))
                };
                digit()? << 4 | digit()?
            }
            other => return Err(FormatError::Escape(char::from(other))),
        });
    }
    Ok(Part::from(bytes))
}

/// A message as a JSON array.
pub(super) fn to_json(message: &Message) -> Value {
    message.parts().iter().map(|part| part_to_json(part.as_slice())).collect()
}

/// Bytes as a string, or as `{"base64": ...}`.
pub(super) fn part_to_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": BASE64.encode(bytes) }),
    }
}

/// Reads a line of JSON: an array, or a string or object alone for a message of one part.
pub(super) fn from_json(line: &[u8]) -> Result<Message, FormatError> {
    let value: Value = serde_json::from_slice(line).map_err(|error| FormatError::Json(error.to_string()))?;
    let message: Message = match value {
        Value::Array(parts) => parts.into_iter().map(part_from_json).collect::<Result<_, _>>()?,
        part => [part_from_json(part)?].into_iter().collect(),
    };
    if message.is_empty() { Err(FormatError::NoParts) } else { Ok(message) }
}

fn part_from_json(part: Value) -> Result<Part, FormatError> {
    match part {
        Value::String(text) => Ok(Part::from(text.into_bytes())),
        Value::Object(object) => match (object.len(), object.get("base64").and_then(Value::as_str)) {
            (1, Some(text)) => {
                BASE64.decode(text).map(Part::from).map_err(|error| FormatError::Json(error.to_string()))
            }
            _ => Err(FormatError::Json("an object is no {\"base64\":\"...\"}".to_owned())),
        },
        other => Err(FormatError::Json(format!("{other} is neither string nor object"))),
    }
}

/// A message as frames.
pub(super) fn to_frames(message: &Message) -> Vec<u8> {
    let prefix = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = Vec::with_capacity(4 + 4 * message.len() + message.byte_len());
    bytes.extend_from_slice(&prefix(message.len()));
    for part in message.parts() {
        bytes.extend_from_slice(&prefix(part.len()));
        bytes.extend_from_slice(part.as_slice());
    }
    bytes
}

/// Reads one message of frames from the front of `bytes`, and tells how long it is; `None` when more must be read first.
pub(super) fn from_frames(bytes: &[u8]) -> Result<Option<(Message, usize)>, FormatError> {
    let number = |at: usize| {
        let field = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*field))
    };
    let Some(parts) = number(0) else { return Ok(None) };
    match parts {
        0 => return Err(FormatError::NoParts),
        1..=MOST_PARTS => {}
        many => return Err(FormatError::TooManyParts(many)),
    }
    let mut message = Message::new();
    let mut at = 4;
    for _ in 0..parts {
        let Some(length) = number(at) else { return Ok(None) };
        if length > MOST_BYTES {
            return Err(FormatError::TooLarge(length));
        }
        let end = at + 4 + length as usize;
        let Some(part) = bytes.get(at + 4..end) else { return Ok(None) };
        message.push(Part::copy_from(part));
        at = end;
    }
    Ok(Some((message, at)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Message> {
        let part = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[a-z\\\\\t\n\u{7f}é]{0,20}".prop_map(String::into_bytes)
        ];
        prop::collection::vec(part, 1..5).prop_map(|parts| parts.into_iter().map(Part::from).collect())
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(message in messages()) {
            let text = to_text(&message);
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(&from_text(text.as_bytes()).expect("text"), &message);
            prop_assert_eq!(&from_json(to_json(&message).to_string().as_bytes()).expect("JSON"), &message);
            let frames = to_frames(&message);
            for end in 0..frames.len() {
                prop_assert_eq!(from_frames(&frames[..end]), Ok(None));
            }
            prop_assert_eq!(from_frames(&frames), Ok(Some((message, frames.len()))));
        }
    }

    #[test]
    fn text_is_printable() {
        let message: Message = [Part::from(b"a\tb\\\xff".to_vec()), Part::EMPTY].into_iter().collect();
        assert_eq!(to_text(&message), "a\\tb\\\\\\xff\t");
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(from_text(b"C:\\dir"), Err(FormatError::Escape('d')));
        for cut in [&b"a\\"[..], b"\\x", b"\\x0"] {
            assert_eq!(from_text(cut), Err(FormatError::EscapeCutShort));
        }
        assert_eq!(from_json(b"[]"), Err(FormatError::NoParts));
        for bad in [&b"{}"[..], b"[1]", b"[", b"{\"base64\":\"!\"}", b"{\"base64\":\"\",\"more\":1}"] {
            assert!(matches!(from_json(bad), Err(FormatError::Json(_))), "{bad:?}");
        }
        assert_eq!(from_frames(&[0; 4]), Err(FormatError::NoParts));
        assert_eq!(from_frames(&[1, 0, 0, 0]), Err(FormatError::TooManyParts(1 << 24)));
        assert_eq!(from_frames(&[0, 0, 0, 1, 255, 255, 255, 255]), Err(FormatError::TooLarge(u32::MAX)));
    }
}
