//! `tidegate tensor driver`: commands to the tensor driver itself.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use tidegate::sbe::AnyMessage;
use tidegate::sbe::driver::{Message, ShmDriverShutdownRequest, ShutdownReason};

use super::decode::Decoded;
use super::wire::{Control, Wait, random};
use crate::cli::session::{DriverArgs, Session, parse_duration};
use crate::output::{Exit, Output, Stop};

#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidegate tensor driver shutdown --token secret")]
pub(crate) enum Command {
    /// Ask the driver to end: it refuses new leases, waits a little, says goodbye and exits
    Shutdown(Shutdown),
}

impl Command {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        match self {
            Self::Shutdown(command) => command.run(output),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
A driver answers only by its shutdown notice, which is printed; one without policies.shutdown_token, one with another \
token, and one that knows no such request stay silent (exit code 5).

Examples:
  TP_SHUTDOWN_TOKEN=secret tidegate tensor driver shutdown
  tidegate tensor driver shutdown --token secret --reason error --json")]
pub(crate) struct Shutdown {
    /// The driver's policies.shutdown_token; the variable keeps it out of the process list
    #[arg(long, env = "TP_SHUTDOWN_TOKEN", hide_env_values = true)]
    token: String,
    /// Reason to be given in the notice
    #[arg(long, default_value = "admin")]
    reason: Reason,
    /// How long to wait for the notice: the driver's policies.shutdown_timeout_ms and a second
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    driver: DriverArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reason {
    Admin,
    Normal,
    Error,
}

impl Shutdown {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let session = Session::open(&self.driver)?;
        let mut control = Control::open(&session, self.timeout)?;
        let reason = match self.reason {
            Reason::Admin => ShutdownReason::Admin,
            Reason::Normal => ShutdownReason::Normal,
            Reason::Error => ShutdownReason::Error,
        };
        let request = ShmDriverShutdownRequest {
            correlation_id: random().cast_signed(),
            reason: reason.into(),
            token: self.token.as_str().into(),
            error_message: "".into(),
        };
        let request = request.to_vec().map_err(Stop::usage)?;
        let deadline = Instant::now() + self.timeout;
        control.send(&request, deadline)?;
        let notice = control.wait(deadline, &mut |message| match message {
            AnyMessage::Driver(Message::ShmDriverShutdown(_)) => {
                Some(Decoded::from(message.clone()).print(output))
            }
            _ => None,
        })?;
        match notice {
            Wait::Found(printed) => printed,
            // TP-269: silence has more than one cause.
            Wait::Elapsed | Wait::Interrupted => Err(Stop::Error {
                exit: Exit::TimedOut,
                code: "no_notice",
                message: format!(
                    "no shutdown notice within {:?}: not supported or refused; check the token, or stop the process",
                    self.timeout
                ),
            }),
        }
    }
}
