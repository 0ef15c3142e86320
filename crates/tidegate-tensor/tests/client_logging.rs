//! Conditions that repeat are logged once a second at most.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;

use std::sync::Arc;

use client_support::*;
use tidegate_sbe::control::{ClockDomain, ShmPoolAnnounce};
use tidegate_shm::sync::{AtomicU64, Ordering};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Counts warnings and errors.
#[derive(Debug, Default)]
struct Warnings(AtomicU64);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An announce without pools.
fn malformed(at: u64) -> Vec<u8> {
    ShmPoolAnnounce {
        stream_id: CAM.get(),
        producer_id: 0,
        epoch: 7,
        announce_timestamp_ns: at,
        announce_clock_domain: ClockDomain::Monotonic,
        layout_version: 1,
        header_nslots: 8,
        header_slot_bytes: 256,
        payload_pools: Vec::new(),
        header_region_uri: "shm:file?path=/dev/shm/none".into(),
    }
    .to_vec()
    .unwrap()
}

/// Malformed announces and huge gaps, many a second.
/// Rules: TP-136, TP-468.
#[test]
fn repeated_conditions_do_not_flood_the_log() {
    let warnings = Arc::new(Warnings::default());
    tracing::subscriber::with_default(Arc::clone(&warnings), || {
        let mut stage = Stage::bare();
        let mut peer = stage.peer();
        let mut producer = stage.producer(&mut peer, stage.own(CAM));
        let mut consumer = stage.consumer(&mut peer, announced(CAM));
        stage.pass(1_000, &mut [&mut peer]);
        let mut announce = stage.wire(ANNOUNCE);
        warnings.0.store(0, Ordering::Relaxed);
        for _ in 0..60 {
            announce.say(&malformed(stage.now()));
            stage.pass(50, &mut [&mut peer]);
        }
        let logged = warnings.0.swap(0, Ordering::Relaxed);
        assert!((1..=4).contains(&logged), "{logged} warnings about 60 announces in three seconds");
        for _ in 0..20 {
            publish(&mut producer, b"x");
            assert_eq!(numbers(&mut consumer).len(), 1);
            stage.bus.drop_next(DESCRIPTOR, 300);
            for _ in 0..300 {
                publish(&mut producer, b"x");
            }
        }
        assert_eq!(consumer.totals().drops.gap, 19 * 300);
        let logged = warnings.0.load(Ordering::Relaxed);
        assert!((1..=10).contains(&logged), "{logged} warnings about 19 gaps");
    });
}
