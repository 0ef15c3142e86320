//! Why a lock was not had.

use std::io;

use tidegate_shm::{fork::Forked, region::AccessError};

use crate::core::{error::RegistryError, spinlock::SpinlockError};

/// Why a lock was not had, or not given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The time was over (DH-151).
    #[error("lock {index}: {source}")]
    Timeout {
        /// Which lock.
        index: u32,
        /// Who has it.
        source: SpinlockError,
    },
    /// The calling thread does not hold it, or not any more (DH-146).
    #[error("lock {index}: {source}")]
    NotOwner {
        /// Which lock.
        index: u32,
        /// Details.
        source: SpinlockError,
    },
    /// Taken more often than can be counted.
    #[error("lock {index}: {source}")]
    InvalidState {
        /// Which lock.
        index: u32,
        /// Details.
        source: SpinlockError,
    },
    /// All locks of users are taken (DH-143).
    #[error("all locks of users are taken; free one, or let several things share one")]
    NoLockAvailable,
    /// Not a label.
    #[error("a label of {len} bytes; a label has 1 to 16 bytes and no zeros")]
    BadLabel {
        /// Its bytes.
        len: usize,
    },
    /// The lock was freed by somebody else; its number may belong to another label by now.
    #[error("lock {index} was freed; allocate it again by its label")]
    Freed {
        /// Which lock.
        index: u32,
    },
    /// The lock has no label: it is a zone's or the system's.
    #[error("lock {index} is a zone's or the system's and is not for users to free")]
    NotUsers {
        /// Which lock.
        index: u32,
    },
    /// The calling thread holds it several times.
    #[error(
        "lock {index} is held {depth} times by this thread; give the other levels back before freeing it"
    )]
    HeldDeeper {
        /// Which lock.
        index: u32,
        /// How often.
        depth: u32,
    },
    /// The maintenance lock was not to be had.
    #[error(transparent)]
    Maintenance(#[from] RegistryError),
    /// Others could not tell whether this process is dead.
    #[error(
        "this process lives in another pid or time namespace than the block's creator, which could not tell if it died \
             with a lock; run both in the same namespaces"
    )]
    ForeignNamespace,
    /// The kernel does not say where this process lives.
    #[error("cannot identify this boot and its namespaces")]
    Kernel {
        /// What the kernel said.
        source: io::Error,
    },
    /// The role may not write there.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The handle was inherited by a forked child (DH-011).
    #[error(transparent)]
    Forked(#[from] Forked),
}

impl LockError {
    pub(super) fn of(index: u32, source: SpinlockError) -> Self {
        match source {
            SpinlockError::Timeout { .. } => Self::Timeout { index, source },
            SpinlockError::NotOwner => Self::NotOwner { index, source },
            SpinlockError::InvalidState => Self::InvalidState { index, source },
        }
    }

    /// The number of Annex B.
    pub fn code(&self) -> u16 {
        match self {
            Self::Timeout { .. } | Self::Maintenance(_) => 401,
            Self::NotOwner { .. } | Self::HeldDeeper { .. } => 402,
            Self::NoLockAvailable => 403,
            Self::InvalidState { .. } => 209,
            Self::BadLabel { .. } | Self::Freed { .. } | Self::NotUsers { .. } => 903,
            Self::ForeignNamespace => 123,
            Self::Forked(_) => 901,
            Self::Kernel { .. } | Self::Access(_) => 904,
        }
    }
}
