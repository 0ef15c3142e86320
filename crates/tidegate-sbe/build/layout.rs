//! From the tree to a layout: every field gets its offset, its size and its Rust type.
//!
//! Offsets and block lengths are written out in our schemas. They are computed here again, and a difference is an
//! error: a slip in a schema stops the build instead of changing the bytes on the wire.

use std::collections::BTreeMap;

use crate::parse;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("{owner}.{field}: type {type_name} is not defined or not possible here")]
    Type { owner: String, field: String, type_name: String },
    #[error("{owner}.{field}: starts at {found}, expected {expected}")]
    Offset { owner: String, field: String, expected: usize, found: usize },
    #[error("{owner}: fields take {found} bytes, blockLength is {expected}")]
    BlockLength { owner: String, expected: usize, found: usize },
    #[error("{owner}.{field}: only the last field of a layout can be padding")]
    Padding { owner: String, field: String },
    #[error("{entry}: two groups use this entry name for different entries")]
    Entry { entry: String },
}

pub(crate) struct Schema {
    pub(crate) id: u16,
    pub(crate) version: u16,
    pub(crate) name: String,
    pub(crate) package: String,
    pub(crate) description: String,
    /// Without Booleans, which are `bool`.
    pub(crate) enums: Vec<parse::Enum>,
    /// Every kind of group entry once, however many groups use it.
    pub(crate) entries: BTreeMap<String, Struct>,
    pub(crate) messages: Vec<Message>,
}

pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) is_layout: bool,
    pub(crate) value: Struct,
}

/// A message or a group entry.
#[derive(Clone, PartialEq)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) block_length: u16,
    pub(crate) fields: Vec<Field>,
    pub(crate) groups: Vec<Group>,
    pub(crate) data: Vec<Data>,
    /// Borrows from the fragment, so has a lifetime parameter.
    pub(crate) borrows: bool,
}

#[derive(Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) offset: usize,
    pub(crate) primitive: &'static str,
    pub(crate) kind: Kind,
    /// Raw values that mean "not provided", as Rust expressions; the first is the one written. Empty when required.
    pub(crate) nulls: Vec<String>,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Kind {
    Number,
    Array { length: usize },
    Enum { name: String, is_open: bool },
    Bool { null_is_false: bool },
    Constant { value: i128 },
    Pad,
}

#[derive(Clone, PartialEq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) entry: String,
    pub(crate) entry_borrows: bool,
    pub(crate) block_length: u16,
    pub(crate) is_exact: bool,
    /// Fewest bytes of an entry after its block: the prefixes of its groups and data.
    pub(crate) tail: usize,
}

#[derive(Clone, PartialEq)]
pub(crate) struct Data {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) max: u32,
    pub(crate) is_text: bool,
}

/// SBE name, Rust name, bytes, null value of every primitive type.
const PRIMITIVES: [(&str, &str, usize, &str); 8] = [
    ("uint8", "u8", 1, "u8::MAX"),
    ("uint16", "u16", 2, "u16::MAX"),
    ("uint32", "u32", 4, "u32::MAX"),
    ("uint64", "u64", 8, "u64::MAX"),
    ("int8", "i8", 1, "i8::MIN"),
    ("int16", "i16", 2, "i16::MIN"),
    ("int32", "i32", 4, "i32::MIN"),
    ("int64", "i64", 8, "i64::MIN"),
];

pub(crate) fn schema(tree: &parse::Schema) -> Result<Schema, LayoutError> {
    let mut builder = Builder { types: &tree.types, entries: BTreeMap::new() };
    let mut messages = Vec::new();
    for message in &tree.messages {
        let value =
            builder.structure(&message.name, &message.description, message.block_length, &message.body)?;
        messages.push(Message { id: message.id, is_layout: message.is_layout, value });
    }
    let enums = tree.types.values().filter_map(|definition| match definition {
        parse::Type::Enum(definition) if !definition.is_bool => Some(definition.clone()),
        _ => None,
    });
    Ok(Schema {
        id: tree.id,
        version: tree.version,
        name: tree.name.clone(),
        package: tree.package.clone(),
        description: tree.description.clone(),
        enums: enums.collect(),
        entries: builder.entries,
        messages,
    })
}

struct Builder<'t> {
    types: &'t BTreeMap<String, parse::Type>,
    entries: BTreeMap<String, Struct>,
}

impl Builder<'_> {
    fn structure(
        &mut self,
        name: &str,
        description: &str,
        block_length: u16,
        body: &parse::Body,
    ) -> Result<Struct, LayoutError> {
        let fields = self.fields(name, usize::from(block_length), &body.fields)?;
        let groups = body.groups.iter().map(|group| self.group(group)).collect::<Result<Vec<_>, _>>()?;
        let data = body.data.iter().map(|data| self.data(name, data)).collect::<Result<Vec<_>, _>>()?;
        let borrows = !data.is_empty() || groups.iter().any(|group| group.entry_borrows);
        let (name, description) = (name.to_owned(), description.to_owned());
        Ok(Struct { name, description, block_length, fields, groups, data, borrows })
    }

    /// Places the fields one after the other. Padding fills the rest of the block.
    fn fields(&self, owner: &str, block: usize, fields: &[parse::Field]) -> Result<Vec<Field>, LayoutError> {
        let mut end = 0;
        let mut placed = Vec::new();
        for field in fields {
            let (primitive, size, kind, nulls) = self.field_type(owner, field)?;
            if field.offset.is_some_and(|offset| offset != end) || (field.offset.is_none() && size != 0) {
                let found = field.offset.unwrap_or_default();
                return Err(LayoutError::Offset {
                    owner: owner.to_owned(),
                    field: field.name.clone(),
                    expected: end,
                    found,
                });
            }
            if kind == Kind::Pad && placed.len() + 1 != fields.len() {
                return Err(LayoutError::Padding { owner: owner.to_owned(), field: field.name.clone() });
            }
            let (name, description) = (field.name.clone(), field.description.clone());
            let is_pad = kind == Kind::Pad;
            placed.push(Field { name, description, offset: end, primitive, kind, nulls });
            end = if is_pad { block } else { end + size };
        }
        if end != block {
            return Err(LayoutError::BlockLength { owner: owner.to_owned(), expected: block, found: end });
        }
        Ok(placed)
    }

    /// Rust primitive, bytes on the wire, kind and null values of one field.
    fn field_type(
        &self,
        owner: &str,
        field: &parse::Field,
    ) -> Result<(&'static str, usize, Kind, Vec<String>), LayoutError> {
        let unknown = || LayoutError::Type {
            owner: owner.to_owned(),
            field: field.name.clone(),
            type_name: field.type_name.clone(),
        };
        let primitive = |name: &str| PRIMITIVES.into_iter().find(|row| row.0 == name).ok_or_else(unknown);
        let ((_, rust, size, null), kind, own_null) = match self.types.get(&field.type_name) {
            None if field.is_pad => (primitive(&field.type_name)?, Kind::Pad, None),
            None => (primitive(&field.type_name)?, Kind::Number, None),
            Some(parse::Type::Plain { primitive: name, length: 1, null }) => {
                (primitive(name)?, Kind::Number, *null)
            }
            Some(parse::Type::Plain { primitive: name, length, .. }) => {
                let (sbe, rust, size, null) = primitive(name)?;
                ((sbe, rust, size * length, null), Kind::Array { length: *length }, None)
            }
            Some(parse::Type::Constant { primitive: name, value }) => {
                let (sbe, rust, _, null) = primitive(name)?;
                ((sbe, rust, 0, null), Kind::Constant { value: *value }, None)
            }
            Some(parse::Type::Enum(definition)) if definition.is_bool => {
                (primitive(&definition.encoding)?, Kind::Bool { null_is_false: field.null_is_false }, None)
            }
            Some(parse::Type::Enum(definition)) => {
                let kind = Kind::Enum { name: definition.name.clone(), is_open: field.is_open };
                (primitive(&definition.encoding)?, kind, None)
            }
            Some(parse::Type::Data { .. } | parse::Type::Header) => return Err(unknown()),
        };
        let mut nulls = Vec::new();
        if field.is_optional {
            if !matches!(kind, Kind::Number | Kind::Enum { .. }) {
                return Err(unknown());
            }
            nulls.extend(own_null.map(|value| value.to_string()));
            nulls.push(null.to_owned());
        }
        Ok((rust, size, kind, nulls))
    }

    fn group(&mut self, group: &parse::Group) -> Result<Group, LayoutError> {
        let description = format!("One entry of the group `{}`", group.name);
        let entry = self.structure(&group.entry, &description, group.block_length, &group.body)?;
        let (entry_borrows, tail) = (entry.borrows, 4 * (entry.groups.len() + entry.data.len()));
        match self.entries.get(&group.entry) {
            Some(known) if *known != entry => return Err(LayoutError::Entry { entry: group.entry.clone() }),
            Some(_) => {}
            None => {
                self.entries.insert(group.entry.clone(), entry);
            }
        }
        Ok(Group {
            name: group.name.clone(),
            description: group.description.clone(),
            entry: group.entry.clone(),
            entry_borrows,
            block_length: group.block_length,
            is_exact: group.is_exact,
            tail,
        })
    }

    fn data(&self, owner: &str, data: &parse::Data) -> Result<Data, LayoutError> {
        let Some(parse::Type::Data { max, ascii }) = self.types.get(&data.type_name) else {
            return Err(LayoutError::Type {
                owner: owner.to_owned(),
                field: data.name.clone(),
                type_name: data.type_name.clone(),
            });
        };
        let (name, description) = (data.name.clone(), data.description.clone());
        Ok(Data { name, description, max: *max, is_text: *ascii })
    }
}
