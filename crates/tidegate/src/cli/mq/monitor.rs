//! `tidegate mq monitor`: what happens to the connections of a socket.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use tidegate::mq::monitor::{Event, EventKind, Monitor, NotAccepted};
use tidegate::mq::{AnySocket, Context, Error, SocketType};

use super::format::part_to_json;
use super::life::{Life, is_silence, system_reason};
use super::socket::SocketArgs;
use crate::cli::session::parse_duration;
use crate::output::{Exit, Output, Stop};

#[derive(Debug, Args)]
// The type first: the other two take every word that follows them.
#[command(
    override_usage = "tidegate mq monitor <TYPE> <--bind <ENDPOINT>...|--connect <ENDPOINT>...> [OPTIONS]"
)]
pub(crate) struct Watch {
    /// Type of the socket that is opened
    #[arg(value_name = "TYPE")]
    kind: Kind,
    #[command(flatten)]
    socket: SocketArgs,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop with success at the first completed handshake; --timeout counts until then
    #[arg(long)]
    until_up: bool,
    /// Give up when nothing happened for this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Types by their names in lower case.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    Push,
    Pull,
    Pub,
    Sub,
    Xpub,
    Xsub,
    Req,
    Rep,
    Dealer,
    Router,
    Pair,
}

impl From<Kind> for SocketType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Push => Self::Push,
            Kind::Pull => Self::Pull,
            Kind::Pub => Self::Pub,
            Kind::Sub => Self::Sub,
            Kind::Xpub => Self::XPub,
            Kind::Xsub => Self::XSub,
            Kind::Req => Self::Req,
            Kind::Rep => Self::Rep,
            Kind::Dealer => Self::Dealer,
            Kind::Router => Self::Router,
            Kind::Pair => Self::Pair,
        }
    }
}

impl Watch {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let context = Context::new();
        let socket = AnySocket::of_type_with(&context, self.kind.into(), self.socket.options(None)?)?;
        let life = Life::start(context, true)?;
        let monitor = socket.monitor();
        let result = self.socket.meet(&socket, output).and_then(|()| self.follow(&monitor, &life, output));
        life.finish(&[&socket], Some(Duration::ZERO), result)
    }

    fn follow(&self, monitor: &Monitor, life: &Life, output: &mut Output) -> Result<(), Stop> {
        /// Time after which the end of the command is looked for.
        const LOOK: Duration = Duration::from_millis(100);
        let began = Instant::now();
        let mut last = began;
        let mut seen = 0;
        while !life.is_over() && self.count.is_none_or(|count| seen < count) {
            match monitor.next_blocking(Some(LOOK)) {
                Ok(Some(event)) => {
                    last = Instant::now();
                    seen += 1;
                    let up = matches!(event.kind, EventKind::HandshakeSucceeded { .. });
                    output.result(|| text(&event, began.elapsed()), || object(&event, began.elapsed()))?;
                    if up && self.until_up {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(Error::Timeout) => {}
                Err(error) => return Err(error.into()),
            }
            let since = if self.until_up { began } else { last };
            if let Some(timeout) = self.timeout
                && since.elapsed() >= timeout
            {
                let what = if self.until_up { "no completed handshake" } else { "nothing happened" };
                return Err(Stop::Error {
                    exit: Exit::TimedOut,
                    code: "timed_out",
                    message: format!(
                        "{}: {what} for {timeout:?}; is a peer running there, of a type that fits?",
                        self.socket.meet.all().join(", ")
                    ),
                });
            }
        }
        Ok(())
    }
}

fn text(event: &Event, at: Duration) -> String {
    let mut line = format!("{:9.3} {:<20} {}", at.as_secs_f64(), name(&event.kind), event.endpoint);
    if let Some(address) = &event.peer_address {
        line.push_str(&format!(" peer {address}"));
    }
    for (field, value) in details(&event.kind) {
        line.push_str(&format!(" {field} {value}"));
    }
    line
}

fn object(event: &Event, at: Duration) -> Value {
    let mut value = json!({
        "at_ms": u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        "event": name(&event.kind),
        "endpoint": event.endpoint,
        "peer_address": event.peer_address,
    });
    if let Value::Object(fields) = &mut value {
        fields.extend(details(&event.kind));
    }
    value
}

fn name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Connected(_) => "connected",
        EventKind::ConnectDelayed => "connect_delayed",
        EventKind::ConnectRetried(_) => "connect_retried",
        EventKind::Listening(_) => "listening",
        EventKind::BindFailed(_) => "bind_failed",
        EventKind::Accepted(_) => "accepted",
        EventKind::AcceptFailed(_) => "accept_failed",
        EventKind::Closed(_) => "closed",
        EventKind::CloseFailed(_) => "close_failed",
        EventKind::ConnectFailed(_) => "connect_failed",
        EventKind::Disconnected { .. } => "disconnected",
        EventKind::HandshakeSucceeded { .. } => "handshake_succeeded",
        EventKind::HandshakeFailed(reason) if is_silence(reason) => "timed_out",
        EventKind::HandshakeFailed(_) => "handshake_failed",
        EventKind::RoutingIdInUse => "routing_id_in_use",
        EventKind::PairBusy => "pair_busy",
        EventKind::Stopped => "stopped",
        EventKind::Lost(_) => "lost",
        _ => "other",
    }
}

fn details(kind: &EventKind) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    match kind {
        EventKind::Connected(fd)
        | EventKind::Listening(fd)
        | EventKind::Accepted(fd)
        | EventKind::Closed(fd) => {
            add("fd", (*fd).into());
        }
        EventKind::BindFailed(errno) | EventKind::ConnectFailed(errno) | EventKind::CloseFailed(errno) => {
            add("errno", (*errno).into());
            add("reason", system_reason(*errno).into());
        }
        EventKind::AcceptFailed(why) => {
            let reason = match why {
                NotAccepted::TooManyConnections => "too many connections".to_owned(),
                NotAccepted::Displaced => "too many handshakes at a time".to_owned(),
                NotAccepted::Filtered => "turned away by a filter".to_owned(),
                _ => std::io::Error::from_raw_os_error(why.errno()).to_string(),
            };
            add("errno", why.errno().into());
            add("reason", reason.into());
        }
        EventKind::ConnectRetried(delay) => {
            add("delay_ms", u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).into());
        }
        EventKind::Disconnected { fd, received, sent, messages_received, messages_sent } => {
            add("fd", (*fd).into());
            add("bytes_received", (*received).into());
            add("bytes_sent", (*sent).into());
            add("messages_received", (*messages_received).into());
            add("messages_sent", (*messages_sent).into());
        }
        EventKind::HandshakeSucceeded { routing_id, user_id } => {
            add("routing_id", part_to_json(routing_id));
            add("user_id", part_to_json(user_id));
        }
        EventKind::HandshakeFailed(reason) => {
            add("reason", reason.to_string().into());
        }
        EventKind::Lost(events) => {
            add("events", (*events).into());
        }
        _ => {}
    }
    fields
}
