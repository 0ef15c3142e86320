//! `tidegate tensor sub`: frames of a stream to the terminal or a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tidegate::media::npy::NpyWriter;
use tidegate::tensor::agent::IdleStrategy;
use tidegate::tensor::client::{
    Client, ClientError, Consumer, ConsumerConfig, ConsumerTotals, MappingState, RegionOrigin,
};
use tidegate::tensor::frame::FrameView;
use tidegate::tensor::ids::{Epoch, PoolId, StreamId};
use tidegate::tensor::layout::{PoolSpec, SlotCount, Stride};
use tidegate::tensor::region::{PoolRegion, RegionSpec};
use tidegate::tensor::tensor::TensorLayout;
use tidegate::tensor::uri::RegionUri;

use crate::cli::session::{DriverArgs, Session, StreamRef, UNKNOWN_STREAM, parse_duration};
use crate::cli::signal::Interrupt;
use crate::cli::text;
use crate::output::{Exit, Output, Stop};

/// Descriptors taken per poll: one, so that a slow reader is late frame by frame and not in bursts.
const BATCH: usize = 1;

#[derive(Debug, Args)]
#[command(after_help = "\
With --json: one line per frame {\"seq\",\"epoch\",\"dtype\",\"shape\",\"strides\",\"timestamp_ns\",\"bytes\",\"crc32\"}, where \
crc32 (zlib) is over the tensor's values in row order, and a last line \
{\"summary\":true,\"frames\",\"drops_gap\",\"drops_late\",\"drops_invalid\",\"epochs\"}.

Examples:
  tidegate tensor sub camera
  tidegate tensor sub camera --count 100 --timeout 10s --json
  tidegate tensor sub 20000 --count 30 --output frames.npy")]
pub(crate) struct Subscribe {
    /// The stream: a number or a name
    stream: StreamRef,
    /// Stop after this many frames
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Give up when no frame came for this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// How long to wait for a stream that is not there yet; never longer than --timeout
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    wait: Duration,
    /// Write the frames into one .npy array; all must have one shape and type
    #[arg(long, value_name = "FILE.npy")]
    output: Option<PathBuf>,
    /// Be slow: pause this many milliseconds after each frame
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_ms: u64,
    /// Lowest latency: spin instead of sleeping, which takes one core
    #[arg(long)]
    busy: bool,
    #[command(flatten)]
    direct: Direct,
    #[command(flatten)]
    driver: DriverArgs,
}

/// Options of a consumer without a driver.
#[derive(Debug, Args)]
struct Direct {
    /// Follow the announces of a producer that is its own driver. STREAM is a number then
    #[arg(long)]
    no_driver: bool,
    /// With --no-driver: the only directories that regions may lie in
    #[arg(long = "allow", value_name = "DIR", default_value = "/dev/shm", requires = "no_driver")]
    allowed: Vec<PathBuf>,
    /// With --no-driver: do not wait for an announce but read these regions: the header ring's URI
    #[arg(long, value_name = "URI", requires_all = ["no_driver", "pools", "slots", "epoch"])]
    header: Option<String>,
    /// With --header: a pool
    #[arg(long = "pool", value_name = "ID,STRIDE,URI", requires = "header")]
    pools: Vec<PoolArgument>,
    /// With --header: slots of the ring
    #[arg(long, value_name = "N", requires = "header")]
    slots: Option<u32>,
    /// With --header: the epoch
    #[arg(long, value_name = "N", requires = "header")]
    epoch: Option<u64>,
}

#[derive(Debug, Clone)]
struct PoolArgument(PoolRegion);

impl std::str::FromStr for PoolArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ',');
        let (Some(id), Some(stride), Some(uri)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("a pool is its id, stride and URI with commas between".to_owned());
        };
        let id = id.parse().map_err(|error| format!("pool id: {error}"))?;
        let stride = stride.parse().map_err(|error| format!("stride: {error}"))?;
        let stride = Stride::new(stride).map_err(|error| error.to_string())?;
        let uri = RegionUri::parse(uri.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self(PoolRegion { geometry: PoolSpec { pool_id: PoolId::new(id), stride }, uri }))
    }
}

impl Direct {
    fn origin(&self, stream: StreamId) -> Result<RegionOrigin, Stop> {
        if !self.no_driver {
            return Ok(RegionOrigin::Driver);
        }
        let (Some(header), Some(slots), Some(epoch)) = (&self.header, self.slots, self.epoch) else {
            return Ok(RegionOrigin::Announced);
        };
        let header =
            RegionUri::parse(header.as_bytes()).map_err(|error| Stop::usage(format!("--header: {error}")))?;
        let slots = SlotCount::new(slots).map_err(|error| Stop::usage(format!("--slots: {error}")))?;
        let pools = self.pools.iter().map(|PoolArgument(pool)| pool.clone()).collect();
        RegionSpec::new(stream, Epoch::new(epoch), slots, header, pools)
            .map(RegionOrigin::Fixed)
            .map_err(Stop::usage)
    }
}

impl Subscribe {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let interrupt = Interrupt::install()?;
        let writer = self.output.as_deref().map(NpyWriter::create).transpose()?;
        let mut session = Session::open(&self.driver)?;
        if self.direct.no_driver {
            session.context.allowed_base_dirs.clone_from(&self.direct.allowed);
        }
        let wait = self.timeout.map_or(self.wait, |timeout| timeout.min(self.wait));
        let deadline = Instant::now() + wait;
        let stream = session.resolve_until(&self.stream, deadline, &interrupt)?;
        if !self.direct.no_driver {
            session.check_served(stream)?;
        }
        let client = session.client(Box::new(|_| {}))?;
        let config = ConsumerConfig { origin: self.direct.origin(stream)?, ..ConsumerConfig::new(stream) };
        let consumer = attach(&client, &config, deadline, &interrupt)?;
        let mut run = Run {
            subscribe: &self,
            consumer,
            interrupt,
            writer,
            copy: Vec::new(),
            delivered: 0,
            bytes: 0,
            epochs: BTreeSet::new(),
            last_frame: Instant::now(),
            told: Told::default(),
        };
        let outcome = run.all(output);
        let summary = run.summary(output);
        let written = run.writer.take().map_or(Ok(0), NpyWriter::finish);
        drop(run);
        client.close()?;
        summary?;
        // A cut short run still leaves a whole file.
        written?;
        outcome
    }
}

/// Attaches, trying again until `deadline` while the driver does not know the stream.
fn attach(
    client: &Client,
    config: &ConsumerConfig,
    deadline: Instant,
    interrupt: &Interrupt,
) -> Result<Consumer, Stop> {
    loop {
        let adding = client.add_consumer(config.clone())?;
        match adding.wait(Duration::from_secs(10)) {
            Ok(consumer) => return Ok(consumer),
            Err(ClientError::Refused(refusal))
                if refusal.message == UNKNOWN_STREAM && Instant::now() < deadline && !interrupt.is_set() =>
            {
                sleep(Duration::from_millis(50));
            }
            Err(ClientError::Refused(refusal)) if refusal.message == UNKNOWN_STREAM => {
                return Err(Stop::Error {
                    exit: Exit::NotFound,
                    code: "unknown_stream",
                    message: format!(
                        "the driver has no stream {}; `tidegate tensor ls` shows those it has, and \
                         `tidegate tensor pub` makes one",
                        config.stream
                    ),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

struct Run<'a> {
    subscribe: &'a Subscribe,
    consumer: Consumer,
    interrupt: Interrupt,
    writer: Option<NpyWriter>,
    copy: Vec<u8>,
    delivered: u64,
    bytes: u64,
    epochs: BTreeSet<u64>,
    last_frame: Instant,
    told: Told,
}

/// The last progress line.
struct Told {
    at: Instant,
    frames: u64,
    bytes: u64,
}

impl Default for Told {
    fn default() -> Self {
        Self { at: Instant::now(), frames: 0, bytes: 0 }
    }
}

/// One frame, copied and validated.
struct Received {
    seq: u64,
    epoch: u64,
    layout: TensorLayout,
    typed: bool,
    timestamp_ns: Option<u64>,
}

impl Run<'_> {
    fn all(&mut self, output: &mut Output) -> Result<(), Stop> {
        let strategy = if self.subscribe.busy {
            IdleStrategy::BusySpin
        } else {
            IdleStrategy::Backoff { spins: 0, max: Duration::from_millis(1) }
        };
        let mut idler = strategy.idler();
        self.last_frame = Instant::now();
        while !self.interrupt.is_set() {
            if self.subscribe.count.is_some_and(|count| self.delivered >= count) {
                return Ok(());
            }
            let (received, work) = self.poll()?;
            if let Some(received) = received {
                self.take(&received, output)?;
                self.pause();
            } else {
                self.check_timeout()?;
            }
            self.tell(output)?;
            idler.idle(work);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<(Option<Received>, usize), Stop> {
        let copy = &mut self.copy;
        let mut received = None;
        let work = self
            .consumer
            .poll(BATCH, &mut |frame: &FrameView<'_>| {
                if frame.copy_to(copy).is_ok() {
                    received = Some(Received {
                        seq: frame.seq().get(),
                        epoch: frame.epoch().get(),
                        layout: *frame.described_layout(),
                        typed: frame.layout().is_ok(),
                        timestamp_ns: frame.timestamp_ns(),
                    });
                }
            })
            .map_err(|error| Stop::Error {
                exit: Exit::Failed,
                code: "client",
                message: error.to_string(),
            })?;
        Ok((received, work))
    }

    fn take(&mut self, received: &Received, output: &mut Output) -> Result<(), Stop> {
        self.last_frame = Instant::now();
        self.delivered += 1;
        self.bytes += self.copy.len() as u64;
        self.epochs.insert(received.epoch);
        if output.json() {
            let line = self.describe(received);
            output.result(String::new, || line)?;
        }
        if let Some(writer) = &mut self.writer {
            writer.push(&received.layout, &self.copy)?;
        }
        Ok(())
    }

    fn describe(&self, received: &Received) -> Value {
        let crc32 = received.typed.then(|| values_crc32(&received.layout, &self.copy));
        json!({
            "seq": received.seq,
            "epoch": received.epoch,
            "dtype": received.layout.dtype().to_string(),
            "shape": received.layout.shape(),
            "strides": received.layout.strides(),
            "timestamp_ns": received.timestamp_ns,
            "bytes": self.copy.len(),
            "crc32": crc32,
        })
    }

    fn pause(&self) {
        let mut left = Duration::from_millis(self.subscribe.delay_ms);
        while !left.is_zero() && !self.interrupt.is_set() {
            let nap = left.min(Duration::from_millis(20));
            sleep(nap);
            left -= nap;
        }
    }

    fn check_timeout(&self) -> Result<(), Stop> {
        let Some(timeout) = self.subscribe.timeout else { return Ok(()) };
        if self.last_frame.elapsed() < timeout {
            return Ok(());
        }
        let wanted = self.subscribe.count.map_or(String::new(), |count| format!(" of {count}"));
        let status = self.consumer.status();
        let hint = status
            .map_error
            .or_else(|| status.refusal.map(|refusal| refusal.message))
            .unwrap_or_else(|| "is anybody publishing?".to_owned());
        Err(Stop::Error {
            exit: Exit::TimedOut,
            code: "timed_out",
            message: format!(
                "no frame of stream {} for {timeout:?}, after {}{wanted}; {hint}",
                status.stream, self.delivered
            ),
        })
    }

    fn tell(&mut self, output: &mut Output) -> Result<(), Stop> {
        let elapsed = self.told.at.elapsed();
        if output.json() || elapsed < Duration::from_secs(1) {
            return Ok(());
        }
        let frames = (self.delivered - self.told.frames) as f64 / elapsed.as_secs_f64();
        let megabytes = (self.bytes - self.told.bytes) as f64 / 1e6 / elapsed.as_secs_f64();
        self.told = Told { at: Instant::now(), frames: self.delivered, bytes: self.bytes };
        let ConsumerTotals { drops, .. } = self.consumer.totals();
        let state = state_text(self.consumer.state());
        output.result(
            || {
                format!(
                    "{frames:7.1} frames/s {megabytes:8.1} MB/s  total {}  drops: gap {} late {} invalid {}  {state}",
                    self.delivered, drops.gap, drops.late, drops.invalid
                )
            },
            || Value::Null,
        )
    }

    fn summary(&self, output: &mut Output) -> Result<(), Stop> {
        let drops = self.consumer.totals().drops;
        output.result(
            || {
                format!(
                    "{} frames in {}, {} bytes; drops: gap {} late {} invalid {}",
                    self.delivered,
                    text::count(self.epochs.len(), "epoch"),
                    self.bytes,
                    drops.gap,
                    drops.late,
                    drops.invalid
                )
            },
            || {
                json!({
                    "summary": true,
                    "frames": self.delivered,
                    "drops_gap": drops.gap,
                    "drops_late": drops.late,
                    "drops_invalid": drops.invalid,
                    "epochs": self.epochs.len(),
                })
            },
        )
    }
}

fn state_text(state: MappingState) -> String {
    match state {
        MappingState::Unmapped => "waiting for regions".to_owned(),
        MappingState::Mapped(epoch) => format!("epoch {epoch}"),
        MappingState::Remapping(epoch) => format!("epoch {epoch} is over, waiting for the next"),
        MappingState::Fallback => "not through shared memory".to_owned(),
    }
}

/// CRC-32 (zlib) of the values in row order, padding left out.
fn values_crc32(layout: &TensorLayout, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for run in layout.runs() {
        if let Some(values) = payload.get(run) {
            hasher.update(values);
        }
    }
    hasher.finalize()
}
