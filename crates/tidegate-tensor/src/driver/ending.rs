//! Keepalives, and how leases end (15.3, 15.4).
//!
//! Whatever the reason, a lease ends by one sequence: it leaves the active set, the notice goes out, a producer's stream
//! gets a new epoch and its announce, a detach is answered, the node id cools down. What is sent goes out in this order
//! (TP-259), and each lease has one notice (TP-260).

use std::sync::Arc;

use tidegate_sbe::driver::{
    LeaseRevokeReason, ResponseCode, Role, ShmDetachRequest, ShmDetachResponse, ShmLeaseKeepalive,
    ShmLeaseRevoked,
};
use tidegate_shm::clock::Nanos;

use super::{Driver, DriverState};

use super::lease::{Claim, Lease};
use super::outbox::error_text;
use crate::ids::{ClientId, LeaseId, StreamId};

impl Driver {
    /// Ends a lease by decision of the operator, or because its holder is known to be dead (TP-258). `text` goes to the
    /// client. Returns whether the lease was ended: there is such a lease, and its notice can be sent.
    pub fn revoke(&mut self, lease: LeaseId, text: &str, now: Nanos) -> bool {
        if self.state() == DriverState::Stopped || !self.outbox.has_room() {
            return false;
        }
        match self.leases.remove(lease) {
            Some(lease) => {
                self.end_lease(&lease, LeaseRevokeReason::Revoked, text, None, now);
                true
            }
            None => false,
        }
    }

    /// TP-255, TP-256: never answered, and only good if everything in it matches.
    pub(super) fn on_keepalive(&mut self, keepalive: &ShmLeaseKeepalive, now: Nanos) {
        let claim = Claim {
            lease: LeaseId::new(keepalive.lease_id),
            stream: StreamId::new(keepalive.stream_id),
            client: ClientId::new(keepalive.client_id),
            role: keepalive.role,
        };
        if self.leases.renew(&claim, now.saturating_add(self.lease_duration)) {
            self.counters.keepalives += 1;
        } else {
            self.counters.keepalives_ignored += 1;
        }
    }

    pub(super) fn on_detach(&mut self, request: &ShmDetachRequest, now: Nanos) {
        let correlation = request.correlation_id;
        let Some(role) = request.role.listed() else {
            self.answer_detach(correlation, ResponseCode::InvalidParams, "invalid role");
            return;
        };
        let claim = Claim {
            lease: LeaseId::new(request.lease_id),
            stream: StreamId::new(request.stream_id),
            client: ClientId::new(request.client_id),
            role,
        };
        match self.leases.find(&claim).and_then(|id| self.leases.remove(id)) {
            Some(lease) => {
                self.end_lease(&lease, LeaseRevokeReason::Detached, "lease detached", Some(correlation), now);
            }
            None => {
                self.counters.detaches_refused += 1;
                self.answer_detach(correlation, ResponseCode::Rejected, "unknown lease");
            }
        }
    }

    /// A detach of a version we cannot decode (TP-250).
    pub(super) fn refuse_detach_version(&mut self, correlation_id: i64) {
        self.answer_detach(correlation_id, ResponseCode::Unsupported, "unsupported schema version");
    }

    /// Ends what has run out. Leases whose notices do not fit into the outbox end with a later tick.
    pub(super) fn expire_leases(&mut self, now: Nanos) {
        while self.outbox.has_room()
            && let Some(lease) = self.leases.next_expired(now).and_then(|id| self.leases.remove(id))
        {
            self.end_lease(&lease, LeaseRevokeReason::Expired, "lease expired", None, now);
        }
    }

    /// Steps 2 to 6 of 15.4; the lease has left the active set.
    fn end_lease(
        &mut self,
        lease: &Lease,
        reason: LeaseRevokeReason,
        text: &str,
        detach: Option<i64>,
        now: Nanos,
    ) {
        tracing::info!(
            lease = %lease.id, stream = %lease.stream, client = %lease.client, role = ?lease.role, text,
            "lease ended"
        );
        self.counters.count_end(reason);
        let text = error_text(text);
        let notice = ShmLeaseRevoked {
            timestamp_ns: now.as_u64(),
            lease_id: lease.id.get(),
            stream_id: lease.stream.get(),
            client_id: lease.client.get(),
            role: lease.role,
            reason,
            error_message: text.as_str().into(),
        };
        self.outbox.push_control(notice.to_vec());
        if lease.role == Role::Producer {
            self.replace_epoch(lease.stream, now);
        }
        if let Some(correlation) = detach {
            self.answer_detach(correlation, ResponseCode::Ok, "");
        }
        if let Some(node) = lease.node {
            self.node_ids.release(node, now);
        }
        if lease.role == Role::Producer {
            self.collect(lease.stream, now);
        }
    }

    /// Moves a stream whose producer is gone to memory the producer does not know. When that cannot be made the stream
    /// goes back to epoch 0, without announces, until an attach makes regions again: consumers must not go on reading
    /// what a late producer may still write.
    fn replace_epoch(&mut self, id: StreamId, now: Nanos) {
        let Some(stream) = self.streams.get(id) else { return };
        let (profile, last) = (Arc::clone(&stream.profile), stream.last_epoch);
        match self.make_epoch(id, &profile, last, now) {
            Ok(regions) => {
                self.install(id, regions);
                self.announce_change(id, now);
            }
            Err(_) => {
                if let Some(stream) = self.streams.get_mut(id) {
                    stream.regions = None;
                }
            }
        }
    }

    fn answer_detach(&mut self, correlation_id: i64, code: ResponseCode, text: &str) {
        let answer = ShmDetachResponse { correlation_id, code, error_message: text.into() };
        self.outbox.push_control(answer.to_vec());
    }
}
