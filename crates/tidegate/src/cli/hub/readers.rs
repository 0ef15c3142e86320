//! `tidegate hub show-readers` and `list-locks`: who has what.

use clap::Args;
use serde_json::json;
use tidegate::hub::inspect::{ConsumerInfo, LockInfo, LockKind, ReaderInfo, SlotReaders};

use super::block::BlockArgs;
use super::diagnose::no_slot;
use super::format::{age, liveness};
use crate::cli::text;
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
Without --slot only slots that somebody reads or holds back are shown.

Example:
  tidegate hub show-readers --channel sensor_temperature --slot 1")]
pub(crate) struct ShowReaders {
    #[command(flatten)]
    block: BlockArgs,
    /// Show this slot only
    #[arg(long, value_name = "N")]
    slot: Option<u32>,
}

impl ShowReaders {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let block = self.block.open()?;
        let mut slots = block.show_readers(self.slot);
        match self.slot {
            Some(slot) if slots.is_empty() => return Err(no_slot(&block, slot)),
            Some(_) => {}
            None => slots.retain(|slot| !slot.readers.is_empty() || !slot.held_back_by.is_empty()),
        }
        output.result(
            || match slots.is_empty() {
                true => "nobody reads or holds back a slot".to_owned(),
                false => slots.iter().map(slot_text).collect::<Vec<_>>().join("\n"),
            },
            || json!({ "slots": slots }),
        )
    }
}

fn slot_text(slot: &SlotReaders) -> String {
    let id = slot.id.map_or_else(String::new, |id| format!(", id {id}"));
    let mut page = format!("Slot {}{id}, {}\n", slot.slot, slot.state.word());
    let width = |uids: Vec<usize>| uids.into_iter().max().unwrap_or(0);
    for ReaderInfo { row, pid, uid, liveness: known, since } in &slot.readers {
        page +=
            &format!("  row {row}  pid {pid}  {uid}  {}  claim since {}\n", liveness(*known), age(*since));
    }
    if let (false, Some(id)) = (slot.held_back_by.is_empty(), slot.id) {
        page += &format!("Held back by cursors at or below {id}:\n");
        let column = width(slot.held_back_by.iter().map(|consumer| consumer.uid.len()).collect());
        for consumer in &slot.held_back_by {
            let ConsumerInfo { row, pid, uid, cursor, .. } = consumer;
            let dead = if consumer.is_dead() { "  DEAD" } else { "" };
            page += &format!("  row {row}  pid {pid}  {uid:column$}  cursor {cursor}{dead}\n");
        }
    }
    page
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate hub list-locks --channel sensor_temperature")]
pub(crate) struct ListLocks {
    #[command(flatten)]
    block: BlockArgs,
}

impl ListLocks {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let locks = self.block.open()?.list_locks();
        output.result(|| table(&locks), || json!({ "locks": locks }))
    }
}

fn table(locks: &[LockInfo]) -> String {
    let head = ["KIND", "INDEX", "LABEL", "OWNER", "LIVENESS", "DEPTH", "HELD", "FLAGS"];
    let mut rows = vec![text::heading(head)];
    for lock in locks {
        let flags: Vec<&str> = [(lock.system, "system"), (lock.poisoned, "poisoned")]
            .iter()
            .filter(|f| f.0)
            .map(|f| f.1)
            .collect();
        let depth = lock.owner.filter(|_| lock.kind == LockKind::Spinlock).map(|_| lock.depth);
        rows.push(vec![
            lock.kind.word().to_owned(),
            text::or_dash(lock.index),
            if lock.label.is_empty() { "-".to_owned() } else { lock.label.clone() },
            text::or_dash(lock.owner.map(|owner| owner.key.pid())),
            text::or_dash(lock.owner.map(|owner| liveness(owner.liveness))),
            text::or_dash(depth),
            age(lock.held),
            if flags.is_empty() { "-".to_owned() } else { flags.join(",") },
        ]);
    }
    let held = locks.iter().filter(|lock| lock.owner.is_some()).count();
    let dead = locks.iter().filter(|lock| lock.is_dead()).count();
    let by_dead = if dead == 0 { String::new() } else { format!(", {dead} by dead owners") };
    format!("{}\n{held} held{by_dead}", text::table(&rows))
}
