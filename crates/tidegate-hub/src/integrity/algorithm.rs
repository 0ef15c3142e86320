//! The algorithms of 11.1, each for a message in one piece and for one in several.

use blake2::{
    Blake2b, Blake2bMac, Digest as _,
    digest::{Mac as _, consts::U32},
};

use super::DigesterError;
use crate::layout::{DerivedKey, DigestAlg};

/// An algorithm with its key.
#[derive(Debug)]
pub(super) enum Algorithm {
    Blake2b,
    Blake3,
    KeyedBlake2b(DerivedKey),
    KeyedBlake3(DerivedKey),
    #[cfg(feature = "hmac-sha256")]
    HmacSha256(DerivedKey),
}

impl Algorithm {
    /// The algorithm `alg`; `key` is asked for a key if it needs one.
    pub(super) fn new(
        alg: DigestAlg,
        key: impl FnOnce() -> Result<DerivedKey, DigesterError>,
    ) -> Result<Self, DigesterError> {
        match alg {
            DigestAlg::None => Err(DigesterError::Disabled),
            DigestAlg::Blake2b => Ok(Self::Blake2b),
            DigestAlg::Blake3 => Ok(Self::Blake3),
            DigestAlg::KeyedBlake2b => key().map(Self::KeyedBlake2b),
            DigestAlg::KeyedBlake3 => key().map(Self::KeyedBlake3),
            #[cfg(feature = "hmac-sha256")]
            DigestAlg::HmacSha256 => key().map(Self::HmacSha256),
            #[cfg(not(feature = "hmac-sha256"))]
            DigestAlg::HmacSha256 => Err(DigesterError::NotBuilt { alg }),
        }
    }

    /// Its code.
    pub(super) fn alg(&self) -> DigestAlg {
        match self {
            Self::Blake2b => DigestAlg::Blake2b,
            Self::Blake3 => DigestAlg::Blake3,
            Self::KeyedBlake2b(_) => DigestAlg::KeyedBlake2b,
            Self::KeyedBlake3(_) => DigestAlg::KeyedBlake3,
            #[cfg(feature = "hmac-sha256")]
            Self::HmacSha256(_) => DigestAlg::HmacSha256,
        }
    }

    /// The digest of a message in one piece.
    pub(super) fn of(&self, message: &[u8]) -> [u8; 32] {
        match self {
            // In one piece BLAKE3 needs no tree of its own to be set up.
            Self::Blake3 => blake3::hash(message).into(),
            Self::KeyedBlake3(key) => blake3::keyed_hash(&key_array(key), message).into(),
            _ => self.of_parts(|feed| feed(message)),
        }
    }

    /// The digest of what `parts` feeds, in that order.
    pub(super) fn of_parts(&self, parts: impl FnOnce(&mut dyn FnMut(&[u8]))) -> [u8; 32] {
        match self {
            Self::Blake2b => {
                let mut hash = Blake2b::<U32>::new();
                parts(&mut |bytes| hash.update(bytes));
                hash.finalize().into()
            }
            Self::Blake3 => {
                let mut hash = blake3::Hasher::new();
                parts(&mut |bytes| {
                    hash.update(bytes);
                });
                hash.finalize().into()
            }
            Self::KeyedBlake2b(key) => {
                let Ok(mut mac) = Blake2bMac::<U32>::new_with_salt_and_personal(key.bytes(), &[], &[]) else {
                    // Derived keys fit. For one that does not, a digest that no message has.
                    return Blake2b::<U32>::digest(b"key too long").into();
                };
                parts(&mut |bytes| mac.update(bytes));
                mac.finalize().into_bytes().into()
            }
            Self::KeyedBlake3(key) => {
                let mut hash = blake3::Hasher::new_keyed(&key_array(key));
                parts(&mut |bytes| {
                    hash.update(bytes);
                });
                hash.finalize().into()
            }
            #[cfg(feature = "hmac-sha256")]
            Self::HmacSha256(key) => hmac_sha256(key, parts),
        }
    }
}

#[cfg(feature = "hmac-sha256")]
fn hmac_sha256(key: &DerivedKey, parts: impl FnOnce(&mut dyn FnMut(&[u8]))) -> [u8; 32] {
    use hmac::{Hmac, KeyInit as _, Mac as _};

    // HMAC takes keys of every length; this one is padded to a block of its hash.
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key.bytes()) {
        *to = *from;
    }
    let mut mac = Hmac::<sha2::Sha256>::new(&block.into());
    parts(&mut |bytes| mac.update(bytes));
    mac.finalize().into_bytes().into()
}

/// Derived keys have 32 bytes.
fn key_array(key: &DerivedKey) -> [u8; 32] {
    key.bytes().try_into().unwrap_or_default()
}
