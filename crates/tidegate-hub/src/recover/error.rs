//! Why a repair was not done.

use tidegate_shm::region::{AccessError, DirError};

use crate::{
    block::AttachError,
    core::{
        error::{AcquireError, RegistryError},
        repair::ResetRefusal,
    },
    identity::ProcessKey,
    inspect::Damage,
};

/// Why a repair was not done. Nothing was changed unless it says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The block cannot be opened.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The writer is not dead.
    #[error("the owner is alive, or nobody can tell (use --force only if you accept that writer {} is cut off)", owner.pid())]
    WriterAlive {
        /// Who that is.
        owner: ProcessKey,
    },
    /// A consumer is not dead.
    #[error("consumer row {row} of pid {pid} is not dead; end that process, or force it")]
    ConsumerAlive {
        /// Its row.
        row: u32,
        /// Its pid.
        pid: u32,
    },
    /// The owner of a lock is not dead.
    #[error("lock {lock} is held by pid {}, which is not dead; end that process, or force it", owner.pid())]
    LockAlive {
        /// The lock.
        lock: u32,
        /// Who that is.
        owner: ProcessKey,
    },
    /// Processes that may live use the block.
    #[error("{} may be alive: {}; use --force to remove the name anyway", processes.len(), list(processes))]
    InUse {
        /// Their pids.
        processes: Vec<u32>,
    },
    /// The slot was left as it is.
    #[error("slot {slot}: {refusal}")]
    Slot {
        /// Which.
        slot: u32,
        /// Why.
        refusal: ResetRefusal,
    },
    /// There is no such slot.
    #[error("there is no slot {slot}, they are 0 to {last}")]
    InvalidSlot {
        /// As given.
        slot: u32,
        /// The last one.
        last: u32,
    },
    /// There is nothing to repair.
    #[error("{what}; nothing to do")]
    NotStuck {
        /// What is in order.
        what: &'static str,
    },
    /// This process writes the block itself.
    #[error("this process writes the block; close its producer first")]
    OwnBlock,
    /// A control word is impossible, so that nothing can be computed from it.
    #[error("{damage}; {}", damage.remedy())]
    Damaged {
        /// Which.
        damage: Damage,
    },
    /// The maintenance lock cannot be had, or the registry does not allow it.
    #[error(transparent)]
    Registry(RegistryError),
    /// Somebody else took the writer's place by force meanwhile. What was done before stays.
    #[error("the writer's place was taken by force meanwhile; look again")]
    Displaced,
    /// The directory or the file.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The mapping does not have what the descriptor says.
    #[error("the block cannot be reached")]
    Access(#[from] AccessError),
}

impl RecoverError {
    /// The code of annex B: 601 unsafe, 602 nothing to do, 603 no such slot.
    pub fn code(&self) -> u16 {
        match self {
            Self::Attach(error) => error.code(),
            Self::WriterAlive { .. }
            | Self::ConsumerAlive { .. }
            | Self::LockAlive { .. }
            | Self::InUse { .. }
            | Self::OwnBlock => 601,
            Self::Slot { refusal, .. } => match refusal {
                ResetRefusal::NotStuck => 602,
                ResetRefusal::Held { .. } | ResetRefusal::OwnerAlive { .. } => 601,
                ResetRefusal::Damaged => 120,
            },
            Self::NotStuck { .. } => 602,
            Self::InvalidSlot { .. } => 603,
            Self::Damaged { .. } => 120,
            Self::Registry(RegistryError::LockTimeout { .. }) => 401,
            Self::Registry(RegistryError::Damaged) => 120,
            Self::Registry(_) => 206,
            Self::Displaced => 207,
            Self::Dir(_) | Self::Access(_) => 904,
        }
    }

    /// Whether there is no such block any more.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Dir(error) | Self::Attach(AttachError::Dir(error)) => {
                matches!(error, DirError::Missing { .. })
            }
            Self::Attach(error) => error.is_missing(),
            _ => false,
        }
    }

    /// Whether it was refused because somebody may live.
    pub fn is_unsafe(&self) -> bool {
        self.code() == 601
    }
}

impl From<RegistryError> for RecoverError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::WriterAlive { owner } => Self::WriterAlive { owner },
            other => Self::Registry(other),
        }
    }
}

impl From<AcquireError> for RecoverError {
    /// What giving the writer's place back ends in.
    fn from(_: AcquireError) -> Self {
        Self::Displaced
    }
}

fn list(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
