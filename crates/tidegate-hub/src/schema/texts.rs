//! The schema region of a block (DH-170): the text of the slots, then one line for each typed zone, separated by LF. The
//! first line is empty if only zones have a type; a block without any type has no text at all.

use thiserror::Error;

use super::{FingerprintMismatch, ParseError, Problem, Schema, SchemaHash, parse};

/// The schemas of a block, by the line on which they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaTexts {
    slot: Option<Schema>,
    zones: Vec<Schema>,
}

impl SchemaTexts {
    /// Most bytes of the whole region (3.2).
    pub const MAX_LEN: usize = 65_536;

    /// What a zone without a text has in its `text_index` (3.3).
    pub const NO_LINE: u32 = u32::MAX;

    /// Puts together the region of a new block: `text_index` of zone n is n + 1, counting typed zones only.
    ///
    /// # Errors
    /// [`TextsError::TooLong`].
    pub fn new(slot: Option<Schema>, zones: Vec<Schema>) -> Result<Self, TextsError> {
        let texts = Self { slot, zones };
        let bytes = texts.to_string().len();
        if bytes > Self::MAX_LEN { Err(TextsError::TooLong { bytes }) } else { Ok(texts) }
    }

    /// Reads the region from a private copy of its bytes.
    ///
    /// # Errors
    /// [`TextsError`] for a text that is no schema, with its line; for bytes that are no text; for too many of them.
    pub fn parse(bytes: &[u8]) -> Result<Self, TextsError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(TextsError::TooLong { bytes: bytes.len() });
        }
        let text =
            str::from_utf8(bytes).map_err(|error| TextsError::NotText { offset: error.valid_up_to() })?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut lines =
            (1..).zip(text.split('\n')).map(|(line, text)| (line, text, parse::schema(text, line)));
        let slot = match lines.next() {
            None | Some((_, "", _)) => None,
            Some((.., schema)) => Some(schema?),
        };
        let zones = lines.map(|(.., schema)| schema).collect::<Result<Vec<_>, _>>()?;
        if slot.is_none() && zones.is_empty() {
            let problem = Problem::Unexpected { expected: "a schema", found: "an empty line".to_owned() };
            return Err(ParseError { line: 1, column: 1, problem }.into());
        }
        Ok(Self { slot, zones })
    }

    /// The schema of the slots; nothing if they are untyped.
    ///
    /// # Errors
    /// [`TextsError`] if `hash`, from the descriptor, is not that of the text (DH-180).
    pub fn slot(&self, hash: SchemaHash) -> Result<Option<&Schema>, TextsError> {
        checked(0, self.slot.as_ref(), hash)
    }

    /// The schema of a zone, whose descriptor has this `text_index` and this hash; nothing if it is untyped.
    ///
    /// # Errors
    /// [`TextsError`] if there is no such line, or if the hash is not that of the text (DH-180).
    pub fn zone(&self, text_index: u32, hash: SchemaHash) -> Result<Option<&Schema>, TextsError> {
        if text_index == Self::NO_LINE {
            return checked(text_index, None, hash);
        }
        let index = text_index.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.zones.get(index)) {
            Some(schema) => checked(text_index, Some(schema), hash),
            None => Err(TextsError::NoSuchLine { text_index, lines: self.zones.len() + 1 }),
        }
    }
}

/// Prints the region.
impl std::fmt::Display for SchemaTexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.slot.iter().try_for_each(|slot| slot.fmt(f))?;
        self.zones.iter().try_for_each(|zone| write!(f, "\n{zone}"))
    }
}

fn checked(
    text_index: u32,
    schema: Option<&Schema>,
    hash: SchemaHash,
) -> Result<Option<&Schema>, TextsError> {
    match schema {
        None if hash.is_untyped() => Ok(None),
        None => Err(TextsError::NoText { text_index, hash }),
        Some(schema) => {
            hash.check_text(&schema.to_string())?;
            Ok(Some(schema))
        }
    }
}

/// A schema region that cannot be right. The block was altered, or its creator is of another make.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TextsError {
    /// A line that is no schema.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A text that does not have the hash of the descriptor.
    #[error(transparent)]
    Inconsistent(#[from] FingerprintMismatch),
    /// More bytes than a descriptor can state.
    #[error(
        "schema region: expected at most 65536 bytes, found {bytes}; shorten names or leave zones untyped"
    )]
    TooLong {
        /// Bytes of all texts with the line feeds.
        bytes: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("schema region: expected ASCII text, found another byte at offset {offset}")]
    NotText {
        /// The first such byte.
        offset: usize,
    },
    /// A hash without a text.
    #[error("schema region: expected a text with the hash {hash} at text_index {text_index}, found none")]
    NoText {
        /// The line.
        text_index: u32,
        /// The hash of the descriptor.
        hash: SchemaHash,
    },
    /// A zone that points behind the last line, or at the slot's.
    #[error("schema region: expected a zone's text_index in 1..{lines}, found {text_index}")]
    NoSuchLine {
        /// The line that the zone's descriptor names.
        text_index: u32,
        /// Lines there are, that of the slots among them.
        lines: usize,
    },
}
