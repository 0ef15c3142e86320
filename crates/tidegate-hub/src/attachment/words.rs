//! The words of a block by the names of the core, over the views that were checked when the block was mapped.
//!
//! The core asks for rows and slots of the private descriptor only, of which the views have exactly as many. Should it
//! ask for another one all the same, it gets a record that lies in no block: all zeros at first, which reads as a slot
//! that is FREE and a row that is nobody's.

use std::mem::offset_of;

use tidegate_shm::region::{Row as SlotRow, RowMut, SharedU32, SharedU32Mut, SharedU64, SharedU64Mut};

use crate::{
    block::{ConsumerViews, WriterViews},
    core::{
        codec::{Row, SlotIndex},
        words::{
            Control32, Control64, Row32, Row64, RowNames, Slot32, Slot64, SlotWords, Sync32, Sync64, Words,
            WriterWords as WriterWordsOfCore,
        },
    },
    layout::pages::{ConsumerRow, ControlPage, LockRecord, SlotRecord, SyncPage},
};

/// The words that a consumer uses: it changes those of area S only.
#[derive(Debug, Clone)]
pub struct ConsumerWords {
    views: ConsumerViews,
}

impl ConsumerWords {
    /// The words of these views.
    pub fn new(views: ConsumerViews) -> Self {
        Self { views }
    }

    /// The views.
    #[inline]
    pub fn views(&self) -> &ConsumerViews {
        &self.views
    }
}

/// The words that the acting writer uses.
#[derive(Debug, Clone)]
pub struct WriterWords {
    views: WriterViews,
}

impl WriterWords {
    /// The words of these views.
    pub fn new(views: WriterViews) -> Self {
        Self { views }
    }

    /// The views.
    #[inline]
    pub fn views(&self) -> &WriterViews {
        &self.views
    }
}

/// Defines the choice of a word by its name, and proves that the core and the layout agree on where it lies.
macro_rules! places {
    ($($name:ident: $fields:ident => $size:literal $width:ident of $page:ident { $($field:ident = $member:ident $(.$of:ident::$inner:ident)?,)* })*) => {
        $(
            const _: () = {
                $(assert!($fields::$field.offset() == places!(@at $page, $member $(, $of, $inner)?) as u64);)*
            };

            macro_rules! $name {
                ($row:expr, $which:expr) => {{
                    let row = $row;
                    match $which {
                        $($fields::$field => row.$width::<{ places!(@at $page, $member $(, $of, $inner)?) }>(),)*
                    }
                }};
            }
        )*
    };
    (@at $page:ident, $member:ident) => { offset_of!($page, $member) };
    (@at $page:ident, $member:ident, $of:ident, $inner:ident) => { offset_of!($page, $member) + offset_of!($of, $inner) };
}

places! {
    control64: Control64 => 4096 u64 of ControlPage {
        WriterOwner = writer_owner,
        WriterEpoch = writer_epoch,
        WriteIndex = write_index,
        CommitIndex = commit_index,
        LatestTag = latest_tag,
        ReadIndex = read_index,
        FloorIntent = floor_intent,
    }
    control32: Control32 => 4096 u32 of ControlPage {
        InitState = init_state,
        Taint = taint,
        DataSeq = data_seq,
        HandoverState = handover_state,
    }
    slot64: Slot64 => 64 u64 of SlotRecord {
        Ctl = ctl,
        StateSince = state_since_ns,
        CommitNs = commit_ns,
        UserFlags = user_flags,
        Owner = owner,
        PayloadLen = payload_len,
    }
    slot32: Slot32 => 64 u32 of SlotRecord {
        SlotFlags = slot_flags,
        OwnerThread = owner_thread,
    }
    sync64: Sync64 => 4096 u64 of SyncPage {
        LockOwner = maintenance_lock.LockRecord::owner,
        LockGeneration = maintenance_lock.LockRecord::generation,
        LockAcquired = maintenance_lock.LockRecord::acquired_ns,
        RegistryEpoch = registry_epoch,
        ResumeTag = resume_tag,
    }
    sync32: Sync32 => 4096 u32 of SyncPage {
        LockWake = maintenance_lock.LockRecord::wake_seq,
        LockWaiters = maintenance_lock.LockRecord::waiters,
        LockFlags = maintenance_lock.LockRecord::flags,
        ActiveMask = active_mask,
        EvictedMask = evicted_mask,
        DataWaiters = data_waiters,
        DrainWaiters = drain_waiters,
        DrainSeq = drain_seq,
    }
    row64: Row64 => 256 u64 of ConsumerRow {
        Reg = reg,
        Owner = owner,
        Cursor = cursor,
        Claim = claim,
        Heartbeat = last_heartbeat_ns,
        ClaimSince = claim_since_ns,
        StartId = start_id,
        SlotsConsumed = slots_consumed,
        BytesConsumed = bytes_consumed,
        SlotsLost = slots_lost,
        HolesSeen = holes_seen,
        DigestFailures = digest_failures,
        Heartbeats = heartbeats,
        JoinedNs = joined_ns,
        ReadTimeouts = read_timeouts,
    }
    row32: Row32 => 256 u32 of ConsumerRow {
        Flags = flags,
        HandoverAck = handover_ack,
    }
}

/// Implements [`Words`] for the views of one role.
macro_rules! words {
    ($name:ident, $word64:ident, $word32:ident, $row:ident, $slot:ident) => {
        impl Words for $name {
            type C64<'a> = $word64<'a>;
            type C32<'a> = $word32<'a>;
            type Slot<'a> = $row<'a, 64>;
            type S64<'a> = SharedU64Mut<'a>;
            type S32<'a> = SharedU32Mut<'a>;

            #[inline]
            fn control64(&self, field: Control64) -> $word64<'_> {
                control64!(self.views.control.row(), field)
            }
            #[inline]
            fn control32(&self, field: Control32) -> $word32<'_> {
                control32!(self.views.control.row(), field)
            }
            #[inline]
            fn slot(&self, slot: SlotIndex) -> $row<'_, 64> {
                $slot(self, slot)
            }
            #[inline]
            fn sync64(&self, field: Sync64) -> SharedU64Mut<'_> {
                sync64!(self.views.sync.row(), field)
            }
            #[inline]
            fn sync32(&self, field: Sync32) -> SharedU32Mut<'_> {
                sync32!(self.views.sync.row(), field)
            }
            #[inline]
            fn row64(&self, row: Row, field: Row64) -> SharedU64Mut<'_> {
                row64!(self.views.consumers.row(row.0).unwrap_or_else(RowMut::nowhere), field)
            }
            #[inline]
            fn row32(&self, row: Row, field: Row32) -> SharedU32Mut<'_> {
                row32!(self.views.consumers.row(row.0).unwrap_or_else(RowMut::nowhere), field)
            }

            #[inline]
            fn expect_read(&self, slot: SlotIndex) {
                $slot(self, slot).fetch();
                if let Some(payload) = self.views.payloads.get(slot.0) {
                    payload.fetch();
                }
            }

            #[inline]
            fn expect_claim(&self, row: Row) {
                // It is in the first line.
                self.views.consumers.row(row.0).unwrap_or_else(RowMut::nowhere).as_row().fetch();
            }
            #[inline]
            fn expect_to_claim(&self, row: Row) {
                self.views.consumers.row(row.0).unwrap_or_else(RowMut::nowhere).fetch();
            }

            fn write_names(&self, row: Row, names: &RowNames) {
                if let Some(row) = self.views.consumers.row(row.0) {
                    write_names(row, names);
                }
            }
        }

        impl<'a> SlotWords for $row<'a, 64> {
            type W64 = $word64<'a>;
            type W32 = $word32<'a>;

            #[inline]
            fn word64(self, field: Slot64) -> $word64<'a> {
                slot64!(self, field)
            }
            #[inline]
            fn word32(self, field: Slot32) -> $word32<'a> {
                slot32!(self, field)
            }
        }
    };
}

words!(ConsumerWords, SharedU64, SharedU32, SlotRow, consumer_slot);
words!(WriterWords, SharedU64Mut, SharedU32Mut, RowMut, writer_slot);

impl WriterWordsOfCore for WriterWords {
    type W64<'a> = SharedU64Mut<'a>;
    type W32<'a> = SharedU32Mut<'a>;
    type SlotMut<'a> = RowMut<'a, 64>;

    #[inline]
    fn control64_mut(&self, field: Control64) -> SharedU64Mut<'_> {
        self.control64(field)
    }
    #[inline]
    fn control32_mut(&self, field: Control32) -> SharedU32Mut<'_> {
        self.control32(field)
    }
    #[inline]
    fn slot_mut(&self, slot: SlotIndex) -> RowMut<'_, 64> {
        writer_slot(self, slot)
    }
    #[inline]
    fn expect_write(&self, slot: SlotIndex) {
        writer_slot(self, slot).fetch();
        if let Some(payload) = self.views.payloads.get(slot.0) {
            payload.fetch();
        }
    }
}

#[inline]
fn consumer_slot(words: &ConsumerWords, slot: SlotIndex) -> SlotRow<'_, 64> {
    words.views.slot_records.row(slot.0).unwrap_or_else(|| RowMut::nowhere().as_row())
}

#[inline]
fn writer_slot(words: &WriterWords, slot: SlotIndex) -> RowMut<'_, 64> {
    words.views.slot_records.row(slot.0).unwrap_or_else(RowMut::nowhere)
}

fn write_names(row: RowMut<'_, 256>, names: &RowNames) {
    let RowNames { uid, name, pid_namespace } = names;
    // The lengths are those of the fields, so the copies cannot fail.
    let _ = row.bytes::<{ offset_of!(ConsumerRow, uid) }, 40>().copy_from(uid);
    let _ = row.bytes::<{ offset_of!(ConsumerRow, name) }, 32>().copy_from(name);
    // Relaxed: for people.
    row.u64::<{ offset_of!(ConsumerRow, pidns_inode) }>()
        .store(*pid_namespace, tidegate_shm::sync::Ordering::Relaxed);
}
