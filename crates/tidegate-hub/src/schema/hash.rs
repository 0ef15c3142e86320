//! The fingerprint of a schema: BLAKE2b-256 of its canonical text (DH-169).

use std::fmt::{self, Write as _};
use std::str::FromStr;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use thiserror::Error;

/// BLAKE2b-256 of a canonical text. All zeros means untyped bytes (DH-171).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaHash([u8; 32]);

impl SchemaHash {
    /// Says that the bytes have no type.
    pub const UNTYPED: Self = Self([0; 32]);

    /// The hash of a text, which the caller knows to be canonical (DH-169).
    pub fn of_text(text: &str) -> Self {
        Self(Blake2b::<U32>::digest(text.as_bytes()).into())
    }

    /// The hash over the hashes of all zones in their order; [`UNTYPED`](Self::UNTYPED) if there are none (3.2).
    pub fn of_zones(zones: &[Self]) -> Self {
        if zones.is_empty() {
            return Self::UNTYPED;
        }
        let mut digest = Blake2b::<U32>::new();
        zones.iter().for_each(|zone| digest.update(zone.0));
        Self(digest.finalize().into())
    }

    /// The hash as it stands in a descriptor.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it says that the bytes have no type.
    pub fn is_untyped(&self) -> bool {
        *self == Self::UNTYPED
    }

    /// Checks a text that came with this hash (DH-180).
    ///
    /// # Errors
    /// [`FingerprintMismatch`] if the text has another hash.
    pub fn check_text(&self, text: &str) -> Result<(), FingerprintMismatch> {
        let computed = Self::of_text(text);
        if computed == *self { Ok(()) } else { Err(FingerprintMismatch { given: *self, computed }) }
    }
}

impl fmt::Display for SchemaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SchemaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SchemaHash(")?;
        fmt::Display::fmt(self, f)?;
        f.write_char(')')
    }
}

impl FromStr for SchemaHash {
    type Err = HashTextError;

    /// Reads 64 hexadecimal digits in lower case, as messages carry them.
    fn from_str(text: &str) -> Result<Self, HashTextError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(HashTextError) };
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(HashTextError)
    }
}

/// A text that is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a schema hash is 64 hexadecimal digits in lower case")]
pub struct HashTextError;

/// A text and a hash that were said to belong together and do not (DH-180, `FINGERPRINT_INCONSISTENT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "FINGERPRINT_INCONSISTENT: schema text has the hash {computed}, but came with {given}; one of them was altered"
)]
pub struct FingerprintMismatch {
    /// The hash that came with the text.
    pub given: SchemaHash,
    /// The hash that the text has.
    pub computed: SchemaHash,
}
