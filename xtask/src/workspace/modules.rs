//! From the root file of a target to all files of the target, by following `mod name;`.

use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, Item, ItemMod, Lit, Meta};

use super::rust_source::{RustSource, is_test_configured};
use crate::error::{Result, XtaskError};

/// One file of a target.
pub(crate) struct TargetFile {
    pub(crate) source: RustSource,
    /// Names of the modules around the file's content, outermost first; empty for the target's root.
    pub(crate) module_path: Vec<String>,
    /// Compiled in test builds only, because a `mod` line on the way here says `#[cfg(test)]`.
    pub(crate) test_only: bool,
}

/// All files of the target whose root file is `root`, the root first.
///
/// # Errors
/// When a file cannot be read or parsed, or a declared module has no file.
pub(crate) fn target_files(root: &Path) -> Result<Vec<TargetFile>> {
    let mut files = Vec::new();
    let folder = root.parent().unwrap_or(Path::new("")).to_owned();
    let source = RustSource::read(root)?;
    collect(TargetFile { source, module_path: Vec::new(), test_only: false }, &folder, &mut files)?;
    Ok(files)
}

/// Adds `file` and every file below it. `folder` is where the files of its child modules are.
fn collect(file: TargetFile, folder: &Path, files: &mut Vec<TargetFile>) -> Result<()> {
    let mut children = Vec::new();
    let place = Place {
        declared_in: &file.source.path,
        folder: folder.to_owned(),
        path_attribute_base: file.source.path.parent().unwrap_or(Path::new("")).to_owned(),
        module_path: file.module_path.clone(),
        test_only: file.test_only,
    };
    declared(&file.source.ast.items, &place, &mut children)?;
    files.push(file);
    for child in children {
        let source = RustSource::read(&child.path)?;
        let file = TargetFile { source, module_path: child.module_path, test_only: child.test_only };
        collect(file, &child.folder, files)?;
    }
    Ok(())
}

struct Place<'a> {
    declared_in: &'a Path,
    folder: PathBuf,
    path_attribute_base: PathBuf,
    module_path: Vec<String>,
    test_only: bool,
}

struct Child {
    path: PathBuf,
    folder: PathBuf,
    module_path: Vec<String>,
    test_only: bool,
}

fn declared(items: &[Item], place: &Place<'_>, children: &mut Vec<Child>) -> Result<()> {
    for item in items {
        let Item::Mod(module) = item else { continue };
        let name = module.ident.to_string();
        let mut module_path = place.module_path.clone();
        module_path.push(name.clone());
        let test_only = place.test_only || is_test_configured(&module.attrs);
        if let Some((_, items)) = &module.content {
            let folder = place.folder.join(&name);
            let inner = Place {
                declared_in: place.declared_in,
                path_attribute_base: folder.clone(),
                folder,
                module_path,
                test_only,
            };
            declared(items, &inner, children)?;
        } else {
            let (path, folder) = file_of(module, &name, place)?;
            children.push(Child { path, folder, module_path, test_only });
        }
    }
    Ok(())
}

/// The file of `mod name;` and the folder of that module's own children.
fn file_of(module: &ItemMod, name: &str, place: &Place<'_>) -> Result<(PathBuf, PathBuf)> {
    if let Some(path) = path_attribute(&module.attrs) {
        let path = place.path_attribute_base.join(path);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        return Ok((path, folder));
    }
    let folder = place.folder.join(name);
    let beside = place.folder.join(format!("{name}.rs"));
    let inside = folder.join("mod.rs");
    if beside.is_file() {
        Ok((beside, folder))
    } else if inside.is_file() {
        Ok((inside, folder))
    } else {
        Err(XtaskError::MissingModule {
            path: place.declared_in.to_owned(),
            line: module.span().start().line,
            module: name.to_owned(),
            expected: beside,
        })
    }
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn follows_both_file_forms_inline_modules_and_path_attributes() {
        let dir = tree(&[
            ("lib.rs", "mod a; mod b { mod c; } #[path = \"odd/name.rs\"] mod d; #[cfg(test)] mod tests;"),
            ("a.rs", "mod e;"),
            ("a/e/mod.rs", ""),
            ("b/c.rs", ""),
            ("odd/name.rs", ""),
            ("tests.rs", ""),
            ("orphan.rs", ""),
        ]);
        let files = target_files(&dir.path().join("lib.rs")).unwrap();
        let found: Vec<(String, bool)> =
            files.iter().map(|file| (file.module_path.join("::"), file.test_only)).collect();
        let expected =
            [("", false), ("a", false), ("a::e", false), ("b::c", false), ("d", false), ("tests", true)];
        assert_eq!(found, expected.map(|(name, test)| (name.to_owned(), test)));
    }

    #[test]
    fn a_declared_module_without_file_is_named() {
        let dir = tree(&[("lib.rs", "\nmod gone;")]);
        let error = target_files(&dir.path().join("lib.rs")).err().unwrap().to_string();
        assert!(error.contains("lib.rs:2") && error.contains("mod gone;"), "{error}");
    }
}
