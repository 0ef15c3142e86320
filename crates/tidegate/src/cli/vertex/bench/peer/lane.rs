//! A lane whose worker is this program, as a vertex has it.

use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use tidegate::shm::clock::Nanos;
use tidegate::shm::sync::{Arc, Condvar, Mutex};
use tidegate::vertex::fence::{FenceTable, Guard, SlotWords};
use tidegate::vertex::lane::session::{Session, Transport, Typing};
use tidegate::vertex::lane::supervise::{Lane, LaneEvent, Origin, WorkerSpec};
use tidegate_udf::wire::ids::{Generation, PartitionId};
use tidegate_udf::wire::message::Welcome;

use super::{Task, failed};
use crate::cli::bench::peer::{finish, print};
use crate::output::Stop;

/// Bytes of each ring.
pub(super) const RING: u64 = 16 << 20;
/// Bytes of a frame at most, as of a message of gRPC.
pub(super) const FRAME: u32 = 4 << 20;
/// Frames on their way at most, whatever they are parts of.
const WINDOW: u32 = 64;

/// Starts a lane; `tell` is called from its threads.
pub(super) fn start(
    checksum: bool,
    fence: &FenceTable,
    tell: impl Fn(LaneEvent) + Send + Sync + 'static,
) -> Result<Lane, Stop> {
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let program = program.to_str().ok_or_else(|| failed(&"the path of this program is not UTF-8"))?;
    let command = [program, "--quiet", "vertex", "bench-peer", "worker"].map(str::to_owned).to_vec();
    let welcome = Welcome {
        proto: 1,
        pipeline: "bench".to_owned(),
        heartbeat_ms: 200,
        batch_timeout_ms: 30_000,
        routes: vec!["main".to_owned()],
        checksum,
        params: Value::Null,
    };
    let transport = Transport {
        ring: RING,
        max_frame: FRAME,
        max_in_flight: WINDOW,
        // Twice what a request has: an answer ends with a frame that is not full.
        max_response: 2 * u64::from(FRAME),
    };
    let spec = WorkerSpec {
        origin: Origin::Command { command, env: Vec::new() },
        welcome,
        transport,
        typing: Typing::default(),
        instance: 1,
        pipeline: 1,
        attach_timeout: Nanos::from_secs(10),
        batch_timeout: Nanos::from_secs(30),
    };
    Lane::start(0, spec, fence, Arc::default(), tell).map_err(|error| failed(&error))
}

/// A fence with one partition.
pub(super) fn fence() -> Result<(FenceTable, Guard<SlotWords>), Stop> {
    let mut table = FenceTable::create(1, 1).map_err(|error| failed(&error))?;
    let (_, guard) = table.bind(PartitionId(0), Generation(1)).map_err(|error| failed(&error))?;
    Ok((table, guard))
}

/// A worker is attached and nothing comes. Tells seconds as messages, so that what is counted for each is for a second.
pub(super) fn idle(task: &Task) -> Result<(), Stop> {
    let (table, _guard) = fence()?;
    let attached = Arc::new((Mutex::new(None::<Session>), Condvar::new()));
    let told = attached.clone();
    let _lane = start(false, &table, move |event| {
        if let LaneEvent::Attached(session) = event {
            *told.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(session);
            told.1.notify_one();
        }
    })?;
    let mut session = attached.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let worker = loop {
        if let Some(pid) = session.as_ref().and_then(Session::pid) {
            break pid;
        }
        session = attached.1.wait(session).unwrap_or_else(std::sync::PoisonError::into_inner);
    };
    thread::sleep(task.times.warmup);
    print(&json!({ "begin": true, "workers": [worker] }));
    let begin = Instant::now();
    thread::sleep(task.times.measure);
    let seconds = begin.elapsed().as_secs_f64();
    finish(&json!({ "messages": seconds, "seconds": seconds }))
}
