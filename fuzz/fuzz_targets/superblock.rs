//! Superblocks: every 64 bytes decode, encode back, and are judged without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::tensor::ids::{Epoch, PoolId, StreamId};
use tidegate::tensor::layout::{Expected, LAYOUT_VERSION, SUPERBLOCK_LEN, SlotCount, Stride, Superblock};

fuzz_target!(|bytes: [u8; SUPERBLOCK_LEN]| {
    let superblock = Superblock::decode(&bytes);
    assert_eq!(superblock.encode(), bytes);
    let nslots = SlotCount::new(8).expect("a power of two");
    let stride = Stride::new(4096).expect("a multiple of 64");
    let expected =
        Expected { layout_version: LAYOUT_VERSION, epoch: Epoch::new(7), stream_id: StreamId::new(10_000), nslots };
    if superblock.check_header_ring(&expected).is_ok() {
        assert_eq!(superblock.epoch, Epoch::new(7));
        assert_eq!(superblock.nslots, 8);
    }
    if superblock.check_pool(&expected, PoolId::new(1), stride).is_ok() {
        assert_eq!(superblock.pool_id, PoolId::new(1));
        assert_eq!(superblock.stride_bytes, 4096);
    }
});
