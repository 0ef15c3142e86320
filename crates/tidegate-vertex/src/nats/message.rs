//! An output as a message, and a message as a record.
//!
//! | of a record | header of the message |
//! |---|---|
//! | key | `Tg-Key`; with other bytes than printable ASCII `Tg-Key-Hex` |
//! | event time, milliseconds | `Tg-Event-Time` |
//! | headers | the same |

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use tidegate_udf::wire::{
    ids::{EpochId, Generation, PartitionId, Position},
    record::headers,
};

use super::{EPOCH, GENERATION, MSG_ID, POSITION};
use crate::{
    batch::Record,
    sink::{Output, OutputIds},
};

/// An output that has an id and can be a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// Position of its input.
    pub position: Position,
    /// Its epoch.
    pub epoch: EpochId,
    /// Key, value, headers, time.
    pub record: Record,
    /// The headers of the record as headers of the message.
    own: HeaderMap,
}

impl Message {
    /// The message of an output.
    ///
    /// # Errors
    /// The reason why a message cannot hold a header of it.
    pub fn new(
        ids: &OutputIds,
        partition: PartitionId,
        epoch: EpochId,
        output: &Output,
    ) -> Result<Self, String> {
        let Output { position, record, .. } = output;
        let mut own = HeaderMap::new();
        for (name, value) in headers(&record.headers) {
            let shown = String::from_utf8_lossy(name);
            if shown.starts_with("Nats-") || shown.starts_with("Tg-") {
                return Err(format!("header {shown:?} belongs to NATS or Tidegate"));
            }
            let name = HeaderName::from_str(&shown);
            let value = str::from_utf8(value).ok().and_then(|value| HeaderValue::from_str(value).ok());
            let (Ok(name), Some(value)) = (name, value) else {
                return Err(format!("header {shown:?} has other text than NATS allows"));
            };
            own.append(name, value);
        }
        if !record.key.is_empty() {
            match str::from_utf8(&record.key) {
                Ok(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => own.insert(KEY, key),
                _ => own.insert(KEY_HEX, hex(&record.key)),
            }
        }
        if let Some(time) = record.event_time {
            own.insert(EVENT_TIME, time.to_string());
        }
        let id = ids.of(partition, output);
        Ok(Self { id, position: *position, epoch, record: record.clone(), own })
    }

    /// All headers that it is sent with.
    pub(super) fn headers(&self, generation: Generation) -> HeaderMap {
        let mut headers = session_headers(&self.id, generation);
        for (name, values) in self.own.iter() {
            for value in values {
                headers.append(name.clone(), value.clone());
            }
        }
        headers.insert(EPOCH, self.epoch.to_string());
        headers.insert(POSITION, self.position.to_string());
        headers
    }
}

/// The headers that every message of a session has.
pub(super) fn session_headers(id: &str, generation: Generation) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(MSG_ID, id);
    headers.insert(GENERATION, generation.to_string());
    headers
}

/// A message as a record. What NATS and Tidegate wrote for themselves is left out.
pub(super) fn record(value: Vec<u8>, message: Option<&HeaderMap>) -> Record {
    let (mut record, mut others) = (Record::of(value), Vec::new());
    for (name, values) in message.iter().flat_map(|headers| headers.iter()) {
        let name: &str = name.as_ref();
        for value in values {
            match name {
                KEY => record.key = Bytes::copy_from_slice(value.as_str().as_bytes()),
                KEY_HEX => record.key = unhex(value.as_str()).unwrap_or_default().into(),
                EVENT_TIME => record.event_time = value.as_str().parse().ok(),
                _ if name.starts_with("Nats-") || name.starts_with("Tg-") => {}
                _ => push_header(&mut others, name, value.as_str()),
            }
        }
    }
    record.headers = others.into();
    record
}

/// Adds a header as it is on the wire; what is too long for it is left out.
fn push_header(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
        return;
    };
    bytes.extend_from_slice(&name_len.to_le_bytes());
    bytes.extend_from_slice(&value_len.to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(value.as_bytes());
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of hexadecimal digits; `None` when there are others.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some((digit(pair.first()?)? * 16 + digit(pair.get(1)?)?) as u8)).collect()
}

const KEY: &str = "Tg-Key";
const KEY_HEX: &str = "Tg-Key-Hex";
const EVENT_TIME: &str = "Tg-Event-Time";

#[cfg(test)]
mod tests {
    //! What goes out comes in again.

    use super::*;

    #[test]
    fn a_record_is_the_same_on_the_other_side() {
        for key in [&b"order-7"[..], b"", &[0, 255, b' ']] {
            let mut record =
                Record { key: key.to_vec().into(), event_time: Some(-5), ..Record::of(b"v".to_vec()) };
            let mut headers = Vec::new();
            push_header(&mut headers, "Trace", "a b");
            push_header(&mut headers, "Trace", "c");
            record.headers = headers.into();
            let output = Output { position: Position(7), number: 0, record };
            let ids = OutputIds::new(0xaa, "out");
            let message = Message::new(&ids, PartitionId(1), EpochId(2), &output).unwrap();
            let sent = message.headers(Generation(3));
            assert_eq!(sent.get(MSG_ID).unwrap().as_str(), "00000000000000aa.out.1.7.0");
            assert_eq!(super::record(b"v".to_vec(), Some(&sent)), output.record);
        }
    }

    #[test]
    fn a_header_that_no_message_can_have_is_refused() {
        for (name, value) in [("Nats-Msg-Id", "mine"), ("a:b", "x"), ("a", "x\r\ny: z")] {
            let mut headers = Vec::new();
            push_header(&mut headers, name, value);
            let record = Record { headers: headers.into(), ..Record::default() };
            let output = Output { position: Position(7), number: 0, record };
            let refused =
                Message::new(&OutputIds::new(0xaa, "out"), PartitionId(1), EpochId(2), &output).unwrap_err();
            assert!(refused.contains(name), "{refused}");
        }
    }
}
