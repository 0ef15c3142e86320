//! Channels by way of the broker: attaching by name, staying known, and moving (13.5, 15.2).

use std::time::Duration;

use super::{
    MessageHub, Registration, RetryPolicy,
    keeper::{Attached, Moved},
};
use crate::{
    block::{AttachError, AttachOptions, Role, look},
    broker::{
        describe::Disagreement,
        error::HubError,
        proof::Verifier,
        wire::{
            AttachNack, ChannelFacts, ChannelName, Fixed, HandoverCancel, HandoverNotify, HandoverPhase,
            Label, LongText, Register, SchemaHash, SchemaMode as WireMode, SchemaVersion, ShmName,
        },
    },
    config::{ConsumerConfig, HubConfig},
    consumer::{Consumer, HandoverIterator},
    error::OpenError,
    handover::{Handover, HandoverError, HandoverOptions},
    layout::{Descriptor, SecurityLevel},
    producer::Producer,
    schema::SchemaMode,
};

/// Why a channel was not attached by way of the broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachViaError {
    /// The broker did not say where it is.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The block is not what the broker said.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// The block was not attached.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Consumer {
    /// Asks the broker where `channel` is, attaches its block, and tells the broker (DH-200). What the broker says is held
    /// against the block (DH-199). The result follows the channel to other blocks.
    ///
    /// # Errors
    /// The last of the attempts that `retry` allows, or why the block cannot be attached; the broker is told of that.
    pub fn attach_via(
        hub: &MessageHub,
        channel: &ChannelName,
        config: &ConsumerConfig,
        retry: RetryPolicy,
    ) -> Result<HandoverIterator, AttachViaError> {
        let verifier = config.secret.as_ref().map(|secret| Verifier::of(secret, channel));
        let mut discovery = super::Discovery::of(channel.clone());
        if let Some(verifier) = verifier.clone() {
            discovery = discovery.verifier(verifier);
        }
        if let Some(expected) = &config.schema {
            let mode = match expected.mode {
                SchemaMode::Strict => WireMode::Strict,
                SchemaMode::AllowAppended => WireMode::AllowAppended,
                SchemaMode::Ignore => WireMode::Ignore,
            };
            discovery = discovery.schema(expected.schema.hash(), expected.version, mode);
        }
        let timeout = config.timeouts.broker_request;
        let found = hub.discover(&discovery, timeout, retry)?;
        let uid = if config.uid.is_empty() { hub.client_id().to_string() } else { config.uid.clone() };
        let consumer_id = Label::new(uid).map_err(HubError::from)?;
        let config = ConsumerConfig { channel: Some(channel.clone()), ..config.clone() };
        let consumer = match attach_found(&found.channel, &config) {
            Ok(consumer) => consumer,
            Err(error) => {
                hub.refuse(&found.channel, consumer_id, &error, config.timeouts.notify_send);
                return Err(error);
            }
        };
        let attached = Attached::of(
            channel.clone(),
            verifier,
            consumer_id,
            consumer.descriptor(),
            consumer.block().own_key(),
        );
        let attachment = hub.keep_attached(attached, found.channel.channel_id, timeout)?;
        let events = found.events_endpoint.as_ref().map(|endpoint| hub.events(endpoint.as_str(), channel));
        let iterator = HandoverIterator::of(consumer, config);
        Ok(iterator.known_by(hub.clone(), attachment, events.transpose()?))
    }
}

/// Opens the block that the broker found, checks it, joins.
fn attach_found(facts: &ChannelFacts, config: &ConsumerConfig) -> Result<Consumer, AttachViaError> {
    let name = facts.shm_name.to_string();
    let options = AttachOptions {
        dir: config.dir.clone(),
        huge_dir: config.huge_dir.clone(),
        trust: config.trust.clone(),
        ..AttachOptions::new(Role::Inspector)
    };
    let found = look(&name, &options).map_err(OpenError::from)?;
    facts.check(&found.descriptor)?;
    let consumer = Consumer::attach(&name, config)?;
    // Somebody may have put another block there meanwhile.
    facts.check(consumer.descriptor())?;
    Ok(consumer)
}

impl MessageHub {
    /// Moves the channel of `old`, whose registration this is, to a new block (15.3), and tells all who listen to the
    /// broker. A broker that does not answer delays it and keeps nobody from following: the old block says where the channel
    /// goes (DH-221). The registration is that of the new block then, with lease and endpoint of the one before; a broker that
    /// was away hears of it when it is back.
    ///
    /// # Errors
    /// Why the channel stays where it is; then the broker is told that it does.
    pub fn hand_over(
        &self,
        old: &Producer,
        registration: &mut Registration,
        config: &HubConfig,
        options: HandoverOptions,
        timeout: Duration,
    ) -> Result<Producer, HandoverError> {
        let mut handover = old.begin_handover(config, options)?;
        let channel = &old.descriptor().spec.channel;
        let proof = old.secret().map(|secret| Verifier::of(secret, channel));
        // Names of blocks are words of messages, too.
        let prepare = prepare_message(&handover, old).ok();
        let told = prepare.clone().map(|message| self.handover_notify(message, proof.clone(), timeout));
        if let Some(Err(error)) = told {
            tracing::warn!(%error, "the broker was not told of the handover");
        }
        let epoch = handover.epoch();
        let new = match handover.cut() {
            Ok(new) => new,
            Err(error) => {
                self.tell_cancelled(channel.clone(), epoch, &error, proof, timeout);
                return Err(error);
            }
        };
        let block = new.descriptor();
        let verifier = new.secret().map(|secret| Verifier::of(secret, &block.spec.channel));
        let last = block.spec.first_slot_id.wrapping_sub(1);
        let moved = prepare.map(|announced| Moved { announced, verifier: proof, last });
        match Register::of_block(block, new.block().own_key()) {
            Ok(register) => registration.moved_to(register, verifier, moved, timeout),
            Err(error) => tracing::warn!(%error, "the broker cannot be told of the new block"),
        }
        Ok(new)
    }

    fn tell_cancelled(
        &self,
        channel_name: ChannelName,
        handover_epoch: u32,
        error: &HandoverError,
        proof: Option<Verifier>,
        timeout: Duration,
    ) {
        let reason = error.to_string().chars().take(64).collect::<String>();
        let Ok(reason) = Label::new(reason) else { return };
        let body = HandoverCancel { channel_name, handover_epoch, reason, secret_proof: None };
        if let Err(error) = self.handover_cancel(body, proof, timeout) {
            tracing::warn!(%error, "the broker was not told that the handover was called off");
        }
    }

    /// Tells the broker that a consumer could not attach (DH-200).
    fn refuse(&self, facts: &ChannelFacts, consumer_id: Label, error: &AttachViaError, timeout: Duration) {
        let reason = match error {
            AttachViaError::Disagreement(_) => "ConfigMismatch",
            AttachViaError::Open(OpenError::Attach(error)) => reason_of(error),
            AttachViaError::Open(OpenError::Registry(_)) => "Registry",
            _ => "Failed",
        };
        let Ok(reason) = Label::new(reason) else { return };
        let body = AttachNack { channel_id: facts.channel_id, consumer_id, reason };
        if let Err(error) = self.attach_nack(body, timeout) {
            tracing::debug!(%error, "the broker was not told that a consumer could not attach");
        }
    }
}

/// The names of 3.8.
fn reason_of(error: &AttachError) -> &'static str {
    match error {
        AttachError::UntrustedOwner { .. } => "UntrustedOwner",
        AttachError::TooSmall { .. } => "TooSmall",
        AttachError::NotReady { .. } => "NotReady",
        AttachError::Closed => "Closed",
        AttachError::StaleBoot { .. } => "StaleBoot",
        AttachError::AuthFailed { .. } => "AuthFailed",
        AttachError::KeyRequired { .. } => "KeyRequired",
        AttachError::SchemaMismatch(_) => "SchemaMismatch",
        AttachError::ConfigMismatch(_) | AttachError::ChannelMismatch { .. } => "ConfigMismatch",
        AttachError::Corrupt(_) | AttachError::Layout(_) => "Corrupt",
        _ => "Failed",
    }
}

fn prepare_message(handover: &Handover<'_>, old: &Producer) -> Result<HandoverNotify, HubError> {
    let (uuid, name) = handover.successor();
    let config = handover.config();
    let was: &Descriptor = old.descriptor();
    let schema = &config.schema;
    let has_key = config.security != SecurityLevel::None;
    let key_id = config.secret.as_ref().filter(|_| has_key).map(|secret| Fixed(secret.key_id().0));
    Ok(HandoverNotify {
        old_channel: was.spec.channel.clone(),
        new_channel: config.channel.clone(),
        old_shm_name: ShmName::new(was.file_name())?,
        new_shm_name: ShmName::new(name)?,
        old_uuid: was.uuid,
        new_uuid: *uuid,
        phase: HandoverPhase::Prepare,
        handover_epoch: handover.epoch(),
        cutover_slot_id: None,
        grace_period_ms: u32::try_from(handover.grace().as_millis()).unwrap_or(u32::MAX),
        new_key_id: key_id,
        new_key_epoch: has_key.then_some(config.key_epoch),
        sealed_secret: None,
        schema_hash: SchemaHash::from_bytes(schema.slot_hash),
        schema_version: SchemaVersion { major: schema.version.0, minor: schema.version.1 },
        schema_text: LongText::new(schema.text.lines().next().unwrap_or_default())
            .ok()
            .filter(|_| schema.slot_hash != [0; 32]),
        secret_proof: None,
    })
}
