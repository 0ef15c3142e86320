//! Slots: what state they are in, since when, for whom.

use std::{mem::offset_of, time::Duration};

use serde::{Serialize, Serializer};
use tidegate_shm::sync::Ordering;

use super::{
    ConsumerInfo, Inspector, Owner, ReaderInfo,
    owner::millis,
    picture::{Digest, Slot},
};
use crate::{
    block::registry::Place,
    core::codec::{Ctl, SlotId, SlotState},
    layout::pages::{SlotRecord, SyncPage},
    metrics::option_as_text,
};

/// State of a slot, or what stands in place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotCondition {
    /// One of the five states.
    Valid(SlotState),
    /// A code that stands for nothing.
    Invalid(u8),
}

impl SlotCondition {
    fn of(ctl: Ctl) -> Self {
        ctl.state().map_or(Self::Invalid((ctl.0 & 7) as u8), Self::Valid)
    }

    /// Whether the slot is in `state`.
    pub fn is(self, state: SlotState) -> bool {
        self == Self::Valid(state)
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid(SlotState::Free) => "FREE",
            Self::Valid(SlotState::Writing) => "WRITING",
            Self::Valid(SlotState::Committed) => "COMMITTED",
            Self::Valid(SlotState::Draining) => "DRAINING",
            Self::Valid(SlotState::Quarantined) => "QUARANTINED",
            Self::Invalid(_) => "INVALID",
        }
    }

    /// Whether somebody is to finish what it is doing.
    fn is_in_between(self) -> bool {
        self.is(SlotState::Writing) || self.is(SlotState::Draining)
    }
}

impl Serialize for SlotCondition {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.word())
    }
}

/// What is known about a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestState {
    /// There is none.
    None,
    /// There is one; it was not compared.
    Present,
    /// It is that of the payload.
    Ok,
    /// It is not.
    Bad,
}

/// What to do about a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recommendation {
    /// Nothing.
    None,
    /// Its owner is dead: it can be reset, or the producer be started again.
    ResetSlot,
    /// A dead consumer reads it: let its row be reaped.
    ReleaseZombies,
    /// Its owner lives: look at that process.
    InspectOwner,
    /// A consumer has been reading it for long: look at that process.
    InspectReader,
    /// The displaced writer still lives: it is free when that ends.
    AwaitOwner,
    /// Its words are impossible.
    Validate,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotDiagnostic {
    /// Its number.
    #[serde(rename = "index")]
    pub slot_index: u32,
    /// The id it was last used for.
    #[serde(rename = "id", serialize_with = "option_as_text")]
    pub slot_id: Option<u64>,
    /// How often it was used.
    #[serde(serialize_with = "option_as_text")]
    pub generation: Option<u64>,
    /// Its state.
    pub state: SlotCondition,
    /// Who works on it.
    pub owner: Option<Owner>,
    /// The ticket of the thread that does.
    pub owner_thread: u32,
    /// Who reads it.
    pub readers: Vec<ReaderInfo>,
    /// How many they are.
    pub reader_count: usize,
    /// Whether the writer sleeps until it can have this slot.
    pub writer_waiting: bool,
    /// Bytes of payload, if it holds a value.
    #[serde(serialize_with = "option_as_text")]
    pub payload_len: Option<u64>,
    /// How long it has been in this state.
    #[serde(rename = "age_ms", serialize_with = "millis")]
    pub age: Option<Duration>,
    /// Whether it is stuck (DH-252).
    #[serde(rename = "stuck")]
    pub is_stuck: bool,
    /// For how long.
    #[serde(rename = "stuck_for_ms", serialize_with = "millis")]
    pub stuck_for: Option<Duration>,
    /// What is known about its digest.
    pub digest: DigestState,
    /// What to do about it.
    pub recommendation: Recommendation,
    /// It changed while it was looked at, each time; the values need not belong together (DH-251).
    pub moving: bool,
}

impl Inspector {
    /// Looks at one slot; `None` if there is none of that number.
    pub fn diagnose_slot(&self, index: u32) -> Option<SlotDiagnostic> {
        self.look_at_slot(index, &self.consumers())
    }

    /// Looks at all slots.
    pub fn diagnose_all(&self) -> Vec<SlotDiagnostic> {
        let consumers = self.consumers();
        let slots = 0..self.descriptor().spec.slot_count;
        slots.filter_map(|index| self.look_at_slot(index, &consumers)).collect()
    }

    /// The slots that are stuck; `threshold` replaces the age from which on writing and draining count as such.
    pub fn find_stuck_slots(&self, threshold: Option<Duration>) -> Vec<SlotDiagnostic> {
        let mut slots = self.diagnose_all();
        let wanted = threshold.unwrap_or(self.thresholds().stuck_write);
        for slot in &mut slots {
            let old = slot.state.is_in_between() && slot.age.is_some_and(|age| age >= wanted);
            let by_age = slot.state.is_in_between() && !slot.owner.is_some_and(|owner| owner.is_dead());
            if by_age {
                slot.is_stuck = old;
            }
        }
        slots.retain(|slot| slot.is_stuck);
        slots
    }

    /// State and id of a slot.
    pub(crate) fn slot_condition(&self, index: u32) -> Option<(SlotCondition, Option<u64>)> {
        let ctl = self.ctl(index)?;
        Some((SlotCondition::of(ctl), SlotId::of_tag(ctl.tag()).map(|id| id.0)))
    }

    pub(crate) fn ctl(&self, index: u32) -> Option<Ctl> {
        let row = self.views().slot_records.row(index)?;
        // Acquire: pairs with the exchange that stored it, so that the fields loaded after it are not older.
        Some(Ctl(row.u64::<{ offset_of!(SlotRecord, ctl) }>().load(Ordering::Acquire)))
    }

    fn look_at_slot(&self, index: u32, consumers: &[ConsumerInfo]) -> Option<SlotDiagnostic> {
        let row = self.views().slot_records.row(index)?;
        let mut slot = Slot::load(row);
        let mut moving = self.ctl(index)? != Ctl(slot.ctl);
        for _ in 0..RETRIES {
            if !moving {
                break;
            }
            slot = Slot::load(row);
            moving = self.ctl(index)? != Ctl(slot.ctl);
        }
        Some(self.judge_slot(index, &slot, moving, consumers))
    }

    fn judge_slot(
        &self,
        index: u32,
        slot: &Slot,
        moving: bool,
        consumers: &[ConsumerInfo],
    ) -> SlotDiagnostic {
        let spec = &self.descriptor().spec;
        let ctl = Ctl(slot.ctl);
        let state = SlotCondition::of(ctl);
        let id = SlotId::of_tag(ctl.tag());
        let reads = |consumer: &&ConsumerInfo| id.is_some_and(|id| consumer.claim.covers(id));
        let readers: Vec<ReaderInfo> = consumers.iter().filter(reads).map(ReaderInfo::from).collect();
        let held = state.is_in_between() || state.is(SlotState::Quarantined);
        let owner = if held { self.owner(slot.owner, Place::Writer) } else { None };
        let holds_value = state.is(SlotState::Committed) || state.is(SlotState::Draining);
        let since = if state.is(SlotState::Committed) { slot.commit_ns } else { slot.state_since_ns };
        let age = id.and_then(|_| self.age(since));
        let (is_stuck, stuck_for) = self.stuck(state, owner, age, &readers);
        let writer_waiting = self.writer_waits() && (state.is(SlotState::Draining) || self.is_next(index));
        SlotDiagnostic {
            slot_index: index,
            slot_id: id.map(|id| id.0),
            generation: id
                .and_then(|id| id.0.checked_sub(spec.first_slot_id))
                .map(|past| 1 + past / u64::from(spec.slot_count.max(1))),
            state,
            owner,
            owner_thread: slot.owner_thread,
            reader_count: readers.len(),
            recommendation: recommend(
                state,
                owner,
                is_stuck && !moving,
                &readers,
                self.thresholds().stuck_read,
            ),
            readers,
            writer_waiting,
            payload_len: holds_value.then_some(slot.payload_len),
            age,
            is_stuck: is_stuck && !moving,
            stuck_for,
            digest: self.digest_state(index, slot),
            moving,
        }
    }

    /// DH-252.
    fn stuck(
        &self,
        state: SlotCondition,
        owner: Option<Owner>,
        age: Option<Duration>,
        readers: &[ReaderInfo],
    ) -> (bool, Option<Duration>) {
        let limits = self.thresholds();
        let dead = owner.is_some_and(|owner| owner.is_dead());
        if state.is_in_between() && (dead || age.is_some_and(|age| age >= limits.stuck_write)) {
            return (true, age);
        }
        if state.is(SlotState::Quarantined) && dead {
            return (true, age);
        }
        let stuck_reader = readers.iter().find(|reader| is_stuck_reader(reader, limits.stuck_read));
        (stuck_reader.is_some(), stuck_reader.and_then(|reader| reader.since))
    }

    /// Whether there is a digest for what the slot holds.
    fn digest_state(&self, index: u32, slot: &Slot) -> DigestState {
        let Some(entry) = self.views().digests.row(index).map(Digest::load) else {
            return DigestState::None;
        };
        let present = slot.slot_flags & SLOT_HAS_DIGEST != 0 && entry.tag == Ctl(slot.ctl).tag();
        if present { DigestState::Present } else { DigestState::None }
    }

    fn writer_waits(&self) -> bool {
        let flag = self.views().sync.row().u32::<{ offset_of!(SyncPage, drain_waiters) }>();
        // Relaxed: for people.
        flag.load(Ordering::Relaxed) != 0
    }

    fn is_next(&self, index: u32) -> bool {
        self.slot_of(SlotId(self.indices().write_index)) == index
    }
}

fn is_stuck_reader(reader: &ReaderInfo, stuck_read: Duration) -> bool {
    reader.liveness == crate::identity::Liveness::Dead
        || reader.since.is_some_and(|since| since >= stuck_read)
}

fn recommend(
    state: SlotCondition,
    owner: Option<Owner>,
    is_stuck: bool,
    readers: &[ReaderInfo],
    stuck_read: Duration,
) -> Recommendation {
    let dead = owner.is_some_and(|owner| owner.is_dead());
    match state {
        SlotCondition::Invalid(_) => Recommendation::Validate,
        SlotCondition::Valid(SlotState::Quarantined) if !dead => Recommendation::AwaitOwner,
        _ if !is_stuck => Recommendation::None,
        _ if dead => Recommendation::ResetSlot,
        _ if state.is_in_between() => Recommendation::InspectOwner,
        _ => {
            let stuck = readers.iter().find(|reader| is_stuck_reader(reader, stuck_read));
            let dead = stuck.is_some_and(|reader| reader.liveness == crate::identity::Liveness::Dead);
            if dead { Recommendation::ReleaseZombies } else { Recommendation::InspectReader }
        }
    }
}

/// How often a slot that changes is looked at again.
const RETRIES: u32 = 5;
/// Slot flag: there is a digest.
pub(super) const SLOT_HAS_DIGEST: u32 = 1;
