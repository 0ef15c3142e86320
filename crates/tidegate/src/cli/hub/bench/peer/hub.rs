//! Records by the hub, with the calls that programs use.

mod calls;

use std::convert::Infallible;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::hub::config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout, WaitStrategy};
use tidegate::hub::consumer::Consumer;
use tidegate::hub::error::{AcquireError, ReadBatchError};
use tidegate::hub::layout::{ChannelName, Secret, SyncPolicy};
use tidegate::hub::producer::Producer;
use tidegate::shm::sync::{Arc, AtomicU64, Ordering, spin_loop};

use super::{BATCH, Digest, Direction, From, Out, TOUCHED, Task, Way, failed, roles};
use crate::cli::bench::peer::{finish, print};
use crate::cli::bench::window::{Place, Window};
use crate::output::Stop;

/// How long an end waits for the block of the other.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of the authenticated blocks.
const SECRET: &[u8; 32] = b"a secret that everybody may know";
const ROLES: &[&str] = &[
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

pub(super) fn run(task: &Task) -> Result<(), Stop> {
    match task.role.as_str() {
        "readers" => readers(task),
        "source" if task.count > 1 => {
            let mut out = HubOut::make(task, Direction::Up)?;
            loop {
                out.send()?;
            }
        }
        "guards" | "closures" => both(task),
        "calls" => calls::run(task),
        "viewer" => {
            task.tell_place();
            let mut from = HubFrom::attach_one(task, Direction::Up)?;
            loop {
                from.receive()?;
            }
        }
        "setter" => setter(task),
        _ => roles::run::<Hub>(task, ROLES),
    }
}

struct Hub;

impl Way for Hub {
    type Out = HubOut;
    type From = HubFrom;

    fn prepare(_: &Task) -> Result<Self, Stop> {
        Ok(Self)
    }

    fn out(&self, task: &Task, direction: Direction) -> Result<HubOut, Stop> {
        HubOut::make(task, direction)
    }

    fn from(&self, task: &Task, direction: Direction) -> Result<HubFrom, Stop> {
        HubFrom::attach_one(task, direction)
    }
}

struct HubOut {
    producer: Producer,
    touched: usize,
}

impl HubOut {
    fn make(task: &Task, direction: Direction) -> Result<Self, Stop> {
        let channel = ChannelName::new(direction.name()).map_err(|error| failed("name a channel", error))?;
        let size = task.size.max(1) as u64;
        let policy = task.policy.unwrap_or_else(|| BufferPolicy::ring(task.slots()));
        let plain = HubConfig::new(channel, policy, size);
        let made = match task.digest {
            Digest::None => plain.high_throughput(),
            Digest::Enforced => plain.reliable(),
            Digest::Authenticated => plain.authenticated(secret()?),
        };
        let sync = if task.count > 1 { SyncPolicy::AllReaders } else { made.sync };
        let max_consumers = made.max_consumers.max(u32::try_from(task.count).unwrap_or(u32::MAX));
        let config = HubConfig { dir: task.place.clone(), wait: wait(task), sync, max_consumers, ..made };
        let producer = Producer::create(&config).map_err(|error| failed("make a block", error))?;
        Ok(Self { producer, touched: task.touched() })
    }
}

impl Out for HubOut {
    #[inline]
    fn send(&mut self) -> Result<(), Stop> {
        let mut slot = self.producer.write(Timeout::Infinite).map_err(|error| failed("write", error))?;
        slot.write_at(0, &RECORD[..self.touched]).map_err(|error| failed("write", error))?;
        slot.commit().map_err(|error| failed("commit", error))?;
        Ok(())
    }

    fn send_batch(&mut self) -> Result<(), Stop> {
        let batch = self.producer.acquire_write_batch(BATCH, Timeout::Infinite);
        let mut batch = batch.map_err(|error| failed("write", error))?;
        for index in 0..batch.len() {
            batch.put_bytes(index, &RECORD[..self.touched]).map_err(|error| failed("write", error))?;
        }
        batch.commit().map_err(|error| failed("commit", error))
    }
}

struct HubFrom {
    consumer: Consumer,
}

impl HubFrom {
    fn attach_one(task: &Task, direction: Direction) -> Result<Self, Stop> {
        Self::attach(task, direction, 1)?.pop().ok_or_else(|| failed("attach", "no consumer"))
    }

    /// This many consumers of the block, whose file is removed then: it goes with the processes.
    fn attach(task: &Task, direction: Direction, count: usize) -> Result<Vec<Self>, Stop> {
        let secret = (task.digest == Digest::Authenticated).then(secret).transpose()?;
        let config = ConsumerConfig {
            dir: task.place.clone(),
            wait: wait(task),
            max_held: task.policy.map_or(BATCH, |_| 1),
            secret,
            ..ConsumerConfig::default()
        };
        let prefix = format!("tidegate_{}_", direction.name());
        let begin = Instant::now();
        let name = loop {
            let entries = fs::read_dir(&task.place).map_err(|error| failed("look for the block", error))?;
            let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            match names.find(|name| name.starts_with(&prefix)) {
                Some(name) => break name,
                None if begin.elapsed() > PATIENCE => {
                    return Err(failed("find the block", "it does not come"));
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        let attach = || Consumer::attach(&name, &config).map(|consumer| Self { consumer });
        let all = (0..count).map(|_| attach()).collect::<Result<Vec<_>, _>>();
        let all = all.map_err(|error| failed("attach", error))?;
        fs::remove_file(task.place.join(&name)).map_err(|error| failed("remove the block's file", error))?;
        Ok(all)
    }
}

impl From for HubFrom {
    #[inline]
    fn receive(&mut self) -> Result<(), Stop> {
        let slot = self.consumer.next(Timeout::Infinite).map_err(|error| failed("read", error))?;
        let mut copy = [0; TOUCHED];
        slot.read_into(&mut copy);
        std::hint::black_box(copy);
        Ok(())
    }

    fn receive_batch(&mut self) -> Result<usize, Stop> {
        loop {
            match self.consumer.acquire_read_up_to(BATCH) {
                Ok(batch) => {
                    let mut copy = [0; TOUCHED];
                    for (_, bytes) in batch.iter() {
                        let len = bytes.len().min(TOUCHED);
                        bytes.read_at(0, &mut copy[..len]).map_err(|error| failed("read", error))?;
                        std::hint::black_box(copy);
                    }
                    return Ok(batch.len());
                }
                Err(ReadBatchError::Acquire(AcquireError::QueueEmpty)) => spin_loop(),
                Err(error) => return Err(failed("read", error)),
            }
        }
    }
}

/// Several consumers, each of which takes all records.
fn readers(task: &Task) -> Result<(), Stop> {
    task.tell_place();
    let consumers = HubFrom::attach(task, Direction::Up, task.count)?;
    let counts: Arc<Vec<AtomicU64>> = Arc::new(consumers.iter().map(|_| AtomicU64::new(0)).collect());
    let now = |counts: &[AtomicU64]| -> Vec<u64> {
        // Relaxed, here and below: numbers for people.
        counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    };
    for (nth, mut from) in consumers.into_iter().enumerate() {
        let counts = counts.clone();
        thread::spawn(move || -> Result<(), Stop> {
            loop {
                // Seldom, so that the threads do not meet at the words.
                for _ in 0..BATCH {
                    from.receive()?;
                }
                if let Some(count) = counts.get(nth) {
                    count.fetch_add(BATCH.into(), Ordering::Relaxed);
                }
            }
        });
    }
    thread::sleep(task.times.warmup);
    print(&json!({ "begin": true }));
    let (begin, before) = (Instant::now(), now(&counts));
    thread::sleep(task.times.measure);
    // Something at least, however late.
    while now(&counts) == before {
        thread::sleep(task.times.measure);
    }
    let (seconds, after) = (begin.elapsed().as_secs_f64(), now(&counts));
    let each: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let messages: u64 = each.iter().sum();
    let (least, most) = (each.iter().min(), each.iter().max());
    finish(&json!({ "messages": messages, "seconds": seconds, "least_each": least, "most_each": most }))
}

/// Writes what somebody looks at, and waits for nobody.
fn setter(task: &Task) -> Result<(), Stop> {
    let mut out = HubOut::make(task, Direction::Up)?;
    while out.producer.consumer_count() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let mut window = Window::new(task.times);
    while window.take(task.size) != Place::End {
        out.send()?;
    }
    finish(&window.result())
}

/// Writing and reading in one thread.
fn both(task: &Task) -> Result<(), Stop> {
    let mut out = HubOut::make(task, Direction::Up)?;
    let mut from = HubFrom::attach_one(task, Direction::Up)?;
    let guards = task.role == "guards";
    let mut window = Window::new(task.times);
    loop {
        if guards {
            out.send()?;
            from.receive()?;
        } else {
            by_closures(&mut out, &mut from)?;
        }
        if window.take(task.size) == Place::End {
            finish(&window.result());
        }
    }
}

#[inline]
fn by_closures(out: &mut HubOut, from: &mut HubFrom) -> Result<(), Stop> {
    let touched = out.touched;
    let written = out.producer.with_write(Timeout::Infinite, |slot| slot.write_at(0, &RECORD[..touched]));
    written.map_err(|error| failed("write", error))?;
    let read = from.consumer.with_next(Timeout::Infinite, |slot| {
        let mut copy = [0; TOUCHED];
        slot.read_into(&mut copy);
        std::hint::black_box(copy);
        Ok::<(), Infallible>(())
    });
    read.map_err(|error| failed("read", error))
}

fn wait(task: &Task) -> WaitStrategy {
    if task.sleeps { WaitStrategy::Hybrid } else { WaitStrategy::Spin }
}

fn secret() -> Result<Secret, Stop> {
    Secret::new(SECRET).map_err(|error| failed("make a secret", error))
}

const RECORD: [u8; TOUCHED] = [7; TOUCHED];
