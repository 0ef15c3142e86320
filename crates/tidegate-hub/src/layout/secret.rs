//! The secret of a channel, as far as attaching needs it (11.5).

use std::fmt;

use blake2::{
    Blake2b, Blake2bMac, Digest,
    digest::{Mac, consts::U32},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::BlockUuid;

type Hash = Blake2b<U32>;
type KeyedHash = Blake2bMac<U32>;

/// Random bytes that a producer and its consumers share. Never shown, wiped when dropped (DH-164).
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Bytes a secret must have (DH-161).
    pub const MIN_LEN: usize = 16;
    /// Bytes a secret can have: the longest key of BLAKE2b.
    pub const MAX_LEN: usize = 64;

    /// Takes 16 to 64 random bytes.
    ///
    /// # Errors
    /// There are fewer or more.
    pub fn new(bytes: &[u8]) -> Result<Self, SecretTooShort> {
        if (Self::MIN_LEN..=Self::MAX_LEN).contains(&bytes.len()) {
            return Ok(Self(Zeroizing::new(bytes.to_vec())));
        }
        Err(SecretTooShort { len: bytes.len() })
    }

    /// Names the secret without telling it.
    pub fn key_id(&self) -> KeyId {
        let [a, b, c, d, e, f, g, h, ..] = keyed(b"tidegate-key-id", &[&self.0]);
        KeyId([a, b, c, d, e, f, g, h])
    }

    /// The key for `label` in one block (DH-163).
    fn derive(&self, label: &[u8], uuid: &BlockUuid, key_epoch: u32) -> Zeroizing<[u8; 32]> {
        let parts: [&[u8]; 5] = [b"tidegate/hub/", label, &[0], uuid.as_bytes(), &key_epoch.to_le_bytes()];
        Zeroizing::new(keyed(&self.0, &parts))
    }

    /// The tag over a descriptor, given with its `attach_tag` zeroed and without its digest (DH-163).
    pub(super) fn attach_tag(
        &self,
        uuid: &BlockUuid,
        key_epoch: u32,
        salt: &[u8; 16],
        descriptor: &[u8],
        schema_text: &[u8],
    ) -> [u8; 32] {
        let key = self.derive(b"attach", uuid, key_epoch);
        keyed(&*key, &[salt, descriptor, schema_text])
    }
}

/// Shows nothing of the secret but its length.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// A secret of the wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret of {len} bytes is refused; use 16 to 64 random bytes, 32 is a good number")]
pub struct SecretTooShort {
    /// Bytes given.
    pub len: usize,
}

/// The name of a secret, which says nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// BLAKE2b-256 of several parts.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Hash::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Whether two tags are the same, in a time that does not depend on where they differ.
pub(super) fn same_tag(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

/// BLAKE2b-256 with a key of at most 64 bytes.
fn keyed(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // Keys are secrets of checked length, derived keys and short names, which all fit; a zero tag for any other would
    // be the same for everybody, so make it one that verifies nothing.
    let Ok(mut mac) = KeyedHash::new_with_salt_and_personal(key, &[], &[]) else {
        return hash(&[b"key too long"]);
    };
    for part in parts {
        Mac::update(&mut mac, part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Rules: DH-161.
    #[test]
    fn secrets_have_16_to_64_bytes() {
        for len in [0, 8, 15, 65] {
            assert_eq!(Secret::new(&vec![1; len]).unwrap_err(), SecretTooShort { len });
        }
        assert!(Secret::new(&[1; 16]).is_ok() && Secret::new(&[1; 64]).is_ok());
    }

    #[test]
    fn the_hash_and_the_keyed_hash_are_blake2b_256() {
        // Computed with Python's hashlib.blake2b(digest_size=32).
        assert_eq!(hex(&hash(&[b"a", b"bc"])), PLAIN_ABC);
        assert_eq!(hex(&keyed(b"0123456789abcdef", &[b"ab", b"c"])), KEYED_ABC);
    }

    /// Rules: DH-163.
    #[test]
    fn keys_and_tags_are_those_of_an_independent_computation() {
        let secret = Secret::new(&std::array::from_fn::<u8, 32, _>(|i| i as u8)).unwrap();
        let uuid = BlockUuid::new(std::array::from_fn(|i| i as u8)).unwrap();
        assert_eq!(secret.key_id().to_string(), KEY_ID);
        assert_eq!(hex(&*secret.derive(b"attach", &uuid, 1)), ATTACH_KEY);
        assert_eq!(hex(&secret.attach_tag(&uuid, 1, &[7; 16], b"descriptor", b"schema")), TAG);
    }

    /// Rules: DH-164.
    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new(&[0x41; 16]).unwrap()), "Secret(16 bytes)");
    }

    const PLAIN_ABC: &str = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319";
    const KEYED_ABC: &str = "66b4857d42c644c61fca8c0bcea243e0e75088582c7964bbac6b92c02381d9c7";
    const KEY_ID: &str = "58f6710d886c55ea";
    const ATTACH_KEY: &str = "c69bc71e20eb2873dc14444b806bf05d61cc8c362776da074bc5502427141816";
    const TAG: &str = "98540e74a9f152289e3601bb42fbce11831ba525267ec2f1e0ec85fe7d8eb6c9";
}
