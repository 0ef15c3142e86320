//! The header of a frame: 128 bytes in front of every payload in a ring (chapter 4 of the sheet).
//!
//! [`Frame`] holds what the two sides tell each other; where the frame lies in its ring (`Place`) is filled in by
//! whoever publishes it and checked by whoever reads it.

use thiserror::Error;

use super::{
    ids::{BatchId, EpochId, FenceSlot, Generation, PartitionId, Position, RingPos, SchemaId, SessionId},
    layout::layout,
    status::Status,
};

/// Bytes of the header.
pub const HEADER_LEN: u32 = 128;
/// Frames begin and end on multiples of this.
pub const FRAME_ALIGN: u32 = 128;
/// Offset of the flags, the one word of the header that is atomic.
pub const FLAGS_AT: u64 = 0x08;
/// The frame is complete.
pub const PUBLISHED: u32 = 1;

layout! {
    /// The header as it is in the ring (VX-201).
    pub(crate) struct RawFrame[128] {
        magic: u32 = 0x00,
        version: u16 = 0x04,
        header_len: u16 = 0x06,
        flags: u32 = 0x08,
        payload_len: u32 = 0x0C,
        generation: u64 = 0x10,
        epoch: u64 = 0x18,
        batch: u64 = 0x20,
        schema: u64 = 0x28,
        partition: u32 = 0x30,
        record_count: u32 = 0x34,
        source_first: u64 = 0x38,
        source_last: u64 = 0x40,
        frame_len: u32 = 0x48,
        kind: u16 = 0x4C,
        encoding: u16 = 0x4E,
        watermark: i64 = 0x50,
        session: u64 = 0x58,
        ring_pos: u64 = 0x60,
        status: u32 = 0x68,
        attempt: u16 = 0x6C,
        fence_slot: u16 = 0x6E,
        payload_crc: u32 = 0x70,
        inputs_done: u32 = 0x74,
        frag_index: u32 = 0x78,
        header_crc: u32 = 0x7C,
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A batch for the function.
    Data,
    /// The answer to a batch, or a fragment of it.
    Response,
}

/// What the header of a batch or of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Further fragments of the same answer follow.
    pub more: bool,
    /// The records were sent before.
    pub replay: bool,
    /// The last batch of its epoch on this lane.
    pub barrier: bool,
    /// The source has no more for this partition.
    pub end_of_source: bool,
    /// Generation of the partition under which the batch was made; not 0.
    pub generation: Generation,
    /// Epoch at admission.
    pub epoch: EpochId,
    /// Number of the batch; not 0.
    pub batch: BatchId,
    /// Schema of the records.
    pub schema: SchemaId,
    /// The partition all records are of.
    pub partition: PartitionId,
    /// Records in this frame.
    pub record_count: u32,
    /// Position of the first input.
    pub source_first: Position,
    /// Position of the last input.
    pub source_last: Position,
    /// Event-time watermark at this batch, in milliseconds.
    pub watermark: Option<i64>,
    /// How it went; of requests [`Status::Ok`].
    pub status: Status,
    /// Which try this is, from 0 on.
    pub attempt: u16,
    /// Where the fence word of the partition is.
    pub fence_slot: FenceSlot,
    /// Inputs accounted for; counted in the last fragment of an answer.
    pub inputs_done: u32,
    /// Number of the fragment, from 0 on.
    pub frag_index: u32,
    /// CRC-32C of the payload, if it was computed.
    pub payload_crc: Option<u32>,
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) session: SessionId,
    pub(crate) position: RingPos,
    pub(crate) payload_len: u32,
    pub(crate) frame_len: u32,
}

/// What is at a place of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Nothing, up to the end of the ring.
    Filler { frame_len: u32 },
    /// A frame and its payload.
    Frame { frame: Frame, payload_len: u32, frame_len: u32 },
}

/// A header that no correct peer writes. The session ends (VX-121).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{field} is {found:#x}, expected {expected:#x}")]
pub struct FrameFault {
    /// The field of the header, or the rule it breaks.
    pub field: &'static str,
    /// Its value.
    pub found: u64,
    /// What it has to be, or the bound that it breaks.
    pub expected: u64,
}

impl FrameFault {
    fn new(field: &'static str, found: impl Into<u64>, expected: impl Into<u64>) -> Self {
        Self { field, found: found.into(), expected: expected.into() }
    }
}

impl Frame {
    /// The header, not yet published.
    pub(crate) fn encode(&self, place: &Place) -> [u8; 128] {
        let mut flags = 0;
        for (set, bit) in [
            (self.more, MORE),
            (self.payload_crc.is_some(), PAYLOAD_CRC),
            (self.replay, REPLAY),
            (self.barrier, BARRIER),
            (self.end_of_source, EOS),
        ] {
            flags |= if set { bit } else { 0 };
        }
        let raw = RawFrame {
            flags,
            payload_len: place.payload_len,
            generation: self.generation.0,
            epoch: self.epoch.0,
            batch: self.batch.0,
            schema: self.schema.0,
            partition: self.partition.0,
            record_count: self.record_count,
            source_first: self.source_first.0,
            source_last: self.source_last.0,
            kind: match self.kind {
                Kind::Data => DATA,
                Kind::Response => RESPONSE,
            },
            encoding: RECORDS,
            watermark: self.watermark.unwrap_or(NO_WATERMARK),
            status: self.status.code(),
            attempt: self.attempt,
            fence_slot: self.fence_slot.0,
            payload_crc: self.payload_crc.unwrap_or(0),
            inputs_done: self.inputs_done,
            frag_index: self.frag_index,
            ..blank(place)
        };
        sealed(raw)
    }
}

/// The header of a filler of `frame_len` bytes at `position`.
pub(crate) fn encode_filler(session: SessionId, position: RingPos, frame_len: u32) -> [u8; 128] {
    let place = Place { session, position, payload_len: 0, frame_len };
    sealed(RawFrame { kind: FILLER, ..blank(&place) })
}

/// Checks a header that was copied out of a ring, in the order of VX-220. `here` is the place being read, `max_frame` the
/// longest frame of the ring, `to_ring_end` and `to_head` the bytes from here to the end of the ring and to the head.
///
/// # Errors
/// The first field that is wrong.
pub(crate) fn decode(
    bytes: &[u8; 128],
    session: SessionId,
    here: RingPos,
    max_frame: u32,
    to_ring_end: u64,
    to_head: u64,
) -> Result<Parsed, FrameFault> {
    let raw = RawFrame::from_bytes(bytes);
    let expect = |field, found: u64, expected: u64| {
        if found == expected { Ok(()) } else { Err(FrameFault::new(field, found, expected)) }
    };
    expect("magic", raw.magic.into(), MAGIC.into())?;
    expect("version", raw.version.into(), VERSION.into())?;
    expect("header_len", raw.header_len.into(), HEADER_LEN.into())?;
    expect("header_crc32c", raw.header_crc.into(), crc_of(bytes).into())?;
    expect("session_id", raw.session, session.0)?;
    expect("ring_pos", raw.ring_pos, here.0)?;
    let kind = match raw.kind {
        FILLER => None,
        DATA => Some(Kind::Data),
        RESPONSE => Some(Kind::Response),
        found => return Err(FrameFault::new("kind", found, RESPONSE)),
    };
    let frame_len = raw.frame_len;
    if !frame_len.is_multiple_of(FRAME_ALIGN) || frame_len < HEADER_LEN {
        return Err(FrameFault::new("frame_len (multiple of 128)", frame_len, HEADER_LEN));
    }
    // Also of a filler: it is there because a frame did not fit, so it is shorter than the longest one.
    if frame_len > max_frame {
        return Err(FrameFault::new("frame_len (at most max_frame)", frame_len, max_frame));
    }
    if u64::from(frame_len) > to_ring_end {
        return Err(FrameFault::new("frame_len (inside the ring)", frame_len, to_ring_end));
    }
    if u64::from(frame_len) > to_head {
        return Err(FrameFault::new("frame_len (below head)", frame_len, to_head));
    }
    if kind.is_none() {
        expect("frame_len of filler (to the end of the ring)", frame_len.into(), to_ring_end)?;
        if u64::from(frame_len) == to_head {
            return Err(FrameFault::new("frame_len of filler (not last below head)", frame_len, to_head));
        }
    }
    if u64::from(HEADER_LEN) + u64::from(raw.payload_len) > u64::from(frame_len) {
        return Err(FrameFault::new("payload_len (inside the frame)", raw.payload_len, frame_len));
    }
    if raw.flags & MUST_UNDERSTAND != 0 {
        return Err(FrameFault::new(
            "flags (unknown, must be understood)",
            raw.flags & MUST_UNDERSTAND,
            0u32,
        ));
    }
    let Some(kind) = kind else { return Ok(Parsed::Filler { frame_len }) };
    expect("encoding", raw.encoding.into(), RECORDS.into())?;
    for (field, value) in [("generation_id (not 0)", raw.generation), ("batch_id (not 0)", raw.batch)] {
        if value == 0 {
            return Err(FrameFault::new(field, 0u32, 1u32));
        }
    }
    if raw.source_last < raw.source_first {
        return Err(FrameFault::new(
            "source_last (not below source_first)",
            raw.source_last,
            raw.source_first,
        ));
    }
    let status = Status::from_code(raw.status).ok_or(FrameFault::new("status", raw.status, 11u32))?;
    let frame = Frame {
        kind,
        more: raw.flags & MORE != 0,
        replay: raw.flags & REPLAY != 0,
        barrier: raw.flags & BARRIER != 0,
        end_of_source: raw.flags & EOS != 0,
        generation: Generation(raw.generation),
        epoch: EpochId(raw.epoch),
        batch: BatchId(raw.batch),
        schema: SchemaId(raw.schema),
        partition: PartitionId(raw.partition),
        record_count: raw.record_count,
        source_first: Position(raw.source_first),
        source_last: Position(raw.source_last),
        watermark: Some(raw.watermark).filter(|&value| value != NO_WATERMARK),
        status,
        attempt: raw.attempt,
        fence_slot: FenceSlot(raw.fence_slot),
        inputs_done: raw.inputs_done,
        frag_index: raw.frag_index,
        payload_crc: (raw.flags & PAYLOAD_CRC != 0).then_some(raw.payload_crc),
    };
    Ok(Parsed::Frame { frame, payload_len: raw.payload_len, frame_len })
}

/// The checksum of a payload.
pub fn payload_crc(payload: &[u8]) -> u32 {
    crc32c::crc32c(payload)
}

/// Bytes that a frame with this payload takes in the ring.
pub(crate) fn frame_len(payload_len: usize) -> Option<u32> {
    let len = u32::try_from(payload_len).ok()?.checked_add(HEADER_LEN)?;
    len.checked_next_multiple_of(FRAME_ALIGN)
}

/// A header with the fields that depend on its place only.
fn blank(place: &Place) -> RawFrame {
    RawFrame {
        magic: MAGIC,
        version: VERSION,
        header_len: HEADER_LEN as u16,
        flags: 0,
        payload_len: place.payload_len,
        generation: 0,
        epoch: 0,
        batch: 0,
        schema: 0,
        partition: 0,
        record_count: 0,
        source_first: 0,
        source_last: 0,
        frame_len: place.frame_len,
        kind: 0,
        encoding: 0,
        watermark: NO_WATERMARK,
        session: place.session.0,
        ring_pos: place.position.0,
        status: 0,
        attempt: 0,
        fence_slot: 0,
        payload_crc: 0,
        inputs_done: 0,
        frag_index: 0,
        header_crc: 0,
    }
}

fn sealed(raw: RawFrame) -> [u8; 128] {
    let mut bytes = raw.to_bytes();
    let crc = crc_of(&bytes);
    bytes[0x7C..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// CRC-32C over everything before it, as if PUBLISHED were clear.
fn crc_of(bytes: &[u8; 128]) -> u32 {
    let mut covered = [0; 0x7C];
    covered.copy_from_slice(&bytes[..0x7C]);
    covered[FLAGS_AT as usize] &= !(PUBLISHED as u8);
    crc32c::crc32c(&covered)
}

/// The bytes "TGVB".
const MAGIC: u32 = 0x4256_4754;
const VERSION: u16 = 1;

const MORE: u32 = 1 << 1;
const PAYLOAD_CRC: u32 = 1 << 2;
const REPLAY: u32 = 1 << 3;
const BARRIER: u32 = 1 << 4;
const EOS: u32 = 1 << 6;
const MUST_UNDERSTAND: u32 = 0xFFFF_0000;

const FILLER: u16 = 1;
const DATA: u16 = 2;
const RESPONSE: u16 = 3;

/// The encoding of payloads as records (6.1).
const RECORDS: u16 = 1;

const NO_WATERMARK: i64 = i64::MIN;

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
