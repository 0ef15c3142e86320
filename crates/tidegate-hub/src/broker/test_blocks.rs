//! A block for tests.

use crate::layout::{
    BlockSpec, ChannelName, DigestAlg, DigestPolicy, Identity, OnHeld, Orphan, Overflow, Policy, SchemaInfo,
    SecurityLevel, SyncPolicy,
};

/// Eight slots of 4 KiB, untyped.
pub(super) fn spec(channel: &str) -> BlockSpec {
    BlockSpec {
        channel: ChannelName::new(channel).unwrap(),
        policy: Policy::RingBuffer,
        sync: SyncPolicy::AllReaders,
        overflow: Overflow::Block,
        orphan: Orphan::Retain,
        on_held: OnHeld::Wait,
        digest_alg: DigestAlg::Blake3,
        digest_policy: DigestPolicy::Manual,
        slot_count: 8,
        slot_size: 4096,
        max_consumers: 8,
        zones: Vec::new(),
        first_slot_id: 0,
        security: SecurityLevel::None,
        key_epoch: 1,
        schema: SchemaInfo::default(),
        identity: Identity::default(),
        predecessor: None,
    }
}
