//! Who takes part, and who comes first for a partition that is free (VX-718).
//!
//! A member is alive while its heartbeat is seen moving, by the clock of who looks. Those who have fewest partitions come first,
//! and among them each partition has its own order, so that members that see the same agree without talking.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::PartitionId;

use crate::own::Pins;

/// What an instance says about itself under `member.<instance>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Card {
    pub(super) v: u32,
    pub(super) instance: String,
    pub(super) host: String,
    pub(super) pid: u32,
    /// Workers.
    pub(super) capacity: u32,
    /// The partitions that it may have; all of them without.
    pub(super) partitions: Option<String>,
    /// Those of them that it does without for now.
    #[serde(default)]
    pub(super) declines: BTreeSet<u32>,
    pub(super) started_ms: u64,
    pub(super) hb: u64,
    /// It has ended in order.
    #[serde(default)]
    pub(super) left: bool,
}

/// An instance that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub instance: String,
    /// The partitions that it may have; all of them without.
    pub pins: Option<Pins>,
    /// Those of them that it does without for now.
    pub declines: BTreeSet<PartitionId>,
    /// Partitions that it has.
    pub load: usize,
}

impl Member {
    /// Whether it may have a partition.
    pub fn may_have(&self, partition: PartitionId) -> bool {
        self.pins.as_ref().is_none_or(|pins| pins.has(partition)) && !self.declines.contains(&partition)
    }

    /// Who comes first: the smallest.
    fn order(&self, partition: PartitionId) -> (usize, std::cmp::Reverse<u64>, &str) {
        let key = [&partition.0.to_be_bytes(), self.instance.as_bytes()].concat();
        (self.load, std::cmp::Reverse(twox_hash::XxHash3_64::oneshot(&key)), &self.instance)
    }
}

/// Place of `own` among the members that may have a partition, when it is free.
pub fn rank(partition: PartitionId, own: &Member, others: &[Member]) -> usize {
    let ours = own.order(partition);
    let may = others.iter().filter(|other| other.may_have(partition) && other.instance != own.instance);
    may.filter(|other| other.order(partition) < ours).count()
}

/// Which of the partitions that `own` has it should hand over, and to whom: to somebody who has at least two fewer, the one that
/// is most theirs. Nobody hands over what leaves him with less than his share, for then somebody would have to give it back.
pub(super) fn surplus<'a>(
    own: &Member,
    others: &'a [Member],
    partitions: impl Iterator<Item = PartitionId> + Clone,
) -> Option<(PartitionId, &'a str)> {
    // Those who have more because they are the only ones who may say nothing about the share.
    let counts = |other: &&Member| other.pins.is_none() || other.load < own.load;
    let counted = others.iter().filter(|other| other.instance != own.instance).filter(counts);
    let (count, sum) = counted.fold((1, own.load), |(count, sum), other| (count + 1, sum + other.load));
    if own.pins.is_none() && own.load * count <= sum {
        return None;
    }
    let mut poorer: Vec<&Member> = others.iter().filter(|other| other.load + 2 <= own.load).collect();
    poorer.sort_by_key(|other| other.load);
    poorer.into_iter().find_map(|other| {
        let may = partitions.clone().filter(|partition| other.may_have(*partition));
        let first = may.min_by_key(|partition| other.order(*partition))?;
        Some((first, other.instance.as_str()))
    })
}

/// What was seen of the others.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    seen: BTreeMap<String, Sighting>,
}

#[derive(Debug)]
struct Sighting {
    card: Card,
    /// When its heartbeat was last seen to move.
    moved: Option<Nanos>,
}

impl Sightings {
    /// Notes what a member says about itself.
    pub(super) fn note(&mut self, card: Card, now: Nanos) {
        match self.seen.get_mut(&card.instance) {
            Some(sighting) => {
                if (sighting.card.hb, sighting.card.started_ms) != (card.hb, card.started_ms) {
                    sighting.moved = Some(now);
                }
                sighting.card = card;
            }
            // One that is dead looks like this, too.
            None => drop(self.seen.insert(card.instance.clone(), Sighting { card, moved: None })),
        }
    }

    /// Those whose heartbeat moved within this time, with the partitions that they have.
    pub(super) fn alive(&self, now: Nanos, within: Nanos, load: impl Fn(&str) -> usize) -> Vec<Member> {
        let alive = self.seen.values().filter(|Sighting { card, moved }| {
            !card.left && moved.is_some_and(|moved| now.saturating_sub(moved) < within)
        });
        let member = |Sighting { card, .. }: &Sighting| Member {
            instance: card.instance.clone(),
            pins: card.partitions.as_deref().and_then(|text| text.parse().ok()),
            declines: card.declines.iter().copied().map(PartitionId).collect(),
            load: load(&card.instance),
        };
        alive.map(member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(instance: &str, load: usize) -> Member {
        Member { instance: instance.to_owned(), pins: None, declines: BTreeSet::new(), load }
    }

    /// Each partition goes to who comes first; members that see the same agree.
    fn spread(members: &mut [Member], partitions: u32) {
        for partition in (0..partitions).map(PartitionId) {
            let ranks: Vec<usize> = members.iter().map(|own| rank(partition, own, members)).collect();
            let mut sorted = ranks.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..members.len()).collect::<Vec<_>>(), "an order without ties");
            let first = ranks.iter().position(|rank| *rank == 0).unwrap();
            members[first].load += 1;
        }
    }

    /// Rules: VX-718, VX-871.
    #[test]
    fn shares_differ_by_one_at_most_and_joining_moves_no_more_than_a_share() {
        for (count, partitions) in [(1, 5), (2, 16), (3, 16), (5, 7)] {
            let mut members: Vec<_> = (0..count).map(|number| member(&format!("m{number}"), 0)).collect();
            spread(&mut members, partitions);
            members.push(member("new", 0));
            let mut moved = 0;
            // Each owner hands over one at a time until nobody has anything to hand over.
            while let Some(giver) = (0..members.len())
                .find(|&index| surplus(&members[index], &members, (0..partitions).map(PartitionId)).is_some())
            {
                let (_, to) = surplus(&members[giver], &members, (0..partitions).map(PartitionId)).unwrap();
                let to = members.iter().position(|other| other.instance == to).unwrap();
                members[giver].load -= 1;
                members[to].load += 1;
                moved += 1;
            }
            let loads: Vec<usize> = members.iter().map(|member| member.load).collect();
            assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
            assert!(moved <= (partitions as usize).div_ceil(count + 1), "{moved} of {partitions}");
        }
    }

    /// Rules: VX-718.
    #[test]
    fn who_is_alive_is_who_moves() {
        let card = |hb| Card {
            v: 1,
            instance: "a".to_owned(),
            host: String::new(),
            pid: 1,
            capacity: 1,
            partitions: None,
            declines: BTreeSet::from([3]),
            started_ms: 0,
            hb,
            left: false,
        };
        let mut sightings = Sightings::default();
        let alive = |sightings: &Sightings, now| sightings.alive(Nanos(now), Nanos(10), |_| 3).len();
        sightings.note(card(7), Nanos(100));
        assert_eq!(alive(&sightings, 100), 0, "a key that nobody writes any more looks the same");
        sightings.note(card(8), Nanos(105));
        assert_eq!((alive(&sightings, 114), alive(&sightings, 115)), (1, 0));
        let member = sightings.alive(Nanos(114), Nanos(10), |_| 0).remove(0);
        assert_eq!([2, 3].map(|partition| member.may_have(PartitionId(partition))), [true, false]);
        sightings.note(card(8), Nanos(115));
        assert_eq!(alive(&sightings, 115), 0, "nothing moved");
        sightings.note(Card { left: true, ..card(9) }, Nanos(120));
        assert_eq!(alive(&sightings, 120), 0);
    }

    /// Rules: VX-718.
    #[test]
    fn pins_leave_the_other_partitions_alone() {
        let pins: Pins = "0-3, 7".parse().unwrap();
        let has: Vec<u32> = (0..10).filter(|number| pins.has(PartitionId(*number))).collect();
        assert_eq!(has, [0, 1, 2, 3, 7]);
        for wrong in ["", "a", "1-", "3-x"] {
            assert!(wrong.parse::<Pins>().is_err(), "{wrong}");
        }
        let (own, pinned) = (member("a", 5), Member { pins: Some(pins), ..member("b", 0) });
        let others = [pinned];
        assert_eq!(rank(PartitionId(7), &own, &others), 1);
        assert_eq!(rank(PartitionId(8), &own, &others), 0);
        assert_eq!(surplus(&own, &others, [PartitionId(8), PartitionId(9)].into_iter()), None);
        assert_eq!(
            surplus(&own, &others, [PartitionId(8), PartitionId(2)].into_iter()).unwrap().0,
            PartitionId(2)
        );
    }

    /// Rules: VX-718.
    #[test]
    fn nothing_is_kept_for_nor_handed_to_a_member_that_does_without() {
        let (own, number) = (member("a", 16), PartitionId);
        let all = || (0..16).map(number);
        let mut idle = Member { declines: all().collect(), ..member("b", 0) };
        assert!(all().all(|partition| rank(partition, &own, std::slice::from_ref(&idle)) == 0));
        assert_eq!(surplus(&own, std::slice::from_ref(&idle), all()), None);
        idle.declines.remove(&number(5));
        assert_eq!(surplus(&own, std::slice::from_ref(&idle), all()), Some((number(5), "b")));
        // A third one gets what it would get without.
        let others = [member("c", 12), idle];
        assert_eq!(surplus(&own, &others, (0..5).map(number)).unwrap().1, "c");
    }
}
