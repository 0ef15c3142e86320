//! `#[derive(HubSchema)]` and `#[derive(ZoneLayout)]`: the canonical schema text of a struct, made while it is compiled.
//!
//! The macro sees names, attributes and how types are written; sizes and offsets only the compiler knows. So it refuses
//! at once what can be told from the writing (`check.rs`), and emits constants that the compiler evaluates for the rest
//! (`emit.rs`): the text, and assertions that no byte is without a name. What is wrong with a struct is said at its field,
//! with what to write instead.

#![forbid(unsafe_code)]

mod attributes;
mod check;
mod emit;

use proc_macro::TokenStream;

/// Emits the canonical text of a record (DH-172): name, fields, offsets, size and alignment.
///
/// The struct needs `#[repr(C)]` and named fields of the types `u8`..`u64`, `i8`..`i64`, `f32`, `f64`, `Bool8`, `Char8`,
/// other records, and arrays of these. Padding is a field `_pad0: [u8; N]`, `_pad1` and so on.
///
/// - `#[hub(version = "2.0")]` on the struct gives the version; without it is 1.0.
/// - `#[hub(name = "Other")]` on the struct gives another name than the struct's.
/// - `#[hub(optional)]` marks a field that a minor version appended (DH-173); all after it are optional too, or padding.
///   The macro adds a method of the field's name, which takes the `Agreement` with the producer and gives nothing if the
///   producer's records do not have the field.
#[proc_macro_derive(HubSchema, attributes(hub))]
pub fn hub_schema(input: TokenStream) -> TokenStream {
    expand(input, emit::Kind::Record)
}

/// Emits the canonical text of a flexible zone (DH-174), with each atomic integer as its primitive.
///
/// The rules and attributes are those of [`HubSchema`]; fields are atomic integers, arrays of them, or `ZoneCell<P>`.
///
/// The struct says what lies in shared memory and is never a reference to it. Access is by views with a method for each
/// field, which the macro adds.
#[proc_macro_derive(ZoneLayout, attributes(hub))]
pub fn zone_layout(input: TokenStream) -> TokenStream {
    expand(input, emit::Kind::Zone)
}

fn expand(input: TokenStream, kind: emit::Kind) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    let output = check::layout(&input, kind).map(|layout| emit::implementation(&layout, kind));
    output.unwrap_or_else(|error| error.to_compile_error()).into()
}
