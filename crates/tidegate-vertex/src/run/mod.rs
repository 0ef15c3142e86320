//! A vertex: one thread that reads the source, sends batches to the lanes, and writes what comes back to the sinks.
//!
//! ```text
//!  source --> flow of a partition --permit--> lane --> worker
//!                    ^                                    |
//!                    +---------- inbox <---- answers -----+
//!                    |
//!                    +--permit--> sink
//! ```
//!
//! A partition belongs to the lane `partition mod workers`, so its batches are answered in order (VX-440). Nothing grows
//! without bound: a batch is sent only when there is room for its answer, and a partition reads ahead by its window only
//! (VX-310, VX-311); a sink that is slow stops the source.

mod report;
mod watch;

use std::collections::BTreeMap;

use thiserror::Error;
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Arc, AtomicBool, Ordering},
};
use tidegate_udf::wire::{
    frame::{Frame, Kind, payload_crc},
    ids::{BatchId, EpochId, FenceSlot, Generation, PartitionId, Position, SchemaId},
    message::Welcome,
    status::Status,
};

pub use report::Report;
use watch::Meter;

use crate::{
    batch::Batch,
    config::{ConfigError, Pipeline},
    fence::{FenceError, FenceTable, Fenced, Quiesce, Reason, WriteGuard, WriteKind, WritePermit},
    flow::{Emitted, Flow, Step},
    inbox::Inbox,
    lane::{
        session::{SendError, Session},
        supervise::{AttachError, EndReason, Lane, LaneEvent, WorkerSpec, random},
    },
    ledger::{Disk, Ledger, LedgerError, Owned, Progress},
    operate::{Board, Control, Doing, Wish},
    sink::{self, Delivery, Output, OutputIds, Session as SinkSession, Sink, SinkError},
    source::{self, Budget, Identity, Polled, Resume, Source, SourceError},
    wake::Waker,
};

/// Why a vertex ended without having finished.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VertexError {
    /// The pipeline file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The fence could not be made.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The source cannot go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The sink cannot go on.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Progress cannot be kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A worker cannot be attached, and never was.
    #[error(transparent)]
    Worker(#[from] AttachError),
    /// A thread or descriptor is missing.
    #[error("cannot start lane {lane}")]
    Lane {
        /// Its number.
        lane: u32,
        /// What the system said.
        source: std::io::Error,
    },
    /// Workers broke the protocol twice in a row (VX-233, 9.1).
    #[error("the workers of lane {lane} broke the protocol twice in a row: {violation}")]
    Protocol {
        /// The lane.
        lane: u32,
        /// What the second did.
        violation: tidegate_udf::ring::Violation,
    },
    /// The right to write was lost.
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

/// A handle by which another thread ends a vertex.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    inbox: Arc<Inbox<Event>>,
}

impl Stop {
    /// Asks the vertex to read no more, to finish what it has begun, and to end.
    pub fn drain(&self) {
        // Relaxed: nothing is published with it.
        self.asked.store(true, Ordering::Relaxed);
        self.inbox.tell(Event::Wake);
    }
}

#[derive(Debug)]
enum Event {
    Lane(u32, LaneEvent),
    Wake,
}

/// A vertex, to be run.
pub struct Vertex {
    pipeline: Pipeline,
    source: Box<dyn Source>,
    sinks: Vec<End>,
    partitions: Vec<Partition>,
    lanes: Vec<LaneState>,
    inbox: Arc<Inbox<Event>>,
    asked: Arc<AtomicBool>,
    budget: Budget,
    /// Answers that there is room for.
    room: usize,
    ledger: Option<Ledger<Disk>>,
    last_commit: Nanos,
    report: Report,
    board: Arc<Board>,
    meter: Meter,
}

/// A sink and what belongs to it.
struct End {
    name: String,
    sink: Box<dyn Sink>,
    ids: OutputIds,
}

struct Partition {
    id: PartitionId,
    slot: FenceSlot,
    guard: WriteGuard,
    session: SinkSession,
    flow: Flow,
    at_end: bool,
    /// What is final and was not taken by all sinks.
    outgoing: Option<Outgoing>,
    /// What the ledger has.
    committed: Owned,
    /// Everything below is final and was given to the sinks.
    resume: Position,
}

/// Outputs of final inputs, by sink.
struct Outgoing {
    first: Position,
    last: Position,
    /// Where the partition is when all of them are confirmed.
    resume: Position,
    outputs: Vec<Vec<Output>>,
    /// When a sink that did not take all is asked again.
    again: Nanos,
}

struct LaneState {
    lane: Lane,
    session: Option<Session>,
    /// The partition of each batch that is on its way, and since when.
    sent: BTreeMap<BatchId, (usize, Nanos)>,
    /// Sessions in a row that were short and ended with a broken protocol.
    faults: u32,
    /// When the last worker was attached, if there was one.
    attached: Option<Nanos>,
    /// Sessions that ended, and how the last one did.
    ended: u64,
    last_end: Option<String>,
    /// Answers in a row that took a generation for stale that is not (VX-235).
    stale: u32,
}

impl LaneState {
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
    /// Opens source and sinks and starts the workers.
    ///
    /// # Errors
    /// As [`VertexError`] says; nothing was read or written.
    pub fn start(pipeline: Pipeline) -> Result<Self, VertexError> {
        let inbox = Arc::new(Inbox::new());
        let waking = inbox.clone();
        let waker = Waker::new(move || waking.tell(Event::Wake));
        let mut source = source::open(&pipeline.source, &waker)?;
        let mut sinks = Vec::new();
        for config in &pipeline.sink {
            let sink = sink::open(config, pipeline.uid(), &waker)?;
            let ids = OutputIds::new(pipeline.uid(), config.name());
            sinks.push(End { name: config.name().to_owned(), sink, ids });
        }
        let mut ledger = match &pipeline.ledger {
            Some(config) => Some(Ledger::open(Disk::open(&config.path)?, pipeline.uid())?),
            None => None,
        };
        let instance = random()?;
        let count = source.partitions();
        let mut fence = FenceTable::create(instance, count.max(MIN_SLOTS))?;
        let ringing = inbox.clone();
        let board = Board::new(count, move || ringing.tell(Event::Wake));
        let mut partitions = Vec::new();
        for id in (0..count).map(PartitionId) {
            let committed = match &mut ledger {
                Some(ledger) => ledger.acquire(id)?,
                None => Owned { generation: Generation(1), epoch: EpochId(0), resume: Position(0) },
            };
            let (slot, guard) = fence.bind(id, committed.generation)?;
            board.owns(id, Some(guard.clone()));
            let resume = Resume { position: committed.resume, identity: Identity::default() };
            let from = (committed.epoch != EpochId(0)).then_some(&resume);
            let resume = source.open(id, from)?;
            let session = SinkSession { partition: id, generation: committed.generation, nonce: random()? };
            let (flow, outgoing) = (Flow::new(pipeline.retry()), None);
            let committed = Owned { resume, ..committed };
            partitions.push(Partition {
                id,
                slot,
                guard,
                session,
                flow,
                at_end: false,
                outgoing,
                committed,
                resume,
            });
        }
        for End { name, sink, .. } in &mut sinks {
            if let Some(token) = ledger.as_ref().map(|ledger| ledger.sink(name)).transpose()?.flatten() {
                // What is cut is of all partitions, and all their fences are ours.
                let permits = permits(&partitions, WriteKind::Sink)?;
                sink.restore(&token, &permits)?;
            }
            for Partition { session, guard, .. } in &partitions {
                sink.barrier(session, guard)?;
                sink.read_back(session, None, guard)?;
            }
        }
        let transport = pipeline.transport();
        let spec = worker_spec(&pipeline, instance);
        let memory = Arc::new(fence.into_memory());
        let mut lanes = Vec::new();
        for number in 0..pipeline.udf.workers.get() {
            let inbox = inbox.clone();
            let tell = move |event| inbox.tell(Event::Lane(number, event));
            let lane = Lane::start(number, spec.clone(), memory.clone(), tell)
                .map_err(|source| VertexError::Lane { lane: number, source })?;
            lanes.push(LaneState {
                lane,
                session: None,
                sent: BTreeMap::new(),
                faults: 0,
                attached: None,
                ended: 0,
                last_end: None,
                stale: 0,
            });
        }
        let budget = Budget {
            records: pipeline.batch.max_records.get() as usize,
            bytes: pipeline.batch.max_bytes.0 as usize,
            value: pipeline.max_value(),
        };
        let room = (pipeline.limits.epoch_buffers.0 / transport.max_response) as usize;
        let asked = Arc::new(AtomicBool::new(false));
        let report = Report::default();
        let meter = Meter::new(&pipeline);
        let last_commit = monotonic_now();
        Ok(Self {
            pipeline,
            source,
            sinks,
            partitions,
            lanes,
            inbox,
            asked,
            budget,
            room,
            ledger,
            last_commit,
            report,
            board,
            meter,
        })
    }

    /// A handle by which other threads watch and steer the vertex.
    pub fn control(&self) -> Control {
        Control::new(self.board.clone())
    }

    /// A handle by which another thread ends the vertex.
    pub fn stop_handle(&self) -> Stop {
        Stop { asked: self.asked.clone(), inbox: self.inbox.clone() }
    }

    /// Runs until the source has no more and everything is written, or until it is told to stop.
    ///
    /// # Errors
    /// As [`VertexError`] says. The fences are revoked and the workers ended in any case (I2).
    pub fn run(mut self) -> Result<Report, VertexError> {
        let ended = self.work();
        for partition in &self.partitions {
            partition.guard.revoke(Reason::Shutdown);
        }
        for partition in &self.partitions {
            // All permits were of this thread.
            debug_assert_eq!(partition.guard.quiesce(|| false), Quiesce::Quiesced);
        }
        for lane in &self.lanes {
            lane.lane.stop();
        }
        // Waits for the workers.
        self.lanes.clear();
        ended.map(|()| self.report)
    }

    fn work(&mut self) -> Result<(), VertexError> {
        self.board.say(self.status());
        loop {
            self.board.tick();
            while let Some(event) = self.inbox.take() {
                if let Event::Lane(lane, event) = event {
                    self.happened(lane, event)?;
                }
            }
            self.deliver()?;
            let stopping = self.asked.load(Ordering::Relaxed) || self.board.is_to_end();
            if !stopping {
                self.read()?;
            }
            self.send()?;
            let finished = self.is_finished(stopping);
            let commit_at = self.commit(finished)?;
            if self.board.wants_status() || finished {
                self.board.say(self.status());
            }
            if finished {
                return Ok(());
            }
            let retries = self.partitions.iter().filter_map(|partition| match &partition.outgoing {
                Some(outgoing) => Some(outgoing.again),
                None => partition.flow.next_time(),
            });
            let deadline = retries.chain(commit_at).min();
            let limit = monotonic_now().saturating_add(LONGEST_SLEEP);
            self.inbox.wait_until(deadline.unwrap_or(limit).min(limit));
        }
    }

    /// Nothing is on its way and nothing comes any more; a partition that stopped stays as it is.
    fn is_finished(&self, stopping: bool) -> bool {
        self.partitions.iter().all(|partition| {
            let flow = &partition.flow;
            let written = partition.outgoing.is_none();
            written && (flow.is_stopped() || flow.is_empty() && (stopping || partition.at_end))
        })
    }

    fn happened(&mut self, number: u32, event: LaneEvent) -> Result<(), VertexError> {
        let now = monotonic_now();
        let Some(lane) = self.lanes.get_mut(number as usize) else { return Ok(()) };
        match event {
            LaneEvent::Attached(session) => {
                tracing::info!(lane = number, "worker attached");
                lane.session = Some(session);
                lane.attached = Some(now);
                lane.stale = 0;
            }
            LaneEvent::Answered(batch, answer) => {
                let Some((index, sent)) = lane.sent.remove(&batch) else { return Ok(()) };
                self.meter.roundtrip.add_time(now.saturating_sub(sent));
                let Some(partition) = self.partitions.get_mut(index) else { return Ok(()) };
                // Accepting an answer is a write (VX-722); of a generation that is over nothing is taken (VX-232).
                if let Ok(permit) = partition.guard.permit(WriteKind::Answer) {
                    if answer.status == Status::StaleGeneration {
                        self.meter.resubmitted += 1;
                        lane.took_for_stale();
                    } else {
                        lane.stale = 0;
                    }
                    partition.flow.answered(batch, answer, now);
                    drop(permit);
                } else {
                    self.report.stale += 1;
                }
            }
            // What waits is sent below.
            LaneEvent::Room => {}
            LaneEvent::Ended { unanswered, why } => {
                lane.session = None;
                let suspect = match why {
                    EndReason::Stopped => None,
                    _ => unanswered.first().copied(),
                };
                tracing::warn!(lane = number, unanswered = unanswered.len(), ?why, "worker ended");
                let sent = std::mem::take(&mut lane.sent);
                let mut lost: BTreeMap<usize, Vec<BatchId>> = BTreeMap::new();
                for (batch, (partition, _)) in sent {
                    lost.entry(partition).or_default().push(batch);
                }
                for (index, batches) in lost {
                    if let Some(partition) = self.partitions.get_mut(index) {
                        partition.flow.lost(&batches, suspect, now);
                    }
                }
                self.report.restarts += 1;
                lane.ended += 1;
                lane.last_end = Some(format!("{why:?}"));
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
            LaneEvent::NotAttached(error) => {
                // A command that never worked is a mistake of the pipeline file; one that did may work again.
                if lane.attached.is_none() {
                    return Err(error.into());
                }
                tracing::warn!(lane = number, %error, "worker not attached");
            }
        }
        Ok(())
    }

    /// Writes everything that is final, in the order of each partition.
    fn deliver(&mut self) -> Result<(), VertexError> {
        let now = monotonic_now();
        let Self { partitions, sinks, report, board, .. } = self;
        for partition in partitions {
            if partition.outgoing.is_none() {
                let steps = partition.flow.finish(now);
                partition.outgoing = collect(partition.id, steps, sinks.len(), report);
            }
            board.doing(Doing::Sink);
            let published = publish(partition, sinks, now);
            board.doing(Doing::Work);
            published?;
        }
        Ok(())
    }

    /// Makes durable what was written, when it is time or the end; when the next commit is due, if there is anything to commit.
    fn commit(&mut self, finished: bool) -> Result<Option<Nanos>, VertexError> {
        let Some(ledger) = &mut self.ledger else { return Ok(None) };
        let mut moved = Vec::new();
        for partition in &self.partitions {
            if partition.resume != partition.committed.resume {
                let at = Owned { resume: partition.resume, ..partition.committed };
                moved.push(Progress { partition: partition.id, at });
            }
        }
        if moved.is_empty() {
            return Ok(None);
        }
        let due = self.last_commit.saturating_add(self.pipeline.epoch_interval());
        if !finished && monotonic_now() < due {
            return Ok(Some(due));
        }
        // On the disk before the positions that say so (I8).
        let mut tokens = Vec::new();
        for End { name, sink, .. } in &mut self.sinks {
            if let Some(token) = sink.flush()? {
                tokens.push((name.as_str(), token));
            }
        }
        let permits = permits(&self.partitions, WriteKind::Ledger)?;
        self.board.doing(Doing::Ledger);
        let begun = monotonic_now();
        let epochs = ledger.commit(&moved, &tokens);
        self.board.doing(Doing::Work);
        self.meter.commit.add_time(monotonic_now().saturating_sub(begun));
        let epochs = epochs?;
        drop(permits);
        for (progress, epoch) in moved.iter().zip(epochs) {
            if let Some(partition) = self.partitions.get_mut(progress.partition.0 as usize) {
                partition.committed = Owned { epoch, ..progress.at };
            }
        }
        self.last_commit = monotonic_now();
        Ok(None)
    }

    /// Reads ahead as far as the window of each partition goes.
    fn read(&mut self) -> Result<(), VertexError> {
        let window = self.pipeline.transport().max_in_flight as usize + 1;
        let limit = self.pipeline.limits.prefetch.0;
        let mut held: u64 = self.partitions.iter().map(|partition| partition.flow.bytes()).sum();
        for partition in &mut self.partitions {
            if self.board.wish(partition.id) != Wish::Run {
                continue;
            }
            // Room for a whole batch, since nobody knows how long the next one is (VX-310, VX-831).
            while !partition.at_end
                && !partition.flow.is_stopped()
                && partition.flow.len() < window
                && held + self.budget.bytes as u64 <= limit
            {
                self.board.doing(Doing::Source);
                let polled = self.source.poll(partition.id, self.budget);
                self.board.doing(Doing::Work);
                match polled? {
                    Polled::End => partition.at_end = true,
                    Polled::Idle => break,
                    Polled::Inputs(inputs) => {
                        self.report.read += inputs.len() as u64;
                        self.meter.read_bytes +=
                            inputs.iter().map(|input| input.record.value.len() as u64).sum::<u64>();
                        if let Some(batch) = Batch::new(inputs) {
                            held += batch.bytes();
                            partition.flow.push(batch);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what the lanes and the room for answers can take.
    fn send(&mut self) -> Result<(), VertexError> {
        let now = monotonic_now();
        let workers = self.lanes.len();
        let mut held: usize = self.partitions.iter().map(|partition| partition.flow.sent_len()).sum();
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let Some(lane) = self.lanes.get_mut(index % workers) else { continue };
            let Some(session) = &mut lane.session else { continue };
            while let Some(batch) = partition.flow.next_to_send(now) {
                // The oldest batch of a partition may always go: its answer is what makes room (VX-317).
                if held >= self.room && !partition.flow.sends_front() {
                    break;
                }
                let permit = partition.guard.permit(WriteKind::Request)?;
                let header = request(partition, batch);
                let payload = batch.payload();
                let checksum = self.pipeline.has_payload_checksums();
                let header = Frame { payload_crc: checksum.then(|| payload_crc(payload.bytes())), ..header };
                match session.send(&header, payload.bytes(), || permit.is_current()) {
                    Ok(id) => {
                        partition.flow.sent(id);
                        lane.sent.insert(id, (index, now));
                        self.meter.records.add(header.record_count.into());
                        self.meter.bytes.add(payload.bytes().len() as u64);
                        held += 1;
                    }
                    Err(SendError::Full | SendError::Over) => break,
                    Err(SendError::Fenced) => {
                        return Err(Fenced { generation: partition.guard.generation() }.into());
                    }
                }
            }
        }
        Ok(())
    }
}

/// One permit of each partition, for a write that is of all of them (VX-734).
fn permits(partitions: &[Partition], kind: WriteKind) -> Result<Vec<WritePermit>, Fenced> {
    partitions.iter().map(|partition| partition.guard.permit(kind)).collect()
}

/// Counts what is final and sorts its outputs by sink.
fn collect(partition: PartitionId, steps: Vec<Step>, sinks: usize, report: &mut Report) -> Option<Outgoing> {
    let mut outgoing: Option<Outgoing> = None;
    for step in steps {
        let (input, emitted) = match step {
            Step::Deliver(input, outputs) if outputs.is_empty() => {
                report.filtered += 1;
                (input, outputs)
            }
            Step::Deliver(input, outputs) => {
                report.delivered += 1;
                report.outputs += outputs.len() as u64;
                (input, outputs)
            }
            Step::Filtered(input) => {
                report.filtered += 1;
                (input, Vec::new())
            }
            Step::GaveUp(input, reason) => {
                tracing::error!(%partition, position = %input.position, reason, "input left out");
                report.dropped += 1;
                (input, Vec::new())
            }
            Step::Stopped(input, reason) => {
                tracing::error!(%partition, position = %input.position, reason, "partition stopped");
                report.stopped.push((partition.0, input.position.0, reason));
                continue;
            }
        };
        let (position, resume) = (input.position, input.next);
        let outgoing = outgoing.get_or_insert_with(|| Outgoing {
            first: position,
            last: position,
            resume,
            outputs: vec![Vec::new(); sinks],
            again: Nanos::ZERO,
        });
        (outgoing.last, outgoing.resume) = (position, resume);
        let mut numbers = vec![0; sinks];
        for Emitted { route, record } in emitted {
            // The receiving thread has rejected routes that lead nowhere.
            let (Some(outputs), Some(number)) = (outgoing.outputs.get_mut(route), numbers.get_mut(route))
            else {
                continue;
            };
            outputs.push(Output { position, number: *number, record });
            *number += 1;
        }
    }
    outgoing
}

/// Gives a partition's outputs to the sinks; when all have taken all, the partition has moved.
fn publish(partition: &mut Partition, sinks: &mut [End], now: Nanos) -> Result<(), VertexError> {
    let Some(outgoing) = &mut partition.outgoing else { return Ok(()) };
    if now < outgoing.again {
        return Ok(());
    }
    let Outgoing { first, last, resume, .. } = *outgoing;
    let epoch = EpochId(partition.committed.epoch.0 + 1);
    let mut complete = true;
    for (End { name, sink, ids }, outputs) in sinks.iter_mut().zip(&mut outgoing.outputs) {
        if outputs.is_empty() {
            continue;
        }
        let delivery = Delivery { session: partition.session, epoch, first, last, outputs, ids };
        let published = sink.publish(&delivery, &partition.guard)?;
        outputs.drain(..published.through.min(outputs.len()));
        if let Some(held) = published.held {
            tracing::debug!(sink = name, reason = held.reason, "the sink takes no more now");
            outgoing.again = now.saturating_add(held.after.unwrap_or(HELD));
        }
        complete &= outputs.is_empty();
    }
    if complete {
        partition.resume = resume;
        partition.outgoing = None;
    }
    Ok(())
}

fn request(partition: &Partition, batch: &Batch) -> Frame {
    let generation = partition.guard.generation();
    let epoch = EpochId(partition.committed.epoch.0 + 1);
    Frame {
        kind: Kind::Data,
        more: false,
        replay: batch.attempt > 0,
        barrier: false,
        end_of_source: false,
        generation,
        epoch,
        // The session numbers its batches.
        batch: BatchId(0),
        schema: SchemaId(0),
        partition: partition.id,
        record_count: batch.count(),
        source_first: batch.first(),
        source_last: batch.last(),
        watermark: None,
        status: Status::Ok,
        attempt: batch.attempt,
        fence_slot: partition.slot,
        inputs_done: 0,
        frag_index: 0,
        payload_crc: None,
    }
}

fn worker_spec(pipeline: &Pipeline, instance: u64) -> WorkerSpec {
    let welcome = Welcome {
        proto: 1,
        pipeline: pipeline.pipeline.name.clone(),
        heartbeat_ms: pipeline.heartbeat().0 / 1_000_000,
        batch_timeout_ms: pipeline.batch_timeout().0 / 1_000_000,
        routes: pipeline.sink.iter().map(|sink| sink.name().to_owned()).collect(),
        checksum: pipeline.has_payload_checksums(),
        params: serde_json::to_value(&pipeline.udf.params).unwrap_or_default(),
    };
    WorkerSpec {
        command: pipeline.udf.command.clone(),
        env: pipeline.udf.env.clone().into_iter().collect(),
        welcome,
        transport: pipeline.transport(),
        instance,
        pipeline: pipeline.uid(),
        attach_timeout: pipeline.attach_timeout(),
        batch_timeout: pipeline.batch_timeout(),
    }
}

/// Answers in a row after which a worker that takes a current generation for stale is ended.
const MAX_STALE: u32 = 3;
/// Fence slots that there are at least.
const MIN_SLOTS: u32 = 256;
/// Broken protocols in a row after which the vertex ends.
const MAX_FAULTS: u32 = 2;
/// A session that lasted so long was a good one, whatever ended it.
const HEALTHY: Nanos = Nanos::from_secs(60);
/// When a sink that takes no more is asked again.
const HELD: Nanos = Nanos::from_millis(50);
const LONGEST_SLEEP: Nanos = Nanos::from_secs(10);
