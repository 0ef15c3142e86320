//! A producer at full speed laps two readers in other processes on a ring of four slots: no torn frame is accepted.
//!
//! Every word of a payload depends on the frame and on its place, so any mixture of two frames shows. One reader uses
//! frames in place and validates, the other one copies. Readers find the newest frame in the activity word of the header
//! ring, in place of descriptors.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client_support::*;
use tidegate_sbe::control::FrameDescriptor;
use tidegate_shm::region::{AllowedBases, PermissionPolicy, Span};
use tidegate_tensor::agent::Agent;
use tidegate_tensor::channel::Channel;
use tidegate_tensor::client::{
    Client, Consumer, ConsumerConfig, Context, ProducerConfig, ReadOutcome, RegionOrigin,
};
use tidegate_tensor::clock::SystemClock;
use tidegate_tensor::config::Profile;
use tidegate_tensor::frame::FrameMeta;
use tidegate_tensor::ids::{AeronStreamId, Epoch, PoolId, SessionId};
use tidegate_tensor::layout::{PoolSpec, SlotCount, Stride};
use tidegate_tensor::region::{PoolRegion, ReadRegions, RegionOpener, RegionSpec};
use tidegate_tensor::tensor::{Dtype, MajorOrder, TensorLayout};
use tidegate_tensor::transport::memory::MemoryBus;
use tidegate_tensor::transport::{
    Connector, Message, Pending, Publication, Subscription, Transport, TransportError,
};
use tidegate_tensor::uri::RegionUri;

const TEST: &str = "lapped_readers_accept_no_torn_frame";
const ROLE: &str = "TIDEGATE_TEST_ROLE";
const EPOCH_DIR: &str = "TIDEGATE_TEST_PLACE";
const PATIENCE: Duration = Duration::from_secs(120);

const FRAMES: u64 = 6_000_000;
const RING: u32 = 4;
const LEN: usize = 512;

/// What a reader met.
#[derive(Debug, Default)]
struct Tally {
    delivered: u64,
    dropped: u64,
    /// Frames that were mixtures of several and were refused.
    mixed: u64,
    /// Frames that were mixtures and were accepted.
    torn: u64,
}

fn word(frame: u64, index: usize) -> u64 {
    frame.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64)
}

/// Frames that follow each other in a slot differ in their headers too, so that a mixture of those is no valid tensor.
fn layout(frame: u64) -> TensorLayout {
    match frame / u64::from(RING) % 2 {
        0 => bytes(LEN),
        _ => TensorLayout::contiguous(Dtype::Float64, MajorOrder::Column, &[LEN / 64, 8]).unwrap(),
    }
}

fn is_whole(frame: u64, payload: &[u8]) -> bool {
    payload.len() == LEN
        && payload.chunks_exact(8).enumerate().all(|(index, bytes)| bytes == word(frame, index).to_le_bytes())
}

/// As `is_whole`, reading the slot itself, eight bytes at a time.
fn is_whole_in_place(frame: u64, payload: Span<'_>) -> bool {
    let mut bytes = [0; 8];
    payload.len() == LEN
        && (0..LEN / 8).all(|index| {
            payload.read_at(8 * index, &mut bytes).unwrap();
            bytes == word(frame, index).to_le_bytes()
        })
}

fn opener(base: &Path) -> RegionOpener {
    RegionOpener::new(AllowedBases::new([base]).0, PermissionPolicy::default())
}

/// The regions in the directory of an epoch.
fn spec(dir: &Path) -> RegionSpec {
    let epoch = dir.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let uri = |name: &str| RegionUri::new(dir.join(name), false).unwrap();
    let geometry = PoolSpec { pool_id: PoolId::new(1), stride: Stride::new(LEN as u32).unwrap() };
    let pools = vec![PoolRegion { geometry, uri: uri("1.pool") }];
    RegionSpec::new(CAM, Epoch::new(epoch), SlotCount::new(RING).unwrap(), uri("header.ring"), pools).unwrap()
}

/// A bus whose descriptor stream describes the newest frame whenever it is polled.
struct Newest {
    bus: MemoryBus,
    dir: PathBuf,
}

struct NewestTransport {
    inner: Box<dyn Transport>,
    dir: PathBuf,
}

struct NewestFrames {
    regions: Option<ReadRegions>,
    last: Option<u64>,
}

impl Connector for Newest {
    fn connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(NewestTransport { inner: self.bus.connect()?, dir: self.dir.clone() }))
    }
}

impl Transport for NewestTransport {
    fn publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError> {
        self.inner.publication(channel, stream)
    }

    fn exclusive_publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError> {
        self.inner.exclusive_publication(channel, stream)
    }

    fn subscription(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Subscription>>>, TransportError> {
        if stream != DESCRIPTOR {
            return self.inner.subscription(channel, stream);
        }
        let regions = opener(&self.dir).open_read(spec(&self.dir)).unwrap();
        Ok(Box::new(NewestFrames { regions: Some(regions), last: None }))
    }

    fn do_work(&self) -> usize {
        0
    }

    fn failure(&self) -> Option<TransportError> {
        self.inner.failure()
    }
}

impl Pending<Box<dyn Subscription>> for NewestFrames {
    fn poll(&mut self) -> Result<Option<Box<dyn Subscription>>, TransportError> {
        Ok(Some(Box::new(Self { regions: self.regions.take(), last: None })))
    }
}

impl Subscription for NewestFrames {
    fn poll(&mut self, _: usize, handler: &mut dyn FnMut(Message<'_>)) -> Result<usize, TransportError> {
        let regions = self.regions.as_ref().unwrap();
        // One more than the number, so that a fresh ring has none.
        let Some(seq) = regions.activity().checked_sub(1).filter(|seq| *seq < FRAMES) else { return Ok(0) };
        if self.last == Some(seq) {
            return Ok(0);
        }
        self.last = Some(seq);
        let descriptor = FrameDescriptor {
            stream_id: CAM.get(),
            epoch: regions.spec().epoch().get(),
            seq,
            timestamp_ns: None,
            meta_version: None,
            trace_id: None,
        };
        handler(Message { bytes: &descriptor.to_vec().unwrap(), session: SessionId::new(1) });
        Ok(1)
    }

    fn has_image(&self, _: SessionId) -> bool {
        true
    }

    fn image_count(&self) -> usize {
        1
    }
}

/// Reads until the last frame, in one of the two ways.
fn read(dir: PathBuf, in_place: bool) -> Tally {
    let context = Context { allowed_base_dirs: vec![dir.clone()], ..Context::default() };
    let config = ConsumerConfig { origin: RegionOrigin::Fixed(spec(&dir)), ..ConsumerConfig::new(CAM) };
    let connector = Arc::new(Newest { bus: MemoryBus::new(), dir });
    let (client, mut agent) =
        Client::with_invoker(context, connector, Arc::new(SystemClock), Box::new(|_| {})).unwrap();
    let mut adding = client.add_consumer(config).unwrap();
    for _ in 0..4 {
        agent.do_work().unwrap();
    }
    let mut consumer = adding.poll().unwrap().unwrap();
    println!("\nready");
    let tally = read_all(&mut consumer, in_place);
    let totals = consumer.totals();
    assert_eq!((totals.frames, totals.drops.invalid), (tally.delivered, 0));
    Tally { dropped: totals.drops.gap + totals.drops.late, ..tally }
}

fn read_all(consumer: &mut Consumer, in_place: bool) -> Tally {
    let mut tally = Tally::default();
    let mut copy = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut last = 0;
    while last + 1 < FRAMES {
        let handled = consumer.poll_outcomes(1, &mut |outcome| match outcome {
            ReadOutcome::Frame(frame) => {
                last = frame.seq().get();
                let described = *frame.described_layout() == layout(last);
                let (whole, valid) = if in_place {
                    (is_whole_in_place(last, frame.payload()), frame.validate().is_ok())
                } else {
                    let copied = frame.copy_to(&mut copy).is_ok();
                    (!copied || is_whole(last, &copy), copied)
                };
                match (whole && described, valid) {
                    (false, true) => tally.torn += 1,
                    (false, false) => tally.mixed += 1,
                    (true, _) => {}
                }
            }
            ReadOutcome::DroppedLate { seq } => last = seq.get(),
            ReadOutcome::DroppedGap { .. } => {}
            other => panic!("{other:?}"),
        });
        if handled.unwrap() == 0 {
            assert!(Instant::now() < deadline, "the producer stopped at {last}");
            std::thread::yield_now();
        }
    }
    tally.delivered = consumer.totals().frames;
    tally
}

/// Rules: TP-002, TP-113, TP-116, TC-064.
#[test]
fn lapped_readers_accept_no_torn_frame() {
    if let Ok(role) = env::var(ROLE) {
        let tally = read(PathBuf::from(env::var_os(EPOCH_DIR).unwrap()), role == "in place");
        println!("{tally:?}");
        assert_eq!(tally.torn, 0, "{tally:?}");
        assert!(tally.delivered > 0 && tally.dropped > 0, "{tally:?}");
        return;
    }
    let mut stage = Stage::bare();
    let mut peer = stage.peer();
    let pool = PoolSpec { pool_id: PoolId::new(1), stride: Stride::new(LEN as u32).unwrap() };
    let profile = Profile {
        name: "small".to_owned(),
        header_nslots: SlotCount::new(RING).unwrap(),
        payload_pools: vec![pool],
    };
    let regions = tidegate_tensor::client::RegionSource::Own { store: stage.store_settings(), profile };
    let config = ProducerConfig { regions, drop_unconnected_descriptors: true, ..stage.own(CAM) };
    let mut producer = stage.producer(&mut peer, config);
    let dir = epoch_dir(stage.base.path(), producer.status().epoch.unwrap());
    // The test's own hand on the activity word; the conductor rests from here on.
    let mailbox = opener(&dir).open_write(spec(&dir)).unwrap();
    mailbox.refresh_activity(0);
    let mut readers: Vec<_> = ["in place", "copying"]
        .map(|role| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", TEST, "--nocapture"])
                .envs([(ROLE, role.as_ref()), (EPOCH_DIR, dir.as_os_str())])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()
                .unwrap()
        })
        .into();
    let mut payload = [0; LEN];
    for frame in 0..FRAMES {
        for (index, bytes) in payload.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&word(frame, index).to_le_bytes());
        }
        assert_eq!(producer.offer(&layout(frame), &payload, FrameMeta::default()).unwrap().get(), frame);
        mailbox.refresh_activity(frame + 1);
        if frame == 0 {
            readers.iter_mut().for_each(wait_until_ready);
        }
    }
    for reader in readers {
        let output = reader.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

fn epoch_dir(below: &Path, epoch: Epoch) -> PathBuf {
    let mut dirs = vec![below.canonicalize().unwrap()];
    while let Some(dir) = dirs.pop() {
        if dir.ends_with(epoch.to_string()) {
            return dir;
        }
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        dirs.extend(entries.filter(|path| path.is_dir()));
    }
    panic!("no directory of epoch {epoch}");
}

/// Blocks until the child says that it reads, or ends.
fn wait_until_ready(child: &mut std::process::Child) {
    use std::io::Read;
    let output = child.stdout.as_mut().unwrap();
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"ready\n") {
        assert_eq!(
            output.read(&mut byte).unwrap(),
            1,
            "the reader ended: {}",
            String::from_utf8_lossy(&said)
        );
        said.push(byte[0]);
    }
}
