//! Why regions could not be made.

use std::path::PathBuf;

use tidegate_shm::lock::LockError;
use tidegate_shm::region::{AccessError, CreateError, DirError, OpenError};

use crate::ids::StreamId;
use crate::region::SpecError;
use crate::uri::UriError;

/// Why a region store cannot be used, or an epoch not be made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A directory on the way is missing, not writable, a link, or writable by the world.
    #[error("region directory: {0}")]
    Directory(#[source] DirError),
    /// Clients with the same allowlist would refuse every region (TP-237).
    #[error("base directory {} is in none of shm.allowed_base_dirs; add it there", base.display())]
    OutsideAllowlist {
        /// The base, resolved.
        base: PathBuf,
    },
    /// A path that cannot be sent to clients.
    #[error("region path {} cannot be announced: {source}", path.display())]
    Uri {
        /// The path.
        path: PathBuf,
        /// Why.
        source: UriError,
    },
    /// Another driver has the namespace (TP-235).
    #[error("another driver serves this namespace: {0}; stop it or set shm.namespace")]
    Lock(#[source] LockError),
    /// A file could not be made.
    #[error("{0}")]
    Create(#[source] CreateError),
    /// A file that should be there cannot be opened.
    #[error("{0}")]
    Open(#[source] OpenError),
    /// A new file could not be written back.
    #[error("cannot write {} back: {source}", path.display())]
    Sync {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A region is shorter than its superblock.
    #[error("cannot write the superblock of {}: {source}", path.display())]
    Superblock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: AccessError,
    },
    /// The profile cannot be described to clients.
    #[error("stream {stream}: {source}")]
    Spec {
        /// The stream.
        stream: StreamId,
        /// What is wrong.
        source: SpecError,
    },
    /// There is no higher epoch number (TP-125).
    #[error("stream {stream} has used up all epoch numbers; remove its directory or use another stream id")]
    EpochsExhausted {
        /// The stream.
        stream: StreamId,
    },
    /// Every epoch number tried was taken meanwhile.
    #[error("stream {stream}: another process makes epoch directories as fast as this one; find out which")]
    Contended {
        /// The stream.
        stream: StreamId,
    },
}
