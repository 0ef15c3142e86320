//! The numbers and choices of a block that can contradict each other: one check for creators and attachers.

use super::{
    DigestAlg, DigestPolicy, Geometry, LOCKS, MAX_SLOT_ID, MAX_SLOTS, Mismatch, OnHeld, Overflow, PageMode,
    Policy, SecurityLevel, Sizes, SyncPolicy,
};

/// What decides about the layout of a block and about what its users may do, without names and texts.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) policy: Policy,
    pub(super) sync: SyncPolicy,
    pub(super) overflow: Overflow,
    pub(super) on_held: OnHeld,
    pub(super) digest_alg: DigestAlg,
    pub(super) digest_policy: DigestPolicy,
    pub(super) security: SecurityLevel,
    pub(super) page_mode: PageMode,
    pub(super) page_size: u32,
    pub(super) slot_count: u32,
    pub(super) slot_size: u64,
    pub(super) max_consumers: u32,
    pub(super) zone_sizes: Vec<u64>,
    pub(super) zone_locks: Vec<Option<u32>>,
    pub(super) first_slot_id: u64,
    pub(super) struct_size: u32,
    pub(super) struct_align: u32,
    pub(super) schema_text_len: u32,
}

impl Shape {
    /// Where everything lies.
    pub(super) fn geometry(&self) -> Result<Geometry, Mismatch> {
        Geometry::compute(&self.sizes())
    }

    /// Combinations that are not legal (6.1, 7.1).
    pub(super) fn policy_faults(&self) -> Vec<Mismatch> {
        let mut faults = Vec::new();
        let mut demand = |holds: bool, field, rule, code: u64| {
            if !holds {
                faults.push(Mismatch::rule(field, rule, code));
            }
        };
        // A count that no policy has is a fault of sizes.
        if (1..=MAX_SLOTS).contains(&self.slot_count) {
            let (holds, rule) = match self.policy {
                Policy::Single => (self.slot_count == 1, "1 for the policy Single"),
                Policy::DoubleBuffer => (self.slot_count == 2, "2 for the policy DoubleBuffer"),
                Policy::RingBuffer => (self.slot_count >= 2, "at least 2 for the policy RingBuffer"),
            };
            demand(holds, "slot_count", rule, self.slot_count.into());
        }
        let single = self.policy == Policy::Single;
        let sync = self.sync;
        demand(
            !single || sync != SyncPolicy::AllReaders,
            "sync",
            "LatestOnly (0) or SingleReader (1) for the policy Single",
            sync.code().into(),
        );
        let overflow = self.overflow;
        demand(
            !single || overflow != Overflow::DropOldest,
            "overflow",
            "Block (0) or Fail (1) for the policy Single",
            overflow.code().into(),
        );
        demand(
            self.slot_count != 1 || self.on_held == OnHeld::Wait,
            "on_held",
            "Wait (0) with a single slot",
            self.on_held.code().into(),
        );
        let alg = self.digest_alg;
        demand(
            alg != DigestAlg::None || self.digest_policy == DigestPolicy::Manual,
            "digest_policy",
            "Manual (0) without a digest table",
            self.digest_policy.code().into(),
        );
        demand(
            !alg.is_keyed() || self.security != SecurityLevel::None,
            "digest_alg",
            "one without a key at security level 0",
            alg.code().into(),
        );
        let authenticated = alg.is_keyed() && self.digest_policy == DigestPolicy::Enforced;
        demand(
            self.security != SecurityLevel::AuthenticatedSlots || authenticated,
            "digest_alg",
            "one with a key, enforced, at security level 2",
            alg.code().into(),
        );
        let huge = self.page_size > 0x1_0000;
        demand(
            // Pages of 64 KiB exist as base pages and as huge pages.
            self.page_size == 0x1_0000 || huge == (self.page_mode == PageMode::Hugetlb),
            "page_mode",
            "hugetlb (2) exactly with huge pages",
            self.page_mode.code().into(),
        );
        faults
    }

    /// Sizes and numbers that are out of range.
    pub(super) fn size_faults(&self) -> Vec<Mismatch> {
        let mut faults = self.sizes().faults();
        let (struct_size, struct_align) = (self.struct_size, self.struct_align);
        if u64::from(struct_size) > self.slot_size {
            faults.push(Mismatch::range("slot_struct_size", 0, self.slot_size, struct_size.into()));
        }
        let aligned = struct_align.is_power_of_two() && struct_align <= 64;
        if (struct_size == 0) != (struct_align == 0) || (struct_align != 0 && !aligned) {
            let rule = "a power of two up to 64, 0 exactly for untyped slots";
            faults.push(Mismatch::rule("slot_struct_align", rule, struct_align.into()));
        }
        if self.first_slot_id >= MAX_SLOT_ID {
            faults.push(Mismatch::range("first_slot_id", 0, MAX_SLOT_ID - 1, self.first_slot_id));
        }
        for (index, lock) in (0..).zip(&self.zone_locks) {
            if let Some(lock) = lock.filter(|lock| *lock >= LOCKS) {
                faults.push(Mismatch::range("lock_index", 0, (LOCKS - 1).into(), lock.into()).at(index));
            }
        }
        faults
    }

    fn sizes(&self) -> Sizes<'_> {
        Sizes {
            slot_count: self.slot_count,
            slot_size: self.slot_size,
            max_consumers: self.max_consumers,
            zone_sizes: &self.zone_sizes,
            digests: self.digest_alg != DigestAlg::None,
            schema_text_len: self.schema_text_len,
            page_size: self.page_size,
        }
    }
}
