//! Ids of schemas (VX-422): the first 8 bytes, big-endian, of SHA-256 over the canonical text of a schema.
//!
//! What is in the text is for those who read records; here it is only compared. The canonical text of a JSON document with whole
//! numbers is the document without blanks between its parts, with no more escapes than there have to be, and with the names of
//! each object in the order of their bytes. Of any other text it is the text with line feeds as line ends, without blanks at the
//! end of lines and without empty lines at its end.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ids::SchemaId;

impl SchemaId {
    /// The id of a schema with this text.
    pub fn of(text: &str) -> Self {
        let digest = Sha256::digest(canonical(text).as_bytes());
        let id = digest.iter().take(8).fold(0, |id, &byte| id << 8 | u64::from(byte));
        // One text of 2^64 would be taken for none.
        Self(id.max(1))
    }
}

fn canonical(text: &str) -> String {
    let mut canonical = String::new();
    if serde_json::from_str(text).is_ok_and(|document| write(&document, &mut canonical).is_some()) {
        return canonical;
    }
    let lines: Vec<&str> = text.lines().map(str::trim_ascii_end).collect();
    lines.join("\n").trim_end_matches('\n').to_owned()
}

/// `None` if there is a number that is not whole or has more than 64 bits: how it was written is not known any more, and two that
/// differ could look the same. The parser has bounded how deep this goes.
fn write(value: &Value, to: &mut String) -> Option<()> {
    match value {
        Value::Array(items) => {
            to.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write(item, to)?;
            }
            to.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| name.as_bytes());
            to.push('{');
            for (index, (name, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write(&Value::String(name.clone()), to)?;
                to.push(':');
                write(field, to)?;
            }
            to.push('}');
        }
        Value::Number(number) if number.is_f64() => return None,
        other => to.push_str(&other.to_string()),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::collections::BTreeSet;

    use super::*;

    /// Rules: VX-422.
    #[test]
    fn an_id_is_of_what_a_text_says_and_not_of_how_it_stands_there() {
        let id = SchemaId::of("{\"a\":[1,-25,null,\"\\u00e9\"],\"b\":{\"x\":true}}");
        let other = "\n{ \"b\" : {\"x\":true},\r\n  \"a\" : [ 1, -25, null, \"é\" ] }\n";
        assert_eq!(SchemaId::of(other), id);
        assert_ne!(SchemaId::of(&other.replace("-25", "-26")), id);
        assert_ne!(
            SchemaId::of(&other.replace("null, \"é\"", "\"é\", null")),
            id,
            "the order of a list counts"
        );
        // FIPS 180-4, of "abc".
        assert_eq!(SchemaId::of("abc\n"), SchemaId(0xba78_16bf_8f01_cfea));
        // The canonical text, written by hand.
        assert_eq!(SchemaId::of(other), SchemaId(hash("{\"a\":[1,-25,null,\"é\"],\"b\":{\"x\":true}}")));
        let proto = "message A {\n  int32 a = 1;\n}";
        assert_eq!(SchemaId::of("message A {  \r\n  int32 a = 1;\r\n}\r\n\r\n"), SchemaId(hash(proto)));
        assert_ne!(SchemaId::of("message A {\n  int32 a = 1; }"), SchemaId::of(proto));
    }

    /// Numbers that would be rounded are compared as they are written, with all that is around them.
    /// Rules: VX-422.
    #[test]
    fn no_two_numbers_have_the_same_id() {
        let numbers = [
            "2.5",
            "2.50",
            "1e400",
            "18446744073709551615",
            "18446744073709551616",
            "18446744073709551617",
            "0.30000000000000001",
            "0.30000000000000002",
            "-0",
            "0",
        ];
        let ids: BTreeSet<SchemaId> =
            numbers.iter().map(|number| SchemaId::of(&format!("{{\"maximum\": {number}}}"))).collect();
        assert_eq!(ids.len(), numbers.len());
        assert_eq!(SchemaId::of("{\"maximum\": 2.5}  \r\n"), SchemaId(hash("{\"maximum\": 2.5}")));
    }

    fn hash(text: &str) -> u64 {
        let digest = Sha256::digest(text.as_bytes());
        u64::from_be_bytes(digest[..8].try_into().unwrap())
    }
}
