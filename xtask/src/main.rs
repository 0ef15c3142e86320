//! The project's gates, run as `cargo xtask <gate>`.
//!
//! * [`trace`] maps every numbered rule of the specification sheets to the tests that show it.
//! * [`check`] holds the source tree to its boundaries: where `unsafe` and raw atomics may be, which crate may
//!   use which, how long a file may get.
//!
//! A gate prints what is wrong, one finding a line, and exits with 1 when there is any; 2 means that it could not
//! run at all.

#![forbid(unsafe_code)]

mod check;
mod error;
mod trace;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Gates of this repository")]
struct Cli {
    #[command(subcommand)]
    gate: Gate,
}

#[derive(Subcommand)]
enum Gate {
    /// Map the rules of the specification sheets to tests and fail on gaps
    Trace(trace::Options),
    /// Check the unsafe boundary, dependency direction, atomics, file length, wording and the tests retold from libzmq
    Check,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs one gate; `true` means that it found nothing wrong.
fn run(cli: &Cli) -> Result<bool> {
    let workspace = Workspace::load()?;
    match &cli.gate {
        Gate::Trace(options) => trace::run(&workspace, options),
        Gate::Check => check::run(&workspace),
    }
}
