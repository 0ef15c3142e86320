//! In-process links: what goes over to the far socket, and what it says of itself. See the text of [the state](super).

use std::{collections::VecDeque, mem};

use tidegate_io::{
    packed::Packed,
    peer::{Epoch, PeerKey},
};

use super::{Command, Core, Credit, LinkLimits, Most, Received, Refusal, State, pipe::Stage};

impl<L: Clone> State<L> {
    /// Whether a peer that announces this routing id would be let in on a pipe of ours, which is told by its key and its own
    /// stamp: asked before the far socket hears of a link.
    ///
    /// # Errors
    ///
    /// It would not; the pipe is as after a [`pipe_up`](Self::pipe_up) that was refused.
    pub(crate) fn admit(&mut self, (key, born): (PeerKey, Epoch), routing_id: &[u8]) -> Result<(), Refusal> {
        match self.core.pipe(key).filter(|pipe| pipe.born == born) {
            Some(pipe) if pipe.stage == Stage::Open && !pipe.is_up() => {
                self.pattern.admit(&mut self.core, key, routing_id)
            }
            Some(pipe) if pipe.stage != Stage::Retired => Ok(()),
            _ => Err(Refusal::Gone),
        }
    }

    /// Takes what is queued for the far end of an in-process link, and says whether that was not all: then nobody is told
    /// of more. With `comes_again` it is all, and the answer is true when the far end got several messages: it asks again
    /// by itself.
    pub(crate) fn take_all(
        &mut self,
        key: PeerKey,
        epoch: Epoch,
        comes_again: bool,
        commands: &mut VecDeque<Command>,
        messages: &mut Packed,
    ) -> bool {
        const SOME: Most = Most { messages: 256, bytes: 1 << 20 };
        const ALL: Most = Most { messages: usize::MAX, bytes: usize::MAX };
        let most = if comes_again { ALL } else { SOME };
        self.take_commands(key, epoch, most.messages, commands);
        let taken = self.take_outbound(key, epoch, most, messages);
        let more = match comes_again {
            true => taken > 1,
            // Of this link: what its pipe has for a later one is not for who asks.
            false => self.core.is_connected(key, epoch) && !self.core.is_silent(key),
        };
        self.core.set_noted(key, epoch, more);
        more
    }

    /// The far end of an in-process link has messages that are to be fetched.
    pub(crate) fn offered(&mut self, key: PeerKey, epoch: Epoch) {
        if self.core.is_heard(key, epoch) {
            self.core.offered(key);
        }
    }

    /// The next in-process link whose far end has messages while nothing from there is left here.
    pub(crate) fn next_offer(&mut self) -> Option<L> {
        self.core.next_offer()
    }

    /// Whether there is one.
    #[inline]
    pub(crate) fn has_offers(&self) -> bool {
        self.core.has_offers()
    }

    /// The peer changes its subscriptions.
    pub(crate) fn commanded(&mut self, key: PeerKey, epoch: Epoch, command: Command) -> Received {
        match command {
            Command::Subscribe(topic) => self.subscribed(key, epoch, topic),
            Command::Cancel(topic) => self.cancelled(key, epoch, topic),
        }
    }

    /// The far socket of an in-process link has consumed so much.
    pub(crate) fn credit(&mut self, key: PeerKey, epoch: Epoch, credit: Credit) {
        if self.core.is_connected(key, epoch) {
            self.core.credit(key, credit);
            self.pass_room(key);
        }
    }

    /// The far socket of an in-process link has other limits now.
    pub(crate) fn far_limits(&mut self, key: PeerKey, epoch: Epoch, limits: LinkLimits) {
        if self.core.is_connected(key, epoch) {
            self.core.set_far_limits(key, limits);
            self.pass_room(key);
        }
    }

    /// Limits of the pipe that the far socket of an in-process link counts with.
    pub(crate) fn link_limits(&self, key: PeerKey) -> LinkLimits {
        self.core.link_limits(key)
    }

    /// Whether what the peer sends is to come at once, since the newest message takes the place of older ones.
    pub(crate) fn conflates_received(&self, key: PeerKey) -> bool {
        self.core.pipe(key).is_some_and(|pipe| pipe.inbound_conflates)
    }
}

impl<L: Clone> Core<L> {
    /// The far end of an in-process link has messages; they are fetched when there are none here.
    pub(super) fn offered(&mut self, key: PeerKey) {
        let Some(pipe) = self.pipes.get_mut(key) else { return };
        let is_empty = pipe.inbound.is_empty();
        let Some(far) = &mut pipe.far else { return };
        if !is_empty {
            far.offered = true;
        } else if !mem::replace(&mut far.listed, true) {
            self.offers.push_back(key);
            self.effects.receivers += 1;
        }
    }

    /// Whether there are messages to be fetched.
    #[inline]
    pub(super) fn has_offers(&self) -> bool {
        !self.offers.is_empty()
    }

    /// The next in-process link to fetch from.
    pub(super) fn next_offer(&mut self) -> Option<L> {
        while let Some(key) = self.offers.pop_front() {
            let Some(pipe) = self.pipe_mut(key) else { continue };
            if let Some(far) = &mut pipe.far
                && mem::replace(&mut far.listed, false)
                && pipe.stage == Stage::Open
            {
                return pipe.link.clone();
            }
        }
        None
    }

    /// Whether the pipe has nothing to write.
    pub(super) fn is_silent(&self, key: PeerKey) -> bool {
        self.pipe(key).is_none_or(|pipe| pipe.out.is_empty() && pipe.commands.is_empty())
    }

    /// Says whether somebody knows already that the pipe has something to write.
    pub(super) fn set_noted(&mut self, key: PeerKey, epoch: Epoch, noted: bool) {
        if let Some(pipe) = self.pipe_mut(key).filter(|pipe| pipe.epoch == epoch && pipe.is_up()) {
            pipe.noted = noted;
        }
    }
}
