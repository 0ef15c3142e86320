//! What operators want of partitions, whoever has them: the keys `ctl.<partition>` and `ctl.all`.
//!
//! Pausing and draining hold until they are taken back. A fence is about the sessions that there are: it ends those that were
//! claimed before it, which the revisions of the bucket tell.

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
    let key = match which {
        Which::All => ALL.to_owned(),
        Which::One(partition) => format!("{PREFIX}{partition}"),
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
            let which = match key.strip_prefix(PREFIX) {
                Some("all") => Which::All,
                Some(number) => match number.parse() {
                    Ok(number) => Which::One(PartitionId(number)),
                    Err(_) => continue,
                },
                None => continue,
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
        let wish = |order: &Order| match order {
            Order::Run | Order::Fence => Wish::Run,
            Order::Pause => Wish::Pause,
            Order::Drain => Wish::Drain,
        };
        self.about(partition).map(|(_, order)| wish(order)).max().unwrap_or(Wish::Run)
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
const ALL: &str = "ctl.all";

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
        let fenced = [8, 10].map(|claimed| fence.fences(PartitionId(1), claimed));
        assert_eq!(fenced, [true, false]);
        assert!(!fence.fences(PartitionId(0), 8));
    }
}
