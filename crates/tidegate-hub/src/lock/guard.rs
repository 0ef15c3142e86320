//! Holding a lock.

use std::marker::PhantomData;

use super::{LockError, SharedLock};

/// How a lock was had.
#[derive(Debug)]
#[must_use = "the lock is given back at once"]
pub enum LockOutcome<'t> {
    /// What it guards is whole.
    Acquired(LockGuard<'t>),
    /// A holder died with it. What it guards may be half written: repair it, then [`LockGuard::clear_poison`] (DH-149).
    Recovered(LockGuard<'t>),
}

impl<'t> LockOutcome<'t> {
    /// The guard, whatever the state of the data.
    pub fn into_guard(self) -> LockGuard<'t> {
        match self {
            Self::Acquired(guard) | Self::Recovered(guard) => guard,
        }
    }

    /// Whether a holder died with the lock and nobody has repaired since.
    pub fn is_recovered(&self) -> bool {
        matches!(self, Self::Recovered(_))
    }
}

/// One level of a lock, held by the thread that took it until dropped (DH-147).
#[derive(Debug)]
pub struct LockGuard<'t> {
    lock: SharedLock<'t>,
    /// Given back by hand.
    released: bool,
    /// Only the thread that took a lock can give it back: neither `Send` nor `Sync`.
    thread: PhantomData<*const ()>,
}

impl<'t> LockGuard<'t> {
    pub(super) fn new(lock: SharedLock<'t>) -> Self {
        Self { lock, released: false, thread: PhantomData }
    }

    /// The lock.
    pub fn lock(&self) -> SharedLock<'t> {
        self.lock
    }

    /// How often this thread holds the lock.
    pub fn depth(&self) -> u32 {
        self.lock.spinlock().map_or(0, |lock| lock.depth())
    }

    /// Whether a holder died with the lock and nobody has repaired since.
    pub fn is_poisoned(&self) -> bool {
        self.lock.spinlock().is_ok_and(|lock| lock.is_poisoned())
    }

    /// Says that what the lock guards is whole again (DH-149, DH-150).
    ///
    /// # Errors
    /// This is a forked child.
    pub fn clear_poison(&self) -> Result<(), LockError> {
        self.lock.table.check()?;
        let index = self.lock.index;
        self.lock.spinlock()?.clear_poison().map_err(|error| LockError::of(index, error))
    }

    /// Gives this level back.
    ///
    /// # Errors
    /// [`LockError::NotOwner`] if the lock was taken away by a forced unlock meanwhile; what was written under it may be
    /// mixed with what another holder wrote.
    pub fn release(mut self) -> Result<(), LockError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), LockError> {
        self.released = true;
        self.lock.table.check()?;
        let index = self.lock.index;
        self.lock.spinlock()?.release().map_err(|error| LockError::of(index, error))
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        if let Err(error) = self.give_back() {
            tracing::error!(lock = self.lock.index, %error, "lock not given back");
        }
    }
}
