//! What the machine can do: words and bytes in shared memory, and a futex, with nothing around them.
//!
//! ```text
//! offset    0  records sent
//!         256  records taken
//!         512  word on which the receiver sleeps
//!        4096  slots, one for each record that may be on its way
//! ```

use std::thread;
use std::time::{Duration, Instant};

use tidegate::shm::clock::{Nanos, monotonic_now};
use tidegate::shm::doorbell::{BellWord, LoadU32};
use tidegate::shm::region::{Access, AccessError, CreateOptions, RegionDir, RegionMut, create_region};
use tidegate::shm::sync::{Ordering, spin_loop};

use super::{BATCH, Direction, From, Out, TOUCHED, Task, Way, failed};
use crate::output::Stop;

const SENT: u64 = 0;
const TAKEN: u64 = 256;
const BELL: u64 = 512;
const SLOTS: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(20);
/// A receiver that sleeps looks again after this.
const SLICE: Nanos = Nanos::from_millis(1000);
pub(super) const ROLES: &[&str] = &[
    "source",
    "batch-source",
    "sink",
    "batch-sink",
    "trips",
    "echo",
    "sleepy-trips",
    "sleepy-echo",
    "idle",
    "quiet",
];

pub(super) struct Bare;

impl Way for Bare {
    type Out = Ring;
    type From = Ring;

    fn prepare(_: &Task) -> Result<Self, Stop> {
        Ok(Self)
    }

    fn out(&self, task: &Task, direction: Direction) -> Result<Ring, Stop> {
        let shape = Shape::of(task);
        let dir = RegionDir::open_base(&task.place).map_err(|error| failed("open the directory", error))?;
        let options = CreateOptions { mode: 0o600, ..CreateOptions::new(shape.len()) };
        let new = format!("{}.new", direction.name());
        let region = create_region(&dir, &new, &options).map_err(|error| failed("make the memory", error))?;
        // Found only when it is complete.
        let (from, to) = (task.place.join(new), task.place.join(direction.name()));
        std::fs::rename(from, to).map_err(|error| failed("name the memory", error))?;
        Ok(Ring { region, shape, number: 0 })
    }

    fn from(&self, task: &Task, direction: Direction) -> Result<Ring, Stop> {
        let shape = Shape::of(task);
        let dir = RegionDir::open_base(&task.place).map_err(|error| failed("open the directory", error))?;
        let begin = Instant::now();
        let file = loop {
            match dir.open_file(direction.name(), Access::ReadWrite) {
                Ok(file) => break file,
                Err(error) if begin.elapsed() > PATIENCE => return Err(failed("find the memory", error)),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        };
        let region = file.map_mut(shape.len()).map_err(|error| failed("map the memory", error))?;
        // It goes with the processes.
        dir.remove_file(direction.name()).map_err(|error| failed("remove the file", error))?;
        Ok(Ring { region, shape, number: 0 })
    }
}

#[derive(Clone, Copy)]
struct Shape {
    slots: u64,
    stride: u64,
    touched: usize,
    /// Whether records have bytes, and do not only say that they are there.
    bytes: bool,
    sleeps: bool,
}

impl Shape {
    fn of(task: &Task) -> Self {
        Self {
            slots: task.slots().into(),
            stride: (task.size as u64).next_multiple_of(64).max(64),
            touched: task.touched(),
            bytes: ["source", "batch-source", "sink", "batch-sink"].contains(&task.role.as_str()),
            sleeps: task.sleeps,
        }
    }

    fn len(self) -> u64 {
        SLOTS + self.slots * self.stride
    }
}

/// A ring of slots with a writer and a reader.
pub(super) struct Ring {
    region: RegionMut,
    shape: Shape,
    /// Records that were sent or taken.
    number: u64,
}

impl Ring {
    fn slot(&self, number: u64) -> u64 {
        SLOTS + number % self.shape.slots * self.shape.stride
    }

    fn push(&mut self, records: u64) -> Result<(), AccessError> {
        let taken = self.region.atomic_u64(TAKEN)?;
        // Acquire: pairs with the release of the reader.
        while self.number + records - taken.load(Ordering::Acquire) > self.shape.slots {
            spin_loop();
        }
        if self.shape.bytes {
            for number in self.number..self.number + records {
                let slot = self.region.span_mut(self.slot(number), self.shape.touched as u64)?;
                slot.write_at(0, &RECORD[..self.shape.touched])?;
            }
        }
        self.number += records;
        // Release: pairs with the acquire of the reader.
        self.region.atomic_u64(SENT)?.store(self.number, Ordering::Release);
        if self.shape.sleeps {
            let bell = self.region.atomic_u32(BELL)?;
            bell.fetch_add(1, Ordering::SeqCst);
            bell.wake_all();
        }
        Ok(())
    }

    fn pull(&mut self, most: u64) -> Result<u64, AccessError> {
        let sent = self.region.atomic_u64(SENT)?;
        let there = loop {
            let bell = self.region.atomic_u32(BELL)?;
            let seen = bell.load_relaxed();
            // Acquire: pairs with the release of the writer.
            let there = sent.load(Ordering::Acquire) - self.number;
            if there > 0 {
                break there.min(most);
            }
            if self.shape.sleeps {
                bell.sleep(seen, monotonic_now().saturating_add(SLICE));
            } else {
                spin_loop();
            }
        };
        if self.shape.bytes {
            let mut copy = [0; TOUCHED];
            for number in self.number..self.number + there {
                let slot = self.region.span(self.slot(number), self.shape.touched as u64)?;
                slot.read_at(0, &mut copy[..self.shape.touched])?;
                std::hint::black_box(copy);
            }
        }
        self.number += there;
        // Release: pairs with the acquire of the writer.
        self.region.atomic_u64(TAKEN)?.store(self.number, Ordering::Release);
        Ok(there)
    }
}

impl Out for Ring {
    #[inline]
    fn send(&mut self) -> Result<(), Stop> {
        self.push(1).map_err(|error| failed("write", error))
    }

    fn send_batch(&mut self) -> Result<(), Stop> {
        self.push(BATCH.into()).map_err(|error| failed("write", error))
    }
}

impl From for Ring {
    #[inline]
    fn receive(&mut self) -> Result<(), Stop> {
        self.pull(1).map(drop).map_err(|error| failed("read", error))
    }

    fn receive_batch(&mut self) -> Result<usize, Stop> {
        self.pull(BATCH.into()).map(|records| records as usize).map_err(|error| failed("read", error))
    }
}

const RECORD: [u8; TOUCHED] = [7; TOUCHED];
