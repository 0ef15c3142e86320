//! The rules of the layout that the grammar does not show (DH-168), in one place for the parser and the builder.

use super::model::padding_number;
use super::{Base, Field, FieldType, MAX_ALIGN, Prim, Problem, Record};

/// The fields of a record while they are put one behind the other.
#[derive(Debug)]
pub(super) struct Fields {
    fields: Vec<Field>,
    nested: bool,
    align: u32,
    paddings: u32,
    optional: bool,
}

impl Fields {
    /// No field yet. `nested`: the record stands inside of another.
    pub(super) fn new(nested: bool) -> Self {
        Self { fields: Vec::new(), nested, align: 1, paddings: 0, optional: false }
    }

    /// Where the next field begins.
    pub(super) fn end(&self) -> u64 {
        self.fields.last().map_or(0, |last| u64::from(last.offset) + u64::from(last.size))
    }

    /// The largest alignment of a field.
    pub(super) fn align(&self) -> u32 {
        self.align
    }

    /// How many paddings there are: the number of the next one.
    pub(super) fn paddings(&self) -> u32 {
        self.paddings
    }

    /// Appends a field after checking it.
    pub(super) fn push(&mut self, field: Field) -> Result<(), Problem> {
        self.check_place(&field)?;
        if self.fields.iter().any(|other| other.name == field.name) {
            return Err(Problem::DuplicateField { field: field.name });
        }
        match padding_number(&field.name) {
            Some(number) => self.check_padding(&field, number)?,
            None => self.check_mark(&field)?,
        }
        self.align = self.align.max(align_of(&field.ty));
        self.optional |= field.optional;
        self.fields.push(field);
        Ok(())
    }

    /// The finished record.
    pub(super) fn finish(self, name: String) -> Result<Record, Problem> {
        check_name(&name)?;
        if self.fields.iter().all(Field::is_padding) {
            return Err(Problem::NoField { record: name });
        }
        let end = self.end();
        if !end.is_multiple_of(u64::from(self.align)) {
            return Err(Problem::RaggedSize { record: name, align: self.align, found: end });
        }
        Ok(Record { name, fields: self.fields })
    }

    fn check_place(&self, field: &Field) -> Result<(), Problem> {
        let (name, found) = (|| field.name.clone(), field.offset);
        let size = size_of(&field.ty);
        if size != u64::from(field.size) {
            return Err(Problem::FieldSize { field: name(), expected: size, found: field.size });
        }
        let expected = self.end();
        if u64::from(found) > expected {
            return Err(Problem::Gap { field: name(), expected, found });
        }
        if u64::from(found) < expected {
            return Err(Problem::Overlap { field: name(), expected, found });
        }
        let align = align_of(&field.ty);
        if !found.is_multiple_of(align) {
            return Err(Problem::Misaligned { field: name(), align, found: u64::from(found) });
        }
        let end = expected + size;
        if end > u64::from(u32::MAX) { Err(Problem::TooLarge { found: end }) } else { Ok(()) }
    }

    fn check_padding(&mut self, field: &Field, number: u32) -> Result<(), Problem> {
        let bytes = matches!(field.ty, FieldType { base: Base::Prim(Prim::U8), count: Some(_) });
        if !bytes || field.optional {
            let mark = if field.optional { "?" } else { "" };
            let found = format!("{}{mark}", field.ty);
            return Err(Problem::PaddingType { field: field.name.clone(), found });
        }
        if number != self.paddings {
            return Err(Problem::PaddingNumber { field: field.name.clone(), expected: self.paddings });
        }
        if self.fields.last().is_some_and(Field::is_padding) {
            return Err(Problem::PaddingTwice { field: field.name.clone() });
        }
        self.paddings += 1;
        Ok(())
    }

    fn check_mark(&self, field: &Field) -> Result<(), Problem> {
        if field.optional && self.nested {
            return Err(Problem::OptionalNested { field: field.name.clone() });
        }
        if self.optional && !field.optional {
            return Err(Problem::RequiredAfterOptional { field: field.name.clone() });
        }
        Ok(())
    }
}

/// Checks the numbers in front of the fields of the outermost record.
pub(super) fn check_outermost(record: &Record, size: u32, align: u32) -> Result<(), Problem> {
    let name = || record.name.clone();
    let needed = record.fields.iter().map(|field| align_of(&field.ty)).max().unwrap_or(1);
    if !align.is_power_of_two() || !(needed..=MAX_ALIGN).contains(&align) {
        return Err(Problem::RecordAlign { record: name(), needed, found: align });
    }
    let end = record.fields.last().map_or(0, Field::end);
    if size != end {
        return Err(Problem::RecordSize { record: name(), expected: u64::from(end), found: size });
    }
    if !size.is_multiple_of(align) {
        return Err(Problem::RaggedSize { record: name(), align, found: u64::from(size) });
    }
    Ok(())
}

/// Alignment of one element.
pub(super) fn align_of(ty: &FieldType) -> u32 {
    match &ty.base {
        Base::Prim(prim) => prim.size(),
        Base::Record(record) => record.fields.iter().map(|field| align_of(&field.ty)).max().unwrap_or(1),
    }
}

/// Bytes of one element.
pub(super) fn element_size(base: &Base) -> u32 {
    match base {
        Base::Prim(prim) => prim.size(),
        Base::Record(record) => record.fields.last().map_or(0, Field::end),
    }
}

/// Bytes of all elements. The product of two 32-bit numbers fits.
pub(super) fn size_of(ty: &FieldType) -> u64 {
    u64::from(element_size(&ty.base)) * u64::from(ty.count.unwrap_or(1))
}

fn check_name(name: &str) -> Result<(), Problem> {
    match Prim::from_word(name) {
        Some(_) => Err(Problem::NameOfPrimitive { name: name.to_owned() }),
        None => Ok(()),
    }
}
