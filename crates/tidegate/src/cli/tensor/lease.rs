//! `tidegate tensor attach | keepalive | detach`: leases by hand, message by message.
//!
//! Nothing is mapped and nothing is kept alive unless asked for: a lease that `attach` leaves behind expires by itself.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;
use tidegate::sbe::driver::{
    HugepagesPolicy, Message, PublishMode, ResponseCode, Role, ShmAttachRequest, ShmDetachRequest,
    ShmLeaseKeepalive,
};
use tidegate::sbe::{AnyMessage, EncodeError};
use tidegate::shm::clock::monotonic_now;
use tidegate::tensor::ids::StreamId;
use tidegate::tensor::layout::LAYOUT_VERSION;

use super::decode::Decoded;
use super::wire::{Control, Wait, random};
use crate::cli::session::{DriverArgs, Session, StreamRef, UNKNOWN_STREAM, parse_duration};
use crate::output::{Exit, Output, Stop};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Producer,
    Consumer,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Producer => Self::Producer,
            RoleArg::Consumer => Self::Consumer,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hugepages {
    Yes,
    No,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the driver's response with all its fields, refusals included. The lease expires a few seconds later, unless \
`tidegate tensor keepalive` is sent for it or --hold was given.

Exit codes: 3 the stream does not exist (--create makes it), 4 the driver rejected the request, 1 it could not serve it, \
5 no answer.

Examples:
  tidegate tensor attach camera --role consumer
  tidegate tensor attach 20001 --role producer --create --client-id 7 --json
  tidegate tensor attach camera --role consumer --hold 30s")]
pub(crate) struct Attach {
    /// The stream: a number or a name
    stream: StreamRef,
    /// What to attach as
    #[arg(long)]
    role: RoleArg,
    /// Client id [default: random]
    #[arg(long, value_name = "N")]
    client_id: Option<u32>,
    /// Make the stream when the driver does not know it
    #[arg(long)]
    create: bool,
    /// Wish for this node id
    #[arg(long, value_name = "N")]
    node_id: Option<u32>,
    /// Demand regions on huge pages, or on ordinary ones [default: as the driver is configured]
    #[arg(long)]
    hugepages: Option<Hugepages>,
    /// Keep the lease alive this long, then give it back
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    hold: Option<Duration>,
    /// How long to wait for each answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    driver: DriverArgs,
}

/// A lease as its messages name it.
#[derive(Debug, Clone, Args)]
struct LeaseArgs {
    /// Lease id, from the response to attach
    #[arg(long, value_name = "N")]
    lease: u64,
    /// The stream: a number or a name
    #[arg(long)]
    stream: StreamRef,
    /// Client id that attached
    #[arg(long, value_name = "N")]
    client_id: u32,
    /// Role it attached as
    #[arg(long)]
    role: RoleArg,
    /// How long to wait for the driver
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    driver: DriverArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A driver never answers a keepalive, and ignores one whose lease, stream, client and role do not belong together: \
`tidegate tensor ls --json` shows expires_in_ms of each lease.

Example:
  tidegate tensor keepalive --lease 4823 --stream camera --client-id 7 --role consumer")]
pub(crate) struct Keepalive {
    #[command(flatten)]
    lease: LeaseArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the driver's response with all its fields.

Exit codes: 4 the driver knows no such lease, 5 no answer.

Example:
  tidegate tensor detach --lease 4823 --stream camera --client-id 7 --role consumer --json")]
pub(crate) struct Detach {
    #[command(flatten)]
    lease: LeaseArgs,
}

impl Attach {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let session = Session::open(&self.driver)?;
        let stream = session.resolve(&self.stream, self.create)?;
        let mut control = Control::open(&session, self.timeout)?;
        let request = self.request(stream);
        let message = encoded(request.to_vec())?;
        let client = request.client_id;
        let (answer, printed) = control.ask(&message, self.timeout, &mut |message| match message {
            AnyMessage::Driver(Message::ShmAttachResponse(response))
                if response.correlation_id == request.correlation_id =>
            {
                let answer = Answer { code: response.code, message: response.error_message.to_string() };
                let lease = response.lease_id.zip(response.stream_id);
                Some(((answer, lease), print_attach(response, client, output)))
            }
            _ => None,
        })?;
        printed?;
        let (answer, lease) = answer;
        answer.check()?;
        let (Some(hold), Some((lease_id, stream_id))) = (self.hold, lease) else { return Ok(()) };
        let held = Lease { lease_id, stream_id, client_id: client, role: self.role.into() };
        held.keep(&mut control, hold, session.context.keepalive_interval)?;
        control.finish_first();
        held.detach(&mut control, self.timeout, output)
    }

    fn request(&self, stream: StreamId) -> ShmAttachRequest {
        let publish_mode =
            if self.create { PublishMode::ExistingOrCreate } else { PublishMode::RequireExisting };
        let pages = match self.hugepages {
            None => HugepagesPolicy::Unspecified,
            Some(Hugepages::Yes) => HugepagesPolicy::Hugepages,
            Some(Hugepages::No) => HugepagesPolicy::Standard,
        };
        ShmAttachRequest {
            correlation_id: random().cast_signed(),
            stream_id: stream.get(),
            // The upper bits are as random as the lower ones; 0 is no id.
            client_id: self.client_id.unwrap_or_else(|| ((random() >> 32) as u32).max(1)),
            role: Role::from(self.role).into(),
            expected_layout_version: LAYOUT_VERSION,
            publish_mode: Some(publish_mode.into()),
            require_hugepages: pages.into(),
            desired_node_id: self.node_id,
        }
    }
}

impl Keepalive {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let session = Session::open(&self.lease.driver)?;
        let lease = self.lease.resolve(&session)?;
        let mut control = Control::sender(&session, self.lease.timeout)?;
        lease.keepalive(&mut control, Instant::now() + self.lease.timeout)?;
        output.result(
            || format!("sent a keepalive for lease {} of stream {}", lease.lease_id, lease.stream_id),
            || {
                json!({
                    "sent": true,
                    "lease": lease.lease_id,
                    "stream": lease.stream_id,
                    "client": lease.client_id,
                    "role": lease.role_name(),
                })
            },
        )
    }
}

impl Detach {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let session = Session::open(&self.lease.driver)?;
        let lease = self.lease.resolve(&session)?;
        let mut control = Control::open(&session, self.lease.timeout)?;
        lease.detach(&mut control, self.lease.timeout, output)
    }
}

impl LeaseArgs {
    fn resolve(&self, session: &Session) -> Result<Lease, Stop> {
        Ok(Lease {
            lease_id: self.lease,
            stream_id: session.resolve(&self.stream, false)?.get(),
            client_id: self.client_id,
            role: self.role.into(),
        })
    }
}

/// The four numbers that name a lease.
struct Lease {
    lease_id: u64,
    stream_id: u32,
    client_id: u32,
    role: Role,
}

impl Lease {
    fn role_name(&self) -> &'static str {
        match self.role {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
        }
    }

    fn keepalive(&self, control: &mut Control, deadline: Instant) -> Result<(), Stop> {
        let keepalive = ShmLeaseKeepalive {
            lease_id: self.lease_id,
            stream_id: self.stream_id,
            client_id: self.client_id,
            role: self.role,
            client_timestamp_ns: monotonic_now().as_u64(),
        };
        control.send(&encoded(keepalive.to_vec())?, deadline)
    }

    /// Sends keepalives until the time is up, or the user wants to stop.
    fn keep(&self, control: &mut Control, hold: Duration, interval: Duration) -> Result<(), Stop> {
        let end = Instant::now() + hold;
        loop {
            let next = Instant::now() + interval;
            self.keepalive(control, next)?;
            let lost = control.wait(next.min(end), &mut |message| match message {
                AnyMessage::Driver(Message::ShmLeaseRevoked(notice)) if notice.lease_id == self.lease_id => {
                    Some(format!("the driver ended lease {}: {}", self.lease_id, notice.error_message))
                }
                AnyMessage::Driver(Message::ShmDriverShutdown(notice)) => {
                    Some(format!("the driver shut down: {}", notice.error_message))
                }
                _ => None,
            })?;
            match lost {
                Wait::Found(what) => {
                    return Err(Stop::Error {
                        exit: Exit::Failed,
                        code: "lease_lost",
                        message: format!("{what}; attach again"),
                    });
                }
                Wait::Interrupted => return Ok(()),
                Wait::Elapsed if Instant::now() >= end => return Ok(()),
                Wait::Elapsed => {}
            }
        }
    }

    fn detach(&self, control: &mut Control, timeout: Duration, output: &mut Output) -> Result<(), Stop> {
        let request = ShmDetachRequest {
            correlation_id: random().cast_signed(),
            lease_id: self.lease_id,
            stream_id: self.stream_id,
            client_id: self.client_id,
            role: self.role.into(),
        };
        let message = encoded(request.to_vec())?;
        let (answer, printed) = control.ask(&message, timeout, &mut |message| match message {
            AnyMessage::Driver(Message::ShmDetachResponse(response))
                if response.correlation_id == request.correlation_id =>
            {
                let answer = Answer { code: response.code, message: response.error_message.to_string() };
                Some((answer, Decoded::from(message.clone()).print(output)))
            }
            _ => None,
        })?;
        printed?;
        answer.check()
    }
}

/// Code and text of a response.
struct Answer {
    code: ResponseCode,
    message: String,
}

impl Answer {
    fn check(self) -> Result<(), Stop> {
        let (exit, code, hint) = match self.code {
            ResponseCode::Ok => return Ok(()),
            ResponseCode::Rejected if self.message == UNKNOWN_STREAM => (
                Exit::NotFound,
                "unknown_stream",
                "`tidegate tensor ls` shows those it has; --create makes one",
            ),
            ResponseCode::Rejected => {
                (Exit::Refused, "refused", "`tidegate tensor ls --json` shows who holds leases")
            }
            ResponseCode::InvalidParams => (Exit::Failed, "invalid_params", "correct the arguments"),
            ResponseCode::Unsupported => {
                (Exit::Failed, "unsupported", "use a driver that knows this request")
            }
            ResponseCode::InternalError => {
                (Exit::Failed, "driver_failed", "see the driver's log, and `tidegate doctor`")
            }
        };
        let message = format!("the driver refused: {}; {hint}", self.message);
        Err(Stop::Error { exit, code, message })
    }
}

/// The response, with the client id that later messages need and the response does not carry.
fn print_attach(
    response: &tidegate::sbe::driver::ShmAttachResponse<'_>,
    client: u32,
    output: &mut Output,
) -> Result<(), Stop> {
    let decoded = Decoded::from(AnyMessage::Driver(Message::ShmAttachResponse(response.clone())));
    output.result(
        || format!("{}  (asked as client {client})", decoded.text()),
        || {
            let mut value = decoded.json();
            value["client"] = client.into();
            value
        },
    )
}

/// The only values that cannot be sent are the ones that mean "not provided".
fn encoded(message: Result<Vec<u8>, EncodeError>) -> Result<Vec<u8>, Stop> {
    message.map_err(Stop::usage)
}
