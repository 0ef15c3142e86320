//! `[schema]`: what records are (VX-422).

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tidegate_udf::SchemaId;

use super::{ConfigError, Pipeline};
use crate::lane::session::Typing;

/// `[schema]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaConfig {
    /// The file with the schema of inputs; without it they are untyped bytes.
    #[serde(rename = "in")]
    pub input: Option<PathBuf>,
    /// The file with the schema of outputs.
    pub out: Option<PathBuf>,
    /// Whether a function has to say the same, and not just nothing.
    pub strict: bool,
}

impl Default for SchemaConfig {
    fn default() -> Self {
        Self { input: None, out: None, strict: true }
    }
}

impl Pipeline {
    /// What records are, as the files of `[schema]` say now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn typing(&self) -> Result<Typing, ConfigError> {
        let SchemaConfig { input, out, strict } = &self.schema;
        let id =
            |key, path: &Option<PathBuf>| match path {
                None => Ok(SchemaId::NONE),
                Some(path) => read(path)
                    .map(|text| SchemaId::of(&text))
                    .map_err(|source| ConfigError::Schema { key, path: path.clone(), source }),
            };
        Ok(Typing { input: id("schema.in", input)?, output: id("schema.out", out)?, strict: *strict })
    }
}

/// A text that is not longer than a schema is.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
    }
    Ok(text)
}

const LONGEST: u64 = 1 << 20;
