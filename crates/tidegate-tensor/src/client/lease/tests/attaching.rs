//! Requests, and what a driver may answer.

use super::*;

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
        let pause = bench.pause();
        let around = 100_000_000u64 << failures.min(5);
        assert!(
            (around * 8 / 10..=around * 12 / 10).contains(&pause),
            "{pause} ns after {failures} failures"
        );
        bench.wire.clear();
        bench.now = bench.now.saturating_add(Nanos(pause - 1));
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

/// Each lease that stands in the way is waited for, also when another one was waited for before: patience is not used up
/// for ever by a refusal of long ago.
/// Rules: TP-491.
#[test]
fn patience_begins_anew_with_each_series_of_refusals() {
    type Interruption = fn(&mut Bench);
    let interruptions: [(&str, Interruption); 4] = [
        ("another refusal", |bench| {
            let correlation = bench.attach();
            let event = bench.respond(&refusal(correlation, ResponseCode::InternalError, "later"));
            assert!(matches!(event, Some(LeaseEvent::Refused(_))));
        }),
        ("no answer", |bench| {
            bench.attach();
            assert_eq!(bench.run(5_000), None);
        }),
        ("a lost connection", |bench| {
            assert_eq!(bench.machine.on_transport_lost(bench.now), None);
        }),
        ("a shutdown", |bench| {
            bench.attach();
            let reason = Open::from_raw(0);
            let notice = ShmDriverShutdown { timestamp_ns: 0, reason, error_message: "".into() };
            assert_eq!(bench.message(&Message::ShmDriverShutdown(notice)), None);
        }),
    ];
    for (what, interrupt) in interruptions {
        let mut bench = Bench::new(request(Role::Consumer, Some(CLIENT)));
        let taken = |bench: &mut Bench| {
            let correlation = bench.attach();
            bench.respond(&refusal(correlation, ResponseCode::Rejected, ALREADY_ATTACHED))
        };
        assert_eq!(taken(&mut bench), None);
        bench.run(20_000);
        interrupt(&mut bench);
        assert_eq!(taken(&mut bench), None, "{what}");
    }
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
