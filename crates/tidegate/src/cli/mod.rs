//! The command tree: `tidegate <noun> <verb>`.
//!
//! One file per command. A command takes its parsed arguments and an [`Output`], and returns `Ok` or a [`Stop`], which
//! carries the exit code. Nothing here panics on arguments, environment, input or a closed terminal.

#[cfg(feature = "zmq")]
mod bench;
mod doctor;
#[cfg(feature = "hub")]
mod hub;
mod logging;
#[cfg(feature = "zmq")]
mod mq;
mod overview;
mod session;
mod signal;
mod tensor;
mod text;
mod up;
#[cfg(feature = "vertex")]
mod vertex;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::output::{Exit, Output, Stop};

/// Moves data between processes without copying it.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 not found, 4 refused (fenced, permission), 5 timed out.

Examples:
  tidegate up
  tidegate tensor pub camera --input film.y4m --loop forever
  tidegate tensor sub camera";

/// Options of every command.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Print one JSON object per line instead of text; errors too, on standard error
    #[arg(long, global = true)]
    json: bool,
    /// Log more; repeat for still more. TP_LOG_LEVEL (0 errors to 4 trace, default 2) says where to start
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node in the foreground: media driver, tensor driver and broker in one process
    Up(up::Up),
    /// Show the node, its streams and its channels
    Ls(overview::Ls),
    /// Say what is wrong on this host, who holds it, and what is safe to remove
    Doctor(doctor::Doctor),
    /// Lossy broadcast of tensors over shared memory
    #[command(subcommand)]
    Tensor(Box<tensor::Command>),
    /// Typed channels between the processes of a host: data blocks, broker, recovery
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Hub(Box<hub::Command>),
    /// Messages between processes and hosts, interoperable with ZeroMQ
    #[cfg(feature = "zmq")]
    #[command(subcommand)]
    Mq(Box<mq::Command>),
    /// A source, a user function in another process, a sink
    #[cfg(feature = "vertex")]
    #[command(subcommand)]
    Vertex(Box<vertex::Command>),
}

/// Runs one command line, the program's name first.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(refusal) => return refuse(&refusal, &args),
    };
    let json = cli.global.json;
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(json),
    }
}

fn execute(cli: Cli) -> Result<(), Stop> {
    logging::start(cli.global.verbose, cli.global.quiet)?;
    let mut output = Output::stdout(cli.global.json);
    match cli.command {
        Command::Up(command) => command.run(&mut output),
        Command::Ls(command) => command.run(&mut output),
        Command::Doctor(command) => command.run(&mut output),
        Command::Tensor(command) => tensor::run(*command, &mut output),
        #[cfg(feature = "hub")]
        Command::Hub(command) => hub::run(*command, &mut output),
        #[cfg(feature = "zmq")]
        Command::Mq(command) => mq::run(*command, &mut output),
        #[cfg(feature = "vertex")]
        Command::Vertex(command) => vertex::run(*command, &mut output),
    }
}

/// Answers a command line that is not to be executed: help, version, or a mistake.
fn refuse(refusal: &clap::Error, args: &[OsString]) -> ExitCode {
    let text = refusal.render();
    match refusal.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that is gone has seen enough.
            let _ = write!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        // There was no parse to tell, so the flag is looked for where an option can stand.
        _ if args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json") => {
            let text = text.to_string();
            let message = text.trim().trim_start_matches("error: ").to_owned();
            Stop::Error { exit: usage(args), code: "usage", message }.report(true)
        }
        _ => {
            let _ = write!(std::io::stderr(), "{text}");
            ExitCode::from(usage(args).code())
        }
    }
}

/// What wrong usage ends with: supervisors of a vertex know another code than people do (VX-860).
fn usage(args: &[OsString]) -> Exit {
    #[cfg(feature = "vertex")]
    if args
        .iter()
        .skip(1)
        .find(|arg| !arg.to_string_lossy().starts_with('-'))
        .is_some_and(|noun| noun == "vertex")
    {
        return Exit::Vertex(crate::output::VertexExit::Usage);
    }
    let _ = args;
    Exit::Usage
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }
}
