//! A process of a measurement: takes orders on standard input until it ends.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Signal;
use tidegate::node::{Node, NodeOptions, NodePlace};
use tidegate::tensor::agent::IdleStrategy;
use tidegate::tensor::frame::FrameMeta;

use super::echo::{self, AeronPath, ClaimPath, CopyPath, Limits, LinePath, Path};
use super::ends::{AeronEnds, Ends, layout};
use super::error::BenchError;
use super::flow::{self, Reading};
use super::lines::Lines;
use super::pattern::STAMP_LEN;
use super::protocol::{Answer, Distribution, Kind, Measure, Order, Outcome, Role};
use crate::cli::session::{DriverArgs, Session};
use crate::output::Stop;

/// Samples of one measure and round at most; enough for a percentile with three nines.
const ROUND_SAMPLES: usize = 1 << 18;
/// Pause between two frames that nobody answers yet.
const MEET_PAUSE: Duration = Duration::from_millis(20);
const MEET_WITHIN: Duration = Duration::from_secs(10);
/// As `tidegate up` and `tidegate tensor sub` idle.
const NODE_IDLE: IdleStrategy = IdleStrategy::Sleep(Duration::from_millis(2));
const READER_IDLE: IdleStrategy = IdleStrategy::Backoff { spins: 0, max: Duration::from_millis(1) };

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// What this process does
    #[arg(long)]
    role: Role,
    /// Directory of the node
    #[arg(long)]
    dir: PathBuf,
    /// Directory of the words that both sides see
    #[arg(long)]
    lines: PathBuf,
    /// First part of the streams' names
    #[arg(long)]
    name: String,
}

impl Worker {
    pub(crate) fn run(self) -> Result<(), Stop> {
        let outcome = match self.role {
            Role::Node => self.run_node(),
            Role::Ping | Role::Pong => self.run_side(),
        };
        match outcome {
            // The parent tells it.
            Err(Stop::Error { exit, message, .. }) => {
                answer(&Answer::Failed(message))?;
                Err(Stop::Reported(exit))
            }
            other => other,
        }
    }

    fn run_node(self) -> Result<(), Stop> {
        let place = NodePlace::find(Some(self.dir), None);
        let mut node = Node::start(NodeOptions {
            place,
            aeron_dir: None,
            config: None,
            idle: NODE_IDLE,
            // Nobody there has data channels.
            #[cfg(feature = "hub")]
            broker: tidegate::node::BrokerOptions { enabled: false, ..Default::default() },
        })?;
        answer(&Answer::Ready(0))?;
        // The end of standard input makes it readable.
        let ran = node.run(io::stdin());
        node.stop()?;
        Ok(ran?)
    }

    fn run_side(self) -> Result<(), Stop> {
        // A killed parent cannot dismiss anybody, and this process spins.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| {
            BenchError::Io { action: "be told of the parent's end", source: errno.into() }
        })?;
        let lines = Lines::open(&self.lines)?;
        let driver = DriverArgs { dir: Some(self.dir), aeron_dir: None, config: None };
        let ends = Ends::attach(Session::open(&driver)?, self.role, &self.name)?;
        let aeron = ends.connect_aeron()?;
        let mut side = Side {
            role: self.role,
            lines,
            ends,
            aeron,
            stamp: 0,
            samples: Vec::with_capacity(ROUND_SAMPLES),
            pools: HashMap::new(),
        };
        answer(&Answer::Ready(side.ends.largest()))?;
        for line in io::stdin().lock().lines() {
            let failed = |source| BenchError::Io { action: "read orders", source };
            let line = line.map_err(failed)?;
            let order: Order = serde_json::from_str(&line).map_err(|error| failed(error.into()))?;
            answer(&Answer::Done(side.obey(order)?))?;
        }
        Ok(())
    }
}

fn answer(answer: &Answer) -> Result<(), BenchError> {
    let failed = |source| BenchError::Io { action: "answer", source };
    let line = serde_json::to_string(answer).map_err(|error| failed(error.into()))?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(failed)
}

/// One of the two sides of a measurement.
struct Side {
    role: Role,
    lines: Lines,
    ends: Ends,
    aeron: AeronEnds,
    /// The last stamp used.
    stamp: u64,
    /// Samples of this round, with room for all of them.
    samples: Vec<u64>,
    /// Samples of all rounds.
    pools: HashMap<Measure, Vec<u64>>,
}

impl Side {
    fn obey(&mut self, order: Order) -> Result<Outcome, BenchError> {
        match order {
            Order::Meet { run } => self.meet(run).map(|()| Outcome::default()),
            Order::Idle { millis } => self.idle(Duration::from_millis(millis)).map(|()| Outcome::default()),
            Order::Measure { run, measure, millis } if self.role == Role::Ping => {
                self.samples.clear();
                // Slots that were never touched cost a page fault each; afterwards caches are what is left to warm.
                let warm_up = if self.pools.contains_key(&measure) { 2 } else { 2 * self.ends.slots };
                let until = Instant::now() + Duration::from_millis(millis);
                let limits = Limits { until, warm_up, samples: ROUND_SAMPLES };
                let frames_per_second = self.lead(measure, &limits)?;
                self.lines.end(run)?;
                Ok(self.evaluate(measure, frames_per_second))
            }
            Order::Measure { run, measure, .. } => self.follow(run, measure).map(|()| Outcome::default()),
        }
    }

    /// Ping's part. Gives the frames per second, where there is such a thing.
    fn lead(&mut self, measure: Measure, limits: &Limits) -> Result<f64, BenchError> {
        let Self { lines, ends, aeron, stamp, samples, .. } = self;
        let bytes = measure.bytes;
        match measure.kind {
            Kind::Memcpy => flow::memcpy(ends, bytes, limits, samples)?,
            Kind::Publish | Kind::Stream => return flow::write(ends, lines, bytes, limits, samples),
            Kind::CacheLine => {
                let mut path = LinePath { lines, own: Role::Ping, last: *stamp };
                echo::ping(&mut path, stamp, limits, samples)?;
            }
            Kind::AeronIpc => echo::ping(&mut AeronPath::new(aeron, bytes), stamp, limits, samples)?,
            Kind::Copy => echo::ping(&mut CopyPath::new(ends, bytes)?, stamp, limits, samples)?,
            Kind::Claim => echo::ping(&mut ClaimPath::new(ends, bytes)?, stamp, limits, samples)?,
        }
        Ok(0.0)
    }

    /// Pong's part.
    fn follow(&mut self, run: u64, measure: Measure) -> Result<(), BenchError> {
        let Self { lines, ends, aeron, .. } = self;
        let bytes = measure.bytes;
        match measure.kind {
            Kind::Memcpy => Ok(()),
            Kind::Publish => flow::read(ends, lines, run, bytes, Reading::Peek),
            Kind::Stream => flow::read(ends, lines, run, bytes, Reading::Copy),
            Kind::CacheLine => {
                let last = lines.exchange(Role::Pong)?.load(tidegate::shm::sync::Ordering::Relaxed);
                echo::pong(&mut LinePath { lines, own: Role::Pong, last }, lines, run)
            }
            Kind::AeronIpc => echo::pong(&mut AeronPath::new(aeron, bytes), lines, run),
            Kind::Copy => echo::pong(&mut CopyPath::new(ends, bytes)?, lines, run),
            Kind::Claim => echo::pong(&mut ClaimPath::new(ends, bytes)?, lines, run),
        }
    }

    fn evaluate(&mut self, measure: Measure, frames_per_second: f64) -> Outcome {
        let per = if measure.kind == Kind::Memcpy { flow::copies(measure.bytes) } else { 1 };
        let pool = self.pools.entry(measure).or_default();
        pool.extend_from_slice(&self.samples);
        Outcome {
            round: Distribution::of(&mut self.samples, per),
            all: Distribution::of(pool, per),
            frames_per_second,
        }
    }

    /// Frames get lost as long as one side has not mapped what the other writes.
    fn meet(&mut self, run: u64) -> Result<(), BenchError> {
        if self.role == Role::Pong {
            return echo::pong(&mut CopyPath::new(&mut self.ends, STAMP_LEN)?, &self.lines, run);
        }
        let layout = layout(STAMP_LEN)?;
        let deadline = Instant::now() + MEET_WITHIN;
        loop {
            self.stamp += 1;
            let payload = self.stamp.to_le_bytes();
            if let Ok(seq) = self.ends.producer.offer(&layout, &payload, FrameMeta::default()) {
                self.ends.next = tidegate::tensor::ids::Seq::new(seq.get() + 1);
            }
            sleep(MEET_PAUSE);
            let met = CopyPath::new(&mut self.ends, STAMP_LEN)?.receive()?.is_some();
            if met && self.aeron.publication.is_connected() && self.aeron.subscription.is_connected() {
                return self.lines.end(run);
            }
            if Instant::now() > deadline {
                return Err(BenchError::Silent { after: MEET_WITHIN });
            }
        }
    }

    fn idle(&mut self, time: Duration) -> Result<(), BenchError> {
        let end = Instant::now() + time;
        let mut idler = READER_IDLE.idler();
        while Instant::now() < end {
            let work = self.ends.consumer.poll(1, &mut |_| {})?;
            idler.idle(work);
        }
        Ok(())
    }
}
