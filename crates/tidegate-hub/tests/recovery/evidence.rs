//! What evidence allows (16.2), what is said about each step (DH-261), and that nothing committed is ever repaired away.

use std::{
    fmt,
    fs::{self, File},
    mem::offset_of,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex},
};

use tidegate_hub::{
    core::config::Deadline,
    identity::Liveness,
    inspect::Finding,
    layout::{
        BlockSpec, Orphan,
        pages::{ConsumerRow, SlotRecord},
    },
    recover::{Repair, plan::plan, slots::ResetOptions},
};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::Ordering::Relaxed,
};

use crate::world::{World, soon, spec, write};

/// What a process and its row look like, and what may be done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    Dead,
    Fresh,
    Stale,
    Unknown,
    LongRead,
}

/// Every row of the table: what is reported, what a blocked producer does, what is repaired, and what force does.
/// Rules: DH-236, DH-035, DH-034, DH-079, N-39.
#[test]
fn every_kind_of_evidence_allows_what_the_table_says() {
    let world = World::of("evidence::every_kind_of_evidence_allows_what_the_table_says");
    for evidence in [Evidence::Dead, Evidence::Fresh, Evidence::Stale, Evidence::Unknown, Evidence::LongRead]
    {
        // Without consumers it would keep the values for the next one.
        let (block, writer) = world.block(&BlockSpec { orphan: Orphan::Advance, ..spec() });
        let name = block.descriptor().file_name();
        (0..8).for_each(|slot| assert_eq!(write(&writer, &block, b"value"), 100 + slot));
        let consumer = world.actor(&name, "join;hold");
        let row = block.writer_views().unwrap().consumers;
        let row = row.row(0).unwrap();
        let ago = |seconds: u64| monotonic_now().as_u64().saturating_sub(seconds * 1_000_000_000).max(1);
        let heartbeat = row.u64::<{ offset_of!(ConsumerRow, last_heartbeat_ns) }>();
        heartbeat.store(ago(0), Relaxed);
        let mut consumer = Some(consumer);
        match evidence {
            Evidence::Dead => consumer.take().unwrap().kill(),
            Evidence::Fresh => {}
            Evidence::Stale => heartbeat.store(ago(601), Relaxed),
            Evidence::Unknown => row.u32::<{ offset_of!(ConsumerRow, flags) }>().store(1, Relaxed),
            Evidence::LongRead => {
                row.u64::<{ offset_of!(ConsumerRow, claim_since_ns) }>().store(ago(301), Relaxed);
            }
        }

        let look = world.inspector(&name);
        let findings = look.findings();
        let has = |matches: fn(&Finding) -> bool| findings.iter().any(matches);
        let reported = (
            look.consumer(0).unwrap().liveness,
            has(|found| matches!(found, Finding::ConsumerDead { row: 0, .. })),
            has(|found| matches!(found, Finding::ConsumerStale { row: 0, .. })),
            has(|found| matches!(found, Finding::StuckReader { row: 0, .. })),
        );
        let expected = match evidence {
            Evidence::Dead => (Liveness::Dead, true, false, false),
            Evidence::Fresh => (Liveness::Alive, false, false, false),
            Evidence::Stale => (Liveness::Alive, false, true, false),
            Evidence::Unknown => (Liveness::Unknown, false, false, false),
            Evidence::LongRead => (Liveness::Alive, false, false, true),
        };
        assert_eq!(reported, expected, "{evidence:?}: {findings:?}");

        let dead = evidence == Evidence::Dead;
        let repairs = plan(&look);
        let reaped = repairs.iter().any(|repair| matches!(repair, Repair::Reap { row: 0, .. }));
        assert_eq!((reaped, repairs.len()), (dead, usize::from(dead)), "{evidence:?}: {repairs:?}");

        // Three times as long as it takes to ask about whoever is in the way.
        let patient = Deadline::At(monotonic_now().saturating_add(Nanos::from_millis(150)));
        let went_on = writer.allocate(1, if dead { soon() } else { patient }).is_ok();
        assert_eq!(went_on, dead, "{evidence:?}: a blocked writer reaps the dead and waits for the others");
        if dead {
            assert!(look.consumer(0).is_none());
            continue;
        }
        assert_eq!(writer.core().reap(soon()), Ok(0), "{evidence:?}");
        assert_eq!(look.consumer(0).unwrap().state, "active", "{evidence:?}");

        writer.core().evict(tidegate_hub::core::codec::Row(0), soon()).unwrap();
        assert_eq!(look.consumer(0).unwrap().state, "evicted", "{evidence:?}");
        let held = writer.allocate(1, patient);
        assert!(held.is_err(), "{evidence:?}: its claim is still honoured");
        assert!(look.diagnose_slot(0).unwrap().state.is(tidegate_hub::core::codec::SlotState::Committed));
    }
}

/// Rules: DH-261, DH-257.
#[test]
fn each_step_is_logged_with_all_that_was_changed() {
    let world = World::of("evidence::each_step_is_logged_with_all_that_was_changed");
    let (producer, name) = world.producer("write 3;open 1");
    let consumer = world.actor(&name, "join;hold;lock 8");
    let recovery = world.recovery(&name);
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        recovery.evict_consumer(0, true).unwrap();
        consumer.kill();
        producer.kill();
        let repairs = plan(recovery.inspector());
        let steps = recovery.auto_recover().unwrap();
        assert!(steps.len() >= 3 && steps.len() >= repairs.len(), "{steps:?}");
        recovery.reset_slot(0, ResetOptions { discard: true, force: false }).unwrap();
    });
    let lines: Vec<Line> = log.0.lock().unwrap().iter().filter(|line| line.has("object")).cloned().collect();
    assert!(lines.len() >= 5, "{lines:?}");
    for line in &lines {
        for field in ["block", "actor", "object", "done", "before", "after", "reason"] {
            assert!(line.has(field), "{field} is missing: {line:?}");
        }
        assert_eq!(line.value("block"), name);
        let own = tidegate_hub::identity::ProcessKey::current().unwrap();
        assert_eq!(line.value("actor"), own.to_string());
        assert_ne!(line.value("before"), line.value("after"), "{line:?}");
        assert!(!line.value("reason").is_empty(), "{line:?}");
        assert_eq!(line.level == tracing::Level::WARN, line.forced(), "{line:?}");
    }
    assert!(lines[0].forced(), "what is done by force is a warning: {lines:?}");
}

/// Whatever else is damaged, automatic repair leaves every committed value where it is, and shows nothing that was not.
/// Rules: DH-263, DH-082, N-44.
#[test]
fn no_damage_makes_automatic_repair_drop_a_value() {
    let world = World::of("evidence::no_damage_makes_automatic_repair_drop_a_value");
    let (producer, name) = world.producer("write 6;open 1");
    let consumer = world.actor(&name, "join;read 2;hold;lock 9");
    let path = world.dir().join(&name);
    producer.kill();
    consumer.kill();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let original = fs::read(&path).unwrap();
    let geometry = world.inspector(&name).descriptor().geometry.clone();
    let areas =
        [geometry.control(), geometry.sync(), geometry.locks(), geometry.consumers(), geometry.metrics()];
    let ctl = |bytes: &[u8], slot: usize| {
        let at = geometry.slot_records().offset as usize + slot * size_of::<SlotRecord>();
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    };
    let mut dice = 1_u64;
    let mut roll = |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    let mut repaired = 0;
    for round in 0..400 {
        let mut damaged = original.clone();
        for _ in 0..1 + roll(4) {
            let area = &areas[roll(areas.len() as u64) as usize];
            let words = (area.range().end - area.range().start) / 8;
            // What is used lies at the beginning.
            let at = (area.range().start + 8 * roll(words.min(64))) as usize;
            let word = [0, u64::MAX, roll(1 << 20), 100 + roll(16), 1 << roll(64)][roll(5) as usize];
            damaged[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        file.write_all_at(&damaged, 0).unwrap();
        let opened =
            tidegate_hub::recover::Recovery::open(&name, &world.options(tidegate_hub::block::Role::Recovery));
        repaired += usize::from(opened.is_ok_and(|recovery| recovery.auto_recover().is_ok()));
        let after = fs::read(&path).unwrap();
        for slot in 0..8 {
            let (was, is) = (ctl(&original, slot), ctl(&after, slot));
            match was & 7 {
                2 => assert_eq!(is, was, "round {round}: a value is gone"),
                _ => assert_ne!(is & 7, 2, "round {round}: a value that never was"),
            }
        }
        let payload = geometry.slots().range();
        let payload = payload.start as usize..payload.end as usize;
        assert!(after[payload.clone()] == original[payload], "round {round}");
    }
    assert!(repaired > 100, "{repaired}");
}

/// One line of the log.
#[derive(Debug, Clone)]
struct Line {
    level: tracing::Level,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| *field == name)
    }

    fn value(&self, name: &str) -> String {
        self.fields
            .iter()
            .find(|(field, _)| *field == name)
            .map_or_else(String::new, |(_, value)| value.clone())
    }

    fn forced(&self) -> bool {
        self.value("message").contains("force")
    }
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

struct Fields(Vec<(&'static str, String)>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}").trim_matches('"').to_owned()));
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(Line { level: *event.metadata().level(), fields: fields.0 });
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
