//! The tensor streams of a node.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::node::{NodeClient, NodePlace, NodeStatus, StreamStatus};

/// Asks the node at a place about its streams, each time somebody asks for its numbers. A node that does not answer is told
/// as `tidegate_node_up 0`.
#[derive(Debug)]
pub struct NodeMetrics {
    place: NodePlace,
}

impl NodeMetrics {
    /// The node at this place.
    #[must_use]
    pub fn of(place: NodePlace) -> Self {
        Self { place }
    }
}

/// A number of the whole node that only grows.
type Total = (&'static str, &'static str, fn(&NodeStatus) -> u64);
/// A number of one stream.
type PerStream = (&'static str, &'static str, fn(&StreamStatus) -> u64);

const TOTALS: [Total; 3] = [
    ("tidegate_tensor_attaches", "Attach requests granted", |node| node.attaches),
    ("tidegate_tensor_leases_lost", "Leases that ended without a detach", |node| node.leases_lost),
    ("tidegate_tensor_epochs_created", "Epochs created", |node| node.epochs_created),
];

const PER_STREAM: [PerStream; 4] = [
    ("tidegate_tensor_stream_epoch", "Current epoch of the stream, 0 without regions", |stream| stream.epoch),
    ("tidegate_tensor_stream_producers", "Whether a producer is attached", |stream| {
        stream.producer.is_some().into()
    }),
    ("tidegate_tensor_stream_leases", "Leases of the stream", |stream| stream.leases.len() as u64),
    ("tidegate_tensor_stream_slots", "Slots of the header ring", |stream| stream.slots.into()),
];

impl Collector for NodeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let status = NodeClient::find(&self.place).and_then(|node| node.status()).ok();
        let up = u64::from(status.is_some());
        let kind = MetricType::Gauge;
        encoder
            .encode_descriptor("tidegate_node_up", "Whether the node answers", None, kind)?
            .encode_gauge(&up)?;
        let Some(status) = status else { return Ok(()) };
        for (name, help, value) in TOTALS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value(&status), None)?;
        }
        for (name, help, value) in PER_STREAM {
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for stream in &status.streams {
                let (id, title) = (stream.stream.to_string(), stream.name.clone().unwrap_or_default());
                let labels = [("stream", id.as_str()), ("name", title.as_str())];
                metric.encode_family(&labels)?.encode_gauge(&value(stream))?;
            }
        }
        Ok(())
    }
}
