//! Where secrets come from: a key file, an inherited descriptor, or the program itself; never an argument, and never an
//! environment variable except as the path of a file (DH-165).
//!
//! A key file is one line, readable by its owner alone:
//!
//! ```text
//! tgk1:<16 hex digits: key id>:<base64 of the secret>
//! ```
//!
//! The key id is not secret and may be shown; it also finds out a file that was cut or altered. Errors name paths and key
//! ids and never anything of the content (DH-164, DH-289).

mod error;
mod file;

use std::{fmt, path::PathBuf, sync::Arc};

use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

pub use error::{KeyTextFault, SecretError};
pub use file::{read_key_file, write_key_file};

use crate::layout::{KeyId, Secret};

/// Bytes of a new secret (DH-161).
pub const NEW_SECRET_LEN: usize = 32;

/// How a program gets its secret. Loaded at attach, not kept.
#[derive(Clone)]
pub enum SecretSource {
    /// A key file with mode 0600 (or less) that belongs to the effective user.
    File(PathBuf),
    /// The number of a descriptor that was inherited from the program that started this one: a file, a memory file or
    /// the end of a pipe with the text of a key file. A pipe gives it once.
    Descriptor(u32),
    /// The program asks elsewhere, such as a key service.
    Callback(Arc<SecretCallback>),
}

/// Gives a secret.
pub type SecretCallback = dyn Fn() -> Result<Secret, SecretError> + Send + Sync;

impl SecretSource {
    /// Gets the secret.
    ///
    /// # Errors
    /// The source cannot be read, may be read by others, or does not hold a secret.
    pub fn load(&self) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => read_key_file(path),
            Self::Descriptor(number) => file::read_descriptor(*number),
            Self::Callback(callback) => callback(),
        }
    }
}

/// Names the source, nothing of its content.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Descriptor(number) => f.debug_tuple("Descriptor").field(number).finish(),
            Self::Callback(_) => f.write_str("Callback(..)"),
        }
    }
}

/// A new random secret (DH-167).
///
/// # Errors
/// The kernel gives no random bytes or no memory.
pub fn generate() -> Result<Secret, SecretError> {
    let mut bytes = Zeroizing::new([0; NEW_SECRET_LEN]);
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(SecretError::Random { source: errno.into() }),
        }
    }
    Ok(Secret::new(&*bytes)?)
}

/// The name of the secret in a key file (DH-167).
///
/// # Errors
/// As [`read_key_file`].
pub fn key_id_of_file(path: &std::path::Path) -> Result<KeyId, SecretError> {
    Ok(read_key_file(path)?.key_id())
}
