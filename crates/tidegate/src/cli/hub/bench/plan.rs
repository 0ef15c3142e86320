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
    /// Round trips by Single, whose one slot holds the latest value
    SingleTrip,
    /// What a producer writes to Single while a consumer takes the latest value
    Single,
    /// Round trips by DoubleBuffer, with digests
    DoubleTrip,
    /// What a producer writes to DoubleBuffer, with digests, while a consumer takes the latest value
    Double,
    /// Round trips by a ring, with digests
    DigestTrip,
    /// Single calls in one thread, many of one kind in a row
    Calls,
    /// Writing and reading by guards in one thread: what the calls take
    Guards,
    /// The same by closures
    Closures,
    /// What a consumer costs while it waits for records that do not come
    Idle,
}

/// A call that is measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Call {
    /// Acquires a slot to write
    Acquire,
    /// Acquires a thousand slots to write, with one call
    AcquireBatch,
    /// Commits a slot
    Commit,
    /// Acquires a slot to read, and lets it go
    Read,
    /// Looks for a slot to read when there is none
    Poll,
    /// Takes a shared lock that nobody wants, and gives it back
    Lock,
    /// Looks for dead consumers under the maintenance lock
    Reap,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) kind: Kind,
    /// Payload.
    pub(super) bytes: usize,
    /// Consumers.
    pub(super) count: usize,
    /// Of the calls, which one.
    pub(super) call: Option<Call>,
}

/// The sizes of each kind, unless told.
#[derive(Debug, Clone, Args)]
pub(super) struct Extent {
    /// Payload sizes in bytes, for every kind; k and m stand for KiB and MiB [default: as docs/benchmarks.md says]
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = parse_size)]
    pub(super) sizes: Vec<usize>,
    /// How many consumers, for readers
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2,4,8,16", value_parser = positive)]
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

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;

impl Kind {
    pub(super) const ALL: [Self; 16] = [
        Self::Trip,
        Self::OneWay,
        Self::Batch,
        Self::Wake,
        Self::Readers,
        Self::Digest,
        Self::Authenticated,
        Self::SingleTrip,
        Self::Single,
        Self::DoubleTrip,
        Self::Double,
        Self::DigestTrip,
        Self::Calls,
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
        let calls: Vec<_> = if self == Self::Calls {
            Call::value_variants().iter().copied().map(Some).collect()
        } else {
            vec![None]
        };
        let mut measures = Vec::new();
        for &bytes in sizes {
            for &count in counts {
                measures.extend(calls.iter().map(|&call| Measure { kind: self, bytes, count, call }));
            }
        }
        measures
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Trip => &[64, KIB, 4 * KIB, MIB],
            Self::OneWay => &[64, KIB, 4 * KIB, 64 * KIB, MIB, 4 * MIB],
            Self::Digest | Self::Authenticated => &[64, 4 * KIB, MIB],
            Self::Readers | Self::SingleTrip | Self::Single => &[64, 4 * KIB],
            Self::DoubleTrip | Self::Double => &[4 * MIB],
            Self::DigestTrip => &[4 * KIB],
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
            Self::SingleTrip => "single_trip",
            Self::Single => "single",
            Self::DoubleTrip => "double_trip",
            Self::Double => "double",
            Self::DigestTrip => "digest_trip",
            Self::Calls => "calls",
            Self::Guards => "guards",
            Self::Closures => "closures",
            Self::Idle => "idle",
        }
    }
}

impl Call {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::AcquireBatch => "acquire-batch",
            Self::Commit => "commit",
            Self::Read => "read",
            Self::Poll => "poll",
            Self::Lock => "lock",
            Self::Reap => "reap",
        }
    }
}

impl Measure {
    /// Whether the two are compared with each other.
    fn goes_with(&self, other: &Self) -> bool {
        let alike = |kinds: &[Kind]| kinds.contains(&self.kind) && kinds.contains(&other.kind);
        match self.kind {
            Kind::Trip | Kind::Calls => self.kind == other.kind,
            Kind::Readers => (self.kind, self.bytes) == (other.kind, other.bytes),
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
        let extent = match self.call {
            Some(call) => format!(", {}", call.name()),
            None if self.kind == Kind::Readers => format!(", {} consumers", self.count),
            None => String::new(),
        };
        format!("{} {}{extent}", self.kind.name(), size(self.bytes))
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("measure".into(), self.kind.name().into());
        fields.insert("bytes".into(), self.bytes.into());
        fields.insert("count".into(), self.count.into());
        if let Some(call) = self.call {
            fields.insert("call".into(), call.name().into());
        }
        fields
    }

    fn main(&self) -> (&'static str, bool) {
        match self.kind {
            Kind::Trip | Kind::Wake | Kind::SingleTrip | Kind::DoubleTrip | Kind::DigestTrip => {
                ("p50_ns", false)
            }
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
            Kind::Trip | Kind::SingleTrip | Kind::DoubleTrip | Kind::DigestTrip => (["echo", "trips"], 1),
            Kind::Single | Kind::Double => (["viewer", "setter"], 1),
            Kind::Wake => (["sleepy-echo", "sleepy-trips"], 1),
            Kind::OneWay | Kind::Digest | Kind::Authenticated => (["sink", "source"], 0),
            Kind::Batch => (["batch-sink", "batch-source"], 0),
            Kind::Readers => (["readers", "source"], 0),
            Kind::Idle => (["idle", "quiet"], 0),
            Kind::Calls => return Ends::One { role: "calls" },
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
            Kind::Trip | Kind::SingleTrip | Kind::DoubleTrip | Kind::DigestTrip => Unit::Trips,
            Kind::Wake | Kind::Idle | Kind::Readers | Kind::Calls => Unit::Time,
            _ => Unit::Messages,
        }
    }

    fn settings(&self, _: &str, _: f64) -> Vec<String> {
        let call = self.call.map(|call| format!("call={}", call.name()));
        let others: &[&str] = match self.kind {
            Kind::Wake | Kind::Readers | Kind::Idle => &["wait=sleep"],
            Kind::Digest | Kind::DigestTrip => &["digest=enforced"],
            Kind::Authenticated => &["digest=authenticated"],
            Kind::SingleTrip | Kind::Single => &["policy=single"],
            Kind::DoubleTrip | Kind::Double => &["policy=double", "digest=enforced"],
            _ => &[],
        };
        others.iter().map(|&setting| setting.to_owned()).chain(call).collect()
    }

    fn is_counted(&self) -> bool {
        !matches!(self.kind, Kind::Wake | Kind::Idle | Kind::Readers | Kind::Calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-283, F-01.
    #[test]
    fn every_row_of_the_sheet_is_measured() {
        let extent = Extent { sizes: Vec::new(), readers: vec![1, 2, 4, 8, 16], smallest: false };
        let all: Vec<Measure> = groups(&Kind::ALL, &extent).into_iter().flatten().collect();
        let rows = [
            (Kind::SingleTrip, Kind::Single, 64),
            (Kind::SingleTrip, Kind::Single, 4 * KIB),
            (Kind::DoubleTrip, Kind::Double, 4 * MIB),
            (Kind::DigestTrip, Kind::Digest, 4 * KIB),
            (Kind::Trip, Kind::OneWay, KIB),
        ];
        for (latency, throughput, bytes) in rows {
            for kind in [latency, throughput] {
                let judged = all.iter().filter(|one| (one.kind, one.bytes) == (kind, bytes)).any(|one| {
                    let mut targets = TARGETS.iter().filter(|target| (target.applies)(one));
                    targets.any(|target| target.field == one.main().0)
                });
                assert!(judged, "{kind:?} of {bytes}");
            }
        }
        let readers = all.iter().filter(|one| (one.kind, one.bytes) == (Kind::Readers, 4 * KIB));
        assert_eq!(readers.map(|one| one.count).collect::<Vec<_>>(), extent.readers);
    }

    #[test]
    fn what_is_compared_takes_turns() {
        let extent = Extent { sizes: Vec::new(), readers: vec![1, 8], smallest: false };
        let groups = groups(&Kind::ALL, &extent);
        let of = |kind: Kind| groups.iter().filter(|group| group[0].kind == kind).collect::<Vec<_>>();
        assert_eq!(
            of(Kind::Trip)[0].iter().map(|one| one.bytes).collect::<Vec<_>>(),
            [64, 1024, 4096, 1 << 20]
        );
        assert_eq!(of(Kind::Readers)[0].iter().map(|one| one.count).collect::<Vec<_>>(), [1, 8]);
        assert_eq!(
            of(Kind::Guards)[0].iter().map(|one| one.kind).collect::<Vec<_>>(),
            [Kind::Guards, Kind::Closures]
        );
        assert!(of(Kind::Closures).is_empty());
        assert_eq!(of(Kind::Readers).len(), 2);
        assert_eq!(
            of(Kind::Calls)[0].iter().filter_map(|one| one.call).collect::<Vec<_>>(),
            Call::value_variants()
        );
        assert_eq!(of(Kind::OneWay).len(), 6);
    }
}
