//! Which epoch is mapped, and on whose word (8.2, TP-483).

use super::*;

/// Rules: TP-128, TP-151.
#[test]
fn unmapped_maps_on_an_announce_or_a_grant() {
    assert_eq!(Bench::new(false, true).state(), UNMAPPED);
    assert_eq!(Bench::announced(7).maps, [7]);
    assert_eq!(Bench::granted(7).maps, [7]);
}

/// Rules: TP-129, TC-072.
#[test]
fn a_repeated_announce_does_not_map_again() {
    let mut bench = Bench::announced(7);
    for _ in 0..10 {
        bench.pass(1_000);
        bench.activity = bench.now;
        bench.hear(7);
    }
    assert_eq!((bench.state(), &bench.maps[..]), (mapped(7), &[7][..]));
    assert!(bench.unmaps.is_empty());
}

/// Rules: TP-133, TC-073.
#[test]
fn a_higher_epoch_takes_over() {
    let mut bench = Bench::announced(7);
    bench.hear(8);
    assert_eq!((bench.state(), &bench.maps[..]), (mapped(8), &[7, 8][..]));

    let mut vanished = Bench::announced(7);
    vanished.mappable = false;
    vanished.hear(8);
    assert_eq!(vanished.state(), UNMAPPED, "the old epoch is not kept when the new one cannot be mapped");
}

/// A higher epoch wins whoever announces it.
/// Rules: TP-133.
#[test]
fn a_higher_epoch_of_another_source_takes_over_too() {
    let mut bench = Bench::granted(7);
    bench.source = C_PRODUCER;
    bench.hear(8);
    assert_eq!(bench.state(), mapped(8));
}

/// One announce is enough to make its image the authority.
/// Rules: TP-131, TP-483, TC-076.
#[test]
fn a_fresh_lower_epoch_of_the_authority_unmaps() {
    let mut bench = Bench::announced(7);
    bench.pass(10);
    bench.hear(5);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::EpochRegression][..]));
    bench.pass(10);
    bench.hear(5);
    assert_eq!(bench.state(), mapped(5), "the memory of the highest epoch was cleared");
}

/// Rules: TP-133, TC-077.
#[test]
fn a_lower_epoch_sent_before_the_one_applied_is_ignored() {
    let mut bench = Bench::announced(7);
    let late = announce(5, bench.now.saturating_sub(Nanos(1)));
    bench.pass(10);
    bench.deliver(&late).unwrap();
    assert_eq!((bench.state(), bench.unmaps.len()), (mapped(7), 0));
    // Each accepted announce moves the mark.
    bench.hear(7);
    let late = announce(5, bench.now.saturating_sub(Nanos(1)));
    bench.deliver(&late).unwrap();
    assert_eq!(bench.state(), mapped(7));
}

/// Rules: TP-483, TC-208.
#[test]
fn a_lower_epoch_of_anybody_else_is_ignored() {
    let mut bench = Bench::granted(7);
    for source in [C_PRODUCER, OTHER_DRIVER] {
        bench.pass(10);
        bench.source = source;
        bench.hear(5);
        assert_eq!((bench.state(), bench.unmaps.len()), (mapped(7), 0), "{source:?}");
    }
    let mut without_driver = Bench::announced(7);
    without_driver.source = OTHER_DRIVER;
    without_driver.pass(10);
    without_driver.hear(5);
    assert_eq!(without_driver.state(), mapped(7));
}

/// Beside a driver, an image of the control stream never becomes the authority, however often it announces the epoch.
/// Rules: TP-483.
#[test]
fn beside_a_driver_the_control_stream_has_no_authority() {
    let mut bench = Bench::new(true, true);
    bench.grant(7);
    bench.source = C_PRODUCER;
    for _ in 0..3 {
        bench.pass(10);
        bench.hear(7);
    }
    bench.hear(5);
    assert_eq!(bench.state(), mapped(7));
    bench.source = DRIVER;
    bench.hear(7);
    bench.pass(10);
    bench.hear(5);
    assert_eq!(bench.state(), UNMAPPED);
}

/// Without a driver every image may be the authority, and the first one stays it while it is heard.
/// Rules: TP-483.
#[test]
fn the_first_announcer_keeps_the_authority() {
    let mut bench = Bench::new(false, true);
    bench.source = C_PRODUCER;
    bench.hear(7);
    bench.source = DRIVER;
    for _ in 0..3 {
        bench.pass(10);
        bench.hear(7);
    }
    bench.hear(5);
    assert_eq!(bench.state(), mapped(7), "the second announcer");
    bench.source = C_PRODUCER;
    bench.pass(10);
    bench.hear(5);
    assert_eq!(bench.state(), UNMAPPED, "the first");
}

/// Rules: TP-139, TP-483.
#[test]
fn a_silent_or_dead_authority_is_succeeded() {
    for dies in [false, true] {
        let mut bench = Bench::announced(7);
        bench.source = OTHER_DRIVER;
        if dies {
            bench.dead_image = Some(DRIVER);
            bench.pass(10);
        } else {
            bench.activity = Nanos::from_secs(103);
            bench.pass(3_001);
        }
        bench.hear(7);
        bench.pass(10);
        bench.hear(5);
        assert_eq!(bench.unmaps, [UnmapReason::EpochRegression], "dies: {dies}");
    }
    let mut alive = Bench::announced(7);
    alive.activity = Nanos::from_secs(103);
    alive.source = OTHER_DRIVER;
    alive.pass(3_000);
    alive.hear(7);
    alive.pass(10);
    alive.hear(5);
    assert_eq!(alive.state(), mapped(7), "exactly three periods are not stale");
}
