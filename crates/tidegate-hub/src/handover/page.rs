//! The words of the control page that a handover uses (3.4), and the answer in a consumer's row (3.6).

use std::mem::offset_of;

use tidegate_shm::{
    clock::Nanos,
    region::{Row, RowMut},
    sync::{Ordering, fence},
};

use crate::{
    block::{ConsumerViews, InspectorViews, WriterViews},
    core::codec::SlotId,
    inspect::picture::text,
    layout::{
        BlockUuid,
        pages::{ConsumerRow, ControlPage, SyncPage},
    },
};

/// Where a channel is between two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoverState {
    /// No handover.
    None = 0,
    /// A successor is being made; the channel is here.
    Prepared = 1,
    /// The channel is in the successor.
    Cut = 2,
    /// And nobody is expected here any more.
    Done = 3,
    /// A handover was called off; the channel is here.
    Cancelled = 4,
}

impl HandoverState {
    pub(super) fn from_code(code: u32) -> Option<Self> {
        [Self::None, Self::Prepared, Self::Cut, Self::Done, Self::Cancelled]
            .into_iter()
            .find(|state| *state as u32 == code)
    }

    /// Whether the channel is in the successor.
    pub fn is_cut(self) -> bool {
        matches!(self, Self::Cut | Self::Done)
    }
}

/// What a block says of its handover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// How far it is.
    pub state: HandoverState,
    /// Number of the attempt.
    pub epoch: u32,
    /// The block that follows.
    pub successor: BlockUuid,
    /// Name of its file.
    pub name: String,
    /// First id of the successor, once the channel is there.
    pub first_slot_id: SlotId,
    /// Until when its producer waits for those who follow.
    pub grace_deadline: Nanos,
}

/// The page of a block as somebody who reads it has it.
pub(crate) trait Page {
    fn page(&self) -> Row<'_, 4096>;
}

impl Page for ConsumerViews {
    fn page(&self) -> Row<'_, 4096> {
        self.control.row()
    }
}

impl Page for InspectorViews {
    fn page(&self) -> Row<'_, 4096> {
        self.control.row()
    }
}

impl Page for WriterViews {
    fn page(&self) -> Row<'_, 4096> {
        self.control.row().as_row()
    }
}

/// State and number of the attempt; none for what no writer stores.
fn head(page: &Row<'_, 4096>) -> Option<(HandoverState, u32)> {
    // Acquire, both: pairs with the releasing stores of the writer; who sees a state sees what was stored before it.
    let epoch = page.u32::<{ offset_of!(ControlPage, handover_epoch) }>().load(Ordering::Acquire);
    let state = page.u32::<{ offset_of!(ControlPage, handover_state) }>().load(Ordering::Acquire);
    Some((HandoverState::from_code(state)?, epoch))
}

/// State and number of the attempt, for those who only want to know whether something is new.
pub(crate) fn glance(views: &impl Page) -> (HandoverState, u32) {
    head(&views.page()).unwrap_or((HandoverState::None, 0))
}

/// What the block says of a handover; none while there is no handover, or no sense in the words.
pub(crate) fn observe(views: &impl Page) -> Option<Announcement> {
    let page = views.page();
    for _ in 0..LOOKS {
        let before = head(&page)?;
        if matches!(before.0, HandoverState::None | HandoverState::Cancelled) {
            return None;
        }
        let uuid = page.bytes::<{ offset_of!(ControlPage, successor_uuid) }, 16>().to_vec();
        let name = text(page.bytes::<{ offset_of!(ControlPage, successor_shm_name) }, 128>());
        // Relaxed, both: the acquiring load of the state came before.
        let last = page.u64::<{ offset_of!(ControlPage, cutover_slot_id) }>().load(Ordering::Relaxed);
        let grace = page.u64::<{ offset_of!(ControlPage, grace_deadline_ns) }>().load(Ordering::Relaxed);
        // Pairs with the fence of `Writing::prepare`: who read a byte of a later attempt sees a later state below.
        fence(Ordering::Acquire);
        if head(&page) != Some(before) {
            continue;
        }
        let uuid = <[u8; 16]>::try_from(uuid.as_slice()).ok()?;
        return Some(Announcement {
            state: before.0,
            epoch: before.1,
            successor: BlockUuid::new(uuid).ok()?,
            name,
            first_slot_id: SlotId(last.wrapping_add(1)),
            grace_deadline: Nanos(grace),
        });
    }
    None
}

/// The page as the acting writer has it.
pub(super) struct Writing<'v>(pub(super) RowMut<'v, 4096>);

impl Writing<'_> {
    pub(super) fn state(&self) -> Option<HandoverState> {
        head(&self.0.as_row()).map(|(state, _)| state)
    }

    /// Step 2: names the successor, then says so. Returns the number of the attempt.
    pub(super) fn prepare(&self, successor: &BlockUuid, name: &str, now: Nanos) -> u32 {
        let Self(page) = self;
        // Pairs with the fence of `observe`: the state of the attempt before is stored before these bytes.
        fence(Ordering::Release);
        let mut padded = [0; 128];
        padded.iter_mut().zip(name.bytes().take(127)).for_each(|(place, byte)| *place = byte);
        // The lengths are those of the fields, so the copies cannot fail.
        let _ =
            page.bytes::<{ offset_of!(ControlPage, successor_uuid) }, 16>().copy_from(successor.as_bytes());
        let _ = page.bytes::<{ offset_of!(ControlPage, successor_shm_name) }, 128>().copy_from(&padded);
        // Relaxed: the release of the state publishes it.
        page.u64::<{ offset_of!(ControlPage, handover_started_ns) }>().store(now.0, Ordering::Relaxed);
        let epoch = page.u32::<{ offset_of!(ControlPage, handover_epoch) }>();
        // The high bit of an answer says that it refuses, so no attempt has it.
        let number = epoch.load(Ordering::Relaxed).wrapping_add(1) & !REFUSED;
        // Release, both: pairs with the acquiring loads of `head`.
        epoch.store(number, Ordering::Release);
        self.store_state(HandoverState::Prepared);
        number
    }

    /// The point of no return (DH-222).
    pub(super) fn cut(&self, first_slot_id: SlotId, grace_deadline: Nanos) {
        let Self(page) = self;
        let last = first_slot_id.0.wrapping_sub(1);
        // Relaxed, both: the release of the state publishes them.
        page.u64::<{ offset_of!(ControlPage, cutover_slot_id) }>().store(last, Ordering::Relaxed);
        page.u64::<{ offset_of!(ControlPage, grace_deadline_ns) }>()
            .store(grace_deadline.0, Ordering::Relaxed);
        self.store_state(HandoverState::Cut);
    }

    pub(super) fn store_state(&self, state: HandoverState) {
        // Release: pairs with the acquiring loads of consumers and of whoever adopts.
        self.0.u32::<{ offset_of!(ControlPage, handover_state) }>().store(state as u32, Ordering::Release);
    }
}

/// How many consumers take part.
pub(super) fn active_rows(views: &InspectorViews) -> u32 {
    // Acquire: pairs with the AcqRel of whoever set a bit.
    views.sync.row().u32::<{ offset_of!(SyncPage, active_mask) }>().load(Ordering::Acquire).count_ones()
}

/// What a row answered to attempt `epoch`; none if nothing.
pub(super) fn answer_of(row: &RowMut<'_, 256>, epoch: u32) -> Option<bool> {
    // Acquire: pairs with the release of the consumer's answer.
    let word = row.u32::<{ offset_of!(ConsumerRow, handover_ack) }>().load(Ordering::Acquire);
    (word & !REFUSED == epoch).then_some(word & REFUSED == 0)
}

/// Answers attempt `epoch` in the caller's row.
pub(crate) fn answer(row: &RowMut<'_, 256>, epoch: u32, ready: bool) {
    let word = if ready { epoch } else { epoch | REFUSED };
    // Release: pairs with the acquiring load of the producer.
    row.u32::<{ offset_of!(ConsumerRow, handover_ack) }>().store(word, Ordering::Release);
}

/// How often a page that is being written is looked at again.
const LOOKS: u32 = 1_000;
/// Bit of an answer: the consumer does not come along.
const REFUSED: u32 = 1 << 31;
