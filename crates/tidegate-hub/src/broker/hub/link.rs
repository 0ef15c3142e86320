//! The connection to the broker: one request at a time, each with its deadline (13.6).

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use tidegate_mq::{
    Context, Dealer, Error, PublicKey, SocketType,
    monitor::{EventKind, Monitor},
    new_secret_key,
    options::{CurveOptions, Mechanism, RoutingId},
    socket::Interest,
};

use super::{
    config::{HubConfig, HubCounters},
    counting::Blocks,
};
use crate::broker::{
    error::{HubError, RefusedBy},
    proof::{ProofLabel, Verifier},
    service::{random, wall_ms},
    wire::{self, Base64, ClientId, Code, Feature, Label, MsgId, Reply, Request, RequestBody, Status},
};

/// After a refusal of the key, connecting is tried again so often.
const KEY_RETRY: Duration = Duration::from_secs(1);

/// The connection, and what is known of the broker behind it.
#[derive(Debug)]
pub(super) struct Link {
    config: HubConfig,
    line: Turns<Line>,
    epoch: Mutex<Option<Label>>,
    /// Rung when another epoch is seen, and when the keeper is to end.
    pub(super) changed: Condvar,
    counters: Mutex<HubCounters>,
    pub(super) blocks: Blocks,
    process: u32,
}

#[derive(Debug)]
struct Line {
    dealer: Dealer,
    monitor: Monitor,
    /// Number of the last request, unique for this hub.
    last: u64,
    /// Different for every hub, so that the broker never takes a request for a duplicate of another hub's.
    prefix: String,
    /// Why the last handshake failed, if none has succeeded since.
    refusal: Option<String>,
}

/// A request before it has number, nonce, time and proof.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) body: RequestBody,
    pub(super) verifier: Option<Verifier>,
}

impl Link {
    pub(super) fn new(config: HubConfig, context: &Context) -> Result<Self, HubError> {
        let failed = |source| HubError::Transport { endpoint: config.endpoint.clone(), source };
        let mut options = context.default_options(SocketType::Dealer);
        options.routing_id =
            Some(RoutingId::new(config.client_id.as_str().as_bytes().to_vec()).map_err(failed)?);
        // A request that waited for a broker to come back would be answered long after it was given up.
        options.immediate = true;
        options.linger = Some(Duration::ZERO);
        options.maxmsgsize = Some(2 * wire::MAX_BODY as u64);
        options.reconnect_ivl = Some(Duration::from_millis(50));
        options.reconnect_ivl_max = Duration::from_millis(500);
        options.auth_retry_ivl = Some(KEY_RETRY);
        options.mechanism = mechanism(&config);
        let dealer = Dealer::with_options(context, options).map_err(failed)?;
        let monitor = dealer.monitor();
        dealer.connect(&config.endpoint).map_err(failed)?;
        let prefix = wire::Fixed(random::<6>().map_err(no_randomness)?).to_string();
        Ok(Self {
            line: Turns::new(Line { dealer, monitor, last: 0, prefix, refusal: None }),
            epoch: Mutex::default(),
            changed: Condvar::new(),
            counters: Mutex::default(),
            blocks: Blocks::default(),
            process: std::process::id(),
            config,
        })
    }

    pub(super) fn client_id(&self) -> &ClientId {
        &self.config.client_id
    }

    pub(super) fn check_process(&self) -> Result<(), HubError> {
        if std::process::id() == self.process { Ok(()) } else { Err(HubError::Forked) }
    }

    /// Sends a request and reads its reply.
    pub(super) fn ask<T: DeserializeOwned>(&self, asking: &Asking, deadline: Instant) -> Result<T, HubError> {
        let body = self.exchange(asking, deadline)?.1;
        Reply::decode_body(&body).map_err(|source| {
            self.count(|counters| counters.zmq_recv_failures += 1);
            HubError::BadReply {
                endpoint: self.config.endpoint.clone(),
                request: asking.body.type_name(),
                source,
            }
        })
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&self, deadline: Instant) -> Result<Vec<Feature>, HubError> {
        let (reply, _) = self.exchange(&Asking { body: RequestBody::Ping, verifier: None }, deadline)?;
        Ok(reply.features)
    }

    fn exchange(&self, asking: &Asking, deadline: Instant) -> Result<(Reply, Vec<u8>), HubError> {
        self.check_process()?;
        let started = Instant::now();
        let name = asking.body.type_name();
        let Some(mut turn) = self.line.take(deadline) else {
            return Err(self.timed_out(name, started));
        };
        let line = turn.value();
        let (msg_id, request) = self.prepare(asking, line)?;
        self.send(line, request, started, deadline)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match line.dealer.ready_blocking(Interest::Receive, Some(left)) {
                Ok(_) => {}
                Err(Error::Timeout) => return Err(self.timed_out(name, started)),
                Err(source) => return Err(self.failed(source)),
            }
            let Ok(message) = line.dealer.try_recv() else { continue };
            let Some((reply, body)) =
                wire::body(&message).and_then(|body| Some((Reply::decode(body)?, body)))
            else {
                self.count(|counters| counters.zmq_recv_failures += 1);
                continue;
            };
            self.learn_epoch(&reply.broker_epoch);
            if reply.in_reply_to.as_ref() != Some(&msg_id) {
                self.count(|counters| counters.late_replies += 1);
                continue;
            }
            let body = body.to_vec();
            return if reply.status == Status::Ok {
                Ok((reply, body))
            } else {
                Err(self.refusal(name, reply))
            };
        }
    }

    fn prepare(&self, asking: &Asking, line: &mut Line) -> Result<(MsgId, wire::Request), HubError> {
        line.last += 1;
        let msg_id = MsgId::new(format!("{}-{}", line.prefix, line.last))?;
        let nonce = Base64(random().map_err(no_randomness)?);
        let mut request = Request {
            msg_id: msg_id.clone(),
            client_id: self.config.client_id.clone(),
            ts_ms: wall_ms(),
            nonce: asking.body.needs_nonce().then_some(nonce),
            body: asking.body.clone(),
        };
        if let (Some(verifier), Some((label, channel))) = (&asking.verifier, ProofLabel::of(&asking.body)) {
            let proof = verifier.prove(label, channel, &request.client_id, nonce, request.ts_ms);
            match &mut request.body {
                RequestBody::Register(body) => body.secret_proof = Some(proof),
                RequestBody::Discover(body) => body.secret_proof = Some(proof),
                RequestBody::Deregister(body) => body.secret_proof = Some(proof),
                RequestBody::HandoverNotify(body) => body.secret_proof = Some(proof),
                RequestBody::HandoverCancel(body) => body.secret_proof = Some(proof),
                _ => {}
            }
        }
        Ok((msg_id, request))
    }

    /// Waits for a connection if there is none.
    fn send(
        &self,
        line: &mut Line,
        request: Request,
        started: Instant,
        deadline: Instant,
    ) -> Result<(), HubError> {
        let mut message = wire::frames(request.encode());
        loop {
            let error = match line.dealer.try_send(message) {
                Ok(()) => return Ok(()),
                Err(unsent) => {
                    message = unsent.message;
                    unsent.error
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = match error {
                Error::WouldBlock => line.dealer.ready_blocking(Interest::Send, Some(left)).map(|_| ()),
                error => Err(error),
            };
            match waited {
                Ok(()) => {}
                Err(Error::Timeout) => {
                    self.count(|counters| counters.zmq_send_failures += 1);
                    return Err(self.unconnected(line, started));
                }
                Err(source) => {
                    self.count(|counters| counters.zmq_send_failures += 1);
                    return Err(self.failed(source));
                }
            }
        }
    }

    /// Why there is no connection, as far as the transport knows.
    fn unconnected(&self, line: &mut Line, started: Instant) -> HubError {
        while let Some(event) = line.monitor.try_next() {
            match event.kind {
                EventKind::HandshakeFailed(reason) => line.refusal = Some(reason.to_string()),
                EventKind::HandshakeSucceeded { .. } | EventKind::ConnectFailed(_) => line.refusal = None,
                _ => {}
            }
        }
        let endpoint = self.config.endpoint.clone();
        match &line.refusal {
            Some(reason) => HubError::KeyRefused { endpoint, reason: reason.clone() },
            None => HubError::Disconnected { endpoint, waited: started.elapsed() },
        }
    }

    fn refusal(&self, request: &'static str, reply: Reply) -> HubError {
        let refused = RefusedBy {
            endpoint: self.config.endpoint.clone(),
            request,
            code: reply.code,
            message: reply.error_message.unwrap_or_default(),
        };
        match (reply.status, reply.code) {
            (Status::Conflict, _) => HubError::Conflict(refused),
            (Status::NotFound, _) => HubError::NotFound(refused),
            (Status::AuthFailed, _) => HubError::AuthFailed(refused),
            (Status::SchemaMismatch, _) => HubError::SchemaMismatch(refused),
            (Status::Pending, _) => HubError::Pending(refused),
            (Status::UnknownClient, _) => HubError::UnknownClient(refused),
            (_, Some(Code::ReplayOrSkew)) => HubError::ReplayOrSkew(refused),
            (_, Some(Code::UnknownType)) => HubError::Unsupported(refused),
            _ => HubError::BadRequest(refused),
        }
    }

    fn timed_out(&self, request: &'static str, started: Instant) -> HubError {
        self.count(|counters| counters.zmq_timeout_count += 1);
        HubError::Timeout { endpoint: self.config.endpoint.clone(), request, waited: started.elapsed() }
    }

    fn failed(&self, source: Error) -> HubError {
        match source {
            Error::Forked => HubError::Forked,
            source => HubError::Transport { endpoint: self.config.endpoint.clone(), source },
        }
    }

    fn learn_epoch(&self, seen: &Label) {
        let mut epoch = self.lock_epoch();
        if epoch.as_ref() != Some(seen) {
            *epoch = Some(seen.clone());
            self.changed.notify_all();
        }
    }

    pub(super) fn lock_epoch(&self) -> MutexGuard<'_, Option<Label>> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn epoch(&self) -> Option<Label> {
        self.lock_epoch().clone()
    }

    pub(super) fn counters(&self) -> HubCounters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut HubCounters)) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *counters;
        count(&mut counters);
        self.blocks.add_difference(&before, &counters);
    }

    /// How to talk to the broker's other socket.
    pub(super) fn mechanism(&self) -> Mechanism {
        mechanism(&self.config)
    }

    /// How to talk to a peer that has the CURVE key `server_key`, if it has one. A hub without a key of its own makes one:
    /// a publisher may admit everybody.
    pub(super) fn mechanism_to_peer(&self, server_key: Option<PublicKey>) -> Mechanism {
        server_key.map_or(Mechanism::Null, |server_key| {
            let own = self.config.curve.as_ref().map(|curve| curve.secret_key.clone());
            let secret_key = own.unwrap_or_else(new_secret_key);
            Mechanism::Curve(CurveOptions::Client { server_key, secret_key })
        })
    }
}

fn mechanism(config: &HubConfig) -> Mechanism {
    config.curve.as_ref().map_or(Mechanism::Null, |curve| {
        let (server_key, secret_key) = (curve.server_key, curve.secret_key.clone());
        Mechanism::Curve(CurveOptions::Client { server_key, secret_key })
    })
}

fn no_randomness(source: std::io::Error) -> HubError {
    HubError::System { what: "cannot draw random bytes", source }
}

/// A mutex whose lock is waited for until a deadline only.
#[derive(Debug)]
struct Turns<T> {
    is_taken: Mutex<bool>,
    freed: Condvar,
    value: Mutex<T>,
}

impl<T> Turns<T> {
    fn new(value: T) -> Self {
        Self { is_taken: Mutex::new(false), freed: Condvar::new(), value: Mutex::new(value) }
    }

    fn take(&self, deadline: Instant) -> Option<Turn<'_, T>> {
        let mut is_taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_taken {
            let left = deadline.checked_duration_since(Instant::now())?;
            is_taken = self.freed.wait_timeout(is_taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *is_taken = true;
        drop(is_taken);
        // Whose turn it is finds it free: the last one let go of it before passing the turn on.
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Turn { value, _pass_on: PassOn(self) })
    }
}

/// The right to use the value.
struct Turn<'a, T> {
    value: MutexGuard<'a, T>,
    /// Dropped after the guard: fields go in their order.
    _pass_on: PassOn<'a, T>,
}

impl<T> Turn<'_, T> {
    fn value(&mut self) -> &mut T {
        &mut self.value
    }
}

/// The duty to let the next one have its turn.
struct PassOn<'a, T>(&'a Turns<T>);

impl<T> Drop for PassOn<'_, T> {
    fn drop(&mut self) {
        *self.0.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-206, N-34.
    #[test]
    fn a_hub_of_another_process_does_nothing() {
        let client_id = ClientId::new("c").unwrap();
        let config = HubConfig { endpoint: "ipc:///nobody".into(), client_id, curve: None };
        let context = Context::new();
        let mut link = Link::new(config, &context).unwrap();
        assert!(link.check_process().is_ok());
        // As it is in a child of fork.
        link.process = link.process.wrapping_add(1);
        let error = link.ping(Instant::now() + Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, HubError::Forked), "{error}");
        assert_eq!(error.number(), 901);
    }
}
