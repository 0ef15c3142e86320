//! Reading and writing of one struct, in terms of `src/wire.rs`.

use super::text::{Text, snake};
use super::types::{is_stored, type_name};
use crate::layout::{Data, Field, Group, Kind, Message, Struct};

/// Constants, public functions and the codec of a message.
pub(crate) fn message(out: &mut Text, message: &Message) {
    let value = &message.value;
    let (lifetime, fragment) = if value.borrows { ("<'a>", "&'a [u8]") } else { ("", "&[u8]") };
    out.line("");
    out.line(format!("impl{lifetime} {} {{", type_name(value)));
    out.line("/// Number of the message in its schema.");
    out.line(format!("pub const TEMPLATE_ID: u16 = {};", message.id));
    out.line("/// Bytes of the fixed block.");
    out.line(format!("pub const BLOCK_LENGTH: u16 = {};", value.block_length));
    out.line("/// The header that encoders write.");
    out.line("pub const HEADER: crate::MessageHeader = crate::MessageHeader {");
    out.line("block_length: Self::BLOCK_LENGTH,");
    out.line("template_id: Self::TEMPLATE_ID,");
    out.line("schema_id: SCHEMA_ID,");
    out.line("version: SCHEMA.version,");
    out.line("};");
    constants(out, value);
    public_function(
        out,
        &["Decodes one fragment.", "", "# Errors", "Every [`DecodeError`](crate::DecodeError)."],
        &format!("decode(fragment: {fragment}) -> Result<Self, crate::DecodeError>"),
        "decode(fragment)",
    );
    public_function(out, &["Bytes of the fragment."], "encoded_len(&self) -> usize", "encoded_len(self)");
    public_function(
        out,
        &[
            "Writes the fragment to the front of `out` and returns its length.",
            "",
            "# Errors",
            "Every [`EncodeError`](crate::EncodeError) except `OutOfMemory`.",
        ],
        "encode(&self, out: &mut [u8]) -> Result<usize, crate::EncodeError>",
        "encode(self, out)",
    );
    public_function(
        out,
        &[
            "The fragment in memory of its own.",
            "",
            "# Errors",
            "Every [`EncodeError`](crate::EncodeError) except `BufferTooSmall`.",
        ],
        "to_vec(&self) -> Result<Vec<u8>, crate::EncodeError>",
        "to_vec(self)",
    );
    if message.is_layout {
        public_function(
            out,
            &[
                "Decodes it from shared memory, where it has no message header. `body` may be longer.",
                "",
                "# Errors",
                "Every [`DecodeError`](crate::DecodeError) about fields.",
            ],
            &format!("decode_body(body: {fragment}) -> Result<Self, crate::DecodeError>"),
            "decode_body(body)",
        );
        public_function(
            out,
            &[
                "Writes it without message header to the front of `out` and returns its length.",
                "",
                "# Errors",
                "Every [`EncodeError`](crate::EncodeError) except `OutOfMemory`.",
            ],
            "encode_body(&self, out: &mut [u8]) -> Result<usize, crate::EncodeError>",
            "encode_body(self, out)",
        );
    }
    out.line("}");
    out.line("");
    let lifetime = if value.borrows { "'a" } else { "'_" };
    let generics = if value.borrows { "<'a>" } else { "" };
    out.line(format!("impl{generics} crate::wire::Codec<{lifetime}> for {} {{", type_name(value)));
    out.line(format!("const NAME: &'static str = {:?};", value.name));
    out.line("const HEADER: crate::MessageHeader = Self::HEADER;");
    body(out, value, "");
    out.line("}");
}

/// The codec of a group entry.
pub(crate) fn entry(out: &mut Text, value: &Struct) {
    let generics = if value.borrows { "<'a>" } else { "" };
    out.line("");
    out.line(format!("impl{generics} {} {{", type_name(value)));
    body(out, value, "pub(crate) ");
    out.line("}");
}

fn constants(out: &mut Text, value: &Struct) {
    for field in &value.fields {
        if let Kind::Constant { value } = field.kind {
            let name = snake(&field.name).to_ascii_uppercase();
            out.line(format!("/// {} (`{}`).", field.description, field.name));
            out.line(format!("pub const {name}: {} = {value};", field.primitive));
        }
    }
}

fn public_function(out: &mut Text, docs: &[&str], signature: &str, call: &str) {
    out.line("");
    docs.iter().for_each(|line| out.line(format!("/// {line}").trim_end()));
    out.line("#[inline]");
    out.line(format!("pub fn {signature} {{"));
    out.line(format!("crate::wire::{call}"));
    out.line("}");
}

/// `read`, `body_len` and `write`.
fn body(out: &mut Text, value: &Struct, visibility: &str) {
    let lifetime = if value.borrows { "'a" } else { "'_" };
    let last_of_message = if visibility.is_empty() { value.data.len() } else { 0 };
    out.line("");
    out.line("#[inline]");
    out.line(format!(
        "{visibility}fn read(reader: &mut crate::wire::Reader<{lifetime}>, block: u16) -> Result<Self, crate::DecodeError> {{"
    ));
    let used = if value.fields.iter().any(is_stored) { "block" } else { "_" };
    out.line(format!("let {used}: &[u8; {}] = reader.block(block, {:?})?;", value.block_length, value.name));
    out.line("Ok(Self {");
    for field in value.fields.iter().filter(|field| is_stored(field)) {
        out.line(format!("{}: {},", snake(&field.name), read_field(value, field)));
    }
    for group in &value.groups {
        let shape = group_shape(value, group);
        out.line(format!("{}: reader.group(&{shape}, {}::read)?,", snake(&group.name), group.entry));
    }
    for (index, data) in value.data.iter().enumerate() {
        let sort = if data.is_text { "text" } else { "data" };
        let last = if index + 1 == last_of_message { "last_" } else { "" };
        let Data { name, max, .. } = data;
        out.line(format!("{}: reader.{last}{sort}(\"{}.{name}\", {max})?,", snake(name), value.name));
    }
    out.lines(["})", "}"]);

    out.line("");
    out.line("#[inline]");
    out.line(format!("{visibility}fn body_len(&self) -> usize {{"));
    out.line("crate::wire::sum([");
    out.line(format!("{},", value.block_length));
    for group in &value.groups {
        out.line(format!("crate::wire::group_len(&self.{}, {}::body_len),", snake(&group.name), group.entry));
    }
    for data in &value.data {
        let bytes = format!("self.{}{}", snake(&data.name), if data.is_text { ".as_bytes()" } else { "" });
        out.line(format!("crate::wire::data_len({bytes}),"));
    }
    out.lines(["])", "}"]);

    out.line("");
    out.line("#[inline]");
    out.line(format!(
        "{visibility}fn write(&self, writer: &mut crate::wire::Writer<'_>) -> Result<(), crate::EncodeError> {{"
    ));
    if value.block_length > 0 {
        out.line(format!("let block = writer.block::<{}>()?;", value.block_length));
    }
    if value.fields.iter().any(|field| field.kind == Kind::Pad) {
        out.line("block.fill(0);");
    }
    value.fields.iter().for_each(|field| write_field(out, value, field));
    for group in &value.groups {
        let shape = group_shape(value, group);
        out.line(format!("writer.group(&{shape}, &self.{}, {}::write)?;", snake(&group.name), group.entry));
    }
    for Data { name, max, is_text, .. } in &value.data {
        let sort = if *is_text { "text" } else { "data" };
        out.line(format!("writer.{sort}(\"{}.{name}\", {max}, self.{})?;", value.name, snake(name)));
    }
    out.lines(["Ok(())", "}"]);
}

fn group_shape(owner: &Struct, group: &Group) -> String {
    let Group { name, block_length, is_exact, tail, .. } = group;
    format!(
        "crate::wire::GroupShape {{ name: \"{}.{name}\", block: {block_length}, exact: {is_exact}, tail: {tail} }}",
        owner.name
    )
}

/// Expression for the value of a field in `block`.
fn read_field(owner: &Struct, field: &Field) -> String {
    let Field { name, offset, primitive, kind, nulls, .. } = field;
    let path = format!("\"{}.{name}\"", owner.name);
    let load = |at: usize| format!("{primitive}::from_le_bytes(crate::wire::load::<{at}, _, _>(block))");
    let raw = load(*offset);
    match kind {
        Kind::Array { length } => {
            let items: Vec<String> =
                (0..*length).map(|index| load(offset + index * primitive_size(primitive))).collect();
            format!("[{}]", items.join(", "))
        }
        Kind::Bool { null_is_false: true } => format!("crate::wire::boolean_or_null({raw}, {path})?"),
        Kind::Bool { null_is_false: false } => format!("crate::wire::boolean({raw}, {path})?"),
        _ if !nulls.is_empty() => {
            let provided = format!("crate::wire::provided({raw}, [{}])", nulls.join(", "));
            match kind {
                Kind::Enum { is_open: true, .. } => format!("{provided}.map(crate::Open::from_raw)"),
                Kind::Enum { .. } => {
                    format!("{provided}.map(|raw| crate::wire::listed(raw, {path})).transpose()?")
                }
                _ => provided,
            }
        }
        Kind::Enum { is_open: true, .. } => format!("crate::Open::from_raw({raw})"),
        Kind::Enum { is_open: false, .. } => format!("crate::wire::listed({raw}, {path})?"),
        Kind::Number | Kind::Constant { .. } | Kind::Pad => raw,
    }
}

/// Statements that store a field in `block`.
fn write_field(out: &mut Text, owner: &Struct, field: &Field) {
    let Field { name, offset, primitive, kind, nulls, .. } = field;
    let value = format!("self.{}", snake(name));
    let store = |out: &mut Text, at: usize, raw: &str| {
        out.line(format!("crate::wire::store::<{at}, _, _>(block, {primitive}::to_le_bytes({raw}));"));
    };
    match kind {
        Kind::Constant { .. } | Kind::Pad => {}
        Kind::Array { length } => {
            let items: Vec<String> = (0..*length).map(|index| format!("{}{index}", snake(name))).collect();
            out.line(format!("let [{}] = {value};", items.join(", ")));
            for (index, item) in items.iter().enumerate() {
                store(out, offset + index * primitive_size(primitive), item);
            }
        }
        _ if !nulls.is_empty() => {
            let raw = match kind {
                Kind::Enum { .. } => format!("{value}.map(|value| value.raw())"),
                _ => value,
            };
            let nulls = nulls.join(", ");
            store(
                out,
                *offset,
                &format!("crate::wire::optional({raw}, [{nulls}], \"{}.{name}\")?", owner.name),
            );
        }
        Kind::Enum { .. } => store(out, *offset, &format!("{value}.raw()")),
        Kind::Bool { .. } => store(out, *offset, &format!("{primitive}::from({value})")),
        Kind::Number => store(out, *offset, &value),
    }
}

/// `i32` to 4.
fn primitive_size(primitive: &str) -> usize {
    primitive.trim_start_matches(['u', 'i']).parse::<usize>().unwrap_or_default() / 8
}
