//! Durations: what is too long to tell from never is never, and nothing that is waited for so long harms a worker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_io::wait::block_on;
use tidegate_mq::{
    Context, Error, Options, Pull, Push,
    auth::Decision,
    monitor::EventKind,
    options::{Mechanism, PlainOptions},
};

use crate::{
    free_endpoint,
    peer::PATIENCE,
    rig::{ANYWHERE, DRIVERS, context, disconnected, established, event, options, options_with},
};

/// Too long for the clock, and as long as the clock can just tell.
const FAR: [Duration; 3] =
    [Duration::MAX, Duration::from_secs(i64::MAX as u64), Duration::from_secs(i64::MAX as u64 / 2)];

/// Every duration there is, as long as this. Handshakes and calls of a test may take as long as they like, its end may not.
fn everything(far: Duration) -> Options {
    options_with(|options| {
        options.reconnect_ivl = Some(far);
        options.reconnect_ivl_max = far;
        options.rcvtimeo = Some(far);
        options.sndtimeo = Some(far);
        options.linger = Some(far);
        options.handshake_ivl = Some(far);
        options.heartbeat_ivl = Some(far);
        options.heartbeat_timeout = Some(far);
        options.connect_timeout = Some(far);
        options.auth_retry_ivl = Some(far);
    })
}

#[track_caller]
fn wait<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) -> T {
    block_on(future, Some(Instant::now() + PATIENCE)).expect("in time").unwrap()
}

/// Rules: MQ-287, MQ-277.
#[test]
fn durations_without_end_harm_nothing() {
    for driver in DRIVERS {
        for far in FAR {
            let context = context(driver);
            let pull = Pull::with_options(&context, everything(far)).unwrap();
            let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
            let push = Push::with_options(&context, everything(far)).unwrap();
            let monitor = push.monitor();
            wait(push.connect_ready(&endpoint, far));
            established(&monitor);
            push.send_blocking("first").unwrap();
            assert_eq!(pull.recv_blocking().unwrap().parts()[0], "first");
            wait(push.send("second"));
            assert_eq!(wait(pull.recv()).parts()[0], "second");
            // Pending when the message comes, so that the time is asked for.
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| wait(pull.recv()));
                push.send_blocking("third").unwrap();
                assert_eq!(waiting.join().unwrap().parts()[0], "third");
            });

            // Nobody there: the one attempt fails, and no other follows. The worker serves on.
            let lonely = Push::with_options(&context, everything(far)).unwrap();
            let alone = lonely.monitor();
            lonely.connect(&free_endpoint()).unwrap();
            event(&alone, "the end", |kind| matches!(kind, EventKind::Stopped).then_some(()));
            pull.unbind(&endpoint).unwrap();
            event(&monitor, "the loss", disconnected);
            event(&monitor, "the end", |kind| matches!(kind, EventKind::Stopped).then_some(()));
            let other = Pull::with_options(&context, everything(far)).unwrap();
            let next = Push::with_options(&context, everything(far)).unwrap();
            next.connect(&other.bind_blocking(ANYWHERE).unwrap()).unwrap();
            next.send_blocking("still there").unwrap();
            assert_eq!(other.recv_blocking().unwrap().parts()[0], "still there");
            context.term_blocking();
        }
    }
}

/// Some durations have to fit into what the system or the protocol has room for.
///
/// Rules: MQ-287.
#[test]
fn durations_that_nothing_has_room_for_are_refused() {
    let refused = |change: fn(&mut Options)| match Push::with_options(&Context::new(), options_with(change)) {
        Err(Error::InvalidOption { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(|options| options.heartbeat_ttl = Duration::MAX), "heartbeat_ttl");
    assert_eq!(refused(|options| options.tcp_maxrt = Duration::MAX), "tcp_maxrt");
    let longest = options_with(|options| options.tcp_maxrt = Duration::from_millis(i32::MAX as u64));
    let context = Context::new();
    let pull = Pull::with_options(&context, longest.clone()).unwrap();
    let push = Push::with_options(&context, longest).unwrap();
    push.connect(&pull.bind_blocking(ANYWHERE).unwrap()).unwrap();
    push.send_blocking("through").unwrap();
    assert_eq!(pull.recv_blocking().unwrap().parts()[0], "through");
}

/// A refused client stops, or tries again after the time that it was told.
///
/// Rules: MQ-280.
#[test]
fn auth_retry_ivl_is_the_time_after_a_refusal() {
    let context = Context::new();
    let server = options_with(|options| {
        let authenticator = |_| Decision::Refuse;
        options.mechanism =
            Mechanism::Plain(PlainOptions::Server { authenticator: Some(Arc::new(authenticator)) });
    });
    let server = Pull::with_options(&context, server).unwrap();
    let endpoint = server.bind_blocking(ANYWHERE).unwrap();
    let follows = |time: Option<Duration>| {
        let mut options = options();
        let (username, password) = ("eve".into(), "guess".into());
        options.mechanism = Mechanism::Plain(PlainOptions::Client { username, password });
        options.auth_retry_ivl = time;
        let client = Push::with_options(&context, options).unwrap();
        let monitor = client.monitor();
        client.connect(&endpoint).unwrap();
        event(&monitor, "what follows", |kind| match kind {
            EventKind::Stopped => Some(None),
            EventKind::ConnectRetried(delay) => Some(Some(*delay)),
            _ => None,
        })
    };
    assert_eq!(follows(None), None);
    assert_eq!(follows(Some(Duration::ZERO)), None);
    let time = 9 * PATIENCE;
    let delay = follows(Some(time)).expect("it tries again");
    assert!(delay >= time && delay <= time.mul_f64(1.25), "{delay:?}");
    let delay = follows(Some(Duration::from_millis(1))).expect("it tries again");
    assert!(delay >= Duration::from_secs(1), "{delay:?}: refused clients come once a second at most");
}
