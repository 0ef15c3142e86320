//! `cargo xtask check`: the boundaries of the source tree.
//!
//! | check | holds |
//! |---|---|
//! | [`tokens`] | `unsafe` and raw atomics only where a proof obligation is accepted |
//! | [`packages`] | `#![forbid(unsafe_code)]`, dependency direction, descriptions |
//! | [`agnostic`] | no messaging protocol in the I/O kernel |
//! | [`purity`] | no I/O, clock or randomness in the state machines of messaging |
//! | [`retold`] | every case of libzmq's test suite that the sheet lists has a test |
//! | [`shape`] | length and module head of source files, no file outside every target |
//! | [`wording`] | no workplace paths, no markers of unfinished work, a newline at the end |
//!
//! Each check is a function from text (or metadata) to findings, so that its tests can plant a violation.

mod agnostic;
mod packages;
mod purity;
mod retold;
mod shape;
mod tokens;
mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::workspace::{RustSource, TargetFile, Workspace, target_files};

/// Something wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: PathBuf,
    /// 1-based; 0 when the finding is about the whole file.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.message),
        }
    }
}

/// Runs all checks; `true` means no finding.
///
/// # Errors
/// When a file cannot be read or parsed.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let mut findings = BTreeSet::new();
    for file in &workspace.files {
        let Some(text) = workspace.text(file)? else { continue };
        findings.extend(wording::check(file, &text));
        if file.extension().is_some_and(|extension| extension == "rs") {
            let source = RustSource::parse(file, text)?;
            findings.extend(tokens::check(&source));
            findings.extend(purity::check(&source));
        }
    }

    let compiled = compiled_files(workspace)?;
    for file in compiled.values() {
        findings.extend(shape::check(file));
    }
    findings.extend(shape::orphans(&workspace.files, &compiled.keys().cloned().collect()));

    for package in &workspace.packages {
        findings.extend(packages::check_package(package));
        for target in &package.targets {
            let root = workspace.relative(&target.src_path);
            if let Some(file) = compiled.get(root) {
                findings.extend(packages::check_root(package, target, &file.source));
            }
        }
    }

    findings.extend(agnostic::check(workspace)?);

    let told: Vec<_> = compiled.values().flat_map(|file| retold::told(&file.source)).collect();
    let sheet = workspace.text(Path::new(retold::SHEET))?.unwrap_or_default();
    findings.extend(retold::check(&sheet, &told));

    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("check: ok ({} files)", workspace.files.len()),
        count => println!("check: FAILED, {count} findings"),
    }
    Ok(findings.is_empty())
}

/// Every file that some target is made of, once, by its path relative to the root. A file that one target has only in
/// test builds and another always is not test-only.
fn compiled_files(workspace: &Workspace) -> Result<BTreeMap<PathBuf, TargetFile>> {
    let mut compiled: BTreeMap<PathBuf, TargetFile> = BTreeMap::new();
    for target in workspace.packages.iter().flat_map(|package| &package.targets) {
        let only_tests = target.is(&["test", "bench"]);
        for mut file in target_files(&target.src_path)? {
            file.source.path = workspace.relative(&file.source.path).to_owned();
            file.test_only |= only_tests;
            match compiled.get_mut(&file.source.path) {
                Some(known) => known.test_only &= file.test_only,
                None => drop(compiled.insert(file.source.path.clone(), file)),
            }
        }
    }
    Ok(compiled)
}
