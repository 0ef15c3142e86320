//! Subscribing: which topics are held, and telling the publishers (6.9, 6.10).
//!
//! Each publisher gets one stream of changes per connection: first every topic held, then each change in order
//! (MQ-232, MQ-235). It is queued with the pipe, ahead of messages and under no limit; where many pile up they are joined.

use bytes::Bytes;
use tidegate_io::{hub::PeerSet, index::PrefixTree, peer::PeerKey};

use crate::state::{Command, Core};

#[derive(Debug, Default)]
pub(crate) struct Interest {
    /// Topics, each with the number of times it was asked for.
    topics: PrefixTree<u64>,
    publishers: PeerSet,
}

impl Interest {
    /// A publisher is connected.
    pub(super) fn up<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.publishers.attach(key, core.epoch(key));
        self.topics.for_each(|topic, _| {
            core.command(key, Command::Subscribe(Bytes::copy_from_slice(topic)), true);
        });
    }

    /// A publisher is not connected any more.
    pub(super) fn down<L: Clone>(&mut self, core: &Core<L>, key: PeerKey) {
        self.publishers.detach(key, core.epoch(key));
    }

    /// Asks for a topic once more; tells the publishers if it is new or `repeat` is set.
    pub(crate) fn add<L: Clone>(&mut self, core: &mut Core<L>, topic: Bytes, repeat: bool) {
        let count = self.topics.get_or_insert_with(&topic, || 0);
        *count += 1;
        let is_new = *count == 1;
        if is_new || repeat {
            self.tell(core, Command::Subscribe(topic), is_new);
        }
    }

    /// Gives a topic up once; tells the publishers if it is not held any more, or was not, and `always` is set.
    pub(crate) fn remove<L: Clone>(&mut self, core: &mut Core<L>, topic: Bytes, always: bool) {
        let was_last = match self.topics.get_mut(&topic) {
            None => false,
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            Some(_) => self.topics.remove(&topic).is_some(),
        };
        if was_last || always {
            self.tell(core, Command::Cancel(topic), false);
        }
    }

    /// Whether a held topic is a prefix of `subject`.
    pub(super) fn wants(&self, subject: &[u8]) -> bool {
        self.topics.has_prefix_of(subject)
    }

    /// The connected publishers.
    pub(super) fn publishers(&self) -> impl Iterator<Item = PeerKey> {
        self.publishers.peers().iter().copied()
    }

    /// Number of distinct topics (MQ-347).
    pub(crate) fn topics(&self) -> usize {
        self.topics.len()
    }

    fn tell<L: Clone>(&self, core: &mut Core<L>, command: Command, is_new: bool) {
        for key in self.publishers() {
            core.command(key, command.clone(), is_new);
        }
    }
}
