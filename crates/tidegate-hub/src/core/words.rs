//! The words of a block, as the protocol sees them: by name, never by address.
//!
//! The names carry the byte offsets of the sheet (3.4 to 3.7). A block in shared memory implements [`Words`] with the
//! views of `tidegate_shm::region`, a model with loom's atomics; the protocol is the same code in both. Consumers map the
//! areas C and P read-only and so have only [`Words`]; the acting writer has [`WriterWords`] as well (DH-010, DH-041).

use tidegate_shm::{
    doorbell::BellWord,
    region::{SharedU32, SharedU32Mut, SharedU64, SharedU64Mut},
    sync::{Arc, Ordering},
};

use super::codec::{Row, SlotIndex};

/// A word that can be loaded.
pub trait Load<V>: Copy {
    /// Loads; whoever asks says with which order and why.
    fn load(self, order: Ordering) -> V;
}

/// A word that can be changed.
pub trait Word<V>: Load<V> {
    /// Stores.
    fn store(self, value: V, order: Ordering);
    /// Replaces `current` by `new`.
    ///
    /// # Errors
    /// The value found, when it is not `current`.
    fn compare_exchange(self, current: V, new: V, order: Ordering) -> Result<V, V>;
    /// Adds, wrapping around, and returns the value before.
    fn fetch_add(self, value: V, order: Ordering) -> V;
}

/// The words of one slot record. Which one it is was looked up already.
pub trait SlotWords: Copy {
    /// A 64-bit word of it.
    type W64: Load<u64>;
    /// A 32-bit word of it.
    type W32: Load<u32>;

    /// A word of the record.
    fn word64(self, field: Slot64) -> Self::W64;
    /// A word of the record.
    fn word32(self, field: Slot32) -> Self::W32;
}

/// The words of the areas C, S and P. The protocol asks only for rows below `max_consumers` and for slots below
/// `slot_count`.
pub trait Words {
    /// A 64-bit word of the areas C and P.
    type C64<'a>: Load<u64>
    where
        Self: 'a;
    /// A 32-bit word of the areas C and P.
    type C32<'a>: Load<u32> + BellWord
    where
        Self: 'a;
    /// A slot record.
    type Slot<'a>: SlotWords
    where
        Self: 'a;
    /// A 64-bit word of area S.
    type S64<'a>: Word<u64>
    where
        Self: 'a;
    /// A 32-bit word of area S.
    type S32<'a>: Word<u32> + BellWord
    where
        Self: 'a;

    /// A word of the control page.
    fn control64(&self, field: Control64) -> Self::C64<'_>;
    /// A word of the control page.
    fn control32(&self, field: Control32) -> Self::C32<'_>;
    /// A slot record.
    fn slot(&self, slot: SlotIndex) -> Self::Slot<'_>;
    /// A word of the sync page.
    fn sync64(&self, field: Sync64) -> Self::S64<'_>;
    /// A word of the sync page.
    fn sync32(&self, field: Sync32) -> Self::S32<'_>;
    /// A word of a row of the consumer table.
    fn row64(&self, row: Row, field: Row64) -> Self::S64<'_>;
    /// A word of a row of the consumer table.
    fn row32(&self, row: Row, field: Row32) -> Self::S32<'_>;
    /// A slot is going to be read: its first lines may be fetched already.
    fn expect_read(&self, _slot: SlotIndex) {}
    /// The claim of a row is going to be looked at.
    fn expect_claim(&self, _row: Row) {}
    /// The claim of a row is going to be stored.
    fn expect_to_claim(&self, _row: Row) {}
    /// Writes who a row belongs to, for people; the row is JOINING.
    fn write_names(&self, row: Row, names: &RowNames);
}

/// The same words for the acting writer.
pub trait WriterWords: Words {
    /// A 64-bit word of the areas C and P.
    type W64<'a>: Word<u64>
    where
        Self: 'a;
    /// A 32-bit word of the areas C and P.
    type W32<'a>: Word<u32> + BellWord
    where
        Self: 'a;
    /// A slot record.
    type SlotMut<'a>: SlotWords<W64: Word<u64>, W32: Word<u32>>
    where
        Self: 'a;

    /// A word of the control page.
    fn control64_mut(&self, field: Control64) -> Self::W64<'_>;
    /// A word of the control page.
    fn control32_mut(&self, field: Control32) -> Self::W32<'_>;
    /// A slot record.
    fn slot_mut(&self, slot: SlotIndex) -> Self::SlotMut<'_>;
    /// A slot is going to be written: its first lines may be fetched already.
    fn expect_write(&self, _slot: SlotIndex) {}
}

/// What a row says about its owner besides the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowNames {
    /// Unique id of the consumer.
    pub uid: [u8; 40],
    /// Name of the consumer, padded with zeros.
    pub name: [u8; 32],
    /// Inode of its pid namespace.
    pub pid_namespace: u64,
}

/// Defines the names of words of one structure with their offsets in bytes.
macro_rules! fields {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident = $offset:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $field,)* }

        impl $name {
            /// All of them; a field's place in here is its discriminant.
            pub const ALL: &[Self] = &[$(Self::$field,)*];

            /// Bytes from the start of the structure.
            pub const fn offset(self) -> u64 {
                match self { $(Self::$field => $offset,)* }
            }
        }
    };
}

fields! {
    /// 64-bit words of the control page; offsets from the start of the page (DH-014).
    Control64 {
        /// Key of the acting writer, 0 = vacant.
        WriterOwner = 0x08,
        /// Number of changes of the writer.
        WriterEpoch = 0x10,
        /// Next id to allocate.
        WriteIndex = 0x40,
        /// Exclusive end of the resolved prefix.
        CommitIndex = 0x80,
        /// Tag of the newest committed id below the commit index.
        LatestTag = 0x88,
        /// The floor.
        ReadIndex = 0xC0,
        /// The floor that the writer is about to set.
        FloorIntent = 0xC8,
    }
}

fields! {
    /// 32-bit words of the control page; offsets from the start of the page.
    Control32 {
        /// See [`InitState`](super::codec::InitState).
        InitState = 0x00,
        /// What was done by force.
        Taint = 0x04,
        /// What consumers sleep on.
        DataSeq = 0x90,
        /// See section 15 of the sheet.
        HandoverState = 0x100,
    }
}

fields! {
    /// 64-bit words of a slot record.
    Slot64 {
        /// Tag and state.
        Ctl = 0x00,
        /// When the state was entered.
        StateSince = 0x08,
        /// When the slot was committed.
        CommitNs = 0x10,
        /// The user's.
        UserFlags = 0x18,
        /// Key of the writer while it holds the slot.
        Owner = 0x20,
        /// Length of the payload in bytes.
        PayloadLen = 0x28,
    }
}

fields! {
    /// 32-bit words of a slot record.
    Slot32 {
        /// What is known about the digest.
        SlotFlags = 0x30,
        /// Ticket of the thread that holds the slot.
        OwnerThread = 0x34,
    }
}

fields! {
    /// 64-bit words of the sync page. The first three belong to the maintenance lock.
    Sync64 {
        /// Key of the holder, 0 = free.
        LockOwner = 0x00,
        /// Number of acquisitions.
        LockGeneration = 0x08,
        /// When it was acquired.
        LockAcquired = 0x10,
        /// Number of membership changes.
        RegistryEpoch = 0x48,
        /// 1 + the smallest unread id that the last consumer left behind.
        ResumeTag = 0x50,
    }
}

fields! {
    /// 32-bit words of the sync page.
    Sync32 {
        /// What waiters for the maintenance lock sleep on.
        LockWake = 0x20,
        /// Whether there may be such waiters.
        LockWaiters = 0x24,
        /// Flags of the maintenance lock.
        LockFlags = 0x28,
        /// Rows that take part.
        ActiveMask = 0x40,
        /// Rows that lost the right of their cursor.
        EvictedMask = 0x44,
        /// Whether consumers may sleep.
        DataWaiters = 0x80,
        /// Whether the writer may sleep.
        DrainWaiters = 0xC0,
        /// What the writer sleeps on.
        DrainSeq = 0xC4,
    }
}

fields! {
    /// 64-bit words of a row.
    Row64 {
        /// Epoch and state.
        Reg = 0x00,
        /// Key of the consumer.
        Owner = 0x08,
        /// Next id to be consumed.
        Cursor = 0x10,
        /// The ids that are being read.
        Claim = 0x18,
        /// When the consumer last beat.
        Heartbeat = 0x20,
        /// Since when the claim stands.
        ClaimSince = 0x28,
        /// First id that was promised.
        StartId = 0x38,
        /// Slots consumed.
        SlotsConsumed = 0x40,
        /// Bytes consumed.
        BytesConsumed = 0x48,
        /// Ids overwritten before they were read.
        SlotsLost = 0x50,
        /// Holes stepped over.
        HolesSeen = 0x58,
        /// Digests that did not match.
        DigestFailures = 0x60,
        /// Beats.
        Heartbeats = 0x68,
        /// When it joined.
        JoinedNs = 0x70,
        /// Reads that ended in a timeout.
        ReadTimeouts = 0x78,
    }
}

fields! {
    /// 32-bit words of a row.
    Row32 {
        /// What is special about the row.
        Flags = 0x34,
        /// The handover that was answered; high bit: refused.
        HandoverAck = 0x30,
    }
}

impl<T: Words> Words for Arc<T> {
    type C64<'a>
        = T::C64<'a>
    where
        Self: 'a;
    type C32<'a>
        = T::C32<'a>
    where
        Self: 'a;
    type Slot<'a>
        = T::Slot<'a>
    where
        Self: 'a;
    type S64<'a>
        = T::S64<'a>
    where
        Self: 'a;
    type S32<'a>
        = T::S32<'a>
    where
        Self: 'a;

    fn control64(&self, field: Control64) -> T::C64<'_> {
        T::control64(self, field)
    }
    fn control32(&self, field: Control32) -> T::C32<'_> {
        T::control32(self, field)
    }
    fn slot(&self, slot: SlotIndex) -> T::Slot<'_> {
        T::slot(self, slot)
    }
    fn sync64(&self, field: Sync64) -> T::S64<'_> {
        T::sync64(self, field)
    }
    fn sync32(&self, field: Sync32) -> T::S32<'_> {
        T::sync32(self, field)
    }
    fn row64(&self, row: Row, field: Row64) -> T::S64<'_> {
        T::row64(self, row, field)
    }
    fn row32(&self, row: Row, field: Row32) -> T::S32<'_> {
        T::row32(self, row, field)
    }
    fn expect_read(&self, slot: SlotIndex) {
        T::expect_read(self, slot);
    }
    fn expect_claim(&self, row: Row) {
        T::expect_claim(self, row);
    }
    fn expect_to_claim(&self, row: Row) {
        T::expect_to_claim(self, row);
    }
    fn write_names(&self, row: Row, names: &RowNames) {
        T::write_names(self, row, names);
    }
}

impl<T: WriterWords> WriterWords for Arc<T> {
    type W64<'a>
        = T::W64<'a>
    where
        Self: 'a;
    type W32<'a>
        = T::W32<'a>
    where
        Self: 'a;
    type SlotMut<'a>
        = T::SlotMut<'a>
    where
        Self: 'a;

    fn control64_mut(&self, field: Control64) -> T::W64<'_> {
        T::control64_mut(self, field)
    }
    fn control32_mut(&self, field: Control32) -> T::W32<'_> {
        T::control32_mut(self, field)
    }
    fn slot_mut(&self, slot: SlotIndex) -> T::SlotMut<'_> {
        T::slot_mut(self, slot)
    }
    fn expect_write(&self, slot: SlotIndex) {
        T::expect_write(self, slot);
    }
}

/// Words of a mapping are words of a block.
macro_rules! mapped {
    ($load:ident, $update:ident, $value:ty) => {
        impl Load<$value> for $load<'_> {
            #[inline]
            fn load(self, order: Ordering) -> $value {
                $load::load(&self, order)
            }
        }

        impl Load<$value> for $update<'_> {
            #[inline]
            fn load(self, order: Ordering) -> $value {
                $update::load(&self, order)
            }
        }

        impl Word<$value> for $update<'_> {
            #[inline]
            fn store(self, value: $value, order: Ordering) {
                $update::store(&self, value, order);
            }
            #[inline]
            fn compare_exchange(
                self,
                current: $value,
                new: $value,
                order: Ordering,
            ) -> Result<$value, $value> {
                $update::compare_exchange(&self, current, new, order)
            }
            #[inline]
            fn fetch_add(self, value: $value, order: Ordering) -> $value {
                $update::fetch_add(&self, value, order)
            }
        }
    };
}

mapped!(SharedU32, SharedU32Mut, u32);
mapped!(SharedU64, SharedU64Mut, u64);
