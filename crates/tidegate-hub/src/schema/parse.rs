//! The parser of the canonical text: recursive descent over bytes, at most [`MAX_DEPTH`] deep, without look-ahead beyond
//! one word. It accepts exactly what the printer prints.

use super::layout::{Fields, check_outermost};
use super::{
    Base, Field, FieldType, MAX_DEPTH, MAX_NAME, MAX_TEXT, ParseError, Prim, Problem, Record, Schema,
};

/// Reads one text, which stands on line `line` of whatever it was taken from.
pub(super) fn schema(text: &str, line: u32) -> Result<Schema, ParseError> {
    if text.len() > MAX_TEXT {
        let problem = Problem::TooLong { bytes: text.len() };
        return Err(ParseError { line, column: column(MAX_TEXT), problem });
    }
    Parser { text, at: 0, line }.schema()
}

/// Checks that `name` is a name of the grammar; returns its length.
pub(super) fn name_len(
    text: &str,
    first: impl Fn(u8) -> bool,
    expected: &'static str,
) -> Result<usize, Problem> {
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(|&byte| first(byte)) {
        return Err(Problem::Unexpected { expected, found: excerpt(text) });
    }
    let len = bytes.iter().take_while(|&&byte| byte.is_ascii_alphanumeric() || byte == b'_').count();
    if len > MAX_NAME { Err(Problem::LongName { found: len }) } else { Ok(len) }
}

/// What may begin the name of a record.
pub(super) fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic()
}

/// What may begin the name of a field.
pub(super) fn begins_ident(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

/// What is at the start of `rest`, for people.
pub(super) fn excerpt(rest: &str) -> String {
    if rest.is_empty() {
        "the end of the text".to_owned()
    } else {
        format!("{:?}", rest.chars().take(16).collect::<String>())
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Byte that is read next; always at a character's start.
    at: usize,
    line: u32,
}

impl<'a> Parser<'a> {
    fn schema(mut self) -> Result<Schema, ParseError> {
        self.token("tds1 ", "\"tds1\" and one space")?;
        let name_at = self.at;
        let name = self.name(begins_name, "the name of the record, which begins with a letter")?;
        self.token(" size=", "one space and \"size=\"")?;
        let size = self.number()?;
        self.token(" align=", "one space and \"align=\"")?;
        let align_at = self.at;
        let align = self.number()?;
        self.token(" ", "one space")?;
        let record = self.record(name, name_at, 1)?;
        if self.at < self.text.len() {
            return Err(self.unexpected("the end of the text"));
        }
        check_outermost(&record, size, align).map_err(|problem| self.error(align_at, problem))?;
        Ok(Schema { record, size, align })
    }

    /// The fields in braces, which make a record of this name.
    fn record(&mut self, name: &str, name_at: usize, depth: usize) -> Result<Record, ParseError> {
        if depth > MAX_DEPTH {
            return Err(self.error(self.at, Problem::TooDeep));
        }
        self.token("{", "\"{\"")?;
        let mut fields = Fields::new(depth > 1);
        loop {
            let at = self.at;
            let field = self.field(depth)?;
            fields.push(field).map_err(|problem| self.error(at, problem))?;
            if !self.skip(";") {
                break;
            }
        }
        self.token("}", "\";\" and a field, or \"}\"")?;
        fields.finish(name.to_owned()).map_err(|problem| self.error(name_at, problem))
    }

    fn field(&mut self, depth: usize) -> Result<Field, ParseError> {
        let name = self.name(begins_ident, "the name of a field, which begins with a letter or \"_\"")?;
        self.token(":", "\":\" and a type")?;
        let base = self.base(depth)?;
        let count = if self.skip("[") { Some(self.count()?) } else { None };
        let optional = self.skip("?");
        self.token("@", "\"@\" and the offset")?;
        let offset = self.number()?;
        self.token("+", "\"+\" and the size")?;
        let size = self.number()?;
        Ok(Field { name: name.to_owned(), ty: FieldType { base, count }, optional, offset, size })
    }

    fn base(&mut self, depth: usize) -> Result<Base, ParseError> {
        const TYPE: &str =
            "a type: u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 b8 c8, or a name and fields in braces";
        let at = self.at;
        let word = self.name(begins_name, TYPE)?;
        let nested = self.rest().starts_with('{');
        match Prim::from_word(word) {
            Some(prim) if !nested => Ok(Base::Prim(prim)),
            None if !nested => {
                self.at = at;
                Err(self.unexpected(TYPE))
            }
            _ => self.record(word, at, depth + 1).map(Base::Record),
        }
    }

    /// The number of elements and the bracket after it.
    fn count(&mut self) -> Result<u32, ParseError> {
        let at = self.at;
        let count = self.number()?;
        if count == 0 {
            self.at = at;
            return Err(self.unexpected("a number of elements from 1"));
        }
        self.token("]", "\"]\"")?;
        Ok(count)
    }

    fn name(&mut self, first: impl Fn(u8) -> bool, expected: &'static str) -> Result<&'a str, ParseError> {
        let rest = self.rest();
        let len = name_len(rest, first, expected).map_err(|problem| self.error(self.at, problem))?;
        self.at += len;
        Ok(rest.get(..len).unwrap_or_default())
    }

    /// A decimal number of 32 bits without leading zeros.
    fn number(&mut self) -> Result<u32, ParseError> {
        const NUMBER: &str = "a decimal number of at most 4294967295 without leading zeros";
        let rest = self.rest();
        let len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let digits = rest.get(..len).unwrap_or_default();
        let canonical = digits == "0" || !digits.starts_with('0');
        match digits.parse() {
            Ok(number) if canonical => {
                self.at += len;
                Ok(number)
            }
            _ => Err(self.unexpected(NUMBER)),
        }
    }

    fn token(&mut self, token: &str, expected: &'static str) -> Result<(), ParseError> {
        if self.skip(token) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn skip(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn unexpected(&self, expected: &'static str) -> ParseError {
        self.error(self.at, Problem::Unexpected { expected, found: excerpt(self.rest()) })
    }

    fn error(&self, at: usize, problem: Problem) -> ParseError {
        ParseError { line: self.line, column: column(at), problem }
    }
}

/// Columns count from 1; a text is shorter than 4 GiB by far.
fn column(at: usize) -> u32 {
    u32::try_from(at).map_or(u32::MAX, |at| at.saturating_add(1))
}
