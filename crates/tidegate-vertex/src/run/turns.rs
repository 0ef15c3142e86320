//! Whose turn it is among the partitions that share a lane: each in its turn, so that when the lane is full none of them waits
//! for another one that always has something to send. They share the room for what is read in the same way.

/// What came of a partition's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has sent a batch, or read one.
    Sent,
    /// It has nothing that it may send now, or read.
    Nothing,
    /// It has something, and there is no room for more: its turn comes again first.
    Full,
}

/// The turns on one lane.
#[derive(Debug, Default)]
pub(super) struct Turns {
    next: usize,
}

impl Turns {
    /// Gives each of `count` partitions its turn, one batch at a time, until none has anything or the lane takes no more.
    pub(super) fn go_round(&mut self, count: usize, mut turn: impl FnMut(usize) -> Turn) {
        let mut idle = 0;
        while idle < count {
            let partition = self.next % count;
            idle = match turn(partition) {
                Turn::Sent => 0,
                Turn::Nothing => idle + 1,
                Turn::Full => return,
            };
            self.next = partition + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partitions that always have something share a lane of so many batches, of which one is answered at a time.
    /// Rules: VX-440, VX-444.
    #[test]
    fn a_full_lane_takes_from_each_partition_in_turn() {
        for (partitions, window) in [(2, 1), (3, 8), (5, 2), (8, 3)] {
            let (mut turns, mut sent, mut on_way) = (Turns::default(), vec![0u32; partitions], 0);
            for _ in 0..40 * partitions {
                turns.go_round(partitions, |partition| {
                    if on_way == window {
                        return Turn::Full;
                    }
                    on_way += 1;
                    sent[partition] += 1;
                    Turn::Sent
                });
                on_way -= 1;
            }
            let (least, most) = (sent.iter().min(), sent.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{sent:?} of {window}");
        }
    }

    /// Rules: VX-440.
    #[test]
    fn a_partition_with_nothing_to_send_is_passed_over_and_all_is_sent_that_fits() {
        let mut left = [0, 3, 0, 1];
        let (mut turns, mut order) = (Turns::default(), Vec::new());
        turns.go_round(4, |partition| {
            if left[partition] == 0 {
                return Turn::Nothing;
            }
            left[partition] -= 1;
            order.push(partition);
            Turn::Sent
        });
        assert_eq!(order, [1, 3, 1, 1]);
        turns.go_round(0, |_| Turn::Sent);
    }
}
