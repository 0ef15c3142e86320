//! The header in bytes, and what a reader refuses.

use super::*;

fn frame() -> Frame {
    Frame {
        kind: Kind::Response,
        more: true,
        replay: true,
        barrier: false,
        end_of_source: false,
        generation: Generation(0x1111),
        epoch: EpochId(0x2222),
        batch: BatchId(0x3333),
        schema: SchemaId(0x4444),
        partition: PartitionId(0x5555),
        record_count: 0x66,
        source_first: Position(0x7777),
        source_last: Position(0x8888),
        watermark: Some(-2),
        status: Status::Partial,
        attempt: 0x99,
        fence_slot: FenceSlot(0xAA),
        inputs_done: 0xBB,
        frag_index: 0xCC,
        payload_crc: Some(0xDDDD),
    }
}

const PLACE: Place =
    Place { session: SessionId(0xEEEE), position: RingPos(0x1000), payload_len: 100, frame_len: 256 };

fn read(bytes: &[u8; 128]) -> Result<Parsed, FrameFault> {
    decode(bytes, PLACE.session, PLACE.position, 1024, 4096, 4096)
}

/// Writes `value` at `at` and makes the checksum right again.
fn patched(at: usize, value: &[u8]) -> [u8; 128] {
    let mut bytes = frame().encode(&PLACE);
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = crc_of(&bytes);
    bytes[0x7C..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Cases: CT-01.
/// Rules: VX-201.
#[test]
fn the_header_has_its_golden_bytes() {
    let mut golden = [0u8; 128];
    golden[..4].copy_from_slice(b"TGVB");
    golden[0x04..0x08].copy_from_slice(&[1, 0, 128, 0]);
    golden[0x08..0x0C].copy_from_slice(&[0b1110, 0, 0, 0]);
    golden[0x0C] = 100;
    golden[0x10..0x12].copy_from_slice(&[0x11, 0x11]);
    golden[0x18..0x1A].copy_from_slice(&[0x22, 0x22]);
    golden[0x20..0x22].copy_from_slice(&[0x33, 0x33]);
    golden[0x28..0x2A].copy_from_slice(&[0x44, 0x44]);
    golden[0x30..0x32].copy_from_slice(&[0x55, 0x55]);
    golden[0x34] = 0x66;
    golden[0x38..0x3A].copy_from_slice(&[0x77, 0x77]);
    golden[0x40..0x42].copy_from_slice(&[0x88, 0x88]);
    golden[0x49] = 1;
    golden[0x4C] = 3;
    golden[0x4E] = 1;
    golden[0x50..0x58].copy_from_slice(&(-2i64).to_le_bytes());
    golden[0x58..0x5A].copy_from_slice(&[0xEE, 0xEE]);
    golden[0x61] = 0x10;
    golden[0x68] = 1;
    golden[0x6C] = 0x99;
    golden[0x6E] = 0xAA;
    golden[0x70..0x72].copy_from_slice(&[0xDD, 0xDD]);
    golden[0x74] = 0xBB;
    golden[0x78] = 0xCC;
    let bytes = frame().encode(&PLACE);
    assert_eq!(bytes[..0x7C], golden[..0x7C]);
    assert_eq!(bytes[0x7C..], crc32c::crc32c(&golden[..0x7C]).to_le_bytes());
    assert_eq!(read(&bytes), Ok(Parsed::Frame { frame: frame(), payload_len: 100, frame_len: 256 }));
}

/// Cases: CT-02.
/// Rules: VX-200, VX-220, VX-403.
#[test]
fn every_wrong_field_is_refused_by_its_name() {
    let wrong: &[(usize, &[u8], &str)] = &[
        (0x00, b"TGVC", "magic"),
        (0x04, &[2], "version"),
        (0x06, &[64], "header_len"),
        (0x58, &[0xEF], "session_id"),
        (0x60, &[0x80], "ring_pos"),
        (0x4C, &[0], "kind"),
        (0x4C, &[4], "kind"),
        (0x48, &[1], "frame_len (multiple of 128)"),
        (0x48, &[0, 0], "frame_len (multiple of 128)"),
        (0x48, &[0x80, 4], "frame_len (at most max_frame)"),
        (0x0C, &[129], "payload_len (inside the frame)"),
        (0x0C, &[0xFF; 4], "payload_len (inside the frame)"),
        (0x0A, &[1], "flags (unknown, must be understood)"),
        (0x4E, &[2], "encoding"),
        (0x10, &[0, 0], "generation_id (not 0)"),
        (0x20, &[0, 0], "batch_id (not 0)"),
        (0x38, &[0x89, 0x88], "source_last (not below source_first)"),
        (0x68, &[12], "status"),
    ];
    for (at, value, field) in wrong {
        let fault = read(&patched(*at, value)).unwrap_err();
        assert_eq!(fault.field, *field, "{fault}");
    }
}

/// Cases: CT-02.
/// Rules: VX-220.
#[test]
fn a_flipped_bit_anywhere_but_in_the_commit_bit_is_found() {
    let bytes = frame().encode(&PLACE);
    for bit in 0..128 * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        let commit_bit = bit == FLAGS_AT as usize * 8;
        assert_eq!(read(&damaged).is_ok(), commit_bit, "bit {bit}");
    }
}

/// Rules: VX-220.
#[test]
fn a_frame_stays_inside_the_ring_and_below_the_head() {
    let bytes = frame().encode(&PLACE);
    let at = |to_end, to_head| decode(&bytes, PLACE.session, PLACE.position, 1024, to_end, to_head);
    assert_eq!(at(128, 4096).unwrap_err().field, "frame_len (inside the ring)");
    assert_eq!(at(4096, 128).unwrap_err().field, "frame_len (below head)");
    assert!(at(256, 256).is_ok());
}

/// Rules: VX-211, VX-220.
#[test]
fn filler_ends_with_the_ring_and_something_is_behind_it() {
    let bytes = encode_filler(PLACE.session, PLACE.position, 256);
    let at = |to_end, to_head| decode(&bytes, PLACE.session, PLACE.position, 1024, to_end, to_head);
    assert_eq!(at(256, 384), Ok(Parsed::Filler { frame_len: 256 }));
    assert_eq!(at(384, 384).unwrap_err().field, "frame_len of filler (to the end of the ring)");
    assert_eq!(at(256, 256).unwrap_err().field, "frame_len of filler (not last below head)");
}

/// Flags from 7 to 15 are for later versions.
/// Rules: VX-202.
#[test]
fn flags_that_may_be_ignored_are() {
    let bytes = patched(0x09, &[0xFF]);
    assert!(read(&bytes).is_ok());
}
