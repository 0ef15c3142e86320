//! The digest of one message, computed from shared memory without allocating.
//!
//! ```text
//! slot message = "TGHUB-SLOT\0v1\0\0\0" block_uuid u64 id    u64 length     slot_schema_hash payload
//! zone message = "TGHUB-ZONE\0v1\0\0\0" block_uuid u64 index u64 generation zone_schema_hash bytes
//!                 16                    16         8         8              32
//! ```
//!
//! Bytes of a [`Span`] cannot be hashed where they are, since no reference to them may exist; each byte is copied once,
//! behind the fixed part of the message, and hashed from the processor's cache. Messages up to 4 KiB and some are one piece.
//! Longer ones go in pieces of [`PIECE`] bytes from the start of the message, which keeps all of BLAKE3's lanes filled.

use std::fmt;

use tidegate_shm::region::{AccessError, Span};

use super::algorithm::Algorithm;
use crate::layout::{BlockUuid, Descriptor, DigestAlg, KeyId, KeyLabel, Secret, SecretUnusable, same_tag};

/// A digest. Comparing takes the same time wherever two differ (DH-164).
#[derive(Clone, Copy)]
pub struct Digest(pub [u8; 32]);

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        same_tag(&self.0, &other.0)
    }
}

impl Eq for Digest {}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Computes the digests of one block.
#[derive(Debug)]
pub struct Digester {
    slots: Algorithm,
    zones: Algorithm,
    uuid: BlockUuid,
    slot_schema: [u8; 32],
}

impl Digester {
    /// The digester of a block. `secret` is used if the block's algorithm needs a key.
    ///
    /// # Errors
    /// Digests are off, the key is missing, or the algorithm is not in this build.
    pub fn new(descriptor: &Descriptor, secret: Option<&Secret>) -> Result<Self, DigesterError> {
        let Descriptor { uuid, spec, key_id, .. } = descriptor;
        let key = |label| {
            let secret = secret.ok_or(DigesterError::NoKey { key_id: *key_id })?;
            Ok(secret.derive(label, uuid, spec.key_epoch)?)
        };
        Ok(Self {
            slots: Algorithm::new(spec.digest_alg, || key(KeyLabel::SlotMac))?,
            zones: Algorithm::new(spec.digest_alg, || key(KeyLabel::ZoneMac))?,
            uuid: *uuid,
            slot_schema: spec.schema.slot_hash,
        })
    }

    /// The algorithm.
    pub fn alg(&self) -> DigestAlg {
        self.slots.alg()
    }

    /// The digest of the slot message with this id and payload (11.1).
    pub fn slot(&self, id: u64, payload: Span<'_>) -> Digest {
        of_span(&self.slots, &self.slot_head(id, payload.len()), payload)
    }

    /// Copies the payload to `copy` and returns the digest of the copy, which nobody else can change any more (DH-158).
    ///
    /// # Errors
    /// `copy` does not have the length of the payload.
    pub fn slot_copy(&self, id: u64, payload: Span<'_>, copy: &mut [u8]) -> Result<Digest, AccessError> {
        payload.copy_to(copy)?;
        let head = self.slot_head(id, copy.len());
        Ok(Digest(self.slots.of_parts(|feed| {
            feed(&head);
            feed(copy);
        })))
    }

    /// The digest of the zone message with this index, generation and content (11.1).
    pub fn zone(&self, index: u32, generation: u64, schema: &[u8; 32], bytes: Span<'_>) -> Digest {
        let head = head(ZONE, &self.uuid, index.into(), generation, schema);
        of_span(&self.zones, &head, bytes)
    }

    fn slot_head(&self, id: u64, len: usize) -> [u8; HEAD] {
        head(SLOT, &self.uuid, id, len as u64, &self.slot_schema)
    }
}

/// The fixed part of a message.
fn head(magic: &[u8; 16], uuid: &BlockUuid, number: u64, second: u64, schema: &[u8; 32]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let (number, second) = (number.to_le_bytes(), second.to_le_bytes());
    let fields: [&[u8]; 5] = [magic, uuid.as_bytes(), &number, &second, schema];
    for (to, from) in head.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    head
}

fn of_span(algorithm: &Algorithm, head: &[u8; HEAD], bytes: Span<'_>) -> Digest {
    // Each buffer is zeroed before use, so a small message gets a small one.
    Digest(match HEAD + bytes.len() {
        0..=256 => in_one_piece::<256>(algorithm, head, bytes),
        257..=1024 => in_one_piece::<1024>(algorithm, head, bytes),
        1025..=4224 => in_one_piece::<4224>(algorithm, head, bytes),
        _ => in_pieces(algorithm, head, bytes),
    })
}

fn in_one_piece<const N: usize>(algorithm: &Algorithm, head: &[u8; HEAD], bytes: Span<'_>) -> [u8; 32] {
    let mut buffer = [0; N];
    let filled = fill(&mut buffer, head, bytes);
    algorithm.of(filled)
}

fn in_pieces(algorithm: &Algorithm, head: &[u8; HEAD], bytes: Span<'_>) -> [u8; 32] {
    let mut buffer = [0; PIECE];
    algorithm.of_parts(|feed| {
        let first = bytes.len().min(PIECE - HEAD);
        let (Ok(start), Ok(rest)) = (bytes.sub(0..first), bytes.sub(first..bytes.len())) else { return };
        feed(fill(&mut buffer, head, start));
        for piece in rest.chunks(PIECE) {
            feed(fill(&mut buffer, &[], piece));
        }
    })
}

/// Puts `head` and `bytes`, which fit, into `buffer`.
fn fill<'b>(buffer: &'b mut [u8], head: &[u8], bytes: Span<'_>) -> &'b [u8] {
    let len = head.len() + bytes.len();
    debug_assert!(len <= buffer.len(), "{len} bytes in a buffer of {}", buffer.len());
    let Some(buffer) = buffer.get_mut(..len) else { return &[] };
    let (front, back) = buffer.split_at_mut(head.len());
    front.copy_from_slice(head);
    // The lengths are equal.
    let copied = bytes.copy_to(back);
    debug_assert!(copied.is_ok(), "{copied:?}");
    buffer
}

/// Bytes before the payload.
const HEAD: usize = 80;
/// Sixteen chunks of BLAKE3: what its widest implementation does at once.
const PIECE: usize = 16 * 1024;
const SLOT: &[u8; 16] = b"TGHUB-SLOT\0v1\0\0\0";
const ZONE: &[u8; 16] = b"TGHUB-ZONE\0v1\0\0\0";

/// Why no digests can be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigesterError {
    /// The block has no digest table (DH-156).
    #[error("digests are off in this block; its producer switches them on with `digest.enabled = true`")]
    Disabled,
    /// The algorithm needs a key.
    #[error("the digests of this block need the secret with the key id {key_id}; give it when attaching")]
    NoKey {
        /// Names the secret.
        key_id: KeyId,
    },
    /// The algorithm was left out of this program.
    #[error("this program was built without digest algorithm {alg:?}; build it with the feature hmac-sha256")]
    NotBuilt {
        /// Which.
        alg: DigestAlg,
    },
    /// There is no memory to keep the key in.
    #[error(transparent)]
    Key(#[from] SecretUnusable),
}

impl DigesterError {
    /// Why a block whose digests cannot be computed without more has none.
    pub(crate) fn missing(descriptor: &Descriptor) -> Self {
        match descriptor.spec.digest_alg {
            DigestAlg::None => Self::Disabled,
            alg @ DigestAlg::HmacSha256 if !cfg!(feature = "hmac-sha256") => Self::NotBuilt { alg },
            _ => Self::NoKey { key_id: descriptor.key_id },
        }
    }

    /// The number of Annex B.
    pub fn code(&self) -> u16 {
        match self {
            Self::Disabled => 304,
            Self::NoKey { .. } => 119,
            Self::NotBuilt { .. } => 903,
            Self::Key(_) => 904,
        }
    }
}
