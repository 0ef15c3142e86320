//! The own lease, the producer's, and a silent driver.

use super::*;

/// Rules: TP-297, TP-128.
#[test]
fn the_own_lease_takes_the_mapping_with_it() {
    let mut bench = Bench::granted(7);
    let command = bench.machine.on_lease_lost();
    bench.obey(command);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::LeaseLost][..]));
    bench.grant(7);
    assert_eq!(bench.state(), mapped(7), "a new lease may be on the same epoch");

    let mut waiting = Bench::granted(7);
    waiting.producer_revoked();
    let command = waiting.machine.on_lease_lost();
    waiting.obey(command);
    assert_eq!(waiting.state(), UNMAPPED);
}

/// Rules: TP-128, TP-299, TP-303, TC-090.
#[test]
fn a_revoked_producer_leads_to_remapping_and_its_successor_to_the_next_mapping() {
    let mut bench = Bench::granted(7);
    bench.pass(10);
    bench.producer_revoked();
    assert_eq!((bench.state(), &bench.unmaps[..]), (remapping(7), &[UnmapReason::ProducerRevoked][..]));
    bench.producer_revoked();
    bench.hear(7);
    bench.hear(6);
    assert_eq!((bench.state(), bench.maps.len()), (remapping(7), 1), "only a strictly higher epoch will do");
    bench.hear(8);
    assert_eq!((bench.state(), bench.renewals), (mapped(8), 0));
}

/// Rules: TP-303, TP-493, TC-117.
#[test]
fn remapping_with_announces_of_the_old_epoch_keeps_the_lease() {
    let mut bench = Bench::granted(7);
    bench.pass(10);
    bench.producer_revoked();
    for _ in 0..10 {
        bench.pass(1_000);
        bench.hear(7);
    }
    assert_eq!((bench.state(), bench.renewals, bench.maps.len()), (UNMAPPED, 0, 1));
    bench.hear(8);
    assert_eq!(bench.state(), mapped(8));
}

/// Rules: TP-303, TP-493, TC-117.
#[test]
fn remapping_without_any_announce_gives_the_lease_back() {
    let mut bench = Bench::granted(7);
    bench.pass(10);
    bench.producer_revoked();
    bench.pass(2_989);
    assert_eq!((bench.state(), bench.renewals), (remapping(7), 0));
    for _ in 0..5 {
        bench.pass(10);
    }
    assert_eq!((bench.state(), bench.renewals), (UNMAPPED, 1), "once");
}

/// Announces of C programs on the control stream say nothing about the driver (IP-77).
/// Rules: TP-305.
#[test]
fn announces_of_others_do_not_stand_in_for_the_drivers() {
    let mut bench = Bench::granted(7);
    bench.source = C_PRODUCER;
    for _ in 0..4 {
        bench.pass(1_000);
        bench.activity = bench.now;
        bench.hear(7);
    }
    assert_eq!((bench.state(), bench.renewals), (UNMAPPED, 1));
    let mut remapping = Bench::granted(7);
    remapping.pass(10);
    remapping.producer_revoked();
    remapping.source = C_PRODUCER;
    for _ in 0..4 {
        remapping.pass(1_000);
        remapping.hear(7);
    }
    assert_eq!(remapping.renewals, 1);
}

/// Rules: TP-305.
#[test]
fn a_silent_driver_is_given_up() {
    let mut bench = Bench::granted(7);
    bench.activity = bench.now.saturating_add(Nanos::from_secs(3));
    bench.pass(3_000);
    assert_eq!((bench.state(), bench.renewals), (mapped(7), 0));
    bench.pass(1);
    assert_eq!((bench.state(), bench.renewals), (UNMAPPED, 1));
    bench.pass(60_000);
    assert_eq!(bench.renewals, 1, "there is no lease to renew");

    let mut without_driver = Bench::announced(7);
    for _ in 0..10 {
        without_driver.pass(1_000);
        without_driver.activity = without_driver.now;
    }
    assert_eq!(without_driver.state(), mapped(7), "a producer on its own is judged by its activity");
}

/// Control and announce are separate streams, so the notice may come after the epoch that followed it, also when driver
/// sent both at the same instant.
/// Rules: TP-299.
#[test]
fn a_notice_older_than_the_mapped_epoch_is_ignored() {
    for (ago, expected) in [(1, mapped(8)), (0, mapped(8))] {
        let mut bench = Bench::granted(7);
        bench.pass(500);
        let bumped = bench.now;
        bench.hear(8);
        bench.pass(20);
        let sent = bumped.saturating_sub(Nanos(ago));
        let command = bench.machine.on_producer_revoked(sent.as_u64(), bench.now);
        bench.obey(command);
        assert_eq!(bench.state(), expected, "sent {ago} ns before the announce");
        bench.pass(100);
        bench.producer_revoked();
        assert_eq!(bench.state(), remapping(8), "but not the next one");
    }
    let mut granted = Bench::granted(7);
    let command = granted.machine.on_producer_revoked(Nanos::from_secs(99).as_u64(), granted.now);
    granted.obey(command);
    assert_eq!(granted.state(), mapped(7), "sent before the lease was granted");
}

#[test]
fn a_notice_without_a_mapping_changes_nothing() {
    let mut bench = Bench::new(true, true);
    bench.producer_revoked();
    assert_eq!(bench.state(), UNMAPPED);
    bench.grant(7);
    assert_eq!(bench.state(), mapped(7));
}
