//! What is measured.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::targets::{GRPC, TARGETS};
use crate::cli::bench::verdict::Target;
use crate::cli::bench::{Ends, Measurement, Unit, parse_size, positive, size};

/// A kind of measurement, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Batches to the function and back, one at a time
    Call,
    /// The same with several on their way
    Stream,
    /// What runtime and worker cost while nothing comes
    Idle,
    /// From the decision to revoke to the word that says so, with writers at work
    Revoke,
    /// The same, to the end of all writes
    Quiesce,
    /// A whole vertex: generator, function, blackhole
    Whole,
    /// The same from a file to files of epochs, effectively once
    Epochs,
    /// The same as whole with a function in Python
    Python,
    /// The same with one of numpy arrays
    Table,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) kind: Kind,
    /// Bytes of a value.
    pub(super) bytes: usize,
    /// Records of a batch.
    pub(super) batch: usize,
    /// Batches on their way.
    pub(super) flight: usize,
}

/// The sizes, unless told.
#[derive(Debug, Clone, Args)]
pub(super) struct Extent {
    /// Bytes of a value; k stands for KiB
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = parse_size, default_value = "100,1k,64k")]
    sizes: Vec<usize>,
    /// Records of a batch
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = positive, default_value = "1,100,500,2000")]
    batches: Vec<usize>,
    /// Batches on their way, for stream
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = positive, default_value = "8")]
    flights: Vec<usize>,
}

impl Extent {
    pub(super) fn quick() -> Self {
        Self { sizes: vec![100], batches: vec![1, 500], flights: vec![8] }
    }
}

/// All measurements of these kinds; the programs take turns with each.
pub(super) fn groups(kinds: &[Kind], extent: &Extent) -> Vec<Vec<Measure>> {
    kinds.iter().flat_map(|kind| kind.measures(extent)).map(|measure| vec![measure]).collect()
}

impl Kind {
    /// What needs nothing but this program.
    pub(super) const OWN: [Self; 7] =
        [Self::Call, Self::Stream, Self::Idle, Self::Revoke, Self::Quiesce, Self::Whole, Self::Epochs];
    pub(super) const PYTHON: [Self; 2] = [Self::Python, Self::Table];

    fn measures(self, extent: &Extent) -> Vec<Measure> {
        let flights = match self {
            Self::Call => &[1][..],
            Self::Stream => &extent.flights,
            Self::Whole | Self::Epochs | Self::Python | Self::Table => {
                return vec![Measure { kind: self, bytes: 100, batch: 500, flight: 8 }];
            }
            _ => return vec![Measure { kind: self, bytes: 0, batch: 1, flight: 1 }],
        };
        let mut measures = Vec::new();
        for &bytes in &extent.sizes {
            for &batch in &extent.batches {
                for &flight in flights {
                    // Several batches of more than what is on its way at all are no other measurement than one.
                    if flight == 1 || bytes * batch <= LARGEST_STREAMED {
                        measures.push(Measure { kind: self, bytes, batch, flight });
                    }
                }
            }
        }
        measures
    }

    fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Stream => "stream",
            Self::Idle => "idle",
            Self::Revoke => "revoke",
            Self::Quiesce => "quiesce",
            Self::Whole => "whole",
            Self::Epochs => "epochs",
            Self::Python => "python",
            Self::Table => "table",
        }
    }
}

impl Measurement for Measure {
    const REFERENCE: &'static str = GRPC[0];
    const TOLERANCE: f64 = 0.2;
    const TARGETS: &'static [Target<Self>] = TARGETS;

    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn title(&self) -> String {
        match self.kind {
            Kind::Call | Kind::Whole | Kind::Epochs | Kind::Python | Kind::Table => {
                format!("{} {} x {}", self.name(), size(self.bytes), self.batch)
            }
            Kind::Stream => {
                format!("{} {} x {}, {} on their way", self.name(), size(self.bytes), self.batch, self.flight)
            }
            _ => self.name().to_owned(),
        }
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("measure".into(), self.name().into());
        fields.insert("bytes".into(), self.bytes.into());
        fields.insert("count".into(), self.batch.into());
        fields.insert("flight".into(), self.flight.into());
        fields
    }

    fn main(&self) -> (&'static str, bool) {
        match self.kind {
            Kind::Call => ("p50_ns", false),
            Kind::Stream | Kind::Whole | Kind::Epochs | Kind::Python | Kind::Table => {
                ("messages_per_s", true)
            }
            Kind::Idle => ("measuring_cpu_share", false),
            Kind::Revoke | Kind::Quiesce => ("p99_ns", false),
        }
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&self) -> usize {
        self.batch
    }

    fn ends(&self) -> Ends {
        Ends::One {
            role: match self.kind {
                Kind::Call | Kind::Stream => "calls",
                kind => kind.name(),
            },
        }
    }

    fn endpoint(&self, place: &Path) -> String {
        place.display().to_string()
    }

    fn unit(&self) -> Unit {
        Unit::Time
    }

    fn settings(&self, _: &str, _: f64) -> Vec<String> {
        vec![format!("flight={}", self.flight)]
    }

    fn is_counted(&self) -> bool {
        false
    }
}

/// Bytes of values of the largest batch of which there are several on their way.
const LARGEST_STREAMED: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: VX-901.
    #[test]
    fn the_grid_is_that_of_the_sheet() {
        let extent = Extent {
            sizes: vec![100, 1 << 10, 64 << 10],
            batches: vec![1, 100, 500, 2000],
            flights: vec![8],
        };
        let count = |kind| groups(&[kind], &extent).len();
        // With 64 KiB batches of 500 and 2000 are measured one at a time only.
        assert_eq!((count(Kind::Call), count(Kind::Stream)), (12, 10));
        assert_eq!([Kind::Idle, Kind::Revoke, Kind::Quiesce, Kind::Whole, Kind::Epochs].map(count), [1; 5]);
        assert_eq!(Kind::PYTHON.map(count), [1; 2]);
    }
}
