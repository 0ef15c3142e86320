//! Rates: frames in one direction, and the copying that no publisher can do without.
//!
//! The writer keeps at most half a ring of frames unread, so that a reader that is scheduled away for a moment loses
//! nothing and every loss is a defect. Payloads are cut from few patterns, made beforehand; which of them a frame has
//! follows from its number, in a cycle that is no divisor of the number of slots: the frame that overwrites another in its
//! slot always has other bytes.

use std::hint::black_box;
use std::time::Instant;

use tidegate::shm::sync::Ordering;
use tidegate::tensor::client::ReadOutcome;
use tidegate::tensor::frame::{FrameMeta, FrameView};
use tidegate::tensor::ids::Seq;

use super::echo::Limits;
use super::ends::{Ends, layout};
use super::error::BenchError;
use super::lines::{Lines, Patience};
use super::pattern::{self, STAMP_LEN};

/// Different payloads. The number of slots is a power of two, so it is no multiple of this.
const VARIANTS: u64 = 3;
/// Copies per sample where one is too short for the clock.
const SHORT_COPIES: u32 = 256;
const SHORT: usize = 16 << 10;
/// More than are written between two looks.
const OWN_DESCRIPTORS: usize = 10;

/// What the reader does with each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Looks at the stamp in place.
    Peek,
    /// Copies every byte and compares it.
    Copy,
}

/// The writer. Adds one sample per measured `offer`, in nanoseconds; gives the frames per second.
pub(super) fn write(
    ends: &mut Ends,
    lines: &Lines,
    bytes: usize,
    limits: &Limits,
    samples: &mut Vec<u64>,
) -> Result<f64, BenchError> {
    let payloads = variants(bytes);
    let layout = layout(bytes)?;
    let window = (ends.slots as u64 / 2).max(1);
    let taken = lines.taken()?;
    // Relaxed: a number and nothing else, here and below; the frames order themselves.
    taken.store(ends.next.get(), Ordering::Relaxed);
    let mut left = limits.warm_up;
    let mut began = (Instant::now(), ends.next.get());
    while left > 0 || samples.is_empty() || (Instant::now() < limits.until && samples.len() < limits.samples)
    {
        wait_for(ends.next.get().saturating_sub(window - 1), lines)?;
        let payload = variant_of(&payloads, ends.next);
        let started = Instant::now();
        let seq = ends.producer.offer(&layout, payload, FrameMeta::default())?;
        let took = started.elapsed();
        ends.next = Seq::new(seq.get() + 1);
        // Descriptors of both directions share one log, which waits for its slowest subscriber: this one, too.
        ends.consumer.poll(OWN_DESCRIPTORS, &mut |_| {})?;
        match left.checked_sub(1) {
            Some(0) => (left, began) = (0, (Instant::now(), ends.next.get())),
            Some(fewer) => left = fewer,
            None => samples.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
        }
    }
    wait_for(ends.next.get(), lines)?;
    Ok((ends.next.get() - began.1) as f64 / began.0.elapsed().as_secs_f64().max(1e-9))
}

/// Waits until all frames before `seq` were taken.
fn wait_for(seq: u64, lines: &Lines) -> Result<(), BenchError> {
    let taken = lines.taken()?;
    let mut patience = Patience::new();
    while taken.load(Ordering::Relaxed) < seq {
        patience.spin()?;
    }
    Ok(())
}

/// The reader, until the run is over.
pub(super) fn read(
    ends: &mut Ends,
    lines: &Lines,
    run: u64,
    bytes: usize,
    reading: Reading,
) -> Result<(), BenchError> {
    let expected = variants(bytes);
    let taken = lines.taken()?;
    let mut copy = vec![0; bytes];
    let mut patience = Patience::new();
    loop {
        let mut wrong = None;
        let work = ends.consumer.poll_outcomes(1, &mut |outcome| {
            let ReadOutcome::Frame(frame) = outcome else {
                wrong = Some(BenchError::Lost { bytes, frames: 1 });
                return;
            };
            let seq = frame.seq();
            match take(&frame, reading, variant_of(&expected, seq), &mut copy) {
                Some(true) => taken.store(seq.get() + 1, Ordering::Relaxed),
                Some(false) => wrong = Some(BenchError::Corrupt { bytes, stamp: seq.get() }),
                None => wrong = Some(BenchError::Lost { bytes, frames: 1 }),
            }
        })?;
        if let Some(error) = wrong {
            return Err(error);
        }
        if work > 0 {
            patience = Patience::new();
        } else if lines.is_over(run)? {
            return Ok(());
        } else {
            patience.spin()?;
        }
    }
}

/// Whether the frame holds what it should; `None` when it was overwritten.
fn take(frame: &FrameView<'_>, reading: Reading, expected: &[u8], copy: &mut Vec<u8>) -> Option<bool> {
    match reading {
        Reading::Copy => {
            frame.copy_to(copy).ok()?;
            Some(copy == expected)
        }
        Reading::Peek => {
            let mut word = [0; STAMP_LEN];
            frame.payload().read_at(0, &mut word).ok()?;
            frame.validate().ok()?;
            Some(word == *expected.first_chunk()? && frame.payload().len() == expected.len())
        }
    }
}

/// The reference: the same payloads into as many private buffers as the ring has slots, as far apart. Adds one sample per
/// [`copies`] copies.
pub(super) fn memcpy(
    ends: &Ends,
    bytes: usize,
    limits: &Limits,
    samples: &mut Vec<u64>,
) -> Result<(), BenchError> {
    let payloads = variants(bytes);
    let stride = ends.stride(bytes)?;
    let mut ring = vec![0; stride * ends.slots];
    let mut seq = 0;
    let mut left = 2 * ends.slots;
    while left > 0 || samples.is_empty() || (Instant::now() < limits.until && samples.len() < limits.samples)
    {
        let started = Instant::now();
        for _ in 0..copies(bytes) {
            let start = (seq as usize % ends.slots) * stride;
            if let Some(target) = ring.get_mut(start..start + bytes) {
                black_box(target).copy_from_slice(black_box(variant_of(&payloads, Seq::new(seq))));
            }
            seq += 1;
        }
        let took = started.elapsed();
        match left.checked_sub(1) {
            Some(fewer) => left = fewer,
            None => samples.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
        }
    }
    Ok(())
}

/// Copies that one sample of [`memcpy`] stands for.
pub(super) fn copies(bytes: usize) -> u32 {
    if bytes < SHORT { SHORT_COPIES } else { 1 }
}

fn variants(bytes: usize) -> Vec<Vec<u8>> {
    (0..VARIANTS).map(|variant| pattern::payload(bytes, variant + 1)).collect()
}

fn variant_of(payloads: &[Vec<u8>], seq: Seq) -> &[u8] {
    payloads.get((seq.get() % VARIANTS) as usize).map_or(&[], Vec::as_slice)
}
