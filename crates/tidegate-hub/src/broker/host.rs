//! What the broker asks the host it runs on. The state machine itself opens no block and judges no process.

mod local;

pub use self::local::{LocalHost, domain_of};
use super::wire::{BlockUuid, ChannelName, ProcessKey, SchemaHash, ShmName};
pub use crate::identity::Liveness;

/// What the descriptor of a block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// Identity.
    pub block_uuid: BlockUuid,
    /// Name of its channel.
    pub channel_name: ChannelName,
    /// Schema of its slots.
    pub schema_hash: SchemaHash,
    /// Whether it is complete.
    pub is_ready: bool,
}

/// Result of opening a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// It is there.
    Found(BlockFacts),
    /// No block has this name.
    Missing,
    /// Something is there that cannot be opened or is no block.
    Unreadable,
}

/// The host: its identity, its processes, its blocks.
///
/// Called on the broker's thread for registrations and look-ups, so that no call may take long.
pub trait HostView: Send {
    /// Boot and PID namespace as clients write them in `host_domain`. Processes and blocks of other domains are not asked
    /// about.
    fn domain(&self) -> &str;

    /// Whether the process of `key` runs, by asking the kernel and nothing else.
    fn liveness(&self, key: ProcessKey) -> Liveness;

    /// Opens the block read-only (DH-182, DH-194).
    fn inspect(&self, name: &ShmName) -> Inspection;
}
