//! A consumer that the broker knows: what it hears of a handover, and what it says (15.2).

use tidegate_shm::clock::{Nanos, monotonic_now};

use crate::{
    broker::{
        Attachment, Discovery, EventStream, MessageHub, RetryPolicy, Verifier,
        wire::{
            ChannelName, EventBody, Fixed, HandoverAck, HandoverNotify, HandoverPhase, HandoverResult, Label,
            LongText,
        },
    },
    config::ConsumerConfig,
    handover::Announcement,
    layout::{Descriptor, KeyId, Secret},
    schema::{Offer, SchemaHash, SchemaVersion, compare},
};

/// What a consumer has of the broker.
#[derive(Debug)]
pub(super) struct Membership {
    hub: MessageHub,
    attachment: Attachment,
    events: Option<EventStream>,
    /// The newest `prepare`.
    heard: Option<HandoverNotify>,
    /// Since when the message about an attempt is waited for.
    waiting: Option<(u32, Nanos)>,
}

/// Whether a consumer can go along.
pub(super) enum Judgement {
    Ready,
    Refused(String),
    /// The message that says what the successor is may still come.
    Later,
}

impl Membership {
    pub(super) fn new(hub: MessageHub, attachment: Attachment, events: Option<EventStream>) -> Self {
        Self { hub, attachment, events, heard: None, waiting: None }
    }

    /// Whether the successor can be read, as far as the message about it tells: its block cannot be opened yet. Without a
    /// message nothing speaks against it.
    pub(super) fn judge(
        &mut self,
        announced: &Announcement,
        config: &ConsumerConfig,
        knows: impl Fn(KeyId) -> bool,
    ) -> Judgement {
        while let Some(event) =
            self.events.as_ref().and_then(|events| events.recv_with_timeout(NOW).ok().flatten())
        {
            if let EventBody::HandoverNotify(notify) = event.body
                && notify.phase == HandoverPhase::Prepare
            {
                self.heard = Some(*notify);
            }
        }
        let is_meant = |notify: &&HandoverNotify| {
            notify.handover_epoch == announced.epoch && notify.new_uuid == announced.successor
        };
        match self.heard.as_ref().filter(is_meant) {
            Some(notify) => {
                let said = Said {
                    key: notify.new_key_id,
                    hash: notify.schema_hash,
                    version: notify.schema_version,
                    text: notify.schema_text.as_ref(),
                };
                said.judge(config, knows)
            }
            None => {
                let now = monotonic_now();
                let since = self
                    .waiting
                    .filter(|(epoch, _)| *epoch == announced.epoch)
                    .map_or(now, |(_, since)| since);
                self.waiting = Some((announced.epoch, since));
                let is_late = self.events.is_none() || now.saturating_sub(since) >= PATIENCE;
                if is_late { self.ask(announced, config, knows) } else { Judgement::Later }
            }
        }
    }

    /// What the broker says about a handover whose announcement was missed.
    fn ask(
        &self,
        announced: &Announcement,
        config: &ConsumerConfig,
        knows: impl Fn(KeyId) -> bool,
    ) -> Judgement {
        let Some(channel) = &config.channel else { return Judgement::Ready };
        let mut discovery = Discovery::of(channel.clone());
        if let Some(secret) = &config.secret {
            discovery = discovery.verifier(Verifier::of(secret, channel));
        }
        let found = self.hub.discover(&discovery, config.timeouts.notify_send, RetryPolicy::none());
        let state = found
            .ok()
            .and_then(|found| found.handover)
            .filter(|state| state.handover_epoch == announced.epoch && state.new_uuid == announced.successor);
        match state.as_ref().map(|state| (state, state.schema_hash, state.schema_version)) {
            Some((state, Some(hash), Some(version))) => {
                let said = Said { key: state.new_key_id, hash, version, text: state.schema_text.as_ref() };
                said.judge(config, knows)
            }
            _ => Judgement::Ready,
        }
    }

    /// HANDOVER_ACK: the row has the answer already, so a broker that is slow is not waited for long.
    pub(super) fn tell(
        &self,
        channel: &ChannelName,
        epoch: u32,
        refused: Option<&str>,
        config: &ConsumerConfig,
    ) {
        let Some(consumer_id) = self.attachment.consumer_id() else { return };
        let channel_name = channel.clone();
        let result = if refused.is_some() { HandoverResult::Refused } else { HandoverResult::Ready };
        let reason = refused.and_then(|reason| Label::new(reason.chars().take(64).collect::<String>()).ok());
        let body = HandoverAck { channel_name, handover_epoch: epoch, consumer_id, result, reason };
        if let Err(error) = self.hub.handover_ack(body, config.timeouts.notify_send) {
            tracing::debug!(%error, "the broker was not told of the answer to a handover");
        }
    }

    /// The consumer reads another block now.
    pub(super) fn moved(&self, block: &Descriptor, secret: Option<&Secret>) {
        let verifier = secret.map(|secret| Verifier::of(secret, &block.spec.channel));
        self.attachment.moved(block, verifier);
    }
}

/// What was said about a successor.
struct Said<'a> {
    key: Option<Fixed<8>>,
    hash: SchemaHash,
    version: SchemaVersion,
    text: Option<&'a LongText>,
}

impl Said<'_> {
    fn judge(&self, config: &ConsumerConfig, knows: impl Fn(KeyId) -> bool) -> Judgement {
        if let Some(key) = self.key.map(|id| KeyId(id.0)).filter(|id| !knows(*id)) {
            return Judgement::Refused(format!("key {key} is not known"));
        }
        let Some(expected) = &config.schema else { return Judgement::Ready };
        let offer = Offer { hash: self.hash, version: self.version, text: self.text.map(LongText::as_str) };
        match compare(expected, &offer) {
            Ok(_) => Judgement::Ready,
            Err(mismatch) => Judgement::Refused(mismatch.first_difference.to_string()),
        }
    }
}

/// How long an answer waits for the message. Messages only make things better; the producer waits for longer.
const PATIENCE: Nanos = Nanos::from_millis(500);
const NOW: std::time::Duration = std::time::Duration::ZERO;
