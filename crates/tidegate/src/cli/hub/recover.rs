//! `tidegate hub reset-slot`, `auto-recover` and the other commands that repair a block.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidegate::hub::core::codec::SlotState;
use tidegate::hub::inspect::{ConsumerInfo, Inspector, SlotDiagnostic};
use tidegate::hub::recover::slots::ResetOptions;
use tidegate::hub::recover::{RecoverError, Recovery, Step, files, plan};

use super::block::{BlockArgs, DirArgs, problems};
use super::diagnose::no_slot;
use super::format::{age, liveness};
use crate::cli::session::parse_duration;
use crate::cli::text;
use crate::output::{Exit, HubExit, Output, Report, Stop};
use tidegate::hub::block::Role;

/// Force, and the confirmation that it takes (DH-257).
#[derive(Debug, Clone, Args)]
pub(crate) struct ForceArgs {
    /// Act against processes that may live; asks for the name of the block
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, requires = "force")]
    yes: bool,
}

impl ForceArgs {
    /// Whether force was asked for, and confirmed.
    fn confirmed(&self, name: &str, warning: &str) -> Result<bool, Stop> {
        if !self.force || self.yes {
            return Ok(self.force);
        }
        let refused = |message: String| Stop::Error {
            exit: Exit::Hub(HubExit::Unsafe),
            code: "not_confirmed",
            message,
        };
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(refused(
                "--force takes a confirmation at a terminal, or --yes; nothing was changed".to_owned(),
            ));
        }
        eprintln!("{warning}");
        eprint!("Type the block name to continue: ");
        let mut line = String::new();
        let read = stdin.lock().read_line(&mut line);
        if read.is_ok() && line.trim_end() == name {
            Ok(true)
        } else {
            Err(refused("that is not the name; nothing was changed".to_owned()))
        }
    }
}

impl BlockArgs {
    /// Opens the block for repairs.
    pub(super) fn open_for_repair(&self) -> Result<Recovery, Stop> {
        Ok(Recovery::open(&self.name()?, &self.dir.options(Role::Recovery))?)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Acts at once when the owner is dead; refuses with exit code 4 otherwise. With --force a live writer is cut off: its slots \
go to quarantine until it ends, and the block takes no more data; the next producer makes a new one.

Examples:
  tidegate hub reset-slot --channel sensor_temperature --slot 2
  tidegate hub reset-slot --channel sensor_temperature --slot 3 --discard")]
pub(crate) struct ResetSlot {
    #[command(flatten)]
    block: BlockArgs,
    /// Number of the slot
    #[arg(long, value_name = "N")]
    slot: u32,
    /// Throw a committed value away, too
    #[arg(long)]
    discard: bool,
    #[command(flatten)]
    force: ForceArgs,
}

impl ResetSlot {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let recovery = self.block.open_for_repair()?;
        let block = recovery.inspector();
        let before = block.diagnose_slot(self.slot).ok_or_else(|| no_slot(block, self.slot))?;
        if !output.json() {
            output.result(|| owner_lines(block, &before), || Value::Null)?;
        }
        let warning = "This cuts a live writer off and ends the block; its open slots stay in quarantine until it ends.";
        let force = self.force.confirmed(&block.name(), warning)?;
        let step = recovery.reset_slot(self.slot, ResetOptions { discard: self.discard, force })?;
        let after = block.diagnose_slot(self.slot).ok_or_else(|| no_slot(block, self.slot))?;
        output.result(
            || {
                let last = match (after.state.is(SlotState::Free), after.slot_id) {
                    (true, Some(id)) => format!("slot {} reset to FREE; id {id} is a hole", self.slot),
                    _ => step.to_string(),
                };
                format!("before: {}\nafter:  {}\n{last}", values(&before), values(&after))
            },
            || json!({ "before": before, "after": after, "steps": [step] }),
        )
    }
}

/// Slot, its owner, and whether that lives.
fn owner_lines(block: &Inspector, slot: &SlotDiagnostic) -> String {
    let id = slot.slot_id.map_or_else(String::new, |id| format!(" id {id}"));
    let (index, state) = (slot.slot_index, slot.state.word());
    let writer = block.writer();
    let owner = slot.owner.map(|owner| (owner.key.pid(), owner.liveness));
    match owner.or(writer.key.map(|key| (key.pid(), writer.liveness))) {
        Some((pid, known)) => {
            let known = liveness(known).to_uppercase();
            format!("slot {index}: {state}{id}, owner pid {pid}\nliveness of pid {pid}: {known}")
        }
        None => format!("slot {index}: {state}{id}, no owner"),
    }
}

fn values(slot: &SlotDiagnostic) -> String {
    format!(
        "state={:<7} id={} owner={:<5} readers={}",
        slot.state.word(),
        text::or_dash(slot.slot_id),
        text::or_dash(slot.owner.map(|owner| owner.key.pid())),
        slot.reader_count
    )
}

#[derive(Debug, Args)]
#[command(after_help = "\
If one slot cannot be reset, none is.

Example:
  tidegate hub reset-all --channel sensor_temperature")]
pub(crate) struct ResetAll {
    #[command(flatten)]
    block: BlockArgs,
    /// Throw committed values away, too: the ring is empty afterwards
    #[arg(long)]
    discard: bool,
    #[command(flatten)]
    force: ForceArgs,
}

impl ResetAll {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let recovery = self.block.open_for_repair()?;
        let warning = "This cuts a live writer off and ends the block; its open slots stay in quarantine until it ends.";
        let force = self.force.confirmed(&recovery.inspector().name(), warning)?;
        let steps = recovery.reset_all(ResetOptions { discard: self.discard, force })?;
        tell(&steps, "slot", "reset", output)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Changes nothing unless --apply is given; exit code 3 when there would be something to do.

Examples:
  tidegate hub release-zombies --channel sensor_temperature
  tidegate hub release-zombies --channel sensor_temperature --readers --apply")]
pub(crate) struct ReleaseZombies {
    #[command(flatten)]
    block: BlockArgs,
    /// Dead consumers only
    #[arg(long, conflicts_with = "writers")]
    readers: bool,
    /// A dead writer only; where one is, dead consumers go with it
    #[arg(long)]
    writers: bool,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// Dry run or not (DH-268).
#[derive(Debug, Clone, Args)]
pub(crate) struct ApplyArgs {
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    apply: bool,
    /// Only say what would be done, which is the default
    #[arg(long)]
    dry_run: bool,
}

impl ReleaseZombies {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let (readers, writers) = (!self.writers, !self.readers);
        if !self.apply.apply {
            let block = self.block.open()?;
            let planned = plan::plan(&block);
            // Whoever adopts removes dead consumers as well.
            let adopts = writers && planned.iter().any(|repair| matches!(repair, plan::Repair::Adopt { .. }));
            let of_kind = |repair: &plan::Repair| match repair {
                plan::Repair::Reap { .. } => readers || adopts,
                plan::Repair::Adopt { .. } => adopts,
                _ => false,
            };
            let repairs: Vec<_> = planned.into_iter().filter(of_kind).collect();
            return tell_plan(&repairs, output);
        }
        let recovery = self.block.open_for_repair()?;
        let dead = recovery.inspector().consumers().into_iter().filter(|row| row.is_dead());
        let claims: Vec<String> = dead
            .map(|row| {
                let claim = row.claim_first.map_or_else(|| "no claim".to_owned(), |id| format!("claim {id}"));
                format!("row {}: pid {} DEAD, {claim}, cursor {} -> reaped", row.row, row.pid, row.cursor)
            })
            .collect();
        let mut steps = Vec::new();
        if readers {
            steps.extend(nothing_is_fine(recovery.release_zombie_readers(None))?.unwrap_or_default());
        }
        let reaped = steps.len();
        if writers {
            match nothing_is_fine(recovery.release_zombie_writer()) {
                // Alone, a live writer is a reason to refuse; beside readers it is none of this command's business.
                Err(Stop::Error { exit: Exit::Hub(HubExit::Unsafe), .. }) if !self.writers => {}
                done => steps.extend(done?.unwrap_or_default()),
            }
        }
        output.result(
            || {
                let mut lines: Vec<String> = claims.into_iter().take(reaped).collect();
                lines.extend(steps.iter().skip(reaped).map(Step::to_string));
                let rows = steps.iter().filter(|step| step.object.starts_with("consumer row")).count();
                lines.push(format!("{} reaped", text::count(rows, "row")));
                lines.join("\n")
            },
            || json!({ "applied": true, "steps": steps }),
        )
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Age alone removes nobody: only rows whose process is dead go, and only with --apply. --force with --apply evicts the stale \
ones, too. Exit code 3 when there would be something to do.

Example:
  tidegate hub cleanup-heartbeats --channel sensor_temperature --timeout 5s")]
pub(crate) struct CleanupHeartbeats {
    #[command(flatten)]
    block: BlockArgs,
    /// Age from which on a heartbeat is called stale
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    apply: ApplyArgs,
    #[command(flatten)]
    force: ForceArgs,
}

impl CleanupHeartbeats {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let block = self.block.open()?;
        let warning = "This evicts consumers that live and have not beaten for long.";
        let force = self.apply.apply && self.force.confirmed(&block.name(), warning)?;
        let rows = block.consumers();
        let is_stale = |age: Option<Duration>| age.is_some_and(|age| age > self.timeout);
        let dead = rows.iter().filter(|row| row.is_dead()).count();
        let list = rows.iter().map(|row| {
            let note = match (row.is_dead(), is_stale(row.heartbeat_age)) {
                (true, _) if self.apply.apply => "DEAD   removed",
                (true, _) => "DEAD   would be removed",
                (false, true) => "STALE",
                (false, false) => liveness(row.liveness),
            };
            format!(
                "row {}: pid {}  last seen {:<8}  {note}",
                row.row,
                row.pid,
                format!("{} ago", age(row.heartbeat_age))
            )
        });
        let mut lines: Vec<String> = list.collect();
        if !self.apply.apply {
            lines.push(match dead {
                0 => "Nothing to remove.".to_owned(),
                _ => format!(
                    "Dry run: nothing changed. Repeat with --apply to remove {}.",
                    text::count(dead, "row")
                ),
            });
            output.result(|| lines.join("\n"), || json!({ "applied": false, "consumers": rows }))?;
            return problems(dead > 0);
        }
        let recovery = self.block.open_for_repair()?;
        let mut steps = nothing_is_fine(recovery.cleanup_dead_consumers())?.unwrap_or_default();
        if force {
            let stale = |row: &&ConsumerInfo| !row.is_dead() && is_stale(row.heartbeat_age);
            for row in rows.iter().filter(|row| row.state == "active").filter(stale) {
                steps.extend(nothing_is_fine(recovery.evict_stale(row, self.timeout))?);
            }
        }
        lines.push(format!("{} removed", text::count(steps.len(), "row")));
        output.result(|| lines.join("\n"), || json!({ "applied": true, "consumers": rows, "steps": steps }))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
The consumer loses the right to hold the ring back and must attach again; what it is reading stays its own until it lets go.

Example:
  tidegate hub evict --channel sensor_temperature --row 1 --force")]
pub(crate) struct Evict {
    #[command(flatten)]
    block: BlockArgs,
    /// Number of the row
    #[arg(long, value_name = "N")]
    row: u32,
    #[command(flatten)]
    force: ForceArgs,
}

impl Evict {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let recovery = self.block.open_for_repair()?;
        let warning = "This makes a live consumer lose what it has not read.";
        let force = self.force.confirmed(&recovery.inspector().name(), warning)?;
        let step = recovery.evict_consumer(self.row, force)?;
        output.result(|| step.to_string(), || json!({ "steps": [step] }))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Does only what is proven to be safe: removes dead consumers, adopts from a dead writer, frees locks of dead owners, ends a \
handover whose producer died. Changes nothing unless --apply is given; exit code 3 when there would be something to do.

Examples:
  tidegate hub auto-recover --channel sensor_temperature
  tidegate hub auto-recover --channel sensor_temperature --apply")]
pub(crate) struct AutoRecover {
    #[command(flatten)]
    block: BlockArgs,
    #[command(flatten)]
    apply: ApplyArgs,
}

impl AutoRecover {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        if !self.apply.apply {
            let block = self.block.open()?;
            if !output.json() {
                output.result(|| format!("Scanning {} ...", block.name()), || Value::Null)?;
            }
            return tell_plan(&plan::plan(&block), output);
        }
        let steps = self.block.open_for_repair()?.auto_recover()?;
        output.result(
            || {
                let lines =
                    (1..).zip(&steps).map(|(number, step)| format!("  [{number}] {}\n", step_line(step)));
                format!(
                    "{}Recovery complete: {} applied.",
                    lines.collect::<String>(),
                    text::count(steps.len(), "action")
                )
            },
            || json!({ "applied": true, "steps": steps }),
        )
    }
}

fn step_line(step: &Step) -> String {
    match step.object.strip_prefix("consumer row") {
        Some(row) => step.done.replacen("reaped", &format!("reaped consumer row{row}"), 1),
        None if step.object == "writer" => step.done.clone(),
        None => step.to_string(),
    }
}

/// What would be done.
fn tell_plan(repairs: &[plan::Repair], output: &mut Output) -> Result<(), Stop> {
    output.result(
        || {
            if repairs.is_empty() {
                return "Found nothing to do.".to_owned();
            }
            let mut page = format!("Found {}:\n", text::count(repairs.len(), "issue"));
            for (number, repair) in (1..).zip(repairs) {
                page += &format!("  [{number}] {}\n      action: {}\n", repair.issue(), repair.action());
            }
            let actions = text::count(repairs.len(), "action");
            page + &format!("Dry run: nothing changed. Repeat with --apply to perform {actions}.")
        },
        || json!({ "applied": false, "plan": repairs }),
    )?;
    problems(!repairs.is_empty())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Frees the spinlocks of dead owners at once; with --force also those of live ones. What they protect may be half-written, so \
they are marked poisoned.

Example:
  tidegate hub force-unlock-all --channel sensor_temperature")]
pub(crate) struct ForceUnlockAll {
    #[command(flatten)]
    block: BlockArgs,
    #[command(flatten)]
    force: ForceArgs,
}

impl ForceUnlockAll {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let recovery = self.block.open_for_repair()?;
        let warning = "This frees locks of live processes, which go on writing what the locks protect.";
        let force = self.force.confirmed(&recovery.inspector().name(), warning)?;
        let (freed, skipped) = recovery.force_unlock_all(force)?;
        output.result(
            || {
                let mut page: String = freed
                    .iter()
                    .map(|step| {
                        let known = if step.forced { "ALIVE" } else { "DEAD" };
                        format!("{}: owner {} {known} -> {}\n", step.object, step.reason, step.done)
                    })
                    .collect();
                for lock in &skipped {
                    let pid = lock.owner.map_or(0, |owner| owner.key.pid());
                    page += &format!(
                        "spinlock {} ({}): owner pid {pid} may live -> left alone\n",
                        text::or_dash(lock.index),
                        lock.label
                    );
                }
                page + &format!("{} released, {} skipped", text::count(freed.len(), "lock"), skipped.len())
            },
            || json!({ "steps": freed, "skipped": skipped }),
        )?;
        if skipped.is_empty() { Ok(()) } else { Err(Stop::Reported(Exit::Hub(HubExit::Unsafe))) }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Processes that have the block attached keep it; new ones do not find it. Refuses with exit code 4 while somebody may use it. \
With --force also a damaged block is removed.

Example:
  tidegate hub force-unlink tidegate_sensor_temperature_9f3c21ab")]
pub(crate) struct ForceUnlink {
    #[command(flatten)]
    block: BlockArgs,
    #[command(flatten)]
    force: ForceArgs,
}

impl ForceUnlink {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let name = self.block.name()?;
        let warning =
            "This removes the block's name; attached processes keep their mapping, new ones cannot attach.";
        let force = self.force.confirmed(&name, warning)?;
        files::force_unlink(&name, &self.block.dir.options(Role::Recovery), force)?;
        output.result(|| format!("removed {name}"), || json!({ "removed": [name] }))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
A block is removed only when its writer and all its consumers are proven dead. Changes nothing unless --apply is given; exit \
code 3 when there would be something to do.

Examples:
  tidegate hub reclaim
  tidegate hub reclaim --apply")]
pub(crate) struct Reclaim {
    #[command(flatten)]
    dir: DirArgs,
    #[command(flatten)]
    apply: ApplyArgs,
}

impl Reclaim {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let options = self.dir.options(Role::Inspector);
        let blocks = files::reclaimable(&options)?;
        let total = text::bytes(blocks.iter().fold(0, |sum, block| sum.saturating_add(block.bytes)));
        let number = text::count(blocks.len(), "block");
        let (mut removed, mut failed) = (Vec::new(), None);
        if self.apply.apply {
            for block in &blocks {
                match files::reclaim(block, &options) {
                    Ok(()) => removed.push(block),
                    // Somebody took it up meanwhile, or has removed it.
                    Err(error) if error.is_unsafe() || error.is_gone() => {}
                    // It keeps none of the others; told when it is said what was done.
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        output.result(
            || {
                let word = if self.apply.apply { "removed" } else { "would be removed" };
                let gone = |block: &&files::Removable| !self.apply.apply || removed.contains(block);
                let lines = blocks.iter().filter(gone).map(|block| {
                    format!("{}: {}, writer pid {} DEAD  {word}\n", block.name, text::bytes(block.bytes), block.writer)
                });
                let lines: String = lines.collect();
                match (blocks.is_empty(), self.apply.apply) {
                    (true, _) => "Nothing to remove.".to_owned(),
                    (false, false) => format!("{lines}Dry run: nothing changed. Repeat with --apply to remove {number}, {total}."),
                    (false, true) => format!("{lines}{} removed", text::count(removed.len(), "block")),
                }
            },
            || json!({ "applied": self.apply.apply, "blocks": blocks, "removed": removed.iter().map(|block| &block.name).collect::<Vec<_>>() }),
        )?;
        failed.map_or_else(|| problems(!self.apply.apply && !blocks.is_empty()), |error| Err(error.into()))
    }
}

fn tell(steps: &[Step], thing: &str, done: &str, output: &mut Output) -> Result<(), Stop> {
    output.result(
        || {
            let lines: String = steps.iter().map(|step| format!("{step}\n")).collect();
            format!("{lines}{} {done}", text::count(steps.len(), thing))
        },
        || json!({ "steps": steps }),
    )
}

/// That there is nothing to do is no error where several things are tried.
fn nothing_is_fine<T>(result: Result<T, RecoverError>) -> Result<Option<T>, Stop> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(RecoverError::NotStuck { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Report for RecoverError {
    fn exit(&self) -> Exit {
        match self {
            Self::Attach(error) => error.exit(),
            Self::Dir(error) => error.exit(),
            _ => match RecoverError::code(self) {
                601 => Exit::Hub(HubExit::Unsafe),
                603 => Exit::Hub(HubExit::NotFound),
                120 => Exit::Hub(HubExit::Damaged),
                _ => Exit::Failed,
            },
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Attach(error) => Report::code(error),
            Self::Dir(error) => Report::code(error),
            _ => match RecoverError::code(self) {
                601 => "unsafe",
                602 => "not_stuck",
                603 => "invalid_slot",
                120 => "damaged",
                401 => "lock_timeout",
                _ => "refused",
            },
        }
    }
}
