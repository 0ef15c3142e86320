//! Heartbeats in each direction.

use std::time::Duration;

use tidegate_mq::{
    Error, SocketType,
    monitor::{CloseReason, EventKind},
    options::Heartbeat30Peers,
};

use super::{DRIVERS, NEWEST, Pairing, they_bind};
use crate::{
    ours::{options, wait_down, wait_for, wait_up},
    peer::{Peer, event, words},
    security::{Mechanism, Role},
};

/// Several times longer than a connection without answers would last.
const A_WHILE: Duration = Duration::from_millis(700);

/// Ours sends heartbeats: an idle connection stays up as long as they are answered, and not longer.
fn we_beat(version: &'static str, mechanism: Mechanism, to_old: Heartbeat30Peers) {
    for driver in DRIVERS {
        let mut options = options();
        options.heartbeat_ivl = Some(Duration::from_millis(50));
        options.heartbeat_timeout = Some(Duration::from_millis(200));
        options.heartbeat_30_peers = to_old;
        options.mechanism = mechanism.ours(Role::Theirs);
        let theirs = mechanism.theirs(Role::Theirs);
        let pairing =
            they_bind(Peer::start(version), driver, (SocketType::Push, options), (SocketType::Pull, &theirs));
        let event = pairing.monitor.next_blocking(Some(A_WHILE));
        assert!(matches!(event, Err(Error::Timeout)), "an idle connection must stay as it is: {event:?}");

        pairing.peer.signal("STOP");
        let reason = wait_for(&pairing.monitor, "the end by silence", |event| match event {
            EventKind::HandshakeFailed(reason) => Some(reason.clone()),
            _ => None,
        });
        assert!(matches!(reason, CloseReason::TimedOut(_)), "{reason:?}");
        wait_down(&pairing.monitor);
        goes_on(pairing);
    }
}

/// Theirs sends heartbeats: ours answers, and goes by the lifetime in them.
fn they_beat(mechanism: Mechanism) {
    for driver in DRIVERS {
        let mut options = options();
        options.mechanism = mechanism.ours(Role::Theirs);
        let theirs = format!(
            "heartbeat_ivl=50 heartbeat_timeout=200 heartbeat_ttl=400 {}",
            mechanism.theirs(Role::Theirs)
        );
        let mut pairing =
            they_bind(Peer::start(NEWEST), driver, (SocketType::Push, options), (SocketType::Pull, &theirs));
        pairing.peer.ask(format!("quiet s {} {}", event::DISCONNECTED, A_WHILE.as_millis()));
        let event = pairing.monitor.try_next();
        assert!(event.is_none(), "an idle connection must stay as it is: {event:?}");

        pairing.peer.signal("STOP");
        wait_down(&pairing.monitor);
        goes_on(pairing);
    }
}

/// Lets the peer go on that was stopped: the two find each other again.
fn goes_on(Pairing { mut peer, ours, monitor, context, .. }: Pairing) {
    peer.signal("CONT");
    wait_up(&monitor);
    ours.put("recovered".into()).unwrap();
    assert_eq!(peer.ask("recv s"), words(["recovered"]));
    drop(peer);
    ours.finish(Duration::ZERO);
    context.term_blocking();
}

/// Rules: MQ-172, MQ-508.
#[test]
fn ours() {
    we_beat(NEWEST, Mechanism::Null, Heartbeat30Peers::Learned);
}

/// Rules: MQ-144, MQ-175, MQ-508.
#[test]
fn ours_in_curve() {
    we_beat(NEWEST, Mechanism::Curve, Heartbeat30Peers::Learned);
}

/// Rules: MQ-169, MQ-171.
#[test]
fn ours_to_a_peer_that_leaves_out_the_context() {
    we_beat("4.2.5", Mechanism::Null, Heartbeat30Peers::Always);
}

/// Rules: MQ-171.
#[test]
fn ours_to_a_3_0_peer_that_answers() {
    we_beat("4.3.2", Mechanism::Null, Heartbeat30Peers::Always);
}

/// Rules: MQ-167, MQ-173, MQ-508.
#[test]
fn theirs() {
    they_beat(Mechanism::Null);
}

/// Rules: MQ-144, MQ-167, MQ-173, MQ-508.
#[test]
fn theirs_in_curve() {
    they_beat(Mechanism::Curve);
}

/// A release that takes heartbeats for messages gets none.
///
/// Rules: MQ-094, MQ-171.
#[test]
fn none_to_a_peer_that_would_take_them_for_messages() {
    let mut options = options();
    options.heartbeat_ivl = Some(Duration::from_millis(20));
    let Pairing { mut peer, ours, monitor, .. } =
        they_bind(Peer::start("4.1.6"), DRIVERS[0], (SocketType::Push, options), (SocketType::Pull, ""));
    let event = monitor.next_blocking(Some(Duration::from_millis(300)));
    assert!(matches!(event, Err(Error::Timeout)), "{event:?}");
    ours.put("work".into()).unwrap();
    assert_eq!(peer.ask("recv s"), words(["work"]), "the first thing that arrives");
}
