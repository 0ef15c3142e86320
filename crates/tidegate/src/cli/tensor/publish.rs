//! `tidegate tensor pub`: frames of a file or pipe into a stream.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tidegate::media::{self, FrameSource, MediaError, OpenOptions};
use tidegate::tensor::client::{
    ClientError, ClientEvent, Producer, ProducerConfig, PublishError, RegionSource,
};
use tidegate::tensor::config::{Policies, Profile, ShmSection};
use tidegate::tensor::frame::FrameMeta;
use tidegate::tensor::ids::{PoolId, StreamId};
use tidegate::tensor::layout::{PoolSpec, SlotCount, Stride};
use tidegate::tensor::region::RegionSpec;
use tidegate::tensor::region::store::StoreSettings;
use tidegate::tensor::tensor::{Dtype, MajorOrder, TensorLayout};
use tidegate::tensor::transport::OfferError;

use super::padding::Padding;
use crate::cli::session::{DriverArgs, Session, StreamRef, not_served, parse_duration};
use crate::cli::signal::Interrupt;
use crate::output::{Exit, Output, Stop};

/// Longest sleep before signals are looked at again.
const NAP: Duration = Duration::from_millis(20);
/// How long the first frame waits for a consumer that is there already to be connected.
const CONNECT_WAIT: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
#[command(after_help = "\
STREAM is a number, a configured name, or a new name, for which the node makes a stream. The producer never waits for \
consumers: slow ones lose frames and count them.

With --json: a line {\"attached\":true,...} for each epoch, {\"lease_lost\":true,...} when a lease ends, and a last line \
{\"summary\":true,...}.

Examples:
  tidegate tensor pub camera --input examples/data/astronaut-pan.npy --rate 30 --loop forever
  ffmpeg -i film.mp4 -f yuv4mpegpipe - | tidegate tensor pub film --input - --rate 25
  tidegate tensor pub 20001 --input depth.raw --dtype uint16 --shape 480x640 --rate max")]
pub(crate) struct Publish {
    /// The stream
    stream: StreamRef,
    /// The frames: .npy, .y4m or raw; - is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Frames per second, or max
    #[arg(long, value_name = "HZ|max", default_value = "30")]
    rate: Rate,
    /// How often to go through the input
    #[arg(long = "loop", value_name = "N|forever", default_value = "1")]
    repeat: Repeat,
    /// The input is raw frames of this element type (uint8, float32, ...)
    #[arg(long, value_name = "TYPE", requires = "shape")]
    dtype: Option<Dtype>,
    /// Shape of a raw frame, slowest axis first
    #[arg(long, value_name = "480x640", requires = "dtype", value_parser = parse_shape)]
    shape: Option<Shape>,
    /// Publish an .npy array as one tensor instead of frames along its first axis
    #[arg(long)]
    whole: bool,
    /// Pad each row in memory to a multiple of this many bytes
    #[arg(long, value_name = "BYTES", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    align: u32,
    /// How long to stay after the last frame, so that consumers can finish reading
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    linger: Duration,
    /// How long to wait for the driver
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    own: OwnRegions,
    #[command(flatten)]
    driver: DriverArgs,
}

/// Options of a producer that is its own driver.
#[derive(Debug, Args)]
struct OwnRegions {
    /// Be one's own driver: make the regions, announce them, remove them at the end. STREAM is a number then
    #[arg(long)]
    no_driver: bool,
    /// With --no-driver: directory to make the regions below
    #[arg(long, value_name = "DIR", default_value = "/dev/shm", requires = "no_driver")]
    base_dir: PathBuf,
    /// With --no-driver: slots of the ring, a power of two
    #[arg(long, value_name = "N", default_value_t = 64, requires = "no_driver")]
    slots: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rate {
    Max,
    Hz(f64),
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(hz) if hz.is_finite() && hz >= 1e-3 => Ok(Self::Hz(hz)),
            _ => Err("a rate is a number of frames per second from 0.001 on, or max".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Forever,
    Times(u64),
}

impl std::str::FromStr for Repeat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        match text.parse() {
            Ok(times) if times > 0 => Ok(Self::Times(times)),
            _ => Err("give a number of times from 1 on, or forever".to_owned()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape(Vec<usize>);

fn parse_shape(text: &str) -> Result<Shape, String> {
    let axes: Result<Vec<usize>, _> = text.split(['x', ',']).map(str::parse).collect();
    match axes {
        Ok(axes) if (1..=8).contains(&axes.len()) && !axes.contains(&0) => Ok(Shape(axes)),
        _ => Err("a shape is 1 to 8 lengths from 1 on, joined by x, for example 480x640".to_owned()),
    }
}

impl Publish {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let interrupt = Interrupt::install()?;
        let mut source = self.open()?;
        let padding = Padding::new(source.layout(), self.align)?;
        let mut session = Session::open(&self.driver)?;
        let stream = match (&self.stream, self.own.no_driver) {
            (StreamRef::Name(_), true) => {
                return Err(Stop::usage("without a driver, STREAM must be a number"));
            }
            (stream, own) => session.resolve(stream, !own)?,
        };
        if self.own.no_driver {
            session.context.allowed_base_dirs = vec![self.own.base_dir.clone()];
        } else {
            session.check_served(stream)?;
        }
        let (events, received) = channel();
        // The receiver lives as long as the client.
        let client = session.client(Box::new(move |event| drop(events.send(event))))?;
        let config = ProducerConfig {
            stream: Some(stream),
            name: self.stream.name().map(str::to_owned),
            regions: self.own.regions(padding.len())?,
            ..ProducerConfig::default()
        };
        let producer = match client.add_producer(config)?.wait(self.timeout) {
            Err(ClientError::TimedOut { .. }) if session.producer_of(stream).is_some() => {
                return Err(Stop::Error {
                    exit: Exit::TimedOut,
                    code: "timed_out",
                    message: format!(
                        "another producer held stream {stream} for {:?}; stop it, publish to another stream, or wait \
                         longer with --timeout",
                        self.timeout
                    ),
                });
            }
            outcome => outcome?,
        };
        let mut run = Run {
            publish: &self,
            stream,
            producer,
            events: received,
            interrupt,
            padding,
            sent: 0,
            bytes: 0,
            epochs: 0,
            started: Instant::now(),
            last_sent: Instant::now(),
            told: Instant::now(),
        };
        run.check_granted()?;
        let outcome = run.all(&mut *source, output);
        let summary = run.summary(output);
        drop(run);
        client.close()?;
        outcome?;
        summary
    }

    fn open(&self) -> Result<Box<dyn FrameSource>, Stop> {
        let raw = match (&self.dtype, &self.shape) {
            (Some(dtype), Some(Shape(axes))) => {
                let layout = TensorLayout::contiguous(*dtype, MajorOrder::Row, axes);
                Some(layout.map_err(|error| Stop::usage(format!("--shape: {error}")))?)
            }
            _ => None,
        };
        let mut source = media::open(&self.input, OpenOptions { single_tensor: self.whole, raw })?;
        if self.repeat != Repeat::Times(1) {
            // Found out now, not after the first pass.
            source.rewind()?;
        }
        Ok(source)
    }
}

impl OwnRegions {
    /// Who creates the regions of frames of `len` bytes.
    fn regions(&self, len: usize) -> Result<RegionSource, Stop> {
        if !self.no_driver {
            return Ok(RegionSource::Driver);
        }
        let header_nslots =
            SlotCount::new(self.slots).map_err(|error| Stop::usage(format!("--slots: {error}")))?;
        // A power of two, so that every existing reader takes it (TP-085).
        let stride = u32::try_from(len.max(64).next_power_of_two())
            .ok()
            .and_then(|stride| Stride::new(stride).ok())
            .ok_or_else(|| Stop::usage(format!("a frame of {len} bytes is too large for a slot")))?;
        let shm = ShmSection {
            base_dir: self.base_dir.clone(),
            allowed_base_dirs: vec![self.base_dir.clone()],
            ..ShmSection::default()
        };
        Ok(RegionSource::Own {
            store: StoreSettings::new(&shm, &Policies::default()),
            profile: Profile {
                name: "own".to_owned(),
                header_nslots,
                payload_pools: vec![PoolSpec { pool_id: PoolId::new(1), stride }],
            },
        })
    }
}

struct Run<'a> {
    publish: &'a Publish,
    stream: StreamId,
    producer: Producer,
    events: Receiver<ClientEvent>,
    interrupt: Interrupt,
    padding: Padding,
    sent: u64,
    bytes: u64,
    epochs: u64,
    started: Instant,
    last_sent: Instant,
    told: Instant,
}

impl Run<'_> {
    /// A driver may answer a request for a stream it does not allow with another one.
    fn check_granted(&mut self) -> Result<(), Stop> {
        let granted = self.producer.status().stream;
        if granted.is_some_and(|granted| granted != self.stream) {
            return Err(not_served(self.stream, None));
        }
        let len = self.padding.len();
        match self.producer.max_payload() {
            Some(max) if len > max => Err(Stop::Error {
                exit: Exit::Failed,
                code: "too_large",
                message: format!(
                    "a frame has {len} bytes but the largest slot of stream {} holds {max}; give the stream a profile \
                     with a larger stride_bytes (tidegate tensor config dump)",
                    self.stream
                ),
            }),
            _ => Ok(()),
        }
    }

    fn all(&mut self, source: &mut dyn FrameSource, output: &mut Output) -> Result<(), Stop> {
        let patience = Instant::now() + CONNECT_WAIT;
        while !self.producer.is_connected() && Instant::now() < patience && !self.interrupt.is_set() {
            sleep(Duration::from_millis(1));
        }
        self.started = Instant::now();
        let mut passes = 0;
        let mut due = self.started;
        loop {
            loop {
                self.tell_events(output)?;
                let next = source.next_frame();
                if matches!(next, Ok(None)) {
                    break;
                }
                due = self.pace(due);
                if self.interrupt.is_set() {
                    return Ok(());
                }
                match next {
                    Ok(Some(frame)) => {
                        let layout = self.padding.layout();
                        let bytes = self.padding.apply(frame.bytes);
                        if !send(&mut self.producer, &self.interrupt, &layout, bytes)? {
                            return Ok(());
                        }
                        self.sent += 1;
                        self.last_sent = Instant::now();
                        self.bytes += bytes.len() as u64;
                    }
                    Ok(None) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            passes += 1;
            if self.publish.repeat == Repeat::Times(passes) {
                self.linger(output)?;
                return Ok(());
            }
            source.rewind().map_err(|error: MediaError| Stop::from(error))?;
        }
    }

    /// Waits for the time of the next frame and returns the one after it. A late frame goes out at once and the schedule
    /// starts from there: no bursts.
    fn pace(&self, due: Instant) -> Instant {
        let Rate::Hz(hz) = self.publish.rate else { return due };
        while !self.interrupt.is_set() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            sleep(left.min(NAP));
        }
        due.max(Instant::now() - Duration::from_millis(1)) + Duration::from_secs_f64(1.0 / hz)
    }

    fn linger(&mut self, output: &mut Output) -> Result<(), Stop> {
        let end = Instant::now() + self.publish.linger;
        while Instant::now() < end && !self.interrupt.is_set() {
            self.tell_events(output)?;
            sleep(NAP.min(self.publish.linger));
        }
        Ok(())
    }

    fn tell_events(&mut self, output: &mut Output) -> Result<(), Stop> {
        while let Ok(event) = self.events.try_recv() {
            match event {
                ClientEvent::Attached { stream, client, epoch } => {
                    self.epochs += 1;
                    let regions = self.producer.regions();
                    output.result(
                        || format!("producing stream {stream} in epoch {epoch} as client {client}"),
                        || {
                            json!({
                                "attached": true,
                                "stream": stream.get(),
                                "name": self.publish.stream.name(),
                                "epoch": epoch.get(),
                                "client": client.get(),
                                "regions": regions.as_ref().map(describe_regions),
                            })
                        },
                    )?;
                }
                ClientEvent::LeaseLost { stream, loss } => output.result(
                    || format!("lost the lease on stream {stream}: {loss}; attaching again"),
                    || json!({ "lease_lost": true, "stream": stream.get(), "reason": loss.to_string() }),
                )?,
                _ => {}
            }
        }
        if !output.json() && std::io::stderr().is_terminal() && self.told.elapsed() >= Duration::from_secs(1)
        {
            self.told = Instant::now();
            // A lost terminal is noticed elsewhere.
            let _ = writeln!(std::io::stderr(), "  {} frames, {:.1} per second", self.sent, self.rate());
        }
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.sent as f64 / (self.last_sent - self.started).as_secs_f64().max(1e-9)
    }

    fn summary(&self, output: &mut Output) -> Result<(), Stop> {
        use tidegate::shm::sync::Ordering::Relaxed;
        let stats = self.producer.stats();
        let announced = stats.announced.load(Relaxed);
        let back_pressured = stats.back_pressured.load(Relaxed);
        let not_connected = stats.not_connected.load(Relaxed);
        let refused = stats.refused.load(Relaxed);
        output.result(
            || {
                format!(
                    "{} frames, {} bytes, {:.1} per second; announced {announced}, without consumers {not_connected}, \
                     back-pressured {back_pressured}",
                    self.sent,
                    self.bytes,
                    self.rate()
                )
            },
            || {
                json!({
                    "summary": true,
                    "stream": self.stream.get(),
                    "frames": self.sent,
                    "bytes": self.bytes,
                    "announced": announced,
                    "not_connected": not_connected,
                    "back_pressured": back_pressured,
                    "refused": refused,
                    "epochs": self.epochs,
                    "rate_hz": self.rate(),
                })
            },
        )
    }
}

/// Where the frames are, for readers that are configured by hand.
fn describe_regions(spec: &RegionSpec) -> serde_json::Value {
    let pools: Vec<_> = spec
        .pools()
        .iter()
        .map(|pool| {
            json!({
                "pool": pool.geometry.pool_id.get(),
                "stride": pool.geometry.stride.get(),
                "uri": pool.uri.to_string(),
            })
        })
        .collect();
    json!({ "header_uri": spec.header().to_string(), "slots": spec.slots().get(), "pools": pools })
}

/// Publishes one frame, waiting for a new lease where necessary; false when interrupted.
fn send(
    producer: &mut Producer,
    interrupt: &Interrupt,
    layout: &TensorLayout,
    bytes: &[u8],
) -> Result<bool, Stop> {
    loop {
        match producer.offer(layout, bytes, FrameMeta::default()) {
            // A frame that nobody was told of is counted; the stream goes on.
            Ok(_)
            | Err(PublishError::Unannounced {
                cause: OfferError::NotConnected | OfferError::BackPressured | OfferError::AdminAction,
                ..
            }) => return Ok(true),
            Err(PublishError::NotAttached { .. } | PublishError::Unannounced { .. }) => {
                if interrupt.is_set() {
                    return Ok(false);
                }
                if let Some(refusal) = producer.status().refusal {
                    return Err(ClientError::Refused(refusal).into());
                }
                sleep(Duration::from_millis(2));
            }
            Err(error) => {
                return Err(Stop::Error { exit: Exit::Failed, code: "publish", message: error.to_string() });
            }
        }
    }
}
