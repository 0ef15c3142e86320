//! Every structure of a block, byte by byte (chapters 3.2 to 3.7 and 17.1 of the sheet).
//!
//! The numbers at the left are those of the sheet; the compiler compares them with the offsets of the fields (DH-015).
//! Of these types only the two pages of area D are ever values, as private copies. The others describe memory that
//! other processes write: they are used for the offsets of their fields alone.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

use super::proved::layout;

/// Offset and length of one region of the block, both in bytes, the offset from the start of the block.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionEntry {
    /// First byte.
    pub offset: U64,
    /// Number of bytes.
    pub len: U64,
}

layout! {
    /// Header page (3.2).
    HeaderPage: 0x1000 {
        0x000 /// `TDGHUB`, 1A, 0A.
        magic: [u8; 8],
        0x008 /// 0x01020304.
        endian_tag: U32,
        0x00C /// Changes with incompatible layouts.
        layout_major: U16,
        0x00E /// Changes with compatible ones.
        layout_minor: U16,
        0x010 /// Bytes of this page and the next.
        descriptor_len: U32,
        0x014 /// Where the control page begins.
        control_off: U32,
        0x018 /// Bytes of the block.
        total_size: U64,
        0x020 /// Random, not zero.
        block_uuid: [u8; 16],
        0x030 /// The kernel's, at creation.
        boot_id: [u8; 16],
        0x040 /// Pid namespace of the creator.
        pidns_inode: U64,
        0x048 /// Time namespace of the creator, 0 where there is none.
        timens_inode: U64,
        0x050 /// Monotonic clock at creation.
        created_mono_ns: U64,
        0x058 /// Wall clock at creation.
        created_realtime_ns: U64,
        0x060 /// Unknown bits refuse any use.
        features_incompat: U64,
        0x068 /// Unknown bits refuse everything but diagnosis.
        features_ro_compat: U64,
        0x070 /// Unknown bits are ignored.
        features_compat: U64,
        0x078 /// Code of [`Policy`](super::Policy).
        policy: u8,
        0x079 /// Code of [`SyncPolicy`](super::SyncPolicy).
        sync: u8,
        0x07A /// Code of [`Overflow`](super::Overflow).
        overflow: u8,
        0x07B /// Code of [`Orphan`](super::Orphan).
        orphan: u8,
        0x07C /// Code of [`OnHeld`](super::OnHeld).
        on_held: u8,
        0x07D /// Code of [`DigestAlg`](super::DigestAlg).
        digest_alg: u8,
        0x07E /// Code of [`DigestPolicy`](super::DigestPolicy).
        digest_policy: u8,
        0x07F /// Code of [`PageMode`](super::PageMode).
        page_mode: u8,
        0x080 /// 1 to 2^20.
        slot_count: U32,
        0x084 /// 1 to 32.
        max_consumers: U32,
        0x088 /// 1 to 2^32 bytes.
        slot_size: U64,
        0x090 /// `slot_size` rounded up to 64.
        slot_stride: U64,
        0x098 /// 0 to 16.
        zone_count: U32,
        0x09C /// 32.
        lock_count: U32,
        0x0A0 /// Bytes of a page.
        page_size: U32,
        0x0A4 /// 64.
        line_size: U32,
        0x0A8 /// The first id written to this block.
        first_slot_id: U64,
        0x0B0 /// Zero.
        reserved_0b0: [u8; 16],
        0x0C0 /// Control, schema, shared, sync, metrics, locks, consumers, zones, slot records, digests, slots.
        regions: [RegionEntry; 11],
        0x170 /// Zero.
        reserved_170: [u8; 16],
        0x180 /// Code of [`SecurityLevel`](super::SecurityLevel).
        security_level: u8,
        0x181 /// 1: chapter 11.5.
        kdf: u8,
        0x182 /// Zero.
        reserved_182: [u8; 2],
        0x184 /// From 1 on.
        key_epoch: U32,
        0x188 /// Random.
        salt: [u8; 16],
        0x198 /// Chapter 11.5; zero at level 0.
        attach_tag: [u8; 32],
        0x1B8 /// Names the secret; zero at level 0.
        key_id: [u8; 8],
        0x1C0 /// Zero: untyped.
        slot_schema_hash: [u8; 32],
        0x1E0 /// Over all zones; zero without zones.
        zones_schema_hash: [u8; 32],
        0x200 /// Version of the slot schema.
        schema_major: U16,
        0x202 /// Version of the slot schema.
        schema_minor: U16,
        0x204 /// Bytes of the slot type, 0 if untyped.
        slot_struct_size: U32,
        0x208 /// Its alignment, 0 if untyped.
        slot_struct_align: U32,
        0x20C /// Bytes of the schema text.
        schema_text_len: U32,
        0x210 /// Zero.
        reserved_210: [u8; 3568],
    }
}

layout! {
    /// Zone and identity page (3.3); offsets from its start.
    IdentityPage: 0x1000 {
        0x000 /// Zones; those beyond `zone_count` are zero.
        zones: [ZoneEntry; 16],
        0x800 /// NUL-padded.
        channel_name: [u8; 128],
        0x880 /// Name of the file, NUL-padded.
        shm_name: [u8; 128],
        0x900 /// NUL-padded.
        hub_uid: [u8; 40],
        0x928 /// NUL-padded.
        hub_name: [u8; 64],
        0x968 /// NUL-padded.
        producer_uid: [u8; 40],
        0x990 /// NUL-padded.
        producer_name: [u8; 64],
        0x9D0 /// Block this one took over from; zero if none.
        predecessor_uuid: [u8; 16],
        0x9E0 /// Zero.
        reserved_9e0: [u8; 1536],
        0xFE0 /// Over everything before it and the schema text.
        descriptor_digest: [u8; 32],
    }
}

layout! {
    /// Zone descriptor (3.3).
    ZoneEntry: 0x80 {
        0x00 /// Of the zone's control line, from the start of the block.
        offset: U64,
        0x08 /// Bytes of the zone itself.
        size: U64,
        0x10 /// Zero: untyped.
        schema_hash: [u8; 32],
        0x30 /// Its lock, 0xFFFFFFFF if none.
        lock_index: U32,
        0x34 /// Bit 0: consumers may write.
        flags: U32,
        0x38 /// Version of its schema.
        major: U16,
        0x3A /// Version of its schema.
        minor: U16,
        0x3C /// Line in the schema text, 0xFFFFFFFF if none.
        text_index: U32,
        0x40 /// NUL-padded.
        name: [u8; 32],
        0x60 /// Zero.
        reserved: [u8; 32],
    }
}

layout! {
    /// Control page (3.4); offsets from its start. The acting writer changes it.
    ControlPage: 0x1000 {
        0x000 /// Code of [`InitState`](super::InitState).
        init_state: U32,
        0x004 /// What force has done to the block.
        taint: U32,
        0x008 /// ProcessKey of the acting writer, 0 if none.
        writer_owner: U64,
        0x010 /// Grows by one with each owner.
        writer_epoch: U64,
        0x018 /// Monotonic clock of the last beat.
        writer_heartbeat_ns: U64,
        0x020 /// Monotonic clock when the owner came.
        writer_attached_ns: U64,
        0x028 /// Monotonic clock of closing.
        closed_ns: U64,
        0x030 /// Zero.
        reserved_030: [u8; 16],
        0x040 /// Next id to allocate.
        write_index: U64,
        0x048 /// Zero.
        reserved_048: [u8; 56],
        0x080 /// End of the resolved ids.
        commit_index: U64,
        0x088 /// Tag of the newest committed id, 0 if none.
        latest_tag: U64,
        0x090 /// Futex word consumers sleep on.
        data_seq: U32,
        0x094 /// Zero.
        reserved_094: [u8; 44],
        0x0C0 /// The floor.
        read_index: U64,
        0x0C8 /// Where the floor is about to go.
        floor_intent: U64,
        0x0D0 /// Zero.
        reserved_0d0: [u8; 48],
        0x100 /// 0 none, 1 prepared, 2 cutover, 3 done, 4 cancelled.
        handover_state: U32,
        0x104 /// Number of the handover.
        handover_epoch: U32,
        0x108 /// Last id of this block.
        cutover_slot_id: U64,
        0x110 /// The block that follows.
        successor_uuid: [u8; 16],
        0x120 /// Until when this block stays.
        grace_deadline_ns: U64,
        0x128 /// Monotonic clock.
        handover_started_ns: U64,
        0x130 /// Zero.
        reserved_130: [u8; 16],
        0x140 /// Name of the block that follows.
        successor_shm_name: [u8; 128],
        0x1C0 /// Zero.
        reserved_1c0: [u8; 3648],
    }
}

layout! {
    /// Lock record (3.5).
    LockRecord: 0x40 {
        0x00 /// ProcessKey, 0 if free.
        owner: U64,
        0x08 /// Grows by one with each owner.
        generation: U64,
        0x10 /// Monotonic clock.
        acquired_ns: U64,
        0x18 /// Ticket of the thread.
        owner_thread: U32,
        0x1C /// How often the owner holds it.
        recursion: U32,
        0x20 /// Futex word.
        wake_seq: U32,
        0x24 /// Flag.
        waiters: U32,
        0x28 /// Bit 0 allocated, bit 1 poisoned, bit 2 system.
        flags: U32,
        0x2C /// The zone it belongs to, 0xFFFFFFFF if none.
        zone_index: U32,
        0x30 /// NUL-padded.
        label: [u8; 16],
    }
}

layout! {
    /// Sync page (3.5); offsets from its start.
    SyncPage: 0x1000 {
        0x000 /// Guards membership and repair.
        maintenance_lock: LockRecord,
        0x040 /// Bit i: row i takes part.
        active_mask: U32,
        0x044 /// Bit i: row i lost its cursor right.
        evicted_mask: U32,
        0x048 /// Grows by one with each change of membership.
        registry_epoch: U64,
        0x050 /// One more than the smallest unread id left behind, 0 if none.
        resume_tag: U64,
        0x058 /// Zero.
        reserved_058: [u8; 40],
        0x080 /// Flag: consumers sleep on `data_seq`.
        data_waiters: U32,
        0x084 /// Zero.
        reserved_084: [u8; 60],
        0x0C0 /// Flag: the writer sleeps on `drain_seq`.
        drain_waiters: U32,
        0x0C4 /// Futex word the writer sleeps on.
        drain_seq: U32,
        0x0C8 /// Zero.
        reserved_0c8: [u8; 56],
        0x100 /// Number of audit entries written.
        audit_seq: U64,
        0x108 /// Zero.
        reserved_108: [u8; 1784],
        0x800 /// The newest entries.
        audit: [AuditEntry; 32],
    }
}

layout! {
    /// Entry of the audit ring (18.5).
    AuditEntry: 0x40 {
        0x00 /// Number of the entry.
        sequence: U64,
        0x08 /// Wall clock.
        realtime_ns: U64,
        0x10 /// ProcessKey.
        actor: U64,
        0x18 /// What was done.
        operation: U32,
        0x1C /// Bit 0: forced.
        flags: U32,
        0x20 /// Slot index, row, or lock.
        target: U64,
        0x28 /// Value before.
        before: U64,
        0x30 /// Value after.
        after: U64,
        0x38 /// Zero.
        reserved: U64,
    }
}

layout! {
    /// Row of the consumer table (3.6).
    ConsumerRow: 0x100 {
        0x00 /// `(epoch << 8) or state`.
        reg: U64,
        0x08 /// ProcessKey.
        owner: U64,
        0x10 /// Next id to be consumed.
        cursor: U64,
        0x18 /// `((first_id mod 2^48) << 16) or count`.
        claim: U64,
        0x20 /// Monotonic clock.
        last_heartbeat_ns: U64,
        0x28 /// Monotonic clock.
        claim_since_ns: U64,
        0x30 /// Handover epoch acknowledged; high bit: refused.
        handover_ack: U32,
        0x34 /// Bit 0 foreign namespace, bit 1 handler thread beats, bit 2 read-only observer.
        flags: U32,
        0x38 /// First id guaranteed to this consumer.
        start_id: U64,
        0x40 /// Counter.
        slots_consumed: U64,
        0x48 /// Counter.
        bytes_consumed: U64,
        0x50 /// Counter.
        slots_lost: U64,
        0x58 /// Counter.
        holes_seen: U64,
        0x60 /// Counter.
        digest_failures: U64,
        0x68 /// Counter.
        heartbeats: U64,
        0x70 /// Monotonic clock.
        joined_ns: U64,
        0x78 /// Counter.
        read_timeouts: U64,
        0x80 /// NUL-padded.
        uid: [u8; 40],
        0xA8 /// NUL-padded.
        name: [u8; 32],
        0xC8 /// Pid namespace of the consumer.
        pidns_inode: U64,
        0xD0 /// Zero.
        reserved: [u8; 48],
    }
}

layout! {
    /// Slot record (3.7).
    SlotRecord: 0x40 {
        0x00 /// `(tag << 3) or state`.
        ctl: U64,
        0x08 /// Monotonic clock.
        state_since_ns: U64,
        0x10 /// Monotonic clock.
        commit_ns: U64,
        0x18 /// The application's.
        user_flags: U64,
        0x20 /// ProcessKey while somebody works on the slot.
        owner: U64,
        0x28 /// Bytes of payload.
        payload_len: U64,
        0x30 /// Bit 0 digest present, bit 1 keyed, bit 2 could not be computed.
        slot_flags: U32,
        0x34 /// Ticket of the thread.
        owner_thread: U32,
        0x38 /// Zero.
        reserved: U64,
    }
}

layout! {
    /// Digest entry (3.7).
    DigestEntry: 0x40 {
        0x00 /// Of the payload.
        digest: [u8; 32],
        0x20 /// The slot it was computed for.
        tag: U64,
        0x28 /// Bytes hashed.
        len: U64,
        0x30 /// Code of [`DigestAlg`](super::DigestAlg).
        alg: u8,
        0x31 /// Zero.
        reserved: [u8; 3],
        0x34 /// Epoch of the key.
        key_epoch: U32,
        0x38 /// Monotonic clock.
        computed_ns: U64,
    }
}

layout! {
    /// Control line that precedes each zone (3.7).
    ZoneControl: 0x40 {
        0x00 /// Odd while an update is running.
        write_generation: U64,
        0x08 /// ProcessKey.
        last_writer: U64,
        0x10 /// Monotonic clock.
        last_write_ns: U64,
        0x18 /// Generation the digest belongs to.
        digest_generation: U64,
        0x20 /// Of the zone.
        digest: [u8; 32],
    }
}

layout! {
    /// Metrics page (17.1); offsets from its start.
    MetricsPage: 0x1000 {
        0x000 /// A write acquire ended in a timeout.
        writer_timeout_count: U64,
        0x008 /// Time spent waiting in write acquires.
        writer_blocked_total_ns: U64,
        0x010 /// A second writer or a foreign word was met.
        write_lock_contention: U64,
        0x018 /// The ring wrapped round.
        write_generation_wraps: U64,
        0x020 /// A read acquire met a slot between values.
        reader_not_ready_count: U64,
        0x028 /// A claim was withdrawn in time.
        reader_race_detected: U64,
        0x030 /// A control word changed under a reader.
        reader_validation_failed: U64,
        0x038 /// Most rows that claimed one slot at once.
        reader_peak_count: U64,
        0x040 /// When the last error was recorded.
        last_error_timestamp_ns: U64,
        0x048 /// Code of annex B.
        last_error_code: U32,
        0x04C /// Recorded errors, never reset.
        error_sequence: U32,
        0x050 /// Recorded errors of acquiring.
        slot_acquire_errors: U64,
        0x058 /// A commit failed or lacks its digest.
        slot_commit_errors: U64,
        0x060 /// A digest differed or was missing.
        checksum_failures: U64,
        0x068 /// A message was not sent.
        zmq_send_failures: U64,
        0x070 /// A message was not received.
        zmq_recv_failures: U64,
        0x078 /// A request had no reply in time.
        zmq_timeout_count: U64,
        0x080 /// An illegal transition or impossible value was met.
        state_transition_errors: U64,
        0x088 /// Attaching or typed access was refused for the schema.
        schema_mismatch_count: U64,
        0x090 /// Attaching was refused.
        attach_rejections: U64,
        0x098 /// A lock timed out or was not the caller's.
        lock_errors: U64,
        0x0A0 /// A beat was stored.
        heartbeat_sent_count: U64,
        0x0A8 /// A beat was refused.
        heartbeat_failed_count: U64,
        0x0B0 /// The newest beat.
        last_heartbeat_ns: U64,
        0x0B8 /// A stale row was observed.
        heartbeat_stale_seen: U64,
        0x0C0 /// Commits.
        total_slots_written: U64,
        0x0C8 /// Slots read by rows that are gone.
        total_slots_read_retired: U64,
        0x0D0 /// Bytes committed.
        total_bytes_written: U64,
        0x0D8 /// Set by the producer's beat.
        uptime_seconds: U64,
        0x0E0 /// Bytes read by rows that are gone.
        total_bytes_read_retired: U64,
        0x0E8 /// Wall clock at creation.
        creation_timestamp_ns: U64,
        0x0F0 /// The newest commit.
        last_write_ns: U64,
        0x0F8 /// The newest release.
        last_read_ns: U64,
        0x100 /// Write acquires called.
        writes_attempted: U64,
        0x108 /// Timed out on a full ring.
        writer_full_timeout_count: U64,
        0x110 /// Timed out on a held slot.
        writer_drain_timeout_count: U64,
        0x118 /// Aborted or abandoned ids.
        slots_aborted: U64,
        0x120 /// Burnt ids.
        slots_skipped_held: U64,
        0x128 /// Unread ids given up.
        slots_dropped_oldest: U64,
        0x130 /// Overwritten with no consumer attached.
        slots_unobserved: U64,
        0x138 /// Batches committed.
        batch_writes: U64,
        0x140 /// The writer slept.
        drain_waits: U64,
        0x148 /// Wake calls made.
        wakeups_sent: U64,
        0x150 /// The consumer table was scanned.
        floor_scans: U64,
        0x158 /// Notifications sent.
        notifications_sent: U64,
        0x160 /// Write acquires refused because the ring was full.
        writer_refused_count: U64,
        0x168 /// Zero.
        reserved_168: [u8; 24],
        0x180 /// Read acquires of rows that are gone.
        reads_attempted_retired: U64,
        0x188 /// A read acquire ended in a timeout.
        reader_timeout_count: U64,
        0x190 /// Ids lost to readers.
        reader_lapped_slots: U64,
        0x198 /// Joins.
        consumers_joined: U64,
        0x1A0 /// Leaves.
        consumers_left: U64,
        0x1A8 /// Evictions.
        consumers_evicted: U64,
        0x1B0 /// Reaped rows.
        dead_consumers_reaped: U64,
        0x1B8 /// Most active rows.
        peak_consumer_count: U64,
        0x1C0 /// Locks taken from the dead.
        lock_takeovers: U64,
        0x1C8 /// Contention on the maintenance lock.
        maintenance_lock_waits: U64,
        0x1D0 /// Digests computed.
        digests_computed: U64,
        0x1D8 /// Digests verified.
        digests_verified: U64,
        0x1E0 /// Zero.
        reserved_1e0: [u8; 32],
        0x200 /// Steps of recovery that changed something.
        recovery_actions: U64,
        0x208 /// Wall clock of the last one.
        last_recovery_timestamp_ns: U64,
        0x210 /// Steps done with force.
        forced_actions: U64,
        0x218 /// Ownership taken from a dead writer.
        writer_adoptions: U64,
        0x220 /// Ownership taken by force.
        writer_seizures: U64,
        0x228 /// Zero.
        reserved_228: [u8; 472],
        0x400 /// Histogram.
        write_latency: [U64; 96],
        0x700 /// Histogram.
        read_latency: [U64; 96],
        0xA00 /// Samples.
        write_lat_count: U64,
        0xA08 /// Their sum.
        write_lat_sum_ns: U64,
        0xA10 /// The longest.
        write_lat_max_ns: U64,
        0xA18 /// Samples.
        read_lat_count: U64,
        0xA20 /// Their sum.
        read_lat_sum_ns: U64,
        0xA28 /// The longest.
        read_lat_max_ns: U64,
        0xA30 /// Zero.
        reserved_a30: [u8; 1488],
    }
}

/// The fixed part of area D.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct AreaD {
    pub(super) header: HeaderPage,
    pub(super) identity: IdentityPage,
}
