//! Why a block could not be made or attached.

use std::{io, path::PathBuf};

use rustix::io::Errno;
use tidegate_shm::region::{self, AccessError, DirError, MapError, OpenError};

use crate::{
    identity::{IdentityUnavailable, Liveness, ProcessKey},
    layout::{ChannelName, EncodeError, InitState, KeyId, LayoutError, Mismatch},
};

/// Why a block could not be made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The configuration is not valid, or the secret is missing.
    #[error(transparent)]
    Config(#[from] EncodeError),
    /// The name is taken.
    #[error("{} exists already and its writer {owner:?} is {liveness:?}; adopt it, or let it be replaced if dead",
        path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
        /// Its writer, if it is a block that has one.
        owner: Option<ProcessKey>,
        /// What is known about the writer.
        liveness: Liveness,
    },
    /// The file system is full.
    #[error("no space for {}: {needed} bytes are needed, {available} are free; enlarge the file system or use fewer \
        or smaller slots", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Bytes of the block.
        needed: u64,
        /// Bytes free at the time.
        available: u64,
    },
    /// Huge pages were demanded and not to be had.
    #[error(
        "huge pages were required but not given: {reason}; reserve some, name a hugetlbfs mount, or ask for Auto"
    )]
    NoHugePages {
        /// Why.
        reason: HugeFailure,
    },
    /// This process holds the writer's place already.
    #[error("this process writes the block already")]
    Locked,
    /// What was written does not pass the checks of attaching.
    #[error("the new descriptor does not pass its own checks")]
    Layout(#[source] LayoutError),
    /// This process cannot be identified.
    #[error(transparent)]
    Identity(#[from] IdentityUnavailable),
    /// The file could not be made.
    #[error("cannot make the block's file")]
    File(#[source] region::CreateError),
    /// The directory cannot be used.
    #[error("cannot use the directory of the block")]
    Dir(#[from] DirError),
    /// The new mapping is not as long as it must be.
    #[error("the new block cannot be reached")]
    Access(#[from] AccessError),
    /// The kernel refused something else.
    #[error("cannot {operation}")]
    Kernel {
        /// What was to be done.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CreateError {
    /// The code of annex B.
    pub fn code(&self) -> u16 {
        match self {
            Self::AlreadyExists { .. } => 151,
            Self::NoSpace { .. } => 152,
            Self::Config(_) | Self::NoHugePages { .. } => 153,
            Self::Identity(_) => 123,
            Self::Locked => 206,
            Self::Layout(error) => error.code(),
            Self::File(_) | Self::Dir(_) | Self::Access(_) | Self::Kernel { .. } => 904,
        }
    }
}

/// Why a block lies on base pages although huge ones were wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HugeFailure {
    /// `shmem_enabled` says never or deny.
    #[error("not permitted by the system for shared memory")]
    NotPermitted,
    /// Permitted, but the kernel gave none.
    #[error("the kernel gave none")]
    NotGiven,
    /// The kernel cannot do it, or cannot tell.
    #[error("the kernel does not support them for shared memory")]
    Unsupported,
}

/// Why a block was not attached, by the first check that failed (DH-021).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such file, or it is not a regular one, or may not be opened.
    #[error("cannot open the block; start its producer if there is none")]
    Open(#[from] OpenError),
    /// The directory cannot be used.
    #[error("cannot use the directory of the block")]
    Dir(#[from] DirError),
    /// Step 1: the owner is not trusted.
    #[error("{} belongs to user {uid} and has mode {mode:04o}; trust that user or group, or correct the file",
        path.display())]
    UntrustedOwner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Step 2.
    #[error("the object has {found} bytes, a block has at least {required}; it was cut or is no block")]
    TooSmall {
        /// Bytes found.
        found: u64,
        /// Bytes every block has.
        required: u64,
    },
    /// Steps 3 to 13.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Step 14: not complete, even after waiting.
    #[error(
        "the block is not ready, its state is {state:?}; its creator died or takes longer than init_wait"
    )]
    NotReady {
        /// The state found.
        state: InitState,
    },
    /// Step 14: over.
    #[error("the block is closed; discover its successor")]
    Closed,
    /// Step 15.
    #[error("the block stems from an earlier boot of this machine; remove it")]
    StaleBoot {
        /// Boot id of this kernel.
        expected: [u8; 16],
        /// Boot id in the block.
        found: [u8; 16],
    },
    /// Step 16.
    #[error("the secret is not that of the block, which has key id {key_id}; use the producer's key file")]
    AuthFailed {
        /// Key id in the block.
        key_id: KeyId,
    },
    /// Step 17.
    #[error("the block is of channel {found}, expected {expected}")]
    ChannelMismatch {
        /// The channel asked for.
        expected: ChannelName,
        /// The block's channel.
        found: ChannelName,
    },
    /// Step 17.
    #[error(transparent)]
    SchemaMismatch(#[from] SchemaMismatch),
    /// Step 17.
    #[error("the block is made differently: {0}; agree with the producer")]
    ConfigMismatch(Mismatch),
    /// Step 18.
    #[error("the slots are authenticated, key id {key_id}; give the secret")]
    KeyRequired {
        /// Key id in the block.
        key_id: KeyId,
    },
    /// Step 19.
    #[error("impossible control words: {0}; diagnose the block")]
    Corrupt(Mismatch),
    /// This process holds the writer's place already (DH-039).
    #[error("this process writes the block already")]
    Locked,
    /// This process cannot be identified.
    #[error(transparent)]
    Identity(#[from] IdentityUnavailable),
    /// The file could not be mapped.
    #[error("cannot map the block")]
    Map(#[from] MapError),
    /// The mapping does not have what the descriptor says.
    #[error("the block cannot be reached")]
    Access(#[from] AccessError),
    /// The kernel refused something else.
    #[error("cannot {operation}")]
    Kernel {
        /// What was to be done.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl AttachError {
    /// Whether there is no file by the name.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Open(error) if error.errno() == Some(Errno::NOENT.raw_os_error()))
    }

    /// The code of annex B.
    pub fn code(&self) -> u16 {
        match self {
            Self::TooSmall { .. } => 101,
            Self::Layout(error) => error.code(),
            Self::NotReady { .. } => 113,
            Self::StaleBoot { .. } => 114,
            Self::AuthFailed { .. } => 115,
            Self::ChannelMismatch { .. } => 116,
            Self::SchemaMismatch(_) => 117,
            Self::ConfigMismatch(_) => 118,
            Self::KeyRequired { .. } => 119,
            Self::Corrupt(_) => 120,
            Self::UntrustedOwner { .. } => 121,
            Self::Identity(_) => 123,
            Self::Locked => 206,
            Self::Closed => 208,
            Self::Open(_) | Self::Dir(_) | Self::Map(_) | Self::Access(_) | Self::Kernel { .. } => 904,
        }
    }
}

/// What slots or zones contain is not what the consumer expects (DH-177).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the schema differs{}: expected {}, found {}",
    first_difference.as_ref().map(|text| format!(" at {text}")).unwrap_or_default(), hex(expected), hex(found))]
pub struct SchemaMismatch {
    /// Hash expected.
    pub expected: [u8; 32],
    /// Hash in the block.
    pub found: [u8; 32],
    /// The first field that differs, if the texts could be compared.
    pub first_difference: Option<String>,
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
