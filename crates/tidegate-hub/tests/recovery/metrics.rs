//! Counters of real blocks, read and reset while they are in use, and as Prometheus reads them.

use std::collections::HashSet;

use tidegate_hub::{
    block::Role,
    layout::BlockSpec,
    metrics::{RateWindow, prometheus::BlockMetrics},
};

use crate::world::{World, spec, write};

/// Rules: DH-245, DH-249, T-04.
#[test]
fn numbers_of_an_orphaned_block_stay() {
    let world = World::of("metrics::numbers_of_an_orphaned_block_stay");
    let (producer, name) = world.producer("write 6");
    let consumer = world.actor(&name, "join;read 4");
    let block = world.inspector(&name);
    producer.kill();
    let metrics = block.metrics();
    assert_eq!((metrics.total_writes_attempted, metrics.total_writes_committed), (6, 6));
    assert_eq!((metrics.total_bytes_written, metrics.total_bytes_read), (30, 20));
    assert_eq!((metrics.total_reads_completed, metrics.active_consumer_count), (4, 1));
    assert_eq!((metrics.queue_occupancy, metrics.queue_capacity), (6, 8));
    assert_eq!(metrics.queue_utilization_percent, 75.0);
    assert_eq!((metrics.consumers.alive, metrics.consumers.dead), (1, 0));
    assert!(!metrics.is_healthy() && !metrics.has_overflow());
    consumer.kill();
    let metrics = block.metrics();
    assert_eq!((metrics.active_consumer_count, metrics.consumers.dead), (0, 1));
    assert_eq!(metrics.total_reads_completed, 4);
}

/// Rules: DH-246, T-03.
#[test]
fn a_reset_keeps_times_and_what_consumers_count() {
    let world = World::of("metrics::a_reset_keeps_times_and_what_consumers_count");
    let (block, writer) = world.block(&spec());
    let name = block.descriptor().file_name();
    for _ in 0..6 {
        write(&writer, &block, b"value");
    }
    let consumer = world.actor(&name, "join;read 4");
    for _ in 0..3 {
        // More than fits: an error that is recorded.
        writer.allocate(9, crate::world::soon()).unwrap_err();
    }
    let recovery = world.recovery(&name);
    let before = recovery.inspector().metrics();
    assert!(before.counters.error_sequence >= 3 && before.counters.consumers_joined == 1);
    let mut window = RateWindow::default();
    window.observe(&before);
    recovery.reset_metrics().unwrap();
    let after = recovery.inspector().metrics();
    let kept = |metrics: &tidegate_hub::metrics::HubMetrics| {
        let counters = &metrics.counters;
        [
            counters.error_sequence,
            counters.creation_timestamp_ns,
            counters.last_error_timestamp_ns,
            counters.last_error_code,
            counters.last_write_ns,
            counters.last_heartbeat_ns,
        ]
    };
    assert_eq!(kept(&after), kept(&before));
    let zero = |name: &str| {
        !name.starts_with("last_")
            && !["error_sequence", "creation_timestamp_ns", "uptime_seconds"].contains(&name)
    };
    for (name, value) in after.counters.each().filter(|(name, _)| zero(name)) {
        assert_eq!(value, 0, "{name}");
    }
    assert_eq!(after.total_reads_completed, 4, "rows of consumers are kept");
    let audit = recovery.inspector().audit();
    let last = audit.last().unwrap();
    assert_eq!((last.operation, last.forced, last.before), ("metrics-reset", false, 6));
    write(&writer, &block, b"value");
    let again = recovery.inspector().metrics();
    assert_eq!((again.total_writes_committed, again.total_bytes_written), (1, 5), "they count on");
    window.observe(&again);
    assert!(window.rates().unwrap().write_ops_per_sec >= 0.0, "no rate is negative");
    drop(consumer);
}

/// Rules: DH-250, T-05.
#[test]
fn prometheus_reads_all_blocks_and_bears_those_that_vanish() {
    let world = World::of("metrics::prometheus_reads_all_blocks_and_bears_those_that_vanish");
    let (producer, first) = world.producer("write 6");
    let consumer = world.actor(&first, "join;read 4");
    let other = BlockSpec { channel: tidegate_hub::layout::ChannelName::new("other").unwrap(), ..spec() };
    let (second, _writer) = world.block(&other);
    std::fs::write(world.dir().join("tidegate_garbage_00112233"), b"no block").unwrap();
    let exposed = || BlockMetrics::in_dir(world.dir().to_owned()).text().unwrap();
    let page = exposed();
    assert!(page.ends_with("# EOF\n"));

    let labels = format!("block=\"{first}\",channel=\"sensor\"");
    for line in [
        format!("tidegate_hub_writes_total{{{labels}}} 6"),
        format!("tidegate_hub_reads_total{{{labels}}} 4"),
        format!("tidegate_hub_bytes_read_total{{{labels}}} 20"),
        format!("tidegate_hub_write_timeouts_total{{{labels},cause=\"full\"}} 0"),
        format!("tidegate_hub_slots_lost_total{{{labels},reason=\"aborted\"}} 0"),
        format!("tidegate_hub_occupancy_percent{{{labels}}} 75.0"),
        format!("tidegate_hub_consumers{{{labels},state=\"alive\"}} 1.0"),
        format!("tidegate_hub_consumer_lag_slots{{{labels},consumer=\"0/CONS-{}\"}} 2", consumer.pid()),
        format!("tidegate_hub_healthy{{{labels}}} 1.0"),
        format!("tidegate_hub_write_latency_seconds_count{{{labels}}} 0"),
        format!("tidegate_hub_write_latency_seconds_bucket{{le=\"+Inf\",{labels}}} 0"),
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }
    assert!(
        page.contains("tidegate_hub_info{") && page.contains("policy=\"RingBuffer\",sync=\"AllReaders\"")
    );
    assert!(page.contains(&second.descriptor().file_name()) && !page.contains("garbage"));
    check_format(&page);

    producer.kill();
    assert!(exposed().contains(&format!("tidegate_hub_healthy{{{labels}}} 0.0")));
    std::fs::remove_file(world.dir().join(&first)).unwrap();
    let page = exposed();
    assert!(!page.contains(&first) && page.contains("channel=\"other\""));
    let only = BlockMetrics::of(world.dir().to_owned(), vec![first]).text().unwrap();
    check_format(&only);
    assert!(!only.contains("channel="));
}

/// Each metric is described once, before its samples, and no series occurs twice.
fn check_format(page: &str) {
    let mut described = HashSet::new();
    let mut series = HashSet::new();
    let mut current = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split(' ').next().unwrap();
            assert!(described.insert(current), "{current} twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(current), "{line} under {current}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(name.to_owned()), "{name} twice");
        }
    }
    assert!(described.len() > 25, "{described:?}");
}

/// Every counter lies where the sheet has it and nowhere else.
/// Rules: DH-242.
#[test]
fn each_counter_is_read_from_its_own_place() {
    let world = World::of("metrics::each_counter_is_read_from_its_own_place");
    let (block, _writer) = world.block(&spec());
    let look = world.inspector(&block.descriptor().file_name());
    let page = block.descriptor().geometry.metrics().offset;
    let region =
        tidegate_hub::block::attach(&block.descriptor().file_name(), &world.options(Role::Recovery)).unwrap();
    for offset in (0..0x230_u64).step_by(4) {
        let word = region.region().atomic_u32_mut(page + offset).unwrap();
        word.store(offset as u32 + 1, tidegate_shm::sync::Ordering::Relaxed);
    }
    let counters = look.metrics().counters;
    let read = |offset: u64| (offset + 1) | (offset + 5) << 32;
    assert_eq!(counters.writer_timeout_count, read(0x000));
    assert_eq!((counters.last_error_code, counters.error_sequence), (0x49, 0x4D));
    assert_eq!(counters.total_slots_written, read(0x0C0));
    assert_eq!(counters.notifications_sent, read(0x158));
    assert_eq!(counters.digests_verified, read(0x1D8));
    assert_eq!(counters.writer_seizures, read(0x220));
    let distinct: HashSet<u64> = counters.each().map(|(_, value)| value).collect();
    assert_eq!(distinct.len(), counters.each().count());
}
