//! Digests of zones, by hand only: fields may change while they are hashed (DH-142).

use std::mem::offset_of;

use tidegate_shm::sync::Ordering;

use super::{Zone, ZoneError};
use crate::{
    config::Timeout,
    core::generation::ZoneState,
    integrity::{Digest, Digester},
    layout::pages::ZoneControl,
    schema::ZoneLayout,
};

/// What a zone's digest says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestCheck {
    /// The content is the one that was hashed.
    Match,
    /// It is another one, although no update was made.
    Mismatch,
    /// The zone was updated since, or no digest was ever made.
    Stale,
}

impl<Z: ZoneLayout> Zone<'_, Z> {
    /// Hashes the zone under its lock, or while the caller sees to it that no updates run, and stores the digest with the
    /// generation.
    ///
    /// # Errors
    /// Digests are off or need a key; as [`Zone::guard`]; an update runs or was not finished.
    pub fn update_digest(&self, timeout: Timeout) -> Result<(), ZoneError> {
        let digester = self.digester()?;
        let _guard = self.guard(timeout)?;
        let ZoneState::Whole(generation) = self.generation().state() else {
            return Err(ZoneError::Busy { index: self.index, writer: None });
        };
        let digest = self.digest(digester, generation)?;
        if !self.generation().is_still(generation) {
            return Err(ZoneError::Busy { index: self.index, writer: None });
        }
        let row = self.control_mut()?.row();
        let stored = row.u64::<{ offset_of!(ZoneControl, digest_generation) }>();
        // Relaxed: who reads while this goes on finds a digest that is half of each, which matches nothing.
        row.bytes::<{ offset_of!(ZoneControl, digest) }, 32>().copy_from(&digest.0)?;
        // Release: pairs with the acquire of `verify_digest`; who sees the generation sees its digest.
        stored.store(generation, Ordering::Release);
        Ok(())
    }

    /// Compares the zone with its digest.
    ///
    /// # Errors
    /// Digests are off or need a key.
    pub fn verify_digest(&self) -> Result<DigestCheck, ZoneError> {
        let digester = self.digester()?;
        self.bytes()?;
        let row = self.control.row();
        // Acquire: pairs with the release of `update_digest`.
        let hashed = row.u64::<{ offset_of!(ZoneControl, digest_generation) }>().load(Ordering::Acquire);
        let mut stored = [0; 32];
        row.bytes::<{ offset_of!(ZoneControl, digest) }, 32>().copy_to(&mut stored)?;
        let words = self.generation();
        let is_stale = words.state() != ZoneState::Whole(hashed) || stored == [0; 32];
        if is_stale {
            return Ok(DigestCheck::Stale);
        }
        let found = self.digest(digester, hashed)?;
        Ok(match (words.is_still(hashed), found == Digest(stored)) {
            (false, _) => DigestCheck::Stale,
            (true, true) => DigestCheck::Match,
            (true, false) => DigestCheck::Mismatch,
        })
    }

    /// The whole zone is hashed, also what is behind the fields that this program knows.
    fn digest(&self, digester: &Digester, generation: u64) -> Result<Digest, ZoneError> {
        let bytes = self.zones.block.zone(self.index).ok_or_else(|| self.too_small())?;
        Ok(digester.zone(self.index as u32, generation, &self.spec.schema_hash, bytes))
    }

    fn digester(&self) -> Result<&Digester, ZoneError> {
        Ok(self.zones.digester()?)
    }
}
