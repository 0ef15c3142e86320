//! Every named step of the protocol under every use of a block (25.11): a process ends there while others read and write,
//! and what it leaves, what the next one makes of it and what the others notice is compared with table 5.10.
//!
//! A value is made of its id, and digests are enforced, so a value under a wrong id, a torn, a lost and a repeated one
//! all show.

mod adoption;
mod creation;
mod reader;
mod registry;
mod waiting;
mod writer;

use std::{mem::offset_of, path::Path, time::Duration};

use tidegate_hub::{
    block::{AttachOptions, Role},
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::{Consumer, ReadSlot},
    core::{Start, codec::SlotState},
    error::AcquireError,
    inspect::Inspector,
    layout::{DigestAlg, DigestPolicy, Overflow, SyncPolicy, pages::ControlPage},
    producer::Producer,
};
use tidegate_shm::sync::Ordering::Acquire;

use crate::world::{LONG, config, consumer_config};

pub(super) const KILLED: Option<i32> = Some(9);

/// How a block is used: what differs in the steps that are passed, and in what may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// One slot; the writer waits while it is read.
    Single,
    /// Two slots; the writer passes over the one that is read.
    DoubleBuffer,
    /// A queue for one.
    SingleReader,
    /// A queue for all.
    AllReaders,
    /// A queue that overwrites.
    DropOldest,
    /// A ring of which only the newest value counts.
    Newest,
}

pub(super) const USES: [Use; 6] =
    [Use::Single, Use::DoubleBuffer, Use::SingleReader, Use::AllReaders, Use::DropOldest, Use::Newest];

impl Use {
    pub(super) fn config(self, dir: &Path) -> HubConfig {
        let ring = BufferPolicy::ring(8);
        let (policy, sync, overflow) = match self {
            Self::Single => (BufferPolicy::Single, SyncPolicy::LatestOnly, Overflow::Block),
            Self::DoubleBuffer => (BufferPolicy::DoubleBuffer, SyncPolicy::LatestOnly, Overflow::Block),
            Self::SingleReader => (ring, SyncPolicy::SingleReader, Overflow::Block),
            Self::AllReaders => (ring, SyncPolicy::AllReaders, Overflow::Block),
            Self::DropOldest => (ring, SyncPolicy::SingleReader, Overflow::DropOldest),
            Self::Newest => (ring, SyncPolicy::LatestOnly, Overflow::Block),
        };
        HubConfig {
            sync,
            overflow,
            digest_alg: DigestAlg::Blake3,
            digest_policy: DigestPolicy::Enforced,
            unlink_on_close: false,
            ..config(dir, policy)
        }
    }

    /// Only the newest value counts.
    pub(super) fn is_latest(self) -> bool {
        matches!(self, Self::Single | Self::DoubleBuffer | Self::Newest)
    }

    /// The writer does not wait for those who have not read a value yet.
    pub(super) fn is_lossy(self) -> bool {
        self.is_latest() || self == Self::DropOldest
    }

    /// The writer passes over a slot that is read.
    pub(super) fn skips(self) -> bool {
        matches!(self, Self::DoubleBuffer | Self::Newest)
    }

    /// The largest batch that leaves a reader something.
    pub(super) fn batch(self) -> Option<u32> {
        (!matches!(self, Self::Single | Self::DoubleBuffer)).then_some(4)
    }
}

/// A consumer that cleans up after nobody, from the oldest id on.
pub(super) fn bystander_config(dir: &Path) -> ConsumerConfig {
    ConsumerConfig { recover_writer: false, start: Some(Start::Oldest), ..consumer_config(dir) }
}

pub(super) fn join(name: &str, dir: &Path) -> Consumer {
    Consumer::attach(name, &bystander_config(dir)).unwrap()
}

/// The value of `id`.
pub(super) fn value(id: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (place, word) in (1..).zip(bytes.chunks_exact_mut(8)) {
        word.copy_from_slice(
            &(id + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.rotate_left(place)).to_le_bytes(),
        );
    }
    bytes
}

pub(super) fn check(slot: &ReadSlot<'_>) -> u64 {
    let id = slot.id().0;
    assert!(slot.to_vec() == value(id), "{id}: a value under another id, or a torn one");
    assert!(slot.validate(), "{id}");
    id
}

pub(super) fn write_one(producer: &Producer, timeout: Timeout) -> Result<u64, AcquireError> {
    let mut slot = producer.write(timeout)?;
    let id = slot.id().0;
    slot.put_bytes(&value(id)).unwrap();
    slot.commit().unwrap();
    Ok(id)
}

pub(super) fn write_batch(producer: &Producer, n: u32) {
    let mut batch = producer.acquire_write_batch(n, LONG).unwrap();
    for index in 0..n as usize {
        let id = batch.id(index).unwrap().0;
        batch.put_bytes(index, &value(id)).unwrap();
    }
    batch.commit().unwrap();
}

/// One of the others: reads what comes and remembers what it was.
pub(super) struct Bystander {
    pub(super) consumer: Consumer,
    pub(super) seen: Vec<u64>,
    /// Ids that it was told were lost.
    pub(super) lost: u64,
}

impl Bystander {
    pub(super) fn new(consumer: Consumer) -> Self {
        Self { consumer, seen: Vec::new(), lost: 0 }
    }

    /// Reads one value if there is one; false if there is none for now.
    pub(super) fn read(&mut self, timeout: Timeout) -> bool {
        match self.consumer.next(timeout) {
            Ok(slot) => {
                let id = check(&slot);
                assert!(self.seen.last().is_none_or(|last| *last < id), "{id} after {:?}", self.seen);
                self.seen.push(id);
                true
            }
            Err(AcquireError::Lapped { lost }) => {
                self.lost += lost;
                true
            }
            Err(AcquireError::QueueEmpty | AcquireError::Timeout | AcquireError::NotReady) => false,
            // A writer that does not come to its step ends in order.
            Err(AcquireError::Closed { .. }) => false,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Reads for a moment.
    pub(super) fn read_on(&mut self) {
        self.read(Timeout::After(Duration::from_millis(1)));
    }

    /// Reads everything there is.
    pub(super) fn drain(&mut self) {
        while self.read(Timeout::Immediate) {}
    }
}

/// What a block is found in.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) write: u64,
    pub(super) commit: u64,
    pub(super) floor: u64,
    pub(super) intent: u64,
    /// Ids that are being written.
    pub(super) open: Vec<u64>,
    /// Ids that are about to be overwritten.
    pub(super) draining: Vec<u64>,
    pub(super) newest: Option<u64>,
}

pub(super) fn look(inspector: &Inspector) -> Look {
    let slots = inspector.diagnose_all();
    let ids = |state| {
        let mut ids: Vec<u64> =
            slots.iter().filter(|slot| slot.state.is(state)).filter_map(|slot| slot.slot_id).collect();
        ids.sort_unstable();
        ids
    };
    let indices = inspector.index_summary();
    let views = inspector.block().inspector_views().unwrap();
    let intent = views.control.row().u64::<{ offset_of!(ControlPage, floor_intent) }>().load(Acquire);
    Look {
        write: indices.write,
        commit: indices.commit,
        floor: indices.floor,
        intent,
        open: ids(SlotState::Writing),
        draining: ids(SlotState::Draining),
        newest: ids(SlotState::Committed).last().copied(),
    }
}

pub(super) fn inspect(name: &str, dir: &Path) -> Inspector {
    let options = AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(Role::Inspector) };
    Inspector::open(name, &options).unwrap()
}

/// Nothing impossible is in the block, down to the bytes of the values.
pub(super) fn is_valid(inspector: &Inspector, step: &str) {
    let report = inspector.integrity(true);
    assert!(report.is_valid(), "{step}: {:?}", report.findings);
}

/// Writes several times around the ring; `consumer`, which has read everything, gets each value.
pub(super) fn goes_on(producer: &Producer, bystander: &mut Bystander) {
    for _ in 0..3 * producer.descriptor().spec.slot_count {
        let id = write_one(producer, LONG).unwrap();
        assert!(bystander.read(LONG));
        assert_eq!(bystander.seen.last(), Some(&id));
    }
}
