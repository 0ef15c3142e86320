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
use tidegate::hub::layout::{BlockSpec, ChannelName, DigestAlg, Identity};

const SOON: Duration = Duration::from_secs(10);

/// A block in `dir`, with the test as its producer.
fn block(dir: &Path, channel: &str) -> Block {
    let spec = BlockSpec {
        digest_alg: DigestAlg::None,
        max_consumers: 4,
        identity: Identity { producer_uid: "PROD-test".to_owned(), ..Identity::default() },
        ..BlockSpec::ring(ChannelName::new(channel).expect("a name"), 8, 100)
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
