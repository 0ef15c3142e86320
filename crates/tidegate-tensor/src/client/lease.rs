//! The driver client of one endpoint: the state machine of chapter 16.
//!
//! Messages and time go in, messages and events come out; nothing here does I/O. One machine asks for one lease, for one
//! (stream, role, client id). Messages that concern somebody else are ignored (TP-300).

mod outcome;

use std::time::Duration;

use tidegate_sbe::Open;
use tidegate_sbe::driver::{
    HugepagesPolicy, LeaseRevokeReason, Message, PublishMode, ResponseCode, Role, ShmAttachRequest,
    ShmAttachResponse, ShmDetachRequest, ShmDetachResponse, ShmLeaseKeepalive, ShmLeaseRevoked,
};
use tidegate_shm::clock::Nanos;

use super::context::Context;
use super::random::Random;
use crate::ids::{ClientId, CorrelationId, LeaseId, NodeId, StreamId};
use crate::region::RegionSpec;
pub(super) use outcome::{Grant, LeaseEvent};
pub use outcome::{LeaseLoss, MalformedGrant, Refusal, RefusalCode};

/// Exact text that clients with automatic ids react to (TP-240).
const ALREADY_ATTACHED: &str = "client_id already attached";

/// Text of a driver that still waits for the lease of a former producer to end. Not stable between implementations
/// (IP-49); where it differs the attach is merely not retried.
const PRODUCER_ATTACHED: &str = "producer already attached";

/// A detach that gets no answer is given up after this (TP-308, TP-493).
const DETACH_WAIT: Duration = Duration::from_secs(1);

const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_DOUBLINGS: u32 = 5;

/// What to attach as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseRequest {
    /// `None` lets the driver allocate a dynamic stream.
    pub stream: Option<StreamId>,
    pub role: Role,
    /// `None` chooses a random id, and another one when it is taken (TP-292, TP-293).
    pub client: Option<ClientId>,
    /// Create the stream when the driver does not know it (TP-245).
    pub create: bool,
    pub hugepages: HugepagesPolicy,
    pub desired_node: Option<NodeId>,
}

#[derive(Debug)]
enum State {
    Unattached,
    Attaching {
        correlation: CorrelationId,
        resend: Nanos,
        deadline: Nanos,
    },
    Attached {
        grant: Grant,
        keepalive: Nanos,
        deadline: Nanos,
    },
    Detaching {
        correlation: CorrelationId,
        resend: Nanos,
        deadline: Nanos,
        lease: LeaseId,
        stream: StreamId,
        last: bool,
    },
    Backoff {
        until: Nanos,
    },
    Closed,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct LeaseMachine {
    request: LeaseRequest,
    client: ClientId,
    timing: Timing,
    state: State,
    failures: u32,
    correlation: i64,
    random: Random,
    /// While refused again and again because of a lease that may be about to end, the time at which that becomes an
    /// error (TP-491).
    patience: Option<Nanos>,
}

#[derive(Debug, Clone, Copy)]
struct Timing {
    attach: Duration,
    resend: Duration,
    keepalive: Duration,
    lease: Duration,
}

impl LeaseMachine {
    pub(super) fn new(request: LeaseRequest, context: &Context, mut random: Random) -> Self {
        let client = request.client.unwrap_or_else(|| random.client_id());
        Self {
            request,
            client,
            timing: Timing {
                attach: context.attach_timeout,
                resend: context.resend_interval,
                keepalive: context.keepalive_interval,
                lease: context.lease_duration(),
            },
            state: State::Unattached,
            failures: 0,
            correlation: random.correlation(),
            random,
            patience: None,
        }
    }

    pub(super) fn client(&self) -> ClientId {
        self.client
    }

    pub(super) fn grant(&self) -> Option<&Grant> {
        match &self.state {
            State::Attached { grant, .. } => Some(grant),
            _ => None,
        }
    }

    /// When the lease ends unless a keepalive is sent; the fence of a producer.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        match self.state {
            State::Attached { deadline, .. } => Some(deadline),
            _ => None,
        }
    }

    /// Does what is due. Requests go to `send`, which says whether the transport took them.
    pub(super) fn tick(&mut self, now: Nanos, send: &mut dyn FnMut(&[u8]) -> bool) -> Option<LeaseEvent> {
        match &mut self.state {
            State::Closed => None,
            State::Unattached => {
                self.attach(now, send);
                None
            }
            State::Backoff { until } => {
                if now >= *until {
                    self.attach(now, send);
                }
                None
            }
            State::Attaching { correlation, resend, deadline } => {
                if now >= *deadline {
                    // The id is abandoned: a late answer is ignored (16.1).
                    self.back_off(now);
                    return None;
                }
                if now >= *resend {
                    *resend = now.saturating_add(self.timing.resend.into());
                    let correlation = *correlation;
                    self.send_attach(correlation, send);
                }
                None
            }
            State::Attached { grant, keepalive, deadline } => {
                if now >= *deadline {
                    let (lease, stream) = (grant.lease, grant.stream);
                    // The driver may still hold it: hand it back before asking again (TP-493).
                    self.detach(lease, stream, false, now, send);
                    return Some(LeaseEvent::Lost(LeaseLoss::KeepaliveFailed));
                }
                if now >= *keepalive {
                    let message = ShmLeaseKeepalive {
                        lease_id: grant.lease.get(),
                        stream_id: grant.stream.get(),
                        client_id: grant.client.get(),
                        role: self.request.role,
                        client_timestamp_ns: now.as_u64(),
                    };
                    if encode(&message, ShmLeaseKeepalive::to_vec, send) {
                        *keepalive = now.saturating_add(self.timing.keepalive.into());
                        *deadline = now.saturating_add(self.timing.lease.into());
                        // Not earlier: a lease that cannot be used is given back before its first keepalive, and asking
                        // for those must slow down too.
                        self.failures = 0;
                    }
                }
                None
            }
            State::Detaching { correlation, resend, deadline, lease, stream, last } => {
                if now >= *deadline {
                    let last = *last;
                    return self.detached(last, now);
                }
                if now >= *resend {
                    *resend = now.saturating_add(self.timing.resend.into());
                    let (correlation, lease, stream) = (*correlation, *lease, *stream);
                    self.send_detach(correlation, lease, stream, send);
                }
                None
            }
        }
    }

    /// Takes a message of schema 901 in.
    pub(super) fn on_message(
        &mut self,
        message: &Message<'_>,
        now: Nanos,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<LeaseEvent> {
        match message {
            Message::ShmAttachResponse(response) => self.on_attach_response(response, now, send),
            Message::ShmDetachResponse(response) => self.on_detach_response(response, now),
            Message::ShmLeaseRevoked(notice) => self.on_revoked(notice, now),
            Message::ShmDriverShutdown(notice) => {
                if let Open::Unlisted(reason) = notice.reason {
                    tracing::warn!(reason, "shutdown notice with an unknown reason is taken as ERROR");
                }
                self.on_shutdown(now)
            }
            _ => None,
        }
    }

    /// The connection is gone, and every lease obtained through it with it.
    pub(super) fn on_transport_lost(&mut self, now: Nanos) -> Option<LeaseEvent> {
        match &self.state {
            State::Closed => None,
            State::Detaching { last: true, .. } => {
                self.state = State::Closed;
                Some(LeaseEvent::Closed)
            }
            State::Attached { .. } => {
                self.back_off(now);
                Some(LeaseEvent::Lost(LeaseLoss::TransportLost))
            }
            _ => {
                self.back_off(now);
                None
            }
        }
    }

    /// Gives the lease back and asks for a new one after backoff.
    pub(super) fn renew(
        &mut self,
        loss: LeaseLoss,
        now: Nanos,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<LeaseEvent> {
        let State::Attached { grant, .. } = &self.state else { return None };
        let (lease, stream) = (grant.lease, grant.stream);
        self.detach(lease, stream, false, now, send);
        Some(LeaseEvent::Lost(loss))
    }

    /// Gives the lease back for good (TP-308).
    pub(super) fn close(&mut self, now: Nanos, send: &mut dyn FnMut(&[u8]) -> bool) -> Option<LeaseEvent> {
        match &mut self.state {
            State::Attached { grant, .. } => {
                let (lease, stream) = (grant.lease, grant.stream);
                self.detach(lease, stream, true, now, send);
                Some(LeaseEvent::Lost(LeaseLoss::Released))
            }
            State::Detaching { last, .. } => {
                *last = true;
                None
            }
            _ => {
                self.state = State::Closed;
                Some(LeaseEvent::Closed)
            }
        }
    }

    fn on_attach_response(
        &mut self,
        response: &ShmAttachResponse<'_>,
        now: Nanos,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<LeaseEvent> {
        let State::Attaching { correlation, .. } = self.state else { return None };
        // Once an OK was accepted the id is no longer outstanding, so whatever follows is ignored (TP-291).
        if response.correlation_id != correlation.get() {
            return None;
        }
        if response.code != ResponseCode::Ok {
            return self.on_refusal(response, now);
        }
        match self.accept(response, now) {
            Ok(grant) => {
                let lease_end = now.saturating_add(self.timing.lease.into());
                let deadline = grant.first_deadline.map_or(lease_end, |first| first.min(lease_end));
                self.patience = None;
                // The first keepalive is due at once (TP-295).
                self.state = State::Attached { grant: grant.clone(), keepalive: now, deadline };
                Some(LeaseEvent::Granted(grant))
            }
            Err(error) => {
                let stream = response.stream_id.map(StreamId::new).or(self.request.stream);
                match (response.lease_id, stream) {
                    (Some(lease), Some(stream)) => {
                        self.detach(LeaseId::new(lease), stream, false, now, send);
                    }
                    _ => self.back_off(now),
                }
                Some(LeaseEvent::Malformed(error))
            }
        }
    }

    fn accept(&self, response: &ShmAttachResponse<'_>, now: Nanos) -> Result<Grant, MalformedGrant> {
        let lease = response.lease_id.ok_or(MalformedGrant::NoLease)?;
        let regions = RegionSpec::from_attach_response(response)?;
        let found = regions.stream();
        match self.request.stream {
            Some(expected) if expected != found && !self.request.create => {
                return Err(MalformedGrant::OtherStream { expected, found });
            }
            _ => {}
        }
        let first_deadline = response.lease_expiry_timestamp_ns.map(Nanos);
        if first_deadline.is_some_and(|deadline| deadline <= now) {
            return Err(MalformedGrant::Expired);
        }
        let node = response
            .node_id
            .and_then(|id| u16::try_from(id).ok())
            .filter(|id| NodeId::RANGE.contains(id))
            .map(NodeId::new);
        Ok(Grant {
            lease: LeaseId::new(lease),
            stream: found,
            client: self.client,
            node,
            regions,
            first_deadline,
        })
    }

    fn on_refusal(&mut self, response: &ShmAttachResponse<'_>, now: Nanos) -> Option<LeaseEvent> {
        let text = response.error_message.as_str().unwrap_or("(unprintable text)");
        let rejected = response.code == ResponseCode::Rejected;
        let patience = self.patience;
        self.back_off(now);
        if rejected && text == ALREADY_ATTACHED && self.request.client.is_none() {
            self.client = self.random.client_id();
            return None;
        }
        // A lease of a process that died a moment ago, or of our own earlier request whose answer was lost, ends by
        // itself: wait for that before reporting (TP-491).
        if rejected && (text == ALREADY_ATTACHED || text == PRODUCER_ATTACHED) {
            let patience = patience.unwrap_or_else(|| {
                now.saturating_add(self.timing.lease.into()).saturating_add(self.timing.keepalive.into())
            });
            self.patience = Some(patience);
            if now < patience {
                return None;
            }
        }
        let code = match response.code {
            ResponseCode::Unsupported => RefusalCode::Unsupported,
            ResponseCode::InvalidParams => RefusalCode::InvalidParams,
            ResponseCode::Rejected => RefusalCode::Rejected,
            _ => RefusalCode::InternalError,
        };
        Some(LeaseEvent::Refused(Refusal { code, message: text.to_owned() }))
    }

    fn on_detach_response(&mut self, response: &ShmDetachResponse<'_>, now: Nanos) -> Option<LeaseEvent> {
        let State::Detaching { correlation, last, .. } = self.state else { return None };
        if response.correlation_id != correlation.get() {
            return None;
        }
        // A refusal (`unknown lease`) means that there is nothing left to give back.
        self.detached(last, now)
    }

    fn on_revoked(&mut self, notice: &ShmLeaseRevoked<'_>, now: Nanos) -> Option<LeaseEvent> {
        let State::Attached { grant, .. } = &self.state else { return None };
        let own = notice.lease_id == grant.lease.get()
            && notice.stream_id == grant.stream.get()
            && notice.client_id == grant.client.get()
            && notice.role == self.request.role;
        if !own {
            return None;
        }
        self.back_off(now);
        let reason = match notice.reason {
            LeaseRevokeReason::Detached => "detached",
            LeaseRevokeReason::Expired => "expired",
            LeaseRevokeReason::Revoked => "revoked",
        };
        let message = match notice.error_message.as_str() {
            Some(text) if !text.is_empty() => format!("{reason}: {text}"),
            _ => reason.to_owned(),
        };
        Some(LeaseEvent::Lost(LeaseLoss::Revoked { message }))
    }

    fn on_shutdown(&mut self, now: Nanos) -> Option<LeaseEvent> {
        match self.state {
            State::Attached { .. } => {
                self.back_off(now);
                Some(LeaseEvent::Lost(LeaseLoss::Shutdown))
            }
            State::Attaching { .. } => {
                self.back_off(now);
                None
            }
            State::Detaching { last, .. } => self.detached(last, now),
            _ => None,
        }
    }

    fn attach(&mut self, now: Nanos, send: &mut dyn FnMut(&[u8]) -> bool) {
        let correlation = self.next_correlation();
        self.state = State::Attaching {
            correlation,
            resend: now.saturating_add(self.timing.resend.into()),
            deadline: now.saturating_add(self.timing.attach.into()),
        };
        self.send_attach(correlation, send);
    }

    fn send_attach(&self, correlation: CorrelationId, send: &mut dyn FnMut(&[u8]) -> bool) {
        let mode =
            if self.request.create { PublishMode::ExistingOrCreate } else { PublishMode::RequireExisting };
        let message = ShmAttachRequest {
            correlation_id: correlation.get(),
            stream_id: self.request.stream.map_or(0, StreamId::get),
            client_id: self.client.get(),
            role: Open::Listed(self.request.role),
            expected_layout_version: 0,
            publish_mode: Some(Open::Listed(mode)),
            require_hugepages: Open::Listed(self.request.hugepages),
            desired_node_id: self.request.desired_node.map(|id| id.get().into()),
        };
        // What the transport does not take now is sent again after the resend interval.
        encode(&message, ShmAttachRequest::to_vec, send);
    }

    fn detach(
        &mut self,
        lease: LeaseId,
        stream: StreamId,
        last: bool,
        now: Nanos,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        let correlation = self.next_correlation();
        self.state = State::Detaching {
            correlation,
            resend: now.saturating_add(self.timing.resend.into()),
            deadline: now.saturating_add(DETACH_WAIT.into()),
            lease,
            stream,
            last,
        };
        self.send_detach(correlation, lease, stream, send);
    }

    fn send_detach(
        &self,
        correlation: CorrelationId,
        lease: LeaseId,
        stream: StreamId,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        let message = ShmDetachRequest {
            correlation_id: correlation.get(),
            lease_id: lease.get(),
            stream_id: stream.get(),
            client_id: self.client.get(),
            role: Open::Listed(self.request.role),
        };
        encode(&message, ShmDetachRequest::to_vec, send);
    }

    fn detached(&mut self, last: bool, now: Nanos) -> Option<LeaseEvent> {
        if last {
            self.state = State::Closed;
            return Some(LeaseEvent::Closed);
        }
        self.back_off(now);
        None
    }

    fn back_off(&mut self, now: Nanos) {
        let delay = BACKOFF_BASE.saturating_mul(1 << self.failures.min(BACKOFF_DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        // Whatever stood in the way before, a lease that does so from now on is another one.
        self.patience = None;
        self.state = State::Backoff { until: now.saturating_add(self.random.jitter(delay).into()) };
    }

    fn next_correlation(&mut self) -> CorrelationId {
        self.correlation = self.correlation.wrapping_add(1);
        CorrelationId::new(self.correlation)
    }
}

/// Encodes into a buffer of its own (control messages are rare) and sends; a message that cannot be encoded is a defect
/// that shows as "not sent".
fn encode<M, E: std::fmt::Debug>(
    message: &M,
    to_vec: impl Fn(&M) -> Result<Vec<u8>, E>,
    send: &mut dyn FnMut(&[u8]) -> bool,
) -> bool {
    match to_vec(message) {
        Ok(bytes) => send(&bytes),
        Err(error) => {
            tracing::error!(?error, "a control message could not be encoded");
            false
        }
    }
}

#[cfg(test)]
mod tests;
