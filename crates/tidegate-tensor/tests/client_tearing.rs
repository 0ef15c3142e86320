//! A producer at full speed laps two readers in other processes on a ring of two slots for a minute: no torn frame is
//! accepted.
//!
//! Every word of a payload depends on the frame and on its place, in one of four ways, so any mixture of two frames shows.
//! One reader uses frames in place and validates, the other one copies. Readers find the newest frame in the activity word
//! of the header ring, in place of descriptors.
//!
//! The test proves something only if slots are overwritten under the hands of both readers, so it fails when they are not.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client_support::files::header_rings;
use client_support::rerouted::{PendingSubscription, Ready, Rerouted, Route};
use client_support::*;
use tidegate_sbe::control::FrameDescriptor;
use tidegate_shm::region::{AllowedBases, PermissionPolicy, Span};
use tidegate_tensor::agent::Agent;
use tidegate_tensor::client::{
    Client, Consumer, ConsumerConfig, Context, ProducerConfig, ReadOutcome, RegionOrigin, RegionSource,
};
use tidegate_tensor::clock::SystemClock;
use tidegate_tensor::config::Profile;
use tidegate_tensor::frame::{FrameMeta, FrameView};
use tidegate_tensor::ids::{Epoch, PoolId, SessionId};
use tidegate_tensor::layout::{PoolSpec, SlotCount, Stride};
use tidegate_tensor::region::{PoolRegion, ReadRegions, RegionOpener, RegionSpec};
use tidegate_tensor::tensor::{Dtype, MajorOrder, TensorLayout};
use tidegate_tensor::transport::memory::MemoryBus;
use tidegate_tensor::transport::{Message, Subscription, TransportError};
use tidegate_tensor::uri::RegionUri;

const TEST: &str = "lapped_readers_accept_no_torn_frame_for_a_minute";
const ROLE: &str = "TIDEGATE_TEST_ROLE";
const EPOCH_DIR: &str = "TIDEGATE_TEST_PLACE";

/// How long the producer writes.
const DURATION: Duration = Duration::from_secs(60);
/// How long a reader waits for a producer that is not heard of.
const PATIENCE: Duration = Duration::from_secs(20);
/// Fewer frames in that time would be no full speed, on any machine.
const LEAST_FRAMES: u64 = 2_000_000;

const RING: u32 = 2;
const LEN: usize = 512;
const WORDS: usize = LEN / 8;

/// In the activity word, says that no frame follows.
const END: u64 = 1 << 63;

/// What a reader met.
#[derive(Debug, Default)]
struct Tally {
    /// Frames that could be opened.
    opened: u64,
    /// Frames that were overwritten while they were used, and were refused for it.
    overwritten: u64,
    /// Frames of those that were mixtures of several.
    mixed: u64,
    /// Frames that were mixtures and were accepted.
    torn: u64,
}

/// One word of a payload.
fn word(frame: u64, index: usize) -> u64 {
    let key = frame.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // Frames that follow each other in a slot have different patterns.
    match frame / u64::from(RING) % 4 {
        0 => key.wrapping_add(index as u64),
        1 => key,
        2 => key.rotate_left(index as u32),
        _ if index.is_multiple_of(2) => !key,
        _ => key,
    }
}

/// Frames that follow each other in a slot differ in their headers too, so that a mixture of those is no valid tensor.
fn layout(frame: u64) -> TensorLayout {
    match frame / u64::from(RING) % 2 {
        0 => bytes(LEN),
        _ => TensorLayout::contiguous(Dtype::Float64, MajorOrder::Column, &[WORDS / 8, 8]).unwrap(),
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
        && (0..WORDS).all(|index| {
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

/// Descriptors that describe the newest frame whenever they are polled.
struct Newest(PathBuf);

struct NewestFrames {
    regions: ReadRegions,
    last: Option<u64>,
}

impl Route for Newest {
    fn subscription(&self, _: PendingSubscription) -> PendingSubscription {
        let regions = opener(&self.0).open_read(spec(&self.0)).unwrap();
        Ready::subscription(NewestFrames { regions, last: None })
    }
}

impl Subscription for NewestFrames {
    fn poll(&mut self, _: usize, handler: &mut dyn FnMut(Message<'_>)) -> Result<usize, TransportError> {
        // One more than the number, so that a fresh ring has none.
        let newest = (self.regions.activity() & !END).checked_sub(1);
        if newest == self.last {
            return Ok(0);
        }
        self.last = newest;
        let Some(seq) = newest else { return Ok(0) };
        let descriptor = FrameDescriptor {
            stream_id: CAM.get(),
            epoch: self.regions.spec().epoch().get(),
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
fn read(dir: PathBuf, in_place: bool) {
    let context = Context { allowed_base_dirs: vec![dir.clone()], ..Context::default() };
    let config = ConsumerConfig { origin: RegionOrigin::Fixed(spec(&dir)), ..ConsumerConfig::new(CAM) };
    let producer = opener(&dir).open_read(spec(&dir)).unwrap();
    let connector = Rerouted::new(&MemoryBus::new(), Newest(dir));
    let (client, mut agent) =
        Client::with_invoker(context, connector, Arc::new(SystemClock), Box::new(|_| {})).unwrap();
    let mut adding = client.add_consumer(config).unwrap();
    for _ in 0..4 {
        agent.do_work().unwrap();
    }
    let mut consumer = adding.poll().unwrap().unwrap();
    println!("\nready");
    let tally = read_all(&mut consumer, &producer, in_place);
    let totals = consumer.totals();
    println!("{tally:?} {totals:?}");
    assert_eq!(tally.torn, 0);
    assert_eq!(totals.drops.invalid, 0);
    // Fewer, because some were overwritten between their use and the count.
    assert!(totals.frames <= tally.opened - tally.overwritten);
    assert!(totals.frames > 0 && totals.drops.gap > 0, "the producer was not faster than the reader");
    assert!(totals.drops.late > 0, "no slot was overwritten before or while it was read");
    assert!(tally.overwritten > 0, "no slot was overwritten while it was used");
    assert!(!in_place || tally.mixed > 0, "no frame was seen to change");
}

fn read_all(consumer: &mut Consumer, producer: &ReadRegions, in_place: bool) -> Tally {
    let mut tally = Tally::default();
    let mut copy = Vec::with_capacity(LEN);
    let mut heard = Instant::now();
    loop {
        // Looked at before the poll, so that the last frame is read as well.
        let ended = producer.activity() & END != 0;
        let handled = consumer.poll_outcomes(1, &mut |outcome| match outcome {
            ReadOutcome::Frame(frame) => use_frame(&frame, in_place, &mut copy, &mut tally),
            ReadOutcome::DroppedLate { .. } | ReadOutcome::DroppedGap { .. } => {}
            other => panic!("{other:?}"),
        });
        if handled.unwrap() > 0 {
            heard = Instant::now();
        } else if ended {
            return tally;
        } else {
            assert!(heard.elapsed() < PATIENCE, "the producer stopped");
            std::thread::yield_now();
        }
    }
}

fn use_frame(frame: &FrameView<'_>, in_place: bool, copy: &mut Vec<u8>, tally: &mut Tally) {
    let seq = frame.seq().get();
    let described = *frame.described_layout() == layout(seq);
    let (whole, valid) = if in_place {
        (is_whole_in_place(seq, frame.payload()), frame.validate().is_ok())
    } else {
        let copied = frame.copy_to(copy).is_ok();
        (copied && is_whole(seq, copy), copied)
    };
    let whole = whole && described;
    tally.opened += 1;
    tally.overwritten += u64::from(!valid);
    tally.mixed += u64::from(!valid && !whole);
    tally.torn += u64::from(valid && !whole);
}

/// Rules: TP-002, TP-113, TP-116, TC-064.
#[test]
fn lapped_readers_accept_no_torn_frame_for_a_minute() {
    if let Ok(role) = env::var(ROLE) {
        read(PathBuf::from(env::var_os(EPOCH_DIR).unwrap()), role == "in place");
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
    let regions = RegionSource::Own { store: stage.store_settings(), profile };
    let config = ProducerConfig { regions, drop_unconnected_descriptors: true, ..stage.own(CAM) };
    let mut producer = stage.producer(&mut peer, config);
    let base = stage.base.path().canonicalize().unwrap();
    let dir = header_rings(&base)[0].parent().unwrap().to_owned();
    // The test's own hand on the activity word; the conductor rests from here on.
    let mailbox = opener(&dir).open_write(spec(&dir)).unwrap();
    mailbox.refresh_activity(0);
    let mut readers = ["in place", "copying"].map(|role| start_reader(role, &dir));
    readers.iter_mut().for_each(wait_until_ready);

    let begun = Instant::now();
    let mut payload = [0; LEN];
    let mut frame = 0;
    while frame % 1024 != 0 || begun.elapsed() < DURATION {
        for (index, bytes) in payload.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&word(frame, index).to_le_bytes());
        }
        assert_eq!(producer.offer(&layout(frame), &payload, FrameMeta::default()).unwrap().get(), frame);
        frame += 1;
        mailbox.refresh_activity(frame);
    }
    mailbox.refresh_activity(frame | END);
    for reader in readers {
        let output = reader.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        println!("{frame} frames written; {said}");
    }
    assert!(frame >= LEAST_FRAMES, "only {frame} frames");
}

fn start_reader(role: &str, dir: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .envs([(ROLE, role.as_ref()), (EPOCH_DIR, dir.as_os_str())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Blocks until the child says that it reads, or ends.
fn wait_until_ready(child: &mut Child) {
    use std::io::Read;
    let output = child.stdout.as_mut().unwrap();
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"ready\n") {
        let read = output.read(&mut byte).unwrap();
        assert_eq!(read, 1, "the reader ended: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
}
