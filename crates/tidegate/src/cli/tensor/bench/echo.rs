//! Round trips: ping sends, pong answers, and ping looks at the clock.
//!
//! Everything that is not part of the path is done while the watch stands: making the payload, comparing what came back.
//! Pong sends back the bytes it has read, so what ping compares has gone both ways.

use std::time::Instant;

use tidegate::shm::sync::Ordering;
use tidegate::tensor::client::ReadOutcome;
use tidegate::tensor::frame::FrameMeta;
use tidegate::tensor::tensor::TensorLayout;

use super::ends::{AeronEnds, Ends, layout};
use super::error::BenchError;
use super::lines::{Lines, Patience};
use super::pattern::{self, STAMP_LEN};
use super::protocol::Role;

/// Descriptors taken in one look.
const BATCH: usize = 10;

/// A way to send a stamped payload there and back.
pub(super) trait Path {
    /// Makes the payload of `stamp`; not measured.
    fn prepare(&mut self, stamp: u64);

    /// Sends it.
    fn send(&mut self, stamp: u64) -> Result<(), BenchError>;

    /// Looks once for a payload and takes it; gives its stamp.
    fn receive(&mut self) -> Result<Option<u64>, BenchError>;

    /// Sends the payload that was taken last, whose stamp is given.
    fn reply(&mut self, stamp: u64) -> Result<(), BenchError>;

    /// Compares what was taken last with what was sent; not measured.
    fn check(&self, stamp: u64) -> Result<(), BenchError>;
}

/// How long ping goes on.
pub(super) struct Limits {
    pub(super) until: Instant,
    /// Round trips that are not measured.
    pub(super) warm_up: usize,
    /// Samples at most.
    pub(super) samples: usize,
}

/// Ping's side. Adds one sample per measured round trip, in nanoseconds; `stamp` is the last one used.
pub(super) fn ping(
    path: &mut impl Path,
    stamp: &mut u64,
    limits: &Limits,
    samples: &mut Vec<u64>,
) -> Result<(), BenchError> {
    let mut left = limits.warm_up;
    while left > 0 || samples.is_empty() || (Instant::now() < limits.until && samples.len() < limits.samples)
    {
        *stamp += 1;
        path.prepare(*stamp);
        let mut patience = Patience::new();
        let started = Instant::now();
        path.send(*stamp)?;
        // Answers to earlier stamps are left over from the time before both sides knew of each other.
        while path.receive()? != Some(*stamp) {
            patience.spin()?;
        }
        let took = started.elapsed();
        path.check(*stamp)?;
        match left.checked_sub(1) {
            Some(fewer) => left = fewer,
            None => samples.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
        }
    }
    Ok(())
}

/// Pong's side: answers until the run is over.
pub(super) fn pong(path: &mut impl Path, lines: &Lines, run: u64) -> Result<(), BenchError> {
    let mut patience = Patience::new();
    loop {
        if let Some(stamp) = path.receive()? {
            path.reply(stamp)?;
            patience = Patience::new();
        } else if lines.is_over(run)? {
            return Ok(());
        } else {
            patience.spin()?;
        }
    }
}

/// Two words in shared memory.
pub(super) struct LinePath<'a> {
    pub(super) lines: &'a Lines,
    pub(super) own: Role,
    pub(super) last: u64,
}

impl Path for LinePath<'_> {
    fn prepare(&mut self, _: u64) {}

    fn send(&mut self, stamp: u64) -> Result<(), BenchError> {
        // Release: pairs with the Acquire in `receive`, as a message would.
        self.lines.exchange(self.own)?.store(stamp, Ordering::Release);
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<u64>, BenchError> {
        let other = if self.own == Role::Ping { Role::Pong } else { Role::Ping };
        // Acquire: pairs with the Release in `send`.
        let stamp = self.lines.exchange(other)?.load(Ordering::Acquire);
        if stamp == self.last {
            return Ok(None);
        }
        self.last = stamp;
        Ok(Some(stamp))
    }

    fn reply(&mut self, stamp: u64) -> Result<(), BenchError> {
        self.send(stamp)
    }

    fn check(&self, _: u64) -> Result<(), BenchError> {
        Ok(())
    }
}

/// A publication and a subscription of Aeron.
pub(super) struct AeronPath<'a> {
    ends: &'a mut AeronEnds,
    sent: Vec<u8>,
    taken: Vec<u8>,
}

impl<'a> AeronPath<'a> {
    pub(super) fn new(ends: &'a mut AeronEnds, bytes: usize) -> Self {
        Self { ends, sent: vec![0; bytes], taken: vec![0; bytes] }
    }
}

impl Path for AeronPath<'_> {
    fn prepare(&mut self, stamp: u64) {
        pattern::fill(&mut self.sent, stamp);
    }

    fn send(&mut self, _: u64) -> Result<(), BenchError> {
        offer(self.ends, &self.sent)
    }

    fn receive(&mut self) -> Result<Option<u64>, BenchError> {
        let taken = &mut self.taken;
        let mut stamp = None;
        self.ends.subscription.poll(BATCH, &mut |fragment| {
            if fragment.data.len() == taken.len() {
                taken.copy_from_slice(fragment.data);
                stamp = Some(pattern::stamp_of(taken));
            }
        })?;
        Ok(stamp)
    }

    fn reply(&mut self, _: u64) -> Result<(), BenchError> {
        offer(self.ends, &self.taken)
    }

    fn check(&self, stamp: u64) -> Result<(), BenchError> {
        compare(&self.taken, &self.sent, stamp)
    }
}

/// Frames whose every byte is copied in and out.
pub(super) struct CopyPath<'a> {
    ends: &'a mut Ends,
    layout: TensorLayout,
    sent: Vec<u8>,
    taken: Vec<u8>,
}

impl<'a> CopyPath<'a> {
    pub(super) fn new(ends: &'a mut Ends, bytes: usize) -> Result<Self, BenchError> {
        Ok(Self { ends, layout: layout(bytes)?, sent: vec![0; bytes], taken: vec![0; bytes] })
    }
}

impl Path for CopyPath<'_> {
    fn prepare(&mut self, stamp: u64) {
        pattern::fill(&mut self.sent, stamp);
    }

    fn send(&mut self, _: u64) -> Result<(), BenchError> {
        publish(self.ends, &self.layout, &self.sent)
    }

    fn receive(&mut self) -> Result<Option<u64>, BenchError> {
        let (taken, bytes) = (&mut self.taken, self.sent.len());
        let (mut stamp, mut lost) = (None, 0);
        self.ends.consumer.poll_outcomes(BATCH, &mut |outcome| match outcome {
            ReadOutcome::Frame(frame) if frame.payload().len() == bytes => match frame.copy_to(taken) {
                Ok(()) => stamp = Some(pattern::stamp_of(taken)),
                Err(_) => lost += 1,
            },
            // Of another size: left over from before.
            ReadOutcome::Frame(_) => {}
            _ => lost += 1,
        })?;
        found(stamp, bytes, lost)
    }

    fn reply(&mut self, _: u64) -> Result<(), BenchError> {
        publish(self.ends, &self.layout, &self.taken)
    }

    fn check(&self, stamp: u64) -> Result<(), BenchError> {
        compare(&self.taken, &self.sent, stamp)
    }
}

/// Frames that are claimed, stamped as a device would fill them, committed, and looked at in place.
pub(super) struct ClaimPath<'a> {
    ends: &'a mut Ends,
    layout: TensorLayout,
    bytes: usize,
    taken: u64,
}

impl<'a> ClaimPath<'a> {
    pub(super) fn new(ends: &'a mut Ends, bytes: usize) -> Result<Self, BenchError> {
        Ok(Self { ends, layout: layout(bytes)?, bytes, taken: 0 })
    }
}

impl Path for ClaimPath<'_> {
    fn prepare(&mut self, _: u64) {}

    fn send(&mut self, stamp: u64) -> Result<(), BenchError> {
        let mut claim = self.ends.producer.try_claim(self.bytes)?;
        claim.payload().write_at(0, &stamp.to_le_bytes())?;
        self.ends.producer.commit(&mut claim, &self.layout, FrameMeta::default())?;
        self.ends.next = tidegate::tensor::ids::Seq::new(claim.seq().get() + 1);
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<u64>, BenchError> {
        let bytes = self.bytes;
        let (mut stamp, mut lost) = (None, 0);
        self.ends.consumer.poll_outcomes(BATCH, &mut |outcome| match outcome {
            ReadOutcome::Frame(frame) if frame.payload().len() == bytes => {
                let mut word = [0; STAMP_LEN];
                if frame.payload().read_at(0, &mut word).is_ok() && frame.validate().is_ok() {
                    stamp = Some(u64::from_le_bytes(word));
                } else {
                    lost += 1;
                }
            }
            ReadOutcome::Frame(_) => {}
            _ => lost += 1,
        })?;
        self.taken = stamp.unwrap_or(self.taken);
        found(stamp, bytes, lost)
    }

    fn reply(&mut self, stamp: u64) -> Result<(), BenchError> {
        self.send(stamp)
    }

    fn check(&self, stamp: u64) -> Result<(), BenchError> {
        if self.taken == stamp { Ok(()) } else { Err(BenchError::Corrupt { bytes: self.bytes, stamp }) }
    }
}

fn publish(ends: &mut Ends, layout: &TensorLayout, payload: &[u8]) -> Result<(), BenchError> {
    let seq = ends.producer.offer(layout, payload, FrameMeta::default())?;
    ends.next = tidegate::tensor::ids::Seq::new(seq.get() + 1);
    Ok(())
}

fn offer(ends: &mut AeronEnds, message: &[u8]) -> Result<(), BenchError> {
    use tidegate_aeron::OfferError::{AdminAction, BackPressured};
    let mut patience = Patience::new();
    loop {
        match ends.publication.offer(message) {
            Ok(_) => return Ok(()),
            // A log that turns a page, which happens once in so many messages.
            Err(AdminAction | BackPressured) => patience.spin()?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// With one frame on its way there is nothing to lose one by.
fn found(stamp: Option<u64>, bytes: usize, lost: u64) -> Result<Option<u64>, BenchError> {
    if lost == 0 { Ok(stamp) } else { Err(BenchError::Lost { bytes, frames: lost }) }
}

fn compare(taken: &[u8], sent: &[u8], stamp: u64) -> Result<(), BenchError> {
    if taken == sent { Ok(()) } else { Err(BenchError::Corrupt { bytes: sent.len(), stamp }) }
}
