//! Regions on tmpfs with both ends mapped, for the tests of this module.

use std::path::Path;

use tempfile::TempDir;
use tidegate_shm::clock::Nanos;
use tidegate_shm::region::{AllowedBases, PermissionPolicy};
use tidegate_shm::sync::{Arc, Ordering};

use super::{Fence, FrameMeta, MappedEpoch, RingWriter, WriteOptions};
use crate::config::{DriverConfig, Profile};
use crate::ids::{Epoch, PoolId, Seq, StreamId};
use crate::layout::{PoolSpec, SLOT_LEN, SlotCount, SlotIndex, Stride, header_slot_offset};
use crate::region::store::{RegionStore, StoreSettings};
use crate::region::{RegionOpener, RegionSpec, WriteRegions};
use crate::tensor::{Dtype, MajorOrder, TensorLayout};

/// The time of everything that does not care.
pub(super) const NOW: Nanos = Nanos(1_000);

/// One epoch, mapped for writing and for reading.
pub(super) struct Ring {
    pub(super) regions: Arc<WriteRegions>,
    pub(super) reader: MappedEpoch,
    pub(super) fence: Arc<Fence>,
    _base: TempDir,
}

impl Ring {
    /// Pools get the ids 1, 2, ... in the order of their strides here.
    pub(super) fn new(slots: u32, strides: &[u32]) -> Self {
        Self::prepared(slots, strides, |_| {})
    }

    /// As `new`, with the pool files changed before they are mapped.
    pub(super) fn prepared(slots: u32, strides: &[u32], prepare: impl Fn(&Path)) -> Self {
        let base = tempfile::Builder::new().prefix("tidegate-frame-test-").tempdir_in("/dev/shm").unwrap();
        let mut config = DriverConfig::default_node();
        config.shm.base_dir = base.path().to_owned();
        config.shm.allowed_base_dirs = vec![base.path().to_owned()];
        let pool = |(id, stride): (u16, &u32)| PoolSpec {
            pool_id: PoolId::new(id),
            stride: Stride::new(*stride).unwrap(),
        };
        let profile = Profile {
            name: "test".to_owned(),
            header_nslots: SlotCount::new(slots).unwrap(),
            payload_pools: (1..).zip(strides).map(pool).collect(),
        };
        let store = RegionStore::open(StoreSettings::new(&config.shm, &config.policies)).unwrap();
        let made = store.create_epoch(StreamId::new(10_000), &profile, Epoch::NONE, NOW).unwrap();
        made.spec().pools().iter().for_each(|pool| prepare(pool.uri.path()));
        let opener = RegionOpener::new(AllowedBases::new([base.path()]).0, PermissionPolicy::default());
        let spec = RegionSpec::clone(made.spec());
        let regions = Arc::new(opener.open_write(spec.clone()).unwrap());
        let reader = MappedEpoch::new(opener.open_read(spec).unwrap());
        Self { regions, reader, fence: Arc::new(Fence::unlimited()), _base: base }
    }

    pub(super) fn writer(&self, options: WriteOptions) -> RingWriter {
        RingWriter::new(Arc::clone(&self.regions), Arc::clone(&self.fence), options)
    }

    /// The commit word of a slot.
    pub(super) fn word(&self, index: u32) -> u64 {
        let offset = header_slot_offset(SlotIndex::new(index));
        self.reader.regions().header().atomic_u64(offset).unwrap().load(Ordering::Acquire)
    }

    pub(super) fn set_word(&self, index: u32, word: u64) {
        let offset = header_slot_offset(SlotIndex::new(index));
        self.regions.header().atomic_u64(offset).unwrap().store(word, Ordering::Release);
    }

    /// The bytes of a slot.
    pub(super) fn slot(&self, index: u32) -> [u8; SLOT_LEN] {
        let mut slot = [0; SLOT_LEN];
        self.reader.regions().header().read(header_slot_offset(SlotIndex::new(index)), &mut slot).unwrap();
        slot
    }

    /// Changes bytes of a slot behind everybody's back.
    pub(super) fn patch(&self, index: u32, at: usize, bytes: &[u8]) {
        let offset = header_slot_offset(SlotIndex::new(index)) + at as u64;
        self.regions.header().write(offset, bytes).unwrap();
    }
}

/// A vector of bytes.
pub(super) fn bytes(len: usize) -> TensorLayout {
    TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[len]).unwrap()
}

/// Writes `payload` as the next frame.
pub(super) fn put(writer: &mut RingWriter, payload: &[u8]) -> Seq {
    writer.put(&bytes(payload.len()), payload, FrameMeta::default(), NOW).unwrap()
}

/// What is due to be announced.
pub(super) fn due(writer: &mut RingWriter) -> Vec<u64> {
    std::iter::from_fn(|| writer.next_due()).map(|announcement| announcement.seq.get()).collect()
}

pub(super) const fn in_progress(seq: u64) -> u64 {
    seq << 1
}

pub(super) const fn committed(seq: u64) -> u64 {
    (seq << 1) | 1
}
