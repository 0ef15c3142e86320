//! Everything that is proven to be safe: what it would be, and doing it (18.2, DH-263).
//!
//! A plan is made by looking only. Doing it looks again at each step, under the maintenance lock: what is not true any more
//! is left out. Nothing in a plan throws committed data away or makes other data visible.

use std::{fmt, mem::offset_of, path::Path, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap};
use tidegate_shm::{
    region::{DirError, RegionDir},
    sync::Ordering,
};

use super::{RecoverError, Recovery, Step};
use crate::{
    attachment::audit::Operation,
    block::{AttachOptions, Role, registry::Place},
    core::{
        TakeOver,
        codec::SlotState,
        crash::{self, Point},
    },
    identity::Liveness,
    inspect::{BlockLife, ConsumerInfo, Inspector, LockKind, Owner, Part, picture::text},
    layout::{InitState, pages::ControlPage},
};

/// One thing to repair.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repair {
    /// The registry disagrees with itself, or its last holder is dead.
    Registry {
        /// Who had the maintenance lock.
        holder: Option<Owner>,
    },
    /// Nobody writes, and something is open.
    Adopt {
        /// The dead writer, if one is recorded.
        writer: Option<Owner>,
        /// Slots between two states: number, id, state.
        open: Vec<(u32, Option<u64>, SlotState)>,
        /// The commit index before and after.
        commit: (u64, u64),
    },
    /// The producer died with a handover prepared: it never happened.
    CancelHandover {
        /// Name of the successor that is to go, if there is one.
        successor: Option<String>,
    },
    /// The producer died after the cut, and nobody uses this block any more.
    FinishHandover,
    /// A dead consumer.
    Reap {
        /// Its row.
        row: u32,
        /// Its pid.
        pid: u32,
        /// Since its last beat.
        age: Option<Duration>,
        /// Where the floor is, and where it can go once this and all other dead consumers are gone.
        floor: (u64, u64),
    },
    /// A lock of a dead owner.
    Unlock {
        /// Its number.
        lock: u32,
        /// What it is for.
        label: String,
        /// Who had it.
        owner: Owner,
    },
}

impl Repair {
    /// What is wrong.
    pub fn issue(&self) -> String {
        match self {
            Self::Registry { holder: Some(holder) } => {
                format!("maintenance lock: pid {} DEAD", holder.key.pid())
            }
            Self::Registry { holder: None } => "consumer table: rows and masks disagree".to_owned(),
            Self::Adopt { writer, open, .. } => {
                let who = writer
                    .map_or_else(|| "no writer".to_owned(), |w| format!("writer pid {} DEAD", w.key.pid()));
                let holds = open.iter().map(|(slot, id, state)| match (state, id) {
                    (SlotState::Draining, _) => format!("slot {slot} is half reserved"),
                    (_, Some(id)) => format!("slot {slot} holds abandoned id {id}"),
                    (_, None) => format!("slot {slot} is open"),
                });
                let holds: Vec<String> = holds.collect();
                if holds.is_empty() {
                    format!("{who}: nothing is open")
                } else {
                    format!("{who}: {}", holds.join(", "))
                }
            }
            Self::CancelHandover { .. } => "a handover was prepared and never made".to_owned(),
            Self::FinishHandover => "the channel goes on in another block, this one is done with".to_owned(),
            Self::Reap { row, pid, age, .. } => {
                let seen =
                    age.map_or_else(String::new, |age| format!(", last heartbeat {} s ago", age.as_secs()));
                format!("consumer row {row}: pid {pid} DEAD{seen}")
            }
            Self::Unlock { lock, label, owner } => {
                format!("spinlock {lock} ({label}): pid {} DEAD", owner.key.pid())
            }
        }
    }

    /// What would be done.
    pub fn action(&self) -> String {
        match self {
            Self::Registry { .. } => "take the lock, make rows and masks agree".to_owned(),
            Self::Adopt { open, commit: (before, after), .. } => {
                let mut parts = vec!["adopt".to_owned()];
                for (slot, id, state) in open {
                    parts.push(format!("slot {slot} -> {}", adopted_word(*state)));
                    if let (SlotState::Writing, Some(id)) = (state, id) {
                        parts.push(format!("id {id} becomes a hole"));
                    }
                }
                if before != after {
                    parts.push(format!("commit index {before} -> {after}"));
                }
                parts.join(", ")
            }
            Self::CancelHandover { successor: Some(name) } => format!("remove {name}, this block goes on"),
            Self::CancelHandover { successor: None } => "this block goes on".to_owned(),
            Self::FinishHandover => "close it and remove its name".to_owned(),
            Self::Reap { row, floor: (before, after), .. } if after > before => {
                format!("reap row {row}, floor may rise {before} -> {after}")
            }
            Self::Reap { row, .. } => format!("reap row {row}"),
            Self::Unlock { lock, .. } => format!("release lock {lock}, mark it poisoned"),
        }
    }

    /// One stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Registry { .. } => "repair_registry",
            Self::Adopt { .. } => "adopt",
            Self::CancelHandover { .. } => "cancel_handover",
            Self::FinishHandover => "finish_handover",
            Self::Reap { .. } => "reap",
            Self::Unlock { .. } => "unlock",
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.issue(), self.action())
    }
}

/// Written as code, issue and action.
impl Serialize for Repair {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_map(None)?;
        fields.serialize_entry("code", self.code())?;
        fields.serialize_entry("issue", &self.issue())?;
        fields.serialize_entry("action", &self.action())?;
        fields.end()
    }
}

/// Everything about a block that is proven to be safe to repair. Changes nothing.
pub fn plan(block: &Inspector) -> Vec<Repair> {
    let mut repairs = Vec::new();
    repairs.extend(registry(block));
    let handover = block.control().handover_state;
    let nobody_writes = writer(block).is_none_or(|writer| writer.is_dead());
    repairs.extend(adoption(block));
    // Without a writer a consumer has cleaned up after it already.
    if nobody_writes && handover == PREPARED {
        repairs.push(Repair::CancelHandover { successor: successor(block) });
    }
    repairs.extend(dead_rows(block));
    let unread = block.consumers().iter().all(ConsumerInfo::is_dead);
    if nobody_writes && (handover == CUT && unread || handover == DONE) {
        repairs.push(Repair::FinishHandover);
    }
    repairs.extend(dead_locks(block));
    repairs
}

fn registry(block: &Inspector) -> Option<Repair> {
    let holder = block.maintenance_lock().owner;
    if holder.is_some_and(|holder| holder.is_dead()) {
        return Some(Repair::Registry { holder });
    }
    let findings = block.integrity(false).findings;
    let disagrees = findings.iter().any(|damage| {
        matches!(damage.part, Part::Row(_) | Part::Sync) && MENDED.contains(&damage.mismatch.field)
    });
    (holder.is_none() && disagrees).then_some(Repair::Registry { holder: None })
}

fn writer(block: &Inspector) -> Option<Owner> {
    block.owner(block.control().writer_owner, Place::Writer)
}

/// What there is to adopt: a dead writer, or what one has left open. Not where the channel goes on in another block, or is over.
pub(super) fn adoption(block: &Inspector) -> Option<Repair> {
    let (writer, handover) = (writer(block), block.control().handover_state);
    if writer.is_some_and(|writer| !writer.is_dead()) || handover == CUT || handover == DONE {
        return None;
    }
    // Who wants its name sees by the dead writer that it was to go (DH-017).
    if block.life() == BlockLife::Closed {
        return None;
    }
    let slots = block.diagnose_all();
    let open = slots.iter().filter_map(|slot| {
        let state = [SlotState::Writing, SlotState::Draining, SlotState::Quarantined];
        let state = state.into_iter().find(|state| slot.state.is(*state))?;
        let waits = state == SlotState::Quarantined && !slot.owner.is_some_and(|owner| owner.is_dead());
        (!waits).then_some((slot.slot_index, slot.slot_id, state))
    });
    let open: Vec<_> = open.collect();
    let indices = block.indices();
    let newest = slots.iter().filter_map(|slot| slot.slot_id).map(|id| id.saturating_add(1)).max();
    let after = newest.unwrap_or(0).max(indices.write_index);
    let needed = writer.is_some() || !open.is_empty() || indices.commit_index != after;
    needed.then_some(Repair::Adopt { writer, open, commit: (indices.commit_index, after) })
}

fn dead_rows(block: &Inspector) -> Vec<Repair> {
    let consumers = block.consumers();
    let indices = block.indices();
    let alive = consumers.iter().filter(|row| !row.is_dead() && row.state == "active");
    let rises = alive.map(|row| row.cursor.min(indices.commit_index)).min();
    let after = rises.filter(|_| !block.is_lossy()).unwrap_or(indices.read_index).max(indices.read_index);
    let dead = consumers.iter().filter(|row| row.is_dead());
    dead.map(|row| Repair::Reap {
        row: row.row,
        pid: row.pid,
        age: row.heartbeat_age,
        floor: (indices.read_index, after),
    })
    .collect()
}

fn dead_locks(block: &Inspector) -> Vec<Repair> {
    let locks = block.list_locks().into_iter().filter(|lock| lock.kind == LockKind::Spinlock);
    let dead = locks.filter_map(|lock| {
        let owner = lock.owner.filter(|owner| owner.liveness == Liveness::Dead)?;
        Some(Repair::Unlock { lock: lock.index?, label: lock.label, owner })
    });
    dead.collect()
}

/// The successor that the block names, if it is there, is what it says, and nobody uses it.
fn successor(block: &Inspector) -> Option<String> {
    let row = block.views().control.row();
    let name = text(row.bytes::<{ offset_of!(ControlPage, successor_shm_name) }, 128>());
    let uuid = row.bytes::<{ offset_of!(ControlPage, successor_uuid) }, 16>().to_vec();
    let dir = block.block().path().parent()?;
    let options = AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(Role::Inspector) };
    let found = Inspector::open(&name, &options).ok()?;
    let same = found.descriptor().uuid.as_bytes()[..] == uuid[..];
    let unused = found.life() == BlockLife::Reclaimable;
    (same && unused).then_some(name)
}

impl Recovery {
    /// Does everything that is proven to be safe, and returns what it did.
    ///
    /// # Errors
    /// The first step that was refused; the ones before are done.
    pub fn auto_recover(&self) -> Result<Vec<Step>, RecoverError> {
        let mut steps = Vec::new();
        let repairs = plan(&self.inspector);
        let dead = self.dead_consumers();
        for repair in &repairs {
            match repair {
                Repair::Registry { .. } => steps.push(self.repair_registry()?),
                Repair::Adopt { writer, open, .. } => steps.push(self.adopt_planned(*writer, open)?),
                Repair::CancelHandover { .. } => steps.extend(unless_it_went_on(self.cancel_handover())?),
                Repair::FinishHandover => steps.extend(unless_it_went_on(self.finish_handover())?),
                // All at once, below.
                Repair::Reap { .. } => {}
                Repair::Unlock { lock, .. } => steps.extend(unless_it_went_on(self.unlock(*lock, false))?),
            }
        }
        if !dead.is_empty() {
            self.core.reap(self.deadline())?;
            steps.extend(self.report_reaped(&dead));
        }
        Ok(steps)
    }

    fn adopt_planned(
        &self,
        writer: Option<Owner>,
        open: &[(u32, Option<u64>, SlotState)],
    ) -> Result<Step, RecoverError> {
        self.check_slots()?;
        let commit = || self.inspector.indices().commit_index;
        let before = commit();
        let place = self.take_place()?;
        self.adopt(TakeOver::IfDead)?.writer.resign()?;
        drop(place);
        self.count(1, false);
        let mut done = "adopted block".to_owned();
        for (slot, id, state) in open {
            done += &format!(", slot {slot} -> {}", adopted_word(*state));
            if let (SlotState::Writing, Some(id)) = (state, id) {
                done += &format!(", id {id} is a hole");
            }
        }
        let reason =
            writer.map_or_else(|| "no writer".to_owned(), |w| format!("pid {} is dead", w.key.pid()));
        Ok(self.told(Step::new("writer", done, reason).between(&before, &commit())))
    }

    /// 15.6, second row: the old block was never interrupted.
    fn cancel_handover(&self) -> Result<Step, RecoverError> {
        let mut removed = None;
        let first = || {
            // The name before the state: a repair that is killed in between is planned again (DH-262).
            removed = successor(&self.inspector);
            if let (Some(name), Some(dir)) = (&removed, self.block.path().parent()) {
                unless_missing(remove(dir, name))?;
            }
            crash::at(Point::HandoverCancel);
            Ok(())
        };
        self.set_handover(PREPARED, CANCELLED, first, || Ok(()))?;
        let done =
            removed.map_or_else(|| "called off".to_owned(), |name| format!("called off, {name} removed"));
        Ok(self.told(Step::new("handover", done, "its producer is dead").between(&PREPARED, &CANCELLED)))
    }

    /// 15.3, step 6.
    fn finish_handover(&self) -> Result<Step, RecoverError> {
        let before = self.inspector.control().handover_state;
        // As the writer still, since the name may be another block's afterwards. It may be all that is left to do.
        let last = || match self.block.unlink().map_err(RecoverError::from) {
            // Somebody else has finished it meanwhile.
            Err(error) if error.is_gone() && before == DONE => {
                Err(RecoverError::NotStuck { what: "the old name was removed meanwhile" })
            }
            Err(error) if error.is_gone() => Ok(()),
            removed => removed,
        };
        self.set_handover(before, DONE, || Ok(()), last)?;
        let step = Step::new("handover", "finished, the old name is removed", "nobody uses the old block");
        Ok(self.told(step.between(&before, &DONE)))
    }

    /// Moves the handover on as acting writer, after `first` and before `last`. With its end the block is closed.
    fn set_handover(
        &self,
        from: u32,
        to: u32,
        first: impl FnOnce() -> Result<(), RecoverError>,
        last: impl FnOnce() -> Result<(), RecoverError>,
    ) -> Result<(), RecoverError> {
        let control = self.block.writer_views()?.control;
        let place = self.take_place()?;
        let changed = self.core.stand_in(self.deadline(), |_| -> Result<bool, RecoverError> {
            let row = control.row();
            let word = row.u32::<{ offset_of!(ControlPage, handover_state) }>();
            // Of a block that is over, nobody may be reading any more: looked at again, since somebody may have come.
            let unread = || self.inspector.consumers().iter().all(ConsumerInfo::is_dead);
            // Acquire: pairs with the release of the writer before. Only the acting writer stores it.
            if word.load(Ordering::Acquire) != from || to == DONE && !unread() {
                return Ok(false);
            }
            first()?;
            // Release, both: pairs with the acquiring loads of consumers.
            word.store(to, Ordering::Release);
            if to == DONE {
                let closed = InitState::Closed.code();
                row.u32::<{ offset_of!(ControlPage, init_state) }>().store(closed, Ordering::Release);
            }
            self.audit(Operation::Handover, false, 0, from.into(), to.into());
            last()?;
            Ok(true)
        })?;
        drop(place);
        if !changed? {
            return Err(RecoverError::NotStuck { what: "the handover has gone on meanwhile" });
        }
        self.count(1, false);
        Ok(())
    }
}

/// What somebody else has done since it was planned is no step of ours, and no error.
fn unless_it_went_on(step: Result<Step, RecoverError>) -> Result<Option<Step>, RecoverError> {
    match step {
        Ok(step) => Ok(Some(step)),
        Err(RecoverError::NotStuck { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is gone already need not be removed.
fn unless_missing(removed: Result<(), RecoverError>) -> Result<(), RecoverError> {
    match removed {
        Err(RecoverError::Dir(DirError::Missing { .. })) => Ok(()),
        removed => removed,
    }
}

fn remove(dir: &Path, name: &str) -> Result<(), RecoverError> {
    Ok(RegionDir::open_base(dir)?.remove_file(name)?)
}

fn adopted_word(state: SlotState) -> &'static str {
    if state == SlotState::Draining { "COMMITTED" } else { "FREE" }
}

/// What making rows and masks agree can mend.
const MENDED: [&str; 2] = ["mask bits", "reg"];
/// Values of `handover_state` (3.4).
const PREPARED: u32 = 1;
const CUT: u32 = 2;
const DONE: u32 = 3;
const CANCELLED: u32 = 4;
