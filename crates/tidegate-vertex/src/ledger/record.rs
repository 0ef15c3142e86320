//! The record of an epoch in bytes (12.3).
//!
//! ```text
//!  u32 length of what follows   u32 CRC-32C of it
//!  u16 format 1   u8 status   u8 id scheme 1   u32 partition
//!  u64 pipeline   u64 generation   u64 epoch   u64 epoch before
//!  u64 first position   u64 last   u64 resume   bytes identity of the source
//!  u64 in, out, filtered, dlq, dropped, nacked
//!  u32 sinks, of each: bytes name, u8 class, u64 records, u64 bytes, u32 chunks in the outbox, bytes token, u128 digest
//!  u128 fingerprint of the function   u128 digest   i64 created   i64 committed
//! ```
//!
//! State, windows, schemas and batch bounds come with the kinds of functions that have them, in a later format.

use thiserror::Error;
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};
use twox_hash::XxHash3_128;

use super::bytes::{Fields, Writer};
use crate::{
    own::Committed,
    sink::{Class, Token},
    source::{Identity, Resume},
};

/// What is known of one epoch of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Number of the pipeline.
    pub uid: u64,
    /// The partition.
    pub partition: PartitionId,
    /// Who wrote it.
    pub generation: Generation,
    /// Its number.
    pub epoch: EpochId,
    /// The one before it; 0 for the first.
    pub previous: EpochId,
    /// How far it is.
    pub status: Status,
    /// Which inputs it is of.
    pub range: Range,
    /// By what the source is known again.
    pub identity: Identity,
    /// What became of them.
    pub counts: Counts,
    /// What each sink gets; none in an epoch that was delivered batch by batch.
    pub sinks: Vec<SinkPart>,
    /// Hash of the function's program.
    pub function: u128,
    /// Wall clock in milliseconds, for people.
    pub created_ms: i64,
    /// The same of the commit; 0 before.
    pub committed_ms: i64,
}

/// How far an epoch is. A PREPARED one is not progress (VX-763).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its outputs are in the outbox; sinks may have any part of them.
    Prepared,
    /// Every sink has confirmed it.
    Committed,
    /// Another owner has committed it, as the ownership store says; of its inputs nothing is known here but where they end.
    TakenOver {
        /// The digest of that owner's record.
        digest: u128,
    },
}

impl Status {
    /// Whether the epoch is final.
    pub fn is_committed(self) -> bool {
        self != Self::Prepared
    }

    fn code(self) -> u8 {
        match self {
            Self::Prepared => 1,
            Self::Committed => 2,
            Self::TakenOver { .. } => 4,
        }
    }
}

/// Inputs of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Position of the first.
    pub first: Position,
    /// Position of the last.
    pub last: Position,
    /// Position of the next one to read.
    pub resume: Position,
}

/// What became of the inputs of an epoch (VX-003).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inputs.
    pub inputs: u64,
    /// Outputs.
    pub outputs: u64,
    /// Inputs without outputs.
    pub filtered: u64,
    /// Inputs in the dead-letter sink.
    pub dead: u64,
    /// Inputs left out as configured.
    pub dropped: u64,
    /// Inputs given back to the source.
    pub nacked: u64,
}

/// What one sink gets of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkPart {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// Outputs.
    pub records: u64,
    /// Bytes of them in the outbox.
    pub bytes: u64,
    /// Chunks of the outbox.
    pub chunks: u32,
    /// What the sink said when all was confirmed.
    pub token: Option<Token>,
    /// XXH3 of the outbox.
    pub digest: u128,
}

/// Why a record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is none.
    #[error("it is missing")]
    Missing,
    /// Bytes were changed or lost.
    #[error("its bytes are damaged")]
    Damaged,
    /// Written by another version.
    #[error("it has format {found}, this version reads 1")]
    Format {
        /// Its format.
        found: u16,
    },
    /// A record of something else.
    #[error("it is the record of another pipeline, partition or epoch")]
    Misplaced,
    /// The one before it is not there.
    #[error("the record of epoch {previous} before it is missing")]
    BrokenChain {
        /// The epoch before.
        previous: EpochId,
    },
    /// PREPARED where COMMITTED belongs, or the other way round.
    #[error("its status is not what the head of the partition says")]
    Status,
    /// The outbox is not what the record says.
    #[error("its outbox is damaged")]
    Outbox,
    /// An epoch of the same number and other content.
    #[error("it has another content than the epoch to be committed")]
    Digest,
}

impl Record {
    /// What tells this epoch from every other, also from one of the same number (VX-773).
    pub fn digest(&self) -> u128 {
        if let Status::TakenOver { digest } = self.status {
            return digest;
        }
        let mut writer = Writer::default();
        for word in [self.uid, self.generation.0, self.epoch.0, self.previous.0] {
            writer.u64(word);
        }
        writer.u32(self.partition.0);
        self.write_content(&mut writer, false);
        XxHash3_128::oneshot(&writer.0)
    }

    /// What the ownership store is told of it, and what is known by it.
    pub fn into_committed(self) -> Committed {
        let digest = self.digest();
        let Self { epoch, generation, range, identity, sinks, .. } = self;
        let tokens = sinks.into_iter().filter_map(|part| Some((part.name, part.token?))).collect();
        let resume = Resume { position: range.resume, identity };
        Committed { epoch, generation, digest, resume, tokens }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        body.u16(FORMAT);
        body.u8(self.status.code());
        body.u8(ID_SCHEME);
        body.u32(self.partition.0);
        for word in [self.uid, self.generation.0, self.epoch.0, self.previous.0] {
            body.u64(word);
        }
        self.write_content(&mut body, true);
        body.u128(self.function);
        body.u128(self.digest());
        body.i64(self.created_ms);
        body.i64(self.committed_ms);
        let mut bytes = Writer::default();
        bytes.u32(body.0.len() as u32);
        bytes.u32(crc32c::crc32c(&body.0));
        bytes.0.extend_from_slice(&body.0);
        bytes.0
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut fields = Fields(bytes);
        let (len, crc) = (fields.u32()?, fields.u32()?);
        if fields.0.len() != len as usize || crc32c::crc32c(fields.0) != crc {
            return Err(RecordError::Damaged);
        }
        let format = fields.u16()?;
        if format != FORMAT {
            return Err(RecordError::Format { found: format });
        }
        let status = match fields.u8()? {
            1 => Status::Prepared,
            2 => Status::Committed,
            // The digest is behind the other fields.
            4 => Status::TakenOver { digest: 0 },
            _ => return Err(RecordError::Damaged),
        };
        if fields.u8()? != ID_SCHEME {
            return Err(RecordError::Damaged);
        }
        let partition = PartitionId(fields.u32()?);
        let (uid, generation) = (fields.u64()?, Generation(fields.u64()?));
        let (epoch, previous) = (EpochId(fields.u64()?), EpochId(fields.u64()?));
        let [first, last, resume] = [fields.u64()?, fields.u64()?, fields.u64()?].map(Position);
        let identity = Identity(fields.bytes()?.to_vec());
        let counts = Counts {
            inputs: fields.u64()?,
            outputs: fields.u64()?,
            filtered: fields.u64()?,
            dead: fields.u64()?,
            dropped: fields.u64()?,
            nacked: fields.u64()?,
        };
        let mut sinks = Vec::new();
        for _ in 0..fields.u32()? {
            sinks.push(SinkPart::read(&mut fields)?);
        }
        let (function, digest) = (fields.u128()?, fields.u128()?);
        let status = match status {
            Status::TakenOver { .. } => Status::TakenOver { digest },
            other => other,
        };
        let (created_ms, committed_ms) = (fields.i64()?, fields.i64()?);
        fields.end()?;
        let range = Range { first, last, resume };
        let record = Self {
            uid,
            partition,
            generation,
            epoch,
            previous,
            status,
            range,
            identity,
            counts,
            sinks,
            function,
            created_ms,
            committed_ms,
        };
        if record.digest() == digest { Ok(record) } else { Err(RecordError::Damaged) }
    }

    /// Range, counts and sinks; with the tokens, which come when an epoch is prepared already.
    fn write_content(&self, writer: &mut Writer, tokens: bool) {
        let Range { first, last, resume } = self.range;
        for position in [first, last, resume] {
            writer.u64(position.0);
        }
        writer.bytes(&self.identity.0);
        let Counts { inputs, outputs, filtered, dead, dropped, nacked } = self.counts;
        for count in [inputs, outputs, filtered, dead, dropped, nacked] {
            writer.u64(count);
        }
        writer.u32(self.sinks.len() as u32);
        for sink in &self.sinks {
            writer.bytes(sink.name.as_bytes());
            writer.u8(match sink.class {
                Class::A => b'A',
                Class::B => b'B',
                Class::C => b'C',
            });
            writer.u64(sink.records);
            writer.u64(sink.bytes);
            writer.u32(sink.chunks);
            if tokens {
                writer.u8(sink.token.is_some().into());
                writer.bytes(sink.token.as_ref().map_or(&[], |token| &token.0));
            }
            writer.u128(sink.digest);
        }
    }
}

impl SinkPart {
    fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let name = fields.string()?;
        let class = match fields.u8()? {
            b'A' => Class::A,
            b'B' => Class::B,
            b'C' => Class::C,
            _ => return Err(RecordError::Damaged),
        };
        let (records, bytes, chunks) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let has_token = fields.u8()? == 1;
        let token = Token(fields.bytes()?.to_vec());
        let token = has_token.then_some(token);
        Ok(Self { name, class, records, bytes, chunks, token, digest: fields.u128()? })
    }
}

const FORMAT: u16 = 1;
/// Ids by record (VX-791).
const ID_SCHEME: u8 = 1;
