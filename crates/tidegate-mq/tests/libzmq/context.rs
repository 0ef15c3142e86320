//! Contexts: options, limits, shutting down, timeouts, and use by many threads.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tidegate_mq::{Context, ContextOptions, Dealer, Error, Pub, Pull, Push, Rep, Req, Sub};

use crate::{child, support::*};

/// libzmq: test_ctx_destroy/test_ctx_shutdown, test_zmq_ctx_term_null_fails (as far as it can be written).
///
/// Rules: MQ-083, MQ-371.
#[test]
fn shutdown_wakes() {
    for endpoint in TRANSPORTS {
        let context = context();
        let pull = Pull::with_options(&context, with(|options| options.rcvtimeo = None)).unwrap();
        pull.bind_blocking(endpoint).unwrap();
        let receiving = pull.clone();
        let (started, starting) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            started.send(()).unwrap();
            let error = receiving.recv_blocking().unwrap_err();
            (error, Instant::now())
        });
        starting.recv().unwrap();
        let shut = Instant::now();
        context.term_blocking();
        let (error, woken) = waiting.join().unwrap();
        assert!(matches!(error, Error::Terminated), "{error:?}");
        assert_eq!(error.errno(), 156_384_765);
        assert!(woken.saturating_duration_since(shut) < Duration::from_secs(20));
        assert!(matches!(Pull::new(&context), Err(Error::Terminated)));
        assert!(matches!(pull.try_recv(), Err(Error::Terminated)));
        // A second time is no harm.
        assert_eq!(context.term_blocking(), 0);
    }
}

/// libzmq: test_ctx_options/* (defaults, ranges, blocky, ipv6, max_sockets).
///
/// Rules: MQ-294, MQ-348, MQ-349, MQ-350, MQ-351, MQ-352.
#[test]
fn context_options() {
    let defaults = ContextOptions::default();
    assert_eq!((defaults.io_threads, defaults.max_sockets, defaults.max_msgsz), (1, None, i32::MAX as usize));
    assert_eq!((defaults.blocky, defaults.ipv6), (true, false));
    let plain = Context::with_options(defaults);
    assert_eq!(Dealer::new(&plain).unwrap().options().linger, None);
    assert_eq!(Sub::new(&plain).unwrap().options().linger, Some(Duration::ZERO));
    let mut changed = ContextOptions::default();
    changed.blocky = false;
    changed.ipv6 = true;
    changed.io_threads = 0;
    let context = Context::with_options(changed);
    let dealer = Dealer::new(&context).unwrap();
    assert_eq!(dealer.options().linger, Some(Duration::ZERO));
    assert!(dealer.options().ipv6);
    assert!(matches!(dealer.bind_blocking("tcp://127.0.0.1:*"), Err(Error::NoIoThread(_))));
    dealer.bind_blocking("inproc://a").unwrap();
    // By number, as bindings set them.
    let int = |value: i32| value.to_ne_bytes();
    let mut options = ContextOptions::default();
    for (number, default, good, bad) in [
        (1, 1, 0, -1),
        (2, i32::MAX, 1, 0),
        (5, i32::MAX, 1, 0),
        (10, 1, 0, 2),
        (42, 0, 1, -1),
        (70, 1, 0, 2),
    ] {
        assert_eq!(options.raw(number).unwrap(), int(default), "{number}");
        options.set_raw(number, &int(good)).unwrap();
        assert_eq!(options.raw(number).unwrap(), int(good), "{number}");
        assert_eq!(options.set_raw(number, &int(bad)).unwrap_err().errno(), 22, "{number}");
        assert_eq!(options.set_raw(number, &[0; 3]).unwrap_err().errno(), 22, "{number}");
        assert_eq!(options.raw(number).unwrap(), int(good), "{number}");
    }
    assert_eq!(options.raw(3).unwrap(), int(i32::MAX));
    options.set_raw(9, b"prefix").unwrap();
    assert_eq!(options.raw(9).unwrap(), b"prefix");
    // Priority and policy of threads, and what is no option at all.
    for number in [3, 4, 0, 9999] {
        assert_eq!(options.set_raw(number, &int(1)).unwrap_err().errno(), 95, "{number}");
    }
    assert_eq!(options.raw(9999).unwrap_err().errno(), 95);
}

/// libzmq: test_many_sockets, test_system/test_max_sockets.
///
/// Rules: MQ-349, MQ-519.
#[test]
fn max_sockets() {
    let mut limited = ContextOptions::default();
    limited.max_sockets = Some(100);
    let context = Context::with_options(limited);
    let mut sockets: Vec<_> = (0..100).map(|_| Dealer::with_options(&context, options()).unwrap()).collect();
    let error = Dealer::new(&context).map(drop).unwrap_err();
    assert!(matches!(error, Error::TooManySockets { limit: 100 }));
    assert_eq!(error.errno(), 24);
    sockets.pop();
    until("there is room again", || Dealer::new(&context).is_ok());
    let unlimited = Context::new();
    let many: Vec<_> = (0..10_000).map(|_| Dealer::with_options(&unlimited, options()).unwrap()).collect();
    assert_eq!(many.len(), 10_000);
}

/// Sockets are limited by nothing; what needs a descriptor fails cleanly when there is none, and works again when there
/// is.
///
/// libzmq: test_many_sockets, test_system/test_max_sockets (without descriptors).
///
/// Rules: MQ-085, MQ-349, MQ-519.
#[test]
fn many_sockets_and_few_descriptors() {
    let Some(driver) = child::alone("context::many_sockets_and_few_descriptors") else { return };
    let mut chosen = ContextOptions::default();
    chosen.driver = driver;
    let context = Context::with_options(chosen);
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum: old.maximum }).unwrap();
    let mut bound = Vec::new();
    let error = loop {
        let dealer = Dealer::with_options(&context, options()).unwrap();
        match dealer.bind_blocking("tcp://127.0.0.1:*") {
            Ok(endpoint) => bound.push((dealer, endpoint)),
            Err(error) => break error,
        }
        assert!(bound.len() < 200);
    };
    assert_eq!(error.errno(), 24, "{error}");
    assert!(bound.len() > 100, "{}", bound.len());
    // A listener takes a descriptor for a moment even when it finds nobody to accept.
    let mut taken = Vec::new();
    let error = loop {
        let dealer = Dealer::with_options(&context, options()).unwrap();
        match dealer.readable_fd() {
            Ok(descriptor) => taken.push(descriptor),
            Err(error) => break error,
        }
    };
    assert_eq!(error.errno(), 24, "{error}");
    let without = Dealer::with_options(&context, options()).unwrap();
    let many: Vec<_> = (0..1000).map(|_| Dealer::with_options(&context, options()).unwrap()).collect();
    without.bind_blocking("inproc://a").unwrap();
    many[0].connect("inproc://a").unwrap();
    bounce(&many[0], &without);
    // Four are given back: of one listener more, and of both ends of a connection with what opening it needs.
    bound.truncate(bound.len() - 4);
    let (listening, endpoint) = bound.last().unwrap();
    until("a connection is made", || many[1].connect(endpoint).is_ok());
    bounce(&many[1], listening);
    until("another can be bound", || without.bind_blocking("tcp://127.0.0.1:*").is_ok());
    setrlimit(Resource::Nofile, old).unwrap();
}

/// libzmq: test_shutdown_stress.
///
/// Rules: MQ-083, MQ-085.
#[test]
fn shutdown_stress() {
    for _ in 0..10 {
        let context = context();
        let publisher = Pub::with_options(&context, options()).unwrap();
        let endpoint = publisher.bind_blocking("tcp://127.0.0.1:*").unwrap();
        let threads: Vec<_> = (0..100)
            .map(|_| {
                let sub = Sub::with_options(&context, options()).unwrap();
                let endpoint = endpoint.clone();
                std::thread::spawn(move || match sub.connect(&endpoint) {
                    Ok(()) | Err(Error::Terminated | Error::Closed) => {}
                    Err(error) => panic!("{error}"),
                })
            })
            .collect();
        let started = Instant::now();
        context.term_blocking();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    }
}

/// libzmq: test_timeo.
///
/// Rules: MQ-187, MQ-300.
#[test]
fn timeouts() {
    let context = context();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://a").unwrap();
    for timeout in [0, 50, 250] {
        let timeout = Duration::from_millis(timeout);
        pull.set_options(|options| {
            options.rcvtimeo = Some(timeout);
            Ok(())
        })
        .unwrap();
        let started = Instant::now();
        assert_eq!(pull.recv_blocking().unwrap_err().errno(), 11);
        let took = started.elapsed();
        assert!(took >= timeout && took < timeout + Duration::from_millis(500), "{timeout:?} {took:?}");
    }
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://a").unwrap();
    push.send_blocking("in time").unwrap();
    expect(&pull, &[b"in time"]);
}

/// libzmq: test_thread_safe.
///
/// Rules: MQ-045, MQ-335, MQ-518.
#[test]
fn two_threads() {
    for endpoint in TRANSPORTS {
        let context = context();
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking(endpoint).unwrap();
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(&endpoint).unwrap();
        assert_eq!(push.raw(81).unwrap(), 1_i32.to_ne_bytes());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..5000).for_each(|_| push.send_blocking("x").unwrap()));
                scope.spawn(|| (0..5000).for_each(|_| expect(&pull, &[b"x"])));
            }
        });
        assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
    }
}

/// libzmq: test_zmq_poll_fd, test_poller/*.
///
/// Rules: MQ-048, MQ-526.
#[test]
fn poll_sockets_and_descriptors() {
    for endpoint in TRANSPORTS {
        let context = context();
        let rep = Rep::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(endpoint).unwrap();
        let req = Req::with_options(&context, options()).unwrap();
        req.connect(&endpoint).unwrap();
        let readable = rep.readable_fd().unwrap();
        let (plain, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let ready = |timeout: i64| {
            let mut fds = [
                PollFd::from_borrowed_fd(readable.as_fd(), PollFlags::IN),
                PollFd::new(&plain, PollFlags::IN),
            ];
            let timeout = rustix::event::Timespec { tv_sec: timeout, tv_nsec: 0 };
            poll(&mut fds, Some(&timeout)).unwrap();
            fds.map(|fd| fd.revents().contains(PollFlags::IN))
        };
        assert_eq!(ready(0), [false, false]);
        req.send_blocking("ask").unwrap();
        // It stays readable until the message is taken.
        assert_eq!(ready(10), [true, false]);
        assert_eq!(ready(10), [true, false]);
        std::io::Write::write_all(&mut &other, b"x").unwrap();
        assert_eq!(ready(10), [true, true]);
        expect(&rep, &[b"ask"]);
        assert_eq!(ready(0), [false, true]);
    }
}
