//! Events and notifications: what is published, and to be taken as a hint (13.3, 14).

use serde::{Deserialize, Serialize};
use tidegate_mq::{Message, Part};

use super::{
    AttachAck, AttachNack, BlockUuid, ChannelId, ChannelName, ChecksumErrorReport, HandoverAck,
    HandoverCancel, HandoverNotify, Label, MAGIC, MAX_BODY, PROTO, ReadyNotify, U64, is_shallow, json,
};

/// Something that happened to a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// 1.
    pub proto: u32,
    /// Which start of the broker published it.
    pub broker_epoch: Label,
    /// Wall clock of the broker in milliseconds.
    pub ts_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the types and fields are those of 13.3 and 15.2")]
pub enum EventBody {
    AttachAck(AttachAck),
    AttachNack(AttachNack),
    ReadyNotify(ReadyNotify),
    /// A hint to look for dead consumers; frees nothing by itself (DH-191).
    ConsDrop {
        channel_id: ChannelId,
        consumer_id: Label,
        reason: DropReason,
    },
    ChannelClosing {
        channel_id: ChannelId,
        channel_name: ChannelName,
        reason: Label,
    },
    HandoverNotify(Box<HandoverNotify>),
    HandoverAck(HandoverAck),
    HandoverCancel(HandoverCancel),
    ChecksumErrorReport(ChecksumErrorReport),
}

/// Why a consumer is thought to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DropReason {
    /// Its lease in the registry ran out; it may well be alive.
    HeartbeatTimeout,
    /// It said so.
    ExplicitDetach,
    /// The kernel says so.
    ProcessDead,
}

impl Event {
    /// First part of events of `channel`.
    pub fn topic(channel: &ChannelName) -> String {
        format!("hub/{channel}")
    }

    /// The message to publish.
    pub fn encode(&self, channel: &ChannelName) -> Message {
        published(&Self::topic(channel), json(self))
    }

    /// Reads a published message: the channel and what happened to it; `None` for anything else.
    pub fn decode(message: &Message) -> Option<(ChannelName, Self)> {
        let (topic, body) = opened(message)?;
        let channel = ChannelName::new(topic.strip_prefix("hub/")?).ok()?;
        let event = serde_json::from_slice::<Self>(body).ok()?;
        (event.proto == PROTO).then_some((channel, event))
    }
}

/// DB_NOTIFY: a producer says that something was committed (14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "DB_NOTIFY")]
pub struct Notification {
    /// The block.
    pub block_uuid: BlockUuid,
    /// The newest slot.
    pub slot_id: U64,
    /// End of the resolved prefix.
    pub commit_index: U64,
    /// Monotonic clock of the producer, in nanoseconds.
    pub ts_ns: u64,
}

impl Notification {
    /// The message to publish.
    pub fn encode(&self, channel: &ChannelName) -> Message {
        published(channel.as_str(), json(self))
    }

    /// Reads a published message; `None` for anything else.
    pub fn decode(message: &Message) -> Option<(ChannelName, Self)> {
        let (topic, body) = opened(message)?;
        Some((ChannelName::new(topic).ok()?, serde_json::from_slice(body).ok()?))
    }
}

fn published(topic: &str, body: Vec<u8>) -> Message {
    let mut message = super::frames(body);
    message.push_front(Part::from(topic));
    message
}

fn opened(message: &Message) -> Option<(&str, &[u8])> {
    match message.parts() {
        [topic, magic, body] if *magic == MAGIC && body.len() <= MAX_BODY && is_shallow(body) => {
            Some((std::str::from_utf8(topic).ok()?, body))
        }
        _ => None,
    }
}
