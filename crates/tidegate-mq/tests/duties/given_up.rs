//! Endpoints that nobody dials any more, by rule or because the peer refused: what is sent goes to others, what is queued
//! waits to be told, and nobody waits for it.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{
    AnySocket, Context, Error, Options, Pair, Pull, Push, Req, Router, SocketType,
    auth::PlainTable,
    monitor::{EventKind, Monitor},
    options::{Mechanism, PlainOptions, ReconnectStop},
};

use super::{
    kept::Kept,
    rig::{ANYWHERE, DRIVERS, PATIENCE, context, established, event, options, options_with},
};

/// The first refusal is the last attempt.
fn once() -> Options {
    options_with(|options| {
        options.reconnect_stop = ReconnectStop { connection_refused: true, ..ReconnectStop::default() };
    })
}

#[track_caller]
fn stopped(monitor: &Monitor) {
    event(monitor, "stop", |kind| matches!(kind, EventKind::Stopped).then_some(()));
}

/// How many messages were discarded in all, by the time the context has ended.
#[track_caller]
fn ended(context: Context) -> u64 {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(context.term_blocking()));
    told.recv_timeout(PATIENCE).expect("the context does not end")
}

/// Rules: MQ-070, MQ-186, MQ-283.
#[test]
fn what_nobody_dials_for_is_passed_over() {
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(&context, options()).unwrap();
        let good = pull.bind_blocking(ANYWHERE).unwrap();
        let (_kept, refused) = Kept::new();
        let push = Push::with_options(&context, once()).unwrap();
        let monitor = push.monitor();
        push.connect(&format!("tcp://{refused}")).unwrap();
        stopped(&monitor);
        assert!(!push.readiness().unwrap().send);
        assert!(matches!(push.try_send("nowhere").unwrap_err().error, Error::WouldBlock));
        push.connect(&good).unwrap();
        for number in 0..10 {
            push.try_send(format!("{number}")).unwrap();
        }
        for number in 0..10 {
            assert_eq!(pull.recv_blocking().unwrap().parts()[0], format!("{number}"));
        }

        let router = Router::with_options(&context, options()).unwrap();
        let good = router.bind_blocking(ANYWHERE).unwrap();
        let req = Req::with_options(&context, once()).unwrap();
        let monitor = req.monitor();
        req.connect(&format!("tcp://{refused}")).unwrap();
        stopped(&monitor);
        assert!(!req.readiness().unwrap().send);
        req.connect(&good).unwrap();
        req.try_send("request").unwrap();
        assert_eq!(router.recv_blocking().unwrap().parts()[2], "request");

        let pair = Pair::with_options(&context, once()).unwrap();
        let monitor = pair.monitor();
        pair.connect(&format!("tcp://{refused}")).unwrap();
        stopped(&monitor);
        assert!(matches!(pair.try_send("nowhere").unwrap_err().error, Error::WouldBlock));
    }
}

/// A connection that is lost for good is no different from one that never came.
///
/// Rules: MQ-070, MQ-277, MQ-283.
#[test]
fn what_was_lost_for_good_is_passed_over() {
    for driver in DRIVERS {
        let context = context(driver);
        let bind = || {
            let pull = Pull::with_options(&context, options()).unwrap();
            let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
            (pull, endpoint)
        };
        let (first, lost) = bind();
        let (second, good) = bind();
        let never = options_with(|options| options.reconnect_ivl = None);
        let push = Push::with_options(&context, never).unwrap();
        let monitor = push.monitor();
        push.connect(&lost).unwrap();
        established(&monitor);
        push.connect(&good).unwrap();
        established(&monitor);
        first.close_blocking(None);
        stopped(&monitor);
        for number in 0..10 {
            push.try_send(format!("{number}")).unwrap();
            assert_eq!(second.recv_blocking().unwrap().parts()[0], format!("{number}"));
        }
    }
}

/// What was queued before goes first, and there is one connection, not a second one beside what was given up.
///
/// Rules: MQ-280, MQ-283.
#[test]
fn who_connects_again_takes_up_what_was_given_up() {
    for driver in DRIVERS {
        let context = context(driver);
        let (kept, place) = Kept::new();
        let endpoint = format!("tcp://{place}");
        let push = Push::with_options(&context, once()).unwrap();
        let monitor = push.monitor();
        push.connect(&endpoint).unwrap();
        // Queued while it is still tried, or refused when it is not any more.
        let queued = push.try_send("before").is_ok();
        stopped(&monitor);
        let pull = Pull::with_options(&context, options()).unwrap();
        drop(kept);
        pull.bind_blocking(&endpoint).unwrap();
        assert!(push.try_send("still nowhere").is_err());
        push.connect(&endpoint).unwrap();
        push.try_send("after").unwrap();
        let delay = event(&monitor, "restart", |kind| match kind {
            EventKind::ConnectRetried(delay) => Some(*delay),
            _ => None,
        });
        assert_eq!(delay, Duration::ZERO);
        for expected in ["before", "after"].into_iter().skip(usize::from(!queued)) {
            assert_eq!(pull.recv_blocking().unwrap().parts()[0], expected);
        }
        assert_eq!(push.peers().len(), 1);
    }
}

/// Rules: MQ-070, MQ-280.
#[test]
fn who_is_refused_is_given_nothing() {
    for driver in DRIVERS {
        let context = context(driver);
        let table = PlainTable::new([("ann", "s3cret")]).unwrap();
        let guarded = options_with(|options| {
            let authenticator = Some(Arc::new(table) as _);
            options.mechanism = Mechanism::Plain(PlainOptions::Server { authenticator });
        });
        let guard = Pull::with_options(&context, guarded).unwrap();
        let refusing = guard.bind_blocking(ANYWHERE).unwrap();
        let client = |password: &str| {
            let (username, password) = ("ann".into(), password.into());
            options_with(|options| {
                options.mechanism = Mechanism::Plain(PlainOptions::Client { username, password });
            })
        };
        let push = Push::with_options(&context, client("wrong")).unwrap();
        let monitor = push.monitor();
        push.connect(&refusing).unwrap();
        stopped(&monitor);
        assert!(matches!(push.try_send("secret").unwrap_err().error, Error::WouldBlock));
        let refused = push.connect_ready_blocking(&refusing, PATIENCE).unwrap_err();
        assert!(matches!(&refused, Error::Stopped(endpoint) if *endpoint == refusing), "{refused}");
        stopped(&monitor);

        // With what is known by then, whichever way it is told to go on.
        for again in [Push::retry, Push::connect] {
            let push = Push::with_options(&context, client("wrong")).unwrap();
            let monitor = push.monitor();
            push.connect(&refusing).unwrap();
            stopped(&monitor);
            push.set_options(|options| {
                options.mechanism = client("s3cret").mechanism;
                Ok(())
            })
            .unwrap();
            again(&push, &refusing).unwrap();
            push.send_blocking("hello").unwrap();
            assert_eq!(guard.recv_blocking().unwrap().parts()[0], "hello");
        }
    }
}

/// Without a pipe to tell it, too: there is one endpoint, however often its peer refuses it, and nobody waits for it.
///
/// Rules: MQ-274, MQ-280, MQ-306.
#[test]
fn who_queues_nothing_beforehand_is_taken_up_again_all_the_same() {
    use SocketType::{Pair, Pull, Push, Rep, Req, Router, XPub, XSub};
    for driver in DRIVERS {
        for (kind, peer) in [
            (Push, Pull),
            (Pull, Push),
            (Router, Router),
            (Pair, Pair),
            (XPub, XSub),
            (XSub, XPub),
            (Rep, Req),
        ] {
            let context = context(driver);
            let table = PlainTable::new([("ann", "s3cret")]).unwrap();
            let guarded = options_with(|options| {
                let authenticator = Some(Arc::new(table) as _);
                options.mechanism = Mechanism::Plain(PlainOptions::Server { authenticator });
            });
            let guard = AnySocket::of_type_with(&context, peer, guarded).unwrap();
            let endpoint = guard.bind_blocking(ANYWHERE).unwrap();
            let client = options_with(|options| {
                options.immediate = true;
                let (username, password) = ("ann".into(), "wrong".into());
                options.mechanism = Mechanism::Plain(PlainOptions::Client { username, password });
            });
            let socket = AnySocket::of_type_with(&context, kind, client).unwrap();
            let monitor = socket.monitor();
            socket.connect(&endpoint).unwrap();
            stopped(&monitor);
            for _ in 0..2 {
                let refused = socket.connect_ready_blocking(&endpoint, PATIENCE).unwrap_err();
                assert!(
                    matches!(&refused, Error::Stopped(stopped) if *stopped == endpoint),
                    "{kind:?}: {refused}"
                );
                stopped(&monitor);
            }
            socket
                .set_options(|options| {
                    let (username, password) = ("ann".into(), "s3cret".into());
                    options.mechanism = Mechanism::Plain(PlainOptions::Client { username, password });
                    Ok(())
                })
                .unwrap();
            socket.retry(&endpoint).unwrap();
            established(&monitor);
            assert_eq!(socket.peers().len(), 1, "{kind:?}");
        }
    }
}

/// Rules: MQ-080, MQ-081.
#[test]
fn a_closed_socket_keeps_nobody_waiting() {
    for driver in DRIVERS {
        for linger in [Duration::ZERO, Duration::from_millis(50)] {
            let context = context(driver);
            let (_kept, place) = Kept::new();
            // Its own option would have it linger for ever.
            let push = Push::with_options(&context, options_with(|options| options.linger = None)).unwrap();
            push.connect(&format!("tcp://{place}")).unwrap();
            push.send_blocking("for nobody").unwrap();
            assert_eq!(push.close_blocking(Some(linger)), 1);
            assert_eq!(ended(context), 1);
        }
        // Whoever stops waiting does not change what was said.
        let context = context(driver);
        let push = Push::with_options(&context, options_with(|options| options.linger = None)).unwrap();
        push.connect("inproc://nobody").unwrap();
        push.send_blocking("for nobody").unwrap();
        let mut closing = Box::pin(push.close(Some(Duration::from_millis(50))));
        let waker = std::task::Waker::noop();
        assert!(closing.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        drop(closing);
        assert_eq!(ended(context), 1);
    }
}

/// Rules: MQ-080, MQ-081, MQ-283.
#[test]
fn nobody_lingers_for_what_nobody_dials() {
    for driver in DRIVERS {
        let context = context(driver);
        let (_kept, place) = Kept::new();
        let mut lingering = once();
        lingering.linger = None;
        let push = Push::with_options(&context, lingering).unwrap();
        let monitor = push.monitor();
        push.connect(&format!("tcp://{place}")).unwrap();
        let queued = u64::from(push.try_send("for nobody").is_ok());
        stopped(&monitor);
        drop(push);
        let started = Instant::now();
        assert_eq!(ended(context), queued);
        assert!(started.elapsed() < PATIENCE);
    }
}
