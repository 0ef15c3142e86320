//! Digests over slots and zones: finding out bytes that are not what their writer wrote (chapter 11).
//!
//! | module | gives |
//! |---|---|
//! | `digest` | [`Digester`]: the digest of one message, straight from shared memory |
//! | `algorithm` | the five algorithms |
//! | `entry` | the entry of the digest table |
//! | `slot` | [`SlotIntegrity`]: what a producer does before the commit, and a consumer before it hands bytes out |
//! | `failure` | [`ChecksumError`], and counting and logging of it |
//!
//! # What is believed
//!
//! - A digest covers the block, the id, the length and the schema besides the bytes, so bytes and digest of an old slot do
//!   not pass under a new id or in another block.
//! - Without a key a digest finds accidents. With one it also finds what others without the key wrote, but only in a copy
//!   that they cannot reach: [`SlotIntegrity::copy_verified`] copies first and verifies the copy (DH-158).
//! - Whoever has the key can forge. The key separates its holders from others, not producers from consumers; where
//!   consumers must not be able to forge, they must not be able to write: capability transport (DH-159).

mod algorithm;
mod digest;
mod entry;
mod failure;
mod slot;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::spec as test_spec;

pub use digest::{Digest, Digester, DigesterError};
pub use entry::{DigestEntry, SLOT_DIGEST_FAILED, SLOT_DIGEST_KEYED, SLOT_DIGEST_PRESENT};
pub use failure::{ChecksumError, ChecksumFault, FailureLog};
pub use slot::{CannotSeal, SealState, SlotIntegrity, VerifyAt};
