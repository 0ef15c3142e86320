//! Replies: what the broker answers (13.3, 13.4).

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    BlockUuid, ChannelId, ChannelName, Feature, Fixed, HandoverPhase, Label, LongText, MAX_BODY, MsgId,
    PROTO, ProcessKey, Schema, SchemaHash, SchemaVersion, SealedSecret, ShmName, U64, Z85Key, is_shallow,
    json,
};

/// How a request ended (13.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the values are those of 13.4")]
pub enum Status {
    Ok,
    Error,
    Conflict,
    NotFound,
    AuthFailed,
    SchemaMismatch,
    Pending,
    UnknownClient,
}

/// Why a request was not answered OK (13.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the values are those of 13.4")]
pub enum Code {
    BadRequest,
    UnknownType,
    UnsupportedProto,
    ReplayOrSkew,
    FingerprintInconsistent,
    NameInvalid,
    Limit,
    Internal,
    LiveOwner,
    SchemaConflict,
    UuidReused,
    UnknownChannel,
    StaleOwner,
    BadProof,
    NotAllowed,
    IdentityMismatch,
    Hash,
    Version,
    Incompatible,
    Building,
    Handover,
    RestoredUnverified,
}

impl Code {
    /// The status that it belongs to.
    pub fn status(self) -> Status {
        match self {
            Self::BadRequest
            | Self::UnknownType
            | Self::UnsupportedProto
            | Self::ReplayOrSkew
            | Self::FingerprintInconsistent
            | Self::NameInvalid
            | Self::Limit
            | Self::Internal => Status::Error,
            Self::LiveOwner | Self::SchemaConflict | Self::UuidReused => Status::Conflict,
            Self::UnknownChannel | Self::StaleOwner => Status::NotFound,
            Self::BadProof | Self::NotAllowed | Self::IdentityMismatch => Status::AuthFailed,
            Self::Hash | Self::Version | Self::Incompatible => Status::SchemaMismatch,
            Self::Building | Self::Handover | Self::RestoredUnverified => Status::Pending,
        }
    }
}

/// A reply. Read from JSON it has no [`body`](Self::body); [`decode`](Self::decode) gives that apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.2")]
pub struct Reply {
    pub r#type: String,
    pub proto: u32,
    pub in_reply_to: Option<MsgId>,
    pub ts_ms: u64,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Repeats the code of a PENDING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Code>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    pub broker_epoch: Label,
    pub features: Vec<Feature>,
    #[serde(flatten, skip_deserializing)]
    pub body: ReplyBody,
}

impl Reply {
    /// The body to send.
    pub fn encode(&self) -> Vec<u8> {
        json(self)
    }

    /// Reads the envelope of a reply; `None` for anything else.
    pub fn decode(body: &[u8]) -> Option<Self> {
        if body.len() > MAX_BODY || !is_shallow(body) {
            return None;
        }
        serde_json::from_slice::<Self>(body).ok().filter(|reply| reply.proto == PROTO)
    }

    /// Reads what an OK carries.
    ///
    /// # Errors
    /// What is missing or malformed.
    pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
        serde_json::from_slice(body)
    }
}

/// What an OK carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the types say what they are")]
pub enum ReplyBody {
    #[default]
    Nothing,
    Registered(Registered),
    Discovered(Box<Discovered>),
    Schema(SchemaRecord),
    Listing(Listing),
    Counters(RegistryCounters),
}

/// REG_ACK.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct Registered {
    pub channel_id: ChannelId,
    pub replaced: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_endpoint: Option<Label>,
    pub lease_ms: u32,
}

/// What is known of a channel's block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct ChannelFacts {
    pub channel_id: ChannelId,
    pub shm_name: ShmName,
    pub block_uuid: BlockUuid,
    pub policy: Label,
    pub sync: Label,
    pub unit_block_size: u64,
    pub ring_buffer_capacity: u32,
    pub schema_hash: SchemaHash,
    pub schema_version: SchemaVersion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Fixed<8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zmq_endpoint: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zmq_pubkey: Option<Z85Key>,
    pub first_slot_id: U64,
    /// False only when the kernel says that the owner is dead (DH-193).
    pub producer_alive: bool,
}

impl ChannelFacts {
    /// Hash and version of the schema.
    pub fn schema(&self) -> Schema {
        Schema { hash: self.schema_hash, version: self.schema_version }
    }
}

/// A handover that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 15.2")]
pub struct HandoverState {
    pub phase: HandoverPhase,
    pub handover_epoch: u32,
    pub new_channel: ChannelName,
    pub new_shm_name: ShmName,
    pub new_uuid: BlockUuid,
    pub cutover_slot_id: Option<U64>,
    pub grace_period_ms: u32,
    /// What the new block's slots are, for who missed the announcement; `None` from a broker that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_hash: Option<SchemaHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<SchemaVersion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_text: Option<LongText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_key_id: Option<Fixed<8>>,
}

/// DISC_ACK. Everything in it is a hint until the block itself was checked (DH-199).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct Discovered {
    #[serde(flatten)]
    pub channel: ChannelFacts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_endpoint: Option<Label>,
    pub handover: Option<HandoverState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_secret: Option<SealedSecret>,
}

/// SCHEMA_ACK.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct SchemaRecord {
    pub schema_hash: SchemaHash,
    pub schema_version: SchemaVersion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_text: Option<LongText>,
}

/// LIST_ACK.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// In order of their names.
    pub channels: Vec<ChannelSummary>,
    /// Whether there are more than fit into a message; ask again with the last name as `after`.
    pub truncated: bool,
}

/// One channel of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of 13.3")]
pub struct ChannelSummary {
    pub channel_name: ChannelName,
    pub channel_id: ChannelId,
    pub shm_name: ShmName,
    pub block_uuid: BlockUuid,
    pub schema_hash: SchemaHash,
    pub schema_version: SchemaVersion,
    pub producer_uid: Label,
    pub process_key: ProcessKey,
    pub consumers: u32,
    pub verified: bool,
}

/// METRICS_ACK: numbers of the registry since the broker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryCounters {
    /// Channels registered now.
    pub channels: u64,
    /// Clients remembered now.
    pub clients: u64,
    /// Attached consumers known now.
    pub attachments: u64,
    /// Requests received, understood or not.
    pub requests: u64,
    /// Answered OK.
    pub answered_ok: u64,
    /// Answered otherwise, with a code.
    pub refused: u64,
    /// Of these: malformed, oversized, of unknown type or protocol.
    pub refused_malformed: u64,
    /// Of these: proof missing or wrong, or not allowed.
    pub refused_auth: u64,
    /// Of these: nonce seen before, or clocks too far apart.
    pub refused_replay: u64,
    /// Of these: a limit was reached.
    pub refused_limit: u64,
    /// Duplicates that got the stored reply.
    pub duplicates: u64,
    /// Requests left without a reply: not in the form of the protocol, or while draining.
    pub dropped: u64,
    /// Replies held back because of failed proofs that were dropped since too many waited.
    pub delayed_dropped: u64,
    /// Events published.
    pub events: u64,
    /// Leases that ran out.
    pub leases_expired: u64,
    /// Registrations that replaced another.
    pub replaced: u64,
}
