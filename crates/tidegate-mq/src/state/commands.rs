//! Changes of subscriptions that wait to be written, ahead of messages and under no limit (MQ-065).

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::pipe::Command;

/// Changes for one publisher, in order.
///
/// Where many have piled up they are joined: a publisher keeps a set (MQ-216), so that of the changes of a topic the last
/// one counts, and none of a topic that comes and goes. So what waits for a publisher that does not read is bounded by twice
/// the topics that are held, or were when it last read everything, however many come and go.
#[derive(Debug)]
pub(super) struct Commands {
    queue: VecDeque<Queued>,
    /// So many are joined.
    join_at: usize,
}

#[derive(Debug)]
struct Queued {
    command: Command,
    /// The publisher does not have the topic before this.
    is_new: bool,
}

/// So many wait at least before any are joined.
const LEAST: usize = 8192;

impl Default for Commands {
    fn default() -> Self {
        Self { queue: VecDeque::new(), join_at: LEAST }
    }
}

impl Commands {
    /// `is_new`: as far as it was told until now, the publisher does not have the topic.
    pub(super) fn push(&mut self, command: Command, is_new: bool) {
        self.queue.push_back(Queued { command, is_new });
        if self.queue.len() >= self.join_at {
            self.join();
            self.join_at = LEAST.max(2 * self.queue.len());
        }
    }

    /// Gives up to `most`; returns how many.
    pub(super) fn take(&mut self, most: usize, into: &mut VecDeque<Command>) -> usize {
        let count = most.min(self.queue.len());
        into.extend(self.queue.drain(..count).map(|queued| queued.command));
        if self.queue.is_empty() {
            self.join_at = LEAST;
        }
        count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn join(&mut self) {
        // Of each topic: whether it was new at first, and which change is the last.
        let mut topics: HashMap<Bytes, (bool, usize)> = HashMap::new();
        for (at, queued) in self.queue.iter().enumerate() {
            let topic = queued.command.topic().clone();
            topics.entry(topic).or_insert((queued.is_new, at)).1 = at;
        }
        let mut at = 0;
        self.queue.retain_mut(|queued| {
            let found = topics.get(queued.command.topic()).filter(|(_, last)| *last == at);
            at += 1;
            let Some((was_new, _)) = found else { return false };
            queued.is_new = *was_new;
            !(*was_new && matches!(queued.command, Command::Cancel(_)))
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// How much once piled up does not let more pile up when that was read.
    ///
    /// Rules: MQ-065.
    #[test]
    fn what_was_read_makes_room_for_no_more() {
        let (mut commands, mut taken) = (Commands::default(), VecDeque::new());
        for number in 0..2 * LEAST {
            commands.push(Command::Subscribe(number.to_string().into()), true);
        }
        assert!(commands.join_at > LEAST);
        assert_eq!(commands.take(usize::MAX, &mut taken), 2 * LEAST);
        assert_eq!(commands.join_at, LEAST);
    }

    /// However changes are joined, the publisher ends up with the same set, and what waits is bounded.
    ///
    /// Rules: MQ-065, MQ-216, MQ-235.
    #[test]
    fn joined_changes_lead_to_the_same_set() {
        let mut commands = Commands { queue: VecDeque::new(), join_at: 4 };
        let (mut held, mut publisher) = (BTreeSet::new(), BTreeSet::new());
        let mut taken = VecDeque::new();
        let mut seed = 1_u32;
        for step in 0..100_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let topic = Bytes::from(vec![(seed >> 16) as u8 % 40]);
            if seed >> 31 == 0 {
                let is_new = held.insert(topic.clone());
                commands.push(Command::Subscribe(topic), is_new);
            } else if held.remove(&topic) {
                commands.push(Command::Cancel(topic), false);
            }
            // Joining at every length, and in the middle of what a publisher was told.
            commands.join_at = commands.queue.len() + 1 + (seed >> 8) as usize % 50;
            if step % 7 == 0 {
                commands.take((seed >> 12) as usize % 9, &mut taken);
            }
            if step % 1000 == 0 {
                commands.take(usize::MAX, &mut taken);
            }
            for command in taken.drain(..) {
                match command {
                    Command::Subscribe(topic) => publisher.insert(topic),
                    Command::Cancel(topic) => publisher.remove(&topic),
                };
            }
            if commands.is_empty() {
                assert_eq!(publisher, held, "step {step}");
            }
        }
    }

    /// Rules: MQ-065.
    #[test]
    fn topics_that_come_and_go_do_not_pile_up() {
        let mut commands = Commands::default();
        commands.push(Command::Subscribe(Bytes::from_static(b"kept")), true);
        for number in 0..1_000_000_u32 {
            let topic = Bytes::copy_from_slice(&number.to_be_bytes());
            commands.push(Command::Subscribe(topic.clone()), true);
            commands.push(Command::Cancel(topic), false);
            assert!(commands.queue.len() <= LEAST);
        }
        let mut taken = VecDeque::new();
        commands.take(1, &mut taken);
        assert_eq!(taken, [Command::Subscribe(Bytes::from_static(b"kept"))]);
    }
}
