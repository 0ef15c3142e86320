//! Values of fields as JSON. The form is that of the golden data in `conformance/vectors/tensor-pool`.

use core::fmt::Write;

use serde_json::{Map, Value};

use crate::{Open, Text, WireEnum};

/// An object with the fields in the order given.
pub(crate) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

pub(crate) fn listed<E: WireEnum>(value: E) -> Value {
    named(Some(value.name()), value.raw().into())
}

pub(crate) fn open<E: WireEnum>(value: Open<E>) -> Value {
    named(value.listed().map(E::name), value.raw().into())
}

pub(crate) fn boolean(value: bool) -> Value {
    named(Some(if value { "TRUE" } else { "FALSE" }), value.into())
}

/// ASCII as a string, in which JSON escapes control bytes; other bytes, which no encoder may write, as hex.
pub(crate) fn text(text: Text<'_>) -> Value {
    match core::str::from_utf8(text.as_bytes()) {
        Ok(ascii) if ascii.is_ascii() => Value::from(ascii),
        _ => hex(text.as_bytes()),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> Value {
    let mut digits = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    object([("hex", Value::from(digits))])
}

pub(crate) fn group<T>(entries: &[T], entry: impl Fn(&T) -> Value) -> Value {
    entries.iter().map(entry).collect()
}

fn named(name: Option<&str>, value: i64) -> Value {
    object([("enum", Value::from(name)), ("value", Value::from(value))])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::driver::Role;

    #[test]
    fn unlisted_values_have_no_name() {
        assert_eq!(open(Open::from(Role::Producer)), json!({"enum": "PRODUCER", "value": 1}));
        assert_eq!(open(Open::<Role>::from_raw(9)), json!({"enum": null, "value": 9}));
    }

    #[test]
    fn text_that_is_not_ascii_is_hex() {
        assert_eq!(text(Text::from("a\n\0")), json!("a\n\0"));
        assert_eq!(text(Text::from_bytes(b"a\xc3\xa9")), json!({"hex": "61c3a9"}));
    }
}
