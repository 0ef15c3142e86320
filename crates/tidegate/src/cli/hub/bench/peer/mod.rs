//! `tidegate hub bench-peer`: one end of a measurement, by the hub, by Aeron or by bare shared memory.
//!
//! The protocol is that of all peers, see [`crate::cli::bench::peer`]. The end that binds is told a directory, makes one of
//! its own in there and tells its name; both ends put their files there. Records that go to the end that binds go *up*, the
//! others *down*.
//!
//! | role | |
//! |---|---|
//! | `source`, `batch-source` | sends up for ever |
//! | `sink`, `batch-sink` | counts what comes up |
//! | `readers` | the same with `count` consumers in as many threads |
//! | `trips`, `echo` | takes the time of round trips; sends back |
//! | `sleepy-trips`, `sleepy-echo` | the same with a pause before each, in which both ends go to sleep |
//! | `viewer`, `setter` | takes the newest record for ever; counts what it writes |
//! | `quiet`, `idle` | does nothing; waits for what does not come |
//! | `guards`, `closures` | writes and reads in one thread |
//! | `calls` | takes the time of one `call` |

mod aeron;
mod bare;
mod hub;
mod roles;

use std::fmt::Display;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use tidegate::hub::config::BufferPolicy;

use super::plan::Call;
use crate::cli::bench::peer::{Times, number, orders, print};
use crate::output::{Exit, Stop};

/// Bytes of a record that are written and copied out.
const TOUCHED: usize = 64;
/// Records of a batch.
const BATCH: u32 = 64;

#[derive(Debug, Args)]
pub(crate) struct Peer {
    #[arg(long, value_enum, default_value = "hub")]
    by: By,
    role: String,
    #[arg(value_parser = ["bind", "connect"], default_value = "bind")]
    how: String,
    #[arg(default_value = "")]
    endpoint: String,
    #[arg(value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Hub,
    Aeron,
    Bare,
}

/// What the runner asked for.
struct Task {
    role: String,
    binds: bool,
    /// Where files of this turn are.
    place: PathBuf,
    /// Bytes of a record.
    size: usize,
    /// Consumers.
    count: usize,
    times: Times,
    digest: Digest,
    /// None: a ring.
    policy: Option<BufferPolicy>,
    call: Option<Call>,
    /// Whether ends wait as by default, and not by spinning.
    sleeps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    None,
    Enforced,
    Authenticated,
}

/// Where records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// A way by which records go.
trait Way: Sized {
    type Out: Out;
    type From: From + Send;

    /// Makes ready for both directions.
    fn prepare(task: &Task) -> Result<Self, Stop>;

    /// The end that sends in a direction; the other one may not be there yet.
    fn out(&self, task: &Task, direction: Direction) -> Result<Self::Out, Stop>;

    /// The end that receives from a direction; waits for the other one.
    fn from(&self, task: &Task, direction: Direction) -> Result<Self::From, Stop>;
}

/// Sends records.
trait Out {
    fn send(&mut self) -> Result<(), Stop>;

    /// [`BATCH`] of them.
    fn send_batch(&mut self) -> Result<(), Stop>;
}

/// Takes records.
trait From {
    /// Waits for one.
    fn receive(&mut self) -> Result<(), Stop>;

    /// Waits for one or more, at most [`BATCH`]; tells how many.
    fn receive_batch(&mut self) -> Result<usize, Stop>;
}

impl Peer {
    pub(crate) fn run(self) -> Result<(), Stop> {
        if self.role == "version" {
            let version = match self.by {
                By::Aeron => "1.49 (C client and driver, through rusteron)",
                By::Hub | By::Bare => env!("CARGO_PKG_VERSION"),
            };
            print(&json!({ "version": version, "optimized": !cfg!(debug_assertions) }));
            return Ok(());
        }
        // Ends this process with its runner.
        let _orders = orders();
        let task = self.task()?;
        if (task.digest != Digest::None || task.policy.is_some()) && !matches!(self.by, By::Hub) {
            print(&json!({ "cannot": "it has neither digests nor policies" }));
            return Ok(());
        }
        match self.by {
            By::Hub => hub::run(&task),
            By::Aeron => roles::run::<aeron::Aeron>(&task, aeron::ROLES),
            By::Bare => roles::run::<bare::Bare>(&task, bare::ROLES),
        }
    }

    fn task(&self) -> Result<Task, Stop> {
        let mut task = Task {
            role: self.role.clone(),
            binds: self.how == "bind",
            place: PathBuf::from(&self.endpoint),
            size: TOUCHED,
            count: 1,
            times: Times::default(),
            digest: Digest::None,
            policy: None,
            call: None,
            sleeps: false,
        };
        for setting in &self.settings {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            match name {
                "size" => task.size = number(value)?,
                "count" => task.count = number(value)?,
                "wait" => task.sleeps = value == "sleep",
                "policy" if value == "single" => task.policy = Some(BufferPolicy::Single),
                "policy" if value == "double" => task.policy = Some(BufferPolicy::DoubleBuffer),
                "call" => task.call = Some(Call::from_str(value, false).map_err(Stop::usage)?),
                "digest" if value == "enforced" => task.digest = Digest::Enforced,
                "digest" if value == "authenticated" => task.digest = Digest::Authenticated,
                _ if task.times.take(name, value)? => {}
                _ => return Err(Stop::usage(format!("{setting}: there is no such setting"))),
            }
        }
        if task.binds {
            task.place.push(std::process::id().to_string());
            std::fs::create_dir(&task.place).map_err(|error| failed("make a directory", error))?;
        }
        Ok(task)
    }
}

impl Task {
    /// Tells the other end where to connect.
    fn tell_place(&self) {
        if self.binds {
            print(&json!({ "bound": self.place.display().to_string() }));
        }
    }

    /// Records on their way at most.
    fn slots(&self) -> u32 {
        if self.size > 64 << 10 { 64 } else { 4096 }
    }

    fn touched(&self) -> usize {
        self.size.min(TOUCHED)
    }
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// An end cannot go on.
fn failed(what: &str, error: impl Display) -> Stop {
    Stop::Error { exit: Exit::Failed, code: "bench", message: format!("cannot {what}: {error}") }
}
