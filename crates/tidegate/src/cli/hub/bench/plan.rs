//! What is measured.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::targets::TARGETS;
use crate::cli::bench::verdict::Target;
use crate::cli::bench::{Ends, Measurement, Unit, parse_size, positive, size};

/// The program that every result is compared with.
pub(super) const ICEORYX2: &str = "iceoryx2";

/// A kind of measurement, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Round trips, one at a time, both ends busy polling
    Trip,
    /// Records one way, one by one
    OneWay,
    /// Records one way by the batch calls
    Batch,
    /// Round trips between ends that were asleep in the kernel
    Wake,
    /// Records of one producer to several consumers, all of them to each
    Readers,
    /// Records one way with digests that are made and checked
    Digest,
    /// The same with keyed digests
    Authenticated,
    /// Writing and reading by guards in one thread: what the calls take
    Guards,
    /// The same by closures
    Closures,
    /// What a consumer costs while it waits for records that do not come
    Idle,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) kind: Kind,
    /// Payload.
    pub(super) bytes: usize,
    /// Consumers.
    pub(super) count: usize,
}

/// The sizes of each kind, unless told.
#[derive(Debug, Clone, Args)]
pub(super) struct Extent {
    /// Payload sizes in bytes, for every kind; k and m stand for KiB and MiB [default: as docs/benchmarks.md says]
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = parse_size)]
    pub(super) sizes: Vec<usize>,
    /// How many consumers, for readers
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2,4,8", value_parser = positive)]
    pub(super) readers: Vec<usize>,
    /// Of the sizes only the smallest.
    #[arg(skip)]
    pub(super) smallest: bool,
}

impl Extent {
    pub(super) fn quick() -> Self {
        Self { sizes: Vec::new(), readers: vec![1, 8], smallest: true }
    }
}

/// All measurements of these kinds. Those of a group are compared with each other and take turns.
pub(super) fn groups(kinds: &[Kind], extent: &Extent) -> Vec<Vec<Measure>> {
    let mut groups: Vec<Vec<Measure>> = Vec::new();
    for measure in kinds.iter().flat_map(|kind| kind.measures(extent)) {
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| first.goes_with(&measure))) {
            Some(group) if !group.contains(&measure) => group.push(measure),
            Some(_) => {}
            None => groups.push(vec![measure]),
        }
    }
    groups
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Kind {
    pub(super) const ALL: [Self; 10] = [
        Self::Trip,
        Self::OneWay,
        Self::Batch,
        Self::Wake,
        Self::Readers,
        Self::Digest,
        Self::Authenticated,
        Self::Guards,
        Self::Closures,
        Self::Idle,
    ];

    fn measures(self, extent: &Extent) -> Vec<Measure> {
        let sizes = match extent.sizes.as_slice() {
            [] if extent.smallest => self.sizes().get(..1).unwrap_or_default(),
            [] => self.sizes(),
            sizes => sizes,
        };
        let counts = if self == Self::Readers { extent.readers.as_slice() } else { &[1] };
        let of_size = |&bytes: &usize| counts.iter().map(move |&count| Measure { kind: self, bytes, count });
        sizes.iter().flat_map(of_size).collect()
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Trip => &[64, 4 * KIB, MIB],
            Self::OneWay => &[64, KIB, 4 * KIB, 64 * KIB, MIB, 4 * MIB],
            Self::Digest | Self::Authenticated => &[64, 4 * KIB, MIB],
            _ => &[64],
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Trip => "trip",
            Self::OneWay => "one_way",
            Self::Batch => "batch",
            Self::Wake => "wake",
            Self::Readers => "readers",
            Self::Digest => "digest",
            Self::Authenticated => "authenticated",
            Self::Guards => "guards",
            Self::Closures => "closures",
            Self::Idle => "idle",
        }
    }
}

impl Measure {
    /// Whether the two are compared with each other.
    fn goes_with(&self, other: &Self) -> bool {
        let alike = |kinds: &[Kind]| kinds.contains(&self.kind) && kinds.contains(&other.kind);
        match self.kind {
            Kind::Readers | Kind::Trip => self.kind == other.kind,
            Kind::Guards | Kind::Closures => alike(&[Kind::Guards, Kind::Closures]),
            _ => self == other,
        }
    }
}

impl Measurement for Measure {
    const REFERENCE: &'static str = ICEORYX2;
    // DH-283.
    const TOLERANCE: f64 = 0.2;
    const TARGETS: &'static [Target<Self>] = TARGETS;

    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn title(&self) -> String {
        let extent =
            if self.kind == Kind::Readers { format!(", {} consumers", self.count) } else { String::new() };
        format!("{} {}{extent}", self.kind.name(), size(self.bytes))
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("measure".into(), self.kind.name().into());
        fields.insert("bytes".into(), self.bytes.into());
        fields.insert("count".into(), self.count.into());
        fields
    }

    fn main(&self) -> (&'static str, bool) {
        match self.kind {
            Kind::Trip | Kind::Wake => ("p50_ns", false),
            Kind::Idle => ("measuring_cpu_share", false),
            _ => ("messages_per_s", true),
        }
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&self) -> usize {
        self.count
    }

    fn ends(&self) -> Ends {
        let (roles, measuring) = match self.kind {
            Kind::Trip => (["echo", "trips"], 1),
            Kind::Wake => (["sleepy-echo", "sleepy-trips"], 1),
            Kind::OneWay | Kind::Digest | Kind::Authenticated => (["sink", "source"], 0),
            Kind::Batch => (["batch-sink", "batch-source"], 0),
            Kind::Readers => (["readers", "source"], 0),
            Kind::Idle => (["idle", "quiet"], 0),
            Kind::Guards => return Ends::One { role: "guards" },
            Kind::Closures => return Ends::One { role: "closures" },
        };
        Ends::Two { roles, measuring }
    }

    fn endpoint(&self, place: &Path) -> String {
        place.display().to_string()
    }

    fn unit(&self) -> Unit {
        match self.kind {
            Kind::Trip => Unit::Trips,
            Kind::Wake | Kind::Idle | Kind::Readers => Unit::Time,
            _ => Unit::Messages,
        }
    }

    fn settings(&self, _: &str, _: f64) -> Vec<String> {
        match self.kind {
            Kind::Wake | Kind::Readers | Kind::Idle => vec!["wait=sleep".to_owned()],
            Kind::Digest => vec!["digest=enforced".to_owned()],
            Kind::Authenticated => vec!["digest=authenticated".to_owned()],
            _ => Vec::new(),
        }
    }

    fn is_counted(&self) -> bool {
        !matches!(self.kind, Kind::Wake | Kind::Idle | Kind::Readers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_takes_turns() {
        let extent = Extent { sizes: Vec::new(), readers: vec![1, 8], smallest: false };
        let groups = groups(&Kind::ALL, &extent);
        let of = |kind: Kind| groups.iter().filter(|group| group[0].kind == kind).collect::<Vec<_>>();
        assert_eq!(of(Kind::Trip)[0].iter().map(|one| one.bytes).collect::<Vec<_>>(), [64, 4096, 1 << 20]);
        assert_eq!(of(Kind::Readers)[0].iter().map(|one| one.count).collect::<Vec<_>>(), [1, 8]);
        assert_eq!(
            of(Kind::Guards)[0].iter().map(|one| one.kind).collect::<Vec<_>>(),
            [Kind::Guards, Kind::Closures]
        );
        assert!(of(Kind::Closures).is_empty());
        assert_eq!(of(Kind::OneWay).len(), 6);
    }
}
