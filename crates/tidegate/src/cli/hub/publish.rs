//! `tidegate hub pub`: lines of a file or pipe into a channel.

use std::io::{IsTerminal, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tidegate::hub::block::{AttachError, Found};
use tidegate::hub::broker::wire::Register;
use tidegate::hub::broker::{HubError, Registration};
use tidegate::hub::config::{BufferPolicy, HubConfig, Timeout};
use tidegate::hub::error::{AcquireError, OpenError, RegistryError, WriteError};
use tidegate::hub::layout::{ChannelName, Overflow, SyncPolicy};
use tidegate::hub::producer::Producer;

use super::connection::{ANSWER, Reached};
use super::faults;
use super::input::Input;
use super::place::{Finder, Place};
use super::schema::{Format, SchemaArgs, info};
use crate::cli::session::parse_duration;
use crate::cli::signal::Interrupt;
use crate::output::{Exit, Output, Stop, error_object};

/// Longest wait before signals are looked at again.
const NAP: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
#[command(after_help = "\
A line is a record: a JSON object, or values in the order of the columns that the first line of CSV names. A line that is
no record is reported with its place and left out; all others are published, and the exit code is 1.

A channel whose producer died is taken over: ids go on where it stopped, and its consumers stay. At the end of the input
the channel is closed; consumers read what there is. The broker is told of the channel if there is one; records flow without.

With --json: {\"opened\":true,...}, and at the end {\"summary\":true,\"records\",\"bad_lines\",...}.

Examples:
  tidegate hub pub load --schema load.tds1 --input load.csv
  tidegate hub pub load --schema load.tds1 --input load.csv --no-broker
  tidegate hub pub load --schema load.tds1 --input load.csv --secret load.key
  vmstat-as-json | tidegate hub pub vmstat --schema vmstat@1 --input - --sync all --slots 256
  tidegate hub pub pose --schema pose.tds1 --input - --policy single --overflow block < poses.ndjson")]
pub(crate) struct Publish {
    /// The channel: a-z, 0-9, '.', '_' and '-'
    channel: String,
    #[command(flatten)]
    schema: SchemaArgs,
    /// The records: .csv or .ndjson; - is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// What the lines are [default: as the file is called, else ndjson]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How many slots there are and how they are used
    #[arg(long, value_enum, default_value_t = Policy::Ring)]
    policy: Policy,
    /// Slots of a ring
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    slots: u32,
    /// Which records consumers get [default: single for a ring, latest otherwise]
    #[arg(long, value_enum)]
    sync: Option<Delivery>,
    /// What a full ring does
    #[arg(long, value_enum, default_value_t = OnFull::Block)]
    overflow: OnFull,
    /// Most consumers at once
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=32))]
    max_consumers: u32,
    /// Wait for so many consumers before the first record
    #[arg(long, value_name = "N", default_value_t = 0)]
    consumers: u32,
    /// Give up when a record could not be published, or consumers did not come, for so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// How long the channel stays open to new consumers after the last record
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    linger: Duration,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Policy {
    /// One slot, overwritten
    Single,
    /// Two slots: one finished, one being filled
    Double,
    /// A queue of --slots
    Ring,
}

/// Which records consumers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Delivery {
    /// The newest
    Latest,
    /// Every one, for one consumer
    Single,
    /// Every one, for each consumer
    All,
}

impl From<Delivery> for SyncPolicy {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Latest => Self::LatestOnly,
            Delivery::Single => Self::SingleReader,
            Delivery::All => Self::AllReaders,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnFull {
    /// Waits
    Block,
    /// Ends the command
    Fail,
    /// Drops the oldest record
    DropOldest,
}

impl Publish {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let channel = ChannelName::new(&self.channel).map_err(Stop::usage)?;
        let Some((schema, version)) = self.schema.load()? else {
            return Err(Stop::usage("what are the records? Name a file with their schema: --schema FILE"));
        };
        let interrupt = Interrupt::install()?;
        let format = self.format.or_else(|| Format::of_file(&self.input)).unwrap_or(Format::Ndjson);
        let mut input = Input::open(&self.input, format, &schema)?;
        let policy = match self.policy {
            Policy::Single => BufferPolicy::Single,
            Policy::Double => BufferPolicy::DoubleBuffer,
            Policy::Ring => BufferPolicy::RingBuffer(NonZeroU32::new(self.slots).unwrap_or(NonZeroU32::MIN)),
        };
        let mut config = HubConfig::new(channel.clone(), policy, u64::from(schema.size()));
        config.schema = info(&schema, version);
        config.sync = self.sync.map_or(config.sync, SyncPolicy::from);
        if config.sync == SyncPolicy::SingleReader && self.consumers > 1 {
            return Err(Stop::usage(format!(
                "each record is for one consumer, so no {} of them come; give --sync all, with which each gets all",
                self.consumers
            )));
        }
        config.overflow = match self.overflow {
            OnFull::Block => Overflow::Block,
            OnFull::Fail => Overflow::Fail,
            OnFull::DropOldest => Overflow::DropOldest,
        };
        config.max_consumers = self.max_consumers;
        config.dir.clone_from(&self.place.dir);
        config.identity.producer_name =
            format!("tidegate hub pub {}", std::process::id()).chars().take(32).collect();
        let finder = self.place.finder()?;
        if let Some(secret) = &finder.secret {
            config = config.with_secret(secret.clone());
        }
        let producer = open(&finder, &channel, &config)?;
        let registration = register(&finder, &producer)?;
        let mut run = Run {
            publish: &self,
            producer: &producer,
            interrupt: &interrupt,
            records: 0,
            bad: 0,
            told: Instant::now(),
            began: Instant::now(),
        };
        run.tell_opened(output)?;
        let outcome = run.all(&mut input, output);
        let summary = run.summary(output);
        let bad = run.bad;
        // Consumers read what there is until this command is told to stop.
        let closing = producer.writer().start_closing();
        interrupt.sleep(self.linger);
        let closed = closing
            .and_then(|()| producer.close())
            .map_err(|error| faults::acquire(&format!("channel {channel}"), error));
        if let Some(Err(error)) = registration.map(|registration| registration.deregister(ANSWER)) {
            tracing::warn!(%channel, %error, "the broker was not told of the end of the channel");
        }
        outcome?;
        summary?;
        closed?;
        // Each of them was reported.
        if bad > 0 { Err(Stop::Reported(Exit::Failed)) } else { Ok(()) }
    }
}

/// Makes the block of the channel, or takes it over from a producer that is dead.
fn open(finder: &Finder<'_>, channel: &ChannelName, config: &HubConfig) -> Result<Producer, Stop> {
    let what = format!("channel {channel}");
    let Some(Found { name, descriptor }) = finder.find(channel)? else {
        return Producer::create(config).map_err(|error| faults::open(&what, &error));
    };
    let there = &descriptor.spec;
    let different = [
        ("schema", there.schema.slot_hash != config.schema.slot_hash),
        ("policy or slots", there.slot_count != config.policy.slot_count()),
        ("sync", there.sync != config.sync),
        ("overflow", there.overflow != config.overflow),
        ("security", there.security != config.security),
    ];
    if let Some((field, _)) = different.iter().find(|(_, differs)| *differs) {
        let message = format!(
            "{what} exists with another {field}; stop its producer, or give the same options to take over from one that \
             died ({name})"
        );
        return Err(Stop::Error { exit: Exit::Refused, code: "config_mismatch", message });
    }
    match Producer::adopt(&name, config, Timeout::Default) {
        // Its producer died while it closed it, or was cut off: it is over now, and this is the next one.
        Err(OpenError::Attach(AttachError::Closed)) => {
            Producer::create(config).map_err(|error| faults::open(&what, &error))
        }
        Err(OpenError::Registry(RegistryError::WriterAlive { owner })) => Err(Stop::Error {
            exit: Exit::Refused,
            code: "live_writer",
            message: format!("{what} has a producer, process {}; stop it first", owner.pid()),
        }),
        outcome => outcome.map_err(|error| faults::open(&what, &error)),
    }
}

/// Tells the broker where the channel is. Only one that was named on the command line must know.
fn register(finder: &Finder<'_>, producer: &Producer) -> Result<Option<Registration>, Stop> {
    let Some(Reached { hub, is_named }) = &finder.broker else { return Ok(None) };
    let block = producer.block();
    let registered = Register::of_block(block.descriptor(), block.own_key())
        .map_err(HubError::from)
        .and_then(|register| {
            let verifier = finder.verifier(&register.channel_name);
            hub.register(register, verifier, ANSWER)
        });
    match registered {
        Ok(registration) => Ok(Some(registration)),
        Err(error) if *is_named => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "the broker does not know of the channel; it is found by its name all the same");
            Ok(None)
        }
    }
}

struct Run<'a> {
    publish: &'a Publish,
    producer: &'a Producer,
    interrupt: &'a Interrupt,
    records: u64,
    bad: u64,
    told: Instant,
    began: Instant,
}

impl Run<'_> {
    fn tell_opened(&self, output: &mut Output) -> Result<(), Stop> {
        if !output.json() {
            return Ok(());
        }
        output.result(String::new, || {
            json!({
                "opened": true,
                "channel": self.publish.channel,
                "shm_name": self.producer.name(),
                "next_id": self.producer.next_id().0.to_string(),
                "abandoned": self.producer.abandoned(),
            })
        })
    }

    fn all(&mut self, input: &mut Input<'_>, output: &Output) -> Result<(), Stop> {
        if !self.await_consumers()? {
            return Ok(());
        }
        while !self.interrupt.is_set() {
            match input.next(self.interrupt)? {
                None => break,
                Some(Ok(record)) => {
                    if !self.send(&record)? {
                        break;
                    }
                    self.records += 1;
                }
                Some(Err(what)) => {
                    self.bad += 1;
                    let line = if output.json() {
                        json!({ "error": error_object("bad_input", None, &what) }).to_string()
                    } else {
                        format!("tidegate: {what}; left out")
                    };
                    // There is no place left to complain to when standard error is closed.
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
            self.tell_progress(output);
        }
        Ok(())
    }

    /// False when interrupted.
    fn await_consumers(&self) -> Result<bool, Stop> {
        let began = Instant::now();
        while self.producer.consumer_count() < self.publish.consumers {
            if self.interrupt.is_set() {
                return Ok(false);
            }
            if let Some(timeout) = self.publish.timeout.filter(|timeout| began.elapsed() >= *timeout) {
                let there = self.producer.consumer_count();
                return Err(Stop::Error {
                    exit: Exit::TimedOut,
                    code: "timed_out",
                    message: format!(
                        "channel {}: {there} of {} consumers came within {timeout:?}; start them with `tidegate hub sub`",
                        self.publish.channel, self.publish.consumers
                    ),
                });
            }
            sleep(NAP / 10);
        }
        Ok(true)
    }

    /// Publishes one record, waiting for room; false when interrupted.
    fn send(&self, record: &[u8]) -> Result<bool, Stop> {
        let began = Instant::now();
        loop {
            let error = match self.producer.send(record, Timeout::After(NAP)) {
                Ok(_) => return Ok(true),
                Err(WriteError::Acquire(error)) => error,
                Err(error) => {
                    let message = format!("channel {}: {error}", self.publish.channel);
                    return Err(Stop::Error { exit: Exit::Failed, code: "publish", message });
                }
            };
            let late = self.publish.timeout.is_some_and(|timeout| began.elapsed() >= timeout);
            match error {
                AcquireError::Timeout if self.interrupt.is_set() => return Ok(false),
                AcquireError::Timeout if !late => {}
                error => return Err(faults::acquire(&format!("channel {}", self.publish.channel), error)),
            }
        }
    }

    fn tell_progress(&mut self, output: &Output) {
        if output.json() || !std::io::stderr().is_terminal() || self.told.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.told = Instant::now();
        // A lost terminal is noticed elsewhere.
        let _ = writeln!(std::io::stderr(), "  {} records, {:.1} per second", self.records, self.rate());
    }

    fn rate(&self) -> f64 {
        self.records as f64 / self.began.elapsed().as_secs_f64().max(1e-9)
    }

    fn summary(&self, output: &mut Output) -> Result<(), Stop> {
        let Self { records, bad, .. } = self;
        output.result(
            || format!("{records} records, {:.1} per second; {bad} lines were no records", self.rate()),
            || {
                json!({
                    "summary": true,
                    "channel": self.publish.channel,
                    "records": records,
                    "bad_lines": bad,
                    "next_id": self.producer.next_id().0.to_string(),
                    "rate_hz": self.rate(),
                })
            },
        )
    }
}
