//! Rules of chapter 6 on single cases, and on arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::ids::{Epoch, StreamId};
use crate::tensor::{Dtype, MajorOrder, RawTensorHeader, TensorLayout};

const SLOTS: SlotCount = SlotCount::known(8);
const STRIDE: Stride = Stride::known(4096);
const POOL: PoolId = PoolId::new(1);
const EXPECTED: Expected =
    Expected { layout_version: 1, epoch: Epoch::new(7), stream_id: StreamId::new(10_000), nslots: SLOTS };

fn ring() -> Superblock {
    Superblock::header_ring(EXPECTED.epoch, EXPECTED.stream_id, SLOTS, 1234, 1000)
}

fn pool() -> Superblock {
    Superblock::pool(&ring(), POOL, STRIDE)
}

fn check_pool(found: Superblock) -> Result<(), SuperblockError> {
    found.check_pool(&EXPECTED, POOL, STRIDE)
}

fn mismatch(
    region: RegionKind,
    field: SuperblockField,
    expected: u64,
    found: u64,
) -> Result<(), SuperblockError> {
    Err(SuperblockError::Mismatch { region, field, expected, found })
}

fn tensor() -> TensorLayout {
    TensorLayout::contiguous(Dtype::Uint16, MajorOrder::Row, &[2, 3]).unwrap()
}

/// Slot 5 of a stream with the pool of this module.
fn slot() -> SlotHeader {
    SlotHeader::new(SlotIndex::new(5), POOL, 12, &tensor())
}

fn encoded(header: &SlotHeader) -> [u8; SLOT_LEN] {
    let mut bytes = [0xaa; SLOT_LEN];
    header.encode(&mut bytes);
    bytes
}

fn span(header: &SlotHeader) -> Result<PayloadSpan, SlotError> {
    header.payload_span(SlotIndex::new(5), SLOTS, |id| (id == POOL).then_some(STRIDE))
}

/// Rules: TP-072, TP-073, TP-074, TP-075, TP-077, TP-078.
#[test]
fn superblocks_have_the_fixed_layout() {
    let bytes = ring().encode();
    assert_eq!(bytes.len(), 64);
    assert_eq!(bytes[..8], [0x31, 0x4d, 0x48, 0x53, 0x4c, 0x50, 0x4f, 0x54]);
    assert_eq!(bytes[EPOCH_OFFSET..20], 7_u64.to_le_bytes());
    assert_eq!((bytes[24], bytes[26], bytes[28]), (1, 0, 8));
    assert_eq!(bytes[32..40], [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[ACTIVITY_OFFSET..], 1000_u64.to_le_bytes());
    assert_eq!((PID_OFFSET % 8, START_OFFSET % 8, ACTIVITY_OFFSET % 8), (0, 0, 0));

    let bytes = pool().encode();
    assert_eq!((bytes[24], bytes[26]), (2, 1));
    assert_eq!(bytes[32..40], [0, 16, 0, 0, 0, 16, 0, 0]);
}

/// Rules: TP-075, TC-039.
#[test]
fn refuses_the_magic_of_the_published_text() {
    let magic = u64::from_be_bytes(*b"TPOLSHM1");
    for (region, found) in [
        (RegionKind::HeaderRing, Superblock { magic, ..ring() }.check_header_ring(&EXPECTED)),
        (RegionKind::PayloadPool, check_pool(Superblock { magic, ..pool() })),
    ] {
        assert_eq!(found, mismatch(region, SuperblockField::Magic, MAGIC, magic));
    }
}

/// Rules: TP-080, TC-040.
#[test]
fn refuses_another_version_epoch_stream_or_kind() {
    let both = |change: &dyn Fn(Superblock) -> Superblock, field, expected, found| {
        let refused = change(ring()).check_header_ring(&EXPECTED);
        assert_eq!(refused, mismatch(RegionKind::HeaderRing, field, expected, found));
        let refused = check_pool(change(pool()));
        assert_eq!(refused, mismatch(RegionKind::PayloadPool, field, expected, found));
    };
    assert_eq!(ring().check_header_ring(&EXPECTED), Ok(()));
    assert_eq!(check_pool(pool()), Ok(()));
    both(&|found| Superblock { layout_version: 2, ..found }, SuperblockField::LayoutVersion, 1, 2);
    both(&|found| Superblock { epoch: Epoch::new(8), ..found }, SuperblockField::Epoch, 7, 8);
    let other = StreamId::new(10_001);
    both(&|found| Superblock { stream_id: other, ..found }, SuperblockField::StreamId, 10_000, 10_001);

    let swapped = Superblock { region_type: 2, ..ring() }.check_header_ring(&EXPECTED);
    assert_eq!(swapped, mismatch(RegionKind::HeaderRing, SuperblockField::RegionType, 1, 2));
    let swapped = check_pool(Superblock { region_type: 1, ..pool() });
    assert_eq!(swapped, mismatch(RegionKind::PayloadPool, SuperblockField::RegionType, 2, 1));
    let negative = check_pool(Superblock { region_type: -1, ..pool() });
    assert_eq!(negative, mismatch(RegionKind::PayloadPool, SuperblockField::RegionType, 2, 0xffff));

    // A version we do not know, announced alone or by file and announce alike.
    let announced = Expected { layout_version: 2, ..EXPECTED };
    for layout_version in [1, 2] {
        let refused = Superblock { layout_version, ..ring() }.check_header_ring(&announced);
        assert_eq!(refused, mismatch(RegionKind::HeaderRing, SuperblockField::LayoutVersion, 1, 2));
    }
}

/// Rules: TP-078, TC-041.
#[test]
fn a_header_ring_has_pool_0_and_slots_of_256_bytes() {
    let check = |found: Superblock| found.check_header_ring(&EXPECTED);
    let refused = check(Superblock { pool_id: POOL, ..ring() });
    assert_eq!(refused, mismatch(RegionKind::HeaderRing, SuperblockField::PoolId, 0, 1));
    let refused = check(Superblock { slot_bytes: 128, ..ring() });
    assert_eq!(refused, mismatch(RegionKind::HeaderRing, SuperblockField::SlotBytes, 256, 128));
    assert_eq!(check(Superblock { stride_bytes: 4096, ..ring() }), Ok(()), "ignored");
}

/// Rules: TP-077, TC-042.
#[test]
fn a_pool_may_leave_slot_bytes_unset() {
    for slot_bytes in [4096, 0, u32::MAX] {
        assert_eq!(check_pool(Superblock { slot_bytes, ..pool() }), Ok(()));
    }
    let refused = check_pool(Superblock { slot_bytes: 512, ..pool() });
    assert_eq!(refused, mismatch(RegionKind::PayloadPool, SuperblockField::SlotBytes, 4096, 512));
}

/// Rules: TP-082, TP-083, TC-043.
#[test]
fn ring_and_pools_share_a_power_of_two_of_slots() {
    for slots in [0, 3, 6, 0xffff_ffff] {
        assert_eq!(SlotCount::new(slots), Err(GeometryError::SlotCount { found: slots }));
    }
    for slots in [1, 8, 1 << 31] {
        assert_eq!(SlotCount::new(slots).unwrap().get(), slots);
    }
    let refused = Superblock { nslots: 6, ..ring() }.check_header_ring(&EXPECTED);
    assert_eq!(refused, mismatch(RegionKind::HeaderRing, SuperblockField::Nslots, 8, 6));
    let refused = check_pool(Superblock { nslots: 16, ..pool() });
    assert_eq!(refused, mismatch(RegionKind::PayloadPool, SuperblockField::Nslots, 8, 16));
}

/// Rules: TP-080, TP-084, TC-044.
#[test]
fn a_stride_is_a_multiple_of_64() {
    for bytes in [0, 32, 63, 100, u32::MAX] {
        assert_eq!(Stride::new(bytes), Err(GeometryError::Stride { found: bytes }));
        let refused = check_pool(Superblock { stride_bytes: bytes, ..pool() });
        assert_eq!(
            refused,
            mismatch(RegionKind::PayloadPool, SuperblockField::StrideBytes, 4096, u64::from(bytes))
        );
    }
    for bytes in [64, 640, 4096, u32::MAX - 63] {
        assert_eq!(Stride::new(bytes).unwrap().get(), bytes);
    }
    let refused = check_pool(Superblock { pool_id: PoolId::new(2), ..pool() });
    assert_eq!(refused, mismatch(RegionKind::PayloadPool, SuperblockField::PoolId, 1, 2));
}

/// Rules: TP-081.
#[test]
fn a_mapped_region_is_recognised_as_changed() {
    let check = |found: Superblock| found.check_unchanged(RegionKind::HeaderRing, EXPECTED.epoch);
    assert_eq!(check(Superblock { activity_timestamp_ns: 5, ..ring() }), Ok(()));
    for changed in [
        Superblock { magic: 0, ..ring() },
        Superblock { layout_version: 0, ..ring() },
        Superblock { epoch: Epoch::new(8), ..ring() },
    ] {
        assert!(check(changed).is_err(), "{changed:?}");
    }
}

/// Rules: TP-086.
#[test]
fn sizes_are_64_bit() {
    let (slots, stride) = (SlotCount::new(1 << 31).unwrap(), Stride::new(u32::MAX - 63).unwrap());
    assert_eq!(header_ring_len(slots), 64 + (256 << 31));
    assert_eq!(u128::from(pool_len(slots, stride)), 64 + (1 << 31) * u128::from(u32::MAX - 63));
    let last = SlotIndex::new((1 << 31) - 1);
    assert_eq!(header_slot_offset(last) + SLOT_LEN as u64, header_ring_len(slots));
    assert_eq!(payload_slot_offset(last, stride) + u64::from(stride.get()), pool_len(slots, stride));
    assert_eq!(payload_slot_offset(SlotIndex::new(5), STRIDE), 64 + 5 * 4096);
}

#[test]
fn a_sequence_uses_its_slot_modulo_the_ring() {
    let slot = |seq| SLOTS.index_of(Seq::new(seq)).get();
    assert_eq!([slot(0), slot(7), slot(8), slot(13)], [0, 7, 0, 5]);
    assert_eq!(slot(Seq::MAX.get()), 7);
    assert_eq!(SlotCount::new(1).unwrap().index_of(Seq::new(9)).get(), 0);
    let large = SlotCount::new(1 << 31).unwrap();
    assert_eq!(large.index_of(Seq::new(u64::MAX)).get(), (1 << 31) - 1);
}

/// Rules: TP-101, TC-060.
#[test]
fn a_payload_goes_to_the_smallest_pool_that_holds_it() {
    let pool = |id, bytes| PoolSpec { pool_id: PoolId::new(id), stride: Stride::new(bytes).unwrap() };
    let pools = [pool(9, 8192), pool(3, 4096), pool(2, 8192)];
    let selected = |len| select_pool(pools.iter().copied(), len).map(|at| pools[at].pool_id.get());
    assert_eq!([selected(0), selected(4096)], [Some(3), Some(3)]);
    assert_eq!([selected(4097), selected(5000), selected(8192)], [Some(2), Some(2), Some(2)]);
    assert_eq!([selected(8193), selected(9000), selected(usize::MAX)], [None, None, None]);
    assert_eq!(select_pool(std::iter::empty(), 0), None);
}

/// Rules: TP-089, TP-092, TP-097.
#[test]
fn encoding_overwrites_all_but_the_commit_word() {
    let bytes = encoded(&slot());
    assert_eq!(bytes[..8], [0xaa; 8]);
    let mut zeroed = [0; SLOT_LEN];
    slot().encode(&mut zeroed);
    assert_eq!(bytes[8..], zeroed[8..]);
    assert_eq!(bytes[34..60], [0; 26]);
    assert_eq!((bytes[77], &bytes[147..]), (0, [0; 109].as_slice()));
    assert_eq!((&bytes[83 + 8..115], &bytes[115 + 8..147]), ([0; 24].as_slice(), [0; 24].as_slice()));
}

/// Rules: TP-097.
#[test]
fn padding_is_ignored() {
    let mut bytes = encoded(&slot());
    bytes[34..60].fill(0xff);
    bytes[77] = 0xff;
    bytes[147..].fill(0xff);
    assert_eq!(SlotHeader::decode(&bytes), Ok(slot()));
}

/// Rules: TP-088, TC-056.
#[test]
fn refuses_another_embedded_header() {
    let refused = |offset: usize, value: u8| {
        let mut bytes = encoded(&slot());
        bytes[offset] = value;
        SlotHeader::decode(&bytes).unwrap_err()
    };
    assert_eq!(refused(60, 191), SlotError::HeaderBytes { found: 191 });
    assert_eq!(refused(63, 1), SlotError::HeaderBytes { found: 192 + (1 << 24) });
    assert_eq!(refused(64, 183), SlotError::EmbeddedHeader { found: [183, 52, 900, 1] });
    assert_eq!(refused(66, 51), SlotError::EmbeddedHeader { found: [184, 51, 900, 1] });
    assert_eq!(refused(68, 0x85), SlotError::EmbeddedHeader { found: [184, 52, 901, 1] });
    assert_eq!(refused(70, 2), SlotError::EmbeddedHeader { found: [184, 52, 900, 2] });
}

/// Rules: TP-100, TP-102, TP-103, TC-057.
#[test]
fn refuses_payloads_elsewhere() {
    let found = span(&slot()).unwrap();
    assert_eq!(found, PayloadSpan { pool_id: POOL, offset: 64 + 5 * 4096, len: 12 });

    let refused = |header: SlotHeader| span(&header).unwrap_err();
    let elsewhere = refused(SlotHeader { payload_slot: 4, ..slot() });
    assert_eq!(elsewhere, SlotError::PayloadSlot { expected: 5, found: 4 });
    let unknown = refused(SlotHeader { pool_id: PoolId::new(9), ..slot() });
    assert_eq!(unknown, SlotError::UnknownPool { found: PoolId::new(9) });
    let long = refused(SlotHeader { values_len: 4097, ..slot() });
    assert_eq!(long, SlotError::ValuesLen { found: 4097, max: 4096 });
    let shifted = refused(SlotHeader { payload_offset: 1, ..slot() });
    assert_eq!(shifted, SlotError::PayloadOffset { found: 1 });
    assert!(span(&SlotHeader { values_len: 4096, ..slot() }).is_ok());

    // An index that no pool has, even if slot and reader agree on it.
    let beyond = SlotHeader { payload_slot: 8, ..slot() };
    let refused = beyond.payload_span(SlotIndex::new(8), SLOTS, |_| Some(STRIDE));
    assert_eq!(refused, Err(SlotError::PayloadSlot { expected: 8, found: 8 }));
}

/// Rules: TP-104, TC-058.
#[test]
fn a_frame_without_payload_is_valid() {
    assert_eq!(span(&SlotHeader { values_len: 0, ..slot() }).unwrap().len, 0);
}

/// Rules: TP-014, TP-015.
#[test]
fn unknown_times_and_versions() {
    let decoded = |range: std::ops::Range<usize>, byte: u8| {
        let mut bytes = encoded(&SlotHeader { timestamp_ns: Some(9), meta_version: Some(9), ..slot() });
        bytes[range].fill(byte);
        let header = SlotHeader::decode(&bytes).unwrap();
        (header.timestamp_ns, header.meta_version)
    };
    assert_eq!(decoded(22..22, 0), (Some(9), Some(9)));
    assert_eq!(decoded(22..30, 0), (None, Some(9)));
    assert_eq!(decoded(22..30, 0xff), (None, Some(9)));
    assert_eq!(decoded(30..34, 0xff), (Some(9), None));
    assert_eq!(decoded(30..34, 0), (Some(9), Some(0)));
    let absent = encoded(&slot());
    assert_eq!(absent[22..34], [0xff; 12]);
}

proptest! {
    #[test]
    fn superblocks_round_trip(bytes in proptest::array::uniform32(any::<[u8; 2]>())) {
        let bytes: [u8; SUPERBLOCK_LEN] = bytes.concat().try_into().unwrap();
        let decoded = Superblock::decode(&bytes);
        prop_assert_eq!(decoded.encode(), bytes);
        prop_assert!(decoded.check_header_ring(&EXPECTED).is_err());
        prop_assert!(decoded.check_pool(&EXPECTED, POOL, STRIDE).is_err());
    }

    /// Rules: TP-080.
    #[test]
    fn every_checked_byte_is_checked(at in 0..40_usize, flip in 1..=255_u8) {
        let mut bytes = ring().encode();
        bytes[at] ^= flip;
        let is_ignored = (36..40).contains(&at);
        prop_assert_eq!(Superblock::decode(&bytes).check_header_ring(&EXPECTED).is_ok(), is_ignored);

        let mut bytes = pool().encode();
        bytes[at] ^= flip;
        let found = Superblock::decode(&bytes);
        let is_unset = found.slot_bytes == 0;
        prop_assert_eq!(check_pool(found).is_ok(), is_unset);
    }

    #[test]
    fn slots_round_trip(
        (values_len, payload_slot, payload_offset) in any::<(u32, u32, u32)>(),
        pool_id: u16,
        timestamp_ns in proptest::option::of(1..u64::MAX),
        meta_version in proptest::option::of(0..u32::MAX),
        body in proptest::collection::vec(any::<u8>(), RawTensorHeader::LEN),
    ) {
        let body: [u8; RawTensorHeader::LEN] = body.try_into().unwrap();
        let tensor = RawTensorHeader::decode(&body);
        let pool_id = PoolId::new(pool_id);
        let header =
            SlotHeader { values_len, payload_slot, pool_id, payload_offset, timestamp_ns, meta_version, tensor };
        prop_assert_eq!(SlotHeader::decode(&encoded(&header)), Ok(header));
    }

    /// Rules: TP-100, TP-102, TP-103.
    #[test]
    fn arbitrary_slots_never_leave_their_payload_slot(
        words in proptest::array::uniform32(any::<u64>()),
        fields in (0..6000_u32, 0..10_u32, 0..3_u16, 0..2_u32),
    ) {
        let bytes: [u8; SLOT_LEN] = words.map(u64::to_le_bytes).concat().try_into().unwrap();
        let _ = SlotHeader::decode(&bytes);
        let (values_len, payload_slot, pool_id, payload_offset) = fields;
        let header =
            SlotHeader { values_len, payload_slot, pool_id: PoolId::new(pool_id), payload_offset, ..slot() };
        if let Ok(found) = span(&header) {
            let start = payload_slot_offset(SlotIndex::new(5), STRIDE);
            prop_assert_eq!((found.offset, found.pool_id), (start, POOL));
            prop_assert!(found.offset + u64::from(found.len) <= start + u64::from(STRIDE.get()));
        }
    }
}
