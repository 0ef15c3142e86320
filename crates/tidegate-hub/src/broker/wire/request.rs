//! Requests: what clients ask of the broker (13.3, 15.2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    BlockUuid, ChannelId, ChannelName, ClientId, Code, Fixed, Label, LongText, MAX_BODY, MsgId, Nonce, PROTO,
    ProcessKey, Proof, Schema, SchemaHash, SchemaVersion, SealedSecret, ShmName, U64, Z85Key, is_shallow,
    json,
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

/// A request with its envelope (13.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Chosen by the sender; the reply names it.
    pub msg_id: MsgId,
    /// Who sends.
    pub client_id: ClientId,
    /// Wall clock of the sender, in milliseconds.
    pub ts_ms: u64,
    /// Against replay; always there where the type of request needs it.
    pub nonce: Option<Nonce>,
    /// What is asked.
    pub body: RequestBody,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types say what they are")]
pub enum RequestBody {
    Register(Box<Register>),
    Discover(Discover),
    Deregister(Deregister),
    Heartbeat(Heartbeat),
    AttachAck(AttachAck),
    AttachNack(AttachNack),
    Detach(Detach),
    ReadyNotify(ReadyNotify),
    HandoverNotify(Box<HandoverNotify>),
    HandoverAck(HandoverAck),
    HandoverCancel(HandoverCancel),
    Schema(SchemaQuery),
    List(List),
    ChecksumErrorReport(ChecksumErrorReport),
    Metrics(MetricsQuery),
    Ping,
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

    fn check(&self) -> Result<(), &'static str> {
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
    /// With the secret of the old block; not relayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_proof: Option<Proof>,
}

impl HandoverNotify {
    fn check(&self) -> Result<(), &'static str> {
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

/// LIST_REQ: channels whose names begin with `prefix`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct List {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Label>,
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

/// The fields that all requests have.
#[derive(Serialize, Deserialize)]
struct Head {
    r#type: String,
    proto: u32,
    msg_id: MsgId,
    client_id: ClientId,
    ts_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
}

/// A request that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of 13.4.
    pub code: Code,
    /// Which request, as far as that could be read.
    pub msg_id: Option<MsgId>,
    /// What is wrong, for its sender only: it may repeat what was sent.
    pub message: String,
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Refusal`] with LIMIT for an oversized body, NAME_INVALID for a malformed channel or block name,
    /// UNSUPPORTED_PROTO, UNKNOWN_TYPE, and BAD_REQUEST for everything else that is not a request.
    pub fn decode(body: &[u8]) -> Result<Self, Refusal> {
        let refuse = |code, message: String| Refusal { code, msg_id: None, message };
        if body.len() > MAX_BODY {
            return Err(refuse(
                Code::Limit,
                format!("the body has {} bytes, the limit is {MAX_BODY}", body.len()),
            ));
        }
        if !is_shallow(body) {
            return Err(refuse(Code::BadRequest, "the body is nested deeper than 16".into()));
        }
        let head: Head = serde_json::from_slice(body).map_err(|error| Refusal {
            code: Code::BadRequest,
            msg_id: salvaged_msg_id(body),
            message: error.to_string(),
        })?;
        let refuse =
            |code, message: String| Err(Refusal { code, msg_id: Some(head.msg_id.clone()), message });
        if head.proto != PROTO {
            return refuse(
                Code::UnsupportedProto,
                format!("proto {} is not spoken here; use {PROTO}", head.proto),
            );
        }
        let content = match RequestBody::decode(&head.r#type, body) {
            Ok(Some(content)) => content,
            Ok(None) => {
                return refuse(Code::UnknownType, "this broker does not know this type of request".into());
            }
            Err(message) => {
                let code = if has_invalid_name(body) { Code::NameInvalid } else { Code::BadRequest };
                return refuse(code, message);
            }
        };
        if content.needs_nonce() && head.nonce.is_none() {
            return refuse(Code::BadRequest, format!("missing field `nonce`, which {} needs", head.r#type));
        }
        Ok(Self {
            msg_id: head.msg_id,
            client_id: head.client_id,
            ts_ms: head.ts_ms,
            nonce: head.nonce,
            body: content,
        })
    }

    /// The body to send.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Flat<'a, T> {
            #[serde(flatten)]
            head: &'a Head,
            #[serde(flatten)]
            body: &'a T,
        }
        let head = &Head {
            r#type: self.body.type_name().into(),
            proto: PROTO,
            msg_id: self.msg_id.clone(),
            client_id: self.client_id.clone(),
            ts_ms: self.ts_ms,
            nonce: self.nonce,
        };
        match &self.body {
            RequestBody::Register(body) => json(&Flat { head, body }),
            RequestBody::Discover(body) => json(&Flat { head, body }),
            RequestBody::Deregister(body) => json(&Flat { head, body }),
            RequestBody::Heartbeat(body) => json(&Flat { head, body }),
            RequestBody::AttachAck(body) => json(&Flat { head, body }),
            RequestBody::AttachNack(body) => json(&Flat { head, body }),
            RequestBody::Detach(body) => json(&Flat { head, body }),
            RequestBody::ReadyNotify(body) => json(&Flat { head, body }),
            RequestBody::HandoverNotify(body) => json(&Flat { head, body }),
            RequestBody::HandoverAck(body) => json(&Flat { head, body }),
            RequestBody::HandoverCancel(body) => json(&Flat { head, body }),
            RequestBody::Schema(body) => json(&Flat { head, body }),
            RequestBody::List(body) => json(&Flat { head, body }),
            RequestBody::ChecksumErrorReport(body) => json(&Flat { head, body }),
            RequestBody::Metrics(body) => json(&Flat { head, body }),
            RequestBody::Ping => json(head),
        }
    }
}

impl RequestBody {
    /// The value of `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Register(_) => "REG_REQ",
            Self::Discover(_) => "DISC_REQ",
            Self::Deregister(_) => "DEREG_REQ",
            Self::Heartbeat(_) => "HB_REQ",
            Self::AttachAck(_) => "ATTACH_ACK",
            Self::AttachNack(_) => "ATTACH_NACK",
            Self::Detach(_) => "DETACH_REQ",
            Self::ReadyNotify(_) => "READY_NOTIFY",
            Self::HandoverNotify(_) => "HANDOVER_NOTIFY",
            Self::HandoverAck(_) => "HANDOVER_ACK",
            Self::HandoverCancel(_) => "HANDOVER_CANCEL",
            Self::Schema(_) => "SCHEMA_REQ",
            Self::List(_) => "LIST_REQ",
            Self::ChecksumErrorReport(_) => "CHECKSUM_ERROR_REPORT",
            Self::Metrics(_) => "METRICS_REQ",
            Self::Ping => "PING",
        }
    }

    /// The value of `type` in the reply.
    pub fn reply_type(&self) -> &'static str {
        match self {
            Self::Register(_) => "REG_ACK",
            Self::Discover(_) => "DISC_ACK",
            Self::Deregister(_) => "DEREG_ACK",
            Self::Heartbeat(_) => "HB_ACK",
            Self::Schema(_) => "SCHEMA_ACK",
            Self::List(_) => "LIST_ACK",
            Self::Metrics(_) => "METRICS_ACK",
            Self::Ping => "PONG",
            _ => "ACK",
        }
    }

    /// The extension that this belongs to; `None` for the core (DH-190).
    pub fn feature(&self) -> Option<Feature> {
        match self {
            Self::Register(_) | Self::Discover(_) | Self::Deregister(_) | Self::Ping => None,
            Self::Heartbeat(_) => Some(Feature::Lease),
            Self::AttachAck(_) | Self::AttachNack(_) | Self::Detach(_) => Some(Feature::Attach),
            Self::ReadyNotify(_) | Self::ChecksumErrorReport(_) => Some(Feature::Events),
            Self::HandoverNotify(_) | Self::HandoverAck(_) | Self::HandoverCancel(_) => {
                Some(Feature::Handover)
            }
            Self::Schema(_) => Some(Feature::Schema),
            Self::List(_) => Some(Feature::List),
            Self::Metrics(_) => Some(Feature::Metrics),
        }
    }

    /// Whether the envelope must have a nonce (13.2).
    pub fn needs_nonce(&self) -> bool {
        matches!(self.feature(), Some(Feature::Attach | Feature::Handover))
            || matches!(self, Self::Register(_) | Self::Discover(_) | Self::Deregister(_))
    }

    /// The proof that the sender knows the secret, wherever this kind of request has one.
    pub fn proof(&self) -> Option<Proof> {
        match self {
            Self::Register(body) => body.secret_proof,
            Self::Discover(body) => body.secret_proof,
            Self::Deregister(body) => body.secret_proof,
            Self::HandoverNotify(body) => body.secret_proof,
            Self::HandoverCancel(body) => body.secret_proof,
            _ => None,
        }
    }

    /// `None` for an unknown type.
    fn decode(type_name: &str, body: &[u8]) -> Result<Option<Self>, String> {
        fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
            serde_json::from_slice(body).map_err(|error| error.to_string())
        }
        Ok(Some(match type_name {
            "REG_REQ" => {
                let register: Register = parse(body)?;
                register.check()?;
                Self::Register(Box::new(register))
            }
            "DISC_REQ" => Self::Discover(parse(body)?),
            "DEREG_REQ" => Self::Deregister(parse(body)?),
            "HB_REQ" => Self::Heartbeat(parse(body)?),
            "ATTACH_ACK" => Self::AttachAck(parse(body)?),
            "ATTACH_NACK" => Self::AttachNack(parse(body)?),
            "DETACH_REQ" => Self::Detach(parse(body)?),
            "READY_NOTIFY" => Self::ReadyNotify(parse(body)?),
            "HANDOVER_NOTIFY" => {
                let notify: HandoverNotify = parse(body)?;
                notify.check()?;
                Self::HandoverNotify(Box::new(notify))
            }
            "HANDOVER_ACK" => Self::HandoverAck(parse(body)?),
            "HANDOVER_CANCEL" => Self::HandoverCancel(parse(body)?),
            "SCHEMA_REQ" => {
                let query: SchemaQuery = parse(body)?;
                if query.channel_name.is_some() == query.schema_hash.is_some() {
                    return Err("give channel_name or schema_hash, and not both".into());
                }
                Self::Schema(query)
            }
            "LIST_REQ" => Self::List(parse(body)?),
            "CHECKSUM_ERROR_REPORT" => Self::ChecksumErrorReport(parse(body)?),
            "METRICS_REQ" => Self::Metrics(parse(body)?),
            "PING" => Self::Ping,
            _ => return Ok(None),
        }))
    }
}

/// The number of a request whose envelope is not as it should be.
fn salvaged_msg_id(body: &[u8]) -> Option<MsgId> {
    #[derive(Deserialize)]
    struct Only {
        msg_id: MsgId,
    }
    serde_json::from_slice::<Only>(body).ok().map(|only| only.msg_id)
}

fn has_invalid_name(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Only {
        channel_name: Option<String>,
        shm_name: Option<String>,
    }
    serde_json::from_slice::<Only>(body).is_ok_and(|names| {
        names.channel_name.is_some_and(|name| ChannelName::new(name).is_err())
            || names.shm_name.is_some_and(|name| ShmName::new(name).is_err())
    })
}
