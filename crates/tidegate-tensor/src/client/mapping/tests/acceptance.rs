//! Which announces are accepted (8.3).

use super::*;

/// Each line of TP-484 that must agree, and what does not count.
/// Rules: TP-484, TC-209.
#[test]
fn two_announces_of_one_epoch_must_say_the_same() {
    type Change = fn(&mut ShmPoolAnnounce<'static>);
    let contradictions: [(&str, Change); 7] = [
        ("slots", |it| {
            it.header_nslots = 16;
            it.payload_pools.iter_mut().for_each(|pool| pool.pool_nslots = 16);
        }),
        ("a pool more", |it| {
            let region_uri = "shm:file?path=/dev/shm/s/3.pool".into();
            it.payload_pools.push(PayloadPool { pool_id: 3, pool_nslots: 8, stride_bytes: 64, region_uri });
        }),
        ("a pool less", |it| it.payload_pools.truncate(1)),
        ("stride", |it| it.payload_pools[0].stride_bytes = 8192),
        ("pool path", |it| it.payload_pools[0].region_uri = "shm:file?path=/dev/shm/s/x.pool".into()),
        ("header path", |it| it.header_region_uri = "shm:file?path=/dev/shm/t/header.ring".into()),
        ("huge pages", |it| {
            it.header_region_uri = "shm:file?path=/dev/shm/s/header.ring|require_hugepages=true".into();
        }),
    ];
    for (what, change) in contradictions {
        let mut bench = Bench::announced(7);
        let mut other = announce(7, bench.now);
        change(&mut other);
        bench.deliver(&other).unwrap();
        assert_eq!(
            (bench.state(), &bench.unmaps[..]),
            (UNMAPPED, &[UnmapReason::Inconsistent][..]),
            "{what}"
        );
    }
    let mut bench = Bench::announced(7);
    bench.pass(10);
    let mut same = announce(7, bench.now);
    same.producer_id = 99;
    same.payload_pools.reverse();
    same.header_region_uri = "shm:file?path=/dev/shm/s/header.ring|require_hugepages=false".into();
    bench.deliver(&same).unwrap();
    assert_eq!((bench.state(), bench.maps.len(), bench.unmaps.len()), (mapped(7), 1, 0));
}

/// Every structural line of table 8.3, while unmapped and while mapped.
/// Rules: TP-005, TP-124, TP-136.
#[test]
fn a_malformed_announce_changes_nothing() {
    type Break = fn(&mut ShmPoolAnnounce<'static>);
    let cases: [(&str, Break); 13] = [
        ("POSIX shared memory", |it| it.header_region_uri = "shm:posix?path=/header".into()),
        ("layout 2", |it| it.layout_version = 2),
        ("slot bytes", |it| it.header_slot_bytes = 128),
        ("6 slots", |it| it.header_nslots = 6),
        ("0 slots", |it| it.header_nslots = 0),
        ("no pools", |it| it.payload_pools.clear()),
        ("pool id twice", |it| it.payload_pools[1].pool_id = 1),
        ("pool slots", |it| it.payload_pools[1].pool_nslots = 4),
        ("stride 32", |it| it.payload_pools[1].stride_bytes = 32),
        ("stride 100", |it| it.payload_pools[1].stride_bytes = 100),
        ("empty pool URI", |it| it.payload_pools[1].region_uri = "".into()),
        ("empty header URI", |it| it.header_region_uri = "".into()),
        ("epoch 0", |it| it.epoch = 0),
    ];
    for (what, break_it) in cases {
        let mut unmapped = Bench::new(false, true);
        let mut bad = announce(8, unmapped.now);
        break_it(&mut bad);
        assert!(matches!(unmapped.deliver(&bad), Err(AnnounceRejection::Structure(_))), "{what}");
        assert_eq!(unmapped.state(), UNMAPPED, "{what}");
        let mut bench = Bench::announced(7);
        assert!(bench.deliver(&bad).is_err(), "{what}");
        assert_eq!((bench.state(), bench.unmaps.len()), (mapped(7), 0), "{what}");
    }
}

/// Rules: TP-036.
#[test]
fn an_announce_of_another_stream_is_not_ours() {
    let mut bench = Bench::new(false, true);
    let other = ShmPoolAnnounce { stream_id: STREAM + 1, ..announce(8, bench.now) };
    assert_eq!(bench.deliver(&other), Err(AnnounceRejection::OtherStream));
    assert_eq!(bench.state(), UNMAPPED);
}

/// Rules: TP-025, TP-136, TC-079.
#[test]
fn an_announce_must_be_fresh() {
    for (age, expected) in [(2_900, Ok(())), (3_000, Ok(())), (3_001, Err(AnnounceRejection::Stale))] {
        let mut bench = Bench::new(false, true);
        let sent = bench.now.saturating_sub(Nanos::from_millis(age));
        assert_eq!(bench.deliver(&announce(7, sent)), expected, "{age} ms old");
    }
    for (ahead, expected) in [(3_000, Ok(())), (3_001, Err(AnnounceRejection::Future))] {
        let mut bench = Bench::new(false, true);
        let sent = bench.now.saturating_add(Nanos::from_millis(ahead));
        assert_eq!(bench.deliver(&announce(7, sent)), expected, "{ahead} ms ahead");
    }
}

/// The join rule is for MONOTONIC; REALTIME_SYNCED is held against the real-time clock.
/// Rules: TP-025, TP-026, TP-137, TP-138, TC-080.
#[test]
fn an_announce_from_before_the_join_is_dropped() {
    let mut bench = Bench::new(false, true);
    bench.joined = bench.now.saturating_sub(Nanos::from_millis(100));
    let before = announce(7, bench.joined.saturating_sub(Nanos(1)));
    assert_eq!(bench.deliver(&before), Err(AnnounceRejection::BeforeJoin));
    assert_eq!(bench.state(), UNMAPPED);
    assert_eq!(bench.deliver(&announce(7, bench.joined)), Ok(()), "not older than the join");

    let realtime =
        |sent| ShmPoolAnnounce { announce_clock_domain: ClockDomain::RealtimeSynced, ..announce(7, sent) };
    let mut bench = Bench::new(false, true);
    bench.joined = bench.now;
    bench.realtime = Nanos::from_secs(50);
    let sent = bench.realtime.saturating_sub(Nanos::from_millis(2_900));
    assert_eq!(
        bench.deliver(&realtime(sent)),
        Ok(()),
        "sent before the join, and on a clock of lower numbers"
    );
    let mut bench = Bench::new(false, true);
    let sent = bench.realtime.saturating_sub(Nanos::from_millis(3_100));
    assert_eq!(bench.deliver(&realtime(sent)), Err(AnnounceRejection::Stale));
    let sent = bench.now;
    assert_eq!(
        bench.deliver(&realtime(sent)),
        Err(AnnounceRejection::Stale),
        "a monotonic time is no real time"
    );
    let sent = bench.realtime;
    assert_eq!(bench.deliver(&announce(7, sent)), Err(AnnounceRejection::Future), "nor the other way");
}
