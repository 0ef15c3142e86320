//! The attributes that the macros read: `#[repr(…)]` and `#[hub(…)]`.

use syn::{Attribute, DeriveInput, Error, LitStr, Result};

/// What `#[hub(…)]` says about the struct.
#[derive(Default)]
pub(crate) struct StructOptions {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitStr>,
}

/// Reads `#[hub(…)]` of the struct.
pub(crate) fn of_struct(input: &DeriveInput) -> Result<StructOptions> {
    let mut options = StructOptions::default();
    for attribute in hub(&input.attrs) {
        attribute.parse_nested_meta(|meta| {
            let place = if meta.path.is_ident("name") {
                &mut options.name
            } else if meta.path.is_ident("version") {
                &mut options.version
            } else {
                return Err(
                    meta.error("a struct takes #[hub(version = \"2.0\")] and #[hub(name = \"Name\")] only")
                );
            };
            *place = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(options)
}

/// Whether `#[hub(optional)]` stands at a field.
pub(crate) fn is_optional(attributes: &[Attribute]) -> Result<bool> {
    let mut optional = false;
    for attribute in hub(attributes) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("optional") {
                return Err(meta.error("a field takes #[hub(optional)] only"));
            }
            optional = true;
            Ok(())
        })?;
    }
    Ok(optional)
}

/// Requires `repr(C)`, with or without a larger alignment, and nothing else.
pub(crate) fn check_repr(input: &DeriveInput) -> Result<()> {
    let mut c = false;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("C") {
                c = true;
                return Ok(());
            }
            if meta.path.is_ident("align") {
                let alignment;
                syn::parenthesized!(alignment in meta.input);
                return alignment.parse::<syn::LitInt>().map(drop);
            }
            Err(meta.error("a hub record is laid out as C does: write #[repr(C)], or #[repr(C, align(N))]"))
        })?;
    }
    if c {
        return Ok(());
    }
    let message = "the fields of this struct have no fixed order: write #[repr(C)] on it";
    Err(Error::new(input.ident.span(), message))
}

fn hub(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("hub"))
}
