//! The JSON form of one struct.

use super::text::{Text, snake};
use super::types::type_name;
use crate::layout::{Field, Kind, Struct};

pub(crate) fn value(out: &mut Text, value: &Struct) {
    let generics = if value.borrows { "<'a>" } else { "" };
    out.line("");
    out.line("#[cfg(feature = \"json\")]");
    out.line(format!("impl{generics} {} {{", type_name(value)));
    out.line("/// The fields as JSON, as [`AnyMessage::to_json`](crate::AnyMessage::to_json) describes it.");
    out.line("pub fn to_json(&self) -> serde_json::Value {");
    out.line("crate::json::object([");
    for field in &value.fields {
        out.line(format!("({:?}, {}),", field.name, field_value(field)));
    }
    for group in &value.groups {
        let name = &group.name;
        out.line(format!("({name:?}, crate::json::group(&self.{}, {}::to_json)),", snake(name), group.entry));
    }
    for data in &value.data {
        let form = if data.is_text { "text" } else { "hex" };
        out.line(format!("({:?}, crate::json::{form}(self.{})),", data.name, snake(&data.name)));
    }
    out.lines(["])", "}", "}"]);
}

fn field_value(field: &Field) -> String {
    let value = format!("self.{}", snake(&field.name));
    let form = match &field.kind {
        Kind::Number | Kind::Array { .. } => "serde_json::Value::from",
        Kind::Enum { is_open: true, .. } => "crate::json::open",
        Kind::Enum { is_open: false, .. } => "crate::json::listed",
        Kind::Bool { .. } => "crate::json::boolean",
        Kind::Constant { value } => return format!("serde_json::Value::from({value})"),
        Kind::Pad => return "serde_json::Value::from(0)".to_owned(),
    };
    if field.nulls.is_empty() {
        format!("{form}({value})")
    } else {
        format!("{value}.map_or(serde_json::Value::Null, {form})")
    }
}
