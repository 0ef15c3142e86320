//! `tidegate tensor listen`: the messages of the control plane, decoded as they come.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tidegate::sbe::AnyMessage;
use tidegate::shm::clock::monotonic_now;
use tidegate::tensor::agent::IdleStrategy;
use tidegate::tensor::client::{Context, Endpoint};
use tidegate::tensor::ids::AeronStreamId;
use tidegate::tensor::transport::{Message, Subscription};

use super::decode::{Decoded, decode_error_code};
use super::wire::{Wire, timed_out};
use crate::cli::session::{DriverArgs, Session, parse_duration};
use crate::cli::signal::Interrupt;
use crate::output::{Output, Stop, error_object};

/// Longest time for the media driver to open a subscription.
const OPEN_WAIT: Duration = Duration::from_secs(5);
/// Messages taken per poll and stream.
const BATCH: usize = 16;

#[derive(Debug, Args)]
#[command(after_help = "\
With --json: one object per message, {\"received_ns\",\"stream_id\",\"session\",\"schema\",\"template\",\"message\",\
\"values\"}; stream_id is the Aeron stream, received_ns the monotonic clock, as in the messages. Bytes that are no message \
give {...,\"error\",\"hex\"} and the command goes on.

Examples:
  tidegate tensor listen control
  tidegate tensor listen descriptor --count 10 --timeout 5s --json
  tidegate tensor listen qos --raw --json")]
pub(crate) struct Listen {
    /// What to listen to
    what: What,
    /// Stop after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Give up when no message came for this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Show the bytes of each message as well, in hexadecimal
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    driver: DriverArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Leases, Hello and Config, and announces: the control and the announce stream
    Control,
    /// Frame descriptors and progress
    Descriptor,
    /// QoS of producers and consumers
    Qos,
    /// Metadata
    Metadata,
}

impl What {
    fn endpoints(self, context: &Context) -> Vec<Endpoint> {
        match self {
            Self::Control if context.control == context.announce => vec![context.control.clone()],
            Self::Control => vec![context.control.clone(), context.announce.clone()],
            Self::Descriptor => vec![context.descriptor.clone()],
            Self::Qos => vec![context.qos.clone()],
            Self::Metadata => vec![context.metadata.clone()],
        }
    }
}

impl Listen {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let interrupt = Interrupt::install()?;
        let session = Session::open(&self.driver)?;
        let wire = Wire::connect(&session, OPEN_WAIT)?;
        let mut streams: Vec<(AeronStreamId, Box<dyn Subscription>)> = Vec::new();
        for endpoint in self.what.endpoints(&session.context) {
            let subscription = wire.subscribe(&endpoint)?;
            tracing::info!(stream = %endpoint.stream, channel = %endpoint.channel, "listening");
            streams.push((endpoint.stream, subscription));
        }
        let outcome = self.listen(&wire, &mut streams, &interrupt, output);
        // Subscriptions before their connection.
        drop(streams);
        outcome
    }

    fn listen(
        &self,
        wire: &Wire,
        streams: &mut [(AeronStreamId, Box<dyn Subscription>)],
        interrupt: &Interrupt,
        output: &mut Output,
    ) -> Result<(), Stop> {
        let mut idler = IdleStrategy::Backoff { spins: 0, max: Duration::from_millis(1) }.idler();
        let mut seen = 0;
        let mut last = Instant::now();
        while !interrupt.is_set() {
            let mut work = 0;
            for (stream, subscription) in streams.iter_mut() {
                let left = self.count.map_or(u64::MAX, |count| count.saturating_sub(seen));
                let limit = usize::try_from(left).unwrap_or(usize::MAX).min(BATCH);
                let mut printed = Ok(());
                work += subscription.poll(limit, &mut |message| {
                    if printed.is_ok() {
                        printed = self.print(*stream, message, output);
                        seen += 1;
                    }
                })?;
                printed?;
            }
            if self.count.is_some_and(|count| seen >= count) {
                return Ok(());
            }
            if work > 0 {
                last = Instant::now();
            }
            if let Some(timeout) = self.timeout
                && last.elapsed() >= timeout
            {
                let wanted = self.count.map_or(String::new(), |count| format!(" of {count}"));
                return Err(timed_out(format!(
                    "no message for {timeout:?}, after {seen}{wanted}; is anybody attached? `tidegate tensor ls` shows it"
                )));
            }
            wire.check()?;
            idler.idle(work);
        }
        Ok(())
    }

    fn print(&self, stream: AeronStreamId, message: Message<'_>, output: &mut Output) -> Result<(), Stop> {
        let received = monotonic_now();
        let decoded = AnyMessage::decode(message.bytes).map(Decoded::from);
        let seconds = received.as_u64() as f64 / 1e9;
        let raw = self.raw || decoded.is_err();
        output.result(
            || {
                let mut line = format!("{seconds:.6} {stream} ");
                match &decoded {
                    Ok(decoded) => line.push_str(&decoded.line()),
                    Err(error) => line.push_str(&format!("not a message: {error}")),
                }
                if raw {
                    line.push_str(&format!("\n  {}", hex(message.bytes)));
                }
                line
            },
            || {
                let mut value = json!({
                    "received_ns": received.as_u64(),
                    "stream_id": stream.get(),
                    "session": message.session.get(),
                });
                let rest = match &decoded {
                    Ok(decoded) => decoded.json(),
                    Err(error) => {
                        json!({ "error": error_object(decode_error_code(error), None, &error.to_string()) })
                    }
                };
                extend(&mut value, rest);
                if raw {
                    extend(&mut value, json!({ "hex": hex(message.bytes) }));
                }
                value
            },
        )
    }
}

/// Adds the fields of an object to another one.
fn extend(to: &mut Value, from: Value) {
    if let (Value::Object(to), Value::Object(from)) = (to, from) {
        to.extend(from);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
