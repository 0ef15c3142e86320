//! `max_queued_bytes`: what the queues of all sockets of a context may hold together.

use std::{
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{
    AnySocket, Context, ContextOptions, Dealer, Error, Interest, Pair, Pub, Pull, Push, Req, Router,
    SocketType, Sub,
    monitor::EventKind,
    options::{Mechanism, PlainOptions, RoutingId, SlowSubscriberPolicy},
};

use super::{
    peer::PATIENCE,
    rig::{ANYWHERE, DRIVERS, context, established, event, options, options_with, until},
};

const LIMIT: usize = 100_000;
const MESSAGE: usize = 10_000;

fn limited(bytes: usize) -> Context {
    let mut options = ContextOptions::default();
    options.max_queued_bytes = Some(bytes);
    Context::with_options(options)
}

/// An endpoint with a name that nobody binds: what is sent there is queued.
fn fill(context: &Context) -> Push {
    let push = Push::with_options(context, options()).unwrap();
    push.connect("inproc://nobody").unwrap();
    let mut sent = 0;
    while push.try_send(vec![0; MESSAGE]).is_ok() {
        sent += 1;
    }
    // The last one may exceed the limit.
    assert_eq!(sent, LIMIT / MESSAGE);
    assert!(context.queue_usage().unwrap().bytes >= LIMIT);
    push
}

/// Of every type that waits when its queues are full, a socket whose own queue is empty waits when those of another
/// hold what all may hold, and goes on when they do not any more.
///
/// Rules: MQ-066.
#[test]
fn types_that_block_wait_for_other_sockets() {
    let context = limited(LIMIT);
    let (push, dealer, pair, req) = (
        Push::with_options(&context, options()).unwrap(),
        Dealer::with_options(&context, options()).unwrap(),
        Pair::with_options(&context, options()).unwrap(),
        Req::with_options(&context, options()).unwrap(),
    );
    push.connect("inproc://push").unwrap();
    dealer.connect("inproc://dealer").unwrap();
    pair.connect("inproc://pair").unwrap();
    req.connect("inproc://req").unwrap();
    let mandatory = options_with(|options| options.router_mandatory = true);
    let router = Router::with_options(&context, mandatory).unwrap();
    router.bind_blocking("inproc://router").unwrap();
    let peer = Dealer::with_options(
        &context,
        options_with(|options| options.routing_id = Some(RoutingId::new("D").unwrap())),
    )
    .unwrap();
    peer.connect("inproc://router").unwrap();
    let to_peer = || ["D", "body"].into_iter().collect::<tidegate_mq::Message>();
    let careful = options_with(|options| options.xpub_nodrop = true);
    let publisher = Pub::with_options(&context, careful).unwrap();
    publisher.bind_blocking("inproc://pub").unwrap();
    let subscriber = Sub::with_options(&context, options()).unwrap();
    subscriber.subscribe("").unwrap();
    subscriber.connect("inproc://pub").unwrap();

    let full = fill(&context);
    assert_eq!(context.queue_usage().unwrap().exhausted, 1);
    let blocked = |error: tidegate_mq::SendError| assert!(matches!(error.error, Error::WouldBlock));
    blocked(push.try_send("m").unwrap_err());
    blocked(dealer.try_send("m").unwrap_err());
    blocked(pair.try_send("m").unwrap_err());
    blocked(req.try_send("m").unwrap_err());
    blocked(router.try_send(to_peer()).unwrap_err());
    blocked(publisher.try_send("m").unwrap_err());
    assert!(matches!(push.try_reserve(), Err(Error::WouldBlock)));
    assert!(!push.readiness().unwrap().send);

    thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| push.send_blocking("m").map_err(|error| error.error)),
            scope.spawn(|| dealer.send_blocking("m").map_err(|error| error.error)),
            scope.spawn(|| pair.send_blocking("m").map_err(|error| error.error)),
            scope.spawn(|| req.send_blocking("m").map_err(|error| error.error)),
            scope.spawn(|| router.send_blocking(to_peer()).map_err(|error| error.error)),
            scope.spawn(|| publisher.send_blocking("m").map_err(|error| error.error)),
            scope.spawn(|| {
                let by = Instant::now().checked_add(PATIENCE);
                let ready = tidegate_io::wait::block_on(push.ready(Interest::Send), by);
                ready.unwrap_or(Err(Error::Timeout)).map(drop)
            }),
        ];
        // Most of them wait by now; those that come later find it so or free.
        thread::sleep(Duration::from_millis(50));
        assert!(waiting.iter().all(|thread| !thread.is_finished()));
        full.disconnect("inproc://nobody").unwrap();
        for thread in waiting {
            thread.join().unwrap().unwrap();
        }
    });
    assert_eq!(peer.recv_blocking().unwrap().parts()[0], *b"body");
    assert_eq!(subscriber.recv_blocking().unwrap().parts()[0], *b"m");
}

/// A type that drops for full queues drops, and counts that.
///
/// Rules: MQ-066, MQ-067.
#[test]
fn types_that_drop_drop_and_count() {
    let context = limited(LIMIT);
    let publisher = Pub::with_options(&context, options()).unwrap();
    publisher.bind_blocking("inproc://pub").unwrap();
    let subscriber = Sub::with_options(&context, options()).unwrap();
    subscriber.subscribe("").unwrap();
    subscriber.connect("inproc://pub").unwrap();
    let router = Router::with_options(&context, options()).unwrap();
    router.bind_blocking("inproc://router").unwrap();
    let dealer = Dealer::with_options(
        &context,
        options_with(|options| options.routing_id = Some(RoutingId::new("D").unwrap())),
    )
    .unwrap();
    dealer.connect("inproc://router").unwrap();

    let full = fill(&context);
    publisher.try_send("lost").unwrap();
    router.try_send(["D", "lost"].into_iter().collect::<tidegate_mq::Message>()).unwrap();
    for dropped in [publisher.metrics().out, router.metrics().out] {
        assert_eq!((dropped.dropped_over_budget, dropped.dropped_full), (1, 0));
    }
    drop(full);
    until("the closed socket has let go of its messages", || context.queue_usage().unwrap().bytes == 0);
    publisher.try_send("found").unwrap();
    router.try_send(["D", "found"].into_iter().collect::<tidegate_mq::Message>()).unwrap();
    assert_eq!(subscriber.recv_blocking().unwrap().parts()[0], *b"found");
    assert_eq!(dealer.recv_blocking().unwrap().parts()[0], *b"found");
}

/// Who may connect is asked and answered while nothing more may be queued, by a handler of either type, bound before that
/// or after.
///
/// Rules: MQ-066, MQ-163.
#[test]
fn handshakes_are_decided_at_the_ceiling() {
    for driver in DRIVERS {
        for (kind, is_early) in [(SocketType::Rep, true), (SocketType::Router, false)] {
            let mut how = ContextOptions::default();
            how.driver = driver;
            how.max_queued_bytes = Some(LIMIT);
            let ours = Context::with_options(how);
            let handler = AnySocket::of_type_with(&ours, kind, options()).unwrap();
            let bind = || drop(handler.bind_blocking("inproc://zeromq.zap.01").unwrap());
            if is_early {
                bind();
            }
            let full = fill(&ours);
            if !is_early {
                bind();
            }
            let guarded = options_with(|options| {
                options.mechanism = Mechanism::Plain(PlainOptions::Server { authenticator: None });
            });
            let server = Pull::with_options(&ours, guarded).unwrap();
            let monitor = server.monitor();
            let endpoint = server.bind_blocking(ANYWHERE).unwrap();
            let theirs = context(driver);
            let known = options_with(|options| {
                let (username, password) = ("ann".into(), "s3cret".into());
                options.mechanism = Mechanism::Plain(PlainOptions::Client { username, password });
            });
            let client = Push::with_options(&theirs, known).unwrap();
            client.connect(&endpoint).unwrap();
            let asked = handler.recv_blocking().unwrap();
            // A ROUTER's begins with the way back.
            let version = asked.parts().iter().position(|part| *part == "1.0").unwrap();
            let mut answer: tidegate_mq::Message = asked.parts()[..version + 2].iter().cloned().collect();
            for part in ["200", "OK", "ann", ""] {
                answer.push(part);
            }
            handler.try_send(answer).unwrap();
            let who = event(&monitor, "decision", |kind| match kind {
                EventKind::HandshakeSucceeded { user_id, .. } => Some(user_id.clone()),
                _ => None,
            });
            assert_eq!(who, "ann");
            assert!(ours.queue_usage().unwrap().bytes >= LIMIT);
            drop(full);
            until("nothing is counted", || ours.queue_usage().unwrap().bytes == 0);
        }
    }
}

/// Who misses messages because others use the ceiling up is not slow, and stays.
///
/// Rules: MQ-066, MQ-222.
#[test]
fn who_misses_messages_for_others_is_not_cut_off() {
    for kind in [SocketType::Pub, SocketType::XPub] {
        let context = limited(LIMIT);
        let impatient = options_with(|options| options.pub_slow_policy = SlowSubscriberPolicy::Disconnect(1));
        let publisher = AnySocket::of_type_with(&context, kind, impatient).unwrap();
        publisher.bind_blocking("inproc://pub").unwrap();
        let subscriber = Sub::with_options(&context, options()).unwrap();
        subscriber.subscribe("").unwrap();
        subscriber.connect("inproc://pub").unwrap();
        let full = fill(&context);
        (0..3).for_each(|_| publisher.try_send("lost").unwrap());
        assert_eq!(publisher.metrics().out.dropped_over_budget, 3);
        full.disconnect("inproc://nobody").unwrap();
        publisher.try_send("found").unwrap();
        assert_eq!(subscriber.recv_blocking().unwrap().parts()[0], *b"found");
    }
}

/// A connection is read no further than the ceiling allows, however much its own queue would take, and nothing is lost.
///
/// Rules: MQ-066, MQ-062.
#[test]
fn reading_stops_at_the_ceiling() {
    const LIMIT: usize = 1 << 20;
    const COUNT: usize = 4000;
    for driver in DRIVERS {
        let mut how = ContextOptions::default();
        how.driver = driver;
        how.max_queued_bytes = Some(LIMIT);
        let ours = Context::with_options(how);
        let unbounded = options_with(|options| (options.rcvhwm, options.rcvhwm_bytes) = (0, 0));
        let pull = Pull::with_options(&ours, unbounded).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let theirs = context(driver);
        let push = Push::with_options(&theirs, options_with(|options| options.sndhwm = 10)).unwrap();
        push.connect(&endpoint).unwrap();
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                for number in 0..COUNT as u32 {
                    let mut body = vec![0; MESSAGE];
                    body[..4].copy_from_slice(&number.to_le_bytes());
                    push.send_blocking(body).unwrap();
                }
            });
            until("the ceiling is reached", || ours.queue_usage().unwrap().exhausted > 0);
            // What is with the operating system has time to arrive, if it were read.
            until("the sender is held up", || {
                let before = push.metrics().out.entered;
                thread::sleep(Duration::from_millis(100));
                push.metrics().out.entered == before
            });
            assert!(!sender.is_finished(), "40 MB went somewhere");
            for number in 0..COUNT as u32 {
                let held = ours.queue_usage().unwrap().bytes;
                assert!(held <= LIMIT + (1 << 20), "{held} bytes are held");
                let message = pull.recv_blocking().unwrap();
                assert_eq!(message.parts()[0].as_slice()[..4], number.to_le_bytes());
            }
            sender.join().unwrap();
        });
        assert_eq!(ours.queue_usage().unwrap().bytes, 0);
        ours.term_blocking();
        theirs.term_blocking();
    }
}

/// What a socket holds does not count any more when it is gone, by whatever way: read, written, disconnected, lost with
/// a connection, or closed.
///
/// Rules: MQ-066.
#[test]
fn nothing_is_counted_for_ever() {
    let context = limited(usize::MAX);
    let held = || context.queue_usage().unwrap().bytes;
    let pull = Pull::with_options(&context, options()).unwrap();
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect(&endpoint).unwrap();
    established(&monitor);
    for round in 0..3 {
        for _ in 0..10 {
            push.send_blocking(vec![0; MESSAGE]).unwrap();
        }
        until("ten are received", || pull.metrics().inbound.entered == 10 * (round + 1));
        assert!(held() >= 10 * MESSAGE);
        for _ in 0..10 {
            pull.recv_blocking().unwrap();
        }
        until("nothing is held", || held() == 0);
    }
    for _ in 0..10 {
        push.send_blocking(vec![0; MESSAGE]).unwrap();
    }
    until("ten are received", || pull.metrics().inbound.entered == 40);
    drop(push);
    event(&monitor, "the end", |kind| matches!(kind, EventKind::Disconnected { .. }).then_some(()));
    assert!(held() >= 10 * MESSAGE, "what was received stays");
    drop(pull);
    until("nothing is held", || held() == 0);
    assert!(Context::new().queue_usage().is_none(), "nobody counts without a limit");
}
