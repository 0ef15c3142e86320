//! What is measured.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::programs::LIBZMQ;
use super::targets::TARGETS;
use crate::cli::bench::verdict::Target;
use crate::cli::bench::{Ends, Measurement, Unit, parse_size, positive, size};

/// A kind of measurement, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Kind {
    /// Round trips over tcp, one at a time
    ReqRep,
    /// Messages one way over tcp
    PushPull,
    /// Messages one way over ipc
    Ipc,
    /// Messages one way inside a process
    InprocRate,
    /// Round trips inside a process
    InprocTrip,
    /// Messages of a publisher to several subscribers
    PubSub,
    /// Messages of a publisher to 99 subscribers, without and with another one that does not read
    Stalled,
    /// Messages of a publisher, of which one subscriber asked for a tenth, by few and by many topics
    Topics,
    /// Messages of many DEALERs to one ROUTER
    Router,
    /// Messages one way over tcp, encrypted
    Curve,
    /// Open loop: the age of messages that are sent at a part of the greatest rate
    OpenLoop,
    /// Many connections: time until all are there, memory, and processor time at one message a second each
    Connections,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Measure {
    pub(in crate::cli) kind: Kind,
    /// Payload.
    pub(in crate::cli) bytes: usize,
    /// Subscribers, topics, dealers, connections, or per cent of the greatest rate; else 1.
    pub(in crate::cli) count: usize,
    /// Whether there is one more subscriber, which does not read.
    pub(in crate::cli) stalled: bool,
}

/// The sizes of each kind, unless told.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Extent {
    /// Payload sizes in bytes, for every kind; k and m stand for KiB and MiB [default: those of the specification]
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = parse_size)]
    pub(in crate::cli) sizes: Vec<usize>,
    /// How many subscribers
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,10,100,1000", value_parser = positive)]
    pub(in crate::cli) subscribers: Vec<usize>,
    /// How many topics
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,1000,100000", value_parser = positive)]
    pub(in crate::cli) topics: Vec<usize>,
    /// How many DEALERs
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "64,1000", value_parser = positive)]
    pub(in crate::cli) dealers: Vec<usize>,
    /// How many connections
    #[arg(long, value_name = "N", default_value = "10000", value_parser = positive)]
    pub(in crate::cli) connections: usize,
    /// Rates of the open loop, in per cent of the greatest
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "10,50,80", value_parser = positive)]
    pub(in crate::cli) load: Vec<usize>,
    /// Of the sizes of the specification only the smallest.
    #[arg(skip)]
    pub(in crate::cli) smallest: bool,
}

impl Extent {
    /// What takes about a minute in all.
    pub(in crate::cli) fn quick() -> Self {
        Self {
            sizes: Vec::new(),
            subscribers: vec![1, 10],
            topics: vec![1, 1000],
            dealers: vec![64],
            connections: 500,
            load: vec![50],
            smallest: true,
        }
    }
}

/// Publisher and this many subscribers, for [`Kind::Stalled`].
const AUDIENCE: usize = 99;

/// All measurements of these kinds. Those of a group are compared with each other and take turns.
pub(in crate::cli) fn groups(kinds: &[Kind], extent: &Extent) -> Vec<Vec<Measure>> {
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

impl Kind {
    pub(in crate::cli) const ALL: [Self; 12] = [
        Self::ReqRep,
        Self::PushPull,
        Self::Ipc,
        Self::InprocRate,
        Self::InprocTrip,
        Self::PubSub,
        Self::Stalled,
        Self::Topics,
        Self::Router,
        Self::Curve,
        Self::OpenLoop,
        Self::Connections,
    ];

    fn measures(self, extent: &Extent) -> Vec<Measure> {
        let sizes = match extent.sizes.as_slice() {
            [] if extent.smallest => self.sizes().get(..1).unwrap_or_default(),
            [] => self.sizes(),
            sizes => sizes,
        };
        let counts = match self {
            Self::PubSub => extent.subscribers.as_slice(),
            Self::Topics => &extent.topics,
            Self::Router => &extent.dealers,
            Self::OpenLoop => &extent.load,
            Self::Connections => std::slice::from_ref(&extent.connections),
            Self::Stalled => &[AUDIENCE],
            _ => &[1],
        };
        let stalled: &[bool] = if self == Self::Stalled { &[false, true] } else { &[false] };
        let mut measures = Vec::new();
        for &bytes in sizes {
            for &count in counts {
                measures.extend(stalled.iter().map(|&stalled| Measure { kind: self, bytes, count, stalled }));
            }
        }
        measures
    }

    fn sizes(self) -> &'static [usize] {
        const KIB: usize = 1 << 10;
        const MIB: usize = 1 << 20;
        match self {
            Self::ReqRep => &[64, KIB, 64 * KIB, MIB],
            Self::PushPull | Self::Ipc => &[64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB],
            Self::PubSub | Self::Stalled => &[256],
            Self::Curve => &[64, 64 * KIB],
            _ => &[64],
        }
    }

    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::ReqRep => "req_rep",
            Self::PushPull => "push_pull",
            Self::Ipc => "push_pull_ipc",
            Self::InprocRate => "inproc_rate",
            Self::InprocTrip => "inproc_trip",
            Self::PubSub => "pub_sub",
            Self::Stalled => "stalled",
            Self::Topics => "topics",
            Self::Router => "router",
            Self::Curve => "push_pull_curve",
            Self::OpenLoop => "open_loop",
            Self::Connections => "connections",
        }
    }

    pub(in crate::cli) fn ends(self) -> Ends {
        let (roles, measuring) = match self {
            Self::ReqRep => (["rep", "req"], 1),
            Self::PushPull | Self::Ipc | Self::Curve => (["pull", "push"], 0),
            Self::PubSub | Self::Stalled => (["pub", "subs"], 1),
            Self::Topics => (["topic-pub", "topic-sub"], 1),
            Self::Router => (["router", "dealers"], 0),
            Self::OpenLoop => (["paced-pull", "paced-push"], 0),
            Self::Connections => (["crowd-pull", "crowd-push"], 0),
            Self::InprocRate => return Ends::One { role: "pair-rate" },
            Self::InprocTrip => return Ends::One { role: "pair-trips" },
        };
        Ends::Two { roles, measuring }
    }

    /// The number that counts, and whether more of it is better.
    pub(in crate::cli) fn main(self) -> (&'static str, bool) {
        match self {
            Self::ReqRep | Self::InprocTrip | Self::OpenLoop => ("p50_ns", false),
            Self::Topics => ("published_per_s", true),
            Self::Connections => ("measuring_cpu_share", false),
            _ => ("messages_per_s", true),
        }
    }
}

impl Measure {
    /// Whether the two are compared with each other.
    fn goes_with(&self, other: &Self) -> bool {
        let streams = [Kind::PushPull, Kind::Ipc];
        let related = match self.kind {
            Kind::PushPull | Kind::Ipc => streams.contains(&other.kind),
            Kind::Topics | Kind::Stalled => self.kind == other.kind,
            _ => return self == other,
        };
        related && self.bytes == other.bytes
    }
}

impl Measurement for Measure {
    const REFERENCE: &'static str = LIBZMQ;
    const TOLERANCE: f64 = 0.05;
    const TARGETS: &'static [Target<Self>] = TARGETS;

    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn main(&self) -> (&'static str, bool) {
        self.kind.main()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&self) -> usize {
        self.count
    }

    fn ends(&self) -> Ends {
        self.kind.ends()
    }

    fn endpoint(&self, place: &Path) -> String {
        match self.kind {
            Kind::InprocRate | Kind::InprocTrip => "inproc://bench".to_owned(),
            Kind::Ipc => format!("ipc://{}", place.join("socket").display()),
            _ => "tcp://127.0.0.1:*".to_owned(),
        }
    }

    fn unit(&self) -> Unit {
        match self.kind {
            Kind::ReqRep | Kind::InprocTrip => Unit::Trips,
            Kind::OpenLoop | Kind::Connections => Unit::Time,
            _ => Unit::Messages,
        }
    }

    fn settings(&self, how: &str, rate: f64) -> Vec<String> {
        let mut settings = match self.kind {
            Kind::OpenLoop => vec![format!("rate={rate}")],
            Kind::Connections => vec![format!("rate={}", self.count)],
            Kind::Curve if how == "bind" => vec!["security=curve-server".to_owned()],
            Kind::Curve => vec!["security=curve-client".to_owned()],
            _ => Vec::new(),
        };
        settings.extend(self.stalled.then(|| "stalled=1".to_owned()));
        settings
    }

    fn connections(&self) -> Option<usize> {
        (self.kind == Kind::Connections).then_some(self.count)
    }

    fn is_counted(&self) -> bool {
        !matches!(self.kind, Kind::OpenLoop | Kind::Connections)
    }

    /// For people: what `count` counts.
    fn title(&self) -> String {
        let Self { kind, bytes, count, stalled } = self;
        let extent = match kind {
            Kind::PubSub => format!(", {count} SUB"),
            Kind::Stalled if *stalled => format!(", {count} SUB and a stalled one"),
            Kind::Stalled => format!(", {count} SUB"),
            Kind::Topics => format!(", {count} topics"),
            Kind::Router => format!(", {count} DEALER"),
            Kind::OpenLoop => format!(", {count} % load"),
            Kind::Connections => format!(", {count} connections"),
            _ => String::new(),
        };
        format!("{} {}{extent}", kind.name(), size(*bytes))
    }

    /// What tells it from others, in JSON.
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("measure".into(), self.kind.name().into());
        fields.insert("bytes".into(), self.bytes.into());
        fields.insert("count".into(), self.count.into());
        fields.insert("stalled".into(), self.stalled.into());
        fields
    }

    /// Open files that one process needs.
    fn files(&self) -> usize {
        match self.kind {
            // libzmq has two for each socket.
            Kind::PubSub | Kind::Stalled | Kind::Router => 2 * self.count + 64,
            Kind::Connections => self.count + 64,
            _ => 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Extent {
        Extent {
            sizes: Vec::new(),
            subscribers: vec![1, 10, 100, 1000],
            topics: vec![1, 1000, 100_000],
            dealers: vec![64, 1000],
            connections: 10_000,
            load: vec![10, 50, 80],
            smallest: false,
        }
    }

    /// Rules: MQ-503.
    #[test]
    fn rates_are_measured_at_every_size() {
        let measures = Kind::PushPull.measures(&full());
        let sizes: Vec<_> = measures.iter().map(|measure| measure.bytes).collect();
        assert_eq!(sizes, [64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576]);
    }

    #[test]
    fn what_is_compared_takes_turns() {
        let groups = groups(&Kind::ALL, &full());
        let named =
            |wanted: Kind| groups.iter().filter(move |group| group.iter().any(|one| one.kind == wanted));
        for group in named(Kind::Ipc) {
            let kinds: Vec<_> = group.iter().map(|measure| measure.kind).collect();
            assert_eq!(kinds, [Kind::PushPull, Kind::Ipc]);
            assert_eq!(group[0].bytes, group[1].bytes);
        }
        let stalled: Vec<_> = named(Kind::Stalled).flatten().map(|measure| measure.stalled).collect();
        assert_eq!(stalled, [false, true]);
        assert_eq!(named(Kind::Topics).map(Vec::len).collect::<Vec<_>>(), [3]);
        assert_eq!(named(Kind::PubSub).count(), 4);
    }
}
