//! Ranges of ids as configuration writes them (TP-464).
//!
//! A list of ranges is written as `"a-b"`, `"a,b"`, `"a"`, as the two numbers `[a, b]`, or as an array of such texts.
//! Both ends belong to the range, 0 is never in one, and an empty text or array means "none".

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Ids from `start` to `end`, both included; never empty, never containing 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdRange {
    start: u32,
    end: u32,
}

impl IdRange {
    /// A range.
    ///
    /// # Errors
    /// [`ParseRangeError`] when `start` is 0 or greater than `end`.
    pub const fn new(start: u32, end: u32) -> Result<Self, ParseRangeError> {
        if start == 0 {
            return Err(ParseRangeError::Zero);
        }
        if start > end {
            return Err(ParseRangeError::Reversed { start, end });
        }
        Ok(Self { start, end })
    }

    /// For constants of this crate: a bad range fails the build.
    pub(super) const fn known(start: u32, end: u32) -> Self {
        assert!(start != 0 && start <= end);
        Self { start, end }
    }

    /// First id.
    #[must_use]
    pub const fn start(&self) -> u32 {
        self.start
    }

    /// Last id.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.end
    }

    /// Whether the id is in the range.
    #[must_use]
    pub const fn contains(&self, id: u32) -> bool {
        self.start <= id && id <= self.end
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl FromStr for IdRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, ParseRangeError> {
        let number = |part: &str| {
            let part = part.trim();
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let value = if digits { part.parse().ok() } else { None };
            value.ok_or_else(|| ParseRangeError::Number { found: part.to_owned() })
        };
        match text.split_once(['-', ',']) {
            Some((start, end)) => Self::new(number(start)?, number(end)?),
            None => number(text).and_then(|only| Self::new(only, only)),
        }
    }
}

/// Ranges of one key, by rising start; empty means disabled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdRanges(Vec<IdRange>);

impl IdRanges {
    /// Orders the ranges. Whether they overlap is checked with those of all other keys (TP-030).
    #[must_use]
    pub fn new(mut ranges: Vec<IdRange>) -> Self {
        ranges.sort_by_key(|range| (range.start, range.end));
        Self(ranges)
    }

    /// Whether there is no id at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the id is in one of the ranges.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.0.iter().any(|range| range.contains(id))
    }

    /// The ranges by rising start.
    pub fn iter(&self) -> std::slice::Iter<'_, IdRange> {
        self.0.iter()
    }

    /// All ids, rising: the first free one is the lowest free one.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|range| range.start..=range.end)
    }
}

impl From<IdRange> for IdRanges {
    fn from(range: IdRange) -> Self {
        Self(vec![range])
    }
}

impl FromStr for IdRanges {
    type Err = ParseRangeError;

    /// One range, or nothing.
    fn from_str(text: &str) -> Result<Self, ParseRangeError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.parse::<IdRange>().map(Self::from)
    }
}

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseRangeError {
    /// A range contains 0, which means "no id".
    #[error("a range starts at 1 or above, found 0")]
    Zero,
    /// The start lies behind the end.
    #[error("a range is written with its smaller number first, found {start}-{end}")]
    Reversed {
        /// First number.
        start: u32,
        /// Second number.
        end: u32,
    },
    /// An end that is no 32-bit number.
    #[error("a range consists of numbers up to 4294967295, found `{found}`")]
    Number {
        /// The text.
        found: String,
    },
}
