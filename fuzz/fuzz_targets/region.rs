//! A hostile region set: arbitrary file lengths and contents behind a correct description. Whatever is mapped can be read
//! completely without a fault, and every frame that is accepted lies inside its pool.

#![no_main]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate::shm::region::{AllowedBases, PermissionPolicy};
use tidegate::tensor::frame::MappedEpoch;
use tidegate::tensor::ids::{Epoch, PoolId, Seq, StreamId};
use tidegate::tensor::layout::{PoolSpec, SlotCount, Stride, Superblock, header_ring_len, pool_len};
use tidegate::tensor::region::{PoolRegion, RegionOpener, RegionSpec};
use tidegate::tensor::uri::RegionUri;

const SLOTS: u32 = 2;
const STRIDE: u32 = 128;

struct Place {
    _root: tempfile::TempDir,
    ring: PathBuf,
    pool: PathBuf,
    spec: RegionSpec,
    opener: RegionOpener,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let root = tempfile::tempdir_in("/dev/shm").expect("a directory in /dev/shm");
    let (ring, pool) = (root.path().join("header.ring"), root.path().join("1.pool"));
    for file in [&ring, &pool] {
        fs::write(file, []).expect("a file");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    let geometry = PoolSpec { pool_id: PoolId::new(1), stride: Stride::new(STRIDE).expect("a multiple of 64") };
    let spec = RegionSpec::new(
        StreamId::new(10_000),
        Epoch::new(7),
        SlotCount::new(SLOTS).expect("a power of two"),
        RegionUri::new(&ring, false).expect("a URI"),
        vec![PoolRegion { geometry, uri: RegionUri::new(&pool, false).expect("a URI") }],
    )
    .expect("a specification");
    let (bases, _) = AllowedBases::new(&[root.path().to_owned()]);
    let opener = RegionOpener::new(bases, PermissionPolicy::default());
    Place { ring, pool, spec, opener, _root: root }
});

fuzz_target!(|input: (bool, bool, &[u8], &[u8])| {
    let (good_superblocks, padded, ring, pool) = input;
    let place = &*PLACE;
    let slots = place.spec.slots();
    let geometry = place.spec.pools()[0].geometry;
    let mut ring = ring.to_vec();
    let mut pool = pool.to_vec();
    if padded {
        ring.resize(header_ring_len(slots) as usize, 0);
        pool.resize(pool_len(slots, geometry.stride) as usize, 0);
    }
    if good_superblocks && ring.len() >= 64 && pool.len() >= 64 {
        let superblock = Superblock::header_ring(Epoch::new(7), StreamId::new(10_000), slots, 1, 1);
        ring[..64].copy_from_slice(&superblock.encode());
        pool[..64].copy_from_slice(&Superblock::pool(&superblock, geometry.pool_id, geometry.stride).encode());
    }
    fs::write(&place.ring, &ring).expect("the ring");
    fs::write(&place.pool, &pool).expect("the pool");
    let Ok(regions) = place.opener.open_read(place.spec.clone()) else { return };
    let mapped = MappedEpoch::new(regions);
    let mut copy = Vec::new();
    for slot in 0..u64::from(SLOTS) {
        // The sequence that the slot itself claims, as a well-informed attacker would announce it.
        let start = 64 + 256 * slot as usize;
        let word = u64::from_le_bytes(ring[start..start + 8].try_into().expect("eight bytes"));
        if let Ok(frame) = mapped.read(Seq::new(word >> 1)) {
            frame.copy_to(&mut copy).expect("nobody writes");
            assert!(copy.len() <= STRIDE as usize);
            if let Ok(layout) = frame.layout() {
                assert!(layout.extent_bytes() <= copy.len() as u64);
            }
        }
    }
});
