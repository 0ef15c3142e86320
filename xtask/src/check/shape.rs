//! The shape of source files: length, a module head, and membership in some target.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::{Attribute, Item};

use super::Finding;
use crate::workspace::{TargetFile, is_test_configured};

/// A file with more lines than this, tests not counted, holds more than one idea.
const MAX_LINES: usize = 600;

/// Findings in one file of a target. Tests may be long and need no head.
pub(super) fn check(file: &TargetFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.test_only {
        return findings;
    }
    let source = &file.source;
    let lines = source.text.lines().count().saturating_sub(test_lines(&source.ast.items));
    if lines > MAX_LINES {
        let message = format!("{lines} lines without tests; split the file, {MAX_LINES} is the limit");
        findings.push(Finding::new(&source.path, 0, message));
    }
    if !source.ast.attrs.iter().any(is_inner_doc) {
        findings.push(Finding::new(&source.path, 1, "no `//!` head that says what the module is for"));
    }
    findings
}

/// Rust files in a `src` folder that no target reaches: they are never compiled, and their tests never run.
pub(super) fn orphans(files: &[PathBuf], compiled: &BTreeSet<PathBuf>) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| is_member_source(file) && !compiled.contains(*file))
        .map(|file| Finding::new(file, 0, "no `mod` line leads here, so the file is never compiled"))
        .collect()
}

fn is_member_source(file: &Path) -> bool {
    let mut parts = file.components().filter_map(|part| part.as_os_str().to_str());
    let in_package = match parts.next() {
        Some("crates") => parts.next().is_some(),
        Some("xtask") => true,
        _ => false,
    };
    in_package && parts.next() == Some("src") && file.extension().is_some_and(|extension| extension == "rs")
}

/// Lines of items that only test builds contain.
fn test_lines(items: &[Item]) -> usize {
    items
        .iter()
        .map(|item| match item {
            Item::Mod(module) if is_test_configured(&module.attrs) => lines_of(item),
            Item::Mod(module) => module.content.as_ref().map_or(0, |(_, items)| test_lines(items)),
            Item::Fn(function) if is_test_configured(&function.attrs) => lines_of(item),
            _ => 0,
        })
        .sum()
}

fn lines_of(item: &Item) -> usize {
    let span = item.span();
    span.end().line + 1 - span.start().line
}

fn is_inner_doc(attribute: &Attribute) -> bool {
    attribute.path().is_ident("doc")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::RustSource;

    fn messages(text: &str, test_only: bool) -> Vec<String> {
        let source = RustSource::parse(Path::new("a.rs"), text.to_owned()).unwrap();
        let file = TargetFile { source, module_path: Vec::new(), test_only };
        check(&file).into_iter().map(|finding| finding.message).collect()
    }

    fn functions(count: usize) -> String {
        (0..count).map(|index| format!("fn f{index}() {{}}\n")).collect()
    }

    #[test]
    fn long_files_are_found_and_tests_do_not_count() {
        let limit = format!("//! Head.\n{}", functions(MAX_LINES - 1));
        assert_eq!(messages(&limit, false), Vec::<String>::new());

        let over = format!("//! Head.\n{}", functions(MAX_LINES));
        assert!(matches!(&messages(&over, false)[..], [one] if one.starts_with("601 lines")));
        assert_eq!(messages(&over, true), Vec::<String>::new());

        let tested = format!("{limit}#[cfg(test)]\nmod tests {{\n{}}}\n", functions(50));
        assert_eq!(messages(&tested, false), Vec::<String>::new());
        let not_tests = tested.replace("#[cfg(test)]", "#[cfg(unix)]");
        assert_eq!(messages(&not_tests, false).len(), 1);
    }

    #[test]
    fn a_missing_head_is_found() {
        assert_eq!(messages("/// Of an item.\nfn a() {}", false).len(), 1);
        assert_eq!(messages("// Plain.\nfn a() {}", false).len(), 1);
        assert_eq!(messages("//! Head.\nfn a() {}", false), Vec::<String>::new());
        assert_eq!(messages("fn a() {}", true), Vec::<String>::new());
    }

    #[test]
    fn files_that_nobody_compiles_are_found() {
        let files =
            ["crates/a/src/lib.rs", "crates/a/src/b/lost.rs", "crates/a/tests/ui/c.rs", "xtask/src/d.rs"];
        let compiled = BTreeSet::from([PathBuf::from("crates/a/src/lib.rs")]);
        let found = orphans(&files.map(PathBuf::from), &compiled);
        let paths: Vec<_> = found.iter().map(|finding| finding.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["crates/a/src/b/lost.rs", "xtask/src/d.rs"]);
    }
}
