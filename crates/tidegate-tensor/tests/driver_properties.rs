//! Random histories: whatever clients send and however time passes, the driver keeps its promises and never panics.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod driver_support;

use std::collections::{BTreeMap, BTreeSet};

use driver_support::*;
use proptest::prelude::*;
use tidegate_sbe::Open;
use tidegate_sbe::driver::{
    ResponseCode, Role, ShmAttachRequest, ShmDetachRequest, ShmDriverShutdownRequest, ShmLeaseKeepalive,
};
use tidegate_tensor::ids::{self, LeaseId};

/// One thing that happens. Small numbers, so that histories meet: the same clients, streams and leases come again.
#[derive(Debug, Clone)]
enum Event {
    Attach {
        client: u32,
        role: u8,
        stream: u8,
        mode: Option<u8>,
        layout: u32,
        pages: u8,
        node: Option<u32>,
        again: bool,
    },
    Detach {
        lease: u8,
        wrong: u8,
    },
    Keepalive {
        lease: u8,
        wrong: u8,
    },
    Revoke {
        lease: u8,
    },
    Shutdown {
        token: u8,
    },
    /// A valid message with a byte changed or cut short.
    Broken {
        of: u8,
        at: usize,
        byte: u8,
        len: usize,
    },
    Noise(Vec<u8>),
    Step(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let mostly = |usual: u8, odd: u8| prop_oneof![9 => Just(usual), 1 => Just(odd)];
    let attach = (
        prop_oneof![20 => 1..12_u32, 1 => Just(0)],
        prop_oneof![9 => 1..=2_u8, 1 => any::<u8>()],
        0..6_u8,
        prop_oneof![1 => Just(None), 3 => Just(Some(1)), 8 => Just(Some(2)), 1 => any::<u8>().prop_map(Some)],
        prop_oneof![9 => 0..=1_u32, 1 => Just(2)],
        mostly(0, 2),
        prop_oneof![4 => Just(None), 1 => (0..6_u32).prop_map(Some)],
        prop::bool::weighted(0.1),
    )
        .prop_map(|(client, role, stream, mode, layout, pages, node, again)| Event::Attach {
            client,
            role,
            stream,
            mode,
            layout,
            pages,
            node,
            again,
        });
    prop_oneof![
        8 => attach,
        4 => (any::<u8>(), mostly(0, 3)).prop_map(|(lease, wrong)| Event::Detach { lease, wrong }),
        8 => (any::<u8>(), mostly(0, 2)).prop_map(|(lease, wrong)| Event::Keepalive { lease, wrong }),
        1 => any::<u8>().prop_map(|lease| Event::Revoke { lease }),
        1 => (0..20_u8).prop_map(|token| Event::Shutdown { token }),
        3 => (any::<u8>(), any::<usize>(), any::<u8>(), any::<usize>())
            .prop_map(|(of, at, byte, len)| Event::Broken { of, at, byte, len }),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Event::Noise),
        8 => prop_oneof![Just(0), 1..200_u64, 200..4_000_u64].prop_map(Event::Step),
    ]
}

/// What a careful observer of both streams knows.
#[derive(Default)]
struct Observer {
    /// Granted and not yet revoked.
    active: BTreeMap<u64, (u32, Role, u32)>,
    /// Every lease ever granted, by the request that got it.
    granted: BTreeMap<u64, (u32, i64)>,
    epochs: BTreeMap<u32, u64>,
    /// Client and role, which a grant alone does not tell.
    asked: BTreeMap<i64, (u32, Role)>,
    ended: bool,
}

impl Observer {
    fn watch(&mut self, sent: &[Sent]) {
        for message in sent {
            assert!(!self.ended, "nothing follows the shutdown notice");
            match message {
                Sent::Attach(answer) if answer.code == ResponseCode::Ok => self.on_grant(answer),
                Sent::Attach(answer) => assert!(answer.lease.is_none()),
                Sent::Revoked { lease, stream, client, role, .. } => {
                    assert_eq!(
                        self.active.remove(lease),
                        Some((*client, *role, *stream)),
                        "one notice per lease"
                    );
                }
                Sent::Announce(announce) => self.on_epoch(announce.stream, announce.epoch),
                Sent::Shutdown { .. } => self.ended = true,
                Sent::Detach { .. } => {}
            }
        }
    }

    fn on_grant(&mut self, answer: &Answer) {
        let (client, role) = self.asked[&answer.correlation];
        let lease = answer.lease.unwrap();
        let request = (client, answer.correlation);
        if let Some(before) = self.granted.insert(lease, request) {
            assert_eq!(before, request, "a lease id is given out once");
            return;
        }
        let stream = answer.stream.unwrap();
        assert!(self.active.values().all(|(other, _, _)| *other != client), "one lease per client");
        let has_producer = self.active.values().any(|(_, role, on)| (*role, *on) == (Role::Producer, stream));
        assert!(role == Role::Consumer || !has_producer, "one producer per stream");
        if role == Role::Producer {
            assert!(answer.epoch > self.epochs.get(&stream).copied(), "a producer starts in a new epoch");
        }
        self.on_epoch(stream, answer.epoch.unwrap());
        self.active.insert(lease, (client, role, stream));
    }

    fn on_epoch(&mut self, stream: u32, epoch: u64) {
        let known = self.epochs.entry(stream).or_default();
        assert!(epoch != 0 && epoch >= *known, "epochs never go back");
        *known = epoch;
    }
}

struct History {
    rig: Rig,
    observer: Observer,
    correlation: i64,
    last_request: Option<ShmAttachRequest>,
}

impl History {
    fn new() -> Self {
        Self { rig: Rig::new(), observer: Observer::default(), correlation: 1, last_request: None }
    }

    fn run(&mut self, event: &Event) {
        let sent = match event {
            Event::Step(milliseconds) => self.rig.step(*milliseconds),
            Event::Revoke { lease } => {
                let (id, _) = self.lease(*lease);
                self.rig.driver.revoke(LeaseId::new(id), "test", self.rig.now);
                self.rig.outgoing()
            }
            Event::Noise(bytes) => self.rig.send(bytes),
            other => {
                let bytes = self.message(other);
                self.rig.send(&bytes)
            }
        };
        self.observer.watch(&sent);
        self.check();
    }

    fn message(&mut self, event: &Event) -> Vec<u8> {
        match event {
            Event::Attach { client, role, stream, mode, layout, pages, node, again } => {
                if let Some(request) = self.last_request.filter(|_| *again) {
                    return request.to_vec().unwrap();
                }
                self.correlation += 1;
                let request = ShmAttachRequest {
                    correlation_id: self.correlation,
                    stream_id: [CAM, 0, 20_000, 20_001, 5, 20_019][usize::from(*stream)],
                    client_id: *client,
                    role: Open::from_raw(*role),
                    expected_layout_version: *layout,
                    publish_mode: mode.filter(|mode| *mode != 255).map(Open::from_raw),
                    require_hugepages: Open::from_raw(*pages),
                    desired_node_id: *node,
                };
                if let Some(role) = request.role.listed() {
                    self.observer.asked.insert(self.correlation, (*client, role));
                }
                self.last_request = Some(request);
                request.to_vec().unwrap()
            }
            Event::Detach { lease, wrong } => {
                let (lease_id, (client_id, role, stream_id)) = self.lease(*lease);
                let request = ShmDetachRequest {
                    correlation_id: 0,
                    lease_id: lease_id ^ u64::from(wrong & 1),
                    stream_id,
                    client_id: client_id ^ u32::from(wrong & 2),
                    role: role.into(),
                };
                request.to_vec().unwrap()
            }
            Event::Keepalive { lease, wrong } => {
                let (lease_id, (client_id, role, stream_id)) = self.lease(*lease);
                let stream_id = stream_id ^ u32::from(*wrong);
                let keepalive =
                    ShmLeaseKeepalive { lease_id, stream_id, client_id, role, client_timestamp_ns: 0 };
                keepalive.to_vec().unwrap()
            }
            Event::Shutdown { token } => {
                let token = if *token == 0 { TOKEN } else { "wrong" };
                let request = ShmDriverShutdownRequest {
                    correlation_id: 0,
                    reason: Open::from_raw(1),
                    token: token.into(),
                    error_message: "".into(),
                };
                request.to_vec().unwrap()
            }
            Event::Broken { of, at, byte, len } => {
                let whole = match of % 3 {
                    0 => Event::Keepalive { lease: of / 3, wrong: 0 },
                    1 => Event::Detach { lease: of / 3, wrong: 0 },
                    _ => Event::Shutdown { token: of / 3 },
                };
                let mut bytes = self.message(&whole);
                let at = at % bytes.len();
                bytes[at] = *byte;
                bytes.truncate(len % (bytes.len() * 4));
                bytes
            }
            Event::Step(_) | Event::Revoke { .. } | Event::Noise(_) => Vec::new(),
        }
    }

    /// An active lease if there is one, else one that never was.
    fn lease(&self, number: u8) -> (u64, (u32, Role, u32)) {
        let active = &self.observer.active;
        let index = usize::from(number) % active.len().max(1);
        active.iter().nth(index).map_or((4, (4, Role::Consumer, CAM)), |(id, rest)| (*id, *rest))
    }

    /// The driver's own view agrees with the observer's, and with the disk.
    fn check(&self) {
        let snapshot = self.rig.driver.snapshot(self.rig.now);
        let leases: BTreeMap<_, _> = snapshot
            .leases
            .iter()
            .map(|lease| (lease.id.get(), (lease.client.get(), lease.role, lease.stream.get())))
            .collect();
        let expected = self.observer.active.iter();
        let expected = expected.map(|(id, (client, role, stream))| (*id, (*client, held(*role), *stream)));
        assert_eq!(leases, expected.collect::<BTreeMap<_, _>>());
        let nodes: BTreeSet<_> = snapshot.leases.iter().map(|lease| lease.node.unwrap()).collect();
        assert_eq!(nodes.len(), snapshot.leases.len(), "a node id is held once");
        let mut on_disk = 0;
        for stream in &snapshot.streams {
            let dirs = self.rig.epoch_dirs(stream.id.get());
            on_disk += dirs.len() as u64;
            let Some(header) = &stream.header_path else {
                assert_eq!(stream.epoch.get(), 0);
                continue;
            };
            assert!(header.exists() && dirs.contains(&stream.epoch.get()));
            for lease in snapshot.leases.iter().filter(|lease| lease.stream == stream.id) {
                assert!(dirs.contains(&lease.epoch.get()), "a leased epoch stays");
            }
        }
        let counters = snapshot.counters;
        assert_eq!(on_disk, counters.epochs_created - counters.epochs_collected, "no leftovers");
        let ended = counters.leases_detached + counters.leases_expired + counters.leases_revoked;
        assert_eq!(counters.attaches_ok - ended, snapshot.leases.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rules: TP-122, TP-124, TP-239, TP-252, TP-253, TP-254, TP-260, TP-261, TP-273.
    #[test]
    fn promises_hold_in_every_history(events in prop::collection::vec(event(), 1..120)) {
        let mut history = History::new();
        for event in &events {
            history.run(event);
        }
        // In the end every lease runs out, with its notice.
        for _ in 0..40 {
            history.run(&Event::Step(100));
        }
        if !history.observer.ended {
            prop_assert!(history.observer.active.is_empty());
        }
    }
}

fn held(role: Role) -> ids::Role {
    match role {
        Role::Producer => ids::Role::Producer,
        Role::Consumer => ids::Role::Consumer,
    }
}
