//! One parsed Rust file, with the questions about attributes that several gates ask.

use std::path::{Path, PathBuf};

use syn::{Attribute, Meta};

use crate::error::{Result, XtaskError};

/// A Rust file: its text and its syntax tree.
pub(crate) struct RustSource {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) ast: syn::File,
}

impl RustSource {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// When the file cannot be read or is not Rust.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| XtaskError::Read { path: path.to_owned(), source })?;
        Self::parse(path, text)
    }

    /// Parses text as if it were the file at `path`.
    ///
    /// # Errors
    /// When the text is not Rust.
    pub(crate) fn parse(path: &Path, text: String) -> Result<Self> {
        let ast = syn::parse_file(&text).map_err(|source| XtaskError::Syntax {
            path: path.to_owned(),
            line: source.span().start().line,
            source,
        })?;
        Ok(Self { path: path.to_owned(), text, ast })
    }
}

/// Whether an item carries `#[name]`, directly or as `#[cfg_attr(condition, name)]`. `name` is compared with the
/// last path segment, so that `#[compio::test]` is a `test`.
pub(crate) fn has_attribute(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| meta_names(&attribute.meta, name))
}

/// Whether an item exists only in test builds: `#[cfg(test)]`, or `#[cfg(all(test, ...))]`.
pub(crate) fn is_test_configured(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        attribute.parse_args::<Meta>().is_ok_and(|condition| match &condition {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => {
                nested(list).iter().any(|meta| meta.path().is_ident("test"))
            }
            _ => false,
        })
    })
}

fn meta_names(meta: &Meta, name: &str) -> bool {
    match meta {
        Meta::List(list) if list.path.is_ident("cfg_attr") => {
            nested(list).iter().skip(1).any(|inner| meta_names(inner, name))
        }
        _ => meta.path().segments.last().is_some_and(|segment| segment.ident == name),
    }
}

fn nested(list: &syn::MetaList) -> Vec<Meta> {
    list.parse_args_with(syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated)
        .map(|metas| metas.into_iter().collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(item: &str) -> Vec<Attribute> {
        syn::parse_str::<syn::ItemFn>(item).unwrap().attrs
    }

    #[test]
    fn finds_attributes_behind_paths_and_conditions() {
        for item in
            ["#[test] fn a() {}", "#[compio::test] fn a() {}", "#[cfg_attr(not(loom), test)] fn a() {}"]
        {
            assert!(has_attribute(&attributes(item), "test"), "{item}");
        }
        for item in ["fn a() {}", "#[cfg(test)] fn a() {}", "#[cfg_attr(test, inline)] fn a() {}"] {
            assert!(!has_attribute(&attributes(item), "test"), "{item}");
        }
    }

    #[test]
    fn knows_what_only_test_builds_contain() {
        for item in ["#[cfg(test)] fn a() {}", "#[cfg(all(test, not(loom)))] fn a() {}"] {
            assert!(is_test_configured(&attributes(item)), "{item}");
        }
        for item in
            ["#[cfg(not(test))] fn a() {}", "#[cfg(any(test, fuzzing))] fn a() {}", "#[test] fn a() {}"]
        {
            assert!(!is_test_configured(&attributes(item)), "{item}");
        }
    }
}
