//! `tidegate hub diagnose`: slots, owners, heartbeats, and what is wrong.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tidegate::hub::core::codec::SlotState;
use tidegate::hub::inspect::{ConsumerInfo, Diagnosis, Inspector, Recommendation, Severity, SlotDiagnostic};
use tidegate::hub::layout::pages::SlotRecord;

use super::block::{BlockArgs, problems};
use super::format::{age, liveness, owner};
use crate::cli::session::parse_duration;
use crate::cli::text;
use crate::output::{Exit, HubExit, Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
A slot is stuck when it has been WRITING or DRAINING for longer than --threshold, when it has been read for 5 minutes, or \
when its owner is dead. Exit code 3 when something is wrong.

Examples:
  tidegate hub diagnose tidegate_sensor_temperature_9f3c21ab
  tidegate hub diagnose --channel sensor_temperature --slot 2
  tidegate hub diagnose --channel sensor_temperature --threshold 30s --json")]
pub(crate) struct Diagnose {
    #[command(flatten)]
    block: BlockArgs,
    /// Show everything about this slot
    #[arg(long, value_name = "N")]
    slot: Option<u32>,
    /// Age from which on a slot that is written counts as stuck
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    threshold: Duration,
}

impl Diagnose {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let block = self.block.open()?;
        let thresholds =
            tidegate::hub::inspect::Thresholds { stuck_write: self.threshold, ..*block.thresholds() };
        let block = block.with_thresholds(thresholds);
        if let Some(slot) = self.slot {
            return one(&block, slot, output);
        }
        let diagnosis = block.diagnose();
        output.result(|| table(&diagnosis), || json!(diagnosis))?;
        problems(!diagnosis.healthy)
    }
}

fn one(block: &Inspector, index: u32, output: &mut Output) -> Result<(), Stop> {
    let slot = block.diagnose_slot(index).ok_or_else(|| no_slot(block, index))?;
    output.result(|| details(block, &slot), || json!(slot))?;
    problems(slot.is_stuck)
}

/// There is no slot of that number.
pub(crate) fn no_slot(block: &Inspector, index: u32) -> Stop {
    let last = block.descriptor().spec.slot_count.saturating_sub(1);
    Stop::Error {
        exit: Exit::Hub(HubExit::NotFound),
        code: "invalid_slot",
        message: format!("{} has no slot {index}; they are 0 to {last}", block.name()),
    }
}

fn table(diagnosis: &Diagnosis) -> String {
    let block = &diagnosis.block;
    let writer = match diagnosis.writer.key {
        Some(_) => format!("pid {} {}", diagnosis.writer.pid, liveness(diagnosis.writer.liveness)),
        None => "none".to_owned(),
    };
    let mut rows =
        vec![text::heading(["SLOT", "STATE", "SLOT ID", "GEN", "LENGTH", "READERS", "AGE", "NOTE"])];
    rows.extend(diagnosis.slots.iter().map(slot_row));
    let mut page = format!(
        "Block:   {}   {}/{}   capacity {}\nWriter:  {writer}\nStatus:  {} stuck, {} healthy\n\n{}\n",
        block.name,
        block.policy,
        block.sync,
        block.slot_count,
        diagnosis.summary.stuck,
        diagnosis.summary.healthy,
        text::table(&rows)
    );
    if !diagnosis.consumers.is_empty() {
        let head = ["ROW", "PID", "UID", "LIVENESS", "HEARTBEAT", "CURSOR", "LAG", "CLAIM"];
        let mut rows = vec![text::heading(head)];
        rows.extend(diagnosis.consumers.iter().map(consumer_row));
        page += &format!("\n{}\n", text::table(&rows));
    }
    let told = |code: &str| matches!(code, "stuck_slot" | "consumer_dead" | "writer_dead");
    let others: Vec<_> = diagnosis
        .findings
        .iter()
        .filter(|found| found.severity() > Severity::Note && !told(found.code()))
        .collect();
    if !others.is_empty() {
        page += "\nAlso:\n";
        page.extend(others.iter().map(|found| format!("  {found} -> {}\n", found.remedy())));
    }
    page
}

fn slot_row(slot: &SlotDiagnostic) -> Vec<String> {
    let readers: Vec<String> = slot.readers.iter().map(|reader| reader.pid.to_string()).collect();
    vec![
        slot.slot_index.to_string(),
        slot.state.word().to_owned(),
        text::or_dash(slot.slot_id),
        text::or_dash(slot.generation),
        text::or_dash(slot.payload_len),
        if readers.is_empty() { "-".to_owned() } else { readers.join(",") },
        age(slot.age),
        note(slot),
    ]
}

fn note(slot: &SlotDiagnostic) -> String {
    let index = slot.slot_index;
    let stuck = match slot.owner {
        Some(_) => format!("STUCK: owner {}", owner(slot.owner)),
        None => "STUCK".to_owned(),
    };
    match slot.recommendation {
        _ if slot.moving => "moving".to_owned(),
        Recommendation::None if slot.state.is(SlotState::Writing) => "being written".to_owned(),
        Recommendation::None => "ok".to_owned(),
        Recommendation::ResetSlot => format!("{stuck} -> tidegate hub reset-slot --slot {index}"),
        Recommendation::ReleaseZombies => {
            "STUCK: read by a dead process -> tidegate hub release-zombies --readers --apply".to_owned()
        }
        Recommendation::InspectOwner => format!("{stuck}; look what it does, do not force first"),
        Recommendation::InspectReader => {
            format!("STUCK: read for {}; look what the reader does", age(slot.stuck_for))
        }
        Recommendation::AwaitOwner => format!("in quarantine until {} ends", owner(slot.owner)),
        Recommendation::Validate => "DAMAGED -> tidegate hub validate".to_owned(),
    }
}

pub(crate) fn consumer_row(consumer: &ConsumerInfo) -> Vec<String> {
    let claim = match (consumer.claim_first, consumer.claim_count) {
        (Some(first), 1) => first.to_string(),
        (Some(first), count) => format!("{first}+{count}"),
        (None, _) => "-".to_owned(),
    };
    let known = liveness(consumer.liveness);
    vec![
        consumer.row.to_string(),
        consumer.pid.to_string(),
        if consumer.uid.is_empty() { "-".to_owned() } else { consumer.uid.clone() },
        if consumer.state == "active" { known.to_owned() } else { format!("{known}, {}", consumer.state) },
        format!(
            "{}{}",
            age(consumer.heartbeat_age),
            if consumer.stale && !consumer.is_dead() { " STALE" } else { "" }
        ),
        consumer.cursor.to_string(),
        consumer.lag.to_string(),
        claim,
    ]
}

fn details(block: &Inspector, slot: &SlotDiagnostic) -> String {
    let geometry = &block.descriptor().geometry;
    let index = u64::from(slot.slot_index);
    let record = geometry.slot_records().offset + index * size_of::<SlotRecord>() as u64;
    let data = geometry.slots().offset + index * geometry.slot_stride;
    let owner = match slot.owner {
        Some(owner) => format!(
            "pid {}, start tick {}, {}",
            owner.key.pid(),
            owner.key.start_ticks(),
            liveness(owner.liveness)
        ),
        None => "-".to_owned(),
    };
    let rows = [
        ("State:", format!("{} (since {})", slot.state.word(), age(slot.age))),
        (
            "Slot id:",
            format!("{}   generation {}", text::or_dash(slot.slot_id), text::or_dash(slot.generation)),
        ),
        ("Owner:", owner),
        ("Owner thread:", slot.owner_thread.to_string()),
        ("Readers:", slot.reader_count.to_string()),
        ("Writer waiting:", yes(slot.writer_waiting).to_lowercase()),
        ("Stuck:", yes(slot.is_stuck).to_owned()),
        ("Record offset:", format!("{record:#x}   data offset {data:#x}")),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("  {name:<15} {value}\n")).collect();
    let name = block.name();
    let advice = match slot.recommendation {
        Recommendation::None => "none".to_owned(),
        Recommendation::ResetSlot => format!(
            "safe to reset, the owner is dead\n  tidegate hub reset-slot --shm-name {name} --slot {index}"
        ),
        Recommendation::ReleaseZombies => format!(
            "safe to release, the reader is dead\n  tidegate hub release-zombies --readers --apply --shm-name {name}"
        ),
        Recommendation::InspectOwner => "look what the owner is doing; do not force first".to_owned(),
        Recommendation::InspectReader => "look what the reader is doing".to_owned(),
        Recommendation::AwaitOwner => "it is free when the displaced owner ends".to_owned(),
        Recommendation::Validate => format!("damaged\n  tidegate hub validate --shm-name {name}"),
    };
    format!("Slot {index}\n{rows}Recommendation:   {advice}\n")
}

fn yes(truth: bool) -> &'static str {
    if truth { "YES" } else { "NO" }
}
