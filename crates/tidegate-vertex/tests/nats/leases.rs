//! Leases of sessions, as the threads of a member keep and end them.

use tidegate_shm::{
    clock::{Nanos, boottime_now},
    sync::Arc,
};
use tidegate_udf::wire::ids::PartitionId;
use tidegate_vertex::{
    fence::{FenceTable, WriteGuard, WriteKind},
    nats::{
        Endpoint,
        own::{JetStream, Settings},
    },
    own::{Known, Manager},
};

use crate::server::Server;
use rustix::process::Signal;

const PARTITION: PartitionId = PartitionId(0);
/// So long that a busy machine renews it in time.
const LEASE: Nanos = Nanos::from_secs(6);

fn member(server: &Server) -> JetStream {
    let settings = Settings {
        uid: 0xaa,
        pipeline: "orders-enrich".to_owned(),
        endpoint: Endpoint::open(&server.url()),
        instance: "a".to_owned(),
        lease: LEASE,
        rebalance: LEASE,
        pins: None,
        partitions: 1,
        capacity: 1,
        accept_regression: false,
    };
    JetStream::start(settings).unwrap()
}

/// A session that may write, and the latest that its first deadline can be.
fn begin(member: &JetStream, table: &mut FenceTable) -> (WriteGuard, Nanos) {
    let (tell, told) = std::sync::mpsc::channel();
    member.watch(Arc::new(move || tell.send(()).unwrap_or(())));
    let claimed = loop {
        match member.acquire(PARTITION, 1, &Known::default()).unwrap() {
            Some(claimed) => break claimed,
            None => told.recv().unwrap(),
        }
    };
    let latest = boottime_now().saturating_add(LEASE);
    let (_, guard) = table.bind(PARTITION, claimed.generation).unwrap();
    assert_eq!(guard.lease_left(), None);
    member.begun(PARTITION, &guard);
    (guard, latest)
}

/// Rules: VX-716, VX-719.
#[test]
fn a_lease_is_renewed_as_long_as_its_session_lives() {
    let server = Server::start();
    let mut table = FenceTable::create(1, 1).unwrap();
    let member = member(&server);
    let (guard, first) = begin(&member, &mut table);
    loop {
        assert!(!guard.is_revoked(), "nobody renewed it");
        let left = guard.lease_left().unwrap();
        if boottime_now().saturating_add(left) > first {
            break;
        }
        std::thread::sleep(Nanos::from_millis(10).into());
    }
    drop(guard.permit(WriteKind::Sink).unwrap());
    member.release(PARTITION, guard.generation());
    member.leave();
}

/// The deadline is in the guard from the first moment, so that a process which was stopped refuses its own first write; and what
/// has run out is revoked without anybody writing.
/// Cases: CT-37.
/// Rules: VX-716, VX-719, VX-865.
#[test]
fn a_session_whose_store_is_silent_ends_at_its_deadline() {
    let server = Server::start();
    let mut table = FenceTable::create(1, 1).unwrap();
    let member = member(&server);
    let (guard, _) = begin(&member, &mut table);
    assert!(guard.lease_left().is_some_and(|left| left <= LEASE), "{:?}", guard.lease_left());
    server.signal(Signal::STOP);
    let mut deadline = Nanos::ZERO;
    while !guard.is_revoked() {
        // A write that had arrived before may still extend it.
        deadline = boottime_now().saturating_add(guard.lease_left().unwrap());
        std::thread::sleep(Nanos::from_millis(10).into());
    }
    let permit = guard.permit(WriteKind::Sink);
    assert!(boottime_now() >= deadline.saturating_sub(Nanos::from_millis(1)), "not before the deadline");
    assert!(permit.is_err());
    // A member that does not see the store is none that could take over.
    while member.is_watching() {
        std::thread::sleep(Nanos::from_millis(10).into());
    }
    server.signal(Signal::CONT);
    while !member.is_watching() {
        std::thread::sleep(Nanos::from_millis(10).into());
    }
    member.release(PARTITION, guard.generation());
    member.leave();
}
