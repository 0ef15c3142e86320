//! Budget: once set up, a frame costs no heap allocation, neither to write nor to read.
//!
//! The transport of the descriptors is one of this test's own, a ring of fixed size, because the in-memory bus allocates
//! each message. Only the thread under test is counted.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../client_support/mod.rs"]
mod client_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use client_support::rerouted::{PendingPublication, PendingSubscription, Ready, Rerouted, Route};
use client_support::*;
use tidegate_tensor::client::{Consumer, ConsumerConfig, Producer, ProducerConfig};
use tidegate_tensor::frame::{Claim, FrameMeta, WriteOptions};
use tidegate_tensor::ids::SessionId;
use tidegate_tensor::transport::{Message, OfferError, Publication, Subscription, TransportError};

const FRAMES: u64 = 1_000_000;
const WARM_UP: u64 = 100;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no allocated memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: `address` came from `alloc` or `realloc` above, hence from the system's allocator, with this layout.
        unsafe { System.dealloc(address, layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as in `dealloc`; the caller guarantees a size that is not 0.
        unsafe { System.realloc(address, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A message of at most so many bytes.
type Fixed = ([u8; 64], usize);

/// Both ends of the way that descriptors take here.
#[derive(Clone)]
struct End(Arc<Mutex<VecDeque<Fixed>>>);

impl Route for End {
    fn publication(&self, _: PendingPublication) -> PendingPublication {
        Ready::publication(self.clone())
    }

    fn subscription(&self, _: PendingSubscription) -> PendingSubscription {
        Ready::subscription(self.clone())
    }
}

impl Publication for End {
    fn offer(&mut self, message: &[u8]) -> Result<i64, OfferError> {
        let mut ring = self.0.lock().unwrap();
        if ring.len() == ring.capacity() {
            return Err(OfferError::BackPressured);
        }
        let mut fixed = ([0; 64], message.len());
        fixed.0[..message.len()].copy_from_slice(message);
        ring.push_back(fixed);
        Ok(0)
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn session(&self) -> SessionId {
        SessionId::new(1)
    }
}

impl Subscription for End {
    fn poll(&mut self, limit: usize, handler: &mut dyn FnMut(Message<'_>)) -> Result<usize, TransportError> {
        for handled in 0..limit {
            let Some((bytes, len)) = self.0.lock().unwrap().pop_front() else { return Ok(handled) };
            handler(Message { bytes: &bytes[..len], session: SessionId::new(1) });
        }
        Ok(limit)
    }

    fn has_image(&self, _: SessionId) -> bool {
        true
    }

    fn image_count(&self) -> usize {
        1
    }
}

/// A producer and a consumer of one leased stream; the time stands still, so the leases last.
fn ends(write: WriteOptions) -> (Stage, Peer, Producer, Consumer) {
    let mut stage = Stage::new();
    let ring = Arc::new(Mutex::new(VecDeque::with_capacity(64)));
    let connector = Rerouted::new(&stage.bus, End(ring));
    let mut peer = stage.peer_with(stage.context(), connector);
    let producer = stage.producer(&mut peer, ProducerConfig { write, ..produces(CAM) });
    let consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    (stage, peer, producer, consumer)
}

/// Runs `frame` for so many frames and returns how many allocations that took after the warm-up.
fn allocations(mut frame: impl FnMut(u64)) -> u64 {
    (0..WARM_UP).for_each(&mut frame);
    let before = ALLOCATIONS.get();
    (WARM_UP..FRAMES).for_each(&mut frame);
    ALLOCATIONS.get() - before
}

/// The counter counts; otherwise nothing here would mean anything.
#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    let boxed = Box::new([0u8; 100]);
    assert_eq!(std::hint::black_box(&boxed)[99], 0);
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

/// Rules: TP-471, TC-202.
#[test]
fn offering_polling_and_copying_allocate_nothing() {
    let (_stage, _peer, mut producer, mut consumer) = ends(WriteOptions::default());
    let layout = bytes(100);
    let mut copy = Vec::new();
    let mut delivered = 0;
    let count = allocations(|frame| {
        let payload = [frame as u8; 100];
        producer.offer(&layout, &payload, FrameMeta::default()).unwrap();
        consumer
            .poll(10, &mut |view| {
                view.copy_to(&mut copy).unwrap();
                delivered += u64::from(copy == payload);
            })
            .unwrap();
    });
    assert_eq!((count, delivered), (0, FRAMES));
}

/// Claims that are committed out of order, frames that are used in place or read by number, and losses.
/// Rules: TP-471, TC-202.
#[test]
fn claiming_committing_and_viewing_allocate_nothing() {
    let (_stage, _peer, mut producer, mut consumer) = ends(WriteOptions::default());
    let layout = bytes(100);
    let mut held: Option<Claim> = None;
    let (mut delivered, mut lost) = (0, 0u64);
    let count = allocations(|frame| {
        let mut claim = producer.try_claim(100).unwrap();
        claim.payload().fill(frame as u8);
        match frame % 4 {
            // Committed after its successor.
            0 => held = Some(claim),
            3 => producer.abort(claim),
            _ => {
                producer.commit(&mut claim, &layout, FrameMeta::default()).unwrap();
                if let Some(mut older) = held.take() {
                    producer.commit(&mut older, &layout, FrameMeta::default()).unwrap();
                }
            }
        }
        consumer
            .poll_outcomes(10, &mut |outcome| match outcome {
                tidegate_tensor::client::ReadOutcome::Frame(view) => {
                    let first = view.payload().sub(0..1).unwrap();
                    let mut byte = [0];
                    first.copy_to(&mut byte).unwrap();
                    view.validate().unwrap();
                    delivered += u64::from(u64::from(byte[0]) == view.seq().get() % 256);
                }
                tidegate_tensor::client::ReadOutcome::DroppedGap { frames } => lost += frames,
                other => panic!("{other:?}"),
            })
            .unwrap();
    });
    assert_eq!((count, delivered), (0, FRAMES / 4 * 3));
    assert_eq!(lost, FRAMES / 4 - 1, "the aborted ones, up to the last frame that came");
}

/// Rules: TP-471.
#[test]
fn recycling_buffers_allocates_nothing() {
    let (_stage, _peer, mut producer, mut consumer) =
        ends(WriteOptions { fixed_pool: true, ..WriteOptions::default() });
    let layout = bytes(64);
    let mut claims: Vec<Claim> = (0..SLOTS).map(|_| producer.try_claim(64).unwrap()).collect();
    let mut delivered = 0;
    let count = allocations(|frame| {
        let claim = &mut claims[(frame % u64::from(SLOTS)) as usize];
        if frame >= u64::from(SLOTS) {
            producer.queue_claim(claim).unwrap();
        }
        producer.commit(claim, &layout, FrameMeta::default()).unwrap();
        consumer.poll(10, &mut |view| delivered += u64::from(view.validate().is_ok())).unwrap();
    });
    assert_eq!((count, delivered), (0, FRAMES));
}
