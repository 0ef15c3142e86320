//! An output of a vertex in a slot of a channel, or in a frame of a tensor stream: the value first, so that readers who know
//! nothing of vertices find it where they look for it, then the key and the headers, and at the end of the payload where the
//! output comes from (VX-751).
//!
//! ```text
//!  value, padded to 8   key   headers, padded to 8
//!  then 72 bytes, little-endian:
//!  0x00 u64 pipeline        0x20 i64 event time in milliseconds       0x38 u32 length of the headers
//!  0x08 u64 generation      0x28 u32 number of the output             0x3C u16 length of the key
//!  0x10 u64 epoch           0x2C u32 partition                        0x3E u16 flags: 1 event time is set
//!  0x18 u64 position        0x30 u32 outputs in the slot: 1           0x40 u64 "TGVXOUT1"
//!                           0x34 u32 length of the value
//! ```
//! Pipeline, partition, position and number make the output's id.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

use crate::batch::Record;

/// What the slots of a channel or the frames of a stream hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// A value and nothing else, as most producers write it.
    #[default]
    Value,
    /// An output of another vertex, with its key, headers, time and where it comes from.
    Output,
}

/// Where an output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) pipeline: u64,
    pub(crate) generation: Generation,
    pub(crate) epoch: EpochId,
    pub(crate) partition: PartitionId,
    pub(crate) position: Position,
    pub(crate) number: u32,
}

/// The highest generation of each writer, by pipeline and partition.
#[derive(Debug, Default)]
pub(crate) struct Newest(BTreeMap<(u64, u32), u64>);

impl Newest {
    /// Whether no later session of its partition has written before it (VX-751).
    pub(crate) fn admits(&mut self, origin: &Origin) -> bool {
        let key = (origin.pipeline, origin.partition.0);
        if self.0.len() >= MAX_WRITERS && !self.0.contains_key(&key) {
            self.0.pop_first();
        }
        let highest = self.0.entry(key).or_default();
        *highest = origin.generation.0.max(*highest);
        origin.generation.0 == *highest
    }
}

/// Why a payload is no output: the field, what it is, and what it may be.
pub(crate) type Fault = (&'static str, u64, u64);

/// Bytes that an output takes.
pub(crate) fn len(record: &Record) -> u64 {
    let padded = |len: usize| (len as u64).next_multiple_of(8);
    padded(record.value.len()) + padded(record.key.len() + record.headers.len()) + TRAILER as u64
}

/// Replaces `bytes` by the payload of an output; false when its key or headers are too long for one.
pub(crate) fn write(record: &Record, origin: &Origin, bytes: &mut Vec<u8>) -> bool {
    let lens = (
        u32::try_from(record.value.len()),
        u32::try_from(record.headers.len()),
        u16::try_from(record.key.len()),
    );
    let (Ok(value_len), Ok(headers_len), Ok(key_len)) = lens else { return false };
    bytes.clear();
    bytes.extend_from_slice(&record.value);
    pad(bytes);
    bytes.extend_from_slice(&record.key);
    bytes.extend_from_slice(&record.headers);
    pad(bytes);
    let Origin { pipeline, generation, epoch, partition, position, number } = *origin;
    for word in [pipeline, generation.0, epoch.0, position.0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&record.event_time.unwrap_or(0).to_le_bytes());
    for word in [number, partition.0, 1, value_len, headers_len] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let flags = if record.event_time.is_some() { EVENT_TIME } else { 0 };
    for word in [key_len, flags] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&MAGIC);
    true
}

/// Takes an output out of a private copy of a payload.
pub(crate) fn read(bytes: &[u8]) -> Result<(Record, Origin), Fault> {
    let short = ("length of the payload", bytes.len() as u64, TRAILER as u64);
    let (body, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or(short)?;
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| trailer[at + byte]));
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| trailer[at + byte]));
    let u16_at = |at: usize| u16::from_le_bytes(std::array::from_fn(|byte| trailer[at + byte]));
    let magic = u64::from_le_bytes(MAGIC);
    if u64_at(0x40) != magic {
        return Err(("last word", u64_at(0x40), magic));
    }
    if u32_at(0x30) != 1 {
        return Err(("number of outputs", u32_at(0x30).into(), 1));
    }
    let flags = u16_at(0x3E);
    if flags & !EVENT_TIME != 0 {
        return Err(("flags", flags.into(), EVENT_TIME.into()));
    }
    // None of the sums can overflow: three lengths of at most 32 bits.
    let (value_len, headers_len, key_len) =
        (u64::from(u32_at(0x34)), u64::from(u32_at(0x38)), u64::from(u16_at(0x3C)));
    let key = value_len.next_multiple_of(8);
    let headers = key + key_len;
    let needed = (headers + headers_len).next_multiple_of(8);
    if needed != body.len() as u64 {
        return Err(("length of value, key and headers", needed, body.len() as u64));
    }
    let part = |from: u64, len: u64| {
        let range = from as usize..(from + len) as usize;
        body.get(range).map(Bytes::copy_from_slice).unwrap_or_default()
    };
    let record = Record {
        value: part(0, value_len),
        key: part(key, key_len),
        headers: part(headers, headers_len),
        event_time: (flags & EVENT_TIME != 0).then(|| u64_at(0x20).cast_signed()),
    };
    let origin = Origin {
        pipeline: u64_at(0x00),
        generation: Generation(u64_at(0x08)),
        epoch: EpochId(u64_at(0x10)),
        position: Position(u64_at(0x18)),
        number: u32_at(0x28),
        partition: PartitionId(u32_at(0x2C)),
    };
    Ok((record, origin))
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

/// Writers whose generations are remembered.
const MAX_WRITERS: usize = 1 << 16;
const TRAILER: usize = 72;
const MAGIC: [u8; 8] = *b"TGVXOUT1";
const EVENT_TIME: u16 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Origin {
        Origin {
            pipeline: 0xaa,
            generation: Generation(7),
            epoch: EpochId(41),
            partition: PartitionId(3),
            position: Position(1 << 40),
            number: 9,
        }
    }

    proptest! {
        /// Rules: VX-751.
        #[test]
        fn what_is_written_is_read(
            value in prop::collection::vec(any::<u8>(), 0..40),
            key in prop::collection::vec(any::<u8>(), 0..20),
            headers in prop::collection::vec(any::<u8>(), 0..20),
            event_time in any::<Option<i64>>(),
        ) {
            let (value, key, headers) = (value.into(), key.into(), headers.into());
            let record = Record { value, key, headers, event_time };
            let mut bytes = vec![1];
            prop_assert!(write(&record, &origin(), &mut bytes));
            prop_assert_eq!(bytes.len() as u64, len(&record));
            prop_assert!(bytes.starts_with(&record.value));
            prop_assert_eq!(read(&bytes), Ok((record, origin())));
        }

        /// Whatever the bytes are, reading ends, and with a part of them at most.
        #[test]
        fn any_bytes_are_an_output_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200), tail in any::<bool>()) {
            let mut bytes = bytes;
            if tail {
                bytes.extend_from_slice(&MAGIC);
            }
            if let Ok((record, _)) = read(&bytes) {
                prop_assert!(record.value.len() + record.key.len() + record.headers.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn what_is_no_output_is_said_by_its_field() {
        let mut bytes = Vec::new();
        assert!(write(&Record::of(vec![5; 12]), &origin(), &mut bytes));
        assert_eq!(read(&bytes[..71]).unwrap_err().0, "length of the payload");
        for (at, field) in [
            (bytes.len() - 1, "last word"),
            (bytes.len() - 72 + 0x30, "number of outputs"),
            (bytes.len() - 72 + 0x3E, "flags"),
            (bytes.len() - 72 + 0x34 + 1, "length of value, key and headers"),
        ] {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x12;
            assert_eq!(read(&wrong).unwrap_err().0, field);
        }
    }
}
