//! Typed access to a TOML document whose keys the environment may override (TP-462).
//!
//! A [`Section`] is one table. It hands out values by key, remembers which keys were asked for, and reports the others
//! as unknown when it is finished. Every value knows its origin, so every error can name it.

use std::num::NonZeroU32;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, UnknownKey};
use super::names::{FileMode, Namespace, Secret, is_printable};
use super::range::{IdRange, IdRanges};
use crate::channel::Channel;
use crate::ids::{AeronStreamId, PoolId, StreamId};
use crate::layout::{SlotCount, Stride};

/// Looks up an environment variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The text of a file, for line numbers and excerpts.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    text: &'a str,
    env: Env<'a>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, env: Env<'a>) -> Self {
        Self { text, env }
    }

    /// Parses the file.
    pub(super) fn parse(&self) -> Result<DeTable<'a>, ConfigError> {
        let root = DeTable::parse(self.text).map_err(|error| ConfigError::Syntax {
            line: error.span().map_or(1, |span| self.line(span.start)),
            problem: error.message().to_owned(),
        })?;
        Ok(root.into_inner())
    }

    /// Where the value of a key comes from: names the line of an error that was found after loading.
    pub(super) fn origin_of(&self, root: &DeTable<'_>, key: &str) -> Origin {
        let variable = variable_of(key);
        if (self.env)(&variable).is_some() {
            return Origin::Environment { variable };
        }
        let mut table = Some(root);
        let mut origin = Origin::Program;
        for name in key.split('.') {
            let Some(value) = table.and_then(|table| table.get(name)) else { return Origin::Program };
            origin = Origin::File { line: self.line(value.span().start) };
            table = value.get_ref().as_table();
        }
        origin
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    /// The value as it is written, for an error message.
    fn excerpt(&self, value: &Spanned<DeValue<'_>>) -> String {
        let written = self.text.get(value.span()).unwrap_or_default();
        format!("{} {}", value.get_ref().type_str(), excerpt(written))
    }
}

/// A table of the document, or the absence of one: then only the environment can give values.
pub(super) struct Section<'a> {
    source: Source<'a>,
    path: String,
    line: usize,
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
}

/// A value and where it is from.
struct Found<'a> {
    key: String,
    origin: Origin,
    value: Value<'a>,
}

enum Value<'a> {
    File(&'a Spanned<DeValue<'a>>),
    Environment(String),
}

impl<'a> Section<'a> {
    pub(super) fn root(source: Source<'a>, table: &'a DeTable<'a>) -> Self {
        Self { source, path: String::new(), line: 1, table: Some(table), known: Vec::new() }
    }

    /// A value with a default.
    pub(super) fn or<T: Scalar>(&mut self, key: &'static str, default: T) -> Result<T, ConfigError> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// A value that must be there.
    pub(super) fn required<T: Scalar>(&mut self, key: &'static str) -> Result<T, ConfigError> {
        self.optional(key)?.ok_or_else(|| ConfigError::Missing {
            key: self.full_key(key),
            origin: Origin::File { line: self.line },
            allowed: T::ALLOWED,
        })
    }

    /// A value that may be absent.
    pub(super) fn optional<T: Scalar>(&mut self, key: &'static str) -> Result<Option<T>, ConfigError> {
        let Some(found) = self.find(key) else { return Ok(None) };
        let parsed = match &found.value {
            Value::File(value) => T::from_toml(value.get_ref()),
            Value::Environment(text) => T::from_text(text),
        };
        match parsed {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong_value(found, T::SHOWN, T::ALLOWED)),
        }
    }

    /// A channel with a default.
    pub(super) fn channel(&mut self, key: &'static str, default: &Channel) -> Result<Channel, ConfigError> {
        let Some(found) = self.find(key) else { return Ok(default.clone()) };
        let text = match &found.value {
            Value::File(value) => value.get_ref().as_str(),
            Value::Environment(text) => Some(text.as_str()),
        };
        let Some(text) = text else { return Err(self.wrong_value(found, true, "an Aeron channel text")) };
        Channel::parse(text).map_err(|source| ConfigError::Channel {
            key: found.key,
            origin: found.origin,
            source,
        })
    }

    /// An array of texts. Not a scalar, so the environment does not override it.
    pub(super) fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(found) = self.find_in_file(key) else { return Ok(None) };
        let Value::File(value) = &found.value else { return Ok(None) };
        let texts = value.get_ref().as_array().and_then(|array| {
            array
                .iter()
                .map(|element| element.get_ref().as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        texts.map(Some).ok_or_else(|| self.wrong_value(found, true, "an array of texts"))
    }

    /// A table of this table; an empty one when it is not written.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Self, ConfigError> {
        let path = self.full_key(key);
        match self.find_in_file(key) {
            None => Ok(Self { source: self.source, path, line: self.line, table: None, known: Vec::new() }),
            Some(found) => self.table_of(path, found),
        }
    }

    /// The tables of a table, with their names, in the order of definition.
    pub(super) fn named_sections(&mut self, key: &'static str) -> Result<Vec<(String, Self)>, ConfigError> {
        let parent = self.section(key)?;
        let entries = parent.table.into_iter().flatten();
        entries
            .map(|(name, value)| {
                let path = format!("{}.{}", parent.path, name.get_ref());
                let section = self.table_of(path.clone(), self.in_file(path, value))?;
                Ok((name.get_ref().clone().into_owned(), section))
            })
            .collect()
    }

    /// The tables of an array.
    pub(super) fn listed_sections(&mut self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        let path = self.full_key(key);
        let Some(found) = self.find_in_file(key) else { return Ok(Vec::new()) };
        let elements = match &found.value {
            Value::File(value) => value.get_ref().as_array(),
            Value::Environment(_) => None,
        };
        let Some(elements) = elements else {
            return Err(self.wrong_value(found, true, "an array of tables"));
        };
        let sections = elements.iter().enumerate().map(|(index, value)| {
            let path = format!("{path}[{index}]");
            self.table_of(path.clone(), self.in_file(path, value))
        });
        sections.collect()
    }

    /// Reports the keys nobody asked for, except `foreign` ones.
    pub(super) fn finish(self, foreign: &[&str], unknown: &mut Vec<UnknownKey>) {
        for name in self.table.into_iter().flat_map(|table| table.keys()) {
            let key: &str = name.get_ref();
            if !self.known.contains(&key) && !foreign.contains(&key) {
                unknown
                    .push(UnknownKey { key: self.full_key(key), line: self.source.line(name.span().start) });
            }
        }
    }

    fn find(&mut self, key: &'static str) -> Option<Found<'a>> {
        let in_file = self.find_in_file(key);
        let full_key = self.full_key(key);
        // Elements of arrays have no name of their own and so no variable.
        if full_key.contains('[') {
            return in_file;
        }
        let variable = variable_of(&full_key);
        match (self.source.env)(&variable) {
            Some(text) => Some(Found {
                key: full_key,
                origin: Origin::Environment { variable },
                value: Value::Environment(text),
            }),
            None => in_file,
        }
    }

    fn find_in_file(&mut self, key: &'static str) -> Option<Found<'a>> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        Some(self.in_file(self.full_key(key), value))
    }

    fn in_file(&self, key: String, value: &'a Spanned<DeValue<'a>>) -> Found<'a> {
        let line = self.source.line(value.span().start);
        Found { key, origin: Origin::File { line }, value: Value::File(value) }
    }

    fn table_of(&self, path: String, found: Found<'a>) -> Result<Self, ConfigError> {
        let table = match &found.value {
            Value::File(value) => value.get_ref().as_table().map(|table| (table, value.span().start)),
            Value::Environment(_) => None,
        };
        match table {
            Some((table, start)) => Ok(Self {
                source: self.source,
                path,
                line: self.source.line(start),
                table: Some(table),
                known: Vec::new(),
            }),
            None => Err(self.wrong_value(found, true, "a table")),
        }
    }

    fn wrong_value(&self, found: Found<'_>, shown: bool, allowed: &'static str) -> ConfigError {
        let text = match &found.value {
            _ if !shown => "a value that is not shown".to_owned(),
            Value::File(value) => self.source.excerpt(value),
            Value::Environment(text) => excerpt(text),
        };
        ConfigError::Value { key: found.key, origin: found.origin, found: text, allowed }
    }

    fn full_key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// The environment variable that overrides a key (TP-462).
fn variable_of(key: &str) -> String {
    key.to_uppercase().replace('.', "_")
}

/// A type that one TOML value or one environment variable can give.
pub(super) trait Scalar: Sized {
    /// What the type takes, for error messages.
    const ALLOWED: &'static str;
    /// Whether a wrong value may be shown.
    const SHOWN: bool = true;

    /// Reads a TOML value; by default only texts.
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().and_then(Self::from_text)
    }

    /// Reads an environment variable.
    fn from_text(text: &str) -> Option<Self>;
}

impl Scalar for u32 {
    const ALLOWED: &'static str = "a number from 0 to 4294967295";

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        let number = value.as_integer()?;
        Self::from_str_radix(number.as_str(), number.radix()).ok()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// Limited to what TOML can write, so that a dump says the same.
impl Scalar for u64 {
    const ALLOWED: &'static str = "a number from 0 to 9223372036854775807";

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        let number = value.as_integer()?;
        let value = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
        Self::try_from(value).ok()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse::<i64>().ok().and_then(|value| Self::try_from(value).ok())
    }
}

/// Types that are numbers with limits.
macro_rules! limited_number {
    ($type:ty, $allowed:literal, |$number:ident| $make:expr) => {
        impl Scalar for $type {
            const ALLOWED: &'static str = $allowed;

            fn from_toml(value: &DeValue<'_>) -> Option<Self> {
                u32::from_toml(value).and_then(|$number| $make)
            }

            fn from_text(text: &str) -> Option<Self> {
                u32::from_text(text).and_then(|$number| $make)
            }
        }
    };
}

limited_number!(NonZeroU32, "a number from 1 to 4294967295", |number| Self::new(number));
limited_number!(StreamId, "a number from 1 to 4294967295", |number| (number != 0).then(|| Self::new(number)));
limited_number!(AeronStreamId, "a number from 1 to 2147483647", |number| {
    i32::try_from(number).ok().filter(|&id| id != 0).map(Self::new)
});
limited_number!(PoolId, "a number from 1 to 65535", |number| {
    u16::try_from(number).ok().filter(|&id| id != 0).map(Self::new)
});
limited_number!(SlotCount, "a power of two from 1 to 2147483648", |number| Self::new(number).ok());
limited_number!(Stride, "a multiple of 64 from 64 to 4294967232", |number| Self::new(number).ok());

impl Scalar for bool {
    const ALLOWED: &'static str = "true or false";

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for String {
    const ALLOWED: &'static str = "a text of printable ASCII";

    fn from_text(text: &str) -> Option<Self> {
        is_printable(text).then(|| text.to_owned())
    }
}

impl Scalar for PathBuf {
    const ALLOWED: &'static str = "a path";

    fn from_text(text: &str) -> Option<Self> {
        (!text.contains('\0')).then(|| Self::from(text))
    }
}

impl Scalar for Namespace {
    const ALLOWED: &'static str = Namespace::ALLOWED;

    fn from_text(text: &str) -> Option<Self> {
        Self::new(text)
    }
}

impl Scalar for FileMode {
    const ALLOWED: &'static str = FileMode::ALLOWED;

    fn from_text(text: &str) -> Option<Self> {
        Self::from_octal(text)
    }
}

/// An empty text stands for "no secret".
impl Scalar for Option<Secret> {
    const ALLOWED: &'static str = "a text of printable ASCII";
    const SHOWN: bool = false;

    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { Secret::new(text).map(Some) }
    }
}

impl Scalar for IdRanges {
    const ALLOWED: &'static str =
        "\"a-b\", \"a,b\", \"a\", [a, b] or an array of such texts, with 1 <= a <= b <= 4294967295";

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Self::from_text(text);
        }
        let elements = value.as_array()?;
        if elements.iter().any(|element| element.get_ref().is_integer()) {
            let numbers = elements.iter().map(|element| u32::from_toml(element.get_ref()));
            let [start, end] = numbers.collect::<Option<Vec<_>>>()?.try_into().ok()?;
            return IdRange::new(start, end).ok().map(Self::from);
        }
        let ranges = elements.iter().map(|element| element.get_ref().as_str()?.parse().ok());
        ranges.collect::<Option<Vec<IdRange>>>().map(Self::new)
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// Foreign text for an error message: escaped, in backticks, cut after 60 characters.
pub(super) fn excerpt(text: &str) -> String {
    const MAX: usize = 60;
    let mut shown: String = text.chars().take(MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}
