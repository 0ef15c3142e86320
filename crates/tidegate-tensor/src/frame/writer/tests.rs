//! Table 7.1 and chapter 23.2 on real regions.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Mutex;

use super::*;
use crate::frame::fixture::{NOW, Ring, bytes, committed, due, in_progress, put};
use crate::frame::{FrameDrop, FrameView};
use crate::ids::PoolId;
use crate::tensor::{Dtype, MajorOrder};

fn meta(timestamp_ns: u64) -> FrameMeta {
    FrameMeta { timestamp_ns: Some(timestamp_ns), ..FrameMeta::default() }
}

fn fixed_pool() -> WriteOptions {
    WriteOptions { fixed_pool: true, ..WriteOptions::default() }
}

fn read(ring: &Ring, seq: u64) -> FrameView<'_> {
    ring.reader.read(Seq::new(seq)).unwrap()
}

/// Rules: TP-107, TP-126, TP-187, TP-188, TP-189, TP-214.
#[test]
fn frames_are_numbered_from_zero_and_wrap_around_the_ring() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    assert_eq!(writer.next_seq(), Seq::new(0));
    for seq in 0..10u64 {
        assert_eq!(put(&mut writer, &[seq as u8; 3]), Seq::new(seq));
        assert_eq!(ring.word(seq as u32 % 4), committed(seq));
        assert_eq!(writer.next_seq(), Seq::new(seq + 1));
        let frame = read(&ring, seq);
        assert_eq!((frame.seq(), frame.payload().to_vec()), (Seq::new(seq), vec![seq as u8; 3]));
        frame.validate().unwrap();
    }
    assert_eq!(due(&mut writer), (0..10).collect::<Vec<_>>());
}

/// What a slot held before, from whomever, is neither looked at nor waited for.
/// Rules: TP-001, TP-111.
#[test]
fn the_writer_takes_no_notice_of_what_is_in_a_slot() {
    let ring = Ring::new(2, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    for (seq, word) in [(0, committed(1 << 40)), (1, in_progress(7)), (2, u64::MAX), (3, 0)] {
        ring.set_word(seq as u32 % 2, word);
        put(&mut writer, b"x");
        assert_eq!(ring.word(seq as u32 % 2), committed(seq));
    }
}

/// Rules: TP-107, TP-110, TP-112, TP-447, TC-070.
#[test]
fn a_claim_is_in_progress_until_it_is_committed_or_for_good() {
    let ring = Ring::new(8, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    let mut claim = writer.claim(5, Nanos(11)).unwrap();
    assert_eq!(ring.word(0), in_progress(0));
    assert!(matches!(ring.reader.read(Seq::new(0)), Err(FrameDrop::Late)));
    claim.payload().write_at(0, b"hello").unwrap();
    writer.commit(&mut claim, &bytes(5), FrameMeta::default(), Nanos(20)).unwrap();
    assert_eq!(ring.word(0), committed(0));
    let frame = read(&ring, 0);
    assert_eq!(frame.payload().to_vec(), b"hello");
    assert_eq!((frame.timestamp_ns(), frame.meta_version()), (Some(11), None), "the time of the claim");

    let aborted = writer.claim(5, Nanos(30)).unwrap();
    assert_eq!(aborted.seq(), Seq::new(1));
    writer.abort(aborted);
    assert_eq!(put(&mut writer, b"next"), Seq::new(2));
    assert_eq!(ring.word(1), in_progress(1), "neither committed nor reset");
    assert_eq!(due(&mut writer), [0, 2], "a gap for consumers");
}

/// The payload is written before the commit word, the header as well, and the flush hook runs once in between.
/// Rules: TP-107, TP-110, TP-454, TC-069.
#[test]
fn the_flush_hook_runs_once_before_the_commit() {
    let ring = Arc::new(Ring::new(4, &[64]));
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (seen, log) = (Arc::clone(&ring), Arc::clone(&calls));
    let mut writer = ring.writer(WriteOptions::default());
    writer.set_flush_hook(Some(Box::new(move |address, len| {
        let slot = seen.slot(0);
        let values_len = u32::from_le_bytes(slot[8..12].try_into().unwrap());
        log.lock().unwrap().push((seen.word(0), values_len, address as usize, len));
    })));
    let mut claim = writer.claim(7, NOW).unwrap();
    let address = claim.payload().as_mut_ptr() as usize;
    assert!(calls.lock().unwrap().is_empty());
    writer.commit(&mut claim, &bytes(7), FrameMeta::default(), NOW).unwrap();
    let [(word, values_len, at, len)] = calls.lock().unwrap()[..] else { panic!("{calls:?}") };
    assert_eq!((word, values_len, len), (in_progress(0), 7, 7));
    assert_eq!(at % 4096, address % 4096, "the payload's address, in whichever mapping");
    assert!(writer.take_flush_hook().is_some());
    put(&mut writer, b"without");
    assert_eq!(calls.lock().unwrap().len(), 1);
}

/// Rules: TP-445, TC-200.
#[test]
fn a_tensor_that_does_not_fit_its_payload_is_refused_and_the_slot_stays_in_progress() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    let mut claim = writer.claim(5, NOW).unwrap();
    let refused = writer.commit(&mut claim, &bytes(6), FrameMeta::default(), NOW);
    assert_eq!(refused, Err(CommitError::Extent { extent: 6, len: 5 }));
    assert_eq!(ring.word(0), in_progress(0));
    assert!(due(&mut writer).is_empty());
    writer.commit(&mut claim, &bytes(5), FrameMeta::default(), NOW).unwrap();
    assert_eq!(ring.word(0), committed(0), "the claim may be committed properly afterwards");

    let refused = writer.put(&bytes(6), b"12345", FrameMeta::default(), NOW);
    assert_eq!(refused, Err(PutError::Commit(CommitError::Extent { extent: 6, len: 5 })));
    assert_eq!((ring.word(1), writer.next_seq()), (0, Seq::new(1)), "nothing was begun");
}

/// Rules: TP-446.
#[test]
fn a_claims_length_goes_up_to_the_stride() {
    let ring = Ring::new(4, &[64, 128]);
    let mut writer = ring.writer(WriteOptions::default());
    let mut claim = writer.claim(65, NOW).unwrap();
    assert_eq!((claim.len(), claim.capacity()), (65, 128));
    assert_eq!(claim.set_len(129), Err(CommitError::TooLong { len: 129, capacity: 128 }));
    assert_eq!(claim.len(), 65);
    claim.set_len(3).unwrap();
    claim.payload().fill(7);
    writer.commit(&mut claim, &bytes(3), FrameMeta::default(), NOW).unwrap();
    assert_eq!(read(&ring, 0).payload().to_vec(), [7; 3]);
}

/// Rules: TP-101, TC-060.
#[test]
fn the_smallest_pool_that_fits_is_used_and_without_one_no_number_is_lost() {
    let ring = Ring::new(4, &[8192, 4096, 4096]);
    let mut writer = ring.writer(WriteOptions::default());
    let pool_of = |ring: &Ring, index| u16::from_le_bytes(ring.slot(index)[16..18].try_into().unwrap());
    put(&mut writer, &[1; 5000]);
    assert_eq!(pool_of(&ring, 0), 1);
    put(&mut writer, &[2; 4096]);
    assert_eq!(pool_of(&ring, 1), 2, "the lowest id of equal strides");
    let refused = writer.put(&bytes(9000), &[0; 9000], FrameMeta::default(), NOW);
    assert_eq!(refused, Err(PutError::Claim(ClaimError::TooLarge { len: 9000, largest: 8192 })));
    assert_eq!(writer.claim(9000, NOW).err(), Some(ClaimError::TooLarge { len: 9000, largest: 8192 }));
    assert_eq!(put(&mut writer, &[3]), Seq::new(2));
    assert_eq!(writer.largest_stride(), Some(8192));
}

/// Rules: TP-104, TC-058.
#[test]
fn an_empty_frame_is_a_frame() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    put(&mut writer, b"");
    let frame = read(&ring, 0);
    assert!(frame.payload().is_empty());
    frame.validate().unwrap();
    assert_eq!(due(&mut writer), [0]);
}

/// Every byte of the slot is rewritten for each frame.
/// Rules: TP-003, TP-089.
#[test]
fn nothing_of_the_former_slot_remains() {
    let ring = Ring::new(1, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    put(&mut writer, b"x");
    let clean = ring.slot(0);
    ring.patch(0, 8, &[0xaa; SLOT_LEN - 8]);
    let mut again = ring.writer(WriteOptions::default());
    put(&mut again, b"x");
    assert_eq!(ring.slot(0), clean);
}

/// Rules: TP-194.
#[test]
fn slot_and_announcement_name_the_same_metadata_version() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    for version in [Some(3), None] {
        let meta = FrameMeta { meta_version: version, trace_id: Some(0), ..FrameMeta::default() };
        let seq = writer.put(&bytes(1), b"x", meta, NOW).unwrap();
        let announcement = writer.next_due().unwrap();
        assert_eq!((announcement.meta_version, announcement.trace_id), (version, None));
        assert_eq!(read(&ring, seq.get()).meta_version(), version);
        let raw = u32::from_le_bytes(ring.slot(seq.get() as u32)[30..34].try_into().unwrap());
        assert_eq!(raw, version.unwrap_or(u32::MAX));
    }
}

/// Rules: TP-450, TC-198.
#[test]
fn a_slot_held_by_an_open_claim_is_not_taken() {
    let ring = Ring::new(2, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    let mut first = writer.claim(1, NOW).unwrap();
    let second = writer.claim(1, NOW).unwrap();
    assert_eq!(writer.claim(1, NOW).err(), Some(ClaimError::SlotHeld));
    let refused = writer.put(&bytes(1), b"x", FrameMeta::default(), NOW);
    assert_eq!(refused, Err(PutError::Claim(ClaimError::SlotHeld)));
    assert_eq!(writer.next_seq(), Seq::new(2), "refusals use no number");
    assert_eq!((ring.word(0), ring.word(1)), (in_progress(0), in_progress(1)));
    writer.commit(&mut first, &bytes(1), FrameMeta::default(), NOW).unwrap();
    assert_eq!(put(&mut writer, b"x"), Seq::new(2));
    drop(second);
    assert_eq!(put(&mut writer, b"x"), Seq::new(3), "a dropped claim frees its slot");
}

/// A claim may be dropped on any thread.
#[test]
fn a_claim_dropped_elsewhere_is_noticed() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    let lost = writer.claim(1, NOW).unwrap();
    put(&mut writer, b"waits");
    assert!(due(&mut writer).is_empty());
    std::thread::spawn(move || drop(lost)).join().unwrap();
    put(&mut writer, b"next");
    assert_eq!(due(&mut writer), [1, 2]);
}

/// Without capture times of the application's own, claims may be committed in any order at any time.
/// Rules: TP-193, TP-447, TP-449, TC-199.
#[test]
fn commits_out_of_order_are_announced_in_order() {
    for slots in [4, 8] {
        let ring = Ring::new(slots, &[64]);
        let mut writer = ring.writer(WriteOptions::default());
        let mut claims: Vec<Claim> = (0..3).map(|at| writer.claim(1, Nanos(10 + at)).unwrap()).collect();
        for which in [2, 1, 0] {
            assert!(due(&mut writer).is_empty());
            let seq = writer.commit(&mut claims[which], &bytes(1), FrameMeta::default(), Nanos(50)).unwrap();
            assert_eq!(seq, Seq::new(which as u64));
        }
        assert_eq!(due(&mut writer), [0, 1, 2]);
        let times: Vec<_> = (0..3).map(|seq| read(&ring, seq).timestamp_ns().unwrap()).collect();
        assert_eq!(times, [10, 11, 12]);
    }
}

/// All buffers claimed at once and filled by a device in about their order: nothing is lost.
/// Rules: TP-449.
#[test]
fn a_whole_ring_of_claims_loses_nothing_to_the_window() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(fixed_pool());
    let mut claims: Vec<Claim> = (0..4).map(|_| writer.claim(1, NOW).unwrap()).collect();
    for which in [1, 0, 3, 2] {
        writer.commit(&mut claims[which], &bytes(1), FrameMeta::default(), NOW).unwrap();
    }
    assert_eq!(due(&mut writer), [0, 1, 2, 3]);
}

/// Rules: TP-449.
#[test]
fn a_claim_held_too_long_is_written_but_not_announced() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    let mut slow = writer.claim(1, NOW).unwrap();
    for _ in 0..3 {
        put(&mut writer, b"x");
    }
    assert_eq!(due(&mut writer), [1, 2, 3]);
    let late = writer.commit(&mut slow, &bytes(1), meta(1), NOW);
    assert_eq!(late, Err(CommitError::OutOfWindow));
    assert_eq!((ring.word(0), due(&mut writer)), (committed(0), vec![]));
    assert_eq!(put(&mut writer, b"x"), Seq::new(4), "its slot is free again");
}

/// Rules: TP-449.
#[test]
fn unordered_announcements_follow_the_commits() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(WriteOptions { unordered: true, ..WriteOptions::default() });
    let mut first = writer.claim(1, NOW).unwrap();
    let mut second = writer.claim(1, NOW).unwrap();
    put(&mut writer, b"x");
    writer.commit(&mut second, &bytes(1), FrameMeta::default(), NOW).unwrap();
    writer.commit(&mut first, &bytes(1), FrameMeta::default(), NOW).unwrap();
    assert_eq!(due(&mut writer), [2, 1, 0]);
}

/// Capture times do not go back along the sequence, whoever gives them and in whatever order frames are committed.
/// Rules: TP-193.
#[test]
fn capture_times_never_go_back() {
    let ring = Ring::new(8, &[64]);
    let mut writer = ring.writer(WriteOptions::default());
    let mut frame = |timestamp: Option<u64>, now| {
        let meta = FrameMeta { timestamp_ns: timestamp, ..FrameMeta::default() };
        writer.put(&bytes(1), b"x", meta, Nanos(now))
    };
    frame(Some(100), 0).unwrap();
    frame(Some(100), 0).unwrap();
    let back = CommitError::TimestampOrder { found: 99, earliest: 100, latest: u64::MAX };
    assert_eq!(frame(Some(99), 0), Err(PutError::Commit(back)));
    frame(None, 50).unwrap();
    frame(None, 150).unwrap();
    let times: Vec<_> = (0..4).map(|seq| read(&ring, seq).timestamp_ns().unwrap()).collect();
    assert_eq!(times, [100, 100, 100, 150]);

    let mut older = writer.claim(1, Nanos(160)).unwrap();
    let mut younger = writer.claim(1, Nanos(170)).unwrap();
    writer.commit(&mut younger, &bytes(1), meta(200), Nanos(180)).unwrap();
    let ahead = writer.commit(&mut older, &bytes(1), meta(201), Nanos(190));
    assert_eq!(ahead, Err(CommitError::TimestampOrder { found: 201, earliest: 150, latest: 200 }));
    writer.commit(&mut older, &bytes(1), meta(200), Nanos(190)).unwrap();
}

/// Rules: TP-451, TP-452, TC-196.
#[test]
fn a_queued_claim_keeps_its_slot_and_gets_the_next_number_that_leads_there() {
    let ring = Ring::new(4, &[64]);
    let mut plain = ring.writer(WriteOptions::default());
    let mut claim = plain.claim(1, NOW).unwrap();
    plain.commit(&mut claim, &bytes(1), FrameMeta::default(), NOW).unwrap();
    let refused = plain.queue(&mut claim, NOW).unwrap_err();
    assert_eq!((refused, refused.code()), (CommitError::NotQueueable, -4));

    let mut writer = ring.writer(fixed_pool());
    let mut claims: Vec<Claim> = (0..3).map(|_| writer.claim(1, NOW).unwrap()).collect();
    assert_eq!(writer.queue(&mut claims[1], NOW), Err(CommitError::NotQueueable), "not committed yet");
    let address = claims[1].payload().as_mut_ptr();
    for claim in &mut claims {
        writer.commit(claim, &bytes(1), FrameMeta::default(), NOW).unwrap();
    }
    assert_eq!(
        writer.commit(&mut claims[1], &bytes(1), FrameMeta::default(), NOW),
        Err(CommitError::Committed)
    );
    // The next number would be 3, which leads to slot 3.
    assert_eq!(writer.queue(&mut claims[1], NOW), Ok(Seq::new(5)));
    assert_eq!((claims[1].index(), claims[1].payload().as_mut_ptr()), (SlotIndex::new(1), address));
    assert_eq!((ring.word(1), writer.next_seq()), (in_progress(5), Seq::new(6)));
    writer.commit(&mut claims[1], &bytes(1), FrameMeta::default(), NOW).unwrap();
    assert_eq!(ring.word(1), committed(5));
    assert_eq!(writer.queue(&mut claims[0], NOW), Ok(Seq::new(8)));
    assert_eq!(writer.queue(&mut claims[2], NOW), Ok(Seq::new(10)));
    for which in [2, 0] {
        writer.commit(&mut claims[which], &bytes(1), FrameMeta::default(), NOW).unwrap();
    }
    assert_eq!(due(&mut writer), [0, 1, 2, 5, 8, 10]);
}

/// Exactly as many buffers as slots, recycled in their order: no number is skipped.
/// Rules: TP-189, TP-452, TP-453.
#[test]
fn a_ring_of_buffers_recycled_in_order_has_no_gaps() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(fixed_pool());
    let pools = writer.regions.pools().len();
    let mut claims: Vec<Claim> = (0..4).map(|_| writer.claim(1, NOW).unwrap()).collect();
    for round in 0..5u64 {
        for (which, claim) in claims.iter_mut().enumerate() {
            if round > 0 {
                writer.queue(claim, NOW).unwrap();
            }
            assert_eq!(claim.seq(), Seq::new(4 * round + which as u64));
            writer.commit(claim, &bytes(1), FrameMeta::default(), NOW).unwrap();
        }
    }
    assert_eq!(due(&mut writer), (0..20).collect::<Vec<_>>());
    assert_eq!(writer.regions.pools().len(), pools);
    assert_eq!(
        writer.claim(1, NOW).err(),
        Some(ClaimError::SlotHeld),
        "all slots are in the pool of buffers"
    );
}

/// Rules: TP-448, TC-197.
#[test]
fn a_claim_of_another_epoch_is_refused_without_touching_memory() {
    let (old, new) = (Ring::new(4, &[64]), Ring::new(4, &[64]));
    for options in [WriteOptions::default(), fixed_pool()] {
        let mut before = old.writer(options);
        let mut claim = before.claim(1, NOW).unwrap();
        let mut after = new.writer(options);
        let slots = (old.slot(0), new.slot(0));
        let refused = after.commit(&mut claim, &bytes(1), FrameMeta::default(), NOW).unwrap_err();
        assert_eq!(
            (refused, refused.code()),
            (CommitError::OtherEpoch { epoch: old.regions.spec().epoch() }, -4)
        );
        let refused = after.queue(&mut claim, NOW).unwrap_err();
        assert_eq!(refused.code(), -4);
        after.abort(claim);
        assert_eq!((old.slot(0), new.slot(0)), slots);
        assert_eq!(after.next_seq(), Seq::new(0));
    }
}

/// After the fence closed not one byte of the regions changes.
/// Rules: TP-297, TP-307.
#[test]
fn nothing_is_written_behind_a_closed_fence() {
    let ring = Ring::new(4, &[64]);
    let mut writer = ring.writer(fixed_pool());
    let mut queued = writer.claim(1, NOW).unwrap();
    writer.commit(&mut queued, &bytes(1), FrameMeta::default(), NOW).unwrap();
    let mut open = writer.claim(1, NOW).unwrap();
    let slots: Vec<_> = (0..4).map(|index| ring.slot(index)).collect();
    let close: [fn(&Fence); 2] = [|fence| fence.revoke(), |fence| fence.extend(NOW)];
    for close in close {
        ring.fence.extend(Nanos(NOW.as_u64() + 1));
        close(&ring.fence);
        assert_eq!(writer.claim(1, NOW).err(), Some(ClaimError::Fenced));
        let put = writer.put(&bytes(1), b"x", FrameMeta::default(), NOW);
        assert_eq!(put, Err(PutError::Claim(ClaimError::Fenced)));
        let commit = writer.commit(&mut open, &bytes(1), FrameMeta::default(), NOW);
        assert_eq!(commit, Err(CommitError::Fenced));
        assert_eq!(writer.queue(&mut queued, NOW), Err(CommitError::Fenced));
        let now: Vec<_> = (0..4).map(|index| ring.slot(index)).collect();
        assert_eq!(now, slots);
        assert_eq!(writer.next_seq(), Seq::new(2));
    }
}

/// A pool whose payload pages do not exist until somebody touches them: a claim that is committed touches none.
#[test]
fn a_commit_does_not_touch_the_payload() {
    const STRIDE: u32 = 1 << 20;
    let ring = Ring::prepared(2, &[STRIDE], |pool| {
        let superblock = std::fs::read(pool).unwrap()[..64].to_vec();
        let len = std::fs::metadata(pool).unwrap().len();
        std::fs::remove_file(pool).unwrap();
        std::fs::write(pool, superblock).unwrap();
        std::fs::OpenOptions::new().write(true).open(pool).unwrap().set_len(len).unwrap();
        std::fs::set_permissions(pool, std::fs::Permissions::from_mode(0o660)).unwrap();
    });
    let allocated = || std::fs::metadata(ring.regions.spec().pools()[0].uri.path()).unwrap().blocks() * 512;
    assert!(allocated() <= 4096, "the superblock's page");
    let mut writer = ring.writer(WriteOptions::default());
    let mut claim = writer.claim(STRIDE as usize, NOW).unwrap();
    writer.commit(&mut claim, &bytes(STRIDE as usize), FrameMeta::default(), NOW).unwrap();
    assert!(allocated() <= 4096, "{} bytes after the commit", allocated());
    put(&mut writer, &[1; STRIDE as usize]);
    assert!(allocated() > u64::from(STRIDE), "a copy does");
}

/// Rules: TP-443.
#[test]
fn result_codes_of_commits() {
    let codes: Vec<i64> = [
        CommitError::Fenced,
        CommitError::OtherEpoch { epoch: Epoch::new(1) },
        CommitError::Committed,
        CommitError::NotQueueable,
        CommitError::TooLong { len: 2, capacity: 1 },
        CommitError::Extent { extent: 2, len: 1 },
        CommitError::TimestampOrder { found: 0, earliest: 1, latest: 2 },
        CommitError::OutOfWindow,
    ]
    .iter()
    .map(CommitError::code)
    .collect();
    assert_eq!(codes, [-3, -4, -4, -4, -1, -1, -1, -1]);
}

/// The header of a frame does not depend on the frames before it.
/// Rules: TP-089.
#[test]
fn a_slot_image_is_the_same_as_a_header_written_anew() {
    let layouts = [
        TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[4, 4]).unwrap(),
        TensorLayout::contiguous(Dtype::Float32, MajorOrder::Column, &[2, 1, 2]).unwrap(),
    ];
    let mut image = SlotImage { layout: None, bytes: [0xa5; SLOT_LEN] };
    for (number, choice) in [0, 0, 1, 1, 0].into_iter().enumerate() {
        let mut header = SlotHeader::new(SlotIndex::new(number as u32), PoolId::new(7), 16, &layouts[choice]);
        header.timestamp_ns = Some(1_000 + number as u64);
        header.meta_version = (number % 2 == 0).then_some(number as u32);
        image.put(&header, &layouts[choice]);
        let mut anew = [0xa5; SLOT_LEN];
        header.encode(&mut anew);
        assert_eq!(image.bytes, anew, "frame {number}");
    }
}
