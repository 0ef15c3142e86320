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

use crate::{
    batch::Batch,
    config::{ConfigError, Pipeline, SinkConfig, SourceConfig},
    fence::{FenceError, FenceTable, Fenced, Guard, Permit, Quiesce, Reason, SlotWords},
    flow::{Flow, Step},
    inbox::Inbox,
    lane::{
        session::{SendError, Session},
        supervise::{AttachError, EndReason, Lane, LaneEvent, WorkerSpec, random},
    },
    ledger::{Disk, Ledger, LedgerError, Owned, Progress},
    sink::{Sink, SinkError},
    source::{Budget, Polled, Source, SourceError, generator::Generator, lines::Lines},
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
    sinks: Vec<Sink>,
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
}

struct Partition {
    id: PartitionId,
    slot: FenceSlot,
    guard: Guard<SlotWords>,
    flow: Flow,
    at_end: bool,
    /// What the ledger has.
    committed: Owned,
    /// Everything below is final and was given to the sinks.
    resume: Position,
}

struct LaneState {
    lane: Lane,
    session: Option<Session>,
    /// The partition of each batch that is on its way.
    sent: BTreeMap<BatchId, usize>,
    /// Sessions in a row that were short and ended with a broken protocol.
    faults: u32,
    /// When the last worker was attached, if there was one.
    attached: Option<Nanos>,
}

impl Vertex {
    /// Opens source and sinks and starts the workers.
    ///
    /// # Errors
    /// As [`VertexError`] says; nothing was read or written.
    pub fn start(pipeline: Pipeline) -> Result<Self, VertexError> {
        let mut source = open_source(&pipeline.source)?;
        let mut sinks = pipeline.sink.iter().map(open_sink).collect::<Result<Vec<_>, _>>()?;
        let mut ledger = match &pipeline.ledger {
            Some(config) => Some(Ledger::open(Disk::open(&config.path)?, pipeline.uid())?),
            None => None,
        };
        let instance = random()?;
        let count = source.partitions();
        let mut fence = FenceTable::create(instance, count.max(MIN_SLOTS))?;
        let mut partitions = Vec::new();
        for id in (0..count).map(PartitionId) {
            let committed = match &mut ledger {
                Some(ledger) => ledger.acquire(id)?,
                None => Owned { generation: Generation(1), epoch: EpochId(0), resume: Position(0) },
            };
            let (slot, guard) = fence.bind(id, committed.generation)?;
            source.seek(id, committed.resume)?;
            let (flow, resume) = (Flow::new(pipeline.retry()), committed.resume);
            partitions.push(Partition { id, slot, guard, flow, at_end: false, committed, resume });
        }
        if let Some(ledger) = &ledger {
            for (sink, config) in sinks.iter_mut().zip(&pipeline.sink) {
                if let Some(len) = ledger.sink_len(config.name())? {
                    // What is cut is of all partitions, and all their fences are ours.
                    let permits = permits(&partitions)?;
                    sink.cut(len)?;
                    drop(permits);
                }
            }
        }
        let transport = pipeline.transport();
        let spec = worker_spec(&pipeline, instance);
        let inbox = Arc::new(Inbox::new());
        let memory = Arc::new(fence.into_memory());
        let mut lanes = Vec::new();
        for number in 0..pipeline.udf.workers.get() {
            let inbox = inbox.clone();
            let tell = move |event| inbox.tell(Event::Lane(number, event));
            let lane = Lane::start(number, spec.clone(), memory.clone(), tell)
                .map_err(|source| VertexError::Lane { lane: number, source })?;
            lanes.push(LaneState { lane, session: None, sent: BTreeMap::new(), faults: 0, attached: None });
        }
        let budget = Budget {
            records: pipeline.batch.max_records.get() as usize,
            bytes: pipeline.batch.max_bytes.0 as usize,
            value: pipeline.max_value(),
        };
        let room = (pipeline.limits.epoch_buffers.0 / transport.max_response) as usize;
        let asked = Arc::new(AtomicBool::new(false));
        let report = Report::default();
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
        })
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
        loop {
            while let Some(event) = self.inbox.take() {
                if let Event::Lane(lane, event) = event {
                    self.happened(lane, event)?;
                }
            }
            self.deliver()?;
            let stopping = self.asked.load(Ordering::Relaxed);
            if !stopping {
                self.read()?;
            }
            self.send()?;
            let finished = self.is_finished(stopping);
            let commit_at = self.commit(finished)?;
            if finished {
                return Ok(());
            }
            let retries = self.partitions.iter().filter_map(|partition| partition.flow.next_time());
            let deadline = retries.chain(commit_at).min();
            let limit = monotonic_now().saturating_add(LONGEST_SLEEP);
            self.inbox.wait_until(deadline.unwrap_or(limit).min(limit));
        }
    }

    /// Nothing is on its way and nothing comes any more; a partition that stopped stays as it is.
    fn is_finished(&self, stopping: bool) -> bool {
        self.partitions.iter().all(|partition| {
            let flow = &partition.flow;
            flow.is_stopped() || flow.is_empty() && (stopping || partition.at_end)
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
            }
            LaneEvent::Answered(batch, answer) => {
                let Some(index) = lane.sent.remove(&batch) else { return Ok(()) };
                let Some(partition) = self.partitions.get_mut(index) else { return Ok(()) };
                // Accepting an answer is a write (VX-722); of a generation that is over nothing is taken (VX-232).
                if let Ok(permit) = partition.guard.permit() {
                    partition.flow.answered(batch, answer, now);
                    drop(permit);
                } else {
                    self.report.stale += 1;
                }
            }
            LaneEvent::Ended { unanswered, why } => {
                lane.session = None;
                let suspect = match why {
                    EndReason::Stopped => None,
                    _ => unanswered.first().copied(),
                };
                tracing::warn!(lane = number, unanswered = unanswered.len(), ?why, "worker ended");
                let sent = std::mem::take(&mut lane.sent);
                let mut lost: BTreeMap<usize, Vec<BatchId>> = BTreeMap::new();
                for (batch, partition) in sent {
                    lost.entry(partition).or_default().push(batch);
                }
                for (index, batches) in lost {
                    if let Some(partition) = self.partitions.get_mut(index) {
                        partition.flow.lost(&batches, suspect, now);
                    }
                }
                self.report.restarts += 1;
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
        for partition in &mut self.partitions {
            let steps = partition.flow.finish(now);
            if steps.is_empty() {
                continue;
            }
            for step in steps {
                if let Step::Deliver(input, _) | Step::Filtered(input) | Step::GaveUp(input, _) = &step {
                    partition.resume = input.next;
                }
                match step {
                    Step::Deliver(_, outputs) if outputs.is_empty() => self.report.filtered += 1,
                    Step::Deliver(_, outputs) => {
                        self.report.delivered += 1;
                        for output in outputs {
                            // The receiving thread has rejected routes that lead nowhere.
                            let Some(sink) = self.sinks.get_mut(output.route) else { continue };
                            sink.add(&output);
                            self.report.outputs += 1;
                            if sink.is_full() {
                                write(sink, &partition.guard)?;
                            }
                        }
                    }
                    Step::Filtered(_) => self.report.filtered += 1,
                    Step::GaveUp(input, reason) => {
                        tracing::error!(partition = %partition.id, position = %input.position, reason, "input left out");
                        self.report.dropped += 1;
                    }
                    Step::Stopped(input, reason) => {
                        tracing::error!(partition = %partition.id, position = %input.position, reason, "partition stopped");
                        self.report.stopped.push((partition.id.0, input.position.0, reason));
                    }
                }
            }
            for sink in &mut self.sinks {
                write(sink, &partition.guard)?;
            }
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
        let mut lens = Vec::new();
        for (sink, config) in self.sinks.iter_mut().zip(&self.pipeline.sink) {
            if let Some(len) = sink.sync()? {
                lens.push((config.name(), len));
            }
        }
        let permits = permits(&self.partitions)?;
        let epochs = ledger.commit(&moved, &lens)?;
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
        for partition in &mut self.partitions {
            while !partition.at_end && !partition.flow.is_stopped() && partition.flow.len() < window {
                match self.source.poll(partition.id, self.budget)? {
                    Polled::End => partition.at_end = true,
                    Polled::Inputs(inputs) => {
                        self.report.read += inputs.len() as u64;
                        if let Some(batch) = Batch::new(inputs) {
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
                let permit = partition.guard.permit()?;
                let header = request(partition, batch);
                let payload = batch.payload();
                let checksum = self.pipeline.has_payload_checksums();
                let header = Frame { payload_crc: checksum.then(|| payload_crc(payload.bytes())), ..header };
                match session.send(&header, payload.bytes(), || permit.is_current()) {
                    Ok(id) => {
                        partition.flow.sent(id);
                        lane.sent.insert(id, index);
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
fn permits(partitions: &[Partition]) -> Result<Vec<Permit<SlotWords>>, Fenced> {
    partitions.iter().map(|partition| partition.guard.permit()).collect()
}

/// Writes what was added to a sink, under a permit of its own (VX-722).
fn write(sink: &mut Sink, guard: &Guard<SlotWords>) -> Result<(), VertexError> {
    let permit = guard.permit()?;
    sink.write()?;
    drop(permit);
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

fn open_source(config: &SourceConfig) -> Result<Box<dyn Source>, SourceError> {
    Ok(match config {
        SourceConfig::Generator { partitions, records, bytes } => {
            Box::new(Generator::new(partitions.get(), *records, bytes.0 as usize))
        }
        SourceConfig::File { path } => Box::new(Lines::open(path)?),
    })
}

fn open_sink(config: &SinkConfig) -> Result<Sink, SinkError> {
    match config {
        SinkConfig::Stdout { .. } => Ok(Sink::stdout()),
        SinkConfig::File { path, .. } => Sink::append(path),
        SinkConfig::Blackhole { .. } => Ok(Sink::blackhole()),
    }
}

/// Fence slots that there are at least.
const MIN_SLOTS: u32 = 256;
/// Broken protocols in a row after which the vertex ends.
const MAX_FAULTS: u32 = 2;
/// A session that lasted so long was a good one, whatever ended it.
const HEALTHY: Nanos = Nanos::from_secs(60);
const LONGEST_SLEEP: Nanos = Nanos::from_secs(10);
