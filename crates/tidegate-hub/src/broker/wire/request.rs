//! What clients ask of the broker (13.3, 15.2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    BlockUuid, ChannelId, ChannelName, Fixed, Label, LongText, ProcessKey, Proof, Schema, SchemaHash,
    SchemaVersion, SealedSecret, ShmName, U64, Z85Key,
};

/// Part of the protocol that a broker may have or not (DH-190).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// HB_REQ.
    Lease,
    /// ATTACH_ACK, ATTACH_NACK, DETACH_REQ.
    Attach,
    /// READY_NOTIFY, CHECKSUM_ERROR_REPORT and all events.
    Events,
    /// HANDOVER_NOTIFY, HANDOVER_ACK, HANDOVER_CANCEL.
    Handover,
    /// SCHEMA_REQ.
    Schema,
    /// LIST_REQ.
    List,
    /// METRICS_REQ.
    Metrics,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Lease, Self::Attach, Self::Events, Self::Handover, Self::Schema, Self::List, Self::Metrics];
}

/// REG_REQ: a producer says that it owns a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the table in 13.3")]
pub struct Register {
    pub channel_name: ChannelName,
    pub shm_name: ShmName,
    pub block_uuid: BlockUuid,
    pub policy: Label,
    pub sync: Label,
    pub unit_block_size: u64,
    pub ring_buffer_capacity: u32,
    pub schema_hash: SchemaHash,
    pub schema_version: SchemaVersion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_text: Option<LongText>,
    /// Verifier of the secret; with it the three below (level 1 and more).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_secret_hash: Option<Fixed<32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_proof: Option<Proof>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Fixed<8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<u32>,
    pub producer_uid: Label,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_name: Option<Label>,
    pub process_key: ProcessKey,
    pub host_domain: Label,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zmq_endpoint: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zmq_pubkey: Option<Z85Key>,
    /// Milliseconds; 0 is no lease.
    #[serde(default)]
    pub lease_ms: u32,
    pub first_slot_id: U64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor_uuid: Option<BlockUuid>,
    /// Whether `sealed_secrets` may be given out, over CURVE only (DH-208).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_sealed: bool,
    /// Per consumer key the secret sealed for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sealed_secrets: BTreeMap<Z85Key, SealedSecret>,
}

/// What a registration of level 1 or more shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the table in 13.3")]
pub struct Credentials {
    pub verifier: Fixed<32>,
    pub proof: Proof,
    pub key_id: Fixed<8>,
    pub key_epoch: u32,
}

impl Register {
    /// Hash and version of the schema.
    pub fn schema(&self) -> Schema {
        Schema { hash: self.schema_hash, version: self.schema_version }
    }

    /// What it shows of the secret: all four fields, or none at level 0. Some of them are refused when read.
    pub fn credentials(&self) -> Option<Credentials> {
        Some(Credentials {
            verifier: self.shared_secret_hash?,
            proof: self.secret_proof?,
            key_id: self.key_id?,
            key_epoch: self.key_epoch?,
        })
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let shown = [
            self.shared_secret_hash.is_some(),
            self.secret_proof.is_some(),
            self.key_id.is_some(),
            self.key_epoch.is_some(),
        ];
        if shown != [shown[0]; 4] {
            return Err(
                "shared_secret_hash, secret_proof, key_id and key_epoch go together: send all or none",
            );
        }
        if !(1..=4 << 30).contains(&self.unit_block_size) {
            return Err("unit_block_size must be 1 to 2^32");
        }
        if !(1..=1 << 20).contains(&self.ring_buffer_capacity) {
            return Err("ring_buffer_capacity must be 1 to 2^20");
        }
        if self.first_slot_id.0 >= 1 << 60 {
            return Err("first_slot_id must be below 2^60");
        }
        Ok(())
    }
}

/// How a consumer compares schemas (DH-176).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchemaMode {
    /// Equal hashes.
    #[default]
    Strict,
    /// The producer may have appended optional fields.
    AllowAppended,
    /// Untyped access.
    Ignore,
}

/// DISC_REQ: where is a channel?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct Discover {
    pub channel_name: ChannelName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_hash: Option<SchemaHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<SchemaVersion>,
    #[serde(default)]
    pub schema_mode: SchemaMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_proof: Option<Proof>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub want_sealed_secret: bool,
}

/// DEREG_REQ: the owner takes a channel back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct Deregister {
    pub channel_name: ChannelName,
    pub block_uuid: BlockUuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_proof: Option<Proof>,
}

/// HB_REQ: renews leases in the registry, and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct Heartbeat {
    pub channel_id: ChannelId,
}

/// ATTACH_ACK: a consumer has attached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct AttachAck {
    pub channel_id: ChannelId,
    pub consumer_id: Label,
    pub config_hash: Fixed<32>,
    pub process_key: ProcessKey,
}

/// ATTACH_NACK: a consumer could not attach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct AttachNack {
    pub channel_id: ChannelId,
    pub consumer_id: Label,
    pub reason: Label,
}

/// DETACH_REQ: a consumer has left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct Detach {
    pub channel_id: ChannelId,
    pub consumer_id: Label,
}

/// READY_NOTIFY: the first data of a channel are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct ReadyNotify {
    pub channel_id: ChannelId,
    pub epoch: U64,
    pub commit_index: U64,
}

/// How far a handover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandoverPhase {
    /// Announced; writing goes on in the old block.
    Prepare,
    /// Done; the new block is the channel.
    Cutover,
}

/// HANDOVER_NOTIFY: the producer moves to another block (15.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the table in 15.2")]
pub struct HandoverNotify {
    pub old_channel: ChannelName,
    pub new_channel: ChannelName,
    pub old_shm_name: ShmName,
    pub new_shm_name: ShmName,
    pub old_uuid: BlockUuid,
    pub new_uuid: BlockUuid,
    pub phase: HandoverPhase,
    pub handover_epoch: u32,
    #[serde(default)]
    pub cutover_slot_id: Option<U64>,
    pub grace_period_ms: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_key_id: Option<Fixed<8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_key_epoch: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_secret: Option<SealedSecret>,
    pub schema_hash: SchemaHash,
    pub schema_version: SchemaVersion,
    /// Text of the new block's slots, for consumers that accept appended fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_text: Option<LongText>,
    /// With the secret of the old block; not relayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_proof: Option<Proof>,
}

impl HandoverNotify {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match (self.phase, self.cutover_slot_id) {
            (HandoverPhase::Prepare, None) | (HandoverPhase::Cutover, Some(_)) => Ok(()),
            _ => Err("cutover_slot_id belongs to phase `cutover`, and is null in `prepare`"),
        }
    }
}

/// Whether a consumer can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HandoverResult {
    /// It can.
    Ready,
    /// It cannot.
    Refused,
}

/// HANDOVER_ACK: a consumer's answer to `prepare`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 15.2")]
pub struct HandoverAck {
    pub channel_name: ChannelName,
    pub handover_epoch: u32,
    pub consumer_id: Label,
    pub result: HandoverResult,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Label>,
}

/// HANDOVER_CANCEL: the old block stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 15.2")]
pub struct HandoverCancel {
    pub channel_name: ChannelName,
    pub handover_epoch: u32,
    pub reason: Label,
    /// With the secret of the old block; not relayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_proof: Option<Proof>,
}

/// SCHEMA_REQ: by channel or by hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct SchemaQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_name: Option<ChannelName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_hash: Option<SchemaHash>,
}

/// LIST_REQ: channels whose names begin with `prefix`, from the one behind `after` on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct List {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Label>,
    /// Last name of the list before, which was truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ChannelName>,
}

/// CHECKSUM_ERROR_REPORT: relayed to all (DH-157).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct ChecksumErrorReport {
    pub channel_id: ChannelId,
    pub slot_id: U64,
    pub error: Label,
    pub process_key: ProcessKey,
}

/// METRICS_REQ.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct MetricsQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_name: Option<ChannelName>,
}
