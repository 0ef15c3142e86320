//! Closing: what is sent still, what is not, and how long it takes.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use tidegate_io::wait::block_on;
use tidegate_mq::{Context, Dealer, Error, Pair, Pull, Push, Rep, Req, Router, Sub, options::Options};

use super::{
    child::{self, alone},
    peer::Raw,
    rig::{ANYWHERE, DRIVERS, context, established, options, options_with, until},
};

/// Options of a socket that is closed while a slow peer still reads.
fn lingering(linger: Option<Duration>) -> Options {
    options_with(|options| {
        options.linger = linger;
        options.sndbuf = Some(8192);
        options.sndhwm = 0;
    })
}

const COUNT: u32 = 500;

fn send_many(push: &Push) {
    for number in 0..COUNT {
        push.send_blocking([&number.to_le_bytes()[..], &[3; 20_000]].concat()).unwrap();
    }
}

/// How many of the messages arrive, all in order.
fn arrived(pull: &Pull) -> u32 {
    (0..COUNT)
        .take_while(|number| match pull.recv_blocking() {
            Ok(got) => {
                assert_eq!(got.parts()[0][..4], number.to_le_bytes());
                true
            }
            Err(_) => false,
        })
        .count() as u32
}

fn slow_pull(context: &Context) -> (Pull, String) {
    let pull = Pull::with_options(
        context,
        options_with(|options| {
            options.rcvhwm = 2;
            options.rcvbuf = Some(8192);
            options.rcvtimeo = Some(Duration::from_secs(2));
        }),
    )
    .unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    (pull, endpoint)
}

/// With an unlimited linger everything that was taken arrives, however the socket is closed: by `close`, by being
/// dropped, or with its context. The last bytes are not destroyed by the end of the connection.
///
/// Rules: MQ-080, MQ-081, MQ-082.
#[test]
fn what_was_taken_is_sent_before_the_end() {
    for driver in DRIVERS {
        for way in ["close", "drop", "term"] {
            let (near, far) = (context(driver), context(driver));
            let (pull, endpoint) = slow_pull(&far);
            let push = Push::with_options(&near, lingering(None)).unwrap();
            push.connect(&endpoint).unwrap();
            send_many(&push);
            let closing = thread::spawn(move || match way {
                "close" => block_on(push.close(None), None).unwrap(),
                "drop" => {
                    let start = Instant::now();
                    drop(push);
                    assert!(start.elapsed() < Duration::from_secs(2), "dropping waits");
                    near.term_blocking()
                }
                _ => near.term_blocking(),
            });
            assert_eq!(arrived(&pull), COUNT, "{way} {driver:?}");
            assert_eq!(closing.join().unwrap(), 0, "{way} {driver:?}");
            far.term_blocking();
        }
    }
}

/// With a limited linger closing takes that long with a peer that does not read, and tells how much was given up;
/// with none it takes no time. Several sockets linger at the same time.
///
/// Rules: MQ-080, MQ-081, MQ-461.
#[test]
fn lingering_is_bounded() {
    for driver in DRIVERS {
        for linger in [Duration::ZERO, Duration::from_millis(300)] {
            let context = context(driver);
            let mut peers = Vec::new();
            for _ in 0..5 {
                let push = Push::with_options(&context, lingering(Some(linger))).unwrap();
                let monitor = push.monitor();
                let endpoint = push.bind_blocking(ANYWHERE).unwrap();
                peers.push((Raw::up(&endpoint, "PULL", ""), push.clone()));
                established(&monitor);
                send_many(&push);
            }
            let start = Instant::now();
            let discarded = context.term_blocking();
            let took = start.elapsed();
            assert!(took >= linger && took < linger + Duration::from_millis(700), "{took:?} for {linger:?}");
            assert!(discarded > u64::from(COUNT), "{discarded} discarded");
        }
    }
}

/// Whoever waits when the context ends is told at once, and every later call is.
///
/// Rules: MQ-083.
#[test]
fn the_end_of_the_context_wakes_everybody() {
    for driver in DRIVERS {
        let context = context(driver);
        let waiting = options_with(|options| {
            options.rcvtimeo = None;
            options.sndtimeo = None;
        });
        let pull = Pull::with_options(&context, waiting.clone()).unwrap();
        let push = Push::with_options(&context, waiting.clone()).unwrap();
        let sub = Sub::with_options(&context, waiting.clone()).unwrap();
        let rep = Rep::with_options(&context, waiting).unwrap();
        pull.bind_blocking(ANYWHERE).unwrap();
        let barrier = Arc::new(Barrier::new(5));
        let mut threads: Vec<thread::JoinHandle<(Error, Instant)>> = Vec::new();
        let mut wait = |call: Box<dyn FnOnce() -> Error + Send>| {
            let barrier = barrier.clone();
            threads.push(thread::spawn(move || {
                barrier.wait();
                let error = call();
                (error, Instant::now())
            }));
        };
        wait(Box::new({
            let pull = pull.clone();
            move || pull.recv_blocking().unwrap_err()
        }));
        wait(Box::new({
            let push = push.clone();
            move || push.send_blocking("x").unwrap_err().error
        }));
        wait(Box::new({
            let sub = sub.clone();
            move || block_on(sub.recv(), None).unwrap().unwrap_err()
        }));
        wait(Box::new({
            let rep = rep.clone();
            move || rep.recv_blocking().unwrap_err()
        }));
        barrier.wait();
        // They are inside their calls, as far as that can be known from outside.
        until("everybody sleeps", || {
            let sleeping = std::fs::read_dir("/proc/self/task").unwrap().filter(|thread| {
                let stat = std::fs::read_to_string(thread.as_ref().unwrap().path().join("stat"));
                stat.is_ok_and(|stat| stat.contains(") S "))
            });
            sleeping.count() >= 4
        });
        let start = Instant::now();
        context.term_blocking();
        for thread in threads {
            let (error, at) = thread.join().unwrap();
            assert!(matches!(error, Error::Terminated), "{error}");
            assert!(at - start < Duration::from_secs(5), "woken after {:?}", at - start);
        }
        assert!(matches!(pull.try_recv(), Err(Error::Terminated)));
        assert!(matches!(push.try_send("x").unwrap_err().error, Error::Terminated));
        assert!(matches!(pull.bind_blocking(ANYWHERE), Err(Error::Terminated)));
        assert!(matches!(push.connect("tcp://127.0.0.1:9"), Err(Error::Terminated)));
        assert!(matches!(Req::new(&context), Err(Error::Terminated)));
    }
}

/// Contexts that end while sockets of all kinds bind, connect, send and receive: no panic, no deadlock, nothing left.
///
/// Rules: MQ-081, MQ-083, MQ-085.
#[test]
fn contexts_end_in_the_middle_of_everything() {
    let Some(driver) = alone("shutdown::contexts_end_in_the_middle_of_everything") else { return };
    let mut descriptors = 0;
    for round in 0..60_u64 {
        let context = context(driver);
        let router = Router::with_options(&context, options()).unwrap();
        let endpoint = router.bind_blocking(ANYWHERE).unwrap();
        let workers: Vec<_> = (0..4)
            .map(|number| {
                let (context, endpoint) = (context.clone(), endpoint.clone());
                thread::spawn(move || work(&context, &endpoint, number))
            })
            .collect();
        let serving = thread::spawn(move || {
            while let Ok(request) = router.recv_blocking() {
                if router.send_blocking(request).is_err() {
                    return;
                }
            }
        });
        thread::sleep(Duration::from_micros(round * 337 % 20_000));
        let start = Instant::now();
        context.term_blocking();
        assert!(start.elapsed() < Duration::from_secs(30), "ending took {:?}", start.elapsed());
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        serving.join().unwrap();
        drop(context);
        if round == 5 {
            descriptors = child::descriptors();
        }
    }
    until("all descriptors are closed", || child::descriptors() <= descriptors);
}

fn work(context: &Context, endpoint: &str, number: usize) {
    loop {
        let ended = match number {
            0 => Dealer::with_options(context, options()).and_then(|dealer| {
                dealer.connect(endpoint)?;
                dealer.send_blocking(vec![1; 5000])?;
                dealer.recv_blocking().map(drop)
            }),
            1 => Req::with_options(context, options()).and_then(|req| {
                req.connect(endpoint)?;
                req.send_blocking("x")?;
                req.recv_blocking().map(drop)
            }),
            2 => Pull::with_options(context, options()).and_then(|pull| {
                let endpoint = pull.bind_blocking(ANYWHERE)?;
                pull.unbind(&endpoint)
            }),
            _ => Pair::with_options(context, options()).and_then(|pair| {
                let _ = pair.bind_blocking("inproc://stress");
                let other = Pair::with_options(context, options())?;
                other.connect("inproc://stress")?;
                other.send_blocking("x")?;
                pair.recv_blocking().map(drop)
            }),
        };
        match ended {
            Ok(()) => {}
            Err(Error::Terminated | Error::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}
