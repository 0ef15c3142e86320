//! What ends a mapping from below: descriptors, superblocks, activity (9).

use super::*;

/// Rules: TP-132, TC-078.
#[test]
fn a_step_back_in_sequence_unmaps_until_the_next_announce() {
    let mut bench = Bench::announced(7);
    let command = bench.machine.on_seq_regression(Epoch::new(6));
    assert_eq!(command, None, "of an epoch that is not mapped any more");
    let command = bench.machine.on_seq_regression(Epoch::new(7));
    bench.obey(command);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::SeqRegression][..]));
    bench.hear(7);
    assert_eq!(bench.state(), mapped(7));
}

/// Rules: TP-081, TP-134, TC-083, TC-084.
#[test]
fn a_changed_superblock_unmaps_and_the_epoch_is_not_trusted_again() {
    let mut bench = Bench::announced(7);
    bench.unchanged = false;
    bench.hear(7);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::SuperblockChanged][..]));
    bench.unchanged = true;
    bench.hear(7);
    assert_eq!(bench.state(), UNMAPPED);
    bench.hear(8);
    assert_eq!(bench.state(), mapped(8));

    let mut quiet = Bench::announced(7);
    quiet.unchanged = false;
    quiet.pass(1_000);
    assert_eq!(quiet.state(), UNMAPPED, "also without an announce, once per period");
}

/// Activity is looked at once per period, with or without announces, after a grace of three periods.
/// Rules: TP-141, TP-142, TC-081, TC-082.
#[test]
fn frozen_activity_unmaps_after_the_grace() {
    let mut bench = Bench::announced(7);
    bench.activity = bench.now.saturating_sub(Nanos::from_secs(2));
    for _ in 0..3 {
        bench.pass(1_000);
        assert_eq!(bench.state(), mapped(7), "grace");
    }
    bench.pass(1_000);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::ActivityStale][..]));

    let mut alive = Bench::announced(7);
    for _ in 0..10 {
        // 2.9 s old when it is looked at.
        alive.activity = alive.now.saturating_sub(Nanos::from_millis(1_900));
        alive.pass(1_000);
    }
    assert_eq!(alive.state(), mapped(7));
    alive.activity = alive.now;
    alive.pass(3_000);
    assert_eq!(alive.state(), mapped(7), "exactly three periods");
    alive.pass(1_000);
    assert_eq!(alive.state(), UNMAPPED);
}

/// Rules: TP-143.
#[test]
fn activity_in_the_future_is_stale() {
    for (ahead, expected) in [(3_000, mapped(7)), (3_001, UNMAPPED)] {
        let mut bench = Bench::announced(7);
        bench.now = bench.now.saturating_add(Nanos::from_millis(4_000));
        bench.activity = bench.now.saturating_add(Nanos::from_millis(ahead));
        bench.pass(0);
        assert_eq!(bench.state(), expected, "{ahead} ms ahead");
    }
}

/// Rules: TP-142, TP-485, TC-207.
#[test]
fn a_quiet_epoch_is_mapped_again_only_when_it_moved() {
    for activity in [Nanos(1), Nanos::from_secs(100).saturating_sub(Nanos::from_secs(3_600))] {
        let mut bench = Bench::new(false, true);
        bench.activity = activity;
        bench.hear(7);
        assert_eq!(bench.state(), mapped(7), "activity is no condition for mapping");
        for _ in 0..4 {
            bench.pass(1_000);
        }
        assert_eq!(bench.unmaps, [UnmapReason::ActivityStale]);
        for _ in 0..5 {
            bench.pass(1_000);
            bench.hear(7);
            assert_eq!((bench.state(), bench.maps.len()), (UNMAPPED, 1));
        }
        let mut higher = Bench { machine: bench.machine, ..bench };
        higher.activity = Nanos(activity.as_u64() + 1);
        higher.hear(7);
        assert_eq!((higher.state(), higher.maps.len()), (mapped(7), 2), "it moved");
    }
    let mut bench = Bench::new(false, true);
    bench.activity = Nanos(1);
    bench.hear(7);
    bench.pass(4_000);
    bench.hear(8);
    assert_eq!(bench.state(), mapped(8), "another epoch is mapped as usual");
}

/// The authority of a mapping made after a quiet time is its announcer as well.
/// Rules: TP-483, TP-485.
#[test]
fn an_epoch_mapped_after_quiet_has_its_announcer_as_authority() {
    let mut bench = Bench::new(false, true);
    bench.activity = Nanos(1);
    bench.hear(7);
    bench.pass(4_000);
    bench.activity = Nanos(2);
    bench.hear(7);
    assert_eq!((bench.state(), bench.maps.len()), (mapped(7), 2));
    bench.pass(10);
    bench.hear(6);
    assert_eq!(bench.state(), UNMAPPED);
}
