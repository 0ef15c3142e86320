//! Which producer owns which channel, and what is attached to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tidegate_mq::PublicKey;

use super::{Limits, Now, Refused};
use crate::broker::{
    host::{HostView, Liveness},
    proof::Verifier,
    wire::{
        BlockUuid, ChannelFacts, ChannelId, ChannelName, ClientId, Code, HandoverNotify, HandoverState,
        Label, ProcessKey, Register, Z85Key,
    },
};

/// All channels, by name, by number and by block.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) revision: u64,
    channels: BTreeMap<ChannelName, Entry>,
    names: HashMap<ChannelId, ChannelName>,
    /// Blocks of channels and of announced successors.
    blocks: HashMap<BlockUuid, ChannelName>,
    timers: BTreeSet<(Duration, Timer)>,
    /// When each of these timers is due: there is one per lease at most.
    armed: HashMap<Timer, Duration>,
    last_id: u32,
    bytes: usize,
    attachments: usize,
    limits: Limits,
}

/// A channel.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: ChannelId,
    pub(super) register: Register,
    pub(super) client: ClientId,
    pub(super) key: Option<PublicKey>,
    pub(super) lease: Option<Lease>,
    /// Whether the block was opened and fits, since this broker started.
    pub(super) is_verified: bool,
    /// Whether the block was not complete when last looked at.
    pub(super) is_building: bool,
    pub(super) handover: Option<Handover>,
    pub(super) attachments: BTreeMap<Label, Attachment>,
    size: usize,
}

/// For how long a registration is good without a sign of its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) length: Duration,
    pub(super) until: Duration,
    pub(super) is_over: bool,
}

/// A consumer that said it has attached.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) client: ClientId,
    pub(super) process_key: ProcessKey,
    /// When its lease ends; `None` for one that never sent HB_REQ.
    pub(super) until: Option<Duration>,
}

/// A handover that was announced.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) notify: HandoverNotify,
    /// The new block's registration, once it came.
    pub(super) successor: Option<Successor>,
}

/// Registration of a block that is not the channel yet.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) register: Register,
    pub(super) client: ClientId,
    pub(super) key: Option<PublicKey>,
    pub(super) is_building: bool,
    pub(super) size: usize,
}

/// Something to look at when its time has come; it may have been put off meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    Lease(ChannelId),
    Attachment(ChannelId, Label),
}

/// The registry over a restart: neither secrets nor proofs nor sealed values (DH-213).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Where the broker ran, as `host_domain` of a registration; what ran there ran no longer than the machine did.
    #[serde(default)]
    pub host_domain: Option<Label>,
    /// Number given last.
    pub last_id: u32,
    /// The channels in order of their names.
    pub channels: Vec<Saved>,
}

/// A channel over a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the registry")]
pub struct Saved {
    pub id: ChannelId,
    pub client: ClientId,
    pub key: Option<Z85Key>,
    pub register: Register,
}

impl Entry {
    pub(super) fn new(id: ChannelId, new: Successor, now: Duration) -> Self {
        let length = Duration::from_millis(new.register.lease_ms.into());
        let lease = (!length.is_zero()).then_some(Lease { length, until: now + length, is_over: false });
        Self {
            id,
            register: new.register,
            client: new.client,
            key: new.key,
            lease,
            is_verified: true,
            is_building: new.is_building,
            handover: None,
            attachments: BTreeMap::new(),
            size: new.size,
        }
    }

    pub(super) fn verifier(&self) -> Option<Verifier> {
        self.register.shared_secret_hash.map(Verifier::from_field)
    }

    /// Whether the block that follows is registered already.
    pub(super) fn has_successor(&self) -> bool {
        self.handover.as_ref().is_some_and(|known| known.successor.is_some())
    }

    /// Whether the kernel says that the owner is gone; whoever cannot be asked about counts as alive (DH-034).
    pub(super) fn is_owner_dead(&self, host: &dyn HostView) -> bool {
        self.is_local(host) && host.liveness(self.register.process_key) == Liveness::Dead
    }

    pub(super) fn is_local(&self, host: &dyn HostView) -> bool {
        self.register.host_domain.as_str() == host.domain()
    }

    pub(super) fn facts(&self, producer_alive: bool) -> ChannelFacts {
        let register = &self.register;
        ChannelFacts {
            channel_id: self.id,
            shm_name: register.shm_name.clone(),
            block_uuid: register.block_uuid,
            policy: register.policy.clone(),
            sync: register.sync.clone(),
            unit_block_size: register.unit_block_size,
            ring_buffer_capacity: register.ring_buffer_capacity,
            schema_hash: register.schema_hash,
            schema_version: register.schema_version,
            key_id: register.key_id,
            key_epoch: register.key_epoch,
            zmq_endpoint: register.zmq_endpoint.clone(),
            zmq_pubkey: register.zmq_pubkey,
            first_slot_id: register.first_slot_id,
            producer_alive,
        }
    }

    pub(super) fn handover_state(&self) -> Option<HandoverState> {
        self.handover.as_ref().map(|Handover { notify, .. }| HandoverState {
            phase: notify.phase,
            handover_epoch: notify.handover_epoch,
            new_channel: notify.new_channel.clone(),
            new_shm_name: notify.new_shm_name.clone(),
            new_uuid: notify.new_uuid,
            cutover_slot_id: notify.cutover_slot_id,
            grace_period_ms: notify.grace_period_ms,
            schema_hash: Some(notify.schema_hash),
            schema_version: Some(notify.schema_version),
            schema_text: notify.schema_text.clone(),
            new_key_id: notify.new_key_id,
        })
    }

    /// Bytes of the account that it holds.
    fn cost(&self) -> usize {
        let successor = self.handover.as_ref().and_then(|handover| handover.successor.as_ref());
        let attachments: usize = self.attachments.keys().map(attachment_cost).sum();
        self.size + successor.map_or(0, |successor| successor.size) + attachments
    }
}

/// How long a channel of elsewhere is kept over a restart without a word of its producer, which registers again within
/// seconds if it lives (DH-183).
const RESTORED_LEASE: Duration = Duration::from_secs(30);

/// The boot in a `host_domain`.
fn boot_of(domain: &str) -> &str {
    domain.split('/').next().unwrap_or_default()
}

/// Bytes of the account for a consumer that is remembered: its name, twice, and what belongs to it.
fn attachment_cost(consumer: &Label) -> usize {
    2 * consumer.as_str().len() + 256
}

impl Registry {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            revision: 0,
            channels: BTreeMap::new(),
            names: HashMap::new(),
            blocks: HashMap::new(),
            timers: BTreeSet::new(),
            armed: HashMap::new(),
            last_id: 0,
            bytes: 0,
            attachments: 0,
            limits,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn attachments(&self) -> usize {
        self.attachments
    }

    pub(super) fn find(&self, name: &ChannelName) -> Option<&Entry> {
        self.channels.get(name)
    }

    pub(super) fn find_mut(&mut self, name: &ChannelName) -> Option<&mut Entry> {
        self.channels.get_mut(name)
    }

    pub(super) fn name_of(&self, id: ChannelId) -> Option<&ChannelName> {
        self.names.get(&id)
    }

    /// The channel that a block belongs to or is announced for.
    pub(super) fn channel_of(&self, block: BlockUuid) -> Option<&ChannelName> {
        self.blocks.get(&block)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ChannelName, &Entry)> {
        self.channels.iter()
    }

    /// The channels behind `after`, from `prefix` on.
    pub(super) fn behind<'a>(
        &'a self,
        after: Option<&ChannelName>,
        prefix: &str,
    ) -> impl Iterator<Item = (&'a ChannelName, &'a Entry)> {
        let is_before = move |(channel, _): &(&ChannelName, &Entry)| channel.as_str() < prefix;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.channels.range::<ChannelName, _>((start, Bound::Unbounded)).skip_while(is_before)
    }

    /// Whether a registration of `size` more bytes fits, and another channel if `is_new`.
    pub(super) fn check_room(&self, size: usize, is_new: bool) -> Result<(), Refused> {
        if is_new && self.channels.len() >= self.limits.channels {
            let most = self.limits.channels;
            return Err(Refused::new(
                Code::Limit,
                format!("the broker has its {most} channels; deregister some"),
            ));
        }
        if self.bytes + size > self.limits.registry_bytes {
            return Err(Refused::new(
                Code::Limit,
                "the registry is as large as it may be; deregister channels",
            ));
        }
        Ok(())
    }

    /// A new channel, under a new number; what had this name goes.
    pub(super) fn insert(&mut self, new: Successor, now: Duration) -> ChannelId {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let id = ChannelId(self.last_id);
        self.put(Entry::new(id, new, now));
        id
    }

    /// The registration of a channel anew, under its old number.
    pub(super) fn refresh(&mut self, new: Successor, now: Duration) -> Option<ChannelId> {
        let old = self.take(&new.register.channel_name.clone())?;
        let mut entry = Entry::new(old.id, new, now);
        self.attachments += old.attachments.len();
        for (consumer, attachment) in &old.attachments {
            if let Some(until) = attachment.until {
                self.set_timer(until, Timer::Attachment(old.id, consumer.clone()));
            }
        }
        entry.attachments = old.attachments;
        entry.handover = old.handover;
        let id = entry.id;
        self.put(entry);
        Some(id)
    }

    /// Records what is to follow a channel.
    pub(super) fn set_successor(&mut self, name: &ChannelName, successor: Successor) {
        let Some(entry) = self.channels.get_mut(name) else { return };
        let before = entry.cost();
        if let Some(handover) = &mut entry.handover {
            self.blocks.insert(successor.register.block_uuid, name.clone());
            handover.successor = Some(successor);
        }
        self.bytes = self.bytes + entry.cost() - before;
        self.revision += 1;
    }

    /// Replaces what is announced for a channel.
    pub(super) fn set_handover(&mut self, name: &ChannelName, handover: Option<Handover>) {
        let Some(entry) = self.channels.get_mut(name) else { return };
        self.bytes -= entry.cost();
        if let Some(Successor { register, .. }) = entry.handover.take().and_then(|old| old.successor) {
            self.blocks.remove(&register.block_uuid);
        }
        if let Some(Successor { register, .. }) = handover.as_ref().and_then(|new| new.successor.as_ref()) {
            self.blocks.insert(register.block_uuid, name.clone());
        }
        entry.handover = handover;
        self.bytes += entry.cost();
    }

    pub(super) fn remove(&mut self, name: &ChannelName) -> Option<Entry> {
        self.revision += 1;
        self.take(name)
    }

    pub(super) fn attach(
        &mut self,
        name: &ChannelName,
        consumer: Label,
        new: Attachment,
    ) -> Result<(), Refused> {
        let Some(entry) = self.channels.get_mut(name) else { return Ok(()) };
        if !entry.attachments.contains_key(&consumer) {
            let cost = attachment_cost(&consumer);
            if entry.attachments.len() >= self.limits.attachments
                || self.bytes + cost > self.limits.registry_bytes
            {
                return Err(Refused::new(
                    Code::Limit,
                    "the broker remembers no more consumers; let some of this channel detach",
                ));
            }
            self.attachments += 1;
            self.bytes += cost;
        }
        entry.attachments.insert(consumer, new);
        Ok(())
    }

    pub(super) fn detach(&mut self, name: &ChannelName, consumer: &Label) -> Option<Attachment> {
        let entry = self.channels.get_mut(name)?;
        let (id, gone) = (entry.id, entry.attachments.remove(consumer)?);
        self.attachments -= 1;
        self.bytes -= attachment_cost(consumer);
        self.disarm(&Timer::Attachment(id, consumer.clone()));
        Some(gone)
    }

    /// Whether a channel can have no further consumer before one has left.
    pub(super) fn is_full(&self, entry: &Entry) -> bool {
        entry.attachments.len() >= self.limits.attachments
    }

    /// Sees to it that `timer` is looked at no later than `due`.
    pub(super) fn set_timer(&mut self, due: Duration, timer: Timer) {
        if self.armed.get(&timer).is_some_and(|known| *known <= due) {
            return;
        }
        self.disarm(&timer);
        self.armed.insert(timer.clone(), due);
        self.timers.insert((due, timer));
    }

    fn disarm(&mut self, timer: &Timer) {
        if let Some(due) = self.armed.remove(timer) {
            self.timers.remove(&(due, timer.clone()));
        }
    }

    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    pub(super) fn due_timer(&mut self, now: Duration) -> Option<Timer> {
        let timer = self.timers.first().filter(|(due, _)| *due <= now).map(|(_, timer)| timer.clone())?;
        self.disarm(&timer);
        Some(timer)
    }

    pub(super) fn snapshot(&self, host: &dyn HostView) -> Snapshot {
        let saved = |entry: &Entry| Saved {
            id: entry.id,
            client: entry.client.clone(),
            key: entry.key.map(Z85Key),
            register: Register {
                secret_proof: None,
                sealed_secrets: BTreeMap::new(),
                ..entry.register.clone()
            },
        };
        Snapshot {
            host_domain: Label::new(host.domain()).ok(),
            last_id: self.last_id,
            channels: self.channels.values().map(saved).collect(),
        }
    }

    pub(super) fn restore(&mut self, snapshot: Snapshot, now: Now, host: &dyn HostView) {
        self.last_id = snapshot.last_id;
        for saved in snapshot.channels {
            let size = crate::broker::wire::json(&saved.register).len();
            let is_taken = self.channels.contains_key(&saved.register.channel_name)
                || self.blocks.contains_key(&saved.register.block_uuid)
                || self.names.contains_key(&saved.id);
            if is_taken || self.check_room(size, true).is_err() {
                continue;
            }
            self.last_id = self.last_id.max(saved.id.0);
            let new = Successor {
                register: saved.register,
                client: saved.client,
                key: saved.key.map(|key| key.0),
                is_building: false,
                size,
            };
            let mut entry = Entry { is_verified: false, ..Entry::new(saved.id, new, now.monotonic) };
            let domain = Some(&entry.register.host_domain);
            let is_of_before = domain == snapshot.host_domain.as_ref()
                && domain.is_some_and(|domain| boot_of(domain.as_str()) != boot_of(host.domain()));
            if is_of_before || entry.is_owner_dead(host) {
                continue;
            }
            if !entry.is_local(host) {
                let until = now.monotonic + RESTORED_LEASE;
                entry.lease = Some(Lease { length: RESTORED_LEASE, until, is_over: false });
            }
            self.put(entry);
        }
    }

    /// Makes the recorded successor of a channel the channel, under a new number.
    pub(super) fn promote(&mut self, name: &ChannelName, now: Duration) {
        if self.channels.get(name).is_some_and(Entry::has_successor)
            && let Some(successor) = self.take(name).and_then(|old| old.handover?.successor)
        {
            self.insert(successor, now);
        }
    }

    fn put(&mut self, entry: Entry) {
        let name = entry.register.channel_name.clone();
        self.take(&name);
        self.revision += 1;
        self.bytes += entry.cost();
        self.names.insert(entry.id, name.clone());
        self.blocks.insert(entry.register.block_uuid, name.clone());
        if let Some(Successor { register, .. }) =
            entry.handover.as_ref().and_then(|known| known.successor.as_ref())
        {
            self.blocks.insert(register.block_uuid, name.clone());
        }
        if let Some(lease) = entry.lease {
            self.set_timer(lease.until, Timer::Lease(entry.id));
        }
        self.channels.insert(name, entry);
    }

    fn take(&mut self, name: &ChannelName) -> Option<Entry> {
        let entry = self.channels.remove(name)?;
        self.bytes -= entry.cost();
        self.attachments -= entry.attachments.len();
        self.disarm(&Timer::Lease(entry.id));
        for consumer in entry.attachments.keys() {
            self.disarm(&Timer::Attachment(entry.id, consumer.clone()));
        }
        self.names.remove(&entry.id);
        self.blocks.remove(&entry.register.block_uuid);
        if let Some(Successor { register, .. }) =
            entry.handover.as_ref().and_then(|known| known.successor.as_ref())
        {
            self.blocks.remove(&register.block_uuid);
        }
        Some(entry)
    }
}
