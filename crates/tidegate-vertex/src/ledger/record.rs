//! A cursor record in bytes (12.3, the fields that a light epoch has).
//!
//! ```text
//!  u32 length of what follows   u32 CRC-32C of it
//!  u16 format 1   u8 status 2 (COMMITTED)   u8 0   u32 partition
//!  u64 pipeline   u64 generation   u64 epoch   u64 epoch before   u64 resume position
//! ```

use thiserror::Error;
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

/// How far a partition has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
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
    /// Position of the next record to read.
    pub resume: Position,
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
}

impl Cursor {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(BODY);
        body.extend_from_slice(&FORMAT.to_le_bytes());
        body.extend_from_slice(&[COMMITTED, 0]);
        body.extend_from_slice(&self.partition.0.to_le_bytes());
        for word in [self.uid, self.generation.0, self.epoch.0, self.previous.0, self.resume.0] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(8 + BODY);
        bytes.extend_from_slice(&(BODY as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut fields = Fields { rest: bytes };
        let (len, crc) = (fields.u32()?, fields.u32()?);
        let body = fields.rest;
        if body.len() != len as usize || crc32c::crc32c(body) != crc {
            return Err(RecordError::Damaged);
        }
        let format = fields.u16()?;
        if format != FORMAT || body.len() != BODY {
            return Err(RecordError::Format { found: format });
        }
        if fields.u16()? != u16::from(COMMITTED) {
            return Err(RecordError::Damaged);
        }
        Ok(Self {
            partition: PartitionId(fields.u32()?),
            uid: fields.u64()?,
            generation: Generation(fields.u64()?),
            epoch: EpochId(fields.u64()?),
            previous: EpochId(fields.u64()?),
            resume: Position(fields.u64()?),
        })
    }
}

/// Takes numbers from the front.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], RecordError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(RecordError::Damaged)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn u16(&mut self) -> Result<u16, RecordError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.take().map(u64::from_le_bytes)
    }
}

const FORMAT: u16 = 1;
const COMMITTED: u8 = 2;
/// Bytes behind length and checksum.
const BODY: usize = 48;
