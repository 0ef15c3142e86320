//! Random values of every message, for the property tests (`tests/properties.rs` includes the result).
//!
//! Each struct gets an `Arbitrary` implementation that draws its fields from a `Source`; both are defined by the test.
//! Values are such that an encoder takes them and a decoder gives them back.

use super::text::{Text, pascal, snake};
use super::types::is_stored;
use crate::layout::{Field, Kind, Schema, Struct};

/// Implementations for all structs, and a list of functions that draw one message each.
pub(crate) fn arbitrary(modules: &[(&str, Schema)]) -> String {
    let mut out = Text::default();
    for (module, schema) in modules {
        for value in schema.entries.values().chain(schema.messages.iter().map(|message| &message.value)) {
            implementation(&mut out, module, schema, value);
        }
    }
    out.line("fn draws<'a>() -> Vec<fn(&mut Source<'a>) -> AnyMessage<'a>> {");
    out.line("vec![");
    for (module, schema) in modules {
        let variant = pascal(&module.to_ascii_uppercase());
        for name in schema.messages.iter().map(|message| &message.value.name) {
            let message = format!("tidegate_sbe::{module}::Message::{name}(Arbitrary::draw(source))");
            out.line(format!("|source| AnyMessage::{variant}({message}),"));
        }
    }
    out.lines(["]", "}"]);
    out.finish()
}

fn implementation(out: &mut Text, module: &str, schema: &Schema, value: &Struct) {
    let borrows = if value.borrows { "<'a>" } else { "" };
    out.line(format!("impl<'a> Arbitrary<'a> for tidegate_sbe::{module}::{}{borrows} {{", value.name));
    out.line("fn draw(source: &mut Source<'a>) -> Self {");
    out.line("Self {");
    for field in value.fields.iter().filter(|field| is_stored(field)) {
        out.line(format!("{}: {},", snake(&field.name), draw(module, schema, field)));
    }
    for group in &value.groups {
        out.line(format!("{}: source.group(),", snake(&group.name)));
    }
    for data in &value.data {
        let sort = if data.is_text { "text()".to_owned() } else { format!("data({})", data.max) };
        out.line(format!("{}: source.{sort},", snake(&data.name)));
    }
    out.lines(["}", "}", "}", ""]);
}

fn draw(module: &str, schema: &Schema, field: &Field) -> String {
    let nulls = field.nulls.join(", ");
    match &field.kind {
        Kind::Enum { is_open: true, .. } if nulls.is_empty() => {
            "tidegate_sbe::Open::from_raw(source.number())".to_owned()
        }
        Kind::Enum { is_open: true, .. } => {
            format!("source.optional(&[{nulls}]).map(tidegate_sbe::Open::from_raw)")
        }
        Kind::Enum { name, .. } => {
            let definition = schema.enums.iter().find(|definition| definition.name == *name);
            let variants = definition.iter().flat_map(|definition| &definition.values);
            let variants: Vec<String> = variants
                .map(|value| format!("tidegate_sbe::{module}::{name}::{}", pascal(&value.name)))
                .collect();
            format!("source.one_of(&[{}])", variants.join(", "))
        }
        Kind::Bool { .. } => "source.one_of(&[false, true])".to_owned(),
        Kind::Array { .. } => "core::array::from_fn(|_| source.number())".to_owned(),
        _ if nulls.is_empty() => "source.number()".to_owned(),
        _ => format!("source.optional(&[{nulls}])"),
    }
}
