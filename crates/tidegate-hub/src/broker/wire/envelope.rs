//! Requests with their envelope (13.2): which type of request it is, from whom, and against replay.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    AttachAck, AttachNack, ChannelName, ChecksumErrorReport, ClientId, Code, Deregister, Detach, Discover,
    Feature, HandoverAck, HandoverCancel, HandoverNotify, Heartbeat, List, MAX_BODY, MetricsQuery, MsgId,
    Nonce, PROTO, Proof, ReadyNotify, Register, SchemaQuery, ShmName, is_shallow, json,
};

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
            message: shortened(&error),
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
            return refuse(
                Code::BadRequest,
                format!("missing field `nonce`, which {} needs", content.type_name()),
            );
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
            serde_json::from_slice(body).map_err(|error| shortened(&error))
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

/// What is wrong, without a value of 64 KiB that may be repeated in it: a reply must fit into a message.
fn shortened(error: &serde_json::Error) -> String {
    const LONGEST: usize = 500;
    let text = error.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} ...", text.get(..at).unwrap_or_default()),
        None => text,
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
