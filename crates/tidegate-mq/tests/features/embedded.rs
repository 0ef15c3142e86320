//! Where the engine runs and whether it sleeps: on the test's own thread, and looking for more before it sleeps (MQ-057).

use std::{fs, sync::mpsc, thread, time::Duration};

use tidegate_mq::{
    AnySocket, Context, ContextOptions, Dealer, Embedded, Error, Pull, Push, Rep, Req, SocketType,
};

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
    // Others that want the processor put it to sleep, too, but not each time.
    let [looking, sleeping] = [Duration::from_millis(500), Duration::ZERO].map(run);
    assert!(
        2 * looking < sleeping,
        "{looking} times asleep although it should look, {sleeping} without that"
    );
}

/// For how long threads look in the tests of when they do.
const LOOK: Duration = Duration::from_millis(500);
/// Messages that come then, and the time between two.
const MORE: u64 = 40;
const APART: Duration = Duration::from_millis(2);

/// What goes before the messages.
#[derive(Clone, Copy, Debug)]
enum Before {
    /// Questions that were answered at once.
    QuickAnswers,
    /// Questions that were answered after a longer time than anybody looks.
    SlowAnswers,
    /// Nothing for longer than that.
    Nothing,
}

/// How often somebody has slept, as `asleep` counts them, while `listener` received messages of `speaker`.
fn sleeps_of(
    listener: &AnySocket,
    speaker: &AnySocket,
    before: Before,
    asleep: &(dyn Fn() -> u64 + Sync),
) -> u64 {
    let questions = if matches!(before, Before::Nothing) { 0 } else { 3 };
    let silence = if matches!(before, Before::QuickAnswers) { APART } else { LOOK * 6 / 5 };
    thread::scope(|scope| {
        // Threads must not come and go while their sleeps are counted.
        let (counted, is_counted) = mpsc::channel::<()>();
        scope.spawn(move || {
            for _ in 0..questions {
                speaker.recv_blocking().unwrap();
                thread::sleep(silence);
                speaker.send_blocking("answer").unwrap();
            }
            if questions == 0 {
                thread::sleep(silence);
            }
            for _ in 0..=MORE {
                thread::sleep(APART);
                speaker.send_blocking("more").unwrap();
            }
            let _ = is_counted.recv();
        });
        for _ in 0..questions {
            listener.send_blocking("question").unwrap();
            listener.recv_blocking().unwrap();
        }
        listener.recv_blocking().unwrap();
        let before = asleep();
        (0..MORE).for_each(|_| drop(listener.recv_blocking().unwrap()));
        let slept = asleep() - before;
        drop(counted);
        slept
    })
}

/// Whether those are looked for who answer quickly, and nobody else. The sockets are connected with `endpoint`.
fn is_looked_for_rightly(
    listening: &Context,
    speaking: &Context,
    endpoint: &str,
    asleep: &(dyn Fn() -> u64 + Sync),
) {
    let cases = [
        (SocketType::Dealer, SocketType::Dealer, Before::QuickAnswers),
        (SocketType::Dealer, SocketType::Dealer, Before::SlowAnswers),
        (SocketType::Dealer, SocketType::Dealer, Before::Nothing),
        (SocketType::Pull, SocketType::Push, Before::Nothing),
    ];
    for (listens, speaks, before) in cases {
        let listener = AnySocket::of_type_with(listening, listens, options()).unwrap();
        let speaker = AnySocket::of_type_with(speaking, speaks, options()).unwrap();
        let endpoint = listener.bind_blocking(endpoint).unwrap();
        speaker.connect(&endpoint).unwrap();
        speaker.send_blocking("hello").unwrap();
        listener.recv_blocking().unwrap();
        let slept = sleeps_of(&listener, &speaker, before, asleep);
        match before {
            Before::QuickAnswers => assert!(slept < MORE / 4, "{slept} times asleep although it should look"),
            _ => {
                assert!(slept > MORE / 4, "{slept} times asleep although {speaks:?} is not to be looked for")
            }
        }
        listener.unbind(&endpoint).unwrap();
    }
}

fn looking() -> ContextOptions {
    let mut how = ContextOptions::default();
    how.spin = LOOK;
    how
}

/// An engine thread looks for the answers of who was quick before, also for the rest of such an answer; neither for those
/// of who was slow, nor for what comes unasked.
///
/// Rules: MQ-057.
#[test]
fn a_worker_looks_for_quick_answers_only() {
    let Some(driver) = child::alone("embedded::a_worker_looks_for_quick_answers_only") else { return };
    const NAME: &str = "looks-rightly";
    let mut how = looking();
    how.driver = driver;
    how.thread_name_prefix = NAME.into();
    let asleep = || {
        let sleeps = child::sleeps("self").into_iter().filter(|(name, _)| name.starts_with(NAME));
        sleeps.map(|(_, count)| count).sum::<u64>()
    };
    let listening = Context::with_options(how);
    is_looked_for_rightly(&listening, &super::rig::context(driver), ANYWHERE, &asleep);
}

/// So does a thread that blocks in a receive of what comes from the same process.
///
/// Rules: MQ-057.
#[test]
fn a_receiver_looks_for_quick_answers_from_its_process_only() {
    let context = Context::with_options(looking());
    is_looked_for_rightly(&context, &context, "inproc://listener", &sleeps);

    let mut how = ContextOptions::default();
    how.spin = Duration::ZERO;
    let context = Context::with_options(how);
    let [listener, speaker] =
        [(); 2].map(|()| AnySocket::of_type_with(&context, SocketType::Dealer, options()).unwrap());
    listener.bind_blocking("inproc://listener").unwrap();
    speaker.connect("inproc://listener").unwrap();
    let slept = sleeps_of(&listener, &speaker, Before::QuickAnswers, &sleeps);
    assert!(slept > MORE / 4, "{slept} times asleep although it should not look");
}
