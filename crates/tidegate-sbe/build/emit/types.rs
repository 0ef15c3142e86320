//! Enums, structs, the enum of all messages of a schema.

use super::text::{Text, pascal, snake};
use crate::layout::{Field, Group, Kind, Message, Schema, Struct};
use crate::parse::Enum;

pub(crate) fn schema_info(out: &mut Text, schema: &Schema) {
    let Schema { id, version, name, package, description, .. } = schema;
    out.line(format!("/// Id of the schema: {description}."));
    out.line(format!("pub const SCHEMA_ID: u16 = {id};"));
    out.line("");
    out.line("/// The schema.");
    out.line("pub const SCHEMA: crate::SchemaInfo = crate::SchemaInfo {");
    out.line("id: SCHEMA_ID,");
    out.line(format!("name: {name:?},"));
    out.line(format!("package: {package:?},"));
    out.line(format!("version: {version},"));
    out.line("};");
}

/// The enum of all messages and its decoder.
pub(crate) fn messages(out: &mut Text, schema: &Schema) {
    let lifetime = if schema.messages.iter().any(|message| message.value.borrows) { "<'a>" } else { "" };
    let fragment = if lifetime.is_empty() { "&[u8]" } else { "&'a [u8]" };
    out.line("");
    out.line("/// A message of this schema.");
    out.line("#[derive(Debug, Clone, PartialEq, Eq)]");
    out.line(format!("pub enum Message{lifetime} {{"));
    for message in &schema.messages {
        out.line(format!("/// Template {}.", message.id));
        out.line(format!("{}({}),", message.value.name, type_name(&message.value)));
    }
    out.line("}");
    out.line("");
    out.line(format!("impl{lifetime} Message{lifetime} {{"));
    out.lines([
        "/// Decodes one fragment of this schema.",
        "///",
        "/// # Errors",
        "/// Every [`DecodeError`](crate::DecodeError); `is_foreign` tells messages that are none of this schema.",
    ]);
    out.line(format!("pub fn decode(fragment: {fragment}) -> Result<Self, crate::DecodeError> {{"));
    out.line("match crate::wire::template_id(fragment, &SCHEMA)? {");
    for message in &schema.messages {
        let name = &message.value.name;
        out.line(format!("{name}::TEMPLATE_ID => {name}::decode(fragment).map(Self::{name}),"));
    }
    out.line(
        "template_id => Err(crate::DecodeError::UnknownTemplate { schema_id: SCHEMA_ID, template_id }),",
    );
    out.lines(["}", "}"]);
    let method = |out: &mut Text, head: &[&str], arm: &dyn Fn(&str) -> String| {
        out.line("");
        head.iter().for_each(|line| out.line(line));
        out.line("match self {");
        schema.messages.iter().for_each(|message| out.line(arm(&message.value.name)));
        out.lines(["}", "}"]);
    };
    let call = |method: &'static str| move |name: &str| format!("Self::{name}(message) => message.{method},");
    method(
        out,
        &["/// Name of the message, as in the schema.", "pub fn name(&self) -> &'static str {"],
        &|name| format!("Self::{name}(_) => {name:?},"),
    );
    method(out, &["/// Template id of the message.", "pub fn template_id(&self) -> u16 {"], &|name| {
        format!("Self::{name}(_) => {name}::TEMPLATE_ID,")
    });
    method(
        out,
        &["/// Bytes that [`encode`](Self::encode) writes.", "pub fn encoded_len(&self) -> usize {"],
        &call("encoded_len()"),
    );
    method(
        out,
        &[
            "/// Writes the fragment to the front of `out` and returns its length.",
            "///",
            "/// # Errors",
            "/// Every [`EncodeError`](crate::EncodeError) except `OutOfMemory`.",
            "pub fn encode(&self, out: &mut [u8]) -> Result<usize, crate::EncodeError> {",
        ],
        &call("encode(out)"),
    );
    method(
        out,
        &[
            "/// The fragment in memory of its own.",
            "///",
            "/// # Errors",
            "/// Every [`EncodeError`](crate::EncodeError) except `BufferTooSmall`.",
            "pub fn to_vec(&self) -> Result<Vec<u8>, crate::EncodeError> {",
        ],
        &call("to_vec()"),
    );
    method(
        out,
        &[
            "/// The fields as JSON, as [`AnyMessage::to_json`](crate::AnyMessage::to_json) describes it.",
            "#[cfg(feature = \"json\")]",
            "pub fn to_json(&self) -> serde_json::Value {",
        ],
        &call("to_json()"),
    );
    out.line("}");
}

/// The struct of a message, or of a group entry when `message` is none.
pub(crate) fn structure(out: &mut Text, value: &Struct, message: Option<&Message>) {
    let copy = if value.groups.is_empty() { "Copy, " } else { "" };
    out.line("");
    out.line(format!("/// {}.", value.description));
    out.line("///");
    match message {
        Some(message) => {
            out.line(format!("/// Template {}, block of {} bytes.", message.id, value.block_length))
        }
        None => out.line(format!("/// Block of {} bytes.", value.block_length)),
    }
    out.line(format!("#[derive(Debug, Clone, {copy}PartialEq, Eq)]"));
    out.line(format!("pub struct {} {{", type_name(value)));
    for field in value.fields.iter().filter(|field| is_stored(field)) {
        let Field { name, description, offset, primitive, .. } = field;
        let encoding = match field.kind {
            Kind::Array { length } => format!("{length} {primitive}"),
            _ => (*primitive).to_owned(),
        };
        let null = field.nulls.first().map(|null| format!(", null `{null}`")).unwrap_or_default();
        out.line(format!("/// {description} (`{name}`, {encoding} at {offset}{null})."));
        out.line(format!("pub {}: {},", snake(name), field_type(field)));
    }
    for group in &value.groups {
        out.line(format!("/// {} (group `{}`).", group.description, group.name));
        out.line(format!("pub {}: Vec<{}>,", snake(&group.name), entry_type(group)));
    }
    for data in &value.data {
        let (rust, sort) = if data.is_text { ("crate::Text<'a>", "string") } else { ("&'a [u8]", "data") };
        out.line(format!("/// {} ({sort} `{}`).", data.description, data.name));
        out.line(format!("pub {}: {rust},", snake(&data.name)));
    }
    out.line("}");
}

pub(crate) fn enumeration(out: &mut Text, definition: &Enum) {
    let Enum { name, encoding, description, values, .. } = definition;
    let raw = encoding.replace("uint", "u").replace("int", "i");
    out.line("");
    out.line(format!("/// {description} ({raw} on the wire)."));
    out.line("#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]");
    out.line(format!("#[repr({raw})]"));
    out.line(format!("pub enum {name} {{"));
    for value in values {
        out.line(format!("/// {} (`{}`).", value.description, value.name));
        out.line(format!("{} = {},", pascal(&value.name), value.value));
    }
    out.line("}");
    out.line("");
    out.line(format!("impl {name} {{"));
    out.line("/// The value of `raw`, if it is listed.");
    out.line("#[inline]");
    out.line(format!("pub const fn from_raw(raw: {raw}) -> Option<Self> {{"));
    out.line("match raw {");
    for value in values {
        out.line(format!("{} => Some(Self::{}),", value.value, pascal(&value.name)));
    }
    out.lines(["_ => None,", "}", "}", "", "/// The integer on the wire.", "#[inline]"]);
    out.line(format!("pub const fn raw(self) -> {raw} {{"));
    out.line(format!("self as {raw}"));
    out.lines(["}", "", "/// Name in the schema."]);
    out.line("pub const fn name(self) -> &'static str {");
    out.line("match self {");
    for value in values {
        out.line(format!("Self::{} => {:?},", pascal(&value.name), value.name));
    }
    out.lines(["}", "}", "}", ""]);
    out.line(format!("impl crate::WireEnum for {name} {{"));
    out.line(format!("type Raw = {raw};"));
    out.lines(["", "#[inline]"]);
    out.line(format!("fn from_raw(raw: {raw}) -> Option<Self> {{"));
    out.lines(["Self::from_raw(raw)", "}", "", "#[inline]"]);
    out.line(format!("fn raw(self) -> {raw} {{"));
    out.lines(["self.raw()", "}", "", "fn name(self) -> &'static str {", "self.name()", "}", "}", ""]);
    out.line(format!("impl core::fmt::Display for {name} {{"));
    out.line("fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {");
    out.lines(["f.write_str(self.name())", "}", "}"]);
}

/// Whether the struct has a field for it: constants and padding carry nothing.
pub(crate) fn is_stored(field: &Field) -> bool {
    !matches!(field.kind, Kind::Constant { .. } | Kind::Pad)
}

/// `ShmPoolAnnounce<'a>`, or `FrameDescriptor` where nothing is borrowed.
pub(crate) fn type_name(value: &Struct) -> String {
    format!("{}{}", value.name, if value.borrows { "<'a>" } else { "" })
}

fn entry_type(group: &Group) -> String {
    format!("{}{}", group.entry, if group.entry_borrows { "<'a>" } else { "" })
}

fn field_type(field: &Field) -> String {
    let required = match &field.kind {
        Kind::Array { length } => format!("[{}; {length}]", field.primitive),
        Kind::Enum { name, is_open: true, .. } => format!("crate::Open<{name}>"),
        Kind::Enum { name, is_open: false, .. } => name.clone(),
        Kind::Bool { .. } => "bool".to_owned(),
        Kind::Number | Kind::Constant { .. } | Kind::Pad => field.primitive.to_owned(),
    };
    if field.nulls.is_empty() { required } else { format!("Option<{required}>") }
}
