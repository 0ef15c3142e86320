//! REG_REQ and DEREG_REQ: who owns a channel (13.4).

use std::time::Duration;

use super::{
    Answer, Asked, Machine, Now, Output, Refused, check_proof,
    registry::{Entry, Successor},
};
use crate::broker::{
    host::{HostView, Inspection},
    proof::Verifier,
    wire::{ChannelName, Code, Deregister, EventBody, Label, Register, Registered, ReplyBody, SchemaHash},
};

/// Shortest lease that is granted: a shorter one would run out between two heartbeats.
const SHORTEST_LEASE: u32 = 1_000;

/// Longest lease that is granted.
const LONGEST_LEASE: u32 = 600_000;

/// What a registration leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Create,
    Refresh,
    Succeed,
    Replace,
}

impl Machine {
    pub(super) fn register(
        &mut self,
        body: &Register,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        if let Some(credentials) = body.credentials() {
            check_proof(asked.request, &Verifier::from_field(credentials.verifier))?;
        }
        check_fingerprint(body)?;
        let decision = self.decide(body, asked)?;
        self.registry.check_room(asked.size, decision == Decision::Create)?;
        let is_building = check_block(body, asked.host)?;
        let lease_ms = match body.lease_ms {
            0 => 0,
            asked_for => asked_for.clamp(SHORTEST_LEASE, LONGEST_LEASE),
        };
        let new = Successor {
            register: Register { lease_ms, ..body.clone() },
            client: asked.request.client_id.clone(),
            key: asked.origin.key,
            is_building,
            size: asked.size,
        };
        let now = asked.now.monotonic;
        let name = &body.channel_name;
        let channel_id = match decision {
            Decision::Create => self.registry.insert(new, now),
            Decision::Refresh => match self.registry.refresh(new, now) {
                Some(id) => id,
                None => return Err(Refused::new(Code::Internal, "the registry lost a channel; report this")),
            },
            Decision::Replace => {
                self.close(name, "REPLACED", asked.now, outputs);
                self.counters.replaced += 1;
                self.registry.insert(new, now)
            }
            Decision::Succeed => {
                self.registry.set_successor(name, new);
                self.promote(name, now);
                match self.registry.find(name) {
                    Some(entry) => entry.id,
                    None => {
                        return Err(Refused::new(Code::Internal, "the registry lost a channel; report this"));
                    }
                }
            }
        };
        Ok(ReplyBody::Registered(Registered {
            channel_id,
            replaced: decision == Decision::Replace,
            events_endpoint: self.settings.events_endpoint.clone(),
            lease_ms,
        }))
    }

    /// The table of 13.4, after its first row.
    fn decide(&self, body: &Register, asked: &Asked<'_>) -> Result<Decision, Refused> {
        let name = &body.channel_name;
        let existing = self.registry.find(name);
        if let Some(other) = self.registry.channel_of(body.block_uuid)
            && other != name
        {
            let known =
                if self.settings.conceal { "another channel".into() } else { format!("channel {other}") };
            return Err(Refused::new(
                Code::UuidReused,
                format!("block {} is registered as {known}; make a new block", body.block_uuid),
            ));
        }
        let Some(entry) = existing else {
            return Ok(Decision::Create);
        };
        let has_same_secret = entry.verifier() == body.shared_secret_hash.map(Verifier::from_field);
        let bad_proof = || {
            Refused::new(
                Code::BadProof,
                format!("the proof does not fit the secret of channel {name}; check the key file"),
            )
        };
        let schema_conflict = || {
            let (ours, theirs) = (entry.register.schema(), body.schema());
            Refused::new(
                Code::SchemaConflict,
                format!(
                    "channel {name} has schema {ours}, the registration has {theirs}; hand over or use another channel"
                ),
            )
        };
        let is_same =
            entry.register.producer_uid == body.producer_uid && entry.register.block_uuid == body.block_uuid;
        if is_same {
            return match () {
                () if !has_same_secret => Err(bad_proof()),
                () if entry.register.schema_hash != body.schema_hash => Err(schema_conflict()),
                () => Ok(Decision::Refresh),
            };
        }
        let announced = entry.handover.as_ref().map(|handover| handover.notify.new_uuid);
        if announced == Some(body.block_uuid) {
            return Ok(Decision::Succeed);
        }
        let is_dead = entry.is_owner_dead(asked.host);
        if (is_dead || entry.is_lease_over(asked.now.monotonic)) && has_same_secret {
            return Ok(Decision::Replace);
        }
        if !has_same_secret && (is_dead || self.settings.conceal) {
            return Err(bad_proof());
        }
        if entry.register.schema_hash != body.schema_hash {
            return Err(schema_conflict());
        }
        let owner = &entry.register.producer_uid;
        Err(Refused::new(
            Code::LiveOwner,
            format!(
                "channel {name} belongs to {owner}, which is not known to be dead; stop it or use another channel"
            ),
        ))
    }

    pub(super) fn deregister(
        &mut self,
        body: &Deregister,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        let name = &body.channel_name;
        let Some(entry) = self.registry.find(name) else {
            return Err(self.unknown(name));
        };
        self.check_owner(entry, asked)?;
        let is_successor = |entry: &Entry| {
            let handover = entry.handover.as_ref();
            let successor = handover.and_then(|handover| handover.successor.as_ref());
            successor.is_some_and(|successor| successor.register.block_uuid == body.block_uuid)
        };
        if is_successor(entry) {
            self.registry.set_handover(name, None);
            return Ok(ReplyBody::Nothing);
        }
        if entry.register.block_uuid != body.block_uuid {
            let message = format!("channel {name} has another block by now; there is nothing to take back");
            return Err(Refused::new(Code::StaleOwner, message));
        }
        self.close(name, "DEREGISTERED", asked.now, outputs);
        Ok(ReplyBody::Nothing)
    }

    /// Whether the sender may act for the owner: it knows the secret, or without one it is the client that registered.
    pub(super) fn check_owner(&self, entry: &Entry, asked: &Asked<'_>) -> Result<(), Refused> {
        if let Some(verifier) = entry.verifier() {
            return check_proof(asked.request, &verifier).map_err(|refused| {
                if self.settings.conceal {
                    Refused { is_failed_proof: true, ..self.unknown(&entry.register.channel_name) }
                } else {
                    refused
                }
            });
        }
        self.check_registrant(entry, asked)
    }

    /// Whether the sender is the client that registered.
    pub(super) fn check_registrant(&self, entry: &Entry, asked: &Asked<'_>) -> Result<(), Refused> {
        if entry.client == asked.request.client_id && entry.key == asked.origin.key {
            return Ok(());
        }
        Err(Refused::new(Code::NotAllowed, "only the client that registered the channel may do this"))
    }

    pub(super) fn unknown(&self, name: &ChannelName) -> Refused {
        Refused::new(
            Code::UnknownChannel,
            format!("no channel {name} is registered; start its producer or check the name"),
        )
    }

    /// Removes a channel and tells everybody.
    pub(super) fn close(&mut self, name: &ChannelName, reason: &str, now: Now, outputs: &mut Vec<Output>) {
        if let (Some(entry), Ok(reason)) = (self.registry.remove(name), Label::new(reason)) {
            let event =
                EventBody::ChannelClosing { channel_id: entry.id, channel_name: name.clone(), reason };
            self.publish(name, event, now, outputs);
        }
    }
}

impl Entry {
    pub(super) fn is_lease_over(&self, now: Duration) -> bool {
        self.lease.is_some_and(|lease| lease.until <= now)
    }
}

/// A text comes with its hash (DH-180).
fn check_fingerprint(body: &Register) -> Result<(), Refused> {
    let Some(text) = &body.schema_text else { return Ok(()) };
    let slot = text.as_str().lines().next().unwrap_or_default();
    let hash = SchemaHash::of_text(slot);
    if hash == body.schema_hash {
        return Ok(());
    }
    let message = format!("schema_text has hash {hash}, schema_hash says {}", body.schema_hash);
    Err(Refused::new(Code::FingerprintInconsistent, message))
}

/// Opens the block of a registration from this host (DH-194). Tells whether it is not complete yet.
fn check_block(body: &Register, host: &dyn HostView) -> Result<bool, Refused> {
    if body.host_domain.as_str() != host.domain() {
        return Ok(false);
    }
    let refuse = |message: String| Err(Refused::new(Code::BadRequest, message));
    let name = &body.shm_name;
    let facts = match host.inspect(name) {
        Inspection::Found(facts) => facts,
        Inspection::Missing => {
            return refuse(format!("no block {name} on this host; create it before registering"));
        }
        Inspection::Unreadable => {
            return refuse(format!(
                "block {name} cannot be opened by the broker; run both as one user or share a group"
            ));
        }
    };
    if facts.block_uuid != body.block_uuid {
        return refuse(format!(
            "block {name} has uuid {}, block_uuid says {}",
            facts.block_uuid, body.block_uuid
        ));
    }
    if facts.channel_name != body.channel_name {
        return refuse(format!(
            "block {name} is of channel {}, channel_name says {}",
            facts.channel_name, body.channel_name
        ));
    }
    if facts.schema_hash != body.schema_hash {
        return refuse(format!(
            "block {name} has schema {}, schema_hash says {}",
            facts.schema_hash, body.schema_hash
        ));
    }
    Ok(!facts.is_ready)
}
