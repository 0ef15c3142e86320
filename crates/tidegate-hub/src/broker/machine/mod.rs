//! The broker as a state machine: a request and the time go in, replies and events come out (13.3 to 13.5).
//!
//! It does no I/O, reads no clock and draws no randomness. What it has to know of the host it asks a
//! [`HostView`]. Every table is bounded (DH-195), and what is full refuses with LIMIT.
//!
//! A request passes these gates in order, and the first that refuses answers: rate, form, identity of the client, type
//! known, clock and nonce, proof of the secret, duplicate. Only then it has an effect.

mod clients;
mod discover;
mod extensions;
mod handover;
mod recent;
mod register;
mod registry;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use tidegate_mq::PublicKey;

pub use self::registry::{Saved, Snapshot};
use self::{
    clients::Clients,
    recent::{Nonces, Replies, Stored},
    registry::Registry,
};
use super::{
    host::HostView,
    proof::{ProofLabel, Verifier},
    wire::{
        ChannelName, ClientId, Code, Event, EventBody, Feature, Label, MsgId, PROTO, Refusal,
        RegistryCounters, Reply, ReplyBody, Request, RequestBody, Status,
    },
};

/// The time, from two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, since any moment: for ages and leases.
    pub monotonic: Duration,
    /// Wall clock in milliseconds: for comparing with clients.
    pub wall_ms: u64,
}

/// Where a request came from, as the transport knows it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Routing id of the connection.
    pub routing_id: &'a [u8],
    /// CURVE key that the connection proved to have.
    pub key: Option<PublicKey>,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A reply to one client.
    Reply {
        /// Routing id of its connection.
        to: Vec<u8>,
        /// JSON.
        body: Vec<u8>,
    },
    /// An event for all who follow the channel.
    Publish {
        /// The channel.
        channel: ChannelName,
        /// What happened.
        event: Box<Event>,
    },
}

impl Output {
    /// Bytes that it takes while it is held back.
    fn cost(&self) -> usize {
        match self {
            Self::Reply { to, body } => to.len() + body.len() + 128,
            Self::Publish { .. } => 0,
        }
    }
}

/// How a broker behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether a client whose proof failed learns that the channel exists (DH-192).
    pub conceal: bool,
    /// Extensions that it has (DH-190).
    pub features: BTreeSet<Feature>,
    /// Where events are published.
    pub events_endpoint: Option<Label>,
    /// Keys that may use one client id only, which nobody else may then use (DH-208).
    pub pinned: BTreeMap<PublicKey, ClientId>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            conceal: false,
            features: Feature::ALL.into(),
            events_endpoint: None,
            pinned: BTreeMap::new(),
            limits: Limits::default(),
        }
    }
}

/// Bounds of what is kept and done (DH-195).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Channels.
    pub channels: usize,
    /// Bytes of all registrations, as they were sent.
    pub registry_bytes: usize,
    /// Consumers known per channel.
    pub attachments: usize,
    /// Clients remembered.
    pub clients: usize,
    /// Nonces remembered; each for 60 s.
    pub nonces: usize,
    /// Bytes of replies kept for duplicates; the oldest go first.
    pub reply_bytes: usize,
    /// Bytes of replies held back because of failed proofs.
    pub delayed_bytes: usize,
    /// Requests per second and client.
    pub rate: u32,
    /// Requests that a quiet client may send at once.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels: 10_000,
            registry_bytes: 64 << 20,
            attachments: 64,
            clients: 16_384,
            nonces: 200_000,
            reply_bytes: 32 << 20,
            delayed_bytes: 4 << 20,
            rate: 100,
            burst: 200,
        }
    }
}

/// For how long nonces and replies are remembered (DH-188, DH-189).
const MEMORY: Duration = Duration::from_secs(60);

/// By how much clocks may differ (DH-189).
const SKEW_MS: u64 = 30_000;

/// For how long a reply is held back when proofs keep failing (DH-195).
const PENALTY: Duration = Duration::from_secs(1);

/// How long a consumer counts as attached without a sign of its client, once it has given one: some beats of a client
/// that keeps no lease of its own.
const CONSUMER_LEASE: Duration = Duration::from_secs(10);

/// The broker.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    epoch: Label,
    registry: Registry,
    clients: Clients,
    nonces: Nonces,
    replies: Replies,
    delayed: VecDeque<(Duration, Output)>,
    delayed_bytes: usize,
    counters: RegistryCounters,
    is_draining: bool,
}

/// Why a request is not answered OK.
#[derive(Debug)]
struct Refused {
    status: Status,
    code: Option<Code>,
    message: String,
    /// Whether it counts as a failed proof, whatever the client is told.
    is_failed_proof: bool,
}

impl Refused {
    fn new(code: Code, message: impl Into<String>) -> Self {
        let is_failed_proof = code == Code::BadProof;
        Self { status: code.status(), code: Some(code), message: message.into(), is_failed_proof }
    }

    fn unknown_client() -> Self {
        Self {
            status: Status::UnknownClient,
            code: None,
            message: "nothing of this client is registered under this channel_id; register or attach again"
                .into(),
            is_failed_proof: false,
        }
    }
}

type Answer = Result<ReplyBody, Refused>;

/// A request that passed the gates, and what goes with it.
struct Asked<'a> {
    request: &'a Request,
    origin: Origin<'a>,
    now: Now,
    host: &'a dyn HostView,
    /// Bytes of the body, for the account of the registry.
    size: usize,
}

impl Machine {
    /// A broker with an empty registry. `epoch` is random per start (DH-183).
    pub fn new(settings: Settings, epoch: Label) -> Self {
        let limits = settings.limits;
        Self {
            registry: Registry::new(limits),
            clients: Clients::new(limits),
            nonces: Nonces::new(limits.nonces),
            replies: Replies::new(limits.reply_bytes),
            delayed: VecDeque::new(),
            delayed_bytes: 0,
            counters: RegistryCounters::default(),
            is_draining: false,
            settings,
            epoch,
        }
    }

    /// Which start of the broker this is.
    pub fn epoch(&self) -> &Label {
        &self.epoch
    }

    /// From now on only DISC_REQ and DEREG_REQ are answered (13.1).
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// The numbers now.
    pub fn counters(&self) -> RegistryCounters {
        RegistryCounters {
            channels: self.registry.len() as u64,
            clients: self.clients.len() as u64,
            attachments: self.registry.attachments() as u64,
            ..self.counters
        }
    }

    /// Grows with every change that [`snapshot`](Self::snapshot) would show.
    pub fn revision(&self) -> u64 {
        self.registry.revision
    }

    /// What is to be kept over a restart: no secret, no proof (DH-213).
    pub fn snapshot(&self, host: &dyn HostView) -> Snapshot {
        self.registry.snapshot(host)
    }

    /// Takes a snapshot up: its channels are RESTORED_UNVERIFIED, those of dead owners are dropped (DH-214).
    pub fn restore(&mut self, snapshot: Snapshot, now: Now, host: &dyn HostView) {
        self.registry.restore(snapshot, now, host);
    }

    /// Says that a message came that has not the form of the protocol, and gets no reply.
    pub fn count_foreign(&mut self) {
        self.counters.requests += 1;
        self.counters.dropped += 1;
    }

    /// Handles one request.
    pub fn handle(&mut self, origin: Origin<'_>, body: &[u8], now: Now, host: &dyn HostView) -> Vec<Output> {
        self.counters.requests += 1;
        let mut outputs = Vec::new();
        let client = std::str::from_utf8(origin.routing_id).ok().and_then(|id| ClientId::new(id).ok());
        let admitted = match &client {
            Some(client) => self.clients.admit(client, origin.key, now.monotonic),
            None => Err(Refused::new(
                Code::IdentityMismatch,
                "the routing id of the connection must be the client_id: set it before connecting",
            )),
        };
        let (type_name, msg_id, answer) = match (Request::decode(body), admitted) {
            (Ok(request), Ok(())) => {
                if self.is_draining
                    && !matches!(request.body, RequestBody::Discover(_) | RequestBody::Deregister(_))
                {
                    self.counters.dropped += 1;
                    return outputs;
                }
                let asked = Asked { request: &request, origin, now, host, size: body.len() };
                // Before it is applied: a channel that it ends is not there afterwards.
                let verifier = self.verifier_of(&request);
                let answer = match self.pass(&asked) {
                    Ok(Pass::Stored(reply)) => {
                        self.counters.duplicates += 1;
                        self.reply(origin, reply, now, &mut outputs);
                        return outputs;
                    }
                    Ok(Pass::Apply) => self.apply(&asked, &mut outputs),
                    Err(refused) => Err(refused),
                };
                let keeps = keeps_reply(&request, &answer);
                let reply = self.encode(request.body.reply_type(), Some(&request.msg_id), answer, &asked);
                if keeps {
                    let fingerprint = recent::fingerprint(&request);
                    let stored = Stored { fingerprint, verifier, body: reply.clone() };
                    self.replies.insert((request.client_id, request.msg_id), stored, now.monotonic);
                }
                self.reply(origin, reply, now, &mut outputs);
                return outputs;
            }
            (Err(Refusal { msg_id, .. }), Err(refused)) => ("ERROR_ACK", msg_id, refused),
            (Ok(request), Err(refused)) => (request.body.reply_type(), Some(request.msg_id), refused),
            (Err(Refusal { code, msg_id, message }), Ok(())) => {
                ("ERROR_ACK", msg_id, Refused::new(code, message))
            }
        };
        let reply = self.encode_refusal(type_name, msg_id.as_ref(), answer, origin, now);
        self.reply(origin, reply, now, &mut outputs);
        outputs
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now, host: &dyn HostView) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some((_, output)) = self.delayed.pop_front_if(|(due, _)| *due <= now.monotonic) {
            self.delayed_bytes -= output.cost();
            outputs.push(output);
        }
        self.expire(now, host, &mut outputs);
        outputs
    }

    /// When [`tick`](Self::tick) has something to do next, on the monotonic clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        let delayed = self.delayed.front().map(|(due, _)| *due);
        [delayed, self.registry.next_timer()].into_iter().flatten().min()
    }

    /// The gates behind those of the transport: identity, type, clock and nonce, duplicate.
    fn pass(&mut self, asked: &Asked<'_>) -> Result<Pass, Refused> {
        let (request, now) = (asked.request, asked.now);
        self.check_identity(asked)?;
        if let Some(feature) = request.body.feature()
            && !self.settings.features.contains(&feature)
        {
            return Err(Refused::new(Code::UnknownType, "this broker does not know this type of request"));
        }
        if let Some(nonce) = request.nonce {
            let skew = request.ts_ms.abs_diff(now.wall_ms);
            if skew > SKEW_MS {
                let message = format!(
                    "ts_ms and the broker's clock differ by {skew} ms, at most {SKEW_MS}; set the clocks"
                );
                return Err(Refused::new(Code::ReplayOrSkew, message));
            }
            self.nonces.insert(&request.client_id, nonce, now.monotonic)?;
        }
        let key = (request.client_id.clone(), request.msg_id.clone());
        let Some(stored) = self.replies.find(&key, now.monotonic) else {
            return Ok(Pass::Apply);
        };
        if stored.fingerprint != recent::fingerprint(request) {
            return Err(Refused::new(
                Code::BadRequest,
                "this msg_id was used for another request within 60 s",
            ));
        }
        let reply = stored.body.clone();
        if let Some(verifier) = stored.verifier.clone() {
            check_proof(request, &verifier)?;
        }
        Ok(Pass::Stored(reply))
    }

    fn check_identity(&self, asked: &Asked<'_>) -> Result<(), Refused> {
        let client = &asked.request.client_id;
        let refuse = |message: &str| Err(Refused::new(Code::IdentityMismatch, message));
        if asked.origin.routing_id != client.as_str().as_bytes() {
            return refuse("client_id is not the routing id of the connection: use one name for both");
        }
        let mut pins = self.settings.pinned.iter();
        if pins.any(|(key, pinned)| (pinned == client) != (asked.origin.key == Some(*key))) {
            return refuse(
                "this client_id and this CURVE key do not belong together; see the broker's list of clients",
            );
        }
        Ok(())
    }

    fn apply(&mut self, asked: &Asked<'_>, outputs: &mut Vec<Output>) -> Answer {
        match &asked.request.body {
            RequestBody::Register(body) => self.register(body, asked, outputs),
            RequestBody::Discover(body) => self.discover(body, asked, outputs),
            RequestBody::Deregister(body) => self.deregister(body, asked, outputs),
            RequestBody::Heartbeat(body) => self.heartbeat(body, asked),
            RequestBody::AttachAck(body) => self.attach_ack(body, asked, outputs),
            RequestBody::AttachNack(body) => {
                self.relay(body.channel_id, EventBody::AttachNack(body.clone()), asked, outputs)
            }
            RequestBody::Detach(body) => self.detach(body, asked, outputs),
            RequestBody::ReadyNotify(body) => self.ready_notify(body, asked, outputs),
            RequestBody::HandoverNotify(body) => self.handover_notify(body, asked, outputs),
            RequestBody::HandoverAck(body) => self.handover_ack(body, asked, outputs),
            RequestBody::HandoverCancel(body) => self.handover_cancel(body, asked, outputs),
            RequestBody::Schema(body) => self.schema(body),
            RequestBody::List(body) => self.list(body),
            RequestBody::ChecksumErrorReport(body) => {
                self.relay(body.channel_id, EventBody::ChecksumErrorReport(body.clone()), asked, outputs)
            }
            RequestBody::Metrics(body) => self.metrics(body),
            RequestBody::Ping => Ok(ReplyBody::Nothing),
        }
    }

    /// Whose holders may have the reply again.
    fn verifier_of(&self, request: &Request) -> Option<Verifier> {
        match (&request.body, ProofLabel::of(&request.body)) {
            (RequestBody::Register(body), _) => body.shared_secret_hash.map(Verifier::from_field),
            (_, Some((_, channel))) => self.registry.find(channel).and_then(|entry| entry.verifier()),
            _ => None,
        }
    }

    fn encode(&mut self, r#type: &str, msg_id: Option<&MsgId>, answer: Answer, asked: &Asked<'_>) -> Vec<u8> {
        match answer {
            Ok(body) => {
                self.counters.answered_ok += 1;
                self.envelope(r#type, msg_id, asked.now, Status::Ok, None, None, body)
            }
            Err(refused) => self.encode_refusal(r#type, msg_id, refused, asked.origin, asked.now),
        }
    }

    fn encode_refusal(
        &mut self,
        r#type: &str,
        msg_id: Option<&MsgId>,
        refused: Refused,
        origin: Origin<'_>,
        now: Now,
    ) -> Vec<u8> {
        self.counters.refused += 1;
        match refused.code {
            Some(Code::BadRequest | Code::NameInvalid | Code::UnknownType | Code::UnsupportedProto) => {
                self.counters.refused_malformed += 1;
            }
            Some(Code::ReplayOrSkew) => self.counters.refused_replay += 1,
            Some(Code::Limit) => self.counters.refused_limit += 1,
            _ if refused.is_failed_proof || refused.status == Status::AuthFailed => {
                self.counters.refused_auth += 1
            }
            _ => {}
        }
        if refused.is_failed_proof {
            self.clients.count_failed_proof(origin.routing_id, now.monotonic);
        }
        self.envelope(
            r#type,
            msg_id,
            now,
            refused.status,
            refused.code,
            Some(refused.message),
            ReplyBody::Nothing,
        )
    }

    #[expect(clippy::too_many_arguments, reason = "these are the fields of the envelope")]
    fn envelope(
        &self,
        r#type: &str,
        msg_id: Option<&MsgId>,
        now: Now,
        status: Status,
        code: Option<Code>,
        error_message: Option<String>,
        body: ReplyBody,
    ) -> Vec<u8> {
        let reply = Reply {
            r#type: r#type.into(),
            proto: PROTO,
            in_reply_to: msg_id.cloned(),
            ts_ms: now.wall_ms,
            status,
            code,
            reason: code.filter(|_| status == Status::Pending),
            error_message,
            broker_epoch: self.epoch.clone(),
            features: self.settings.features.iter().copied().collect(),
            body,
        };
        reply.encode()
    }

    /// Sends a reply, later if the client's proofs keep failing.
    fn reply(&mut self, origin: Origin<'_>, body: Vec<u8>, now: Now, outputs: &mut Vec<Output>) {
        let output = Output::Reply { to: origin.routing_id.to_vec(), body };
        if !self.clients.is_penalised(origin.routing_id, now.monotonic) {
            outputs.push(output);
        } else if self.delayed_bytes + output.cost() <= self.settings.limits.delayed_bytes {
            self.delayed_bytes += output.cost();
            self.delayed.push_back((now.monotonic + PENALTY, output));
        } else {
            self.counters.delayed_dropped += 1;
        }
    }

    fn publish(&mut self, channel: &ChannelName, body: EventBody, now: Now, outputs: &mut Vec<Output>) {
        if !self.settings.features.contains(&Feature::Events) {
            return;
        }
        self.counters.events += 1;
        let event = Event { proto: PROTO, broker_epoch: self.epoch.clone(), ts_ms: now.wall_ms, body };
        outputs.push(Output::Publish { channel: channel.clone(), event: Box::new(event) });
    }
}

/// Whether the reply is kept for duplicates: not one to a client that may have been somebody else, and none that says to
/// ask again.
fn keeps_reply(request: &Request, answer: &Answer) -> bool {
    let is_final = match answer {
        Ok(_) => true,
        Err(refused) => {
            let is_passing =
                matches!(refused.code, Some(Code::ReplayOrSkew | Code::BadRequest | Code::Limit));
            !refused.is_failed_proof && !is_passing && refused.status != Status::AuthFailed
        }
    };
    is_final && !matches!(request.body, RequestBody::Ping)
}

/// What happens to a request that passed.
enum Pass {
    Apply,
    Stored(Vec<u8>),
}

/// Whether `request` proves that its sender knows the secret behind `verifier`.
fn check_proof(request: &Request, verifier: &Verifier) -> Result<(), Refused> {
    let proven = (|| {
        let (label, channel) = ProofLabel::of(&request.body)?;
        let (proof, nonce) = (request.body.proof()?, request.nonce?);
        Some(verifier.accepts(proof, label, channel, &request.client_id, nonce, request.ts_ms))
    })();
    match proven {
        Some(true) => Ok(()),
        Some(false) => Err(Refused::new(
            Code::BadProof,
            "the proof does not fit the secret of this channel; check the key file",
        )),
        None => Err(Refused::new(
            Code::BadProof,
            "this channel has a secret and the request proves nothing; give the key file",
        )),
    }
}
