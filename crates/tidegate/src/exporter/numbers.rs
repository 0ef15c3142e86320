//! Numbers that somebody else counts.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// One number: its name, what it is, and how to get it.
pub struct Number {
    name: &'static str,
    help: &'static str,
    counts: bool,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Number {
    /// A number that only grows; `_total` is added to its name.
    pub fn counter(
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self { name, help, counts: true, read: Box::new(read) }
    }

    /// A number that goes up and down.
    pub fn gauge(
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self { name, help, counts: false, read: Box::new(read) }
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Number").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A list of numbers, read each time somebody asks. For a broker's counters and whatever else has no labels.
#[derive(Debug, Default)]
pub struct Numbers(pub Vec<Number>);

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for number in &self.0 {
            let kind = if number.counts { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(number.name, number.help, None, kind)?;
            let value = (number.read)();
            if number.counts {
                metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                metric.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}
