//! From a layout to Rust: what a module of one schema contains, and in which order.
//!
//! [`types`] prints enums, structs and the enum of all messages; [`codec`] the reading and writing of one struct;
//! [`json`] its JSON form; [`arbitrary`] its random values for tests.

mod arbitrary;
mod codec;
mod json;
mod text;
mod types;

use crate::layout::Schema;
use text::Text;

pub(crate) use arbitrary::arbitrary;

/// The module of one schema, to be included.
pub(crate) fn module(schema: &Schema) -> String {
    let mut out = Text::default();
    out.line("// Generated from the schema by build/main.rs.");
    types::schema_info(&mut out, schema);
    types::messages(&mut out, schema);
    for message in &schema.messages {
        types::structure(&mut out, &message.value, Some(message));
        codec::message(&mut out, message);
        json::value(&mut out, &message.value);
    }
    for entry in schema.entries.values() {
        types::structure(&mut out, entry, None);
        codec::entry(&mut out, entry);
        json::value(&mut out, entry);
    }
    for definition in &schema.enums {
        types::enumeration(&mut out, definition);
    }
    out.finish()
}
