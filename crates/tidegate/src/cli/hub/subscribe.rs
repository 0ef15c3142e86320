//! `tidegate hub sub`: records of a channel to the terminal or a file.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tidegate::hub::block::Found;
use tidegate::hub::config::{ConsumerConfig, Timeout};
use tidegate::hub::consumer::HandoverIterator;
use tidegate::hub::core::Start;
use tidegate::hub::core::codec::SlotId;
use tidegate::hub::error::{AcquireError, FollowError};
use tidegate::hub::layout::{ChannelName, SyncPolicy};
use tidegate::hub::schema::{SchemaExpectation, SchemaMode};

use super::faults;
use super::place::{Finder, Place};
use super::publish::Delivery;
use super::schema::{Format, Lines, SchemaArgs, of_block};
use crate::cli::session::parse_duration;
use crate::cli::signal::Interrupt;
use crate::output::{Exit, Output, Stop, exit_of_io};

/// Longest wait before signals are looked at again.
const NAP: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
#[command(after_help = "\
Prints a line per record until the channel is closed, --count is reached or a signal comes. A record counts as consumed
once it is printed: where a consumer of a channel for one consumer is killed, the next one begins with the record that was
being printed. A channel whose producer died is waited for: another one may take it over. A channel that moves to another
block is followed there. The broker is asked where the
channel is, if there is one; otherwise its block is looked for in --dir.

With --json: {\"id\",\"commit_ns\",\"record\"} per record, {\"lost\":N} where records were overwritten before they were read,
and at the end {\"summary\":true,\"records\",\"lost\",\"closed\"}.

Examples:
  tidegate hub sub load
  tidegate hub sub load --start oldest --count 100 --timeout 10s --json
  tidegate hub sub load --output load.csv --sync all --secret load.key")]
pub(crate) struct Subscribe {
    /// The channel
    channel: String,
    /// Where to begin: oldest, latest (the next commit), newest (value there is), resume (where the last one stopped), or an
    /// id [default: as the channel's policy suggests]
    #[arg(long, value_name = "START", value_parser = parse_start)]
    start: Option<Start>,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Give up when no record came for this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// How long to wait for a channel that is not there yet
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    wait: Duration,
    /// Write the records into a file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How to write them [default: as the file is called, else ndjson]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Refuse a channel that gives its consumers other records than these
    #[arg(long, alias = "policy", value_enum)]
    sync: Option<Delivery>,
    /// Accept optional fields at the end that only one side knows
    #[arg(long, requires = "schema")]
    allow_appended: bool,
    /// Be slow: pause this many milliseconds after each record
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_ms: u64,
    #[command(flatten)]
    schema: SchemaArgs,
    #[command(flatten)]
    place: Place,
}

fn parse_start(text: &str) -> Result<Start, String> {
    Ok(match text {
        "oldest" => Start::Oldest,
        "latest" => Start::Latest,
        "newest" => Start::Newest,
        "resume" => Start::Resume,
        id => Start::At(SlotId(
            id.parse().map_err(|_| "begin at oldest, latest, newest, resume, or an id".to_owned())?,
        )),
    })
}

impl Subscribe {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let channel = ChannelName::new(&self.channel).map_err(Stop::usage)?;
        let expected = self.schema.load()?;
        let interrupt = Interrupt::install()?;
        let finder = self.place.finder()?;
        let Some(found) = self.await_channel(&finder, &channel, &interrupt)? else { return Ok(()) };
        let what = format!("channel {channel}");
        if let Some(wanted) =
            self.sync.map(SyncPolicy::from).filter(|wanted| *wanted != found.descriptor.spec.sync)
        {
            let message = format!("{what} is {:?}, not {wanted:?}", found.descriptor.spec.sync);
            return Err(Stop::Error { exit: Exit::Refused, code: "config_mismatch", message });
        }
        let schema = of_block(&found.descriptor)?;
        let format =
            self.format.or_else(|| Format::of_file(self.output.as_deref()?)).unwrap_or(Format::Ndjson);
        let lines = Lines::new(schema.as_ref(), format)?;
        let config = ConsumerConfig {
            dir: self.place.dir.clone(),
            channel: Some(channel.clone()),
            schema: expected.map(|(schema, version)| SchemaExpectation {
                schema,
                version,
                min_minor: 0,
                mode: if self.allow_appended { SchemaMode::AllowAppended } else { SchemaMode::Strict },
            }),
            start: self.start,
            name: format!("hub sub {}", std::process::id()),
            secret: finder.secret.clone(),
            ..ConsumerConfig::default()
        };
        let mut consumer =
            HandoverIterator::attach(&found.name, &config).map_err(|error| faults::open(&what, &error))?;
        let mut run =
            Run { subscribe: &self, lines, to: self.open_output()?, records: 0, lost: 0, closed: false };
        let outcome = run.head(output).and_then(|()| run.all(&mut consumer, &interrupt, output));
        let finished = run.finish(output);
        // Its place is given back also when this says that it was taken away.
        let _ = consumer.detach();
        outcome?;
        finished
    }

    /// None when interrupted.
    fn await_channel(
        &self,
        finder: &Finder<'_>,
        channel: &ChannelName,
        interrupt: &Interrupt,
    ) -> Result<Option<Found>, Stop> {
        let began = Instant::now();
        loop {
            if let Some(found) = finder.find(channel)? {
                return Ok(Some(found));
            }
            if interrupt.is_set() {
                return Ok(None);
            }
            if began.elapsed() >= self.wait {
                return Err(Stop::Error {
                    exit: Exit::NotFound,
                    code: "unknown_channel",
                    message: format!(
                        "there is no channel {channel} in {}; start its producer (`tidegate hub pub {channel} ...`) or wait \
                         longer with --wait",
                        self.place.dir.display()
                    ),
                });
            }
            sleep(NAP.min(self.wait));
        }
    }

    fn open_output(&self) -> Result<Option<File>, Stop> {
        let Some(path) = &self.output else { return Ok(None) };
        let file = File::create(path).map_err(|error| {
            let (exit, code) = exit_of_io(&error);
            Stop::Error { exit, code, message: format!("cannot write {}: {error}", path.display()) }
        })?;
        Ok(Some(file))
    }
}

struct Run<'a> {
    subscribe: &'a Subscribe,
    lines: Lines<'a>,
    to: Option<File>,
    records: u64,
    lost: u64,
    closed: bool,
}

impl Run<'_> {
    fn head(&mut self, output: &mut Output) -> Result<(), Stop> {
        let Some(head) = self.lines.head() else { return Ok(()) };
        if self.to.is_none() && output.json() {
            return Ok(());
        }
        self.write(output, head)
    }

    fn all(
        &mut self,
        consumer: &mut HandoverIterator,
        interrupt: &Interrupt,
        output: &mut Output,
    ) -> Result<(), Stop> {
        let mut last = Instant::now();
        while !interrupt.is_set() && self.subscribe.count.is_none_or(|count| self.records < count) {
            let result = match consumer.next(Timeout::After(NAP)) {
                Err(FollowError::Acquire(error)) => Err(error),
                Err(error) => {
                    return Err(faults::follow(&format!("channel {}", self.subscribe.channel), &error));
                }
                Ok(slot) => Ok(slot),
            };
            match result {
                Ok(slot) => {
                    let bytes = slot.to_vec();
                    let (id, commit) = (slot.id().0, slot.commit_ns().0);
                    if let Err(stop) = self.print(output, id, commit, &bytes) {
                        // Nobody has it: it is the next consumer's.
                        slot.nack();
                        return Err(stop);
                    }
                    if self.subscribe.delay_ms > 0 {
                        sleep(Duration::from_millis(self.subscribe.delay_ms));
                    }
                    drop(slot);
                    self.records += 1;
                    last = Instant::now();
                }
                Err(AcquireError::Lapped { lost }) => {
                    self.lost += lost;
                    self.tell_lost(output, lost)?;
                }
                Err(AcquireError::Closed { .. }) => {
                    self.closed = true;
                    break;
                }
                Err(AcquireError::Timeout | AcquireError::NotReady) => {
                    let Some(timeout) = self.subscribe.timeout.filter(|timeout| last.elapsed() >= *timeout)
                    else {
                        continue;
                    };
                    return Err(Stop::Error {
                        exit: Exit::TimedOut,
                        code: "timed_out",
                        message: format!(
                            "channel {}: no record for {timeout:?}; is its producer running?",
                            self.subscribe.channel
                        ),
                    });
                }
                Err(error) => {
                    return Err(faults::acquire(&format!("channel {}", self.subscribe.channel), error));
                }
            }
        }
        Ok(())
    }

    fn print(&mut self, output: &mut Output, id: u64, commit_ns: u64, bytes: &[u8]) -> Result<(), Stop> {
        let number = self.records + 1;
        let bad = |error| Stop::Error {
            exit: Exit::Failed,
            code: "bad_record",
            message: format!("channel {}, id {id}: {error}", self.subscribe.channel),
        };
        if self.to.is_none() && output.json() {
            let record = self.lines.value(number, bytes).map_err(bad)?;
            let value =
                || json!({ "id": id.to_string(), "commit_ns": commit_ns.to_string(), "record": record });
            return output.result(String::new, value);
        }
        let line = self.lines.line(number, bytes).map_err(bad)?;
        self.write(output, line)
    }

    fn write(&mut self, output: &mut Output, line: String) -> Result<(), Stop> {
        match &mut self.to {
            // At once: what is let go afterwards must be in the file.
            Some(file) => {
                let written = file.write_all(format!("{line}\n").as_bytes());
                written.map_err(|error| self.unwritable(&error))
            }
            None => output.result(|| line, || Value::Null),
        }
    }

    fn unwritable(&self, error: &io::Error) -> Stop {
        let (exit, code) = exit_of_io(error);
        let path = self.subscribe.output.clone().unwrap_or_default();
        Stop::Error { exit, code, message: format!("cannot write {}: {error}", path.display()) }
    }

    fn tell_lost(&self, output: &mut Output, lost: u64) -> Result<(), Stop> {
        if output.json() && self.to.is_none() {
            return output.result(String::new, || json!({ "lost": lost }));
        }
        tracing::warn!(channel = %self.subscribe.channel, lost, "records were overwritten before they were read");
        Ok(())
    }

    fn finish(&mut self, output: &mut Output) -> Result<(), Stop> {
        let Self { records, lost, closed, .. } = self;
        let text = format!("{records} records, {lost} lost{}", if *closed { ", channel closed" } else { "" });
        if output.json() || self.to.is_some() {
            let value = json!({
                "summary": true,
                "channel": self.subscribe.channel,
                "records": records,
                "lost": lost,
                "closed": closed,
            });
            return output.result(|| text, || value);
        }
        if io::stderr().is_terminal() {
            // A lost terminal is noticed elsewhere.
            let _ = writeln!(io::stderr(), "{text}");
        }
        Ok(())
    }
}
