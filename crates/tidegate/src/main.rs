//! The command line `tidegate`.

#![forbid(unsafe_code)]

mod cli;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
