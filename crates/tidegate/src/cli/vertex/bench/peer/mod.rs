//! `tidegate vertex bench-peer`: the ends of a measurement, by the runtime's lane and the SDK.
//!
//! The protocol is that of all peers, see [`crate::cli::bench::peer`]; the worker is started as a runtime starts it, and its
//! process is told with `begin`.
//!
//! | role | |
//! |---|---|
//! | `calls` | `flight` batches of `count` records are on their way to the function all the time |
//! | `idle` | a worker is attached and nothing comes |
//! | `revoke`, `quiesce` | a fence is revoked while other threads write under it |
//! | `whole`, `python`, `table` | a vertex from a generator to nowhere, with a function in Rust or in Python |
//! | `epochs` | a vertex from a file to files of epochs, with a ledger |
//! | `worker` | the function |

mod calls;
mod fences;
mod lane;
mod whole;

use std::path::Path;

use clap::Args;
use serde_json::json;
use tidegate_udf::{Ctx, Emit, Outcome, Record};

use self::whole::Function;
use crate::cli::bench::peer::{Times, number, orders, print};
use crate::output::{Exit, Stop};

#[derive(Debug, Args)]
pub(crate) struct Peer {
    #[arg(long)]
    full_checksum: bool,
    #[arg(long)]
    no_permits: bool,
    #[arg(long, default_value = "python3")]
    python: String,
    role: String,
    #[arg(default_value = "bind")]
    how: String,
    #[arg(default_value = "")]
    endpoint: String,
    #[arg(value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

/// What the runner asked for.
#[derive(Debug, Clone)]
struct Task {
    /// Bytes of a value.
    size: usize,
    /// Records of a batch.
    batch: usize,
    /// Batches on their way.
    flight: usize,
    times: Times,
    /// Checksums of whole payloads.
    checksum: bool,
    permits: bool,
    /// The interpreter.
    python: String,
}

impl Peer {
    pub(crate) fn run(self) -> Result<(), Stop> {
        match self.role.as_str() {
            "version" => {
                print(&json!({ "version": env!("CARGO_PKG_VERSION"), "optimized": !cfg!(debug_assertions) }));
                return Ok(());
            }
            // Standard input is the runtime's.
            "worker" => {
                return tidegate_udf::worker().map("flip", flip).run().map_err(|error| failed(&error));
            }
            _ => {}
        }
        // Ends this process with its runner.
        let _orders = orders();
        let task = self.task()?;
        if (task.checksum || !task.permits) && self.role != "calls" {
            print(&json!({ "cannot": "it is no other way to do that" }));
            return Ok(());
        }
        match self.role.as_str() {
            "calls" => calls::run(&task),
            "idle" => lane::idle(&task),
            "revoke" => fences::run(&task, fences::Until::Revoked),
            "quiesce" => fences::run(&task, fences::Until::Quiesced),
            "whole" => whole::run(&task, Function::Rust),
            "python" => whole::run(&task, Function::Python),
            "table" => whole::run(&task, Function::Table),
            "epochs" => whole::epochs(&task, Path::new(&self.endpoint)),
            role => {
                print(&json!({ "cannot": format!("it has no role {role}") }));
                Ok(())
            }
        }
    }

    fn task(&self) -> Result<Task, Stop> {
        let (checksum, permits) = (self.full_checksum, !self.no_permits);
        let python = self.python.clone();
        let mut task =
            Task { size: 100, batch: 1, flight: 1, times: Times::default(), checksum, permits, python };
        for setting in &self.settings {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            match name {
                "size" => task.size = number(value)?,
                "count" => task.batch = number(value)?,
                "flight" => task.flight = number(value)?,
                _ if task.times.take(name, value)? => {}
                _ => return Err(Stop::usage(format!("{setting}: there is no such setting"))),
            }
        }
        Ok(task)
    }
}

/// What is measured: a copy with one bit changed.
fn flip(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    out.record().value_with(|bytes| {
        let start = bytes.len();
        bytes.extend_from_slice(record.value());
        if let Some(first) = bytes.get_mut(start) {
            *first ^= 1;
        }
    });
    Outcome::ok()
}

/// A measurement cannot go on.
fn failed(error: &dyn std::fmt::Display) -> Stop {
    Stop::Error { exit: Exit::Failed, code: "bench", message: format!("cannot measure: {error}") }
}
