//! A segment in plain memory, for tests and models: words are atomics of the shim, each four bytes of a ring are memory
//! that two threads may not use at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use tidegate_shm::{
    region::AccessError,
    sync::{Arc, AtomicU32, AtomicU64, Ordering},
};

use super::{Own, Peer, words::Access};
use crate::wire::{
    frame::{FLAGS_AT, Frame, Kind},
    ids::{BatchId, EpochId, FenceSlot, Generation, PartitionId, Position, SchemaId, SessionId},
    segment::{Geometry, Word},
    status::Status,
};

#[cfg(loom)]
type Cell = tidegate_shm::sync::CheckedCell;

/// The same without a checker.
#[cfg(not(loom))]
struct Cell(AtomicU64);

#[cfg(not(loom))]
impl Cell {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }
    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn write(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// One segment; clones are the same one.
#[derive(Clone)]
pub(super) struct Memory {
    words: Arc<Vec<AtomicU64>>,
    flags: Arc<Vec<AtomicU32>>,
    cells: Arc<Vec<Cell>>,
}

pub(super) fn ring(capacity: u64, max_frame: u32, max_in_flight: u32) -> Geometry {
    Geometry { capacity, max_frame, session: SessionId(7), max_in_flight }
}

impl Memory {
    pub(super) fn new(capacity: u64) -> Self {
        let count = capacity as usize;
        Self {
            words: Arc::new((0..WORDS.len()).map(|_| AtomicU64::new(0)).collect()),
            flags: Arc::new((0..count / 128).map(|_| AtomicU32::new(0)).collect()),
            cells: Arc::new((0..count / 4).map(|_| Cell::new(0)).collect()),
        }
    }

    /// A word as whoever writes the segment stores it, right or wrong.
    #[cfg(not(loom))]
    pub(super) fn set(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    #[cfg(not(loom))]
    pub(super) fn get(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        &self.words[WORDS.iter().position(|&other| other == word).unwrap()]
    }

    fn flags_at(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(128));
        &self.flags[offset as usize / 128]
    }

    fn check(&self, offset: u64, len: usize) -> Access<()> {
        let available = self.cells.len() as u64 * 4;
        if offset + len as u64 <= available {
            return Ok(());
        }
        Err(AccessError::OutOfBounds { offset, len: len as u64, available })
    }
}

impl Own for Memory {
    fn store(&self, word: Word, value: u64, order: Ordering) {
        self.word(word).store(value, order);
    }

    fn store_flags(&self, offset: u64, flags: u32, order: Ordering) -> Access<()> {
        self.flags_at(offset).store(flags, order);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Access<()> {
        self.check(offset, bytes.len())?;
        for (index, four) in bytes.chunks(4).enumerate() {
            let mut value = [0; 8];
            value[..four.len()].copy_from_slice(four);
            self.cells[offset as usize / 4 + index].write(u64::from_le_bytes(value));
        }
        Ok(())
    }
}

impl Peer for Memory {
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.word(word).load(order)
    }

    fn load_flags(&self, offset: u64, order: Ordering) -> Access<u32> {
        Ok(self.flags_at(offset).load(order))
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Access<()> {
        self.check(offset, bytes.len())?;
        for (index, four) in bytes.chunks_mut(4).enumerate() {
            let value = self.cells[offset as usize / 4 + index].read().to_le_bytes();
            four.copy_from_slice(&value[..four.len()]);
        }
        Ok(())
    }
}

/// Flags have a place of their own here, which the copies leave out.
const _: () = assert!(FLAGS_AT == 8);

const WORDS: [Word; 6] =
    [Word::Head, Word::Batches, Word::Consumed, Word::ConsumedBatches, Word::GrantPos, Word::GrantBatches];

/// The header of a batch of one record.
pub(super) fn frame(batch: u64) -> Frame {
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
