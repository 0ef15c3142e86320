//! Messages on their way out: bounded, in order, timestamped when they leave.
//!
//! Control and announces have a queue each, so that a slow reader of one does not hold up the other. When both go to
//! one Aeron stream they share one queue, because there a receiver sees their order (TP-259).

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_sbe::EncodeError;
use tidegate_sbe::driver::{PayloadPool, ResponseCode, ShmAttachResponse};
use tidegate_shm::clock::Nanos;

use super::lease::Leases;
use crate::ids::{ClientId, CorrelationId, LeaseId, NodeId, StreamId};
use crate::layout::{LAYOUT_VERSION, SLOT_LEN};
use crate::region::{RegionSpec, RegionUris};

/// Messages that may wait per queue. Requests are taken from the transport only while there is room for their answers.
const CAPACITY: usize = 1024;

/// Longest `errorMessage` (TP-243).
const MAX_ERROR_LEN: usize = 1024;

/// Most messages one request or one lease end causes.
const BURST: usize = 4;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The driver's control stream.
    Control,
    /// The stream of announces.
    Announce,
}

/// A message that left the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub endpoint: Endpoint,
    /// One SBE message.
    pub bytes: Vec<u8>,
}

/// A message that waits.
#[derive(Debug)]
enum Entry {
    /// Nothing in it depends on when it is sent.
    Encoded(Vec<u8>),
    /// OK to an attach; states the deadline of the first keepalive.
    Granted(Granted),
    /// An announce; states the time it is sent (TP-150).
    Announce(Announce),
}

/// An OK to an attach request.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub correlation: CorrelationId,
    pub lease: LeaseId,
    pub node: Option<NodeId>,
    pub regions: Arc<RegionSpec>,
    /// Used when the lease has ended before the answer could be sent.
    pub expires: Nanos,
}

/// An announce without its timestamp.
#[derive(Debug, Clone)]
pub(super) struct Announce {
    pub regions: Arc<RegionSpec>,
    /// The attached producer (TP-148).
    pub producer: Option<ClientId>,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: bool,
    control: VecDeque<(u64, Entry)>,
    announce: VecDeque<(u64, Entry)>,
    /// Numbers the entries, so that the queues can be drained in the order of creation.
    next: u64,
    /// Length of a lease that starts when its answer is sent.
    lease_duration: Nanos,
    scratch: Vec<u8>,
}

impl Outbox {
    /// `shared` says that both endpoints are one Aeron stream.
    pub(super) fn new(shared: bool, lease_duration: Nanos) -> Self {
        Self {
            shared,
            control: VecDeque::new(),
            announce: VecDeque::new(),
            next: 0,
            lease_duration,
            scratch: Vec::new(),
        }
    }

    /// How many more requests or lease ends fit with all messages they cause.
    pub(super) fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.control.len().max(self.announce.len())) / BURST
    }

    pub(super) fn has_room(&self) -> bool {
        self.room() > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.announce.is_empty()
    }

    pub(super) fn push_control(&mut self, message: Result<Vec<u8>, EncodeError>) {
        match message {
            Ok(bytes) => self.push(Endpoint::Control, Entry::Encoded(bytes)),
            // Lengths and texts are ours and bounded, so this is a defect, not a state of the system.
            Err(error) => tracing::error!(%error, "a control message could not be encoded and is not sent"),
        }
    }

    pub(super) fn push_granted(&mut self, granted: Granted) {
        self.push(Endpoint::Control, Entry::Granted(granted));
    }

    pub(super) fn push_announce(&mut self, announce: Announce) {
        let endpoint = if self.shared { Endpoint::Control } else { Endpoint::Announce };
        self.push(endpoint, Entry::Announce(announce));
    }

    /// Whether an announce of the stream already waits; a periodic one then adds nothing.
    pub(super) fn announces(&self, stream: StreamId) -> bool {
        let queue = if self.shared { &self.control } else { &self.announce };
        queue.iter().any(|(_, entry)| matches!(entry, Entry::Announce(it) if it.regions.stream() == stream))
    }

    /// The endpoint whose next message was created first.
    pub(super) fn oldest(&self) -> Option<Endpoint> {
        match (self.control.front(), self.announce.front()) {
            (Some((control, _)), Some((announce, _))) if announce < control => Some(Endpoint::Announce),
            (Some(_), _) => Some(Endpoint::Control),
            (None, Some(_)) => Some(Endpoint::Announce),
            (None, None) => None,
        }
    }

    /// The next message for an endpoint, stamped with `now`. It stays first until [`Outbox::pop`].
    pub(super) fn front(&mut self, endpoint: Endpoint, leases: &mut Leases, now: Nanos) -> Option<&[u8]> {
        // One that cannot be encoded must not block those behind it.
        loop {
            let (_, entry) = self.queue(endpoint).front()?;
            let stamped = match entry {
                Entry::Encoded(_) => None,
                Entry::Granted(granted) => {
                    let deadline = leases.answered(granted.lease, now.saturating_add(self.lease_duration));
                    Some(granted.encode(deadline.unwrap_or(granted.expires)))
                }
                Entry::Announce(announce) => Some(announce.regions.to_announce(announce.producer, now)),
            };
            match stamped {
                None => break,
                Some(Ok(bytes)) => {
                    self.scratch = bytes;
                    return Some(&self.scratch);
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "a message could not be encoded and is not sent");
                    self.pop(endpoint);
                }
            }
        }
        match self.queue(endpoint).front() {
            Some((_, Entry::Encoded(bytes))) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn pop(&mut self, endpoint: Endpoint) {
        match endpoint {
            Endpoint::Control => self.control.pop_front(),
            Endpoint::Announce => self.announce.pop_front(),
        };
    }

    fn queue(&self, endpoint: Endpoint) -> &VecDeque<(u64, Entry)> {
        match endpoint {
            Endpoint::Control => &self.control,
            Endpoint::Announce => &self.announce,
        }
    }

    fn push(&mut self, endpoint: Endpoint, entry: Entry) {
        let number = self.next;
        self.next += 1;
        match endpoint {
            Endpoint::Control => self.control.push_back((number, entry)),
            Endpoint::Announce => self.announce.push_back((number, entry)),
        }
    }
}

impl Granted {
    fn encode(&self, deadline: Nanos) -> Result<Vec<u8>, EncodeError> {
        let regions = &self.regions;
        let uris = RegionUris::new(regions);
        let pools = regions.pools().iter().zip(&uris.pools);
        ShmAttachResponse {
            correlation_id: self.correlation.get(),
            code: ResponseCode::Ok,
            lease_id: Some(self.lease.get()),
            // The end of time is the wire's null.
            lease_expiry_timestamp_ns: Some(deadline.as_u64()).filter(|deadline| *deadline != u64::MAX),
            stream_id: Some(regions.stream().get()),
            epoch: Some(regions.epoch().get()),
            layout_version: Some(LAYOUT_VERSION),
            header_nslots: Some(regions.slots().get()),
            header_slot_bytes: Some(SLOT_LEN as u16),
            node_id: self.node.map(|node| node.get().into()),
            payload_pools: pools
                .map(|(pool, uri)| PayloadPool {
                    pool_id: pool.geometry.pool_id.get(),
                    pool_nslots: regions.slots().get(),
                    stride_bytes: pool.geometry.stride.get(),
                    region_uri: uri.as_str().into(),
                })
                .collect(),
            header_region_uri: uris.header.as_str().into(),
            error_message: "".into(),
        }
        .to_vec()
    }
}

/// A text as an `errorMessage` may have it: printable ASCII (TP-018) of bounded length (TP-243).
pub(super) fn error_text(text: &str) -> String {
    let printable = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' });
    printable.take(MAX_ERROR_LEN).collect()
}
