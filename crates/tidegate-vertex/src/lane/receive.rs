//! The thread that takes answers out of U, whatever the rest of the runtime does (VX-313).

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{AtomicU64, Ordering},
};
use tidegate_udf::{
    ring::Violation,
    wire::{
        frame::{Frame, FrameFault, Kind},
        ids::{BatchId, SchemaId},
        record::{Direction, RecordFault, Records},
        status::Status,
    },
};

use super::{
    session::{Incoming, Shared},
    supervise::LaneEvent,
};
use crate::answer::Answer;

/// Takes answers until the session is closed, then those that are still there (VX-435). Counts how often it sleeps, or would if
/// nothing were there.
pub(super) fn run(mut incoming: Incoming, sleeps: &AtomicU64, mut tell: impl FnMut(LaneEvent)) {
    let mut partial = None;
    let mut fruitless = 0u32;
    loop {
        let shared = incoming.shared.clone();
        // Acquire: pairs with the store of the supervisor; nothing is written to U after it.
        let closed = || shared.closed.load(Ordering::Acquire);
        let reader = &incoming.reader;
        let deadline = monotonic_now().saturating_add(LONGEST_SLEEP);
        // Relaxed: for people.
        sleeps.fetch_add(1, Ordering::Relaxed);
        shared.link.sleep_once(deadline, || closed() || reader.is_behind());
        let last = closed();
        if last {
            // A worker that was cut off may write on for ever.
            incoming.reader.end();
        }
        let drained =
            drain(&mut incoming, &mut partial, &mut |batch, answer| tell(LaneEvent::Answered(batch, answer)));
        if shared.has_room_again() {
            tell(LaneEvent::Room);
        }
        match drained {
            Ok(0) if last => return,
            // Woken for nothing; a sleep that ended with its deadline was not.
            Ok(0) if monotonic_now() < deadline => fruitless = fruitless.saturating_add(1),
            Ok(_) => fruitless = 0,
            Err(violation) => {
                shared.accuse(violation);
                return;
            }
        }
        if fruitless >= MAX_FRUITLESS {
            // A worker that rings without reason does not cost a processor (VX-327).
            let doublings = (fruitless - MAX_FRUITLESS).min(5);
            std::thread::sleep(Nanos::from_millis(1 << doublings).min(LONGEST_PAUSE).into());
        }
    }
}

/// An answer of which fragments are missing.
struct Partial {
    request: Frame,
    next_fragment: u32,
    bytes: u64,
    payload: Vec<u8>,
    records: u32,
}

/// Takes all frames that are there; the number of frames.
fn drain(
    incoming: &mut Incoming,
    partial: &mut Option<Partial>,
    deliver: &mut impl FnMut(BatchId, Answer),
) -> Result<u32, Violation> {
    let mut frames = 0;
    let shared = incoming.shared.clone();
    while let Some(taken) = incoming.reader.take()? {
        frames += 1;
        let frame = taken.frame;
        let mut answer = match partial.take() {
            Some(partial) => partial,
            None => {
                let request =
                    shared.request(frame.batch).ok_or(wrong("batch_id (in flight)", frame.batch.0, 0))?;
                Partial {
                    request: request.request,
                    next_fragment: 0,
                    bytes: 0,
                    payload: Vec::new(),
                    records: 0,
                }
            }
        };
        check_identity(&frame, &answer, shared.typing.output)?;
        answer.next_fragment += 1;
        answer.bytes += u64::from(taken.frame_len);
        let start = answer.payload.len();
        incoming.reader.copy_payload(&taken, &mut answer.payload)?;
        // Acquire: as in `run`. Fragments of one answer may come without end.
        if shared.closed.load(Ordering::Acquire) {
            incoming.reader.end();
        }
        if incoming.reader.release(taken) {
            shared.link.ring_bell();
        }
        if answer.bytes > shared.max_response {
            // Drained, and thrown away (VX-312).
            answer.payload.clear();
        } else if frame.more || start > 0 {
            // Each fragment ends with a record (VX-213); what is whole is read once, below.
            let direction = Direction::Response { inputs: answer.request.record_count };
            let fragment = answer.payload.get(start..).unwrap_or_default();
            Records::parse(fragment, frame.record_count, direction).map_err(bad_records)?;
        }
        answer.records = answer.records.saturating_add(frame.record_count);
        if frame.more {
            *partial = Some(answer);
            continue;
        }
        let complete = complete(&frame, answer, &shared)?;
        shared.settle(frame.batch);
        deliver(frame.batch, complete);
    }
    Ok(frames)
}

/// An answer repeats what its request said, and its fragments follow each other (VX-231, VX-213).
fn check_identity(frame: &Frame, answer: &Partial, schema: SchemaId) -> Result<(), Violation> {
    let request = &answer.request;
    let pairs = [
        ("kind (response)", u64::from(frame.kind == Kind::Response), 1),
        ("batch_id", frame.batch.0, request.batch.0),
        ("partition_id", frame.partition.0.into(), request.partition.0.into()),
        ("generation_id", frame.generation.0, request.generation.0),
        ("epoch_id", frame.epoch.0, request.epoch.0),
        ("source_first", frame.source_first.0, request.source_first.0),
        ("source_last", frame.source_last.0, request.source_last.0),
        ("schema_id", frame.schema.0, schema.0),
        ("frag_index", frame.frag_index.into(), answer.next_fragment.into()),
    ];
    for (field, found, expected) in pairs {
        if found != expected {
            return Err(wrong(field, found, expected));
        }
    }
    Ok(())
}

/// The answer, when its last fragment is there.
fn complete(last: &Frame, answer: Partial, shared: &Shared) -> Result<Answer, Violation> {
    let inputs = answer.request.record_count;
    if answer.bytes > shared.max_response {
        return Ok(Answer::of_batch(Status::OutputTooLarge));
    }
    if !matches!(last.status, Status::Ok | Status::Partial) {
        return Ok(Answer::of_batch(last.status));
    }
    if last.inputs_done != inputs {
        return Err(wrong("inputs_done", last.inputs_done.into(), inputs.into()));
    }
    Answer::parse(last.status, answer.payload, answer.records, inputs, shared.routes).map_err(bad_records)
}

fn wrong(field: &'static str, found: u64, expected: u64) -> Violation {
    Violation::Frame { position: 0, fault: FrameFault { field, found, expected } }
}

fn bad_records(fault: RecordFault) -> Violation {
    wrong(fault.field, fault.found, fault.allowed)
}

/// A missed wake-up costs at most this (VX-323).
const LONGEST_SLEEP: Nanos = Nanos::from_millis(100);
/// Wake-ups without a frame in a row before waiting by timer.
const MAX_FRUITLESS: u32 = 64;
const LONGEST_PAUSE: Nanos = Nanos::from_millis(20);
