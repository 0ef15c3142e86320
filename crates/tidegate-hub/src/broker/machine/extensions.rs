//! The other extensions: leases, attachments, events, schemas, lists, numbers (13.3).
//!
//! A lease is about the registry only. That one ran out says nothing about a process (DH-035); what the broker publishes
//! then is a hint to look (DH-191).

use super::{
    Answer, Asked, CONSUMER_LEASE, Machine, Now, Output, Refused,
    registry::{Attachment, Entry, Timer},
};
use crate::broker::{
    host::{HostView, Liveness},
    wire::{
        AttachAck, ChannelId, ChannelName, ChannelSummary, Code, Detach, DropReason, EventBody, Heartbeat,
        Label, List, Listing, MAX_BODY, MetricsQuery, ReadyNotify, ReplyBody, SchemaQuery, SchemaRecord,
        json,
    },
};

/// What a list leaves of a message for its envelope.
const LIST_BYTES: usize = MAX_BODY - 4096;

impl Machine {
    pub(super) fn heartbeat(&mut self, body: &Heartbeat, asked: &Asked<'_>) -> Answer {
        let (client, now) = (&asked.request.client_id, asked.now.monotonic);
        let mut timers = Vec::new();
        let name = self.registry.name_of(body.channel_id).cloned();
        let Some(entry) = name.and_then(|name| self.registry.find_mut(&name)) else {
            return Err(Refused::unknown_client());
        };
        let is_owner = entry.client == *client && entry.key == asked.origin.key;
        if is_owner && let Some(lease) = &mut entry.lease {
            timers.push((now + lease.length, Timer::Lease(entry.id)));
            (lease.until, lease.is_over) = (now + lease.length, false);
        }
        let mut is_known = is_owner;
        for (consumer, attachment) in &mut entry.attachments {
            if attachment.client == *client {
                is_known = true;
                attachment.until = Some(now + CONSUMER_LEASE);
                timers.push((now + CONSUMER_LEASE, Timer::Attachment(entry.id, consumer.clone())));
            }
        }
        for (due, timer) in timers {
            self.registry.set_timer(due, timer);
        }
        if is_known { Ok(ReplyBody::Nothing) } else { Err(Refused::unknown_client()) }
    }

    pub(super) fn attach_ack(
        &mut self,
        body: &AttachAck,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        let name = self.name_of(body.channel_id)?;
        let client = asked.request.client_id.clone();
        self.check_attachment(&name, &body.consumer_id, asked)?;
        self.forget_dead_consumers(&name, asked, outputs);
        let attachment = Attachment { client, process_key: body.process_key, until: None };
        self.registry.attach(&name, body.consumer_id.clone(), attachment)?;
        self.publish(&name, EventBody::AttachAck(body.clone()), asked.now, outputs);
        Ok(ReplyBody::Nothing)
    }

    pub(super) fn detach(&mut self, body: &Detach, asked: &Asked<'_>, outputs: &mut Vec<Output>) -> Answer {
        let name = self.name_of(body.channel_id)?;
        self.check_attachment(&name, &body.consumer_id, asked)?;
        if self.registry.detach(&name, &body.consumer_id).is_none() {
            return Err(Refused::unknown_client());
        }
        self.publish_drop(
            &name,
            body.channel_id,
            &body.consumer_id,
            DropReason::ExplicitDetach,
            asked.now,
            outputs,
        );
        Ok(ReplyBody::Nothing)
    }

    /// Makes room in a full channel: those of dead processes go, which had no time to detach.
    fn forget_dead_consumers(&mut self, name: &ChannelName, asked: &Asked<'_>, outputs: &mut Vec<Output>) {
        let Some(entry) = self.registry.find(name) else { return };
        if !self.registry.is_full(entry) || !entry.is_local(asked.host) {
            return;
        }
        let is_dead = |attachment: &Attachment| asked.host.liveness(attachment.process_key) == Liveness::Dead;
        let dead = entry.attachments.iter().filter(|(_, attachment)| is_dead(attachment));
        let (channel, dead) = (entry.id, dead.map(|(consumer, _)| consumer.clone()).collect::<Vec<_>>());
        for consumer in dead {
            self.registry.detach(name, &consumer);
            self.publish_drop(name, channel, &consumer, DropReason::ProcessDead, asked.now, outputs);
        }
    }

    /// An attachment belongs to the client that announced it.
    fn check_attachment(
        &self,
        name: &ChannelName,
        consumer: &Label,
        asked: &Asked<'_>,
    ) -> Result<(), Refused> {
        let known = self.registry.find(name).and_then(|entry| entry.attachments.get(consumer));
        if known.is_none_or(|known| known.client == asked.request.client_id) {
            return Ok(());
        }
        Err(Refused::new(
            Code::NotAllowed,
            format!("consumer {consumer} belongs to another client; choose another consumer_id"),
        ))
    }

    pub(super) fn ready_notify(
        &mut self,
        body: &ReadyNotify,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        let name = self.name_of(body.channel_id)?;
        if let Some(entry) = self.registry.find(&name) {
            self.check_registrant(entry, asked)?;
        }
        self.publish(&name, EventBody::ReadyNotify(body.clone()), asked.now, outputs);
        Ok(ReplyBody::Nothing)
    }

    /// Publishes what a client says as it is.
    pub(super) fn relay(
        &mut self,
        channel: ChannelId,
        event: EventBody,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        let name = self.name_of(channel)?;
        self.publish(&name, event, asked.now, outputs);
        Ok(ReplyBody::Nothing)
    }

    pub(super) fn schema(&self, body: &SchemaQuery) -> Answer {
        let found = match (&body.channel_name, body.schema_hash) {
            (Some(name), _) => self.registry.find(name),
            (None, Some(hash)) => {
                let has_it = |entry: &&Entry| {
                    entry.register.schema_hash == hash && entry.register.schema_text.is_some()
                };
                self.registry.iter().map(|(_, entry)| entry).find(has_it)
            }
            (None, None) => None,
        };
        let visible = found.filter(|entry| !self.settings.conceal || entry.verifier().is_none());
        let Some(Entry { register, .. }) = visible else {
            return Err(Refused::new(Code::UnknownChannel, "no registered channel has this schema"));
        };
        Ok(ReplyBody::Schema(SchemaRecord {
            schema_hash: register.schema_hash,
            schema_version: register.schema_version,
            schema_text: register.schema_text.clone(),
        }))
    }

    /// As many as fit into a message. With `conceal` channels that have a secret are left out.
    pub(super) fn list(&self, body: &List) -> Answer {
        let prefix = body.prefix.as_ref().map_or("", Label::as_str);
        let mut listing = Listing { channels: Vec::new(), truncated: false };
        let mut bytes = 0;
        for (name, entry) in self
            .registry
            .behind(body.after.as_ref(), prefix)
            .take_while(|(name, _)| name.as_str().starts_with(prefix))
        {
            if self.settings.conceal && entry.verifier().is_some() {
                continue;
            }
            let summary = ChannelSummary {
                channel_name: name.clone(),
                channel_id: entry.id,
                shm_name: entry.register.shm_name.clone(),
                block_uuid: entry.register.block_uuid,
                schema_hash: entry.register.schema_hash,
                schema_version: entry.register.schema_version,
                producer_uid: entry.register.producer_uid.clone(),
                process_key: entry.register.process_key,
                consumers: u32::try_from(entry.attachments.len()).unwrap_or(u32::MAX),
                verified: entry.is_verified,
            };
            bytes += json(&summary).len() + 1;
            if bytes > LIST_BYTES {
                listing.truncated = true;
                break;
            }
            listing.channels.push(summary);
        }
        Ok(ReplyBody::Listing(listing))
    }

    pub(super) fn metrics(&self, body: &MetricsQuery) -> Answer {
        if let Some(name) = &body.channel_name
            && self
                .registry
                .find(name)
                .is_none_or(|entry| self.settings.conceal && entry.verifier().is_some())
        {
            return Err(self.unknown(name));
        }
        Ok(ReplyBody::Counters(self.counters()))
    }

    /// Ends the leases whose time has come.
    pub(super) fn expire(&mut self, now: Now, host: &dyn HostView, outputs: &mut Vec<Output>) {
        while let Some(timer) = self.registry.due_timer(now.monotonic) {
            match timer {
                Timer::Lease(channel) => self.expire_lease(channel, now, outputs),
                Timer::Attachment(channel, consumer) => {
                    self.expire_attachment(channel, consumer, now, host, outputs)
                }
            }
        }
    }

    /// The channel may be replaced from now on; it stays, and its owner counts as alive. One that was restored and of which
    /// nothing was heard goes.
    fn expire_lease(&mut self, channel: ChannelId, now: Now, outputs: &mut Vec<Output>) {
        let Some(name) = self.registry.name_of(channel).cloned() else { return };
        let Some(entry) = self.registry.find_mut(&name) else { return };
        let is_verified = entry.is_verified;
        match &mut entry.lease {
            Some(lease) if lease.until > now.monotonic => {
                let until = lease.until;
                self.registry.set_timer(until, Timer::Lease(channel));
            }
            Some(lease) if !lease.is_over => {
                lease.is_over = true;
                self.counters.leases_expired += 1;
                if !is_verified {
                    self.close(&name, "NOT_CONFIRMED", now, outputs);
                }
            }
            _ => {}
        }
    }

    fn expire_attachment(
        &mut self,
        channel: ChannelId,
        consumer: Label,
        now: Now,
        host: &dyn HostView,
        outputs: &mut Vec<Output>,
    ) {
        let Some(name) = self.registry.name_of(channel).cloned() else { return };
        let Some(entry) = self.registry.find(&name) else { return };
        let is_local = entry.is_local(host);
        let Some(&Attachment { until: Some(until), process_key, .. }) = entry.attachments.get(&consumer)
        else {
            return;
        };
        if until > now.monotonic {
            self.registry.set_timer(until, Timer::Attachment(channel, consumer));
            return;
        }
        let is_dead = is_local && host.liveness(process_key) == Liveness::Dead;
        let reason = if is_dead { DropReason::ProcessDead } else { DropReason::HeartbeatTimeout };
        self.registry.detach(&name, &consumer);
        self.counters.leases_expired += 1;
        self.publish_drop(&name, channel, &consumer, reason, now, outputs);
    }

    fn publish_drop(
        &mut self,
        name: &ChannelName,
        channel_id: ChannelId,
        consumer: &Label,
        reason: DropReason,
        now: Now,
        outputs: &mut Vec<Output>,
    ) {
        let event = EventBody::ConsDrop { channel_id, consumer_id: consumer.clone(), reason };
        self.publish(name, event, now, outputs);
    }

    fn name_of(&self, channel: ChannelId) -> Result<ChannelName, Refused> {
        let unknown = || {
            let id = channel.0;
            Refused::new(Code::UnknownChannel, format!("no channel has the id {id}; discover it again"))
        };
        self.registry.name_of(channel).cloned().ok_or_else(unknown)
    }
}
