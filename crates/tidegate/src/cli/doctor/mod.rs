//! `tidegate doctor`: what is wrong on this host, who holds it, and what is safe to remove.
//!
//! Looking changes nothing. With `--fix`, what is *proven* dead goes: the process is gone (by number and start time, where
//! both are known) and the lock that its successor would need could be taken; the lock is held while things are removed.
//! Everything else is reported with what to look at.

mod bench;
#[cfg(feature = "hub")]
mod broker;
#[cfg(feature = "hub")]
mod hub_bench;
mod media;
mod memory;
mod nodes;
mod regions;
mod tree;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::tensor::BENCH_PREFIX;
use super::text;
use crate::output::{Exit, Output, Stop, exit_of_io};

/// Where directories of nodes, media drivers and regions are by default.
const DEFAULT_SHM: &str = "/dev/shm";
/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 65_536;

#[derive(Debug, Args)]
#[command(after_help = "\
Looks for nodes (tidegate-*) and their brokers, media drivers (aeron-*), regions (tensorpool-*) and measurements (tidegate.bench-*, tidegate.hub-bench-*) in \
shared memory, for nodes that hold their directory but do not answer, and for memory running low. Exit code 0 when all is well, 1 when there are problems, \
0 as well when --fix removed all of them.

With --json: one object {\"check\",\"status\",\"path\",\"pid\",\"bytes\",\"safe_to_remove\",\"message\",\"advice\"} per finding.

Examples:
  tidegate doctor
  tidegate doctor --fix
  tidegate doctor --dir /dev/shm/lab --json")]
pub(crate) struct Doctor {
    /// Look at this node directory as well [default: $TIDEGATE_DIR]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where to look for directories of nodes, media drivers and regions
    #[arg(long, value_name = "DIR", default_value = DEFAULT_SHM)]
    shm: PathBuf,
    /// Remove what is proven dead; never anything of a live process
    #[arg(long)]
    fix: bool,
    /// Least free shared memory, in MiB [default: 256, or a tenth where that is more]
    #[arg(long, value_name = "MIB")]
    min_free: Option<u64>,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Node,
    MediaDriver,
    Regions,
    Bench,
    #[cfg(feature = "hub")]
    Broker,
    Memory,
    HugePages,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::MediaDriver => "media_driver",
            Self::Regions => "regions",
            Self::Bench => "bench",
            #[cfg(feature = "hub")]
            Self::Broker => "broker",
            Self::Memory => "memory",
            Self::HugePages => "huge_pages",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    Problem,
    Fixed,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Problem => "problem",
            Self::Fixed => "fixed",
        }
    }
}

/// One thing that was found.
#[derive(Debug)]
struct Finding {
    check: Check,
    status: Status,
    path: Option<PathBuf>,
    /// Who holds it, or held it.
    pid: Option<u32>,
    /// Memory it takes.
    bytes: Option<u64>,
    /// Whether the process behind it is proven dead, so that `--fix` removes it.
    safe_to_remove: bool,
    message: String,
    /// What to do.
    advice: Option<String>,
}

impl Finding {
    fn ok(check: Check, path: Option<&Path>, message: String) -> Self {
        Self {
            check,
            status: Status::Ok,
            path: path.map(Path::to_owned),
            pid: None,
            bytes: None,
            safe_to_remove: false,
            message,
            advice: None,
        }
    }

    fn problem(check: Check, path: Option<&Path>, message: String, advice: String) -> Self {
        Self { status: Status::Problem, advice: Some(advice), ..Self::ok(check, path, message) }
    }

    fn of(mut self, pid: Option<u32>) -> Self {
        self.pid = pid;
        self
    }

    fn json(&self) -> Value {
        json!({
            "check": self.check.name(),
            "status": self.status.name(),
            "path": self.path,
            "pid": self.pid,
            "bytes": self.bytes,
            "safe_to_remove": self.safe_to_remove,
            "message": self.message,
            "advice": self.advice,
        })
    }

    fn text(&self) -> String {
        let path = self.path.as_ref().map_or_else(String::new, |path| format!(" {}", path.display()));
        let size = self.bytes.map_or_else(String::new, |bytes| format!(" ({})", text::bytes(bytes)));
        let advice = self.advice.as_ref().map_or_else(String::new, |advice| format!("\n         {advice}"));
        let label = self.check.name().replace('_', " ");
        format!("{:7}  {label}{path}{size}: {}{advice}", self.status.name(), self.message)
    }
}

/// Something dead that can be removed.
trait Remains {
    /// Removes it, with its lock held. Says what is left and why, if anything is.
    fn remove(&self) -> Result<(), tree::Kept>;
}

/// A finding, with what to remove when it is safe.
struct Found {
    finding: Finding,
    remains: Option<Box<dyn Remains>>,
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        Self { finding, remains: None }
    }
}

impl Found {
    /// What a dead process left.
    fn dead(finding: Finding, remains: impl Remains + 'static) -> Self {
        Self { finding: Finding { safe_to_remove: true, ..finding }, remains: Some(Box::new(remains)) }
    }

    fn fix(&mut self) {
        let Some(remains) = &self.remains else { return };
        match remains.remove() {
            Ok(()) => {
                self.finding.status = Status::Fixed;
                self.finding.message.push_str("; removed");
                self.finding.advice = None;
            }
            Err(reason) => {
                self.finding.safe_to_remove = false;
                self.finding.advice = Some(format!("not removed: {reason}"));
            }
        }
    }
}

impl Doctor {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let entries = self.entries()?;
        let advice = self.fix_command();
        let mut problems = 0;
        let mut report = |mut found: Found| {
            if self.fix {
                found.fix();
            }
            problems += usize::from(found.finding.status == Status::Problem);
            output.result(|| found.finding.text(), || found.finding.json())
        };
        for dir in self.node_dirs(&entries) {
            if let Some(found) = nodes::look(&dir, &advice) {
                let lives = found.finding.status == Status::Ok;
                report(found)?;
                #[cfg(feature = "hub")]
                if let Some(finding) = lives.then(|| broker::look(&dir)).flatten() {
                    report(finding.into())?;
                }
                #[cfg(not(feature = "hub"))]
                let _ = lives;
            }
        }
        for dir in with_prefix(&entries, "aeron-") {
            report(media::look(&dir, &advice))?;
        }
        for dir in with_prefix(&entries, "tensorpool-") {
            for found in regions::look(&dir, &advice) {
                report(found)?;
            }
        }
        for dir in with_prefix(&entries, BENCH_PREFIX) {
            report(bench::look(&dir, &advice))?;
        }
        #[cfg(feature = "hub")]
        for dir in with_prefix(&entries, super::hub::BENCH_PREFIX) {
            report(hub_bench::look(&dir, &advice))?;
        }
        // After the repair, so that it counts what is free now.
        report(memory::space(&self.shm, self.min_free)?.into())?;
        report(memory::huge_pages().into())?;
        if problems == 0 { Ok(()) } else { Err(Stop::Reported(Exit::Failed)) }
    }

    /// Directories in shared memory, sorted.
    fn entries(&self) -> Result<Vec<PathBuf>, Stop> {
        let failed = |error: std::io::Error| {
            let (exit, code) = exit_of_io(&error);
            let message =
                format!("cannot list {}: {error}; name another place with --shm", self.shm.display());
            Stop::Error { exit, code, message }
        };
        let listed = std::fs::read_dir(&self.shm).map_err(failed)?;
        let mut entries: Vec<PathBuf> = listed
            .take(MAX_ENTRIES)
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        entries.sort();
        Ok(entries)
    }

    fn node_dirs(&self, entries: &[PathBuf]) -> Vec<PathBuf> {
        let mut dirs = with_prefix(entries, "tidegate-");
        let variable = std::env::var_os(tidegate::node::DIR_VARIABLE).filter(|value| !value.is_empty());
        let named = self.dir.clone().or_else(|| variable.map(PathBuf::from));
        if let Some(named) = named
            && !dirs.contains(&named)
        {
            dirs.push(named);
        }
        dirs
    }

    /// The command that repairs what this one finds.
    fn fix_command(&self) -> String {
        let mut command = "tidegate doctor --fix".to_owned();
        if let Some(dir) = &self.dir {
            command.push_str(&format!(" --dir {}", dir.display()));
        }
        if self.shm != Path::new(DEFAULT_SHM) {
            command.push_str(&format!(" --shm {}", self.shm.display()));
        }
        command
    }
}

fn with_prefix(entries: &[PathBuf], prefix: &str) -> Vec<PathBuf> {
    let matches = |path: &&PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    entries.iter().filter(matches).cloned().collect()
}

/// The user a directory belongs to, when it is another one than ours: what it holds is not for us to judge or remove.
fn foreign_owner(dir: &Path) -> Option<u32> {
    let owner = std::fs::symlink_metadata(dir).ok()?.uid();
    (owner != rustix::process::geteuid().as_raw()).then_some(owner)
}

fn of_another_user(check: Check, dir: &Path, owner: u32) -> Finding {
    let message = format!("belongs to user {owner}, who can look at it with `tidegate doctor`");
    Finding::ok(check, Some(dir), message)
}
