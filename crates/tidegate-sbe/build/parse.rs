//! From XML to a tree of what the schema says. Nothing is computed here.
//!
//! The part of SBE 1.0 that our schemas use: scalar, array and constant types, enums, the three composites with fixed
//! meaning (message header, group header, variable data), and messages made of fields, then groups, then data.
//! Attributes of our own live in the namespace `urn:tidegate:sbe`:
//!
//! | attribute | on | meaning |
//! |---|---|---|
//! | `name` | schema | short name |
//! | `bool` | enum | is the Boolean byte |
//! | `layout` | message | lies in shared memory without a message header |
//! | `open` | field | unlisted enum values are carried, not refused |
//! | `nullIsFalse` | field | the null of a Boolean reads as FALSE |
//! | `pad` | field | unused bytes: written as zero, ignored when read, not part of the value |
//! | `entry` | group | name of the struct of one entry |
//! | `exactBlock` | group | a longer entry block is refused |

use std::collections::BTreeMap;
use std::str::FromStr;

use roxmltree::{Document, Node};

const OURS: &str = "urn:tidegate:sbe";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("not well-formed: {0}")]
    Xml(#[from] roxmltree::Error),
    #[error("line {line}: <{element}> has no {attribute}")]
    Missing { line: u32, element: String, attribute: &'static str },
    #[error("line {line}: cannot read {attribute}=\"{value}\" of <{element}>")]
    Malformed { line: u32, element: String, attribute: &'static str, value: String },
    #[error("line {line}: <{element}> is not supported here; order is fields, groups, data")]
    Unsupported { line: u32, element: String },
}

pub(crate) struct Schema {
    pub(crate) id: u16,
    pub(crate) version: u16,
    pub(crate) name: String,
    pub(crate) package: String,
    pub(crate) description: String,
    pub(crate) types: BTreeMap<String, Type>,
    pub(crate) messages: Vec<Message>,
}

pub(crate) enum Type {
    /// Scalar, or array when `length` is not 1.
    Plain {
        primitive: String,
        length: usize,
        null: Option<i128>,
    },
    Constant {
        primitive: String,
        value: i128,
    },
    Enum(Enum),
    /// u32 length, then at most `max` bytes.
    Data {
        max: u32,
        ascii: bool,
    },
    /// Message and group header; their layout is fixed by `src/wire.rs`.
    Header,
}

#[derive(Clone)]
pub(crate) struct Enum {
    pub(crate) name: String,
    pub(crate) encoding: String,
    pub(crate) description: String,
    pub(crate) is_bool: bool,
    pub(crate) values: Vec<EnumValue>,
}

#[derive(Clone)]
pub(crate) struct EnumValue {
    pub(crate) name: String,
    pub(crate) value: i64,
    pub(crate) description: String,
}

pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) id: u16,
    pub(crate) block_length: u16,
    pub(crate) description: String,
    pub(crate) is_layout: bool,
    pub(crate) body: Body,
}

/// What a message and a group entry consist of, in the order of the wire.
pub(crate) struct Body {
    pub(crate) fields: Vec<Field>,
    pub(crate) groups: Vec<Group>,
    pub(crate) data: Vec<Data>,
}

pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) type_name: String,
    pub(crate) description: String,
    /// Absent for constants, which take no room.
    pub(crate) offset: Option<usize>,
    pub(crate) is_optional: bool,
    pub(crate) is_open: bool,
    pub(crate) null_is_false: bool,
    pub(crate) is_pad: bool,
}

pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) entry: String,
    pub(crate) block_length: u16,
    pub(crate) is_exact: bool,
    pub(crate) description: String,
    pub(crate) body: Body,
}

pub(crate) struct Data {
    pub(crate) name: String,
    pub(crate) type_name: String,
    pub(crate) description: String,
}

pub(crate) fn schema(xml: &str) -> Result<Schema, ParseError> {
    let document = Document::parse(xml)?;
    let root = document.root_element();
    let mut types = BTreeMap::new();
    let mut messages = Vec::new();
    for node in elements(root) {
        match node.tag_name().name() {
            "types" => {
                for node in elements(node) {
                    types.insert(text(node, "name")?, type_definition(node)?);
                }
            }
            "message" => messages.push(message(node)?),
            _ => return Err(unsupported(node)),
        }
    }
    Ok(Schema {
        id: number(root, "id")?,
        version: number(root, "version")?,
        name: root.attribute((OURS, "name")).map(str::to_owned).ok_or_else(|| missing(root, "tg:name"))?,
        package: text(root, "package")?,
        description: text(root, "description")?,
        types,
        messages,
    })
}

fn type_definition(node: Node) -> Result<Type, ParseError> {
    match node.tag_name().name() {
        "type" if node.attribute("presence") == Some("constant") => {
            Ok(Type::Constant { primitive: text(node, "primitiveType")?, value: content(node)? })
        }
        "type" => Ok(Type::Plain {
            primitive: text(node, "primitiveType")?,
            length: optional_number(node, "length")?.unwrap_or(1),
            null: optional_number(node, "nullValue")?,
        }),
        "enum" => Ok(Type::Enum(Enum {
            name: text(node, "name")?,
            encoding: text(node, "encodingType")?,
            description: text(node, "description")?,
            is_bool: flag(node, "bool"),
            values: elements(node).map(enum_value).collect::<Result<_, _>>()?,
        })),
        "composite" => composite(node),
        _ => Err(unsupported(node)),
    }
}

fn enum_value(node: Node) -> Result<EnumValue, ParseError> {
    Ok(EnumValue {
        name: text(node, "name")?,
        value: content(node)?,
        description: node.attribute("description").unwrap_or_default().to_owned(),
    })
}

fn composite(node: Node) -> Result<Type, ParseError> {
    let members: Vec<Node> = elements(node).collect();
    match members.as_slice() {
        [length, bytes] if length.attribute("name") == Some("length") => Ok(Type::Data {
            max: number(*length, "maxValue")?,
            ascii: bytes.attribute("characterEncoding") == Some("US-ASCII"),
        }),
        [first, ..] if first.attribute("name") == Some("blockLength") => Ok(Type::Header),
        _ => Err(unsupported(node)),
    }
}

fn message(node: Node) -> Result<Message, ParseError> {
    Ok(Message {
        name: text(node, "name")?,
        id: number(node, "id")?,
        block_length: number(node, "blockLength")?,
        description: text(node, "description")?,
        is_layout: flag(node, "layout"),
        body: body(node)?,
    })
}

fn body(node: Node) -> Result<Body, ParseError> {
    let mut body = Body { fields: Vec::new(), groups: Vec::new(), data: Vec::new() };
    for node in elements(node) {
        match node.tag_name().name() {
            "field" if body.groups.is_empty() && body.data.is_empty() => body.fields.push(field(node)?),
            "group" if body.data.is_empty() => body.groups.push(group(node)?),
            "data" => body.data.push(Data {
                name: text(node, "name")?,
                type_name: text(node, "type")?,
                description: text(node, "description")?,
            }),
            _ => return Err(unsupported(node)),
        }
    }
    Ok(body)
}

fn field(node: Node) -> Result<Field, ParseError> {
    Ok(Field {
        name: text(node, "name")?,
        type_name: text(node, "type")?,
        description: text(node, "description")?,
        offset: optional_number(node, "offset")?,
        is_optional: node.attribute("presence") == Some("optional"),
        is_open: flag(node, "open"),
        null_is_false: flag(node, "nullIsFalse"),
        is_pad: flag(node, "pad"),
    })
}

fn group(node: Node) -> Result<Group, ParseError> {
    Ok(Group {
        name: text(node, "name")?,
        entry: node.attribute((OURS, "entry")).map(str::to_owned).ok_or_else(|| missing(node, "tg:entry"))?,
        block_length: number(node, "blockLength")?,
        is_exact: flag(node, "exactBlock"),
        description: text(node, "description")?,
        body: body(node)?,
    })
}

fn elements<'a, 'input>(node: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(Node::is_element)
}

fn flag(node: Node, name: &str) -> bool {
    node.attribute((OURS, name)) == Some("true")
}

fn text(node: Node, attribute: &'static str) -> Result<String, ParseError> {
    node.attribute(attribute).map(str::to_owned).ok_or_else(|| missing(node, attribute))
}

fn number<T: FromStr>(node: Node, attribute: &'static str) -> Result<T, ParseError> {
    optional_number(node, attribute)?.ok_or_else(|| missing(node, attribute))
}

fn optional_number<T: FromStr>(node: Node, attribute: &'static str) -> Result<Option<T>, ParseError> {
    node.attribute(attribute).map(|value| from_text(node, attribute, value)).transpose()
}

fn content<T: FromStr>(node: Node) -> Result<T, ParseError> {
    from_text(node, "content", node.text().unwrap_or_default())
}

fn from_text<T: FromStr>(node: Node, attribute: &'static str, value: &str) -> Result<T, ParseError> {
    value.trim().parse().map_err(|_| ParseError::Malformed {
        line: line(node),
        element: element(node),
        attribute,
        value: value.to_owned(),
    })
}

fn missing(node: Node, attribute: &'static str) -> ParseError {
    ParseError::Missing { line: line(node), element: element(node), attribute }
}

fn unsupported(node: Node) -> ParseError {
    ParseError::Unsupported { line: line(node), element: element(node) }
}

fn element(node: Node) -> String {
    node.tag_name().name().to_owned()
}

fn line(node: Node) -> u32 {
    node.document().text_pos_at(node.range().start).row
}
