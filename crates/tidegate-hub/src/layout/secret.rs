//! The secret of a channel and everything that is derived from it (11.5).
//!
//! ```text
//! K(label)        = BLAKE2b-256(key = secret, "tidegate/hub/" label 00 block_uuid u32 key_epoch)
//!                   labels: attach, slot-mac, zone-mac
//! attach_tag      = BLAKE2b-256(key = K(attach), salt, descriptor without the tag, schema text)
//! broker verifier = BLAKE2b-256(key = secret, "tidegate/hub/broker-verifier" 00 channel)
//! key id          = first 8 bytes of BLAKE2b-256(key = "tidegate-key-id", secret)
//! ```
//!
//! Keys lie in memory that is left out of core dumps and wiped when given back (DH-164). Where a secret comes from is the
//! business of [`crate::secret`].

use std::{fmt, io, sync::Arc};

use blake2::{
    Blake2b, Blake2bMac, Digest,
    digest::{Mac, consts::U32},
};
use subtle::ConstantTimeEq;
use tidegate_shm::secret::SecretBytes;
use zeroize::Zeroizing;

use super::BlockUuid;

type Hash = Blake2b<U32>;
type KeyedHash = Blake2bMac<U32>;

/// Random bytes that a producer and its consumers share. Never shown, wiped when the last clone is dropped (DH-164).
#[derive(Clone)]
pub struct Secret(Arc<SecretBytes>);

impl Secret {
    /// Bytes a secret must have (DH-161).
    pub const MIN_LEN: usize = 16;
    /// Bytes a secret can have: the longest key of BLAKE2b.
    pub const MAX_LEN: usize = 64;

    /// Takes a copy of 16 to 64 random bytes; the caller wipes its own.
    ///
    /// # Errors
    /// There are fewer or more, or there is no memory fit for a key.
    pub fn new(bytes: &[u8]) -> Result<Self, SecretUnusable> {
        if !(Self::MIN_LEN..=Self::MAX_LEN).contains(&bytes.len()) {
            return Err(SecretUnusable::Length { len: bytes.len() });
        }
        let bytes = SecretBytes::new(bytes).map_err(|source| SecretUnusable::Memory { source })?;
        Ok(Self(Arc::new(bytes)))
    }

    /// Names the secret without telling it.
    pub fn key_id(&self) -> KeyId {
        let [a, b, c, d, e, f, g, h, ..] = keyed(b"tidegate-key-id", &[self.bytes()]);
        KeyId([a, b, c, d, e, f, g, h])
    }

    /// The key for `label` in one block (DH-163).
    ///
    /// # Errors
    /// There is no memory fit for a key.
    pub fn derive(
        &self,
        label: KeyLabel,
        uuid: &BlockUuid,
        key_epoch: u32,
    ) -> Result<DerivedKey, SecretUnusable> {
        let key = self.derived_bytes(label, uuid, key_epoch);
        SecretBytes::new(&*key).map(DerivedKey).map_err(|source| SecretUnusable::Memory { source })
    }

    /// What the broker keeps of the secret, and what proofs to it are made with (DH-163).
    pub fn broker_verifier(&self, channel: &str) -> Zeroizing<[u8; 32]> {
        let parts: [&[u8]; 3] = [b"tidegate/hub/broker-verifier", &[0], channel.as_bytes()];
        Zeroizing::new(keyed(self.bytes(), &parts))
    }

    /// The tag over a descriptor, given with its `attach_tag` zeroed and without its digest (DH-160, DH-163).
    pub(super) fn attach_tag(
        &self,
        uuid: &BlockUuid,
        key_epoch: u32,
        salt: &[u8; 16],
        descriptor: &[u8],
        schema_text: &[u8],
    ) -> [u8; 32] {
        let key = self.derived_bytes(KeyLabel::Attach, uuid, key_epoch);
        keyed(&*key, &[salt, descriptor, schema_text])
    }

    fn derived_bytes(&self, label: KeyLabel, uuid: &BlockUuid, key_epoch: u32) -> Zeroizing<[u8; 32]> {
        let parts: [&[u8]; 5] =
            [b"tidegate/hub/", label.text(), &[0], uuid.as_bytes(), &key_epoch.to_le_bytes()];
        Zeroizing::new(keyed(self.bytes(), &parts))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Shows nothing of the secret but its length.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.bytes().len())
    }
}

/// What a derived key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLabel {
    /// The tag over the descriptor.
    Attach,
    /// Authenticated slots.
    SlotMac,
    /// Authenticated zones.
    ZoneMac,
}

impl KeyLabel {
    const fn text(self) -> &'static [u8] {
        match self {
            Self::Attach => b"attach",
            Self::SlotMac => b"slot-mac",
            Self::ZoneMac => b"zone-mac",
        }
    }
}

/// A key for one purpose in one block. Never shown, wiped when dropped.
#[derive(Debug)]
pub struct DerivedKey(SecretBytes);

impl DerivedKey {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Why bytes cannot be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretUnusable {
    /// Too few to be safe, or more than BLAKE2b takes (DH-161, `SecretTooShort`).
    #[error(
        "a secret of {len} bytes is refused; use 16 to 64 random bytes, as `tidegate hub secret gen` makes them"
    )]
    Length {
        /// Bytes given.
        len: usize,
    },
    /// The kernel gives no memory that it leaves out of core dumps.
    #[error("no memory to keep a key in; free some, or raise the limit on mappings")]
    Memory {
        /// What the kernel said.
        source: io::Error,
    },
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
pub(crate) fn same_tag(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

/// BLAKE2b-256 with a key of at most 64 bytes.
pub(crate) fn keyed(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
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

    fn numbered() -> (Secret, BlockUuid) {
        let secret = Secret::new(&std::array::from_fn::<u8, 32, _>(|i| i as u8)).unwrap();
        (secret, BlockUuid::new(std::array::from_fn(|i| i as u8)).unwrap())
    }

    /// Rules: DH-161, G-07.
    #[test]
    fn secrets_have_16_to_64_bytes() {
        for len in [0, 8, 15, 65] {
            let error = Secret::new(&vec![1; len]).unwrap_err();
            assert!(matches!(error, SecretUnusable::Length { len: found } if found == len));
        }
        assert!(Secret::new(&[1; 16]).is_ok() && Secret::new(&[1; 64]).is_ok());
    }

    #[test]
    fn the_hash_and_the_keyed_hash_are_blake2b_256() {
        // Computed with Python's hashlib.blake2b(digest_size=32).
        assert_eq!(hex(&hash(&[b"a", b"bc"])), PLAIN_ABC);
        assert_eq!(hex(&keyed(b"0123456789abcdef", &[b"ab", b"c"])), KEYED_ABC);
    }

    /// The values are those of Python's `hashlib.blake2b`; the slot key is in the sheet.
    ///
    /// Rules: DH-163, N-29.
    #[test]
    fn keys_and_tags_are_those_of_an_independent_computation() {
        let (secret, uuid) = numbered();
        assert_eq!(secret.key_id().to_string(), KEY_ID);
        let key = |label, epoch| hex(secret.derive(label, &uuid, epoch).unwrap().bytes());
        assert_eq!(key(KeyLabel::Attach, 1), ATTACH_KEY);
        assert_eq!(key(KeyLabel::SlotMac, 1), SLOT_KEY);
        assert_eq!(key(KeyLabel::SlotMac, 2), SLOT_KEY_OF_EPOCH_2);
        assert_eq!(key(KeyLabel::ZoneMac, 1), ZONE_KEY);
        assert_eq!(hex(&secret.attach_tag(&uuid, 1, &[7; 16], b"descriptor", b"schema")), TAG);
        assert_eq!(hex(&*secret.broker_verifier("sensor_temperature")), VERIFIER);
    }

    /// Rules: DH-164, DH-289.
    #[test]
    fn secrets_and_keys_are_not_shown() {
        let secret = Secret::new(&[0x41; 16]).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(16 bytes)");
        let key = secret.derive(KeyLabel::SlotMac, &numbered().1, 1).unwrap();
        assert_eq!(format!("{key:?}"), "DerivedKey(SecretBytes(32 bytes))");
    }

    const PLAIN_ABC: &str = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319";
    const KEYED_ABC: &str = "66b4857d42c644c61fca8c0bcea243e0e75088582c7964bbac6b92c02381d9c7";
    const KEY_ID: &str = "58f6710d886c55ea";
    const ATTACH_KEY: &str = "c69bc71e20eb2873dc14444b806bf05d61cc8c362776da074bc5502427141816";
    const SLOT_KEY: &str = "2e359f2a4697d343cd0d868676250b8aed666dfdf0a89916ca9113c8f727f236";
    const SLOT_KEY_OF_EPOCH_2: &str = "fba2c08c7b55d4b85ba6114a67d9cfd7effc02cad746665b1c4f97d57cfe8612";
    const ZONE_KEY: &str = "826e4e34aa8d45c6582e6bab3a8357d956e9f9557620113eccfed59beabf01da";
    const TAG: &str = "98540e74a9f152289e3601bb42fbce11831ba525267ec2f1e0ec85fe7d8eb6c9";
    const VERIFIER: &str = "e7a0ab0f4428536016540dd453a2997bacd29fd70630912f3a36ea14722ad652";
}
