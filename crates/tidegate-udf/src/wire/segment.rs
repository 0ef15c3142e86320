//! The headers of the three segments (chapter 3 of the sheet).
//!
//! | segment | written by | holds |
//! |---|---|---|
//! | F "fence" | runtime | one fence slot for each partition |
//! | D "down" | runtime | the ring of requests; what the runtime grants for the ring of responses |
//! | U "up" | worker | the ring of responses; what the worker grants for the ring of requests |
//!
//! D and U have the same words at the same places, see [`Word`]: each side writes those of its own segment and reads those
//! of the other. Words of the two sides are at least 128 bytes apart because they are in different segments; words of one
//! side that are written at different times have blocks of their own (VX-107).

use thiserror::Error;

use super::{
    frame::{FRAME_ALIGN, HEADER_LEN},
    function::FunctionKind,
    ids::{SchemaId, SessionId},
    layout::layout,
};

/// Bytes in front of a ring or of the fence slots.
pub const SEGMENT_HEADER: u64 = 4096;
/// Bytes of a fence slot.
pub const FENCE_SLOT: u64 = 64;
/// Offset of the word that says that a header of D or U is complete.
pub const READY_AT: usize = 0x78;
/// The same of F.
pub const FENCE_READY_AT: usize = 0x2C;

/// The 64-bit words of D and U that move while data flows; the number is the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Position after the last published frame of the ring in this segment.
    Head = 0x100,
    /// Batches published in it.
    Batches = 0x108,
    /// Position up to which the frames of the other ring were taken.
    Consumed = 0x200,
    /// Batches taken from it.
    ConsumedBatches = 0x208,
    /// Position up to which the other side may publish.
    GrantPos = 0x210,
    /// Batches that the other side may publish.
    GrantBatches = 0x218,
}

/// Offset of the bell of a segment, and of the count of its writer's threads that sleep on the other bell.
pub const BELL_AT: usize = 0x110;
/// See [`BELL_AT`].
pub const WAITERS_AT: usize = 0x180;
/// Offset of the state: [`RunState`] in D.
pub const RUN_STATE_AT: usize = 0x280;
/// Offsets of what a worker says about itself in U: its pid, its SDK, and the version of that.
pub const PID_AT: usize = 0x38;
/// See [`PID_AT`]: 1 Rust, 2 Python.
pub const SDK_AT: usize = 0x3C;
/// See [`PID_AT`].
pub const SDK_VERSION_AT: usize = 0x40;
/// Longest version.
pub const SDK_VERSION_LEN: usize = 32;
/// Offset of the heartbeat in U.
pub const HEARTBEAT_AT: usize = 0x280;
/// Offset of the number of the batch in user code, in U; 0 is none.
pub const BUSY_BATCH_AT: usize = 0x288;
/// Offset of the time since when, in U.
pub const BUSY_SINCE_AT: usize = 0x290;
/// Offset of the length of the last panic's message in U, 4 bytes in front of the text.
pub const PANIC_AT: usize = 0x400;
/// Longest such text.
pub const PANIC_LEN: usize = 1020;

layout! {
    /// The first bytes of F (3.2).
    pub(crate) struct RawFence[44] {
        magic: u64 = 0x00,
        layout_version: u32 = 0x08,
        header_bytes: u32 = 0x0C,
        segment_bytes: u64 = 0x10,
        instance: u64 = 0x18,
        slot_count: u32 = 0x20,
        slot_stride: u32 = 0x24,
        header_crc: u32 = 0x28,
    }
}

layout! {
    /// The first bytes of D (3.3).
    pub(crate) struct RawDown[120] {
        magic: u64 = 0x00,
        layout_version: u32 = 0x08,
        header_bytes: u32 = 0x0C,
        segment_bytes: u64 = 0x10,
        ring_offset: u64 = 0x18,
        ring_capacity: u64 = 0x20,
        frame_align: u32 = 0x28,
        max_frame: u32 = 0x2C,
        session: u64 = 0x30,
        instance: u64 = 0x38,
        pipeline: u64 = 0x40,
        runtime_pid: u32 = 0x48,
        worker: u32 = 0x4C,
        schema_in: u64 = 0x50,
        schema_out: u64 = 0x58,
        kind: u32 = 0x60,
        features: u32 = 0x64,
        max_response: u64 = 0x68,
        max_in_flight: u32 = 0x70,
        header_crc: u32 = 0x74,
    }
}

layout! {
    /// The first bytes of U (3.4), as the runtime fills them.
    pub(crate) struct RawUp[56] {
        magic: u64 = 0x00,
        layout_version: u32 = 0x08,
        header_bytes: u32 = 0x0C,
        segment_bytes: u64 = 0x10,
        ring_offset: u64 = 0x18,
        ring_capacity: u64 = 0x20,
        frame_align: u32 = 0x28,
        max_frame: u32 = 0x2C,
        session: u64 = 0x30,
    }
}

/// Size of a ring and of what goes into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the ring: a power of two from 64 KiB to 1 GiB.
    pub capacity: u64,
    /// Longest frame, header included: a multiple of 128, at most half of the ring.
    pub max_frame: u32,
    /// The session that the frames are of.
    pub session: SessionId,
    /// Batches that may be on their way.
    pub max_in_flight: u32,
}

impl Geometry {
    /// Checks sizes that somebody asked for or that a header states.
    ///
    /// # Errors
    /// The first one that is not possible (VX-120).
    pub fn check(&self) -> Result<(), SegmentFault> {
        let fault = |field, found, expected| Err(SegmentFault { field, found, expected });
        if !self.capacity.is_power_of_two() || !CAPACITY.contains(&self.capacity) {
            return fault("ring_capacity (power of two, 64 KiB to 1 GiB)", self.capacity, *CAPACITY.start());
        }
        let max_frame = u64::from(self.max_frame);
        if !self.max_frame.is_multiple_of(FRAME_ALIGN) || max_frame < 2 * u64::from(HEADER_LEN) {
            return fault("max_frame (multiple of 128, at least 256)", max_frame, FRAME_ALIGN.into());
        }
        if max_frame > self.capacity / 2 {
            return fault("max_frame (at most half of the ring)", max_frame, self.capacity / 2);
        }
        if self.max_in_flight == 0 {
            return fault("max_in_flight (at least 1)", 0, 1);
        }
        if self.session.0 == 0 {
            return fault("session_id (not 0)", 0, 1);
        }
        Ok(())
    }

    /// Bytes of the segment.
    pub fn segment_len(&self) -> u64 {
        SEGMENT_HEADER + self.capacity
    }

    /// Longest payload.
    pub fn max_payload(&self) -> usize {
        (self.max_frame - HEADER_LEN) as usize
    }
}

/// What D says besides the sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownHeader {
    /// The ring of requests.
    pub ring: Geometry,
    /// Random number of the runtime process.
    pub instance: u64,
    /// Number of the pipeline.
    pub pipeline: u64,
    /// Pid of the runtime, for people.
    pub runtime_pid: u32,
    /// Number of the worker.
    pub worker: u32,
    /// Schema of the inputs.
    pub schema_in: SchemaId,
    /// Schema of the outputs.
    pub schema_out: SchemaId,
    /// What the function is given.
    pub kind: FunctionKind,
    /// Longest answer to a batch, in bytes of frames.
    pub max_response: u64,
}

/// A header that does not fit what was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "segment header: {field} is {found:#x}, expected {expected:#x}; the two sides are of different versions"
)]
pub struct SegmentFault {
    /// The field, or the rule it breaks.
    pub field: &'static str,
    /// Its value.
    pub found: u64,
    /// What it has to be, or the bound that it breaks.
    pub expected: u64,
}

/// State of a session, in D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Not attached yet.
    Init,
    /// Data may flow.
    Run,
    /// The session is over: nobody reads U any more.
    Closed,
}

impl RunState {
    /// The number in D.
    pub fn code(self) -> u64 {
        match self {
            Self::Init => 0,
            Self::Run => 1,
            Self::Closed => 4,
        }
    }

    /// The state of a number; what is unknown is over.
    pub fn from_code(code: u64) -> Self {
        [Self::Init, Self::Run].into_iter().find(|state| state.code() == code).unwrap_or(Self::Closed)
    }
}

impl DownHeader {
    /// The bytes at the start of D.
    pub fn encode(&self) -> [u8; 120] {
        let ring = &self.ring;
        let mut raw = RawDown {
            magic: DOWN,
            layout_version: VERSION,
            header_bytes: SEGMENT_HEADER as u32,
            segment_bytes: ring.segment_len(),
            ring_offset: SEGMENT_HEADER,
            ring_capacity: ring.capacity,
            frame_align: FRAME_ALIGN,
            max_frame: ring.max_frame,
            session: ring.session.0,
            instance: self.instance,
            pipeline: self.pipeline,
            runtime_pid: self.runtime_pid,
            worker: self.worker,
            schema_in: self.schema_in.0,
            schema_out: self.schema_out.0,
            kind: self.kind.code(),
            features: 0,
            max_response: self.max_response,
            max_in_flight: ring.max_in_flight,
            header_crc: 0,
        };
        raw.header_crc = crc32c::crc32c(&raw.to_bytes()[..0x74]);
        raw.to_bytes()
    }

    /// Reads the bytes at the start of a D of `len` bytes.
    ///
    /// # Errors
    /// The first field that is wrong (VX-120).
    pub fn decode(bytes: &[u8; 120], len: u64) -> Result<Self, SegmentFault> {
        let raw = RawDown::from_bytes(bytes);
        expect("D.magic", raw.magic, DOWN)?;
        expect("D.layout_version", raw.layout_version.into(), VERSION.into())?;
        expect("D.header_bytes", raw.header_bytes.into(), SEGMENT_HEADER)?;
        expect("D.header_crc32c", raw.header_crc.into(), crc32c::crc32c(&bytes[..0x74]).into())?;
        expect("D.ring_offset", raw.ring_offset, SEGMENT_HEADER)?;
        expect("D.frame_align", raw.frame_align.into(), FRAME_ALIGN.into())?;
        expect("D.segment_bytes", raw.segment_bytes, len)?;
        let ring = Geometry {
            capacity: raw.ring_capacity,
            max_frame: raw.max_frame,
            session: SessionId(raw.session),
            max_in_flight: raw.max_in_flight,
        };
        ring.check()?;
        expect("D.segment_bytes", raw.segment_bytes, ring.segment_len())?;
        let unknown = SegmentFault { field: "D.kind (1 to 3)", found: raw.kind.into(), expected: 1 };
        let kind = FunctionKind::from_code(raw.kind).ok_or(unknown)?;
        Ok(Self {
            ring,
            instance: raw.instance,
            pipeline: raw.pipeline,
            runtime_pid: raw.runtime_pid,
            worker: raw.worker,
            schema_in: SchemaId(raw.schema_in),
            schema_out: SchemaId(raw.schema_out),
            kind,
            max_response: raw.max_response,
        })
    }
}

/// The bytes at the start of U.
pub fn encode_up(ring: &Geometry) -> [u8; 56] {
    RawUp {
        magic: UP,
        layout_version: VERSION,
        header_bytes: SEGMENT_HEADER as u32,
        segment_bytes: ring.segment_len(),
        ring_offset: SEGMENT_HEADER,
        ring_capacity: ring.capacity,
        frame_align: FRAME_ALIGN,
        max_frame: ring.max_frame,
        session: ring.session.0,
    }
    .to_bytes()
}

/// Reads the bytes at the start of a U of `len` bytes, of the session of `down`.
///
/// # Errors
/// The first field that is wrong.
pub fn decode_up(bytes: &[u8; 56], len: u64, down: &DownHeader) -> Result<Geometry, SegmentFault> {
    let raw = RawUp::from_bytes(bytes);
    expect("U.magic", raw.magic, UP)?;
    expect("U.layout_version", raw.layout_version.into(), VERSION.into())?;
    expect("U.header_bytes", raw.header_bytes.into(), SEGMENT_HEADER)?;
    expect("U.ring_offset", raw.ring_offset, SEGMENT_HEADER)?;
    expect("U.frame_align", raw.frame_align.into(), FRAME_ALIGN.into())?;
    expect("U.session_id", raw.session, down.ring.session.0)?;
    let ring = Geometry {
        capacity: raw.ring_capacity,
        max_frame: raw.max_frame,
        session: SessionId(raw.session),
        max_in_flight: down.ring.max_in_flight,
    };
    ring.check()?;
    expect("U.segment_bytes", raw.segment_bytes, len)?;
    expect("U.segment_bytes", raw.segment_bytes, ring.segment_len())?;
    Ok(ring)
}

/// Bytes of an F with so many slots.
pub fn fence_len(slots: u32) -> u64 {
    (SEGMENT_HEADER + FENCE_SLOT * u64::from(slots)).next_multiple_of(4096)
}

/// The bytes at the start of F.
pub fn encode_fence(instance: u64, slots: u32) -> [u8; 44] {
    let mut raw = RawFence {
        magic: FENCE,
        layout_version: VERSION,
        header_bytes: SEGMENT_HEADER as u32,
        segment_bytes: fence_len(slots),
        instance,
        slot_count: slots,
        slot_stride: FENCE_SLOT as u32,
        header_crc: 0,
    };
    raw.header_crc = crc32c::crc32c(&raw.to_bytes()[..0x28]);
    raw.to_bytes()
}

/// Reads the bytes at the start of an F of `len` bytes, of the runtime of `down`: the number of slots.
///
/// # Errors
/// The first field that is wrong.
pub fn decode_fence(bytes: &[u8; 44], len: u64, down: &DownHeader) -> Result<u32, SegmentFault> {
    let raw = RawFence::from_bytes(bytes);
    expect("F.magic", raw.magic, FENCE)?;
    expect("F.layout_version", raw.layout_version.into(), VERSION.into())?;
    expect("F.header_bytes", raw.header_bytes.into(), SEGMENT_HEADER)?;
    expect("F.header_crc32c", raw.header_crc.into(), crc32c::crc32c(&bytes[..0x28]).into())?;
    expect("F.slot_stride", raw.slot_stride.into(), FENCE_SLOT)?;
    expect("F.vertex_instance_id", raw.instance, down.instance)?;
    if raw.slot_count == 0 || raw.slot_count > MAX_FENCE_SLOTS {
        let (found, expected) = (raw.slot_count.into(), MAX_FENCE_SLOTS.into());
        return Err(SegmentFault { field: "F.slot_count (1 to 4096)", found, expected });
    }
    expect("F.segment_bytes", raw.segment_bytes, len)?;
    expect("F.segment_bytes", raw.segment_bytes, fence_len(raw.slot_count))?;
    Ok(raw.slot_count)
}

fn expect(field: &'static str, found: u64, expected: u64) -> Result<(), SegmentFault> {
    if found == expected { Ok(()) } else { Err(SegmentFault { field, found, expected }) }
}

/// Most slots of F.
pub const MAX_FENCE_SLOTS: u32 = 4096;

const VERSION: u32 = 1;
/// The bytes "TGVXSEGF", "TGVXSEGD", "TGVXSEGU".
const FENCE: u64 = 0x4647_4553_5856_4754;
const DOWN: u64 = 0x4447_4553_5856_4754;
const UP: u64 = 0x5547_4553_5856_4754;
const CAPACITY: std::ops::RangeInclusive<u64> = 1 << 16..=1 << 30;

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
