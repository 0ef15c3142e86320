//! `tidegate tensor inspect`: what shared memory holds, and whether it is valid.
//!
//! Regions are opened read-only, through every check of the specification's table 5.2 (TP-476). Unlike a consumer the
//! command goes on after a check of the contents failed, and says everything that is wrong.

mod region;
mod slot;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde_json::{Value, json};
use tidegate::node::{NodeClient, StreamStatus};
use tidegate::shm::region::{Access, AllowedBases, HugePages, OpenError, PermissionPolicy};
use tidegate::tensor::ids::{Epoch, PoolId, StreamId};
use tidegate::tensor::layout::{RegionKind, SlotCount, Stride};
use tidegate::tensor::uri::RegionUri;

use self::region::{Announced, RegionReport};
use self::slot::RingReport;
use crate::cli::overview::{NodeArgs, stream_json};
use crate::cli::session::StreamRef;
use crate::cli::text;
use crate::output::{Exit, Output, Report, Stop, exit_of_io};

/// Where regions are looked for unless told otherwise (TP-062).
const DEFAULT_BASE: &str = "/dev/shm";
const HEADER_FILE: &str = "header.ring";

#[derive(Debug, Args)]
#[command(after_help = "\
WHAT is a stream of the node (number or name), a region file, an epoch directory, or a region URI as messages carry it. \
What contains a slash is a path: write ./header.ring. Values of slots are checked against the pools when these are looked \
at too, that is for a stream and for an epoch directory.

With --json: one object {\"kind\":\"stream\"} for a stream, then {\"kind\":\"region\"} per file and {\"kind\":\"slot\"} per slot. \
Exit code 1 when something is not valid; everything that can be read is printed before.

Examples:
  tidegate tensor inspect camera
  tidegate tensor inspect /dev/shm/tensorpool-me/default/10000/3 --slots all --json
  tidegate tensor inspect --allow /mnt/huge 'shm:file?path=/mnt/huge/a/header.ring|require_hugepages=true'")]
pub(crate) struct Inspect {
    /// The stream or region
    what: What,
    /// Show this many of the newest slots and of the invalid ones, or all
    #[arg(long, value_name = "N|all", default_value = "8")]
    slots: Slots,
    /// Open regions in this directory; repeat for more [default: the node's base directory, and /dev/shm for paths]
    #[arg(long, value_name = "DIR")]
    allow: Vec<PathBuf>,
    /// Open regions whatever their owner and mode are; without it files that everybody may open are refused
    #[arg(long)]
    any_mode: bool,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Stream(StreamRef),
    Path(PathBuf),
    Uri(RegionUri),
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("shm:") {
            return RegionUri::parse(text.as_bytes()).map(Self::Uri).map_err(|error| error.to_string());
        }
        if text.contains('/') {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        StreamRef::from_str(text).map(Self::Stream).map_err(|error| error.to_string())
    }
}

/// How many slots to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slots {
    All,
    Newest(usize),
}

impl FromStr for Slots {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.parse().map(Self::Newest).map_err(|_| "give a number of slots, or all".to_owned())
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    field: String,
    expected: String,
    found: String,
}

impl Problem {
    fn new(field: impl ToString, expected: impl ToString, found: impl ToString) -> Self {
        Self { field: field.to_string(), expected: expected.to_string(), found: found.to_string() }
    }

    fn json(&self) -> Value {
        json!({ "field": self.field, "expected": self.expected, "found": self.found })
    }

    fn text(&self) -> String {
        format!("{}: expected {}, found {}", self.field, self.expected, self.found)
    }
}

/// One file to look at.
struct Place {
    path: PathBuf,
    huge_pages: HugePages,
    kind: Option<RegionKind>,
    /// What the node says about the pool.
    pool: Option<(PoolId, Stride)>,
}

/// All files that belong together, the header ring first if it is among them.
struct Set {
    places: Vec<Place>,
    announced: Option<Announced>,
}

impl Inspect {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let (set, base) = self.gather(output)?;
        let bases = if self.allow.is_empty() { base } else { self.allow.clone() };
        let (bases, rejected) = AllowedBases::new(&bases);
        for base in rejected {
            tracing::warn!("{base}");
        }
        let mut reports = Vec::new();
        let mut refused = None;
        let mut announced = set.announced;
        for place in set.places {
            match self.look_at(&bases, place, announced.as_ref()) {
                Ok(report) => {
                    // Without a node the header ring says what its pools must be.
                    announced = announced.or_else(|| report.as_announced());
                    reports.push(report);
                }
                Err(stop) => refused = refused.or(Some(stop)),
            }
        }
        let valid = self.print(reports, output)?;
        match refused {
            Some(stop) => Err(stop),
            None if valid => Ok(()),
            None => Err(Stop::Reported(Exit::Failed)),
        }
    }

    /// The files, and the directories that they may be in by default.
    fn gather(&self, output: &mut Output) -> Result<(Set, Vec<PathBuf>), Stop> {
        let (path, huge_pages) = match &self.what {
            What::Stream(stream) => {
                let node = self.node.find()?;
                let base = node.description().shm_base_dir.clone();
                let status = find_stream(&node, stream)?;
                output.result(|| stream_text(&status), || stream_json(&status))?;
                return Ok((set_of_stream(&status)?, vec![base]));
            }
            What::Path(path) => (absolute(path)?, HugePages::NotRequired),
            What::Uri(uri) if uri.require_hugepages() => (uri.path().to_owned(), HugePages::Required),
            What::Uri(uri) => (uri.path().to_owned(), HugePages::NotRequired),
        };
        let node_base = self.node.find().ok().map(|node| node.description().shm_base_dir.clone());
        let bases = node_base.into_iter().chain([PathBuf::from(DEFAULT_BASE)]).collect();
        let places = if path.is_dir() {
            files_of_epoch(&path)?
        } else {
            vec![Place { kind: kind_of_name(&path), path, huge_pages, pool: None }]
        };
        Ok((Set { places, announced: None }, bases))
    }

    fn look_at(
        &self,
        bases: &AllowedBases,
        place: Place,
        announced: Option<&Announced>,
    ) -> Result<RegionReport, Stop> {
        let policy = PermissionPolicy { enforce: !self.any_mode, ..PermissionPolicy::default() };
        let file = bases.open(&place.path, Access::ReadOnly, &policy, place.huge_pages)?;
        RegionReport::read(file, place.kind, place.pool, announced)
    }

    /// Prints regions and slots; says whether all of them are valid.
    fn print(&self, reports: Vec<RegionReport>, output: &mut Output) -> Result<bool, Stop> {
        let pools: Option<Vec<(PoolId, Stride)>> = if reports.len() > 1 {
            Some(reports.iter().filter_map(RegionReport::as_pool).collect())
        } else {
            None
        };
        let mut valid = true;
        for report in reports {
            let ring = match report.slots() {
                Some(slots) => Some(RingReport::read(slots, pools.as_deref(), self.slots)?),
                None => None,
            };
            valid &= report.is_valid() && ring.as_ref().is_none_or(RingReport::is_valid);
            output.result(|| report.text(ring.as_ref()), || report.json(ring.as_ref()))?;
            if let Some(ring) = ring {
                ring.print_slots(output)?;
            }
        }
        Ok(valid)
    }
}

fn find_stream(node: &NodeClient, stream: &StreamRef) -> Result<StreamStatus, Stop> {
    let found = node.status()?.streams.into_iter().find(|known| match stream {
        StreamRef::Id(id) => known.stream == id.get(),
        StreamRef::Name(name) => known.name.as_deref() == Some(name),
    });
    found.ok_or_else(|| Stop::Error {
        exit: Exit::NotFound,
        code: "unknown_stream",
        message: format!("the node has no stream {stream}; `tidegate tensor ls` shows those it has"),
    })
}

fn stream_text(stream: &StreamStatus) -> String {
    let mut lines = vec![format!(
        "stream {}{}: epoch {}, producer {}",
        stream.stream,
        stream.name.as_ref().map_or_else(String::new, |name| format!(" '{name}'")),
        stream.epoch,
        stream.producer.map_or_else(|| "none".to_owned(), |client| format!("client {client}")),
    )];
    for lease in &stream.leases {
        lines.push(format!(
            "  lease {}: {} client {}, node id {}, expires in {} ms",
            lease.lease,
            lease.role,
            lease.client,
            text::or_dash(lease.node),
            lease.expires_in_ms
        ));
    }
    if stream.header_path.is_none() {
        lines.push("  no regions yet: nobody has attached".to_owned());
    }
    lines.join("\n")
}

/// The regions as the node announces them.
fn set_of_stream(stream: &StreamStatus) -> Result<Set, Stop> {
    let Some(header) = &stream.header_path else { return Ok(Set { places: Vec::new(), announced: None }) };
    let unusable = |error: tidegate::tensor::layout::GeometryError| Stop::Error {
        exit: Exit::Failed,
        code: "node",
        message: format!("the node describes stream {} wrongly: {error}; restart the node", stream.stream),
    };
    let announced = Announced {
        epoch: Epoch::new(stream.epoch),
        stream: StreamId::new(stream.stream),
        slots: SlotCount::new(stream.slots).map_err(unusable)?,
    };
    let place = |path: &Path, kind, pool| Place {
        path: path.to_owned(),
        huge_pages: HugePages::NotRequired,
        kind: Some(kind),
        pool,
    };
    let mut places = vec![place(header, RegionKind::HeaderRing, None)];
    for pool in &stream.pools {
        if let Some(path) = &pool.path {
            let geometry = (PoolId::new(pool.pool), Stride::new(pool.stride).map_err(unusable)?);
            places.push(place(path, RegionKind::PayloadPool, Some(geometry)));
        }
    }
    Ok(Set { places, announced: Some(announced) })
}

/// The region files of a directory.
fn files_of_epoch(dir: &Path) -> Result<Vec<Place>, Stop> {
    let failed = |error: io::Error| {
        let (exit, code) = exit_of_io(&error);
        Stop::Error {
            exit,
            code,
            message: format!("cannot list {}: {error}; name an epoch directory", dir.display()),
        }
    };
    let mut places = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(kind) = kind_of_name(&path) {
            places.push(Place { path, huge_pages: HugePages::NotRequired, kind: Some(kind), pool: None });
        }
    }
    if places.is_empty() {
        return Err(Stop::Error {
            exit: Exit::NotFound,
            code: "not_found",
            message: format!(
                "there is no {HEADER_FILE} and no .pool file in {}; name an epoch directory or a region file",
                dir.display()
            ),
        });
    }
    // The ring first, then the pools by number.
    let number = |place: &Place| place.path.file_stem().and_then(OsStr::to_str)?.parse::<u64>().ok();
    places.sort_by_key(|place| {
        (place.kind == Some(RegionKind::PayloadPool), number(place), place.path.clone())
    });
    Ok(places)
}

fn kind_of_name(path: &Path) -> Option<RegionKind> {
    if path.file_name() == Some(OsStr::new(HEADER_FILE)) {
        return Some(RegionKind::HeaderRing);
    }
    (path.extension() == Some(OsStr::new("pool"))).then_some(RegionKind::PayloadPool)
}

fn absolute(path: &Path) -> Result<PathBuf, Stop> {
    std::path::absolute(path).map_err(|error| Stop::Error {
        exit: Exit::Failed,
        code: "io",
        message: format!("cannot find out the current directory: {error}; give an absolute path"),
    })
}

impl Report for OpenError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unresolvable { source, .. } => exit_of_io(source).0,
            _ => Exit::Refused,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unresolvable { source, .. } => exit_of_io(source).1,
            _ => "region_refused",
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::OutsideBases { .. } => Some("name its directory with --allow"),
            Self::ForbiddenMode { .. } => Some("look at it all the same with --any-mode"),
            _ => None,
        }
    }
}
