//! Heartbeats (§5.1). All times are milliseconds since the handshake.

use std::time::Duration;

use tidegate_zmtp::{
    close::{CloseReason, Deadline},
    config::{Heartbeat, OldPeers, SessionConfig},
    session::Event,
    socket_type::SocketType::{Pull, Push, Sub, XPub},
};

use crate::support::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn beating(heartbeat: Heartbeat) -> Side {
    Side::up(SessionConfig { heartbeat, ..config(Pull) }, Push)
}

fn every(interval: u64, timeout: Option<u64>) -> Heartbeat {
    Heartbeat { interval: Some(ms(interval)), timeout: timeout.map(ms), ..Heartbeat::default() }
}

fn ping(ttl: u16) -> Vec<u8> {
    command("PING", &ttl.to_be_bytes())
}

#[track_caller]
fn dies(side: &mut Side, after: u64, deadline: Deadline) {
    assert!(side.pass(ms(after - 1)).is_empty(), "too early");
    let events = side.pass(ms(1));
    assert_eq!(closed(events, side), CloseReason::TimedOut(deadline));
}

/// Rules: MQ-167, MQ-423.
#[test]
fn pings_are_answered_with_their_context() {
    let mut side = beating(Heartbeat::default());
    let long: Vec<u8> = (0..40).collect();
    let octets = [
        command("PING", b"\0\0"),
        command("PING", b"\0\0abc"),
        command("PING", &[b"\0\0", &long[..]].concat()),
    ];
    assert!(side.feed(&octets.concat()).is_empty());
    let pongs = [command("PONG", b""), command("PONG", b"abc"), command("PONG", &long[..16])];
    assert_eq!(side.output(), pongs.concat());
}

/// Rules: MQ-172, MQ-174.
#[test]
fn pings_go_out_every_interval_with_the_ttl_in_tenths() {
    for (ttl, sent) in [(0, 0), (199, 1), (1000, 10), (6_553_599, 65_535)] {
        let mut side = beating(Heartbeat { ttl: ms(ttl), ..every(100, Some(0)) });
        assert!(side.output().is_empty());
        side.pass(ms(99));
        assert!(side.output().is_empty());
        side.pass(ms(1));
        assert_eq!(side.output(), ping(sent), "ttl {ttl}");
        side.pass(ms(100));
        assert_eq!(side.output(), ping(sent));
    }
    let mut off = beating(Heartbeat::default());
    assert_eq!(off.session.deadline(), None);
    off.pass(ms(1_000_000));
    assert!(off.output().is_empty());
}

/// Rules: MQ-172.
#[test]
fn silence_after_the_oldest_ping_is_fatal() {
    dies(&mut beating(every(150, Some(400))), 550, Deadline::Heartbeat);
    dies(&mut beating(every(150, None)), 300, Deadline::Heartbeat);
    let mut patient = beating(every(150, Some(0)));
    assert!(patient.pass(ms(100_000)).is_empty(), "zero is for ever");
}

/// Rules: MQ-169, MQ-173, MQ-410, MQ-425.
#[test]
fn any_frame_is_a_sign_of_life() {
    let signs = [
        frame(0, b"data"),
        frame(1, b"part"),
        ping(0),
        command("PONG", b""),
        command("PONG", b"a context that is not ours"),
        command("UNKNOWN", b""),
    ];
    for sign in signs {
        let mut side = beating(every(150, Some(400)));
        side.pass(ms(549));
        side.feed(&sign);
        assert!(side.pass(ms(450)).is_empty(), "the PING at 600 arms anew");
        let events = side.pass(ms(1));
        assert_eq!(closed(events, &side), CloseReason::TimedOut(Deadline::Heartbeat));
    }
    let mut half = beating(every(150, Some(400)));
    half.pass(ms(500));
    half.feed(&[0, 5, b'h', b'a']);
    dies(&mut half, 50, Deadline::Heartbeat);
}

/// Rules: MQ-169.
#[test]
fn at_most_four_pings_are_outstanding() {
    let mut side = beating(every(100, Some(0)));
    side.pass(ms(1000));
    assert_eq!(side.output(), ping(0).repeat(4));
    side.feed(&command("PONG", b""));
    side.pass(ms(1000));
    assert_eq!(side.output(), ping(0).repeat(4));
}

/// Rules: MQ-173, MQ-426.
#[test]
fn a_ping_with_ttl_arms_a_deadline() {
    let mut side = beating(Heartbeat::default());
    side.feed(&ping(3));
    dies(&mut side, 300, Deadline::TimeToLive);

    let mut longest = beating(Heartbeat::default());
    longest.feed(&ping(65_535));
    dies(&mut longest, 6_553_500, Deadline::TimeToLive);

    let mut disarmed = beating(Heartbeat::default());
    disarmed.feed(&[ping(3), ping(0)].concat());
    assert_eq!(disarmed.session.deadline(), None);

    let mut rearmed = beating(Heartbeat::default());
    rearmed.feed(&ping(3));
    rearmed.pass(ms(299));
    rearmed.feed(&ping(5));
    dies(&mut rearmed, 500, Deadline::TimeToLive);
}

/// Rules: MQ-176.
#[test]
fn a_pause_of_reading_suspends_the_deadlines_and_not_the_pings() {
    let mut side = beating(every(150, Some(400)));
    side.feed(&ping(4));
    side.pass(ms(200));
    assert_eq!(side.output(), [command("PONG", b""), ping(0)].concat());
    side.session.reading_paused(side.now);
    assert!(side.pass(ms(10_000)).is_empty());
    assert_eq!(side.output(), ping(0).repeat(3), "up to four");
    side.session.reading_resumed(side.now);
    dies(&mut side, 200, Deadline::TimeToLive);

    let mut side = beating(every(150, Some(400)));
    side.pass(ms(250));
    side.session.reading_paused(side.now);
    side.pass(ms(77_000));
    side.session.reading_resumed(side.now);
    dies(&mut side, 300, Deadline::Heartbeat);

    let mut armed_in_pause = beating(every(150, Some(400)));
    armed_in_pause.session.reading_paused(armed_in_pause.now);
    armed_in_pause.pass(ms(1000));
    armed_in_pause.session.reading_resumed(armed_in_pause.now);
    dies(&mut armed_in_pause, 400, Deadline::Heartbeat);
}

/// As many as may come in the time of a pause, and a limited number however long it was; each counts once.
///
/// Rules: MQ-176, MQ-170, MQ-167.
#[test]
fn pings_that_piled_up_in_a_pause_are_no_flood() {
    for (pause, piled_up) in [(0, 0), (3000, 3000), (1_000_000, 1 << 16)] {
        let mut side = beating(Heartbeat::default());
        side.session.reading_paused(side.now);
        side.pass(ms(pause));
        side.session.reading_resumed(side.now);
        // Nothing can be written meanwhile.
        for _ in 0..piled_up {
            assert!(side.feed(&ping(0)).is_empty());
        }
        assert_eq!(side.output(), command("PONG", b"").repeat(piled_up));
        for _ in 0..64 {
            assert!(side.feed(&ping(0)).is_empty());
        }
        assert_eq!(side.closes(&ping(0)), CloseReason::PingFlood, "after {pause} ms");
    }
}

/// Rules: MQ-094, MQ-171, MQ-410.
#[test]
fn old_peers_get_pings_only_where_they_understand_them() {
    let old = |old_peers| {
        let heartbeat = Heartbeat { old_peers, ..every(100, None) };
        Side::up_with(SessionConfig { heartbeat, ..config(Pull) }, Push, 0)
    };
    let mut never = old(OldPeers::Never);
    assert_eq!(never.session.deadline(), None);
    never.feed(&ping(0));
    assert_eq!(never.output(), command("PONG", b""), "an answer is always legal");
    assert!(never.pass(ms(10_000)).is_empty());
    assert!(never.output().is_empty());

    let mut always = old(OldPeers::Always);
    always.pass(ms(100));
    assert_eq!(always.output(), ping(0));

    let mut learned = old(OldPeers::Learned);
    assert!(learned.pass(ms(10_000)).is_empty(), "no timeout is armed either");
    assert!(learned.output().is_empty());
    learned.feed(&ping(0));
    learned.output();
    learned.pass(ms(100));
    assert_eq!(learned.output(), ping(0));
    dies(&mut learned, 100, Deadline::Heartbeat);
}

/// Rules: MQ-170, MQ-424.
#[test]
fn floods_of_pings_close() {
    let mut unread = beating(Heartbeat::default());
    assert!(unread.feed(&ping(0).repeat(64)).is_empty());
    assert_eq!(unread.closes(&ping(0)), CloseReason::PingFlood, "64 answers wait");
    assert_eq!(unread.output(), command("PONG", b"").repeat(64));

    let mut at_once = beating(Heartbeat::default());
    assert!(
        at_once.feed(&ping(0).repeat(1000)).is_empty(),
        "none of these could be answered before the last"
    );
    assert_eq!(at_once.output(), command("PONG", b"").repeat(1000));
    at_once.pass(ms(1000));
    assert!(at_once.feed(&ping(0)).is_empty());

    let mut fast = beating(Heartbeat::default());
    for _ in 0..1000 {
        assert!(fast.feed(&ping(0)).is_empty());
        assert_eq!(fast.output(), command("PONG", b""));
    }
    assert_eq!(fast.closes(&ping(0)), CloseReason::PingFlood, "1001 in a second");

    let mut steady = beating(Heartbeat::default());
    for _ in 0..5000 {
        assert!(steady.feed(&ping(0)).is_empty());
        steady.output();
        steady.pass(ms(1));
    }
}

/// Rules: MQ-175.
#[test]
fn one_way_sockets_beat_in_both_directions() {
    for (ours, theirs) in [(Push, Pull), (Pull, Push), (Sub, XPub), (XPub, Sub)] {
        let heartbeat = Heartbeat { ttl: ms(500), ..every(100, None) };
        let mut one = Side::new(SessionConfig { heartbeat, ..config(ours) });
        let mut two = Side::new(SessionConfig { heartbeat, ..config(theirs) });
        let (up_one, up_two) = converse(&mut one, &mut two);
        assert!(matches!((&up_one[..], &up_two[..]), ([Event::Up(_)], [Event::Up(_)])));
        for _ in 0..100 {
            assert!(one.pass(ms(50)).is_empty() && two.pass(ms(50)).is_empty());
            let (events_one, events_two) = converse(&mut one, &mut two);
            assert!(events_one.is_empty() && events_two.is_empty());
        }
        dies(&mut one, 200, Deadline::Heartbeat);
    }
}
