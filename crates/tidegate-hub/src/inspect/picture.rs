//! Private copies of the structures that others change: each word loaded once, in an order in which a healthy block
//! does not look impossible.

use std::mem::offset_of;

use tidegate_shm::{
    region::{Row, Span},
    sync::Ordering,
};

use crate::layout::pages::{
    AuditEntry, ConsumerRow, ControlPage, DigestEntry, LockRecord, SlotRecord, SyncPage, ZoneControl,
};

/// Defines a copy of some words of a structure, loaded from the first to the last one.
macro_rules! copied {
    ($(#[$doc:meta])* $name:ident of $page:ident { $($field:ident: $word:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[allow(missing_docs, reason = "named as in the tables of the sheet")]
        pub struct $name {
            $(pub $field: $word,)*
        }

        impl $name {
            /// Loads each word once, in the order of the fields here.
            pub fn load(row: Row<'_, { size_of::<$page>() }>) -> Self {
                // Acquire, each: pairs with the release stores of the owners, so that no later load is older than an
                // earlier one.
                Self { $($field: row.$word::<{ offset_of!($page, $field) }>().load(Ordering::Acquire),)* }
            }
        }
    };
}

copied! {
    /// The control page but for the indices, which [`Indices`] has.
    Control of ControlPage {
        init_state: u32,
        taint: u32,
        writer_owner: u64,
        writer_epoch: u64,
        writer_heartbeat_ns: u64,
        writer_attached_ns: u64,
        closed_ns: u64,
        handover_state: u32,
        handover_epoch: u32,
        cutover_slot_id: u64,
        grace_deadline_ns: u64,
        handover_started_ns: u64,
    }
}

copied! {
    /// The indices, from the slowest to the fastest: what is loaded later can only be further.
    Indices of ControlPage {
        read_index: u64,
        floor_intent: u64,
        latest_tag: u64,
        commit_index: u64,
        write_index: u64,
    }
}

copied! {
    /// The sync page but for the lock and the audit ring.
    Sync of SyncPage {
        active_mask: u32,
        evicted_mask: u32,
        registry_epoch: u64,
        resume_tag: u64,
        data_waiters: u32,
        drain_waiters: u32,
        audit_seq: u64,
    }
}

copied! {
    /// A lock.
    Lock of LockRecord {
        owner: u64,
        generation: u64,
        acquired_ns: u64,
        owner_thread: u32,
        recursion: u32,
        waiters: u32,
        flags: u32,
        zone_index: u32,
    }
}

copied! {
    /// A row of the consumer table but for its names.
    ConsumerWords of ConsumerRow {
        reg: u64,
        owner: u64,
        cursor: u64,
        claim: u64,
        last_heartbeat_ns: u64,
        claim_since_ns: u64,
        handover_ack: u32,
        flags: u32,
        start_id: u64,
        slots_consumed: u64,
        bytes_consumed: u64,
        slots_lost: u64,
        holes_seen: u64,
        digest_failures: u64,
        heartbeats: u64,
        joined_ns: u64,
        read_timeouts: u64,
        pidns_inode: u64,
    }
}

copied! {
    /// A slot record.
    Slot of SlotRecord {
        ctl: u64,
        state_since_ns: u64,
        commit_ns: u64,
        user_flags: u64,
        owner: u64,
        payload_len: u64,
        slot_flags: u32,
        owner_thread: u32,
    }
}

copied! {
    /// A digest entry but for the digest.
    Digest of DigestEntry {
        tag: u64,
        len: u64,
        key_epoch: u32,
        computed_ns: u64,
    }
}

copied! {
    /// The control line of a zone but for the digest.
    Zone of ZoneControl {
        write_generation: u64,
        last_writer: u64,
        last_write_ns: u64,
        digest_generation: u64,
    }
}

copied! {
    /// An entry of the audit ring.
    Audit of AuditEntry {
        sequence: u64,
        realtime_ns: u64,
        actor: u64,
        operation: u32,
        flags: u32,
        target: u64,
        before: u64,
        after: u64,
    }
}

/// A text in a field that is padded with zeros. Anything may stand there; what is no printable text is replaced.
pub(crate) fn text(field: Span<'_>) -> String {
    let bytes = field.to_vec();
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(bytes).chars().map(plain).collect()
}

/// The first byte of a reserved field that is not zero, and its place in it.
pub(super) fn first_set(field: Span<'_>) -> Option<(usize, u8)> {
    field.to_vec().into_iter().enumerate().find(|(_, byte)| *byte != 0)
}
