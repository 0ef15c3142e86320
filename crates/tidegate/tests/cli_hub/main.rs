//! `tidegate hub`: a broker by itself and in a node, and clients beside it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod alone;
mod channels;
#[path = "../cli_node/fields.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod fields;
mod keys;
mod nodes;
mod secrecy;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::path::Path;
use std::time::Duration;

use tidegate::hub::block::{Block, CreateOptions, create};
use tidegate::hub::broker::wire::{ClientId, Register};
use tidegate::hub::broker::{HubConfig, MessageHub};
use tidegate::hub::layout::{
    BlockSpec, ChannelName, DigestAlg, DigestPolicy, Identity, OnHeld, Orphan, Overflow, Policy, SchemaInfo,
    SecurityLevel, SyncPolicy,
};

const SOON: Duration = Duration::from_secs(10);

/// A block in `dir`, with the test as its producer.
fn block(dir: &Path, channel: &str) -> Block {
    let spec = BlockSpec {
        channel: ChannelName::new(channel).expect("a name"),
        policy: Policy::RingBuffer,
        sync: SyncPolicy::AllReaders,
        overflow: Overflow::Block,
        orphan: Orphan::Retain,
        on_held: OnHeld::Wait,
        digest_alg: DigestAlg::None,
        digest_policy: DigestPolicy::Manual,
        slot_count: 8,
        slot_size: 100,
        max_consumers: 4,
        zones: Vec::new(),
        first_slot_id: 0,
        security: SecurityLevel::None,
        key_epoch: 1,
        schema: SchemaInfo::default(),
        identity: Identity { producer_uid: "PROD-test".to_owned(), ..Identity::default() },
        predecessor: None,
    };
    create(&spec, &CreateOptions { dir: dir.to_owned(), ..CreateOptions::default() }).expect("a block")
}

fn hub(endpoint: &str, client: &str) -> MessageHub {
    let client_id = ClientId::new(client).expect("an id");
    MessageHub::connect(HubConfig { endpoint: endpoint.to_owned(), client_id, curve: None }).expect("a hub")
}

fn registration(block: &Block) -> Register {
    Register::of_block(block.descriptor(), block.own_key()).expect("a registration")
}
