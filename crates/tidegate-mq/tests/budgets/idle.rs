//! What idleness costs: no wake-ups, and little memory.

use std::{
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{Dealer, Pub, Pull, Push, Rep, Req, Router, Sub};

use super::{
    child::{self, Child, alone},
    peer::Raw,
    rig::{ANYWHERE, context, options, options_with, until},
};

/// Sockets that are connected and have nothing to do wake nobody up.
///
/// Rules: MQ-496, MQ-472.
#[test]
fn idle_sockets_sleep() {
    const WATCHED: Duration = Duration::from_secs(2);
    let Some(driver) = alone("idle::idle_sockets_sleep") else { return };
    let context = context(driver);
    let (rep, pull, router, publisher) = (
        Rep::with_options(&context, options()).unwrap(),
        Pull::with_options(&context, options()).unwrap(),
        Router::with_options(&context, options()).unwrap(),
        Pub::with_options(&context, options()).unwrap(),
    );
    let ends = [rep.bind_blocking(ANYWHERE), pull.bind_blocking("ipc://*"), router.bind_blocking(ANYWHERE)]
        .map(|endpoint| endpoint.unwrap());
    let req = Req::with_options(&context, options()).unwrap();
    req.connect(&ends[0]).unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect(&ends[1]).unwrap();
    let dealers: Vec<_> = (0..50)
        .map(|_| {
            let dealer = Dealer::with_options(&context, options()).unwrap();
            dealer.connect(&ends[2]).unwrap();
            dealer.send_blocking("x").unwrap();
            router.recv_blocking().unwrap();
            dealer
        })
        .collect();
    let sub = Sub::with_options(&context, options()).unwrap();
    sub.subscribe("").unwrap();
    sub.connect(&publisher.bind_blocking(ANYWHERE).unwrap()).unwrap();
    until("the subscription", || publisher.topics_count() == 1);
    push.send_blocking("x").unwrap();
    pull.recv_blocking().unwrap();
    req.send_blocking("x").unwrap();
    rep.recv_blocking().unwrap();
    // A thread that waits in a receive sleeps, too.
    let waiting = thread::spawn({
        let pull = pull.clone();
        move || pull.recv_blocking()
    });
    until("everything has settled", || {
        let before = child::sleeps("self");
        thread::sleep(Duration::from_millis(500));
        without_this_thread(&before) == without_this_thread(&child::sleeps("self"))
    });
    let before = child::sleeps("self");
    thread::sleep(WATCHED);
    let after = child::sleeps("self");
    assert_eq!(without_this_thread(&before), without_this_thread(&after), "somebody woke up in {WATCHED:?}");
    assert!(before.iter().any(|(name, _)| name.starts_with("tidegate-mq")), "{before:?}");
    push.send_blocking("y").unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().parts()[0], "y");
    drop(dealers);
    context.term_blocking();
}

/// The thread that looks sleeps itself: it is the one of the test.
fn without_this_thread(sleeps: &[(String, u64)]) -> Vec<(String, u64)> {
    let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    sleeps.iter().filter(|(other, _)| other != name.trim()).cloned().collect()
}

const CONNECTIONS: usize = 8_000;

/// Many idle connections, each established and each used once, cost little memory, and all come up soon.
///
/// Rules: MQ-493, MQ-494, MQ-020, MQ-472.
#[test]
fn an_idle_connection_is_small() {
    const NAME: &str = "idle::an_idle_connection_is_small";
    if child::role().as_deref() == Some("peers") {
        let endpoint = child::hear().unwrap();
        let mut peers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let mut peer = Raw::up(&endpoint, "PUSH", "");
                peer.send(&super::peer::message(&[b"a message of a few octets"]));
                peer
            })
            .collect();
        child::say("ready");
        child::hear();
        peers.iter_mut().for_each(|peer| peer.send(&super::peer::message(&[b"bye"])));
        child::say("done");
        child::hear();
        return;
    }
    let Some(driver) = alone(NAME) else { return };
    let context = context(driver);
    let pull = Pull::with_options(&context, options_with(|options| options.rcvhwm = 0)).unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let mut peers = Child::start(NAME, "peers");
    // Threads and tables are there.
    Raw::up(&endpoint, "PUSH", "").reset();
    let before = child::resident("self");
    let start = Instant::now();
    peers.tell(&endpoint);
    peers.wait_for("ready");
    let took = start.elapsed();
    for _ in 0..CONNECTIONS {
        pull.recv_blocking().unwrap();
    }
    let each = child::resident("self").saturating_sub(before) / CONNECTIONS;
    child::say(&format!("measured: {each} octets for each of {CONNECTIONS} connections, up in {took:?}"));
    assert!(each <= 16 << 10, "{each} octets for each idle connection");
    assert!(took < Duration::from_secs(30), "{took:?} for {CONNECTIONS} connections");
    peers.tell("speak");
    peers.wait_for("done");
    for _ in 0..CONNECTIONS {
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "bye");
    }
    peers.finish();
    context.term_blocking();
}
