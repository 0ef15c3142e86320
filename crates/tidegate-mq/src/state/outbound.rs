//! What a socket has to send: into the queue of a pipe, and out of it to be written.

use std::collections::VecDeque;

use tidegate_io::{packed::Packed, peer::PeerKey};

use super::{
    core::Core,
    effects::{Effect, Effects},
    pipe::{Command, Pipe},
};
use crate::pattern::envelope::Parcel;

impl<L: Clone> Core<L> {
    /// Queues a message for sending; the caller has seen that the pipe [`is_writable`](Self::is_writable), or the
    /// message is under no limit. Says whether the pipe is writable still.
    #[inline]
    pub(crate) fn enqueue(&mut self, key: PeerKey, parcel: Parcel<'_>) -> bool {
        let Some(pipe) = self.pipes.get_mut(key) else { return false };
        let was_stalled = pipe.is_stalled();
        if pipe.out_conflates && !pipe.out.is_empty() {
            pipe.counters.out.dropped_by_rule();
        }
        let bytes = parcel.byte_len();
        match parcel {
            Parcel::Whole(message) => pipe.out.push(message),
            Parcel::Copy(message) => pipe.out.push_clone(message),
        }
        pipe.counters.out.entered(1, bytes, pipe.out.len());
        if pipe.far.is_some()
            && pipe.is_at_far_limit()
            && let Some(far) = &mut pipe.far
        {
            far.stalled = true;
        }
        let stalled = pipe.is_stalled();
        if stalled && !was_stalled {
            pipe.counters.out.stalled();
        }
        Self::note_write(pipe, key, &mut self.effects);
        self.recount(key);
        !stalled
    }

    /// Counts a message that was not queued because the pipe was not [writable](Self::is_writable). Says how many that
    /// makes on this connection for want of room in the pipe's own queue, if this was one.
    pub(crate) fn count_missed(&mut self, key: PeerKey) -> Option<u64> {
        let pipe = self.pipe_mut(key)?;
        if pipe.is_writable() {
            pipe.counters.out.dropped_over_budget();
            return None;
        }
        pipe.missed += 1;
        pipe.counters.out.dropped_full();
        Some(pipe.missed)
    }

    /// Counts a message that nobody was to get.
    pub(crate) fn count_unroutable(&self) {
        self.ledger.unroutable();
    }

    /// Queues a change of subscriptions. `is_new`: the publisher does not have the topic, as far as it was told.
    pub(crate) fn command(&mut self, key: PeerKey, command: Command, is_new: bool) {
        if let Some(pipe) = self.pipes.get_mut(key) {
            pipe.commands.push(command, is_new);
            Self::note_write(pipe, key, &mut self.effects);
        }
    }

    /// Notes that the pipe has something to write, if that is not noted already.
    pub(super) fn nudge(&mut self, key: PeerKey) {
        if let Some(pipe) = self.pipes.get_mut(key)
            && !(pipe.out.is_empty() && pipe.commands.is_empty())
        {
            Self::note_write(pipe, key, &mut self.effects);
        }
    }

    #[inline]
    fn note_write(pipe: &mut Pipe<L>, key: PeerKey, effects: &mut Effects<L>) {
        if pipe.noted {
            effects.behind = true;
        } else if let Some(link) = &pipe.link {
            effects.list.push(Effect::Write { pipe: key, epoch: pipe.epoch, link: link.clone() });
            pipe.noted = true;
        }
    }

    /// Takes messages for writing. Says how many.
    #[inline]
    pub(super) fn take(&mut self, key: PeerKey, most: Most, into: &mut Packed) -> usize {
        let Some(pipe) = self.pipe_mut(key) else { return 0 };
        let (len, size) = (pipe.out.len(), pipe.out.size());
        pipe.out.take_into(into, most.messages, most.bytes);
        let (messages, left) = (len - pipe.out.len(), pipe.out.size());
        if let Some(far) = &mut pipe.far {
            far.in_flight.messages += messages;
            far.in_flight.bytes += size.retained - left.retained;
        }
        pipe.counters.out.left(messages, size.payload - left.payload, pipe.out.len());
        pipe.settle_note(messages);
        self.recount(key);
        messages
    }

    /// Takes changes of subscriptions for writing.
    pub(super) fn take_commands(&mut self, key: PeerKey, most: usize, into: &mut VecDeque<Command>) -> usize {
        self.pipe_mut(key).map_or(0, |pipe| pipe.commands.take(most, into))
    }
}

/// How much to take at once: until either number is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Messages.
    pub(crate) messages: usize,
    /// Payload bytes; at least one message is taken however long it is.
    pub(crate) bytes: usize,
}
