//! The canonical text at compile time: what the derive macros call. Not meant to be called by hand.
//!
//! The text is printed twice: once to learn its length, then into an array of that length.

use super::{BaseDef, FieldDef, RecordDef};

/// Bytes of the text.
pub const fn text_len(record: &RecordDef, size: usize, align: usize) -> usize {
    let mut out = Out { place: &mut [], len: 0 };
    out.text(record, size, align);
    out.len
}

/// The text, of the length that [`text_len`] gave.
pub const fn text<const N: usize>(record: &RecordDef, size: usize, align: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let mut out = Out { place: &mut bytes, len: 0 };
    out.text(record, size, align);
    bytes
}

/// The text as a string. What [`text`] wrote is ASCII.
pub const fn as_str(bytes: &'static [u8]) -> &'static str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}

/// How deep records stand in each other: 1 for one without nested records.
pub const fn depth(record: &RecordDef) -> usize {
    let (mut deepest, mut at) = (0, 0);
    while at < record.fields.len() {
        if let BaseDef::Record(inner) = record.fields[at].ty.base {
            let inner = depth(inner);
            deepest = if inner > deepest { inner } else { deepest };
        }
        at += 1;
    }
    1 + deepest
}

/// Whether a record that could grow stands inside of another.
pub const fn nests_optional(record: &RecordDef) -> bool {
    let mut at = 0;
    while at < record.fields.len() {
        if let BaseDef::Record(inner) = record.fields[at].ty.base
            && (has_optional(inner) || nests_optional(inner))
        {
            return true;
        }
        at += 1;
    }
    false
}

const fn has_optional(record: &RecordDef) -> bool {
    let mut at = 0;
    while at < record.fields.len() {
        if record.fields[at].optional {
            return true;
        }
        at += 1;
    }
    false
}

/// A place to print to. What does not fit is counted only.
struct Out<'a> {
    place: &'a mut [u8],
    len: usize,
}

impl Out<'_> {
    const fn text(&mut self, record: &RecordDef, size: usize, align: usize) {
        self.str("tds1 ");
        self.str(record.name);
        self.str(" size=");
        self.number(size);
        self.str(" align=");
        self.number(align);
        self.str(" ");
        self.fields(record.fields);
    }

    const fn fields(&mut self, fields: &[FieldDef]) {
        let mut at = 0;
        while at < fields.len() {
            self.str(if at == 0 { "{" } else { ";" });
            self.field(&fields[at]);
            at += 1;
        }
        self.str("}");
    }

    const fn field(&mut self, field: &FieldDef) {
        self.str(field.name);
        self.str(":");
        match field.ty.base {
            BaseDef::Prim(prim) => self.str(prim.word()),
            BaseDef::Record(record) => {
                self.str(record.name);
                self.fields(record.fields);
            }
        }
        if let Some(count) = field.ty.count {
            self.str("[");
            self.number(count);
            self.str("]");
        }
        self.str(if field.optional { "?@" } else { "@" });
        self.number(field.offset);
        self.str("+");
        self.number(field.size);
    }

    const fn number(&mut self, number: usize) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.byte(b"0123456789"[number % 10]);
    }

    const fn str(&mut self, text: &str) {
        let mut at = 0;
        while at < text.len() {
            self.byte(text.as_bytes()[at]);
            at += 1;
        }
    }

    const fn byte(&mut self, byte: u8) {
        if self.len < self.place.len() {
            self.place[self.len] = byte;
        }
        self.len += 1;
    }
}
