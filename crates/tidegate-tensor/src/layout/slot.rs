//! A header slot: 256 bytes that describe one frame (6.3).
//!
//! ```text
//! offset  size  field
//!      0     8  seq_commit             u64, atomic; belongs to the commit protocol and is never touched here
//!      8     4  values_len_bytes       u32
//!     12     4  payload_slot           u32, equals the slot's own index
//!     16     2  pool_id                u16
//!     18     4  payload_offset         u32, 0
//!     22     8  timestamp_ns           u64, 0 and 2^64-1 mean unknown
//!     30     4  meta_version           u32, 2^32-1 means none
//!     34    26  pad                    written 0, ignored
//!     60     4  headerBytes length     u32, 192
//!     64     8  embedded header        184, 52, 900, 1
//!     72   184  TensorHeader           see `tensor::RawTensorHeader`
//! ```
//!
//! A reader works on a private copy of the slot: the bytes in shared memory may change at any time, and nothing decoded
//! counts before the commit word was re-checked (TP-113).

use thiserror::Error;

use super::bytes::{get, put};
use super::{SlotCount, SlotIndex, Stride, payload_slot_offset};
use crate::ids::PoolId;
use crate::tensor::{RawTensorHeader, TensorLayout};

/// Length of a header slot.
pub const SLOT_LEN: usize = 256;

const VALUES_LEN: usize = 8;
const PAYLOAD_SLOT: usize = 12;
const POOL_ID: usize = 16;
const PAYLOAD_OFFSET: usize = 18;
const TIMESTAMP: usize = 22;
const META_VERSION: usize = 30;
const PAD: usize = 34;
const HEADER_BYTES_LEN: usize = 60;
const EMBEDDED_HEADER: usize = 64;
const TENSOR: usize = 72;

/// The embedded message header (184, 52, 900, 1) as it lies in memory.
const EMBEDDED: [u16; 4] = [RawTensorHeader::LEN as u16, 52, 900, 1];
const HEADER_BYTES: u32 = 8 + RawTensorHeader::LEN as u32;

/// A header slot without its commit word, not yet checked against the regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHeader {
    /// Payload bytes used.
    pub values_len: u32,
    /// Index of the payload slot; must equal the slot's own index (TP-100).
    pub payload_slot: u32,
    /// The pool that holds the payload.
    pub pool_id: PoolId,
    /// Must be 0 (TP-103).
    pub payload_offset: u32,
    /// Capture time in ns, if known.
    pub timestamp_ns: Option<u64>,
    /// Version of the metadata that describes the frame, if any.
    pub meta_version: Option<u32>,
    /// Shape and type of the payload, not validated.
    pub tensor: RawTensorHeader,
}

impl SlotHeader {
    /// The header of a frame to write: `values_len` bytes of payload in `pool_id`.
    #[must_use]
    pub const fn new(index: SlotIndex, pool_id: PoolId, values_len: u32, tensor: &TensorLayout) -> Self {
        Self {
            values_len,
            payload_slot: index.get(),
            pool_id,
            payload_offset: 0,
            timestamp_ns: None,
            meta_version: None,
            tensor: tensor.to_raw(),
        }
    }

    /// Reads a copy of a slot.
    ///
    /// # Errors
    /// [`SlotError::HeaderBytes`] or [`SlotError::EmbeddedHeader`] when the slot does not hold a tensor header (TP-088).
    #[inline]
    pub fn decode(slot: &[u8; SLOT_LEN]) -> Result<Self, SlotError> {
        let u32_at = |offset| u32::from_le_bytes(get(slot, offset));
        let found = u32_at(HEADER_BYTES_LEN);
        if found != HEADER_BYTES {
            return Err(SlotError::HeaderBytes { found });
        }
        let embedded = std::array::from_fn(|i| u16::from_le_bytes(get(slot, EMBEDDED_HEADER + 2 * i)));
        if embedded != EMBEDDED {
            return Err(SlotError::EmbeddedHeader { found: embedded });
        }
        let timestamp = u64::from_le_bytes(get(slot, TIMESTAMP));
        let meta_version = u32_at(META_VERSION);
        Ok(Self {
            values_len: u32_at(VALUES_LEN),
            payload_slot: u32_at(PAYLOAD_SLOT),
            pool_id: PoolId::new(u16::from_le_bytes(get(slot, POOL_ID))),
            payload_offset: u32_at(PAYLOAD_OFFSET),
            timestamp_ns: (timestamp != 0 && timestamp != u64::MAX).then_some(timestamp),
            meta_version: (meta_version != u32::MAX).then_some(meta_version),
            tensor: RawTensorHeader::decode(&get(slot, TENSOR)),
        })
    }

    /// Writes bytes 8 to 255, padding as zero, and leaves the commit word alone (TP-089, TP-097).
    #[inline]
    pub fn encode(&self, slot: &mut [u8; SLOT_LEN]) {
        self.encode_frame(slot);
        put(slot, PAD, [0; HEADER_BYTES_LEN - PAD]);
        put(slot, HEADER_BYTES_LEN, HEADER_BYTES.to_le_bytes());
        for (i, number) in EMBEDDED.iter().enumerate() {
            put(slot, EMBEDDED_HEADER + 2 * i, number.to_le_bytes());
        }
        put(slot, TENSOR, self.tensor.encode());
    }

    /// Writes bytes 8 to 33 only: what differs between two frames of one tensor layout.
    #[inline]
    pub(crate) fn encode_frame(&self, slot: &mut [u8; SLOT_LEN]) {
        put(slot, VALUES_LEN, self.values_len.to_le_bytes());
        put(slot, PAYLOAD_SLOT, self.payload_slot.to_le_bytes());
        put(slot, POOL_ID, self.pool_id.get().to_le_bytes());
        put(slot, PAYLOAD_OFFSET, self.payload_offset.to_le_bytes());
        put(slot, TIMESTAMP, self.timestamp_ns.unwrap_or(u64::MAX).to_le_bytes());
        put(slot, META_VERSION, self.meta_version.unwrap_or(u32::MAX).to_le_bytes());
    }

    /// Checks the fields that say where the payload lies (TP-100, TP-102, TP-103) and returns the place.
    ///
    /// `index` is where the slot was read from; `pool_stride` finds the stride of a mapped pool. Pools have the ring's
    /// number of slots (TP-083), so `slots` bounds them as well. A frame without payload passes and yields an empty
    /// span (TP-104).
    ///
    /// # Errors
    /// [`SlotError`] for the first field that is wrong; the consumer drops the frame as invalid.
    #[inline]
    pub fn payload_span(
        &self,
        index: SlotIndex,
        slots: SlotCount,
        pool_stride: impl FnOnce(PoolId) -> Option<Stride>,
    ) -> Result<PayloadSpan, SlotError> {
        if self.payload_slot != index.get() || self.payload_slot >= slots.get() {
            return Err(SlotError::PayloadSlot { expected: index.get(), found: self.payload_slot });
        }
        if self.payload_offset != 0 {
            return Err(SlotError::PayloadOffset { found: self.payload_offset });
        }
        let stride = pool_stride(self.pool_id).ok_or(SlotError::UnknownPool { found: self.pool_id })?;
        if self.values_len > stride.get() {
            return Err(SlotError::ValuesLen { found: self.values_len, max: stride.get() });
        }
        Ok(PayloadSpan {
            pool_id: self.pool_id,
            offset: payload_slot_offset(index, stride),
            len: self.values_len,
        })
    }
}

/// Where a payload lies. Inside the pool by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadSpan {
    /// The pool.
    pub pool_id: PoolId,
    /// First byte, from the start of the pool's region.
    pub offset: u64,
    /// Number of bytes.
    pub len: u32,
}

/// A slot that describes no frame of the mapped regions. The consumer drops the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SlotError {
    /// Not the length of an embedded tensor header (TP-088).
    #[error("length of headerBytes must be {HEADER_BYTES}, found {found}")]
    HeaderBytes {
        /// The length.
        found: u32,
    },
    /// Not the embedded header of a tensor header (TP-088).
    #[error("embedded header must be {EMBEDDED:?} (length, template, schema, version), found {found:?}")]
    EmbeddedHeader {
        /// Block length, template id, schema id, version.
        found: [u16; 4],
    },
    /// The payload slot is not the slot's own index (TP-100).
    #[error("payload_slot must be {expected}, the slot's own index, found {found}")]
    PayloadSlot {
        /// The slot's index.
        expected: u32,
        /// The field.
        found: u32,
    },
    /// The payload does not start at the slot (TP-103).
    #[error("payload_offset must be 0, found {found}")]
    PayloadOffset {
        /// The field.
        found: u32,
    },
    /// A pool that is not mapped (TP-102).
    #[error("pool {found} is not among the mapped pools")]
    UnknownPool {
        /// The field.
        found: PoolId,
    },
    /// More bytes than a payload slot has (TP-103).
    #[error("values_len_bytes is {found}, the pool's stride is {max}")]
    ValuesLen {
        /// The field.
        found: u32,
        /// The stride.
        max: u32,
    },
}
