//! Any message of any schema.

use crate::{DecodeError, EncodeError, SchemaInfo, wire};
use crate::{bridge, control, discovery, driver, merge, tracelink};

/// A message of one of the six schemas, for those who listen to everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyMessage<'a> {
    /// Schema 900.
    Control(control::Message<'a>),
    /// Schema 901.
    Driver(driver::Message<'a>),
    /// Schema 902.
    Bridge(bridge::Message<'a>),
    /// Schema 903.
    Merge(merge::Message),
    /// Schema 904.
    Tracelink(tracelink::Message),
    /// Schema 910.
    Discovery(discovery::Message<'a>),
}

/// Evaluates an expression with the message of the schema at hand.
macro_rules! dispatch {
    ($any:expr, $message:ident => $value:expr) => {
        match $any {
            AnyMessage::Control($message) => $value,
            AnyMessage::Driver($message) => $value,
            AnyMessage::Bridge($message) => $value,
            AnyMessage::Merge($message) => $value,
            AnyMessage::Tracelink($message) => $value,
            AnyMessage::Discovery($message) => $value,
        }
    };
}

impl<'a> AnyMessage<'a> {
    /// Decodes one fragment.
    ///
    /// # Errors
    /// Every [`DecodeError`]; [`DecodeError::is_foreign`] tells messages that are none of ours.
    pub fn decode(fragment: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, _) = wire::split_header(fragment)?;
        match header.schema_id {
            control::SCHEMA_ID => control::Message::decode(fragment).map(Self::Control),
            driver::SCHEMA_ID => driver::Message::decode(fragment).map(Self::Driver),
            bridge::SCHEMA_ID => bridge::Message::decode(fragment).map(Self::Bridge),
            merge::SCHEMA_ID => merge::Message::decode(fragment).map(Self::Merge),
            tracelink::SCHEMA_ID => tracelink::Message::decode(fragment).map(Self::Tracelink),
            discovery::SCHEMA_ID => discovery::Message::decode(fragment).map(Self::Discovery),
            schema_id => Err(DecodeError::UnknownSchema { schema_id }),
        }
    }

    /// Schema of the message.
    pub fn schema(&self) -> &'static SchemaInfo {
        match self {
            Self::Control(_) => &control::SCHEMA,
            Self::Driver(_) => &driver::SCHEMA,
            Self::Bridge(_) => &bridge::SCHEMA,
            Self::Merge(_) => &merge::SCHEMA,
            Self::Tracelink(_) => &tracelink::SCHEMA,
            Self::Discovery(_) => &discovery::SCHEMA,
        }
    }

    /// Name of the message, as in its schema.
    pub fn name(&self) -> &'static str {
        dispatch!(self, message => message.name())
    }

    /// Template id of the message.
    pub fn template_id(&self) -> u16 {
        dispatch!(self, message => message.template_id())
    }

    /// Bytes that [`encode`](Self::encode) writes.
    pub fn encoded_len(&self) -> usize {
        dispatch!(self, message => message.encoded_len())
    }

    /// Writes the fragment to the front of `out` and returns its length.
    ///
    /// # Errors
    /// Every [`EncodeError`] except `OutOfMemory`.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        dispatch!(self, message => message.encode(out))
    }

    /// The fragment in memory of its own.
    ///
    /// # Errors
    /// Every [`EncodeError`] except `BufferTooSmall`.
    pub fn to_vec(&self) -> Result<Vec<u8>, EncodeError> {
        dispatch!(self, message => message.to_vec())
    }

    /// The fields in schema order: integers, `{"enum": NAME, "value": n}` for enums and Booleans (NAME is null when
    /// unlisted), null for "not provided", strings, `{"hex": ...}` for data, arrays of objects for groups.
    #[cfg(feature = "json")]
    pub fn to_json(&self) -> serde_json::Value {
        dispatch!(self, message => message.to_json())
    }
}
