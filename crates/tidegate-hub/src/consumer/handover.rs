//! Reading a channel through handovers (15.4).

use std::{collections::VecDeque, fmt};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    region::Span,
};

use super::{
    Consumer, KeptSlot, ReadSlot, Watcher,
    membership::{Judgement, Membership},
};
use crate::{
    block::{AttachOptions, Role, look},
    broker::{Attachment, EventStream, MessageHub},
    config::{ConsumerConfig, Timeout},
    core::{Start, codec::SlotId, config::Deadline},
    error::{AcquireError, FollowError, OpenError, RegistryError},
    handover::{Announcement, HandoverState, answer, glance, observe},
    layout::{BlockUuid, KeyId, Secret, SyncPolicy},
};

/// Asked about a successor that is being prepared: whether this consumer will come along.
type Accept = dyn FnMut(&Announcement) -> bool + Send;
/// Told of a switch, with the old block and the new one.
type OnHandover = dyn FnMut(&BlockUuid, &BlockUuid) + Send;

/// A consumer that follows its channel from block to block: ids go on without a gap (DH-219, DH-220), and nobody who only
/// reads notices (DH-226). It answers a producer that prepares a handover, and switches when it has read what the old block
/// holds, with LatestOnly at once.
pub struct HandoverIterator {
    consumer: Consumer,
    config: ConsumerConfig,
    /// Secrets that successors may have.
    secrets: Vec<Secret>,
    /// The attempt that was answered last.
    answered: Option<u32>,
    /// How far a handover was at the last look.
    seen: (HandoverState, u32),
    /// Ids that were gone before the switch, not told yet.
    lost: u64,
    /// Blocks before this one of which slots are kept, oldest first.
    left: VecDeque<Left>,
    accept: Option<Box<Accept>>,
    on_handover: Option<Box<OnHandover>>,
    membership: Option<Membership>,
}

/// A block that was read to its end and is not done with.
struct Left {
    consumer: Consumer,
    /// The first id that is not in it.
    end: SlotId,
}

impl fmt::Debug for HandoverIterator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoverIterator").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

impl HandoverIterator {
    /// Attaches the block whose file is `name`. If the channel is in its successor by now, what is left here is read first.
    ///
    /// # Errors
    /// As [`Consumer::attach`].
    pub fn attach(name: &str, config: &ConsumerConfig) -> Result<Self, OpenError> {
        Ok(Self::of(Consumer::attach(name, config)?, config.clone()))
    }

    pub(crate) fn of(consumer: Consumer, config: ConsumerConfig) -> Self {
        Self {
            consumer,
            config,
            secrets: Vec::new(),
            answered: None,
            seen: (HandoverState::None, 0),
            lost: 0,
            left: VecDeque::new(),
            accept: None,
            on_handover: None,
            membership: None,
        }
    }

    /// The broker knows this consumer, and says what a successor will be.
    pub(crate) fn known_by(
        self,
        hub: MessageHub,
        attachment: Attachment,
        events: Option<EventStream>,
    ) -> Self {
        Self { membership: Some(Membership::new(hub, attachment, events)), ..self }
    }

    /// Adds the secret of a successor to come (DH-166).
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Has `accept` say whether this consumer comes along, each time a handover is prepared.
    #[must_use]
    pub fn accept(self, accept: impl FnMut(&Announcement) -> bool + Send + 'static) -> Self {
        Self { accept: Some(Box::new(accept)), ..self }
    }

    /// Tells `told` of each switch (DH-226).
    #[must_use]
    pub fn on_handover(self, told: impl FnMut(&BlockUuid, &BlockUuid) + Send + 'static) -> Self {
        Self { on_handover: Some(Box::new(told)), ..self }
    }

    /// The consumer of the block that is being read.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// The next slot, of whichever block has it.
    ///
    /// # Errors
    /// As [`Consumer::next`], and why the successor cannot be read: it has other records or another secret, or it is gone
    /// already. After `Lapped` reading goes on behind what was lost (DH-228).
    pub fn next(&mut self, timeout: Timeout) -> Result<ReadSlot<'_>, FollowError> {
        let deadline = timeout.deadline(self.consumer.timeouts.read_acquire);
        let started = self.consumer.sampled();
        self.acquire(deadline)?;
        self.consumer.started = started;
        Ok(ReadSlot::new(&mut self.consumer))
    }

    /// As [`HandoverIterator::next`], without waiting.
    ///
    /// # Errors
    /// As [`HandoverIterator::next`].
    pub fn try_next(&mut self) -> Result<ReadSlot<'_>, FollowError> {
        self.next(Timeout::Immediate)
    }

    /// As [`Consumer::keep_next`], of whichever block has it. Slots that are kept of a block that was left stay held there.
    ///
    /// # Errors
    /// As [`HandoverIterator::next`] and [`Consumer::keep_next`].
    pub fn keep_next<R>(
        &mut self,
        read: impl FnOnce(&KeptSlot, Span<'_>) -> R,
    ) -> Result<(KeptSlot, R), FollowError> {
        self.acquire(Deadline::Immediate)?;
        Ok(self.consumer.keep_current(read))
    }

    /// As [`Consumer::consume_kept`]. A block that was left is done with when all that was kept of it was given back.
    ///
    /// # Errors
    /// As [`Consumer::consume_kept`].
    pub fn consume_kept(&mut self, kept: KeptSlot) -> Result<(), AcquireError> {
        let Some(at) = self.left.iter().position(|left| kept.id() < left.end) else {
            return self.consumer.consume_kept(kept);
        };
        let Some(left) = self.left.get_mut(at) else { return Ok(()) };
        let consumed = left.consumer.consume_kept(kept);
        if !left.consumer.holds_any() {
            self.left.remove(at).into_iter().for_each(|left| give_back(left.consumer));
        }
        match consumed {
            // The block was taken down meanwhile: nobody waits for the slot.
            Err(AcquireError::Fenced) => Ok(()),
            consumed => consumed,
        }
    }

    /// What another thread waits with for the next slot, in this block, or for a handover of it: after each call that found
    /// nothing a new one.
    pub fn watcher(&self) -> Option<Watcher> {
        self.consumer.watcher_for(Some(self.seen))
    }

    /// Gives the place back.
    ///
    /// # Errors
    /// As [`Consumer::detach`].
    pub fn detach(self) -> Result<(), RegistryError> {
        self.consumer.detach()
    }

    /// Acquires the consumer's current slot, whichever consumer that is then.
    fn acquire(&mut self, deadline: Deadline) -> Result<(), FollowError> {
        loop {
            if self.lost > 0 {
                return Err(AcquireError::Lapped { lost: std::mem::take(&mut self.lost) }.into());
            }
            let seen = self.look()?;
            if seen.0.is_cut() && self.consumer.newest_only {
                self.follow()?;
                continue;
            }
            let unanswered = seen.0 == HandoverState::Prepared && self.answered != Some(seen.1);
            if deadline != Deadline::Immediate && self.is_news(deadline, seen, unanswered)? {
                continue;
            }
            match self.consumer.acquire_until(deadline) {
                Err(AcquireError::Closed { handed_over: true }) => self.follow()?,
                result => return Ok(result?),
            }
        }
    }

    /// How far the block is in a handover. Answers one that is prepared.
    fn look(&mut self) -> Result<(HandoverState, u32), AcquireError> {
        self.consumer.block.check().map_err(|_| AcquireError::Fenced)?;
        let Some(reader) = &self.consumer.reader else { return Err(AcquireError::Fenced) };
        let views = reader.core().words().views();
        let seen = glance(views);
        self.seen = seen;
        let is_new = seen.0 == HandoverState::Prepared && self.answered != Some(seen.1);
        if let (true, Some(announced)) = (is_new, observe(views))
            && let Some(row) = views.consumers.row(self.consumer.row())
        {
            let Self { membership, config, secrets, accept, .. } = self;
            let knows = |id| config.secret.iter().chain(&*secrets).any(|secret| secret.key_id() == id);
            let judged = match membership {
                Some(membership) => membership.judge(&announced, config, knows),
                None => Judgement::Ready,
            };
            let refused = match judged {
                Judgement::Later => return Ok(seen),
                Judgement::Refused(reason) => Some(reason),
                Judgement::Ready if accept.as_mut().is_none_or(|accept| accept(&announced)) => None,
                Judgement::Ready => Some("this consumer does not come along".to_owned()),
            };
            answer(&row, announced.epoch, refused.is_none());
            reader.core().wake_writer();
            self.answered = Some(announced.epoch);
            if let Some(membership) = membership {
                let channel = &self.consumer.descriptor().spec.channel;
                membership.tell(channel, announced.epoch, refused.as_deref(), config);
            }
        }
        Ok(seen)
    }

    /// Waits until there may be something to read; true if a handover went on meanwhile. With an answer that is due not for
    /// long.
    fn is_news(
        &self,
        deadline: Deadline,
        seen: (HandoverState, u32),
        unanswered: bool,
    ) -> Result<bool, AcquireError> {
        if unanswered {
            let soon = monotonic_now().saturating_add(ANSWER);
            let is_over = deadline.passed(monotonic_now());
            let there = self.wait(Deadline::At(soon), seen)?;
            return Ok(!there && !is_over || self.is_moving(seen));
        }
        self.wait(deadline, seen)?;
        Ok(self.is_moving(seen))
    }

    fn is_moving(&self, seen: (HandoverState, u32)) -> bool {
        self.consumer.reader.as_ref().is_some_and(|reader| glance(reader.core().words().views()) != seen)
    }

    /// False at the deadline.
    fn wait(&self, deadline: Deadline, seen: (HandoverState, u32)) -> Result<bool, AcquireError> {
        let Some(reader) = &self.consumer.reader else { return Err(AcquireError::Fenced) };
        let views = reader.core().words().views();
        reader.wait_for(deadline, || glance(views) != seen)
    }

    /// Switches to the successor. Only after the cut: the name of one that is prepared may be removed again (DH-225).
    fn follow(&mut self) -> Result<(), FollowError> {
        let handed_over = AcquireError::Closed { handed_over: true };
        let Some(reader) = &self.consumer.reader else { return Err(AcquireError::Fenced.into()) };
        let announced = observe(reader.core().words().views()).filter(|announced| announced.state.is_cut());
        let announced = announced.ok_or(handed_over)?;
        let old = self.consumer.descriptor().uuid;
        let (next, lost) = self.open(&announced, &old)?;
        let old_consumer = std::mem::replace(&mut self.consumer, next);
        self.lost = lost;
        self.answered = None;
        if let Some(membership) = &self.membership {
            membership.moved(self.consumer.descriptor(), self.config.secret.as_ref());
        }
        if old_consumer.holds_any() {
            self.left.push_back(Left { consumer: old_consumer, end: announced.first_slot_id });
        } else {
            give_back(old_consumer);
        }
        if let Some(told) = &mut self.on_handover {
            told(&old, &announced.successor);
        }
        Ok(())
    }

    /// The consumer of the successor, and how many ids were gone there.
    fn open(&mut self, announced: &Announcement, old: &BlockUuid) -> Result<(Consumer, u64), OpenError> {
        let other = || OpenError::NotSuccessor { name: announced.name.clone(), of: *old };
        let options = AttachOptions {
            dir: self.config.dir.clone(),
            huge_dir: self.config.huge_dir.clone(),
            trust: self.config.trust.clone(),
            ..AttachOptions::new(Role::Inspector)
        };
        let found = look(&announced.name, &options)?.descriptor;
        if found.uuid != announced.successor || found.spec.predecessor != Some(*old) {
            return Err(other());
        }
        let first = announced.first_slot_id;
        let mut config = ConsumerConfig {
            // It may have another one (15.2).
            channel: Some(found.spec.channel.clone()),
            secret: self.secret_for(found.key_id),
            start: Some(Start::At(first)),
            ..self.config.clone()
        };
        let (next, lost) = match Consumer::attach(&announced.name, &config) {
            Err(OpenError::Registry(RegistryError::BadStart { .. })) => {
                config.start = Some(Start::Oldest);
                let next = Consumer::attach(&announced.name, &config)?;
                let lost = next.start_id().0.saturating_sub(first.0);
                (next, if found.spec.sync == SyncPolicy::LatestOnly { 0 } else { lost })
            }
            attached => (attached?, 0),
        };
        if next.descriptor().uuid != announced.successor {
            return Err(other());
        }
        self.config.secret = config.secret;
        Ok((next, lost))
    }

    fn secret_for(&self, key_id: KeyId) -> Option<Secret> {
        let known = self.config.secret.iter().chain(&self.secrets);
        known.clone().find(|secret| secret.key_id() == key_id).or(self.config.secret.as_ref()).cloned()
    }
}

/// Leaves a block that was read to its end.
fn give_back(consumer: Consumer) {
    let block = consumer.descriptor().uuid;
    if let Err(error) = consumer.detach() {
        tracing::debug!(%block, %error, "the row in the old block was not given back");
    }
}

/// How soon to see whether an answer can be given by now.
const ANSWER: Nanos = Nanos::from_millis(5);
