//! The ends of a worker: a producer and a consumer of tensors, and a publication and a subscription of bare Aeron.

use std::time::Duration;

use tidegate::node::NodeStatus;
use tidegate::tensor::client::{Client, Consumer, ConsumerConfig, Producer, ProducerConfig};
use tidegate::tensor::ids::{Seq, StreamId};
use tidegate::tensor::tensor::{Dtype, MajorOrder, TensorLayout};
use tidegate_aeron as aeron;

use super::error::BenchError;
use super::protocol::Role;
use crate::cli::session::{Session, StreamRef};
use crate::output::Stop;

const WAIT: Duration = Duration::from_secs(10);
/// Aeron stream ids of the reference: far from those in use, one per stream of this node.
const AERON_STREAM_BASE: i32 = 0x6265_0000;

/// One side of a pair of streams, one in each direction.
pub(super) struct Ends {
    pub(super) producer: Producer,
    pub(super) consumer: Consumer,
    /// Number of the next frame of `producer`.
    pub(super) next: Seq,
    outgoing: StreamId,
    incoming: StreamId,
    /// Slots of the ring.
    pub(super) slots: usize,
    /// Slot sizes of the pools, in bytes.
    strides: Vec<usize>,
    session: Session,
    /// Last, so that it is closed after its endpoints.
    _client: Client,
}

/// One side of a pair of Aeron streams. Closed before its client.
pub(super) struct AeronEnds {
    pub(super) publication: aeron::ExclusivePublication,
    pub(super) subscription: aeron::Subscription,
}

impl Ends {
    /// Attaches to the two streams of `name`; makes them when they are not there.
    pub(super) fn attach(session: Session, role: Role, name: &str) -> Result<Self, Stop> {
        let stream = |suffix: &str| session.resolve(&StreamRef::Name(format!("{name}-{suffix}")), true);
        let (there, back) = (stream("there")?, stream("back")?);
        let (outgoing, incoming) = if role == Role::Ping { (there, back) } else { (back, there) };
        let client = session.client(Box::new(|_| {}))?;
        let config = ProducerConfig { stream: Some(outgoing), ..ProducerConfig::default() };
        let producer = client.add_producer(config)?.wait(WAIT)?;
        let config = ConsumerConfig { create: true, ..ConsumerConfig::new(incoming) };
        let consumer = client.add_consumer(config)?.wait(WAIT)?;
        let mut ends = Self {
            producer,
            consumer,
            next: Seq::new(0),
            outgoing,
            incoming,
            slots: 0,
            strides: Vec::new(),
            session,
            _client: client,
        };
        ends.learn_geometry()?;
        Ok(ends)
    }

    fn learn_geometry(&mut self) -> Result<(), Stop> {
        let Some(node) = &self.session.node else { return Err(BenchError::StreamGone.into()) };
        let NodeStatus { streams, .. } = node.status()?;
        let stream = streams.into_iter().find(|stream| stream.stream == self.outgoing.get());
        let stream = stream.ok_or(BenchError::StreamGone)?;
        self.slots = stream.slots as usize;
        self.strides = stream.pools.iter().map(|pool| pool.stride as usize).collect();
        Ok(())
    }

    /// Bytes of the largest slots.
    pub(super) fn largest(&self) -> usize {
        self.strides.iter().copied().max().unwrap_or(0)
    }

    /// Size of the slots that payloads of this size go to.
    pub(super) fn stride(&self, bytes: usize) -> Result<usize, BenchError> {
        let largest = self.largest();
        let fitting = self.strides.iter().copied().filter(|&stride| stride >= bytes).min();
        fitting.ok_or(BenchError::TooLarge { bytes, largest })
    }

    /// Connects to the node's media driver, past the tensor pool.
    pub(super) fn connect_aeron(&self) -> Result<AeronEnds, Stop> {
        let Some(node) = &self.session.node else { return Err(BenchError::StreamGone.into()) };
        let open = || -> Result<AeronEnds, BenchError> {
            let client = aeron::Client::connect(&aeron::ClientOptions::new(&node.description().aeron_dir))?;
            let id = |stream: StreamId| AERON_STREAM_BASE.wrapping_add(stream.get() as i32);
            Ok(AeronEnds {
                publication: client.add_exclusive_publication("aeron:ipc", id(self.outgoing), WAIT)?,
                subscription: client.add_subscription("aeron:ipc", id(self.incoming), WAIT)?,
            })
        };
        Ok(open()?)
    }
}

/// A payload of so many bytes as a row of them.
pub(super) fn layout(bytes: usize) -> Result<TensorLayout, BenchError> {
    Ok(TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[bytes])?)
}
