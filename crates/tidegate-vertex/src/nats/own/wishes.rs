//! What operators want of partitions, whoever has them.
//!
//! | key | holds |
//! |---|---|
//! | `ctl.<partition>`, `ctl.all` | the last order to run, pause or drain |
//! | `ctl.fence.<partition>`, `ctl.fence.all` | the last fence |
//!
//! Pausing and draining hold until an order to run that is newer, of the partition or of all; of those that hold the stricter
//! counts. A fence is about the sessions that there are: it ends those that were claimed before it, and changes nothing about what
//! lasts. The revisions of the bucket tell what is newer.

use serde::{Deserialize, Serialize};
use tidegate_udf::wire::ids::PartitionId;

use super::{super::NatsError, Bucket};
use crate::operate::{Which, Wish};

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// That it runs; takes back what was wanted before.
    Run,
    /// That nothing more is read.
    Pause,
    /// That it is given away and nobody claims it.
    Drain,
    /// That its session ends now.
    Fence,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    v: u32,
    order: Order,
    reason: String,
}

/// Tells every instance of a pipeline what is wanted.
///
/// # Errors
/// The store did not say that it knows.
pub(super) fn order(bucket: &Bucket, which: Which, order: Order, reason: &str) -> Result<(), NatsError> {
    let prefix = if order == Order::Fence { FENCE } else { PREFIX };
    let key = match which {
        Which::All => format!("{prefix}{ALL}"),
        Which::One(partition) => format!("{prefix}{partition}"),
    };
    let note = Note { v: 1, order, reason: reason.to_owned() };
    // Text and a number in memory: it does not fail.
    bucket.put(&key, serde_json::to_vec(&note).unwrap_or_default())
}

/// What is wanted now.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    notes: Vec<(Which, u64, Order)>,
}

impl Wishes {
    /// Reads all of them.
    pub(super) fn read(bucket: &Bucket) -> Result<Self, NatsError> {
        let mut notes = Vec::new();
        for key in bucket.keys(PREFIX)? {
            let Some(which) = key.strip_prefix(FENCE).or_else(|| key.strip_prefix(PREFIX)) else { continue };
            let which = match which.parse() {
                _ if which == ALL => Which::All,
                Ok(number) => Which::One(PartitionId(number)),
                Err(_) => continue,
            };
            let Some(entry) = bucket.read(&key)? else { continue };
            let Some(value) = entry.value else { continue };
            match serde_json::from_slice::<Note>(&value) {
                Ok(note) => notes.push((which, entry.revision, note.order)),
                Err(error) => tracing::warn!(key, %error, "not an order"),
            }
        }
        Ok(Self { notes })
    }

    /// What lasts.
    pub(super) fn of(&self, partition: PartitionId) -> Wish {
        let runs = self.about(partition).filter(|(_, order)| **order == Order::Run);
        let taken_back = runs.map(|(revision, _)| revision).max().unwrap_or(0);
        let wish = |(revision, order): (u64, &Order)| match order {
            Order::Pause if revision > taken_back => Wish::Pause,
            Order::Drain if revision > taken_back => Wish::Drain,
            _ => Wish::Run,
        };
        self.about(partition).map(wish).max().unwrap_or(Wish::Run)
    }

    /// Whether a session that was claimed with this revision is to end.
    pub(super) fn fences(&self, partition: PartitionId, claimed: u64) -> bool {
        self.about(partition).any(|(revision, order)| *order == Order::Fence && revision > claimed)
    }

    fn about(&self, partition: PartitionId) -> impl Iterator<Item = (u64, &Order)> {
        let about = self.notes.iter().filter(move |(which, ..)| match which {
            Which::All => true,
            Which::One(one) => *one == partition,
        });
        about.map(|(_, revision, order)| (*revision, order))
    }
}

const PREFIX: &str = "ctl.";
const FENCE: &str = "ctl.fence.";
const ALL: &str = "all";

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: VX-710.
    #[test]
    fn the_stricter_wish_counts_and_a_fence_is_about_older_sessions() {
        let one = Which::One(PartitionId(1));
        let wishes = |notes: &[(Which, u64, Order)]| Wishes { notes: notes.to_vec() };
        let both = wishes(&[(Which::All, 5, Order::Pause), (one, 6, Order::Drain)]);
        assert_eq!((both.of(PartitionId(0)), both.of(PartitionId(1))), (Wish::Pause, Wish::Drain));
        let fence = wishes(&[(one, 9, Order::Fence)]);
        assert_eq!(fence.of(PartitionId(1)), Wish::Run, "it may be claimed again");
        let both = wishes(&[(one, 8, Order::Drain), (one, 9, Order::Fence)]);
        assert_eq!(both.of(PartitionId(1)), Wish::Drain, "it may not");
        let fenced = [8, 10].map(|claimed| fence.fences(PartitionId(1), claimed));
        assert_eq!(fenced, [true, false]);
        assert!(!fence.fences(PartitionId(0), 8));
    }

    /// Rules: VX-710.
    #[test]
    fn an_order_to_run_takes_back_what_was_ordered_before() {
        let one = Which::One(PartitionId(1));
        let of = |notes: &[(Which, u64, Order)]| {
            let wishes = Wishes { notes: notes.to_vec() };
            (wishes.of(PartitionId(0)), wishes.of(PartitionId(1)))
        };
        assert_eq!(of(&[(one, 5, Order::Pause), (Which::All, 6, Order::Run)]), (Wish::Run, Wish::Run));
        assert_eq!(of(&[(one, 6, Order::Drain), (Which::All, 5, Order::Run)]), (Wish::Run, Wish::Drain));
        assert_eq!(of(&[(Which::All, 5, Order::Pause), (one, 6, Order::Run)]), (Wish::Pause, Wish::Run));
    }
}
