//! Outputs as frames of a tensor stream: class C, and a confirmation means that the frame is published (VX-851).
//!
//! The sink is the stream's only producer, by the driver's lease. It never waits for readers, who lose frames when they are too
//! slow. Every output is one tensor of the type and shape that the pipeline file says; behind it in the payload stands where it
//! comes from, with key and headers. While the node is away the sink waits for it.

use std::path::PathBuf;

use serde::Deserialize;
use tidegate_shm::clock::Nanos;
use tidegate_tensor::{
    agent::AgentRunner,
    client::{Client, ClientError, Producer, ProducerConfig, PublishError},
    frame::FrameMeta,
    tensor::{Dtype, MajorOrder, TensorError as LayoutError, TensorLayout},
};

use super::{Class, Confirms, Delivery, NotPut, Output, Published, Sink, SinkError, one_by_one};
use crate::{
    fence::{WriteGuard, WriteKind},
    origin::{self, Origin},
    tensor::{Attached, IDLE, Stream, TensorError, attach, dtype, shape_text},
};

/// The keys of a sink of kind `tensor`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSink {
    /// The stream.
    pub stream: Stream,
    /// Directory of its node.
    pub dir: Option<PathBuf>,
    /// Type of the elements.
    #[serde(deserialize_with = "dtype")]
    dtype: Dtype,
    /// Length of each axis, the slowest first.
    shape: Vec<usize>,
}

impl TensorSink {
    /// The tensor that every output is.
    pub(crate) fn layout(&self) -> Result<TensorLayout, LayoutError> {
        TensorLayout::contiguous(self.dtype, MajorOrder::Row, &self.shape)
    }

    /// As it is shown.
    pub(crate) fn tensor(&self) -> String {
        format!("{} of {}", shape_text(&self.shape), self.dtype)
    }
}

/// A stream that is written.
#[derive(Debug)]
pub struct Tensor {
    name: String,
    stream: Stream,
    pipeline: u64,
    layout: TensorLayout,
    /// Before those who keep its lease: it is given back first.
    producer: Producer,
    /// The payload of one frame.
    buffer: Vec<u8>,
    keeper: AgentRunner<ClientError>,
    _client: Client,
}

impl Tensor {
    /// Becomes the producer of the stream. Outputs are of this pipeline.
    ///
    /// # Errors
    /// The stream is not linked, its driver is not there, or somebody produces it.
    pub fn open(name: &str, keys: &TensorSink, pipeline: u64) -> Result<Self, SinkError> {
        let failed =
            |source: TensorError| SinkError::Tensor { sink: name.to_owned(), source: Box::new(source) };
        let stream = || keys.stream.name.clone();
        let layout = keys.layout().map_err(|fault| {
            failed(TensorError::Shape { stream: stream(), tensor: keys.tensor(), fault: Box::new(fault) })
        })?;
        let ask = |client: &Client, stream| {
            client.add_producer(ProducerConfig {
                stream: Some(stream),
                name: keys.stream.name.name().map(str::to_owned),
                // Nobody has to read it.
                drop_unconnected_descriptors: true,
                ..ProducerConfig::default()
            })
        };
        let Attached { endpoint, client, agent } = attach(&keys.stream, ask).map_err(failed)?;
        let keeper = AgentRunner::start(agent, IDLE)
            .map_err(|error| failed(TensorError::Keeper { stream: stream(), source: Box::new(error) }))?;
        Ok(Self {
            name: name.to_owned(),
            stream: keys.stream.clone(),
            pipeline,
            layout,
            producer: endpoint,
            buffer: Vec::new(),
            keeper,
            _client: client,
        })
    }

    /// Publishes one output; why not, if it was not.
    fn put(
        &mut self,
        output: &Output,
        delivery: &Delivery<'_>,
        guard: &WriteGuard,
    ) -> Result<Option<NotPut>, SinkError> {
        let (found, expected) = (output.record.value.len() as u64, self.layout.packed_bytes());
        if found != expected {
            let shape = shape_text(self.layout.shape());
            let dtype = self.layout.dtype();
            let reason = format!("its value has {found} bytes, a tensor {shape} of {dtype} has {expected}");
            return Ok(Some(NotPut::Never(reason)));
        }
        let from = Origin {
            pipeline: self.pipeline,
            generation: delivery.session.generation,
            epoch: delivery.epoch,
            partition: delivery.session.partition,
            position: output.position,
            number: output.number,
        };
        if !origin::write(&output.record, &from, &mut self.buffer) {
            return Ok(Some(NotPut::Never("its key or headers are too long for a frame".to_owned())));
        }
        let mut claim = match self.producer.try_claim(self.buffer.len()) {
            Ok(claim) => claim,
            Err(error) => return self.not_put(error),
        };
        if claim.payload().write_at(0, &self.buffer).is_err() {
            let (len, capacity) = (self.buffer.len(), claim.capacity());
            self.producer.abort(claim);
            return Ok(Some(NotPut::Never(format!("it takes {len} bytes, its slot has {capacity}"))));
        }
        // Between the acquisition and the commit of the slot: readers count one that is given up as a gap.
        let permit = match guard.permit(WriteKind::Sink) {
            Ok(permit) => permit,
            Err(fenced) => {
                self.producer.abort(claim);
                return Err(fenced.into());
            }
        };
        let committed = self.producer.commit(&mut claim, &self.layout, FrameMeta::default());
        drop(permit);
        committed.map_or_else(|error| self.not_put(error), |_| Ok(None))
    }

    /// What a refusal of the stream means for an output.
    fn not_put(&self, why: PublishError) -> Result<Option<NotPut>, SinkError> {
        match why {
            PublishError::TooLarge { len, largest } => Ok(Some(NotPut::Never(format!(
                "it takes {len} bytes with where it comes from, the largest slot of stream {} has {largest}",
                self.stream.name
            )))),
            PublishError::Closed => Err(self.failed(ClientError::Closed)),
            _ if !self.keeper.is_running() => Err(self.failed(ClientError::Closed)),
            // The lease is away, or nobody was told of the frame: it is published again, and its place is a gap.
            _ => Ok(Some(NotPut::Later(format!("stream {}: {why}", self.stream.name)))),
        }
    }

    fn failed(&self, error: ClientError) -> SinkError {
        SinkError::Tensor { sink: self.name.clone(), source: Box::new(self.stream.failed(error)) }
    }
}

impl Sink for Tensor {
    fn class(&self) -> Class {
        Class::C
    }

    fn confirms(&self) -> Confirms {
        Confirms::Queued
    }

    fn publish(&mut self, delivery: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError> {
        one_by_one(delivery.outputs, AGAIN, |output| self.put(output, delivery, guard))
    }
}

/// When a stream that is away is tried again.
const AGAIN: Nanos = Nanos::from_millis(50);
