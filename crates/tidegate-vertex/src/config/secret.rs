//! Secrets of the pipeline file: never in the file itself, but named by it (VX-839).

use std::{env, fmt, fs, io, path::PathBuf};

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

/// Where a secret is: `"${NAME}"`, a variable of the environment, or `"file:/path"`, a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A variable of the environment.
    Variable(String),
    /// A file; a newline at its end does not count.
    File(PathBuf),
}

/// Why a secret cannot be read; never with the secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The variable is not set, or not UTF-8.
    #[error("the environment variable {name} is not set; the pipeline file takes a secret from it")]
    Variable {
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read the secret in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Secret {
    /// The secret.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::Variable(name) => env::var(name).map_err(|_| SecretError::Variable { name: name.clone() }),
            Self::File(path) => {
                let text = fs::read_to_string(path);
                let mut text = text.map_err(|source| SecretError::File { path: path.clone(), source })?;
                text.truncate(text.trim_end_matches(['\n', '\r']).len());
                Ok(text)
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "${{{name}}}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            return Ok(Self::Variable(name.to_owned()));
        }
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(path.into()));
        }
        // Not repeated: it may be the secret itself.
        Err(de::Error::custom("a secret is named, not written: expected \"${VARIABLE}\" or \"file:/path\""))
    }
}
