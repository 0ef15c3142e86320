//! What a call takes: many in a row in one thread. What has to be done between the rows does not count.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::hub::config::{HubTimeouts, Timeout};
use tidegate::hub::error::AcquireError;
use tidegate::hub::lock::LockTable;
use tidegate::hub::producer::WriteBatch;

use super::{Direction, HubFrom, HubOut, Task, failed};
use crate::cli::bench::peer::{finish, print};
use crate::cli::hub::bench::plan::Call;
use crate::output::Stop;

/// Calls in a row.
const ROW: u32 = 1000;

pub(super) fn run(task: &Task) -> Result<(), Stop> {
    let call = task.call.ok_or_else(|| Stop::usage("which call?"))?;
    let out = HubOut::make(task, Direction::Up)?;
    let mut from = HubFrom::attach_one(task, Direction::Up)?;
    let locks = LockTable::new(out.producer.block(), &HubTimeouts::default())
        .map_err(|error| failed("reach the locks", error))?;
    let mut row = || match call {
        Call::Acquire => acquire(&out, &mut from),
        Call::AcquireBatch => acquire_batch(&out, &mut from),
        Call::Commit => commit(&out, &mut from),
        Call::Read => {
            let batch = out.producer.acquire_write_batch(ROW, Timeout::Infinite);
            batch.and_then(WriteBatch::commit).map_err(|error| failed("write", error))?;
            read(&mut from)
        }
        Call::Poll => poll(&mut from),
        Call::Lock => lock(&locks),
        Call::Reap => reap(&out),
    };
    let warm = Instant::now() + task.times.warmup;
    while Instant::now() < warm {
        row()?;
    }
    print(&json!({ "begin": true }));
    let begin = Instant::now();
    let (mut calls, mut time) = (0, Duration::ZERO);
    while calls == 0 || !task.times.is_over(begin.elapsed(), calls) {
        time += row()?;
        calls += u64::from(ROW);
    }
    finish(&json!({ "messages": calls, "seconds": time.as_secs_f64() }))
}

fn acquire(out: &HubOut, from: &mut HubFrom) -> Result<Duration, Stop> {
    let mut slots = Vec::with_capacity(ROW as usize);
    let begin = Instant::now();
    for _ in 0..ROW {
        slots.push(out.producer.write(Timeout::Infinite).map_err(|error| failed("write", error))?);
    }
    let time = begin.elapsed();
    for slot in slots {
        slot.commit().map_err(|error| failed("commit", error))?;
    }
    read(from)?;
    Ok(time)
}

fn acquire_batch(out: &HubOut, from: &mut HubFrom) -> Result<Duration, Stop> {
    let begin = Instant::now();
    let batch = out.producer.acquire_write_batch(ROW, Timeout::Infinite);
    let batch = batch.map_err(|error| failed("write", error))?;
    let time = begin.elapsed();
    batch.commit().map_err(|error| failed("commit", error))?;
    read(from)?;
    Ok(time)
}

fn commit(out: &HubOut, from: &mut HubFrom) -> Result<Duration, Stop> {
    let slots = (0..ROW).map(|_| out.producer.write(Timeout::Infinite));
    let slots: Vec<_> = slots.collect::<Result<_, _>>().map_err(|error| failed("write", error))?;
    let begin = Instant::now();
    for slot in slots {
        slot.commit().map_err(|error| failed("commit", error))?;
    }
    let time = begin.elapsed();
    read(from)?;
    Ok(time)
}

/// Takes all that was written.
fn read(from: &mut HubFrom) -> Result<Duration, Stop> {
    let begin = Instant::now();
    for _ in 0..ROW {
        let slot = from.consumer.next(Timeout::Immediate).map_err(|error| failed("read", error))?;
        std::hint::black_box(slot.id());
    }
    Ok(begin.elapsed())
}

fn poll(from: &mut HubFrom) -> Result<Duration, Stop> {
    let begin = Instant::now();
    for _ in 0..ROW {
        match from.consumer.try_next() {
            Err(AcquireError::QueueEmpty) => {}
            Err(error) => return Err(failed("look for a record", error)),
            Ok(_) => return Err(failed("look for a record", "there is one")),
        }
    }
    Ok(begin.elapsed())
}

fn lock(locks: &LockTable) -> Result<Duration, Stop> {
    let lock = locks.alloc_lock("bench", Timeout::Infinite).map_err(|error| failed("make a lock", error))?;
    let begin = Instant::now();
    for _ in 0..ROW {
        let guard =
            lock.acquire(Timeout::Infinite).map_err(|error| failed("take the lock", error))?.into_guard();
        guard.release().map_err(|error| failed("give the lock back", error))?;
    }
    Ok(begin.elapsed())
}

fn reap(out: &HubOut) -> Result<Duration, Stop> {
    let begin = Instant::now();
    for _ in 0..ROW {
        out.producer.reap().map_err(|error| failed("look for dead consumers", error))?;
    }
    Ok(begin.elapsed())
}
