//! What can be told from the writing of a struct: its kind, attributes, names, and the types that no record can have.

use proc_macro2::{Ident, Span};
use syn::spanned::Spanned as _;
use syn::{Data, DeriveInput, Error, Field, Fields, GenericParam, Result, Type};

use crate::attributes;
use crate::emit::Kind;

/// A struct whose text can be made, as far as its writing shows.
pub(crate) struct Layout<'a> {
    pub(crate) input: &'a DeriveInput,
    pub(crate) name: String,
    pub(crate) version: (u16, u16),
    pub(crate) fields: Vec<LayoutField<'a>>,
}

/// One of its fields.
pub(crate) struct LayoutField<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) name: String,
    pub(crate) source: &'a Field,
    pub(crate) optional: bool,
    pub(crate) padding: bool,
}

const PRIMITIVES: [&str; 12] =
    ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64", "b8", "c8"];
const MAX_NAME: usize = 64;
const REFERENCE: &str = "a reference means nothing to another process: store the value, or an index";

/// Checks a struct; the error carries everything that is wrong with it.
pub(crate) fn layout(input: &DeriveInput, kind: Kind) -> Result<Layout<'_>> {
    let fields = named_fields(input)?;
    attributes::check_repr(input)?;
    check_generics(input)?;
    let options = attributes::of_struct(input)?;
    let name = options.name.as_ref().map_or_else(|| input.ident.to_string(), syn::LitStr::value);
    let name_span = options.name.as_ref().map_or_else(|| input.ident.span(), syn::LitStr::span);
    check_name(&name, name_span)?;
    let version = options.version.as_ref().map_or(Ok((1, 0)), version)?;

    let mut checked = Vec::new();
    let mut errors: Option<Error> = None;
    for field in fields {
        match check_field(field, &checked, kind) {
            Ok(field) => checked.push(field),
            Err(error) => match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            },
        }
    }
    match errors {
        Some(errors) => Err(errors),
        None if checked.iter().all(|field| field.padding) => {
            Err(Error::new(input.ident.span(), "a hub record needs at least one field that is not padding"))
        }
        None => Ok(Layout { input, name, version, fields: checked }),
    }
}

fn named_fields(input: &DeriveInput) -> Result<impl Iterator<Item = &Field>> {
    let span = input.ident.span();
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(fields.named.iter()),
            _ => Err(Error::new(
                span,
                "a hub record needs names for its fields: write `struct Name { field: Type }`",
            )),
        },
        Data::Enum(_) => Err(Error::new(
            span,
            "an enum is no hub record, since most of its bit patterns are invalid: store the integer and convert it",
        )),
        Data::Union(_) => Err(Error::new(
            span,
            "a union is no hub record, since nothing says which field holds: make it a struct with all fields",
        )),
    }
}

fn check_generics(input: &DeriveInput) -> Result<()> {
    let Some(parameter) = input.generics.params.first() else { return Ok(()) };
    let advice = match parameter {
        GenericParam::Lifetime(_) => REFERENCE,
        _ => "a generic struct has no fixed layout: write a struct for each use, or a fixed length",
    };
    Err(Error::new(parameter.span(), advice))
}

fn check_name(name: &str, span: Span) -> Result<()> {
    let letters = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if !letters || name.len() > MAX_NAME || PRIMITIVES.contains(&name) {
        let message = "the name of a hub record has at most 64 ASCII letters, digits and _, begins with a letter and is no \
                       primitive type: rename the struct, or give it #[hub(name = \"Name\")]";
        return Err(Error::new(span, message));
    }
    Ok(())
}

fn version(text: &syn::LitStr) -> Result<(u16, u16)> {
    let number = |digits: &str| {
        let canonical = digits == "0" || !digits.starts_with(['0', '+']);
        if canonical { digits.parse::<u16>().ok() } else { None }
    };
    let value = text.value();
    value
        .split_once('.')
        .and_then(|(major, minor)| Some((number(major)?, number(minor)?)))
        .ok_or_else(|| Error::new(text.span(), "a version is \"MAJOR.MINOR\", such as \"2.0\""))
}

fn check_field<'a>(field: &'a Field, earlier: &[LayoutField<'_>], kind: Kind) -> Result<LayoutField<'a>> {
    let ident = field
        .ident
        .as_ref()
        .ok_or_else(|| Error::new(field.span(), "a field of a hub record needs a name"))?;
    let name = ident.to_string().trim_start_matches("r#").to_owned();
    if !name.is_ascii() || name.len() > MAX_NAME {
        return Err(Error::new(
            ident.span(),
            "the name of a field has at most 64 ASCII letters, digits and _",
        ));
    }
    let optional = attributes::is_optional(&field.attrs)?;
    let padding = padding_number(&name);
    match padding {
        Some(number) => check_padding(field, ident, number, optional, earlier)?,
        None => {
            check_type(&field.ty, kind)?;
            if !optional && earlier.iter().any(|field| field.optional) {
                let message = "a field after an optional one is optional too: write #[hub(optional)], or move it up and \
                               raise the major version";
                return Err(Error::new(ident.span(), message));
            }
        }
    }
    Ok(LayoutField { ident, name, source: field, optional, padding: padding.is_some() })
}

fn padding_number(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("_pad")?;
    let canonical = digits == "0" || digits.starts_with(|first: char| ('1'..='9').contains(&first));
    if canonical { digits.parse().ok() } else { None }
}

fn check_padding(
    field: &Field,
    ident: &Ident,
    number: usize,
    optional: bool,
    earlier: &[LayoutField<'_>],
) -> Result<()> {
    let bytes = matches!(&field.ty, Type::Array(array) if matches!(&*array.elem, Type::Path(path) if path.path.is_ident("u8")));
    if !bytes {
        return Err(Error::new(
            field.ty.span(),
            "padding is bytes: write `[u8; N]`, or give the field another name",
        ));
    }
    if optional {
        return Err(Error::new(ident.span(), "padding is not optional: leave out #[hub(optional)]"));
    }
    let expected = earlier.iter().filter(|field| field.padding).count();
    if number != expected {
        let message = format!("padding is numbered from 0 in each struct: call this field `_pad{expected}`");
        return Err(Error::new(ident.span(), message));
    }
    if earlier.last().is_some_and(|field| field.padding) {
        return Err(Error::new(ident.span(), "padding after padding: make one field of both"));
    }
    Ok(())
}

/// Refuses types that are known not to fit, with what to write instead. The compiler refuses the rest by traits.
fn check_type(ty: &Type, kind: Kind) -> Result<()> {
    let advice = match ty {
        Type::Array(array) => return check_type(&array.elem, kind),
        Type::Paren(inner) => return check_type(&inner.elem, kind),
        Type::Group(inner) => return check_type(&inner.elem, kind),
        Type::Path(path) => match path.path.segments.last() {
            Some(segment) => advice_on(&segment.ident.to_string(), kind),
            None => None,
        },
        Type::Reference(_) => Some(REFERENCE),
        Type::Ptr(_) => {
            Some("a pointer means nothing to another process: store an offset or an index as u64")
        }
        Type::BareFn(_) => Some("a function means nothing to another process: store a number for it"),
        Type::Tuple(_) => {
            Some("a tuple has no fixed order: write a struct with #[repr(C)] and #[derive(HubSchema)]")
        }
        Type::Slice(_) => {
            Some("a slice has no fixed length: write an array [T; N] and a field for how much is used")
        }
        _ => None,
    };
    advice.map_or(Ok(()), |advice| Err(Error::new(ty.span(), advice)))
}

fn advice_on(name: &str, kind: Kind) -> Option<&'static str> {
    match (name, kind) {
        ("usize", _) => Some("usize differs between targets: write u64 or u32"),
        ("isize", _) => Some("isize differs between targets: write i64 or i32"),
        ("u128", _) => Some("u128 is not in the schema text: write [u64; 2]"),
        ("i128", _) => Some("i128 is not in the schema text: write [u64; 2]"),
        ("bool", Kind::Record) => {
            Some("a bool is invalid with most bytes that another process could write: write Bool8")
        }
        ("bool", Kind::Zone) => Some("a bool cannot be shared: write AtomicU8"),
        ("char", _) => {
            Some("a char is invalid with most bytes that another process could write: write [Char8; N]")
        }
        ("str" | "String", _) => Some("a text needs a fixed length: write [Char8; N]"),
        ("Vec" | "VecDeque", _) => {
            Some("a list needs a fixed length: write an array [T; N] and a field for how much is used")
        }
        ("Box" | "Rc" | "Arc", _) => {
            Some("a pointer means nothing to another process: store the value itself")
        }
        ("Option", _) => Some(
            "an Option has no fixed layout: mark an appended field with #[hub(optional)], or add a Bool8",
        ),
        ("AtomicBool", _) => {
            Some("an AtomicBool is invalid with most bytes that another process could write: write AtomicU8")
        }
        ("AtomicUsize" | "AtomicIsize", _) => Some("its size differs between targets: write AtomicU64"),
        _ => None,
    }
}
