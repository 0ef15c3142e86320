//! Why a gate could not run. What a gate finds wrong in the tree is a finding, not an error.

use std::path::PathBuf;

pub(crate) type Result<T> = std::result::Result<T, XtaskError>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum XtaskError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot start `{command}`: {source}; is it installed and in PATH?")]
    Spawn { command: &'static str, source: std::io::Error },
    #[error("`{command}` failed: {stderr}")]
    Command { command: &'static str, stderr: String },
    #[error("the output of `cargo metadata` is not what was expected: {source}")]
    Metadata { source: serde_json::Error },
    #[error("cannot print the summary as JSON: {source}")]
    Json { source: serde_json::Error },
    #[error("{}: not Rust that can be parsed, line {line}: {source}; make it compile first", path.display())]
    Syntax { path: PathBuf, line: usize, source: syn::Error },
    #[error(
        "{}:{line}: `mod {module};` has no file (looked for {}); add the file or remove the line",
        path.display(), expected.display()
    )]
    MissingModule { path: PathBuf, line: usize, module: String, expected: PathBuf },
    #[error("{}: {source}", path.display())]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
}
