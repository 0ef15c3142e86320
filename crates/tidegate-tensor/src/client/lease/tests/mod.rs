//! Tables 16.1 and 16.2, row by row.

mod attaching;
mod holding;

use tidegate_sbe::AnyMessage;
use tidegate_sbe::driver::{PayloadPool, ShmDriverShutdown};
use tidegate_shm::clock::Nanos;

use super::*;

const STREAM: u32 = 10_000;
const LEASE: u64 = 77;
const CLIENT: u32 = 5;
const EPOCH: u64 = 900;
const HEADER: &str = "shm:file?path=/dev/shm/s/header.ring";
const POOL: &str = "shm:file?path=/dev/shm/s/1.pool";

/// A message the machine sent, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sent {
    Attach { correlation: i64, stream: u32, client: u32, role: Role, mode: PublishMode, node: Option<u32> },
    Detach { correlation: i64, lease: u64, stream: u32, client: u32, role: Role },
    Keepalive { lease: u64, stream: u32, client: u32, role: Role },
}

/// The machine with its clock and its wire.
struct Bench {
    machine: LeaseMachine,
    now: Nanos,
    /// Whether the transport takes messages.
    connected: bool,
    wire: Vec<Sent>,
}

fn request(role: Role, client: Option<u32>) -> LeaseRequest {
    LeaseRequest {
        stream: Some(StreamId::new(STREAM)),
        role,
        client: client.map(ClientId::new),
        create: role == Role::Producer,
        hugepages: HugepagesPolicy::Unspecified,
        desired_node: None,
    }
}

fn response(correlation_id: i64) -> ShmAttachResponse<'static> {
    ShmAttachResponse {
        correlation_id,
        code: ResponseCode::Ok,
        lease_id: Some(LEASE),
        lease_expiry_timestamp_ns: None,
        stream_id: Some(STREAM),
        epoch: Some(EPOCH),
        layout_version: Some(1),
        header_nslots: Some(8),
        header_slot_bytes: Some(256),
        node_id: Some(3),
        payload_pools: vec![PayloadPool {
            pool_id: 1,
            pool_nslots: 8,
            stride_bytes: 4096,
            region_uri: POOL.into(),
        }],
        header_region_uri: HEADER.into(),
        error_message: "".into(),
    }
}

fn refusal(correlation_id: i64, code: ResponseCode, text: &'static str) -> ShmAttachResponse<'static> {
    ShmAttachResponse {
        correlation_id,
        code,
        lease_id: None,
        lease_expiry_timestamp_ns: None,
        stream_id: None,
        epoch: None,
        layout_version: None,
        header_nslots: None,
        header_slot_bytes: None,
        node_id: None,
        payload_pools: Vec::new(),
        header_region_uri: "".into(),
        error_message: text.into(),
    }
}

fn revoked(lease_id: u64, stream_id: u32, client_id: u32, role: Role) -> ShmLeaseRevoked<'static> {
    ShmLeaseRevoked {
        timestamp_ns: 0,
        lease_id,
        stream_id,
        client_id,
        role,
        reason: LeaseRevokeReason::Expired,
        error_message: "".into(),
    }
}

impl Bench {
    fn new(request: LeaseRequest) -> Self {
        Self::seeded(request, 1)
    }

    fn seeded(request: LeaseRequest, seed: u64) -> Self {
        let machine = LeaseMachine::new(request, &Context::default(), Random::seeded(seed));
        Self { machine, now: Nanos::from_secs(100), connected: true, wire: Vec::new() }
    }

    /// A consumer whose lease was granted, with its first keepalive on the wire.
    fn attached() -> Self {
        let mut bench = Self::new(request(Role::Consumer, Some(CLIENT)));
        let correlation = bench.attach();
        assert!(matches!(bench.respond(&response(correlation)), Some(LeaseEvent::Granted(_))));
        assert_eq!(bench.tick(), None);
        bench.wire.clear();
        bench
    }

    fn tick(&mut self) -> Option<LeaseEvent> {
        let (wire, connected) = (&mut self.wire, self.connected);
        self.machine.tick(self.now, &mut |bytes| connected && record(wire, bytes))
    }

    fn after(&mut self, milliseconds: u64) -> Option<LeaseEvent> {
        self.now = self.now.saturating_add(Nanos::from_millis(milliseconds));
        self.tick()
    }

    /// Runs duty cycles every 10 ms for so long; the first event ends it.
    fn run(&mut self, milliseconds: u64) -> Option<LeaseEvent> {
        (0..milliseconds / 10).find_map(|_| self.after(10))
    }

    fn message(&mut self, message: &Message<'_>) -> Option<LeaseEvent> {
        let (wire, connected) = (&mut self.wire, self.connected);
        self.machine.on_message(message, self.now, &mut |bytes| connected && record(wire, bytes))
    }

    fn respond(&mut self, response: &ShmAttachResponse<'_>) -> Option<LeaseEvent> {
        self.message(&Message::ShmAttachResponse(response.clone()))
    }

    fn close(&mut self) -> Option<LeaseEvent> {
        let (wire, connected) = (&mut self.wire, self.connected);
        self.machine.close(self.now, &mut |bytes| connected && record(wire, bytes))
    }

    /// Ticks until an attach request goes out and returns its correlation id.
    fn attach(&mut self) -> i64 {
        self.wire.clear();
        for _ in 0..1000 {
            assert_eq!(self.tick(), None);
            if let Some(Sent::Attach { correlation, .. }) = self.wire.last() {
                return *correlation;
            }
            self.now = self.now.saturating_add(Nanos::from_millis(10));
        }
        panic!("no attach request within ten seconds");
    }

    fn is_backing_off(&self) -> bool {
        matches!(self.machine.state, State::Backoff { .. })
    }

    /// Nanoseconds until the next attempt.
    fn pause(&self) -> u64 {
        let State::Backoff { until } = self.machine.state else { panic!("{:?}", self.machine.state) };
        until.saturating_sub(self.now).as_u64()
    }

    fn is_attached(&self) -> bool {
        self.machine.grant().is_some()
    }
}

fn record(wire: &mut Vec<Sent>, bytes: &[u8]) -> bool {
    let AnyMessage::Driver(message) = AnyMessage::decode(bytes).unwrap() else { panic!("not schema 901") };
    wire.push(match message {
        Message::ShmAttachRequest(it) => Sent::Attach {
            correlation: it.correlation_id,
            stream: it.stream_id,
            client: it.client_id,
            role: it.role.listed().unwrap(),
            mode: it.publish_mode.unwrap().listed().unwrap(),
            node: it.desired_node_id,
        },
        Message::ShmDetachRequest(it) => Sent::Detach {
            correlation: it.correlation_id,
            lease: it.lease_id,
            stream: it.stream_id,
            client: it.client_id,
            role: it.role.listed().unwrap(),
        },
        Message::ShmLeaseKeepalive(it) => {
            Sent::Keepalive { lease: it.lease_id, stream: it.stream_id, client: it.client_id, role: it.role }
        }
        other => panic!("a client does not send {}", other.name()),
    });
    true
}
