//! Blocks in which a word is not what it must be.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::Arc,
};

use tidegate_hub::{
    block::{Block, Role},
    inspect::{Finding, Inspector, IntegrityReport, Part},
    recover::plan,
};

use crate::world::{Actor, BlockWriter, World, spec, write};

/// A block with some history, as a file to be damaged.
struct Copy {
    world: World,
    name: String,
    file: File,
    healthy: Vec<u8>,
    /// Whoever uses it; nobody works on it while it is damaged.
    _users: (Actor, Arc<Block>, BlockWriter),
}

impl Copy {
    /// In the ring are committed slots, an open one and one that was never used; a consumer reads.
    fn new(test: &'static str) -> Self {
        let world = World::of(test);
        let (block, writer) = world.block(&spec());
        let name = block.descriptor().file_name();
        for _ in 0..5 {
            write(&writer, &block, b"value");
        }
        let consumer = world.actor(&name, "join;read 2;hold");
        let _open = writer.allocate(1, crate::world::soon()).unwrap();
        let healthy = fs::read(block.path()).unwrap();
        let file = File::options().read(true).write(true).open(block.path()).unwrap();
        consumer.stop();
        Self { world, name, file, healthy, _users: (consumer, block, writer) }
    }

    fn word(&self, offset: u64) -> u64 {
        let at = offset as usize;
        u64::from_le_bytes(self.healthy[at..at + 8].try_into().unwrap())
    }

    fn store(&self, offset: u64, word: u64) {
        self.file.write_all_at(&word.to_le_bytes(), offset).unwrap();
    }

    fn look(&self) -> Inspector {
        self.world.inspector(&self.name)
    }

    /// What is found with this word in this place.
    fn with(&self, offset: u64, word: u64) -> IntegrityReport {
        self.store(offset, word);
        let report = self.look().integrity(true);
        self.store(offset, self.word(offset));
        report
    }
}

/// Every word of the control page, area S and the slot tables, one at a time.
/// Rules: DH-253, DH-287.
#[test]
fn every_word_can_be_wrong_without_harm() {
    let copy = Copy::new("damage::every_word_can_be_wrong_without_harm");
    let before = copy.look().integrity(true);
    assert!(before.is_valid(), "{:?}", before.findings);
    let geometry = copy.look().descriptor().geometry.clone();
    let areas = [geometry.control(), geometry.shared(), geometry.slot_records(), geometry.digests()];
    let mut found = 0_usize;
    for offset in areas.iter().flat_map(|area| area.range().step_by(8)) {
        let word = copy.word(offset);
        for wrong in [!word, word ^ 1] {
            copy.store(offset, wrong);
            let block = copy.look();
            let diagnosis = block.diagnose();
            assert_eq!(diagnosis.slots.len(), 8, "at {offset:#x}");
            found += usize::from(!block.integrity(true).is_valid());
            // Whoever prints it all must be able to.
            serde_json::to_string(&(block.metrics(), block.audit(), block.list_locks())).unwrap();
            serde_json::to_string(&(block.show_readers(None), diagnosis, plan::plan(&block))).unwrap();
            assert!(block.life() == block.life());
        }
        copy.store(offset, word);
    }
    assert!(found > 2_000, "only {found} of the damages were seen");
    let after = copy.look().integrity(true);
    assert!(after.is_valid(), "what was put back is as it was: {:?}", after.findings);
}

/// N-42, the integrity findings.
/// Rules: DH-253, N-42.
#[test]
fn damage_is_found_where_it_is_and_named() {
    let copy = Copy::new("damage::damage_is_found_where_it_is_and_named");
    let geometry = copy.look().descriptor().geometry.clone();
    let control = geometry.control().offset;
    let sync = geometry.sync().offset;
    let row = geometry.consumers().offset;
    let free_row = row + 256;
    let lock = geometry.locks().offset;
    let user_lock = lock + 64 * 9;
    let slot = geometry.slot_records().offset;
    let open_slot = slot + 64 * 5;
    let metrics = geometry.metrics().offset;
    let zone = geometry.zones().offset;
    let far_future = u64::MAX / 2;
    let cases = [
        (Part::Control, "init_state", control, 5),
        (Part::Control, "taint", control, 2 | 0x20 << 32),
        (Part::Control, "writer_owner", control + 0x08, 1 << 40),
        (Part::Control, "writer_epoch", control + 0x10, 0),
        (Part::Control, "writer_heartbeat_ns", control + 0x18, far_future),
        (Part::Control, "writer_attached_ns", control + 0x20, far_future),
        (Part::Control, "closed_ns", control + 0x28, far_future),
        (Part::Control, "reserved", control + 0x30, 1),
        (Part::Control, "write_index", control + 0x40, 104),
        (Part::Control, "write_index", control + 0x40, 114),
        (Part::Control, "commit_index", control + 0x80, 107),
        (Part::Control, "commit_index", control + 0x80, 99),
        (Part::Control, "latest_tag", control + 0x88, 107),
        (Part::Control, "latest_tag", control + 0x88, 100),
        (Part::Control, "read_index", control + 0xC0, 99),
        (Part::Control, "read_index", control + 0xC0, 106),
        (Part::Control, "floor_intent", control + 0xC8, 99),
        (Part::Control, "floor_intent", control + 0xC8, 106),
        (Part::Control, "handover_state", control + 0x100, 5),
        (Part::Control, "reserved", control + 0x1C0, 1 << 63),
        (Part::MaintenanceLock, "owner", sync, 1 << 22),
        (Part::MaintenanceLock, "flags", sync + 0x28, 8),
        (Part::Sync, "active_mask", sync + 0x40, 0x101),
        (Part::Row(0), "mask bits", sync + 0x40, 0),
        (Part::Row(1), "mask bits", sync + 0x40, 3),
        (Part::Row(0), "mask bits", sync + 0x40, 1 | 1 << 32),
        (Part::Sync, "evicted_mask", sync + 0x40, 1 | 0x100 << 32),
        (Part::Sync, "resume_tag", sync + 0x50, 107),
        (Part::Sync, "resume_tag", sync + 0x50, 100),
        (Part::Sync, "data_waiters", sync + 0x80, 2),
        (Part::Sync, "drain_waiters", sync + 0xC0, 2),
        (Part::Sync, "reserved", sync + 0x108, 1),
        (Part::Audit(0), "operation", sync + 0x100, 1),
        (Part::Metrics, "reserved", metrics + 0x168, 1),
        (Part::Metrics, "reserved", metrics + 0xA30, 1),
        (Part::Lock(0), "flags", lock + 0x28, 1 | u64::from(u32::MAX) << 32),
        (Part::Lock(9), "flags", user_lock + 0x28, 4 | u64::from(u32::MAX) << 32),
        (Part::Lock(9), "flags", user_lock, 7),
        (Part::Lock(9), "recursion", user_lock + 0x18, 1 << 32),
        (Part::Lock(0), "zone_index", lock + 0x28, 5 | 1 << 32),
        (Part::Row(0), "reg", row, 1 << 8 | 7),
        (Part::Row(0), "reg", row, 1 << 8 | 1),
        (Part::Row(0), "owner", row + 0x08, 0),
        (Part::Row(0), "cursor", row + 0x10, 106),
        (Part::Row(0), "cursor", row + 0x10, 99),
        (Part::Row(0), "claim", row + 0x18, 102 << 16),
        (Part::Row(0), "claim", row + 0x18, 102 << 16 | 9),
        (Part::Row(0), "claim", row + 0x18, 105 << 16 | 1),
        (Part::Row(0), "claim", row + 0x18, 99 << 16 | 1),
        (Part::Row(0), "last_heartbeat_ns", row + 0x20, far_future),
        (Part::Row(0), "claim_since_ns", row + 0x28, far_future),
        (Part::Row(0), "handover_ack", row + 0x30, 1),
        (Part::Row(0), "flags", row + 0x30, 8 << 32),
        (Part::Row(0), "start_id", row + 0x38, 106),
        (Part::Row(0), "joined_ns", row + 0x70, far_future),
        (Part::Row(0), "reserved", row + 0xD0, 1),
        (Part::Row(1), "owner", free_row + 0x08, 7),
        (Part::Row(1), "claim", free_row + 0x18, 101 << 16 | 1),
        (Part::Zone(0), "digest_generation", zone + 0x18, 1),
        (Part::Zone(0), "last_write_ns", zone + 0x10, far_future),
        (Part::Slot(0), "ctl", slot, 101 << 3 | 5),
        (Part::Slot(0), "ctl", slot, 102 << 3 | 2),
        (Part::Slot(0), "ctl", slot, 109 << 3 | 2),
        (Part::Slot(0), "ctl", slot, 93 << 3 | 2),
        (Part::Slot(0), "ctl", slot, 101 << 3 | 1),
        (Part::Slot(0), "ctl", slot, 2),
        (Part::Slot(0), "state_since_ns", slot + 0x08, far_future),
        (Part::Slot(0), "commit_ns", slot + 0x10, far_future),
        (Part::Slot(5), "owner", open_slot + 0x20, 0),
        (Part::Slot(0), "payload_len", slot + 0x28, 257),
        (Part::Slot(0), "slot_flags", slot + 0x30, 8),
        (Part::Slot(0), "reserved", slot + 0x38, 1),
        (Part::Digest(0), "tag", slot + 0x30, 1),
    ];
    for (part, field, offset, word) in cases {
        let report = copy.with(offset, word);
        let named =
            report.findings.iter().any(|damage| (damage.part, damage.mismatch.field) == (part, field));
        assert!(named, "{part} {field} = {word:#x} at {offset:#x} gives {:?}", report.findings);
        let expected = match part {
            Part::Control => report.control_valid,
            Part::Slot(index) => {
                assert_eq!(report.corrupted_slots, [index], "{field} = {word:#x}");
                report.slot_states_valid
            }
            Part::Row(_) | Part::Sync => report.rows_valid,
            Part::Lock(_) | Part::MaintenanceLock => report.locks_valid,
            Part::Digest(_) => report.checksums_valid.unwrap(),
            _ => report.is_valid(),
        };
        assert!(!expected, "{part} {field}: the summary says so, too");
    }
    assert!(copy.look().integrity(true).is_valid());
}

/// What attaching refuses is a finding for one who only looks.
/// Rules: DH-021, DH-253.
#[test]
fn damage_that_attaching_refuses_is_told_by_the_diagnosis() {
    let copy = Copy::new("damage::damage_that_attaching_refuses_is_told_by_the_diagnosis");
    let geometry = copy.look().descriptor().geometry.clone();
    let slot = geometry.slot_records().offset;
    copy.store(slot, copy.word(slot) | 7);
    let refused = tidegate_hub::block::attach(&copy.name, &copy.world.options(Role::Consumer)).unwrap_err();
    assert_eq!(refused.code(), 120);
    let diagnosis = copy.look().diagnose();
    let damaged = |found: &Finding| matches!(found, Finding::Damaged(damage) if damage.part == Part::Slot(0));
    assert!(diagnosis.findings.iter().any(damaged), "{:?}", diagnosis.findings);
    assert!(!diagnosis.healthy);
    assert_eq!(diagnosis.slots[0].state.word(), "INVALID");
}

/// Rules: DH-253.
#[test]
fn a_digest_that_is_not_that_of_the_bytes_is_found() {
    let copy = Copy::new("damage::a_digest_that_is_not_that_of_the_bytes_is_found");
    let geometry = copy.look().descriptor().geometry.clone();
    // As whoever commits with a digest leaves it: flag, tag, length, algorithm.
    for slot in 0..2_u64 {
        let entry = geometry.digests().offset + slot * 64;
        copy.store(geometry.slot_records().offset + slot * 64 + 0x30, 1);
        copy.store(entry, 7 + slot);
        copy.store(entry + 0x20, 101 + slot);
        copy.store(entry + 0x28, 5);
        copy.store(entry + 0x30, 2);
    }
    let digest = |id: u64, bytes: tidegate_shm::region::Span<'_>| {
        assert_eq!(bytes.to_vec(), b"value");
        let mut digest = [0; 32];
        digest[0] = (id - 100) as u8 + 7;
        digest
    };
    let report = copy.look().integrity(true);
    assert_eq!(
        (report.checksums_verified, report.checksums_present, report.checksums_not_applicable),
        (0, 2, 6)
    );
    let report = copy.look().integrity_of_payload(&digest);
    assert!(report.is_valid(), "{:?}", report.findings);
    assert_eq!((report.checksums_verified, report.checksums_present), (2, 0));
    copy.store(geometry.digests().offset + 64, 9);
    let report = copy.look().integrity_of_payload(&digest);
    assert_eq!((report.checksums_valid, report.corrupted_slots.as_slice()), (Some(false), [1].as_slice()));
    assert_eq!((report.findings[0].part, report.findings[0].mismatch.field), (Part::Digest(1), "digest"));
}
