//! The lanes: batches to them, answers from them, and what happens when a worker ends.

use std::collections::BTreeMap;

use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::{
    frame::{Frame, Kind, payload_crc},
    ids::{BatchId, Generation, PartitionId, SchemaId},
    message::Welcome,
    status::Status,
};

use super::{Vertex, VertexError, tenure::Tenure};
use crate::{
    batch::Batch,
    config::Pipeline,
    failpoint::{self, Point},
    fence::WriteKind,
    lane::{
        session::{SendError, Session},
        supervise::{EndReason, Lane, LaneEvent, WorkerSpec},
    },
};

/// A lane and what is on its way there.
pub(super) struct LaneState {
    pub(super) lane: Lane,
    session: Option<Session>,
    /// The partition of each batch that is on its way, and under which generation.
    sent: BTreeMap<BatchId, (usize, Generation)>,
    /// Sessions in a row that were short and ended with a broken protocol.
    faults: u32,
    /// When the last worker was attached, if there was one.
    attached: Option<Nanos>,
}

impl LaneState {
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, session: None, sent: BTreeMap::new(), faults: 0, attached: None }
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
                lane.attached = Some(now);
            }
            LaneEvent::Answered(batch, answer) => {
                let Some((index, generation)) = lane.sent.remove(&batch) else { return Ok(()) };
                let tenure = self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut());
                let tenure = tenure.filter(|tenure| tenure.guard.generation() == generation);
                // Accepting an answer is a write (VX-722); of a generation that is over nothing is taken (VX-232).
                let permitted = tenure.and_then(|tenure| {
                    let permit = tenure.guard.permit(WriteKind::Answer).ok()?;
                    Some((tenure, permit))
                });
                match permitted {
                    Some((tenure, permit)) => {
                        tenure.flow.answered(batch, answer, now);
                        drop(permit);
                        failpoint::at(Point::Answered);
                    }
                    None => self.report.stale += 1,
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
                for (batch, (partition, _)) in sent {
                    lost.entry(partition).or_default().push(batch);
                }
                for (index, batches) in lost {
                    let tenure =
                        self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut());
                    if let Some(tenure) = tenure {
                        tenure.flow.lost(&batches, suspect, now);
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

    /// Sends what the lanes and the room for answers can take.
    pub(super) fn send(&mut self) -> Result<(), VertexError> {
        let now = monotonic_now();
        let workers = self.lanes.len();
        let tenures = self.partitions.iter().filter_map(|partition| partition.tenure.as_ref());
        let mut held: usize = tenures.map(|tenure| tenure.flow.sent_len()).sum();
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let Some(lane) = self.lanes.get_mut(index % workers) else { continue };
            let (Some(session), Some(tenure)) = (&mut lane.session, &mut partition.tenure) else { continue };
            while let Some(batch) = tenure.flow.next_to_send(now) {
                // The oldest batch of a partition may always go: its answer is what makes room (VX-317).
                if held >= self.room && !tenure.flow.sends_front() {
                    break;
                }
                // The loop finds out about the revoke by itself.
                let Ok(permit) = tenure.guard.permit(WriteKind::Request) else { break };
                let header = request(partition.id, tenure, batch);
                let payload = batch.payload();
                let checksum = self.pipeline.has_payload_checksums();
                let header = Frame { payload_crc: checksum.then(|| payload_crc(payload.bytes())), ..header };
                match session.send(&header, payload.bytes(), || permit.is_current()) {
                    Ok(id) => {
                        tenure.flow.sent(id);
                        lane.sent.insert(id, (index, tenure.guard.generation()));
                        held += 1;
                        failpoint::at(Point::Requested);
                    }
                    Err(SendError::Full | SendError::Over | SendError::Fenced) => break,
                }
            }
        }
        Ok(())
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
        // The session numbers its batches.
        batch: BatchId(0),
        schema: SchemaId(0),
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

pub(super) fn worker_spec(pipeline: &Pipeline, instance: u64) -> WorkerSpec {
    let welcome = Welcome {
        proto: 1,
        pipeline: pipeline.pipeline.name.clone(),
        heartbeat_ms: pipeline.heartbeat().0 / 1_000_000,
        batch_timeout_ms: pipeline.batch_timeout().0 / 1_000_000,
        routes: pipeline.routes().map(|(_, name)| name.to_owned()).collect(),
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

/// Broken protocols in a row after which the vertex ends.
const MAX_FAULTS: u32 = 2;
/// A session that lasted so long was a good one, whatever ended it.
const HEALTHY: Nanos = Nanos::from_secs(60);
