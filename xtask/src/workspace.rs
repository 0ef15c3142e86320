//! The source tree as cargo sees it: packages, their targets and the files each target is made of.
//!
//! Files are found by following `mod` declarations from each target's root, not by listing folders: a file that no
//! target reaches is never compiled, so a test in it shows nothing.

mod modules;
mod rust_source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

pub(crate) use self::modules::{TargetFile, target_files};
pub(crate) use self::rust_source::{RustSource, has_attribute, is_test_configured};
use crate::error::{Result, XtaskError};

/// The workspace: its folder, its packages, and every file that is or could be committed.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) packages: Vec<Package>,
    /// Relative to the root, sorted; files ignored by git are left out.
    pub(crate) files: Vec<PathBuf>,
}

/// One package as `cargo metadata` prints it.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) targets: Vec<Target>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One library, binary, test, bench, example or build script.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
    /// Whether `cargo test` builds it as tests.
    test: bool,
}

/// One line of a `[dependencies]`, `[dev-dependencies]` or `[build-dependencies]` table.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for an ordinary dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// Where a path dependency is.
    pub(crate) path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

impl Workspace {
    /// Asks cargo and git about the current workspace.
    ///
    /// # Errors
    /// When one of the two cannot be run, fails, or prints something unexpected.
    pub(crate) fn load() -> Result<Self> {
        let cargo = output("cargo metadata", &["metadata", "--no-deps", "--format-version", "1"], None)?;
        let metadata: Metadata =
            serde_json::from_str(&cargo).map_err(|source| XtaskError::Metadata { source })?;
        let root = metadata.workspace_root;
        let listing =
            output("git ls-files", &["ls-files", "-z", "-co", "--exclude-standard"], Some(root.as_path()))?;
        let files: BTreeSet<PathBuf> =
            listing.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
        // A file deleted but not yet committed is still listed.
        let files = files.into_iter().filter(|file| root.join(file).is_file()).collect();
        Ok(Self { root, packages: metadata.packages, files })
    }

    /// The path as messages and tables show it: relative to the root.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// Text of a file given relative to the root, or `None` when it is not UTF-8.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn text(&self, relative: &Path) -> Result<Option<String>> {
        let path = self.root.join(relative);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
            Err(source) => Err(XtaskError::Read { path, source }),
        }
    }
}

impl Package {
    /// The name under which nextest runs the tests of a target: `crate`, `crate::test` or `crate::bin/name`.
    pub(crate) fn binary_id(&self, target: &Target) -> String {
        if target.is(&["test"]) {
            format!("{}::{}", self.name, target.name)
        } else if target.is(&["lib", "proc-macro", "cdylib", "rlib", "staticlib", "dylib"]) {
            self.name.clone()
        } else {
            format!("{}::{}/{}", self.name, target.kind.first().map_or("target", String::as_str), target.name)
        }
    }
}

impl Target {
    /// Whether the tests in it are run: libraries, programs and integration tests, unless the manifest says otherwise.
    pub(crate) fn runs_tests(&self) -> bool {
        self.test && self.is(&["lib", "bin", "test", "proc-macro"])
    }

    /// Whether the target is of one of the given kinds.
    pub(crate) fn is(&self, kinds: &[&str]) -> bool {
        self.kind.iter().any(|kind| kinds.contains(&kind.as_str()))
    }
}

fn output(what: &'static str, args: &[&str], dir: Option<&Path>) -> Result<String> {
    let program = what.split(' ').next().unwrap_or(what);
    let program =
        if program == "cargo" { std::env::var("CARGO").unwrap_or("cargo".into()) } else { program.into() };
    let mut command = Command::new(program);
    command.args(args);
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    let output = command.output().map_err(|source| XtaskError::Spawn { command: what, source })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(XtaskError::Command { command: what, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_run_in_tested_libraries_programs_and_tests_only() {
        let runs = |kind: &str, test: bool| {
            let json = format!("{{\"name\":\"a\",\"kind\":[\"{kind}\"],\"src_path\":\"a\",\"test\":{test}}}");
            serde_json::from_str::<Target>(&json).unwrap().runs_tests()
        };
        for kind in ["lib", "bin", "test", "proc-macro"] {
            assert!(runs(kind, true) && !runs(kind, false), "{kind}");
        }
        for kind in ["bench", "example", "custom-build"] {
            assert!(!runs(kind, true), "{kind}");
        }
    }
}
