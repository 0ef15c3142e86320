//! Table 7.2 on real regions, with slots made wrong by hand.

use super::*;
use crate::frame::fixture::{NOW, Ring, bytes, committed, in_progress, put};
use crate::frame::{FrameMeta, WriteOptions};
use crate::tensor::{Dtype, MajorOrder, TensorLayout};

/// A ring of eight slots whose frames 0 to 5 hold their own number, four times.
fn written() -> Ring {
    let ring = Ring::new(8, &[64, 4096]);
    let mut writer = ring.writer(WriteOptions::default());
    for seq in 0..6 {
        put(&mut writer, &[seq; 4]);
    }
    ring
}

fn read(ring: &Ring, seq: u64) -> Result<FrameView<'_>, FrameDrop> {
    ring.reader.read(Seq::new(seq))
}

#[test]
fn a_frame_shows_what_was_written() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    let layout = TensorLayout::contiguous(Dtype::Uint16, MajorOrder::Row, &[2, 3]).unwrap();
    let meta = FrameMeta { timestamp_ns: Some(5), meta_version: Some(6), trace_id: Some(7) };
    writer.put(&layout, &[9; 12], meta, NOW).unwrap();
    let frame = read(&ring, 0).unwrap();
    assert_eq!((frame.stream(), frame.epoch()), (ring.regions.spec().stream(), ring.regions.spec().epoch()));
    assert_eq!((frame.seq(), frame.timestamp_ns(), frame.meta_version()), (Seq::new(0), Some(5), Some(6)));
    assert_eq!(frame.layout(), Ok(&layout));
    let mut copy = Vec::new();
    frame.copy_to(&mut copy).unwrap();
    assert_eq!(copy, [9; 12]);
}

/// One attempt: a slot that is not committed is late at once, also when it never will be.
/// Rules: TP-113, TP-115, TC-061.
#[test]
fn a_slot_in_progress_is_late() {
    let ring = written();
    ring.set_word(5, in_progress(5));
    assert_eq!(read(&ring, 5).err(), Some(FrameDrop::Late));
    assert_eq!(read(&ring, 6).err(), Some(FrameDrop::Late), "never written");
}

/// Rules: TP-113, TP-118, TC-062.
#[test]
fn a_slot_with_another_frame_is_late() {
    let ring = written();
    for other in [13, 21, 0] {
        ring.set_word(5, committed(other));
        assert_eq!(read(&ring, 5).err(), Some(FrameDrop::Late), "{other}");
    }
    assert_eq!(read(&ring, 1 << 63).err(), Some(FrameDrop::Late), "a number that no word can hold");
    ring.set_word(0, u64::MAX);
    assert_eq!(read(&ring, u64::MAX).err(), Some(FrameDrop::Late));
}

/// The word changes between the two loads.
/// Rules: TP-113, TP-116, TC-063, TC-065.
#[test]
fn a_view_of_an_overwritten_slot_does_not_validate() {
    let ring = Ring::new(2, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    put(&mut writer, b"first");
    let frame = read(&ring, 0).unwrap();
    frame.validate().unwrap();
    put(&mut writer, b"in the other slot");
    frame.validate().unwrap();
    let claim = writer.claim(1, NOW).unwrap();
    assert_eq!(frame.validate(), Err(Overwritten), "as soon as writing begins");
    writer.abort(claim);
    let mut copy = vec![1, 2, 3];
    assert_eq!(frame.copy_to(&mut copy), Err(Overwritten));
    assert!(copy.is_empty(), "nothing that was read leaves");
    ring.set_word(0, committed(0));
    frame.validate().unwrap();
    ring.set_word(0, committed(2));
    assert_eq!(frame.validate(), Err(Overwritten));
}

/// Whatever is wrong with a slot, a torn one counts as late, not as invalid.
/// Rules: TP-113.
#[test]
fn a_mapping_that_was_given_up_validates_nothing() {
    let ring = written();
    let frame = read(&ring, 5).unwrap();
    assert!(!ring.reader.is_stopped());
    ring.reader.stop();
    assert_eq!(frame.validate(), Err(Overwritten));
    assert!(ring.reader.is_stopped());
}

/// Every field of steps 6 and 7.
/// Rules: TP-088, TP-090, TP-091, TP-093, TP-094, TP-096, TP-100, TP-102, TP-103, TC-045, TC-046, TC-047, TC-056, TC-057.
#[test]
fn a_slot_with_a_wrong_field_is_invalid() {
    let cases: [(&str, usize, &[u8]); 21] = [
        ("values_len 4097", 8, &4097u32.to_le_bytes()),
        ("values_len of all ones", 8, &[0xff; 4]),
        ("payload_slot of a neighbour", 12, &4u32.to_le_bytes()),
        ("payload_slot outside", 12, &13u32.to_le_bytes()),
        ("pool 9", 16, &9u16.to_le_bytes()),
        ("pool 0", 16, &0u16.to_le_bytes()),
        ("payload_offset 1", 18, &1u32.to_le_bytes()),
        ("headerBytes 191", 60, &191u32.to_le_bytes()),
        ("embedded block 183", 64, &183u16.to_le_bytes()),
        ("embedded template 51", 66, &51u16.to_le_bytes()),
        ("embedded schema 901", 68, &901u16.to_le_bytes()),
        ("embedded version 2", 70, &2u16.to_le_bytes()),
        ("dtype 0", 72, &0i16.to_le_bytes()),
        ("dtype 15", 72, &15i16.to_le_bytes()),
        ("major order 3", 74, &3i16.to_le_bytes()),
        ("no dimensions", 76, &[0]),
        ("nine dimensions", 76, &[9]),
        ("progress unit 3", 78, &[3]),
        ("dimension -1", 83, &(-1i32).to_le_bytes()),
        ("stride -1", 115, &(-1i32).to_le_bytes()),
        ("payload_slot of the next round", 12, &(5u32 + 8).to_le_bytes()),
    ];
    for (what, at, patch) in cases {
        let ring = written();
        ring.patch(5, at, patch);
        assert!(matches!(read(&ring, 5), Err(FrameDrop::Invalid(_))), "{what}");
        assert!(read(&ring, 4).is_ok(), "{what}: the neighbour");
    }
}

/// Rules: TP-099, TC-059.
#[test]
fn a_tensor_beyond_its_payload_has_bytes_but_no_typed_view() {
    let ring = Ring::new(2, &[4096]);
    let mut writer = ring.writer(WriteOptions::default());
    writer.put(&bytes(4000), &[3; 4000], FrameMeta::default(), NOW).unwrap();
    ring.patch(0, 8, &12u32.to_le_bytes());
    let frame = read(&ring, 0).unwrap();
    assert_eq!(frame.layout(), Err(TypedViewError { extent: 4000, payload: 12 }));
    assert_eq!(frame.payload().to_vec(), [3; 12]);
    assert_eq!(frame.described_layout().extent_bytes(), 4000);
}

/// Rules: TP-215.
#[test]
fn zero_seen_differs_from_nothing_seen() {
    let stats = EpochStats::default();
    assert_eq!(stats.last_seq(), None);
    stats.saw(Seq::new(0));
    assert_eq!(stats.last_seq(), Some(Seq::new(0)));
}
