//! Why there is no secret.

use std::{io, path::PathBuf};

use crate::layout::{KeyId, SecretUnusable};

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Wrong length, or no memory fit for a key.
    #[error(transparent)]
    Unusable(#[from] SecretUnusable),
    /// The file or descriptor cannot be read or written.
    #[error("cannot {operation} {}; check the path and its permissions", place.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// Where.
        place: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("{} is not a regular file; give the path of a key file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// Others can read it, or it is somebody else's (DH-165).
    #[error("{} belongs to user {uid} and has mode {mode:04o}; a key file belongs to its user alone: `chmod 600` it, and \
             make a new secret if others could read it", path.display())]
    Exposed {
        /// Where.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The content is no key file.
    #[error("{} holds no key: {fault}; make one with `tidegate hub secret gen`", place.display())]
    Text {
        /// Where.
        place: PathBuf,
        /// What is wrong with it.
        fault: KeyTextFault,
    },
    /// The kernel gives no random bytes.
    #[error("cannot draw random bytes for a secret")]
    Random {
        /// What the kernel said.
        source: io::Error,
    },
    /// A callback had nothing to give.
    #[error("the program's own source of secrets gave none: {reason}")]
    Callback {
        /// Why, in the program's words; must not tell anything of the secret.
        reason: &'static str,
    },
}

impl SecretError {
    /// The number of Annex B.
    pub fn code(&self) -> u16 {
        match self {
            Self::Unusable(SecretUnusable::Length { .. }) => 154,
            Self::Exposed { .. } | Self::NotAFile { .. } | Self::Text { .. } | Self::Callback { .. } => 903,
            Self::Unusable(_) | Self::File { .. } | Self::Random { .. } => 904,
        }
    }
}

/// What is wrong with the text of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyTextFault {
    /// More than a key can have.
    #[error("it is too long")]
    TooLong,
    /// Not three parts after `tgk1`.
    #[error("expected tgk1:<key id>:<base64>")]
    Form,
    /// The second part is no key id.
    #[error("the key id is not 16 hexadecimal digits")]
    KeyId,
    /// The third part is not base64.
    #[error("the secret is not base64")]
    Base64,
    /// The secret is another one.
    #[error("its secret has the key id {found}, not {stated}; it was cut or altered")]
    OtherKey {
        /// What the text says.
        stated: KeyId,
        /// What the secret has.
        found: KeyId,
    },
}
