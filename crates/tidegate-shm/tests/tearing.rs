//! A writer at full speed laps a reader in another process, over two slots: no torn frame may be accepted.
//!
//! Every word of a payload depends on the frame and on its place, so any mixture of two frames shows. The reader
//! counts the mixtures it meets in frames it does not accept: without them the test would have tested nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod children;

use std::path::Path;

use children::{Child, PATIENCE, role};
use tidegate_shm::{
    clock::monotonic_now,
    commit::{CommitReader, CommitWriter},
    region::{
        Access, AllowedBases, CreateOptions, HugePages, PermissionPolicy, Region, RegionDir, RegionMut, Span,
        create_region,
    },
    sync::Ordering,
};

/// Sizes of payloads, because short and long ones are copied in different ways, and how many frames the writer has to
/// write of each at least.
const RUNS: [(u64, u64); 2] = [(256, 2_000_000), (8192, 200_000)];
const SLOTS: u64 = 2;
/// Room for the commit word, in front of the payload.
const HEADER: u64 = 64;

// Control words, in a region that both sides write.
const LATEST: u64 = 0;
const STOP: u64 = 64;
const CONTROL_LEN: u64 = 128;

/// What a reader met.
#[derive(Debug, Default)]
struct Tally {
    /// Different frames accepted.
    accepted: u64,
    refused: u64,
    /// Refused frames that were a mixture.
    mixed: u64,
}

/// Word `index` of the payload of `frame`.
fn pattern(frame: u64, index: u64) -> u64 {
    frame.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index)
}

fn offset(frame: u64, payload: u64) -> u64 {
    (frame % SLOTS) * (HEADER + payload)
}

/// Writes frames until the reader has enough of them.
fn write(place: &Path, payload: u64, frames: u64) {
    let (control, ring) =
        (open(place, "control", CONTROL_LEN), open(place, "ring", SLOTS * (HEADER + payload)));
    let (latest, stop) = (control.atomic_u64(LATEST).unwrap(), control.atomic_u64(STOP).unwrap());
    let mut bytes = vec![0; payload as usize];
    let mut frame = 1;
    while frame <= frames || stop.load(Ordering::Relaxed) == 0 {
        for (index, word) in (0..).zip(bytes.chunks_exact_mut(8)) {
            word.copy_from_slice(&pattern(frame, index).to_le_bytes());
        }
        let at = offset(frame, payload);
        let writer = CommitWriter::new(ring.atomic_u64(at).unwrap());
        writer.begin(frame);
        ring.write(at + HEADER, &bytes).unwrap();
        writer.commit(frame);
        latest.store(frame, Ordering::Relaxed);
        frame += 1;
    }
}

/// Reads frames until enough of every sort were met and the writer got to frame `until`, or patience ends.
fn read(
    control: &Region,
    ring: &Region,
    payload: u64,
    until: u64,
    look: impl Fn(Span<'_>, u64) -> bool,
) -> Tally {
    let latest = control.atomic_u64(LATEST).unwrap();
    let deadline = monotonic_now().saturating_add(PATIENCE.into());
    let mut tally = Tally::default();
    let mut last = 0;
    let mut attempts = 0_u64;
    let enough = |tally: &Tally| tally.accepted >= 10_000 && tally.refused >= 50 && tally.mixed > 0;
    while !enough(&tally) || latest.load(Ordering::Relaxed) < until {
        attempts += 1;
        if attempts.is_multiple_of(1024) && monotonic_now() > deadline {
            break;
        }
        let frame = latest.load(Ordering::Relaxed);
        if frame == 0 {
            continue;
        }
        let at = offset(frame, payload);
        let reader = CommitReader::new(ring.atomic_u64(at).unwrap());
        let token = reader.begin();
        if !token.holds(frame) {
            tally.refused += 1;
            continue;
        }
        let whole = look(ring.span(at + HEADER, payload).unwrap(), frame);
        if reader.validate(token) {
            assert!(whole, "accepted a torn frame {frame} of {payload} bytes; {tally:?}");
            tally.accepted += u64::from(frame != last);
            last = frame;
        } else {
            tally.refused += 1;
            tally.mixed += u64::from(!whole);
        }
    }
    tally
}

/// Copies the payload before looking at it.
fn whole_in_copy(span: Span<'_>, frame: u64) -> bool {
    let mut bytes = [0; 8192];
    let bytes = &mut bytes[..span.len()];
    span.copy_to(bytes).unwrap();
    (0..).zip(bytes.chunks_exact(8)).all(|(index, word)| word == pattern(frame, index).to_le_bytes())
}

/// Looks at the payload in place, from the end to the beginning.
fn whole_in_place(span: Span<'_>, frame: u64) -> bool {
    (0..span.len() / 8).rev().all(|index| span.load_u64(index).unwrap() == pattern(frame, index as u64))
}

/// Rules: TP-002, TC-064.
#[test]
fn a_lapped_reader_never_accepts_a_mixture() {
    for (payload, frames) in RUNS {
        if let Some(place) = role(&format!("writer of {payload}")) {
            return write(&place, payload, frames);
        }
    }
    for (payload, frames) in RUNS {
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let dir = RegionDir::open_base(place.path()).unwrap();
        let control = create_region(&dir, "control", &CreateOptions::new(CONTROL_LEN)).unwrap();
        let ring = create_region(&dir, "ring", &CreateOptions::new(SLOTS * (HEADER + payload))).unwrap();
        let role = format!("writer of {payload}");
        let writer = Child::start("a_lapped_reader_never_accepts_a_mixture", &role, place.path());
        let copied = read(&control, &ring, payload, frames / 2, whole_in_copy);
        let in_place = read(&control, &ring, payload, frames, whole_in_place);
        control.atomic_u64(STOP).unwrap().store(1, Ordering::Relaxed);
        writer.succeed();
        for tally in [copied, in_place] {
            println!("{payload} bytes: {tally:?}");
            assert!(tally.accepted > 0, "{payload} bytes: {tally:?}");
            assert!(tally.refused > 0 && tally.mixed > 0, "no lapping seen: {payload} bytes: {tally:?}");
        }
        assert!(control.atomic_u64(LATEST).unwrap().load(Ordering::Relaxed) >= frames);
    }
}

fn open(place: &Path, name: &str, len: u64) -> RegionMut {
    let (bases, _) = AllowedBases::new([place]);
    let policy = PermissionPolicy::default();
    let file = bases.open(&place.join(name), Access::ReadWrite, &policy, HugePages::NotRequired).unwrap();
    file.map_mut(len).unwrap()
}
