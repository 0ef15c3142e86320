//! Peers that come, go and are killed under load: no ghost stays, nothing leaks, and every message is accounted for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod accounts;
#[path = "../hostile/child.rs"]
mod child;
#[path = "../hostile/peer.rs"]
mod peer;
#[path = "../hostile/rig.rs"]
mod rig;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use child::{Child, alone};
use peer::{Raw, command, message};
use rig::{ANYWHERE, Dice, context, disconnected, established, event, options, options_with, until};
use tidegate_mq::{Context, Dealer, Error, Message, Pub, Pull, Push, Router, Sub, options::RoutingId};

/// How long the load with its kills lasts.
fn duration() -> Duration {
    let seconds = std::env::var("TIDEGATE_MQ_CHURN_SECONDS").ok();
    Duration::from_secs(seconds.map_or(20, |seconds| seconds.parse().unwrap()))
}

const PROCESSES: usize = 10;
/// Connections of each process: half DEALERs that ask, half PUSHes that send.
const EACH: usize = 10;

/// A process of peers: sends as fast as it can until it is killed.
fn peers(place: &str) {
    let (router, rest) = place.split_once(' ').unwrap();
    let (pull, rest) = rest.split_once(' ').unwrap();
    let (publisher, name) = rest.split_once(' ').unwrap();
    let context = Context::new();
    std::thread::scope(|scope| {
        for number in 0..EACH / 2 {
            let context = &context;
            scope.spawn(move || {
                let id = RoutingId::new(format!("{name}.{number}")).unwrap();
                let dealer =
                    Dealer::with_options(context, options_with(|o| o.routing_id = Some(id))).unwrap();
                dealer.connect(router).unwrap();
                for number in 0_u64.. {
                    dealer.send_blocking(vec![number as u8; number as usize % 2000]).unwrap();
                    assert_eq!(dealer.recv_blocking().unwrap().byte_len(), number as usize % 2000);
                }
            });
            scope.spawn(move || {
                let push = Push::with_options(context, options()).unwrap();
                push.connect(pull).unwrap();
                for number in 0_u64.. {
                    push.send_blocking([&number.to_le_bytes()[..], name.as_bytes()].concat()).unwrap();
                    // About as much as the other side reads: what lies unread of a dead peer is delivered, too.
                    if number.is_multiple_of(2) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let sub = Sub::with_options(&context, options_with(|o| o.rcvtimeo = None)).unwrap();
        (0..50).for_each(|topic| sub.subscribe(format!("{name} {topic}")).unwrap());
        sub.connect(publisher).unwrap();
        child::say("running");
        while sub.recv_blocking().is_ok() {}
    });
}

/// A hundred connections and more under load, from processes that are killed all the time: memory, descriptors and
/// tables stay as they are, requests are answered, and each stream arrives in order.
///
/// Rules: MQ-069, MQ-471, MQ-184.
#[test]
fn peers_that_are_killed_leave_nothing() {
    const NAME: &str = "peers_that_are_killed_leave_nothing";
    if child::role().as_deref() == Some("peers") {
        return peers(&child::hear().unwrap());
    }
    let Some(driver) = alone(NAME) else { return };
    let context = context(driver);
    let router = Router::with_options(&context, options()).unwrap();
    let short = |options: &mut tidegate_mq::Options| {
        options.rcvhwm = 100;
        options.rcvbuf = Some(16 << 10);
    };
    let pull = Pull::with_options(&context, options_with(short)).unwrap();
    let publisher = Pub::with_options(&context, options()).unwrap();
    let ends = [
        router.bind_blocking(ANYWHERE).unwrap(),
        pull.bind_blocking(ANYWHERE).unwrap(),
        publisher.bind_blocking(ANYWHERE).unwrap(),
    ]
    .join(" ");
    let empty = child::descriptors();
    let start = |number: u64| {
        let mut process = Child::start(NAME, "peers");
        process.tell(&format!("{ends} p{number}"));
        process
    };
    let mut dice = Dice(4711);
    let mut started = 0;
    let mut processes: Vec<_> = (0..PROCESSES)
        .map(|_| {
            started += 1;
            start(started)
        })
        .collect();
    let (mut answered, mut received, mut killed) = (0_u64, 0_u64, 0);
    let mut settled = 0;
    let mut next: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
    let begin = Instant::now();
    let mut next_kill = begin + Duration::from_secs(2);
    while begin.elapsed() < duration() {
        let mut idle = true;
        for _ in 0..200 {
            match router.try_recv() {
                Ok(request) => {
                    router.send_blocking(request).unwrap();
                    answered += 1;
                    idle = false;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
        }
        for _ in 0..200 {
            match pull.try_recv() {
                Ok(got) => {
                    let part = got.parts()[0].as_slice();
                    let (number, name) = part.split_at(8);
                    let number = u64::from_le_bytes(number.try_into().unwrap());
                    // Several streams of one process look alike: each number continues one of them.
                    let streams = next.entry(name.to_vec()).or_default();
                    match streams.iter_mut().find(|next| **next == number) {
                        Some(next) => *next += 1,
                        None if number == 0 => streams.push(1),
                        None => panic!("{number} of {name:?} continues none of {streams:?}"),
                    }
                    assert!(streams.len() <= EACH / 2);
                    received += 1;
                    idle = false;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
        }
        publisher.send_blocking(format!("p{} {}", 1 + dice.roll(started), dice.roll(50)).as_str()).unwrap();
        if Instant::now() > next_kill {
            let victim = dice.roll(PROCESSES as u64) as usize;
            processes[victim].kill();
            started += 1;
            killed += 1;
            processes[victim] = start(started);
            next_kill = Instant::now() + Duration::from_millis(50 + dice.roll(200));
            if begin.elapsed() > duration() / 3 && settled == 0 {
                settled = child::resident("self");
            }
        }
        if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let grown = child::resident("self").saturating_sub(settled);
    child::say(&format!(
        "measured: {killed} processes killed, {answered} answers, {received} messages, {grown} octets more in the \
         last two thirds"
    ));
    assert!(killed > 20 && answered > 1000 && received > 1000, "{killed} {answered} {received}");
    assert!(grown < 8 << 20, "{grown} octets more");
    drop(processes);
    until("all connections are gone", || {
        while router.try_recv().is_ok() {}
        while pull.try_recv().is_ok() {}
        child::descriptors() <= empty
    });
    until("all subscriptions are gone", || publisher.topics_count() == 0);
    context.term_blocking();
}

/// A peer that comes back with its routing id at once is who messages go to, never its dead predecessor; what it
/// subscribed to before counts no more; and nothing grows.
///
/// Rules: MQ-068, MQ-069, MQ-495.
#[test]
fn a_peer_that_comes_back_is_no_ghost() {
    const TIMES: u32 = 3000;
    let Some(driver) = alone("a_peer_that_comes_back_is_no_ghost") else { return };
    let context = context(driver);
    let router = Router::with_options(
        &context,
        options_with(|options| {
            options.router_handover = true;
            options.router_mandatory = true;
        }),
    )
    .unwrap();
    let monitor = router.monitor();
    let endpoint = router.bind_blocking(ANYWHERE).unwrap();
    let mut settled = (0, 0);
    let mut old = None;
    for time in 0..TIMES {
        let mut peer = Raw::up(&endpoint, "DEALER", "same");
        established(&monitor);
        // The old connection goes after the new one has come, at the same time, or has gone before.
        match (old.take(), time % 3) {
            (Some(old), 0) => Raw::reset(old),
            (old, _) => drop(old),
        }
        peer.send(&message(&[&time.to_le_bytes()]));
        let got = router.recv_blocking().unwrap();
        assert_eq!((&got.parts()[0], &got.parts()[1]), (&"same".into(), &(&time.to_le_bytes()).into()));
        router
            .send_blocking(["same".as_bytes(), &time.to_le_bytes()].into_iter().collect::<Message>())
            .unwrap();
        assert_eq!(peer.frame(), (0, time.to_le_bytes().to_vec()), "it went elsewhere");
        if time % 5 == 4 {
            peer.reset();
            event(&monitor, "end", disconnected);
            until("the id is free", || {
                let sent = router.try_send(["same", "nobody"].into_iter().collect::<Message>());
                sent.is_err_and(|error| matches!(error.error, Error::HostUnreachable))
            });
        } else {
            old = Some(peer);
        }
        while monitor.try_next().is_some() {}
        if time == TIMES / 4 {
            settled = (child::descriptors(), child::resident("self"));
        }
    }
    until("the last one is alone", || child::descriptors() <= settled.0 + 1);
    let grown = child::resident("self").saturating_sub(settled.1);
    child::say(&format!("measured: {grown} octets more after {TIMES} returns"));
    assert!(grown < 1 << 20, "{grown} octets more");

    let publisher = Pub::with_options(&context, options()).unwrap();
    let monitor = publisher.monitor();
    let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
    for time in 0..TIMES {
        let mut peer = Raw::up(&endpoint, "SUB", "");
        let topic = format!("topic {time}");
        peer.send(&command("SUBSCRIBE", topic.as_bytes()));
        peer.has_been_heard();
        publisher.send_blocking(topic.as_str()).unwrap();
        assert_eq!(peer.frame(), (0, topic.into_bytes()));
        assert_eq!(publisher.topics_count(), 1, "a dead peer's topic matches");
        peer.reset();
        event(&monitor, "end", disconnected);
        until("its topic is gone", || publisher.topics_count() == 0);
    }
    context.term_blocking();
}

/// A connecting socket that is disconnected again and again: what was sent either arrives, or was lost with a write
/// under way, or is still there; nothing arrives twice or out of order.
///
/// Rules: MQ-184, MQ-471, MQ-284, MQ-110.
#[test]
fn what_was_sent_is_delivered_or_lost_in_flight() {
    const ROUNDS: u32 = 200;
    let Some(driver) = alone("what_was_sent_is_delivered_or_lost_in_flight") else { return };
    let context = context(driver);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let push = Push::with_options(
        &context,
        options_with(|options| options.reconnect_ivl = Some(Duration::from_millis(1))),
    )
    .unwrap();
    push.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
    let sender = std::thread::spawn({
        let push = push.clone();
        move || {
            let mut sent = 0_u32;
            while push.send_blocking(sent.to_le_bytes().as_slice()).is_ok() {
                sent += 1;
            }
            sent
        }
    });
    let mut dice = Dice(99);
    let (mut delivered, mut skipped, mut next) = (0_u32, 0_u32, 0_u32);
    for _ in 0..ROUNDS {
        let (stream, _) = listener.accept().unwrap();
        let mut peer = Raw::of(stream);
        peer.shake("PULL", "");
        for _ in 0..dice.roll(3000) {
            let (flags, body) = peer.frame();
            assert_eq!((flags, body.len()), (0, 4), "not a whole message");
            let number = u32::from_le_bytes(body.try_into().unwrap());
            assert!(number >= next, "{number} came after {next}: twice, or out of order");
            skipped += number - next;
            next = number + 1;
            delivered += 1;
        }
        peer.reset();
    }
    let (stream, _) = listener.accept().unwrap();
    let mut peer = Raw::of(stream);
    peer.shake("PULL", "");
    push.set_options(|options| {
        options.sndtimeo = Some(Duration::from_millis(100));
        Ok(())
    })
    .unwrap();
    // The queue runs full, and what is in it arrives to the last.
    let sent = sender.join().unwrap_or(0);
    while next < sent {
        let number = u32::from_le_bytes(peer.frame().1.try_into().unwrap());
        assert!(number >= next);
        skipped += number - next;
        next = number + 1;
        delivered += 1;
    }
    child::say(&format!(
        "measured: {sent} sent, {delivered} delivered, {skipped} lost in flight in {ROUNDS} losses"
    ));
    assert_eq!(sent, delivered + skipped);
    assert!(delivered > 10_000);
    context.term_blocking();
}
