//! What an XPUB has to tell its application, in order of arrival: changes of subscriptions and user messages (6.8).
//!
//! Where only the first subscriber and the last cancellation of a topic count, a change undoes an unread opposite one
//! of the same topic, and both vanish: so there is at most one unread change per topic, however often peers change
//! their minds (MQ-228). A vanished one leaves a gap, and gaps are closed when there are more of them than notices.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tidegate_io::{
    message::Message,
    peer::{Epoch, PeerKey},
};

use super::fanout::Change;
use crate::state::Held;

/// One thing to tell.
#[derive(Debug)]
pub(super) struct Notice {
    /// The pipe that it came by.
    pub(super) pipe: PeerKey,
    /// Stamp of the pipe.
    pub(super) born: Epoch,
    /// Stamp of the connection that it came by.
    pub(super) epoch: Epoch,
    pub(super) what: What,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation per message")]
pub(super) enum What {
    Change(Change, Bytes),
    Message(Message, Held),
}

#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Gaps are `None`; neither end is a gap.
    queue: VecDeque<Option<Notice>>,
    /// Number of the front.
    first: u64,
    notices: usize,
    /// Where the unread change of a topic stands, if it may vanish.
    unread: HashMap<Bytes, u64>,
}

/// Gaps that are tolerated beyond the number of notices.
const GAPS: usize = 64;

impl Notices {
    /// Adds a notice that stays.
    pub(super) fn push(&mut self, notice: Notice) {
        if let What::Change(_, topic) = &notice.what {
            self.unread.remove(topic);
        }
        self.queue.push_back(Some(notice));
        self.notices += 1;
    }

    /// Adds a change, or takes away an unread opposite one of the same topic: then returns that.
    pub(super) fn push_or_undo(&mut self, notice: Notice) -> Option<Notice> {
        let What::Change(change, topic) = &notice.what else {
            self.push(notice);
            return None;
        };
        let unread = self.unread.get(topic).and_then(|number| usize::try_from(number - self.first).ok());
        if let Some(place) = unread.and_then(|at| self.queue.get_mut(at))
            && matches!(place, Some(Notice { what: What::Change(other, _), .. }) if other != change)
        {
            self.unread.remove(topic);
            let undone = place.take();
            self.notices -= 1;
            self.close_gaps();
            return undone;
        }
        self.unread.insert(topic.clone(), self.first + self.queue.len() as u64);
        self.queue.push_back(Some(notice));
        self.notices += 1;
        None
    }

    /// Takes the oldest notice.
    pub(super) fn pop(&mut self) -> Option<Notice> {
        let notice = self.queue.pop_front()??;
        if let What::Change(_, topic) = &notice.what
            && self.unread.get(topic) == Some(&self.first)
        {
            self.unread.remove(topic);
        }
        self.first += 1;
        self.notices -= 1;
        self.trim();
        Some(notice)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notices == 0
    }

    /// Drops the user messages of a pipe; they are reported.
    pub(super) fn forget_messages(&mut self, from: PeerKey, mut dropped: impl FnMut(Held)) {
        for place in &mut self.queue {
            if let Some(Notice { pipe, what: What::Message(_, held), .. }) = place
                && *pipe == from
            {
                dropped(*held);
                *place = None;
                self.notices -= 1;
            }
        }
        self.close_gaps();
    }

    fn trim(&mut self) {
        while let Some(None) = self.queue.front() {
            self.queue.pop_front();
            self.first += 1;
        }
        while let Some(None) = self.queue.back() {
            self.queue.pop_back();
        }
    }

    fn close_gaps(&mut self) {
        self.trim();
        if self.queue.len() - self.notices <= self.notices + GAPS {
            return;
        }
        let mut old = self.first;
        let mut new = self.first;
        let unread = &mut self.unread;
        self.queue.retain(|place| {
            if let Some(Notice { what: What::Change(_, topic), .. }) = place
                && let Some(number) = unread.get_mut(topic)
                && *number == old
            {
                *number = new;
            }
            old += 1;
            new += u64::from(place.is_some());
            place.is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(change: Change, topic: u16) -> Notice {
        let topic = Bytes::copy_from_slice(&topic.to_be_bytes());
        Notice {
            pipe: PeerKey::new(0),
            born: Epoch::ZERO,
            epoch: Epoch::ZERO,
            what: What::Change(change, topic),
        }
    }

    fn shown(notice: Notice) -> (Change, u16) {
        match notice.what {
            What::Change(change, topic) => (change, u16::from_be_bytes([topic[0], topic[1]])),
            What::Message(..) => panic!("no messages here"),
        }
    }

    proptest! {
        /// Alternating changes of topics, as the index reports them, against a list from which pairs are removed.
        ///
        /// Rules: MQ-228.
        #[test]
        fn opposite_unread_changes_vanish(steps in proptest::collection::vec((0_u16..200, any::<bool>()), 0..900)) {
            let mut notices = Notices::default();
            let mut model: Vec<(Change, u16)> = Vec::new();
            let mut held = [false; 200];
            for (topic, pop) in steps {
                if pop && topic % 5 == 0 {
                    let expected = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(notices.pop().map(shown), expected);
                    continue;
                }
                let held = &mut held[usize::from(topic)];
                *held = !*held;
                let (now, before) = match *held {
                    true => (Change::Subscribe, Change::Cancel),
                    false => (Change::Cancel, Change::Subscribe),
                };
                let undone = notices.push_or_undo(change(now, topic)).map(shown);
                match model.iter().position(|unread| *unread == (before, topic)) {
                    Some(at) => prop_assert_eq!(undone, Some(model.remove(at))),
                    None => {
                        prop_assert_eq!(undone, None);
                        model.push((now, topic));
                    }
                }
                prop_assert_eq!(notices.is_empty(), model.is_empty());
                prop_assert!(notices.queue.len() <= 2 * model.len() + GAPS, "gaps are closed");
            }
            for expected in model {
                prop_assert_eq!(notices.pop().map(shown), Some(expected));
            }
            prop_assert!(notices.pop().is_none());
        }
    }

    /// A change that stays ends what might vanish: later ones of the topic do not undo what is before it.
    ///
    /// Rules: MQ-228.
    #[test]
    fn what_stays_is_not_undone() {
        let mut notices = Notices::default();
        assert!(notices.push_or_undo(change(Change::Subscribe, 1)).is_none());
        notices.push(change(Change::Cancel, 1));
        assert!(notices.push_or_undo(change(Change::Subscribe, 1)).is_none());
        let read: Vec<_> = std::iter::from_fn(|| notices.pop()).map(shown).collect();
        assert_eq!(read, [(Change::Subscribe, 1), (Change::Cancel, 1), (Change::Subscribe, 1)]);
    }
}
