//! Tables 16.1 and 16.2, row by row.

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

/// Row "UNATTACHED, attach requested", and what the request says.
/// Rules: TP-245.
#[test]
fn the_first_tick_asks_for_what_was_wanted() {
    let mut producer = Bench::new(LeaseRequest {
        desired_node: Some(NodeId::new(9)),
        ..request(Role::Producer, Some(CLIENT))
    });
    let correlation = producer.attach();
    let expected = Sent::Attach {
        correlation,
        stream: STREAM,
        client: CLIENT,
        role: Role::Producer,
        mode: PublishMode::ExistingOrCreate,
        node: Some(9),
    };
    assert_eq!(producer.wire, [expected]);

    let mut dynamic = Bench::new(LeaseRequest { stream: None, ..request(Role::Consumer, Some(CLIENT)) });
    let correlation = dynamic.attach();
    let expected = Sent::Attach {
        correlation,
        stream: 0,
        client: CLIENT,
        role: Role::Consumer,
        mode: PublishMode::RequireExisting,
        node: None,
    };
    assert_eq!(dynamic.wire, [expected]);
}

/// Rows "no response within the resend interval" and "attach timeout": one request is outstanding at a time, resent with
/// its id; an abandoned id is never answered to, and the next one is higher.
/// Rules: TP-249, TP-290.
#[test]
fn a_request_is_resent_under_its_id_and_abandoned_after_the_timeout() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let first = bench.attach();
    assert_eq!(bench.after(190), None);
    assert_eq!(bench.wire.len(), 1, "before the resend interval");
    for resends in 1..=24 {
        assert_eq!(bench.after(if resends == 1 { 10 } else { 200 }), None);
        assert_eq!(bench.wire.len(), 1 + resends);
    }
    let ids = |bench: &Bench| -> Vec<i64> {
        let correlation = |sent: &Sent| match sent {
            Sent::Attach { correlation, .. } => *correlation,
            other => panic!("{other:?}"),
        };
        bench.wire.iter().map(correlation).collect()
    };
    assert!(ids(&bench).iter().all(|id| *id == first), "{:?}", ids(&bench));
    assert_eq!(bench.after(200), None);
    assert!(bench.is_backing_off(), "five seconds without an answer");
    assert_eq!(bench.respond(&response(first)), None, "the id is abandoned");
    assert!(!bench.is_attached());
    let second = bench.attach();
    assert!(second > first, "{second} after {first}");
    assert_eq!(bench.respond(&response(first)), None, "still abandoned");
    assert!(bench.respond(&response(second)).is_some());
}

/// Ids of two machines differ although each counts by itself.
/// Rules: TP-290.
#[test]
fn correlation_ids_start_at_random() {
    let start =
        |random| LeaseMachine::new(request(Role::Consumer, None), &Context::default(), random).correlation;
    assert_ne!(start(Random::new()), start(Random::new()));
    for seed in 0..100 {
        let id = start(Random::seeded(seed));
        assert!((0..i64::MAX / 2).contains(&id), "{id} leaves room to count");
    }
}

/// Rules: TP-292.
#[test]
fn an_automatic_client_id_is_random_and_never_null() {
    let ids: std::collections::BTreeSet<u32> = (0..100)
        .map(|seed| {
            let mut bench = Bench::seeded(request(Role::Consumer, None), seed * 7919);
            bench.attach();
            match bench.wire[0] {
                Sent::Attach { client, .. } => client,
                ref other => panic!("{other:?}"),
            }
        })
        .collect();
    assert!(ids.len() > 45, "only {} different ids", ids.len());
    assert!(!ids.contains(&0) && !ids.contains(&u32::MAX));
}

/// Row "OK response passing 16.2".
#[test]
fn a_grant_carries_what_the_driver_said() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let correlation = bench.attach();
    let Some(LeaseEvent::Granted(grant)) = bench.respond(&response(correlation)) else { panic!("no grant") };
    assert_eq!(
        (grant.lease, grant.stream, grant.client),
        (LeaseId::new(LEASE), StreamId::new(STREAM), ClientId::new(CLIENT))
    );
    assert_eq!(grant.node, Some(NodeId::new(3)));
    assert_eq!(grant.regions.epoch().get(), EPOCH);
    assert_eq!(bench.machine.grant(), Some(&grant));
}

/// Rules: TP-291, TC-094.
#[test]
fn what_follows_an_accepted_ok_is_ignored() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let correlation = bench.attach();
    assert!(bench.respond(&response(correlation)).is_some());
    assert_eq!(bench.respond(&refusal(correlation, ResponseCode::Rejected, ALREADY_ATTACHED)), None);
    let other = ShmAttachResponse { lease_id: Some(LEASE + 1), ..response(correlation) };
    assert_eq!(bench.respond(&other), None);
    assert_eq!(bench.machine.grant().unwrap().lease, LeaseId::new(LEASE));
}

#[test]
fn an_answer_to_somebody_else_is_ignored() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let correlation = bench.attach();
    assert_eq!(bench.respond(&response(correlation + 1)), None);
    assert_eq!(bench.respond(&refusal(correlation - 1, ResponseCode::InvalidParams, "no")), None);
    assert!(!bench.is_attached() && !bench.is_backing_off());
}

/// Every line of table 16.2 that is a protocol error: nothing is accepted, the lease is handed back, and the client asks
/// anew after backoff.
/// Rules: TP-289, TC-106.
#[test]
fn a_malformed_grant_is_handed_back() {
    type Break = fn(&mut ShmAttachResponse<'static>);
    let cases: [(&str, Break); 22] = [
        ("null stream", |it| it.stream_id = None),
        ("null epoch", |it| it.epoch = None),
        ("epoch 0", |it| it.epoch = Some(0)),
        ("null layout", |it| it.layout_version = None),
        ("layout 2", |it| it.layout_version = Some(2)),
        ("null slots", |it| it.header_nslots = None),
        ("6 slots", |it| it.header_nslots = Some(6)),
        ("0 slots", |it| it.header_nslots = Some(0)),
        ("null slot bytes", |it| it.header_slot_bytes = None),
        ("slot bytes 128", |it| it.header_slot_bytes = Some(128)),
        ("no pools", |it| it.payload_pools.clear()),
        ("pool of 16 slots", |it| it.payload_pools[0].pool_nslots = 16),
        ("stride 100", |it| it.payload_pools[0].stride_bytes = 100),
        ("stride 0", |it| it.payload_pools[0].stride_bytes = 0),
        ("empty pool URI", |it| it.payload_pools[0].region_uri = "".into()),
        ("blank pool URI", |it| it.payload_pools[0].region_uri = "  ".into()),
        ("empty header URI", |it| it.header_region_uri = "".into()),
        ("relative header URI", |it| it.header_region_uri = "shm:file?path=a/b".into()),
        ("twice one pool id", |it| {
            let again = it.payload_pools[0];
            it.payload_pools.push(again);
        }),
        ("another stream", |it| it.stream_id = Some(STREAM + 1)),
        ("deadline now", |it| it.lease_expiry_timestamp_ns = Some(Nanos::from_secs(100).as_u64())),
        ("deadline long past", |it| it.lease_expiry_timestamp_ns = Some(0)),
    ];
    for (what, break_it) in cases {
        let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
        let correlation = bench.attach();
        bench.wire.clear();
        let mut answer = response(correlation);
        break_it(&mut answer);
        let event = bench.respond(&answer);
        assert!(matches!(event, Some(LeaseEvent::Malformed(_))), "{what}: {event:?}");
        assert!(!bench.is_attached(), "{what}");
        let [Sent::Detach { lease: LEASE, stream, client: CLIENT, role: Role::Consumer, .. }] =
            bench.wire[..]
        else {
            panic!("{what}: {:?}", bench.wire);
        };
        assert_eq!(stream, answer.stream_id.unwrap_or(STREAM), "{what}");
        let again = bench.attach();
        assert!(again > correlation, "{what}");
    }
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let correlation = bench.attach();
    bench.wire.clear();
    let event = bench.respond(&ShmAttachResponse { lease_id: None, ..response(correlation) });
    assert_eq!(event, Some(LeaseEvent::Malformed(MalformedGrant::NoLease)));
    assert!(bench.wire.is_empty() && bench.is_backing_off(), "there is nothing to hand back");
}

/// A client that lets the driver create the stream takes the stream it was given.
#[test]
fn a_created_stream_may_have_another_id() {
    let mut bench = Bench::new(request(Role::Producer, Some(CLIENT)));
    let correlation = bench.attach();
    let event = bench.respond(&ShmAttachResponse { stream_id: Some(20_001), ..response(correlation) });
    let Some(LeaseEvent::Granted(grant)) = event else { panic!("{event:?}") };
    assert_eq!(grant.stream, StreamId::new(20_001));
}

/// Rules: TC-107.
#[test]
fn a_node_id_out_of_range_is_not_used_but_the_lease_is() {
    for (id, used) in
        [(Some(70_000), None), (Some(0), None), (Some(1024), None), (None, None), (Some(1023), Some(1023))]
    {
        let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
        let correlation = bench.attach();
        let event = bench.respond(&ShmAttachResponse { node_id: id, ..response(correlation) });
        let Some(LeaseEvent::Granted(grant)) = event else { panic!("{id:?}: {event:?}") };
        assert_eq!(grant.node, used.map(NodeId::new), "{id:?}");
    }
}

/// Row "non-OK": reported once, then backoff, then a new id. No hot loop.
/// Rules: TC-097.
#[test]
fn a_refusal_is_reported_and_followed_by_a_growing_pause() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let mut last = 0;
    for failures in 0..8u32 {
        let correlation = bench.attach();
        assert!(correlation > last);
        last = correlation;
        let event = bench.respond(&refusal(correlation, ResponseCode::Unsupported, "no"));
        let expected = Refusal { code: RefusalCode::Unsupported, message: "no".to_owned() };
        assert_eq!(event, Some(LeaseEvent::Refused(expected)));
        let State::Backoff { until } = bench.machine.state else { panic!("{:?}", bench.machine.state) };
        let pause = until.saturating_sub(bench.now);
        let around = 100_000_000u64 << failures.min(5);
        assert!(
            (around * 8 / 10..=around * 12 / 10).contains(&pause.as_u64()),
            "{pause:?} after {failures} failures"
        );
        bench.wire.clear();
        bench.now = until.saturating_sub(Nanos(1));
        assert_eq!(bench.tick(), None);
        assert!(bench.wire.is_empty(), "still pausing");
    }
}

/// Rules: TP-153.
#[test]
fn refusal_codes_keep_their_meaning() {
    for (wire, code) in [
        (ResponseCode::Unsupported, RefusalCode::Unsupported),
        (ResponseCode::InvalidParams, RefusalCode::InvalidParams),
        (ResponseCode::Rejected, RefusalCode::Rejected),
        (ResponseCode::InternalError, RefusalCode::InternalError),
    ] {
        let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
        let correlation = bench.attach();
        let event = bench.respond(&refusal(correlation, wire, "why"));
        assert_eq!(event, Some(LeaseEvent::Refused(Refusal { code, message: "why".to_owned() })));
        assert!(bench.is_backing_off(), "{code:?}: tried again after backoff");
    }
}

/// Rules: TP-293, TC-096.
#[test]
fn a_taken_automatic_id_is_replaced_silently() {
    let mut bench = Bench::new(request(Role::Consumer, None));
    let first = bench.attach();
    let taken = bench.machine.client();
    assert_eq!(bench.respond(&refusal(first, ResponseCode::Rejected, ALREADY_ATTACHED)), None);
    assert!(bench.is_backing_off());
    assert_ne!(bench.machine.client(), taken);
    let second = bench.attach();
    assert!(second > first);
    assert!(
        matches!(bench.wire[..], [Sent::Attach { client, .. }] if client == bench.machine.client().get())
    );
    let event = bench.respond(&response(second));
    assert!(matches!(event, Some(LeaseEvent::Granted(grant)) if grant.client == bench.machine.client()));
}

/// Only the exact text counts (IP-49).
/// Rules: TP-293.
#[test]
fn another_rejection_does_not_change_the_automatic_id() {
    let mut bench = Bench::new(request(Role::Consumer, None));
    let correlation = bench.attach();
    let id = bench.machine.client();
    let event = bench.respond(&refusal(correlation, ResponseCode::Rejected, "client_id already attached!"));
    assert!(matches!(event, Some(LeaseEvent::Refused(_))), "{event:?}");
    let second = bench.attach();
    let event = bench.respond(&refusal(second, ResponseCode::InvalidParams, ALREADY_ATTACHED));
    assert!(matches!(event, Some(LeaseEvent::Refused(_))), "{event:?}");
    assert_eq!(bench.machine.client(), id);
}

/// With a fixed id the refusal surfaces, but only after the lease that may stand in the way must have ended.
/// Rules: TP-293, TP-491, TC-097.
#[test]
fn a_taken_fixed_id_surfaces_after_one_lease_duration() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let begun = bench.now;
    let lease = Context::default().lease_duration();
    let mut attempts = 0;
    let surfaced = loop {
        let correlation = bench.attach();
        attempts += 1;
        assert!(attempts < 20, "retries without pause");
        match bench.respond(&refusal(correlation, ResponseCode::Rejected, ALREADY_ATTACHED)) {
            None => {}
            Some(LeaseEvent::Refused(refusal)) if refusal.message == ALREADY_ATTACHED => break bench.now,
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.machine.client(), ClientId::new(CLIENT));
    };
    let waited = Duration::from(surfaced.saturating_sub(begun));
    assert!(waited >= lease, "reported after {waited:?}");
    assert!(waited <= 3 * lease, "reported only after {waited:?}");
}

/// Rules: TP-491, TC-211.
#[test]
fn a_fixed_id_survives_the_loss_of_its_first_answer() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let begun = bench.now;
    // The driver granted a lease whose answer was lost; it ends by itself three seconds later.
    let expiry = begun.saturating_add(Context::default().lease_duration().into());
    loop {
        let correlation = bench.attach();
        if bench.now >= expiry {
            assert!(matches!(bench.respond(&response(correlation)), Some(LeaseEvent::Granted(_))));
            break;
        }
        assert_eq!(bench.respond(&refusal(correlation, ResponseCode::Rejected, ALREADY_ATTACHED)), None);
    }
    let longest_pause = Duration::from_millis(3_840);
    assert!(Duration::from(bench.now.saturating_sub(expiry)) <= longest_pause);
}

/// Row "keepalive timer", with every field filled (IP-45): the first one at once, then one per interval.
/// Rules: TP-295.
#[test]
fn keepalives_begin_at_once_and_keep_their_interval() {
    let mut bench = Bench::new(request(Role::Producer, Some(CLIENT)));
    let correlation = bench.attach();
    assert!(bench.respond(&response(correlation)).is_some());
    bench.wire.clear();
    assert_eq!(bench.tick(), None);
    let keepalive = Sent::Keepalive { lease: LEASE, stream: STREAM, client: CLIENT, role: Role::Producer };
    assert_eq!(bench.wire, std::slice::from_ref(&keepalive));
    assert_eq!(bench.after(999), None);
    assert_eq!(bench.wire.len(), 1);
    assert_eq!(bench.after(1), None);
    assert_eq!(bench.wire, [keepalive.clone(), keepalive]);
}

/// The driver's own deadline binds until the first keepalive was sent; then the last keepalive counts.
/// Rules: TP-025, TP-295.
#[test]
fn the_first_deadline_is_the_drivers() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let correlation = bench.attach();
    let expiry = bench.now.saturating_add(Nanos::from_millis(700));
    let answer =
        ShmAttachResponse { lease_expiry_timestamp_ns: Some(expiry.as_u64()), ..response(correlation) };
    assert!(bench.respond(&answer).is_some());
    assert_eq!(bench.machine.deadline(), Some(expiry));
    let mut silent = Bench { machine: bench.machine, wire: Vec::new(), connected: false, now: bench.now };
    assert_eq!(silent.after(699), None);
    silent.connected = true;
    assert_eq!(silent.tick(), None);
    let renewed = silent.now.saturating_add(Nanos::from_secs(3));
    assert_eq!(silent.machine.deadline(), Some(renewed));
    silent.connected = false;
    let event = silent.run(3_000);
    assert_eq!(event, Some(LeaseEvent::Lost(LeaseLoss::KeepaliveFailed)));
    assert_eq!(silent.now, renewed);
}

/// A driver that promises more than interval times grace does not get the client to believe it.
#[test]
fn a_far_deadline_is_cut_to_one_lease_duration() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    let correlation = bench.attach();
    let answer = ShmAttachResponse { lease_expiry_timestamp_ns: Some(u64::MAX - 1), ..response(correlation) };
    assert!(bench.respond(&answer).is_some());
    assert_eq!(bench.machine.deadline(), Some(bench.now.saturating_add(Nanos::from_secs(3))));
}

/// Row "keepalive cannot be sent for grace x interval": tried again each cycle, then the lease is over, and handed back
/// before a new one is asked for.
/// Rules: TP-296, TP-493.
#[test]
fn keepalives_that_do_not_go_out_end_the_lease() {
    let mut bench = Bench::attached();
    bench.connected = false;
    assert_eq!(bench.run(2_990), None);
    assert!(bench.is_attached());
    bench.connected = true;
    assert_eq!(bench.tick(), None);
    assert_eq!(bench.wire.len(), 1, "as soon as it can, a keepalive goes out");
    bench.wire.clear();
    bench.connected = false;
    assert_eq!(bench.run(2_990), None);
    assert_eq!(bench.run(10), Some(LeaseEvent::Lost(LeaseLoss::KeepaliveFailed)));
    assert!(!bench.is_attached());
    bench.connected = true;
    assert_eq!(bench.run(300), None);
    assert!(matches!(bench.wire[..], [Sent::Detach { lease: LEASE, .. }, ..]), "{:?}", bench.wire);
    assert!(!bench.wire.iter().any(|sent| matches!(sent, Sent::Attach { .. })), "{:?}", bench.wire);
}

/// A process that slept past its deadline does not extend the lease by a late keepalive.
/// Rules: TP-296.
#[test]
fn a_keepalive_after_the_deadline_is_not_sent() {
    let mut bench = Bench::attached();
    assert_eq!(bench.after(60_000), Some(LeaseEvent::Lost(LeaseLoss::KeepaliveFailed)));
    assert!(matches!(bench.wire[..], [Sent::Detach { .. }]), "{:?}", bench.wire);
}

/// Row "Revoked for own lease". Duplicates change nothing.
/// Rules: TP-298, TP-302.
#[test]
fn a_notice_for_the_own_lease_ends_it_once() {
    let mut bench = Bench::attached();
    let notice = Message::ShmLeaseRevoked(revoked(LEASE, STREAM, CLIENT, Role::Consumer));
    let event = bench.message(&notice);
    assert!(matches!(event, Some(LeaseEvent::Lost(LeaseLoss::Revoked { .. }))), "{event:?}");
    assert!(bench.is_backing_off());
    for _ in 0..3 {
        assert_eq!(bench.message(&notice), None);
    }
    let correlation = bench.attach();
    assert!(
        bench.wire.iter().all(|sent| matches!(sent, Sent::Attach { .. })),
        "nothing is left to hand back"
    );
    assert_eq!(bench.message(&notice), None, "a late duplicate does not disturb the next attach");
    let answer = ShmAttachResponse { lease_id: Some(LEASE + 1), ..response(correlation) };
    assert!(bench.respond(&answer).is_some());
    assert_eq!(bench.message(&notice), None, "nor the next lease");
    assert!(bench.is_attached());
}

/// All four fields must match.
/// Rules: TP-298, TP-300, TC-116.
#[test]
fn a_notice_for_another_lease_is_ignored() {
    for notice in [
        revoked(LEASE + 1, STREAM, CLIENT, Role::Consumer),
        revoked(LEASE, STREAM + 1, CLIENT, Role::Consumer),
        revoked(LEASE, STREAM, CLIENT + 1, Role::Consumer),
        revoked(LEASE, STREAM, CLIENT, Role::Producer),
    ] {
        let mut bench = Bench::attached();
        assert_eq!(bench.message(&Message::ShmLeaseRevoked(notice)), None, "{notice:?}");
        assert!(bench.is_attached(), "{notice:?}");
    }
}

/// Row "any, ShmDriverShutdown", known reason or not.
/// Rules: TP-304.
#[test]
fn a_shutdown_ends_the_lease_whatever_its_reason() {
    for reason in [0, 1, 2, 9] {
        let mut bench = Bench::attached();
        let notice =
            ShmDriverShutdown { timestamp_ns: 0, reason: Open::from_raw(reason), error_message: "".into() };
        let event = bench.message(&Message::ShmDriverShutdown(notice));
        assert_eq!(event, Some(LeaseEvent::Lost(LeaseLoss::Shutdown)), "{reason}");
        assert!(bench.is_backing_off());
        let correlation = bench.attach();
        assert_eq!(bench.message(&Message::ShmDriverShutdown(notice)), None);
        assert!(bench.is_backing_off(), "an outstanding request is void as well");
        assert_eq!(bench.respond(&response(correlation)), None);
    }
}

/// Rows "user close" and "DETACHING": one detach, resent, given up after a second.
/// Rules: TP-308.
#[test]
fn closing_hands_the_lease_back_and_waits_a_second_at_most() {
    let mut answered = Bench::attached();
    assert_eq!(answered.close(), Some(LeaseEvent::Lost(LeaseLoss::Released)));
    assert!(!answered.is_attached(), "nothing is written any more");
    let [Sent::Detach { correlation, lease: LEASE, stream: STREAM, client: CLIENT, role: Role::Consumer }] =
        answered.wire[..]
    else {
        panic!("{:?}", answered.wire)
    };
    let response = |correlation_id| {
        let error_message = "".into();
        Message::ShmDetachResponse(ShmDetachResponse {
            correlation_id,
            code: ResponseCode::Ok,
            error_message,
        })
    };
    assert_eq!(answered.message(&response(correlation + 1)), None, "for somebody else");
    assert_eq!(answered.message(&response(correlation)), Some(LeaseEvent::Closed));
    assert_eq!(answered.run(10_000), None);
    assert_eq!(answered.wire.len(), 1, "nothing is asked for any more");

    let mut silent = Bench::attached();
    silent.close();
    assert_eq!(silent.run(990), None);
    assert_eq!(silent.run(10), Some(LeaseEvent::Closed));
    let mut ids: Vec<i64> = silent
        .wire
        .iter()
        .map(|sent| match sent {
            Sent::Detach { correlation, .. } => *correlation,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(ids.len() > 1, "resent");
    ids.dedup();
    assert_eq!(ids.len(), 1, "under one id");
}

/// A machine that is closed says so again when asked again, so that nobody waits for it for ever.
#[test]
fn closing_without_a_lease_is_immediate_and_repeatable() {
    let mut fresh = Bench::new(request(Role::Consumer, None));
    assert_eq!(fresh.close(), Some(LeaseEvent::Closed));
    assert_eq!(fresh.close(), Some(LeaseEvent::Closed));
    let mut attaching = Bench::new(request(Role::Consumer, None));
    let correlation = attaching.attach();
    assert_eq!(attaching.close(), Some(LeaseEvent::Closed));
    assert_eq!(attaching.respond(&response(correlation)), None);
    assert_eq!(attaching.run(10_000), None);
    assert_eq!(attaching.wire.len(), 1);
}

/// A lease that is given up is handed back first, with the answer awaited for a second at most, and the same id used again.
/// Rules: TP-493.
#[test]
fn a_renewal_detaches_before_it_attaches() {
    for answered in [true, false] {
        let mut bench = Bench::attached();
        let event = {
            let (machine, wire) = (&mut bench.machine, &mut bench.wire);
            machine.renew(LeaseLoss::DriverSilent, bench.now, &mut |bytes| record(wire, bytes))
        };
        assert_eq!(event, Some(LeaseEvent::Lost(LeaseLoss::DriverSilent)));
        let Sent::Detach { correlation, .. } = bench.wire[0] else { panic!("{:?}", bench.wire) };
        if answered {
            let response = ShmDetachResponse {
                correlation_id: correlation,
                code: ResponseCode::Rejected,
                error_message: "unknown lease".into(),
            };
            assert_eq!(bench.message(&Message::ShmDetachResponse(response)), None);
            assert!(bench.is_backing_off(), "there is nothing left to hand back");
        } else {
            assert_eq!(bench.run(990), None);
            assert!(bench.wire.iter().all(|sent| matches!(sent, Sent::Detach { .. })), "{:?}", bench.wire);
            assert_eq!(bench.run(10), None);
            assert!(bench.is_backing_off());
        }
        bench.attach();
        assert!(matches!(bench.wire[..], [Sent::Attach { client: CLIENT, .. }]));
    }
}

#[test]
fn closing_while_handing_back_ends_for_good() {
    let mut bench = Bench::attached();
    assert!(bench.after(60_000).is_some());
    assert_eq!(bench.close(), None);
    assert_eq!(bench.run(1_000), Some(LeaseEvent::Closed));
}

#[test]
fn a_lost_transport_voids_the_lease_without_a_detach() {
    let mut bench = Bench::attached();
    let event = bench.machine.on_transport_lost(bench.now);
    assert_eq!(event, Some(LeaseEvent::Lost(LeaseLoss::TransportLost)));
    assert!(bench.is_backing_off() && bench.wire.is_empty());
    let mut closing = Bench::attached();
    closing.close();
    assert_eq!(closing.machine.on_transport_lost(closing.now), Some(LeaseEvent::Closed));
    let mut attaching = Bench::new(request(Role::Consumer, None));
    let correlation = attaching.attach();
    assert_eq!(attaching.machine.on_transport_lost(attaching.now), None);
    assert_eq!(attaching.respond(&response(correlation)), None, "the request died with the connection");
}

/// Success ends the series of pauses.
#[test]
fn a_grant_resets_the_backoff() {
    let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
    for _ in 0..6 {
        let correlation = bench.attach();
        bench.respond(&refusal(correlation, ResponseCode::InternalError, "later"));
    }
    let correlation = bench.attach();
    assert!(bench.respond(&response(correlation)).is_some());
    let notice = revoked(LEASE, STREAM, CLIENT, Role::Consumer);
    bench.message(&Message::ShmLeaseRevoked(notice));
    let State::Backoff { until } = bench.machine.state else { panic!("{:?}", bench.machine.state) };
    assert!(until.saturating_sub(bench.now) <= Nanos::from_millis(120));
}
