//! Outputs of an epoch as the ledger keeps them until the epoch is committed: what is redone after a crash is exactly what was
//! decided before it, whatever the function would say now (VX-767).
//!
//! ```text
//!  of each output: u64 position   u32 number   u8 has a time   i64 time   bytes key   bytes headers   bytes value
//! ```

use bytes::Bytes;
use tidegate_udf::wire::ids::Position;
use twox_hash::XxHash3_128;

use super::{
    bytes::{Fields, Writer},
    record::{RecordError, SinkPart},
};
use crate::{
    batch::Record,
    sink::{Class, Output},
};

/// The bytes of outputs, and what the record says about them.
pub(super) fn encode(name: &str, class: Class, outputs: &[Output]) -> (SinkPart, Vec<u8>) {
    let mut writer = Writer::default();
    for Output { position, number, record } in outputs {
        writer.u64(position.0);
        writer.u32(*number);
        writer.u8(record.event_time.is_some().into());
        writer.i64(record.event_time.unwrap_or_default());
        writer.bytes(&record.key);
        writer.bytes(&record.headers);
        writer.bytes(&record.value);
    }
    let bytes = writer.0;
    let part = SinkPart {
        name: name.to_owned(),
        class,
        records: outputs.len() as u64,
        bytes: bytes.len() as u64,
        chunks: bytes.len().div_ceil(CHUNK) as u32,
        token: None,
        digest: XxHash3_128::oneshot(&bytes),
    };
    (part, bytes)
}

/// The outputs of which `part` speaks.
pub(super) fn decode(part: &SinkPart, bytes: &[u8]) -> Result<Vec<Output>, RecordError> {
    if bytes.len() as u64 != part.bytes || XxHash3_128::oneshot(bytes) != part.digest {
        return Err(RecordError::Outbox);
    }
    let mut fields = Fields(bytes);
    let mut outputs = Vec::new();
    while fields.end().is_err() {
        let (position, number) = (Position(fields.u64()?), fields.u32()?);
        let (has_time, time) = (fields.u8()? == 1, fields.i64()?);
        let mut part = || Ok::<_, RecordError>(Bytes::copy_from_slice(fields.bytes()?));
        let (key, headers, value) = (part()?, part()?, part()?);
        let record = Record { value, key, headers, event_time: has_time.then_some(time) };
        outputs.push(Output { position, number, record });
    }
    if outputs.len() as u64 == part.records { Ok(outputs) } else { Err(RecordError::Outbox) }
}

/// Longest value in the store (VX-777).
pub(super) const CHUNK: usize = 1 << 20;
