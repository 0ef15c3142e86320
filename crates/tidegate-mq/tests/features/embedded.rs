//! Where the engine runs and whether it sleeps: on the test's own thread, and looking for more before it sleeps (MQ-057).

use std::{fs, thread, time::Duration};

use tidegate_mq::{Context, ContextOptions, Dealer, Embedded, Error, Pull, Push, Rep, Req};

use super::{
    child,
    rig::{ANYWHERE, DRIVERS, options, options_with, until},
};

fn embedded(driver: tidegate_mq::DriverChoice) -> Embedded {
    let mut options = ContextOptions::default();
    options.driver = driver;
    options.thread_name_prefix = "nobody".into();
    Embedded::new(options).unwrap()
}

/// How often this thread has slept.
fn sleeps() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Requests and replies over tcp, with both ends on one thread: what arrives needs no wake-up of another thread, and there
/// is none.
///
/// Rules: MQ-057.
#[test]
fn the_calling_thread_is_the_engine() {
    const ROUNDS: u32 = 1000;
    for driver in DRIVERS {
        let mut engine = embedded(driver);
        let context = engine.context().clone();
        let rep = Rep::with_options(&context, options()).unwrap();
        let req = Req::with_options(&context, options()).unwrap();
        engine.run(async {
            let endpoint = rep.bind(ANYWHERE).await.unwrap();
            req.connect_ready(&endpoint, Duration::from_secs(10)).await.unwrap();
            let before = sleeps();
            for round in 0..ROUNDS {
                req.send(round.to_le_bytes().as_slice()).await.unwrap();
                let question = rep.recv().await.unwrap();
                assert_eq!(question.parts()[0], round.to_le_bytes());
                rep.send(question).await.unwrap();
                assert_eq!(req.recv().await.unwrap().parts()[0], round.to_le_bytes());
            }
            // Whoever must be woken by another thread sleeps, twice in every round.
            let slept = sleeps() - before;
            assert!(slept < u64::from(ROUNDS) / 2, "slept {slept} times");
        });
        let threads = fs::read_dir("/proc/self/task").unwrap().filter(|thread| {
            let path = thread.as_ref().unwrap().path().join("comm");
            fs::read_to_string(path).is_ok_and(|name| name.starts_with("nobody"))
        });
        assert_eq!(threads.count(), 0);
        assert_eq!(
            context.driver().map(|driver| driver.name()),
            Some(match driver {
                tidegate_mq::DriverChoice::Polling => "polling",
                _ => "io_uring",
            })
        );
    }
}

/// Timeouts end what waits; what other threads send arrives; a shutdown sends what is queued.
///
/// Rules: MQ-057, MQ-081.
#[test]
fn other_threads_and_timers_wake_it() {
    const COUNT: u32 = 1000;
    for driver in DRIVERS {
        let mut engine = embedded(driver);
        let context = engine.context().clone();
        let pull = Pull::with_options(
            &context,
            options_with(|options| {
                options.rcvtimeo = Some(Duration::from_millis(20));
            }),
        )
        .unwrap();
        let endpoint = engine.run(pull.bind(ANYWHERE)).unwrap();
        assert!(matches!(engine.run(pull.recv()), Err(Error::Timeout)));
        pull.set_options(|options| {
            options.rcvtimeo = Some(Duration::from_secs(10));
            Ok(())
        })
        .unwrap();

        // A socket of this context in another thread.
        thread::scope(|scope| {
            let push = Push::with_options(&context, options_with(|options| options.linger = None)).unwrap();
            push.connect(&endpoint).unwrap();
            scope.spawn(move || {
                for number in 0..COUNT {
                    push.send_blocking(number.to_le_bytes().as_slice()).unwrap();
                }
            });
            for number in 0..COUNT {
                let message = engine.run(pull.recv()).unwrap();
                assert_eq!(message.parts()[0], number.to_le_bytes());
            }
        });

        // What is queued when the context is shut down goes out, by the same thread.
        let other = super::rig::context(driver);
        let dealer = Dealer::with_options(&other, options()).unwrap();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        let sender = Dealer::with_options(&context, options_with(|options| options.linger = None)).unwrap();
        sender.connect(&endpoint).unwrap();
        engine.run(sender.send("last words")).unwrap();
        assert_eq!(engine.run(context.shutdown()), 0);
        drop(engine);
        assert_eq!(dealer.recv_blocking().unwrap().parts()[0], *b"last words");
        other.term_blocking();
    }
}

/// An engine thread that may look for more does not go to sleep between the messages of a conversation, and does when it
/// is over.
///
/// Rules: MQ-057.
#[test]
fn a_worker_looks_before_it_sleeps() {
    let Some(driver) = child::alone("embedded::a_worker_looks_before_it_sleeps") else { return };
    const ROUNDS: u64 = 200;
    const NAME: &str = "looks-for-more";
    let asleep = || {
        let sleeps = child::sleeps("self").into_iter().filter(|(name, _)| name.starts_with(NAME));
        sleeps.map(|(_, count)| count).sum::<u64>()
    };
    let run = |spin| {
        let mut how = ContextOptions::default();
        how.driver = driver;
        how.thread_name_prefix = NAME.into();
        how.spin = spin;
        let context = Context::with_options(how);
        let rep = Rep::with_options(&context, options()).unwrap();
        let req = Req::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(ANYWHERE).unwrap();
        req.connect(&endpoint).unwrap();
        let converse = |rounds: u64| {
            for _ in 0..rounds {
                req.send_blocking("question").unwrap();
                rep.send_blocking(rep.recv_blocking().unwrap()).unwrap();
                req.recv_blocking().unwrap();
                // Long enough to fall asleep.
                thread::sleep(Duration::from_millis(2));
            }
        };
        converse(10);
        let before = asleep();
        converse(ROUNDS);
        let slept = asleep() - before;
        until("it sleeps when nothing comes", || {
            let before = asleep();
            converse(1);
            thread::sleep(2 * spin);
            asleep() > before
        });
        context.term_blocking();
        slept
    };
    let slept = run(Duration::from_millis(500));
    assert!(slept < ROUNDS / 4, "{slept} times asleep although it should look");
    let slept = run(Duration::ZERO);
    assert!(slept > ROUNDS / 4, "{slept} times asleep although it should not look");
}
