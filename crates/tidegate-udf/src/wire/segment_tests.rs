//! The headers in bytes, and what the other side refuses.

use super::*;

fn down() -> DownHeader {
    DownHeader {
        ring: Geometry { capacity: 1 << 16, max_frame: 1 << 14, session: SessionId(5), max_in_flight: 8 },
        instance: 6,
        pipeline: 7,
        runtime_pid: 8,
        worker: 9,
        schema_in: SchemaId(10),
        schema_out: SchemaId(11),
        kind: FunctionKind::BatchMap,
        max_response: 12,
    }
}

/// Cases: CT-01.
/// Rules: VX-106.
#[test]
fn the_headers_have_their_golden_bytes() {
    let mut golden = Vec::new();
    golden.extend_from_slice(b"TGVXSEGD");
    for word in [1u32, 4096] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    for word in [4096u64 + 65_536, 4096, 65_536] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    for word in [128u32, 16_384] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    let up_end = golden.len();
    for word in [5u64, 6, 7] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    for word in [8u32, 9] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    for word in [10u64, 11] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    for word in [2u32, 0] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    golden.extend_from_slice(&12u64.to_le_bytes());
    golden.extend_from_slice(&8u32.to_le_bytes());
    golden.extend_from_slice(&crc32c::crc32c(&golden).to_le_bytes());
    assert_eq!(down().encode().as_slice(), golden);

    let up = encode_up(&down().ring);
    assert_eq!(&up[..8], b"TGVXSEGU");
    assert_eq!(up[8..up_end], golden[8..up_end]);
    assert_eq!(up[0x30..], 5u64.to_le_bytes());

    let fence = encode_fence(6, 256);
    assert_eq!(&fence[..8], b"TGVXSEGF");
    assert_eq!(fence[0x10..0x18], 20_480u64.to_le_bytes());
    assert_eq!(fence[0x20..0x28], [0, 1, 0, 0, 64, 0, 0, 0]);
}

/// Rules: VX-120.
#[test]
fn headers_come_out_as_they_went_in() {
    let (bytes, len) = (down().encode(), down().ring.segment_len());
    assert_eq!(DownHeader::decode(&bytes, len), Ok(down()));
    assert_eq!(decode_up(&encode_up(&down().ring), len, &down()), Ok(down().ring));
    assert_eq!(decode_fence(&encode_fence(6, 3), 8192, &down()), Ok(3));
}

/// Rules: VX-120.
#[test]
fn every_flipped_bit_of_a_header_is_refused() {
    let len = down().ring.segment_len();
    for bit in 0..120 * 8 {
        let mut damaged = down().encode();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(DownHeader::decode(&damaged, len).is_err(), "bit {bit} of D");
    }
    for bit in 0..56 * 8 {
        let mut damaged = encode_up(&down().ring);
        damaged[bit / 8] ^= 1 << (bit % 8);
        // The worker trusts the runtime; another longest frame that is possible is one.
        let max_frame = (0x2C * 8..0x30 * 8).contains(&bit);
        assert!(decode_up(&damaged, len, &down()).is_err() || max_frame, "bit {bit} of U");
    }
    for bit in 0..44 * 8 {
        let mut damaged = encode_fence(6, 3);
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_fence(&damaged, 8192, &down()).is_err(), "bit {bit} of F");
    }
}

/// Rules: VX-120.
#[test]
fn sizes_are_those_of_the_descriptor() {
    let len = down().ring.segment_len();
    for wrong in [0, len - 1, len + 1] {
        assert_eq!(DownHeader::decode(&down().encode(), wrong).unwrap_err().field, "D.segment_bytes");
        let up = encode_up(&down().ring);
        assert_eq!(decode_up(&up, wrong, &down()).unwrap_err().field, "U.segment_bytes");
        let fence = encode_fence(6, 3);
        assert_eq!(decode_fence(&fence, wrong, &down()).unwrap_err().field, "F.segment_bytes");
    }
}

/// Rules: VX-120.
#[test]
fn impossible_rings_are_refused() {
    let good = down().ring;
    assert_eq!(good.check(), Ok(()));
    for (ring, field) in [
        (Geometry { capacity: (1 << 16) + 128, ..good }, "ring_capacity (power of two, 64 KiB to 1 GiB)"),
        (Geometry { capacity: 1 << 15, ..good }, "ring_capacity (power of two, 64 KiB to 1 GiB)"),
        (Geometry { capacity: 1 << 31, ..good }, "ring_capacity (power of two, 64 KiB to 1 GiB)"),
        (Geometry { max_frame: 300, ..good }, "max_frame (multiple of 128, at least 256)"),
        (Geometry { max_frame: 128, ..good }, "max_frame (multiple of 128, at least 256)"),
        (Geometry { max_frame: (1 << 15) + 128, ..good }, "max_frame (at most half of the ring)"),
        (Geometry { max_in_flight: 0, ..good }, "max_in_flight (at least 1)"),
        (Geometry { session: SessionId(0), ..good }, "session_id (not 0)"),
    ] {
        assert_eq!(ring.check().unwrap_err().field, field);
    }
}

/// Words that are written at different times, or by different threads, have blocks of 128 bytes of their own; those of the two
/// sides are in different segments.
/// Rules: VX-107.
#[test]
fn words_have_blocks_of_their_own() {
    let groups: [&[usize]; 5] = [
        &[Word::Head as usize, Word::Batches as usize, BELL_AT],
        &[WAITERS_AT],
        &[
            Word::Consumed as usize,
            Word::ConsumedBatches as usize,
            Word::GrantPos as usize,
            Word::GrantBatches as usize,
        ],
        &[RUN_STATE_AT],
        &[HEARTBEAT_AT, BUSY_BATCH_AT, BUSY_SINCE_AT],
    ];
    let blocks: Vec<Vec<usize>> =
        groups.iter().map(|group| group.iter().map(|at| at / 128).collect()).collect();
    for (index, block) in blocks.iter().enumerate() {
        assert!(block.iter().all(|other| *other == block[0]), "{block:x?}");
        // The last two are the same place of different segments.
        let others = blocks[..index.min(3)].iter().flatten();
        assert!(others.into_iter().all(|other| *other != block[0]), "{block:x?}");
    }
    // Nothing of them is in the part that is written once, or in the ring.
    assert!(blocks.iter().flatten().all(|block| (0x80 / 128..PANIC_AT / 128).contains(block)));
}
