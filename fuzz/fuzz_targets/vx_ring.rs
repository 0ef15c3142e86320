//! The runtime's end of a session whose worker writes any bytes into segment U, and changes them while they are read.

#![no_main]

use std::cell::Cell;

use tidegate_shm::{region::AccessError, sync::Ordering};
use tidegate_udf::{
    ring::{Access, Own, Peer, Publisher, Reader},
    wire::{
        frame::{Frame, Kind},
        ids::{BatchId, EpochId, FenceSlot, Generation, PartitionId, Position, SchemaId, SessionId},
        record::{Direction, Records},
        segment::{Geometry, Word},
        status::Status,
    },
};

const CAPACITY: u64 = 64 << 10;
const RING: Geometry =
    Geometry { capacity: CAPACITY, max_frame: 16 << 10, session: SessionId(7), max_in_flight: 4 };

/// What the worker writes: each look takes the next bytes of the input.
struct Hostile<'a> {
    input: &'a [u8],
    at: Cell<usize>,
    /// Whether words are near what an honest worker has, or anything.
    near: bool,
    own: &'a Mine,
}

impl Hostile<'_> {
    fn next(&self) -> u8 {
        let at = self.at.get();
        self.at.set(at + 1);
        self.input.get(at).copied().unwrap_or(0)
    }

    fn word(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.next()))
    }
}

impl Peer for &Hostile<'_> {
    fn load(&self, word: Word, _: Ordering) -> u64 {
        if !self.near {
            return self.word();
        }
        // Close to the bounds that there are.
        let step = u64::from(self.next() & 3);
        match word {
            Word::Head => self.own.granted.get() - CAPACITY + 128 * step,
            Word::Batches => step,
            Word::Consumed => 0,
            Word::ConsumedBatches => 0,
            Word::GrantPos => CAPACITY,
            Word::GrantBatches => 4,
        }
    }

    fn load_flags(&self, offset: u64, _: Ordering) -> Access<u32> {
        assert!(offset + 128 <= CAPACITY && offset.is_multiple_of(128));
        Ok(u32::from(self.next() | 1))
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Access<()> {
        within(offset, bytes.len())?;
        bytes.iter_mut().for_each(|byte| *byte = self.next());
        Ok(())
    }
}

/// What the runtime writes.
#[derive(Default)]
struct Mine {
    granted: Cell<u64>,
}

impl Own for &Mine {
    fn store(&self, word: Word, value: u64, _: Ordering) {
        if word == Word::GrantPos {
            assert!(value >= self.granted.get(), "a grant is never taken back");
            self.granted.set(value);
        }
    }

    fn store_flags(&self, offset: u64, _: u32, _: Ordering) -> Access<()> {
        within(offset, 128)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Access<()> {
        within(offset, bytes.len())
    }
}

fn within(offset: u64, len: usize) -> Access<()> {
    assert!(offset + len as u64 <= CAPACITY, "nothing outside of the ring is asked for");
    if offset + len as u64 <= CAPACITY {
        return Ok(());
    }
    Err(AccessError::OutOfBounds { offset, len: len as u64, available: CAPACITY })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&first, input)) = input.split_first() else { return };
    let mine = Mine::default();
    let hostile = Hostile { input, at: Cell::new(0), near: first & 1 == 1, own: &mine };
    let mut reader = Reader::new(&mine, &hostile, RING);
    reader.open();
    while hostile.at.get() < input.len() {
        let Ok(Some(taken)) = reader.take() else { break };
        let mut payload = Vec::new();
        if reader.copy_payload(&taken, &mut payload).is_err() {
            break;
        }
        assert!(payload.len() <= RING.max_frame as usize);
        let count = taken.frame.record_count;
        let _ = Records::parse(&payload, count, Direction::Response { inputs: 8 });
        let _ = reader.release(taken);
    }
    let other = Mine::default();
    let mut publisher = Publisher::new(&other, &hostile, RING);
    for batch in 1..=u64::from(first >> 4) {
        let payload = vec![0; usize::from(hostile.next()) * 64];
        if publisher.publish(&request(batch), &payload, || true).is_err() {
            break;
        }
    }
});

fn request(batch: u64) -> Frame {
    Frame {
        kind: Kind::Data,
        more: false,
        replay: false,
        barrier: false,
        end_of_source: false,
        generation: Generation(1),
        epoch: EpochId(1),
        batch: BatchId(batch),
        schema: SchemaId(0),
        partition: PartitionId(0),
        record_count: 1,
        source_first: Position(batch),
        source_last: Position(batch),
        watermark: None,
        status: Status::Ok,
        attempt: 0,
        fence_slot: FenceSlot(0),
        inputs_done: 0,
        frag_index: 0,
        payload_crc: None,
    }
}
