//! Having a zone to oneself.

use std::mem::ManuallyDrop;

use tidegate_shm::clock::monotonic_now;

use super::{Zone, ZoneError};
use crate::{
    config::Timeout,
    core::generation::ZoneState,
    identity::ProcessKey,
    lock::{LockGuard, LockOutcome},
    schema::ZoneLayout,
};

/// How a zone was had.
#[derive(Debug)]
#[must_use = "the zone is given back at once"]
pub enum ZoneOutcome<'z, 'a, Z> {
    /// It is whole.
    Acquired(ZoneGuard<'z, 'a, Z>),
    /// Whoever had it before died with it: repair it (DH-149, DH-141).
    Recovered(ZoneGuard<'z, 'a, Z>),
}

impl<'z, 'a, Z> ZoneOutcome<'z, 'a, Z> {
    /// The guard, whatever the state of the zone.
    pub fn into_guard(self) -> ZoneGuard<'z, 'a, Z> {
        match self {
            Self::Acquired(guard) | Self::Recovered(guard) => guard,
        }
    }

    /// Whether the zone has to be repaired.
    pub fn is_recovered(&self) -> bool {
        matches!(self, Self::Recovered(_))
    }
}

/// A zone with its lock, if it has one, until dropped.
#[derive(Debug)]
pub struct ZoneGuard<'z, 'a, Z> {
    zone: &'z Zone<'a, Z>,
    lock: Option<LockGuard<'a>>,
}

pub(super) fn guard<'z, 'a, Z: ZoneLayout>(
    zone: &'z Zone<'a, Z>,
    timeout: Timeout,
) -> Result<ZoneOutcome<'z, 'a, Z>, ZoneError> {
    let outcome = zone.lock.map(|lock| lock.acquire(timeout)).transpose()?;
    let guard = ZoneGuard { zone, lock: outcome.map(LockOutcome::into_guard) };
    Ok(if guard.is_recovered() { ZoneOutcome::Recovered(guard) } else { ZoneOutcome::Acquired(guard) })
}

impl<Z: ZoneLayout> ZoneGuard<'_, '_, Z> {
    /// Everything in the zone. What is changed here is not kept from snapshots; use [`ZoneGuard::update`] for that.
    ///
    /// # Errors
    /// This is a forked child.
    pub fn fields(&self) -> Result<Z::Held<'_>, ZoneError> {
        Z::held(self.zone.bytes_mut()?).ok_or_else(|| self.zone.too_small())
    }

    /// As [`Zone::update`].
    ///
    /// # Errors
    /// [`ZoneError::TornZone`] if an earlier update was not finished; [`ZoneError::Busy`] if somebody updates the zone
    /// without its lock.
    pub fn update<R>(&self, change: impl FnOnce(Z::Held<'_>) -> R) -> Result<R, ZoneError> {
        match self.zone.generation().state() {
            state @ ZoneState::Whole(_) => self.change(state, change),
            ZoneState::Writing { writer, .. } if self.is_over(writer) => Err(self.zone.torn(writer)),
            ZoneState::Writing { writer, .. } => Err(ZoneError::Busy { index: self.zone.index, writer }),
        }
    }

    /// As [`Zone::repair`].
    ///
    /// # Errors
    /// [`ZoneError::Busy`] if somebody updates the zone without its lock.
    pub fn repair<R>(&self, change: impl FnOnce(Z::Held<'_>) -> R) -> Result<R, ZoneError> {
        let state = self.zone.generation().state();
        if let ZoneState::Writing { writer, .. } = state
            && !self.is_over(writer)
        {
            return Err(ZoneError::Busy { index: self.zone.index, writer });
        }
        let result = self.change(state, change)?;
        if let Some(lock) = &self.lock {
            lock.clear_poison()?;
        }
        Ok(result)
    }

    /// The lock, if the zone has one.
    pub fn lock(&self) -> Option<&LockGuard<'_>> {
        self.lock.as_ref()
    }

    /// Whether a holder died with the lock, or an update was not finished: the zone has to be repaired.
    pub fn is_recovered(&self) -> bool {
        self.lock.as_ref().is_some_and(LockGuard::is_poisoned) || self.is_torn()
    }

    /// Whether an update was begun and never finished.
    pub fn is_torn(&self) -> bool {
        match self.zone.generation().state() {
            ZoneState::Whole(_) => false,
            ZoneState::Writing { writer, .. } => self.is_over(writer),
        }
    }

    /// Whether nobody is going to finish an update of `writer`. Who holds the lock once is in no update of its own, so the
    /// own key is then that of the program before an exec (DH-038).
    fn is_over(&self, writer: Option<ProcessKey>) -> bool {
        let own = Some(self.zone.zones.block.own_key());
        let first_level = self.lock.as_ref().is_some_and(|lock| lock.depth() == 1);
        self.zone.is_over(writer) || (writer == own && first_level)
    }

    fn change<R>(&self, from: ZoneState, change: impl FnOnce(Z::Held<'_>) -> R) -> Result<R, ZoneError> {
        let fields = self.fields()?;
        let words = self.zone.generation_mut()?;
        let own = self.zone.zones.block.own_key();
        let busy = ZoneError::Busy { index: self.zone.index, writer: None };
        let odd = words.begin(from, own).ok_or(busy)?;
        let unfinished = Unfinished(|| words.leave_torn());
        let result = change(fields);
        unfinished.finish();
        words.end(odd, monotonic_now().0);
        Ok(result)
    }
}

/// Marks the update as left when the change panics.
struct Unfinished<F: Fn()>(F);

impl<F: Fn()> Unfinished<F> {
    fn finish(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl<F: Fn()> Drop for Unfinished<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
