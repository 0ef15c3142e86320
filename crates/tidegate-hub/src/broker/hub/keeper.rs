//! Keeps registrations and attachments: renews their leases, and makes them again when the broker has restarted (DH-183).
//!
//! One thread per hub, started by its first registration. It asks the broker for a sign of life twice per
//! `broker_request` interval, and at once acts on another epoch that any reply shows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::link::{Asking, Link};
use crate::broker::{
    error::HubError,
    proof::Verifier,
    wire::{
        AttachAck, BlockUuid, ChannelId, ChannelName, Deregister, Detach, Discovered, Fixed, HandoverNotify,
        HandoverPhase, Heartbeat, Label, Register, Registered, RequestBody, U64,
    },
};
use crate::{identity::ProcessKey, layout::Descriptor};

/// Time that one request of the keeper may take: `broker_request` (6.3).
const REQUEST: Duration = Duration::from_secs(5);

/// Time between signs of life: so often that a restart is noticed within [`REQUEST`].
const INTERVAL: Duration = Duration::from_secs(2);

/// The thread, and what it keeps.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
    kept: Mutex<Kept>,
    /// Held while a channel is registered again or taken back, so that none comes back after it was taken back.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    registrations: BTreeMap<BlockUuid, Record>,
    attachments: BTreeMap<u64, AttachmentRecord>,
    /// Of registrations and attachments; none is given again.
    last_number: u64,
    /// Consumers that have left.
    departures: Vec<Detach>,
    /// Whether one was added that the thread has not counted on: its lease may be shorter than the sleep.
    has_new: bool,
    is_ending: bool,
}

#[derive(Debug)]
struct Record {
    /// Of the [`Registration`] that it belongs to: a block may be registered twice.
    number: u64,
    asking: Asking,
    registered: Registered,
    /// The broker's start that knows of it; `None` when it has to be made again.
    epoch: Option<Label>,
    /// How it came to its block, as long as the broker has not heard all of it.
    moved: Option<Moved>,
}

/// A channel that has moved to another block.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    /// What was announced.
    pub(super) announced: HandoverNotify,
    /// Of the secret of the block before.
    pub(super) verifier: Option<Verifier>,
    /// The last id in the block before.
    pub(super) last: u64,
}

impl Moved {
    fn asking(&self, phase: HandoverPhase) -> Asking {
        let cutover_slot_id = (phase == HandoverPhase::Cutover).then_some(U64(self.last));
        let notify = HandoverNotify { phase, cutover_slot_id, ..self.announced.clone() };
        Asking { body: RequestBody::HandoverNotify(Box::new(notify)), verifier: self.verifier.clone() }
    }
}

/// A consumer that the broker knows of.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    channel: ChannelName,
    verifier: Option<Verifier>,
    block: BlockUuid,
    consumer_id: Label,
    config_hash: Fixed<32>,
    process_key: ProcessKey,
}

#[derive(Clone, Debug)]
struct AttachmentRecord {
    attached: Attached,
    channel_id: ChannelId,
    /// The broker's start that knows of it; `None` when it has to be told again.
    epoch: Option<Label>,
}

impl Kept {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl Attached {
    pub(super) fn of(
        channel: ChannelName,
        verifier: Option<Verifier>,
        consumer_id: Label,
        block: &Descriptor,
        owner: ProcessKey,
    ) -> Self {
        Self {
            channel,
            verifier,
            block: block.uuid,
            consumer_id,
            config_hash: Fixed(block.digest),
            process_key: owner,
        }
    }

    pub(super) fn ack(&self, channel_id: ChannelId) -> AttachAck {
        AttachAck {
            channel_id,
            consumer_id: self.consumer_id.clone(),
            config_hash: self.config_hash,
            process_key: self.process_key,
        }
    }
}

/// An attachment that the broker knows of, and is told of again when it forgot. Dropping it takes it back.
#[derive(Debug)]
pub struct Attachment {
    keeper: Arc<Keeper>,
    number: u64,
}

impl Attachment {
    /// The id by which the broker knows the consumer.
    pub fn consumer_id(&self) -> Option<Label> {
        self.keeper
            .shared
            .kept()
            .attachments
            .get(&self.number)
            .map(|record| record.attached.consumer_id.clone())
    }

    /// The consumer is in another block by now; the broker is told soon.
    pub(crate) fn moved(&self, block: &Descriptor, verifier: Option<Verifier>) {
        if let Some(record) = self.keeper.shared.kept().attachments.get_mut(&self.number) {
            let Attached { consumer_id, process_key, .. } = record.attached.clone();
            let channel = block.spec.channel.clone();
            record.attached = Attached::of(channel, verifier, consumer_id, block, process_key);
            record.epoch = None;
        }
        self.keeper.shared.kept().has_new = true;
        self.keeper.shared.ring();
    }
}

impl Drop for Attachment {
    /// The broker is told by the keeper's thread: who leaves does not wait for it.
    fn drop(&mut self) {
        let mut kept = self.keeper.shared.kept();
        let Some(record) = kept.attachments.remove(&self.number) else { return };
        kept.departures
            .push(Detach { channel_id: record.channel_id, consumer_id: record.attached.consumer_id });
        kept.has_new = true;
        drop(kept);
        self.keeper.shared.ring();
    }
}

/// Longest time that a hub that ends waits to tell the broker who has left.
const FAREWELL: Duration = Duration::from_millis(100);

/// Most departures that wait for a broker that is away; it forgets those who do not beat.
const MOST_DEPARTURES: usize = 64;

/// A channel that is registered, and kept so. Dropping it stops keeping it, and leaves it to the broker; see
/// [`deregister`](Self::deregister).
#[derive(Debug)]
pub struct Registration {
    keeper: Arc<Keeper>,
    block: BlockUuid,
    number: u64,
}

impl Registration {
    /// Number of the channel at the broker; changes when the broker restarts.
    pub fn channel_id(&self) -> Option<ChannelId> {
        self.with(|record| record.registered.channel_id)
    }

    /// What the broker answered last.
    pub fn registered(&self) -> Option<Registered> {
        self.with(|record| record.registered.clone())
    }

    /// Whether the broker that answered last knows of it.
    pub fn is_current(&self) -> bool {
        let epoch = self.keeper.shared.link.epoch();
        self.with(|record| record.epoch.is_some() && record.epoch == epoch).unwrap_or(false)
    }

    /// Takes the channel back. Waits for an answer of the broker to the thread that keeps it first, if one is due.
    ///
    /// # Errors
    /// As [`MessageHub::request`](super::MessageHub::request); it is not kept any longer in any case.
    pub fn deregister(self, timeout: Duration) -> Result<(), HubError> {
        let shared = &self.keeper.shared;
        let _turn = shared.turn();
        let Some(record) = self.end() else { return Ok(()) };
        let RequestBody::Register(register) = &record.asking.body else { return Ok(()) };
        let body = RequestBody::Deregister(Deregister {
            channel_name: register.channel_name.clone(),
            block_uuid: self.block,
            secret_proof: None,
        });
        let asking = Asking { body, verifier: record.asking.verifier.clone() };
        let _: super::Nothing = shared.link.ask(&asking, Instant::now() + timeout)?;
        Ok(())
    }

    /// The channel is in another block now, which is registered in place of the one before. The broker hears of it now
    /// or, if it is away, when it is back.
    pub(super) fn moved_to(
        &mut self,
        register: Register,
        verifier: Option<Verifier>,
        moved: Option<Moved>,
        timeout: Duration,
    ) {
        let keeper = self.keeper.clone();
        let Some(old) = self.end() else { return };
        let block = register.block_uuid;
        let kept_fields = match old.asking.body {
            RequestBody::Register(before) => Register {
                lease_ms: before.lease_ms,
                zmq_endpoint: before.zmq_endpoint,
                zmq_pubkey: before.zmq_pubkey,
                ..register
            },
            _ => register,
        };
        let asking = Asking { body: RequestBody::Register(Box::new(kept_fields)), verifier };
        *self = Keeper::insert(keeper, block, |number| Record {
            number,
            asking,
            registered: old.registered,
            epoch: None,
            moved,
        });
        self.keeper.shared.register_again(block, timeout);
    }

    fn with<T>(&self, read: impl FnOnce(&Record) -> T) -> Option<T> {
        let kept = self.keeper.shared.kept();
        kept.registrations.get(&self.block).filter(|record| record.number == self.number).map(read)
    }

    /// Ends keeping it, unless the block was registered once more.
    fn end(&self) -> Option<Record> {
        let mut kept = self.keeper.shared.kept();
        let is_this = kept.registrations.get(&self.block)?.number == self.number;
        if is_this { kept.registrations.remove(&self.block) } else { None }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.end();
    }
}

impl Keeper {
    pub(super) fn start(link: Arc<Link>) -> Result<Self, HubError> {
        let shared = Arc::new(Shared { link, kept: Mutex::default(), turn: Mutex::default() });
        let of_thread = shared.clone();
        let thread = thread::Builder::new()
            .name("tidegate-hub-keeper".into())
            .spawn(move || of_thread.run())
            .map_err(|source| HubError::System {
                what: "cannot start the thread that keeps registrations",
                source,
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps the registration of `block`, which `asking` is.
    pub(super) fn keep(
        keeper: Arc<Self>,
        block: BlockUuid,
        asking: Asking,
        registered: Registered,
    ) -> Registration {
        let epoch = keeper.shared.link.epoch();
        let record = |number| Record { number, asking, registered, epoch, moved: None };
        Self::insert(keeper, block, record)
    }

    fn insert(keeper: Arc<Self>, block: BlockUuid, record: impl FnOnce(u64) -> Record) -> Registration {
        let number = {
            let mut kept = keeper.shared.kept();
            let number = kept.next_number();
            kept.registrations.insert(block, record(number));
            kept.has_new = true;
            number
        };
        keeper.shared.ring();
        Registration { keeper, block, number }
    }

    pub(super) fn keep_attached(keeper: Arc<Self>, attached: Attached, channel_id: ChannelId) -> Attachment {
        let epoch = keeper.shared.link.epoch();
        let number = {
            let mut kept = keeper.shared.kept();
            let number = kept.next_number();
            kept.attachments.insert(number, AttachmentRecord { attached, channel_id, epoch });
            number
        };
        keeper.shared.ring();
        Attachment { keeper, number }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.kept().is_ending = true;
        self.shared.ring();
        if let Some(thread) = self.thread.take() {
            // What a panicking keeper leaves is nothing to a hub that ends.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some(wait) = self.next_wait() {
            let epoch = self.link.lock_epoch();
            let known = epoch.clone();
            let is_quiet = |epoch: &mut Option<Label>| *epoch == known && !self.is_disturbed();
            drop(self.link.changed.wait_timeout_while(epoch, wait, is_quiet));
            if !self.kept().is_ending {
                self.make_sure();
            }
        }
        let departures = std::mem::take(&mut self.kept().departures);
        self.tell_departures(departures, Instant::now() + FAREWELL);
    }

    /// Tells the broker who has left; what it does not hear of now it may the next time.
    fn tell_departures(&self, departures: Vec<Detach>, deadline: Instant) {
        for body in departures {
            let asking = Asking { body: RequestBody::Detach(body.clone()), verifier: None };
            let asked: Result<super::Nothing, _> = self.link.ask(&asking, deadline);
            if let Err(HubError::Timeout { .. } | HubError::Disconnected { .. }) = asked {
                let mut kept = self.kept();
                if kept.departures.len() < MOST_DEPARTURES {
                    kept.departures.push(body);
                }
            }
        }
    }

    /// `None` to end.
    fn next_wait(&self) -> Option<Duration> {
        let mut kept = self.kept();
        kept.has_new = false;
        let shortest =
            kept.registrations.values().map(|record| record.registered.lease_ms).filter(|ms| *ms > 0).min();
        let beat = shortest.map_or(INTERVAL, |ms| Duration::from_millis(ms.into()) / 3);
        (!kept.is_ending).then_some(beat.min(INTERVAL))
    }

    /// Beats for every lease, asks for a sign of life, and registers again what the broker does not know.
    fn make_sure(&self) {
        let job = |(block, record): (&BlockUuid, &Record)| {
            (*block, record.registered.channel_id, record.registered.lease_ms > 0)
        };
        let jobs: Vec<(BlockUuid, ChannelId, bool)> = self.kept().registrations.iter().map(job).collect();
        let attachments: Vec<(u64, AttachmentRecord)> =
            self.kept().attachments.iter().map(|(number, record)| (*number, record.clone())).collect();
        let is_idle = jobs.is_empty() && attachments.is_empty() && self.kept().departures.is_empty();
        if is_idle || self.link.ping(Instant::now() + REQUEST).is_err() {
            return;
        }
        let departures = std::mem::take(&mut self.kept().departures);
        self.tell_departures(departures, Instant::now() + REQUEST);
        for (block, channel_id, has_lease) in jobs {
            if self.kept().is_ending {
                return;
            }
            let epoch = self.link.epoch();
            let is_known = self.kept().registrations.get(&block).is_none_or(|record| record.epoch == epoch);
            let is_forgotten = is_known && has_lease && self.beat(channel_id);
            if !is_known || is_forgotten {
                self.register_again(block, REQUEST);
            }
        }
        for (number, record) in attachments {
            if self.kept().is_ending {
                return;
            }
            if record.epoch != self.link.epoch() || self.beat(record.channel_id) {
                self.attach_again(number, &record.attached);
            }
        }
    }

    /// Tells the broker of an attachment that it does not know. What fails now is tried again the next time.
    fn attach_again(&self, number: u64, attached: &Attached) {
        let discover = super::Discovery::of(attached.channel.clone());
        let asking = Asking { body: discover.body(), verifier: attached.verifier.clone() };
        let deadline = Instant::now() + REQUEST;
        let told = self.link.ask::<Discovered>(&asking, deadline).and_then(|found| {
            // Of another block there is nothing to tell: this consumer follows it, or does not.
            if found.channel.block_uuid == attached.block {
                let body = RequestBody::AttachAck(attached.ack(found.channel.channel_id));
                let _: super::Nothing = self.link.ask(&Asking { body, verifier: None }, deadline)?;
            }
            Ok(found.channel.channel_id)
        });
        let epoch = self.link.epoch();
        match told {
            Ok(channel_id) => {
                if let Some(record) = self
                    .kept()
                    .attachments
                    .get_mut(&number)
                    .filter(|record| record.attached.block == attached.block)
                {
                    (record.channel_id, record.epoch) = (channel_id, epoch);
                }
            }
            // It does not care.
            Err(HubError::Unsupported(_)) => {
                if let Some(record) = self.kept().attachments.get_mut(&number) {
                    record.epoch = epoch;
                }
            }
            Err(error) => tracing::debug!(%error, "an attachment could not be told again"),
        }
    }

    /// Renews a lease. Tells whether the broker has forgotten the client.
    fn beat(&self, channel_id: ChannelId) -> bool {
        let asking = Asking { body: RequestBody::Heartbeat(Heartbeat { channel_id }), verifier: None };
        let result: Result<super::Nothing, _> = self.link.ask(&asking, Instant::now() + REQUEST);
        matches!(result, Err(HubError::UnknownClient(_)))
    }

    /// What fails now is tried again the next time. Each request may take `timeout`.
    fn register_again(&self, block: BlockUuid, timeout: Duration) {
        let _turn = self.turn();
        let found = self
            .kept()
            .registrations
            .get(&block)
            .map(|record| (record.number, record.asking.clone(), record.moved.clone()));
        let Some((number, asking, moved)) = found else { return };
        match self.tell_registered(&asking, moved.as_ref(), timeout) {
            Ok(registered) => {
                let epoch = self.link.epoch();
                let mut kept = self.kept();
                if let Some(record) =
                    kept.registrations.get_mut(&block).filter(|record| record.number == number)
                {
                    (record.registered, record.epoch, record.moved) = (registered, epoch, None);
                    self.link.count(|counters| counters.reregistrations += 1);
                }
            }
            Err(error) => {
                tracing::warn!(%block, %error, "a channel could not be registered again");
                if let Some(record) = self.kept().registrations.get_mut(&block) {
                    record.epoch = None;
                }
            }
        }
    }

    /// Registers a block, which a broker that knows the one before takes only if it was announced. It has another number
    /// once the broker has heard of the cut.
    fn tell_registered(
        &self,
        asking: &Asking,
        moved: Option<&Moved>,
        timeout: Duration,
    ) -> Result<Registered, HubError> {
        if let Some(moved) = moved {
            self.tell_moved(moved, HandoverPhase::Prepare, timeout)?;
            let _: Registered = self.link.ask(asking, Instant::now() + timeout)?;
            self.tell_moved(moved, HandoverPhase::Cutover, timeout)?;
        }
        self.link.ask(asking, Instant::now() + timeout)
    }

    /// A broker that refuses has started again since, or has heard of it before, and needs to hear no more.
    fn tell_moved(&self, moved: &Moved, phase: HandoverPhase, timeout: Duration) -> Result<(), HubError> {
        match self.link.ask::<super::Nothing>(&moved.asking(phase), Instant::now() + timeout) {
            Err(error @ (HubError::Timeout { .. } | HubError::Disconnected { .. })) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "the broker has no use for what is said of a handover");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    fn is_disturbed(&self) -> bool {
        let kept = self.kept();
        kept.is_ending || kept.has_new
    }

    /// Wakes the thread; under the lock that it waits with, so that it does not miss the bell.
    fn ring(&self) {
        let _epoch = self.link.lock_epoch();
        self.link.changed.notify_all();
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
