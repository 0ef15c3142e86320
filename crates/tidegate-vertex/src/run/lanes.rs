//! The lanes: batches to them, answers from them, and what happens when a worker ends.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
};

use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::{
    frame::{Frame, Kind, payload_crc},
    ids::{BatchId, Generation, PartitionId, SchemaId},
    message::Welcome,
    record::RecordWriter,
    status::Status,
};

use super::{
    Vertex, VertexError,
    tenure::{Partition, Tenure},
    turns::{Turn, Turns},
    watch::Meter,
};
use crate::{
    batch::Batch,
    config::Pipeline,
    failpoint::{self, Point},
    fence::WriteKind,
    flow::Ticket,
    lane::{
        door::Door,
        session::{SendError, Session, Typing},
        supervise::{AttachError, EndReason, Lane, LaneEvent, Origin, WorkerSpec},
    },
};

/// A lane and what is on its way there.
pub(super) struct LaneState {
    pub(super) lane: Lane,
    pub(super) session: Option<Session>,
    /// Each batch that is on its way.
    pub(super) sent: BTreeMap<BatchId, Sent>,
    turns: Turns,
    /// Sessions in a row that were short and ended with a broken protocol.
    faults: u32,
    /// When the last worker was attached, if there was one.
    attached: Option<Nanos>,
    /// Sessions that ended, and how the last one did.
    pub(super) ended: u64,
    pub(super) timeouts: u64,
    pub(super) panics: u64,
    pub(super) last_end: Option<String>,
    restarts: Restarts,
    /// Answers in a row that took a generation for stale that is not (VX-235).
    stale: u32,
    /// Since when it takes no more although there is a batch, and how long that was before.
    full_since: Option<Nanos>,
    waited: Nanos,
    /// Workers in a row whose schemas did not fit.
    misfits: u32,
}

/// A batch on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// Index of its partition.
    partition: usize,
    generation: Generation,
    at: Nanos,
}

impl LaneState {
    pub(super) fn new(lane: Lane, limit: Option<(NonZeroU32, Nanos)>) -> Self {
        Self {
            lane,
            restarts: Restarts { limit, ended: VecDeque::new() },
            session: None,
            sent: BTreeMap::new(),
            turns: Turns::default(),
            faults: 0,
            attached: None,
            ended: 0,
            timeouts: 0,
            panics: 0,
            last_end: None,
            stale: 0,
            full_since: None,
            waited: Nanos::ZERO,
            misfits: 0,
        }
    }

    /// Whether it has a worker.
    pub(super) fn is_ready(&self) -> bool {
        self.session.is_some()
    }

    /// Whether its worker stands still, as far as one can see (VX-433).
    pub(super) fn is_suspect(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_suspect)
    }

    /// How long batches have waited for the worker to take more (VX-307).
    pub(super) fn waited(&self) -> Nanos {
        let waits = self.full_since.map(|since| monotonic_now().saturating_sub(since));
        self.waited.saturating_add(waits.unwrap_or(Nanos::ZERO))
    }

    /// It took a batch, or could not.
    fn has_room(&mut self, room: bool) {
        if room {
            (self.waited, self.full_since) = (self.waited(), None);
        } else {
            self.full_since.get_or_insert_with(monotonic_now);
        }
    }

    fn load(&self) -> Load {
        match (self.is_ready(), self.is_suspect()) {
            (false, _) => Load::None,
            (true, false) => Load::Going(self.sent.len()),
            (true, true) => Load::Suspect(self.sent.len()),
        }
    }

    /// The worker took a current generation for stale: its batch is sent again, but not for ever (VX-235).
    fn took_for_stale(&mut self) {
        self.stale += 1;
        if self.stale > MAX_STALE
            && let Some(session) = &self.session
        {
            session.end();
        }
    }
}

impl Vertex {
    pub(super) fn happened(&mut self, number: u32, event: LaneEvent) -> Result<(), VertexError> {
        let now = monotonic_now();
        let Some(lane) = self.lanes.get_mut(number as usize) else { return Ok(()) };
        match event {
            LaneEvent::Attached(session) => {
                tracing::info!(lane = number, "worker attached");
                lane.session = Some(session);
                lane.misfits = 0;
                self.misfits = 0;
                lane.attached = Some(now);
                lane.stale = 0;
            }
            LaneEvent::Answered(batch, answer) => {
                if answer.status() == Status::SchemaMismatch {
                    let message = format!(
                        "the worker of lane {number} took batch {batch} for one of another schema than its session has"
                    );
                    return Err(AttachError::Refused { code: "SCHEMA", message }.into());
                }
                let Some(Sent { partition: index, generation, at }) = lane.sent.remove(&batch) else {
                    return Ok(());
                };
                lane.panics += u64::from(answer.status() == Status::UdfPanic);
                self.meter.roundtrip.add_time(now.saturating_sub(at));
                let tenure = self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut());
                let tenure = tenure.filter(|tenure| tenure.guard.generation() == generation);
                // Accepting an answer is a write (VX-722); of a generation that is over nothing is taken (VX-232).
                let permitted = tenure.and_then(|tenure| {
                    let permit = tenure.guard.permit(WriteKind::Answer).ok()?;
                    Some((tenure, permit))
                });
                match permitted {
                    Some((tenure, permit)) => {
                        if answer.status() == Status::StaleGeneration {
                            self.meter.resubmitted += 1;
                            lane.took_for_stale();
                        } else {
                            lane.stale = 0;
                        }
                        tenure.flow.answered(Ticket { lane: number, batch }, answer, now);
                        drop(permit);
                        failpoint::at(Point::Answered);
                    }
                    None => self.report.stale += 1,
                }
            }
            // What waits is sent below.
            LaneEvent::Room => {}
            LaneEvent::Ended { unanswered, why } => {
                lane.session = None;
                lane.has_room(true);
                let ticket = |batch| Ticket { lane: number, batch };
                let suspect = match why {
                    EndReason::Stopped => None,
                    _ => unanswered.first().copied().map(ticket),
                };
                tracing::warn!(lane = number, unanswered = unanswered.len(), ?why, "worker ended");
                let sent = std::mem::take(&mut lane.sent);
                let mut lost: BTreeMap<usize, Vec<Ticket>> = BTreeMap::new();
                for (batch, Sent { partition, .. }) in sent {
                    lost.entry(partition).or_default().push(ticket(batch));
                }
                for (index, batches) in lost {
                    let tenure =
                        self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut());
                    if let Some(tenure) = tenure {
                        tenure.flow.lost(&batches, suspect, now);
                    }
                }
                self.report.restarts += 1;
                lane.ended += 1;
                lane.timeouts += u64::from(matches!(why, EndReason::TimedOut));
                lane.last_end = Some(format!("{why:?}"));
                if !matches!(why, EndReason::Stopped) && !lane.restarts.allow(now) {
                    let why = format!("{why:?}");
                    return Err(VertexError::Restarts {
                        lane: number,
                        workers: lane.restarts.ended.len(),
                        why,
                    });
                }
                let lasted = now.saturating_sub(lane.attached.unwrap_or(now));
                match why {
                    EndReason::Fault(violation) => {
                        lane.faults = if lasted >= HEALTHY { 1 } else { lane.faults + 1 };
                        if lane.faults >= MAX_FAULTS {
                            return Err(VertexError::Protocol { lane: number, violation });
                        }
                    }
                    _ => lane.faults = 0,
                }
            }
            LaneEvent::NotAttached(error @ AttachError::Refused { code: "SCHEMA", .. }) => {
                lane.misfits += 1;
                lane.last_end = Some(error.to_string());
                if lane.misfits > self.pipeline.udf.attach_retries {
                    return Err(error.into());
                }
                tracing::warn!(lane = number, %error, "worker not attached");
            }
            LaneEvent::NotAttached(error) => {
                // A command that never worked is a mistake of the pipeline file; one that did may work again, and of those that
                // somebody else starts the next one may be another.
                if lane.attached.is_none() && self.door.is_none() {
                    return Err(error.into());
                }
                tracing::warn!(lane = number, %error, "worker not attached");
            }
        }
        Ok(())
    }

    /// A worker came by itself whose schemas do not fit. As long as another one works, it is that one's mistake (VX-422).
    pub(super) fn misfit(&mut self, error: AttachError) -> Result<(), VertexError> {
        if self.lanes.iter().any(LaneState::is_ready) {
            return Ok(());
        }
        self.misfits += 1;
        if self.misfits > self.pipeline.udf.attach_retries { Err(error.into()) } else { Ok(()) }
    }

    /// Sends what the lanes and the room for answers can take; the partitions of a lane take turns.
    pub(super) fn send(&mut self) {
        let tenures = self.partitions.iter().filter_map(|partition| partition.tenure.as_ref());
        let mut sending = Sending {
            held: tenures.map(|tenure| tenure.flow.sent_len()).sum(),
            room: self.room,
            checksum: self.pipeline.has_payload_checksums(),
            payload: &mut self.payload,
            meter: &mut self.meter,
        };
        let (workers, count) = (self.lanes.len(), self.partitions.len());
        if !self.pipeline.is_ordered() {
            let most = self.pipeline.transport().max_in_flight as usize;
            self.turns.go_round(count, |index| {
                let Some(partition) = self.partitions.get_mut(index) else { return Turn::Nothing };
                let loads = self.lanes.iter().map(LaneState::load);
                let number = least_loaded(&loads.collect::<Vec<_>>(), most);
                match number.and_then(|number| Some((number as u32, self.lanes.get_mut(number)?))) {
                    Some((number, lane)) => sending.send(number, lane, index, partition),
                    None => {
                        self.lanes
                            .iter_mut()
                            .filter(|lane| lane.is_ready())
                            .for_each(|lane| lane.has_room(false));
                        Turn::Full
                    }
                }
            });
            return;
        }
        for (number, lane) in (0u32..).zip(&mut self.lanes) {
            let first = number as usize;
            let mut turns = std::mem::take(&mut lane.turns);
            turns.go_round(count.saturating_sub(first).div_ceil(workers), |turn| {
                let index = first + turn * workers;
                let Some(partition) = self.partitions.get_mut(index) else { return Turn::Nothing };
                sending.send(number, lane, index, partition)
            });
            lane.turns = turns;
        }
    }
}

/// What a lane could take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// It has no worker.
    None,
    /// So many batches on their way.
    Going(usize),
    /// The same, and its worker stands still.
    Suspect(usize),
}

/// The lane that has the least to do, of those with fewer than `most` batches; one whose worker stands still only if all do
/// (VX-433, VX-440).
fn least_loaded(lanes: &[Load], most: usize) -> Option<usize> {
    let any_goes = lanes.iter().any(|load| matches!(load, Load::Going(_)));
    let takes = |(number, load): (usize, &Load)| match *load {
        Load::Going(sent) => (sent < most).then_some((sent, number)),
        Load::Suspect(sent) => (!any_goes && sent < most).then_some((sent, number)),
        Load::None => None,
    };
    lanes.iter().enumerate().filter_map(takes).min().map(|(_, number)| number)
}

/// What it takes to send.
struct Sending<'v> {
    /// Batches that were sent and are not final.
    held: usize,
    /// As many as there is room for.
    room: usize,
    checksum: bool,
    payload: &'v mut RecordWriter,
    meter: &'v mut Meter,
}

impl Sending<'_> {
    /// Sends the next batch of partition number `index` to lane number `number`.
    fn send(&mut self, number: u32, lane: &mut LaneState, index: usize, partition: &mut Partition) -> Turn {
        let turn = self.send_to(number, lane, index, partition);
        match turn {
            Turn::Sent => lane.has_room(true),
            Turn::Full => lane.has_room(false),
            Turn::Nothing => {}
        }
        turn
    }

    fn send_to(
        &mut self,
        number: u32,
        lane: &mut LaneState,
        index: usize,
        partition: &mut Partition,
    ) -> Turn {
        let now = monotonic_now();
        let LaneState { session: Some(session), sent, .. } = lane else { return Turn::Nothing };
        let Some(tenure) = &mut partition.tenure else { return Turn::Nothing };
        let Some(batch) = tenure.next_to_send(now, sent.len() >= BUSY) else { return Turn::Nothing };
        // The oldest batch of a partition may always go: its answer is what makes room (VX-317).
        if self.held >= self.room && !tenure.flow.sends_front() {
            return Turn::Nothing;
        }
        // The loop finds out about the revoke by itself.
        let Ok(permit) = tenure.guard.permit(WriteKind::Request) else { return Turn::Nothing };
        batch.write(self.payload);
        let payload = self.payload.bytes();
        let waited = batch.is_fresh().then(|| now.saturating_sub(batch.since));
        let header = request(partition.id, tenure, batch);
        let header = Frame { payload_crc: self.checksum.then(|| payload_crc(payload)), ..header };
        match session.send(&header, payload, || permit.is_current()) {
            Ok(batch) => {
                self.meter.records.add(header.record_count.into());
                self.meter.bytes.add(payload.len() as u64);
                waited.into_iter().for_each(|time| self.meter.queue.add_time(time));
                tenure.flow.sent(Ticket { lane: number, batch });
                let generation = tenure.guard.generation();
                sent.insert(batch, Sent { partition: index, generation, at: now });
                self.held += 1;
                failpoint::at(Point::Requested);
                Turn::Sent
            }
            Err(SendError::Fenced) => Turn::Nothing,
            Err(SendError::Full | SendError::Over) => Turn::Full,
        }
    }
}

fn request(partition: PartitionId, tenure: &Tenure, batch: &Batch) -> Frame {
    let generation = tenure.guard.generation();
    let epoch = tenure.open_epoch();
    Frame {
        kind: Kind::Data,
        more: false,
        replay: batch.attempt > 0,
        barrier: false,
        end_of_source: false,
        generation,
        epoch,
        // The session numbers its batches, and knows what they are.
        batch: BatchId(0),
        schema: SchemaId::NONE,
        partition,
        record_count: batch.count(),
        source_first: batch.first(),
        source_last: batch.last(),
        watermark: None,
        status: Status::Ok,
        attempt: batch.attempt,
        fence_slot: tenure.slot,
        inputs_done: 0,
        frag_index: 0,
        payload_crc: None,
    }
}

pub(super) fn worker_spec(
    pipeline: &Pipeline,
    typing: Typing,
    door: Option<&Door>,
    instance: u64,
) -> WorkerSpec {
    let welcome = Welcome {
        proto: 1,
        pipeline: pipeline.pipeline.name.clone(),
        heartbeat_ms: pipeline.heartbeat().0 / 1_000_000,
        batch_timeout_ms: pipeline.batch_timeout().0 / 1_000_000,
        routes: pipeline.routes().map(|(_, name)| name.to_owned()).collect(),
        checksum: pipeline.has_payload_checksums(),
        params: serde_json::to_value(&pipeline.udf.params).unwrap_or_default(),
    };
    let origin = match door {
        Some(door) => Origin::Outside(door.hall()),
        None => Origin::Command {
            command: pipeline.udf.command.clone(),
            env: pipeline.udf.env.clone().into_iter().collect(),
        },
    };
    WorkerSpec {
        origin,
        welcome,
        transport: pipeline.transport(),
        typing,
        instance,
        pipeline: pipeline.uid(),
        attach_timeout: pipeline.attach_timeout(),
        batch_timeout: pipeline.batch_timeout(),
    }
}

/// How often workers of a lane may end (VX-436).
#[derive(Debug)]
struct Restarts {
    /// So many within such a time; without it as often as they do.
    limit: Option<(NonZeroU32, Nanos)>,
    /// When the last ones ended, no more than one above the limit.
    ended: VecDeque<Nanos>,
}

impl Restarts {
    /// A worker has ended: whether another one may be started.
    fn allow(&mut self, now: Nanos) -> bool {
        let Some((most, window)) = self.limit else { return true };
        while self.ended.front().is_some_and(|ended| now.saturating_sub(*ended) >= window) {
            self.ended.pop_front();
        }
        self.ended.push_back(now);
        self.ended.len() <= most.get() as usize
    }
}

/// Answers in a row after which a worker that takes a current generation for stale is ended.
const MAX_STALE: u32 = 3;
/// Broken protocols in a row after which the vertex ends.
const MAX_FAULTS: u32 = 2;
/// A session that lasted so long was a good one, whatever ended it.
const HEALTHY: Nanos = Nanos::from_secs(60);
/// Batches on their way from which on a worker has enough to do for the next one to wait for more inputs (VX-442).
const BUSY: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: VX-433, VX-440.
    #[test]
    fn a_batch_goes_to_who_has_the_least_to_do_and_not_to_who_stands_still() {
        use Load::{Going, Suspect};
        for (lanes, expected) in [
            (vec![Going(3), Going(1), Going(1)], Some(1)),
            (vec![Load::None, Going(3)], Some(1)),
            (vec![Going(4), Going(4)], None),
            (vec![Suspect(0), Going(3)], Some(1)),
            // It waits for the one that goes.
            (vec![Suspect(0), Going(4)], None),
            (vec![Suspect(2), Load::None, Suspect(1)], Some(2)),
            (vec![Suspect(4)], None),
            (vec![Load::None], None),
        ] {
            assert_eq!(least_loaded(&lanes, 4), expected, "{lanes:?}");
        }
    }

    /// Rules: VX-436.
    #[test]
    fn workers_may_end_as_often_within_the_window_as_is_allowed_and_not_once_more() {
        let seconds = Nanos::from_secs;
        let limit = NonZeroU32::new(2).map(|most| (most, seconds(10)));
        let mut restarts = Restarts { limit, ended: VecDeque::new() };
        assert!(restarts.allow(seconds(1)) && restarts.allow(seconds(5)));
        // The first one was long ago by now.
        assert!(restarts.allow(seconds(11)));
        assert!(!restarts.allow(seconds(14)));
        let mut any = Restarts { limit: None, ended: VecDeque::new() };
        assert!((0..1000).all(|_| any.allow(seconds(1))) && any.ended.is_empty());
    }
}
