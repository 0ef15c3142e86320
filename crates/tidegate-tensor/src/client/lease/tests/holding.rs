//! Keepalives, and how a lease ends.

use super::*;

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

/// A lease that is kept alive ends the series of pauses. One that is given back before, because its regions cannot be used,
/// does not: asking for the next one slows down like any other failure.
#[test]
fn the_first_keepalive_resets_the_backoff() {
    let mut bench = Bench::new(request(Role::Producer, Some(CLIENT)));
    for failures in 0..6u32 {
        let correlation = bench.attach();
        assert!(bench.respond(&response(correlation)).is_some());
        let (machine, wire) = (&mut bench.machine, &mut bench.wire);
        machine.renew(LeaseLoss::MappingFailed, bench.now, &mut |bytes| record(wire, bytes));
        assert_eq!(bench.run(1_000), None, "no answer to the detach");
        let around = Nanos::from_millis(100 << failures.min(5));
        assert!(bench.pause() >= around.0 * 8 / 10, "{:?} after {failures} failures", bench.pause());
    }
    let correlation = bench.attach();
    assert!(bench.respond(&response(correlation)).is_some());
    assert_eq!(bench.tick(), None);
    bench.message(&Message::ShmLeaseRevoked(revoked(LEASE, STREAM, CLIENT, Role::Producer)));
    assert!(bench.pause() <= Nanos::from_millis(120).0);
}
