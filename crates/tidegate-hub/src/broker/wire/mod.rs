//! What travels between clients and the broker (13.2, 13.3): JSON objects with a `type`, as Rust types.
//!
//! Every value is checked while it is read: names, lengths of keys and hashes, sizes. What has one of these types is
//! well-formed, so that the [machine](super::machine) decides about meaning only. Unknown fields are ignored, a missing or
//! malformed one is refused with its name (DH-186).
//!
//! ```text
//! request, client to broker   ["TGH1"] [JSON]                        (the ROUTER adds the routing id)
//! reply, broker to client     ["TGH1"] [JSON]
//! event, broker to all        ["hub/<channel_name>"] ["TGH1"] [JSON]
//! notification, peer to peer  ["<channel_name>"] ["TGH1"] [JSON]
//! ```

mod domain;
mod envelope;
mod event;
mod field;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use serde::Serialize;
use tidegate_mq::{Message, Part};

pub use crate::{
    identity::ProcessKey,
    layout::{BlockUuid, ChannelName},
    schema::{SchemaHash, SchemaVersion},
};

pub use self::{
    envelope::{Refusal, Request, RequestBody},
    event::{DropReason, Event, EventBody, Notification},
    field::{
        Base64, ChannelId, ClientId, FieldError, Fixed, Label, LongText, MsgId, Nonce, Proof, Schema,
        SealedSecret, ShmName, U64, Z85Key,
    },
    reply::{
        ChannelFacts, ChannelSummary, Code, Discovered, HandoverState, Listing, Registered, RegistryCounters,
        Reply, ReplyBody, SchemaRecord, Status,
    },
    request::{
        AttachAck, AttachNack, ChecksumErrorReport, Credentials, Deregister, Detach, Discover, Feature,
        HandoverAck, HandoverCancel, HandoverNotify, HandoverPhase, HandoverResult, Heartbeat, List,
        MetricsQuery, ReadyNotify, Register, SchemaMode, SchemaQuery,
    },
};

/// First part of every message.
pub const MAGIC: &[u8; 4] = b"TGH1";

/// Version of the control protocol.
pub const PROTO: u32 = 1;

/// Longest JSON body, in bytes (DH-186).
pub const MAX_BODY: usize = 64 << 10;

/// Deepest nesting of arrays and objects in a body (DH-186).
pub const MAX_DEPTH: usize = 16;

/// The two parts of a request or reply.
pub fn frames(body: Vec<u8>) -> Message {
    let mut message = Message::new();
    message.push(Part::copy_from(MAGIC));
    message.push(Part::from(body));
    message
}

/// The body of a message of the form of [`frames`]; `None` for another form.
pub fn body(message: &Message) -> Option<&[u8]> {
    match message.parts() {
        [magic, body] if *magic == MAGIC => Some(body),
        _ => None,
    }
}

/// JSON of a value whose serialisation cannot fail: structs of strings and numbers.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Whether arrays and objects are nested at most [`MAX_DEPTH`] deep. Looks at brackets outside strings only; whether the
/// rest is JSON is for the parser to say.
pub(crate) fn is_shallow(body: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_string = false,
            (true, _) => {}
            (false, b'"') => in_string = true,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    true
}
