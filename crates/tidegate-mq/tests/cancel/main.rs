//! Futures that are dropped at any point: no message is lost, doubled or out of order for it.
//!
//! Every round polls a receive or a send a few times, by chance, and drops it unless it is done. Messages carry numbers,
//! so that at the end every one is accounted for: what a dropped receive had taken would be missing, what a dropped send
//! had queued by half would be garbage, and what it had queued although it was repeated would come twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../hostile/peer.rs"]
mod peer;
#[path = "../hostile/rig.rs"]
mod rig;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use rig::{DRIVERS, Dice, context, options_with};
use tidegate_mq::{
    Dealer, Error, Message, Options, Pair, Permit, Pub, Pull, Push, Rep, Req, Router, SendError, Sub,
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` at most `polls` times, and waits for a wake-up or a moment between; `None` when it is dropped before
/// it is done.
fn attempt<F: Future>(future: F, polls: u64, waits: bool) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    for poll in 0..polls {
        match poll {
            0 => {}
            1 if !waits => thread::yield_now(),
            _ => thread::park_timeout(Duration::from_micros(50)),
        }
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}

fn options(change: impl FnOnce(&mut Options)) -> Options {
    options_with(|options| {
        options.rcvtimeo = None;
        options.sndtimeo = None;
        change(options);
    })
}

/// Small queues, so that senders wait as often as receivers.
fn small(options: &mut Options) {
    options.sndhwm = 8;
    options.rcvhwm = 8;
}

fn number(message: &Message) -> u64 {
    u64::from_le_bytes(message.parts().last().unwrap()[..8].try_into().unwrap())
}

/// A message of a number, small or too large to be kept in place.
fn message(number: u64) -> Vec<u8> {
    let padding = if number.is_multiple_of(7) { 500 } else { 0 };
    [&number.to_le_bytes()[..], &vec![0; padding]].concat()
}

/// Receives with cancellations until `stop`, and tells how many receives were cancelled.
fn receive<T: Future<Output = Result<Message, Error>>>(
    seed: u64,
    mut recv: impl FnMut() -> T,
    mut got: impl FnMut(Message) -> bool,
) -> u64 {
    let mut dice = Dice(seed);
    let mut cancelled = 0;
    loop {
        let polls = dice.roll(4);
        match attempt(recv(), polls, dice.roll(16) == 0) {
            None => cancelled += 1,
            Some(Ok(message)) => {
                if got(message) {
                    return cancelled;
                }
            }
            Some(Err(error)) => panic!("{error}"),
        }
    }
}

/// Sends `value` until it is taken, with cancellations. A dropped send may have queued it only if it was polled to the
/// end, so that repeating it makes no double.
fn send<F: Future<Output = Result<(), SendError>>>(dice: &mut Dice, mut send: impl FnMut() -> F) {
    while match attempt(send(), dice.roll(4), dice.roll(16) == 0) {
        None => true,
        Some(result) => {
            result.unwrap();
            false
        }
    } {}
}

fn places() -> [&'static str; 2] {
    ["tcp://127.0.0.1:*", "inproc://cancelled"]
}

/// One sender and one receiver, in order and complete, until enough receives were cancelled.
///
/// Rules: MQ-076, MQ-077, MQ-078, MQ-033, MQ-520.
#[test]
fn push_pull_pair_and_dealer_lose_nothing() {
    for (run, driver) in (1..).zip(DRIVERS) {
        for place in places() {
            let context = context(driver);
            let pull = Pull::with_options(&context, options(small)).unwrap();
            let push = Push::with_options(&context, options(small)).unwrap();
            push.connect(&pull.bind_blocking(place).unwrap()).unwrap();
            stream(run, |value| push.send(value), || pull.recv());
            context.term_blocking();

            let context = rig::context(driver);
            let one = Pair::with_options(&context, options(small)).unwrap();
            let two = Pair::with_options(&context, options(small)).unwrap();
            two.connect(&one.bind_blocking(place).unwrap()).unwrap();
            stream(run + 10, |value| two.send(value), || one.recv());
            context.term_blocking();

            let context = rig::context(driver);
            let one = Dealer::with_options(&context, options(small)).unwrap();
            let two = Router::with_options(&context, options(small)).unwrap();
            one.connect(&two.bind_blocking(place).unwrap()).unwrap();
            stream(run + 20, |value| one.send(value), || two.recv());
            context.term_blocking();
        }
    }
}

/// Sends numbers from one thread and receives them on another.
fn stream<S, R>(seed: u64, sender: impl Fn(Vec<u8>) -> S + Sync, receiver: impl FnMut() -> R)
where
    S: Future<Output = Result<(), SendError>>,
    R: Future<Output = Result<Message, Error>>,
{
    const COUNT: u64 = 25_000;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice(seed + 1000);
            for value in 0..COUNT {
                send(&mut dice, || sender(message(value)));
            }
        });
        let mut next: u64 = 0;
        let cancelled = receive(seed, receiver, |got| {
            assert_eq!(
                (number(&got), got.byte_len() > 100),
                (next, next.is_multiple_of(7)),
                "lost, doubled or out of order"
            );
            next += 1;
            next == COUNT
        });
        assert!(cancelled > COUNT / 4, "only {cancelled} receives of {COUNT} messages were cancelled");
    });
}

/// Several receivers of one socket share what comes, and cancellations of one do not cost another its turn.
///
/// Rules: MQ-077, MQ-078.
#[test]
fn receivers_that_share_a_socket_lose_nothing() {
    const COUNT: u64 = 30_000;
    for driver in DRIVERS {
        for place in places() {
            let context = context(driver);
            let pull = Pull::with_options(&context, options(small)).unwrap();
            let push = Push::with_options(&context, options(small)).unwrap();
            push.connect(&pull.bind_blocking(place).unwrap()).unwrap();
            let seen: Vec<u64> = thread::scope(|scope| {
                let receivers: Vec<_> = (1..4)
                    .map(|seed| {
                        let pull = pull.clone();
                        scope.spawn(move || {
                            let mut seen = Vec::new();
                            receive(
                                seed,
                                || pull.recv(),
                                |got| {
                                    let number = number(&got);
                                    if number < COUNT {
                                        seen.push(number);
                                    }
                                    number >= COUNT
                                },
                            );
                            seen
                        })
                    })
                    .collect();
                for value in 0..COUNT + 3 {
                    push.send_blocking(message(value)).unwrap();
                }
                receivers
                    .into_iter()
                    .flat_map(|receiver| {
                        let seen = receiver.join().unwrap();
                        assert!(seen.is_sorted(), "one receiver saw a later message first");
                        seen
                    })
                    .collect()
            });
            let mut seen = seen;
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..COUNT), "lost or doubled");
            context.term_blocking();
        }
    }
}

/// Requests and replies in turn: a dropped receive leaves the turn as it was.
///
/// Rules: MQ-077, MQ-078.
#[test]
fn requests_keep_their_turn() {
    const COUNT: u64 = 5_000;
    for driver in DRIVERS {
        for place in places() {
            let context = context(driver);
            let rep = Rep::with_options(&context, options(|_| ())).unwrap();
            let req = Req::with_options(&context, options(|_| ())).unwrap();
            req.connect(&rep.bind_blocking(place).unwrap()).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut next = 0;
                    let mut dice = Dice(77);
                    receive(
                        7,
                        || rep.recv(),
                        |got| {
                            assert_eq!(number(&got), next);
                            next += 1;
                            send(&mut dice, || rep.send(got.clone()));
                            next == COUNT
                        },
                    );
                });
                let mut dice = Dice(99);
                for value in 0..COUNT {
                    send(&mut dice, || req.send(message(value)));
                    receive(
                        value + 1,
                        || req.recv(),
                        |got| {
                            assert_eq!(number(&got), value);
                            true
                        },
                    );
                }
            });
            context.term_blocking();
        }
    }
}

/// A subscriber that keeps up gets everything, whatever is dropped.
///
/// Rules: MQ-077, MQ-078.
#[test]
fn a_subscriber_loses_nothing() {
    const COUNT: u64 = 20_000;
    for driver in DRIVERS {
        for place in places() {
            let context = context(driver);
            let nodrop = options(|options| options.xpub_nodrop = true);
            let publisher = Pub::with_options(&context, nodrop).unwrap();
            let endpoint = publisher.bind_blocking(place).unwrap();
            let sub = Sub::with_options(&context, options(|_| ())).unwrap();
            sub.subscribe("").unwrap();
            sub.connect(&endpoint).unwrap();
            rig::until("the subscription", || publisher.topics_count() == 1);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut dice = Dice(5);
                    (0..COUNT).for_each(|value| send(&mut dice, || publisher.send(message(value))));
                });
                let mut next = 0;
                receive(
                    3,
                    || sub.recv(),
                    |got| {
                        assert_eq!(number(&got), next);
                        next += 1;
                        next == COUNT
                    },
                );
            });
            context.term_blocking();
        }
    }
}

/// Reserves room until it has some, with cancellations; gives it back now and then, and sends with it at last.
fn send_promised<'a, F: Future<Output = Result<Permit<'a>, Error>>>(
    dice: &mut Dice,
    mut reserve: impl FnMut() -> F,
    value: u64,
) {
    loop {
        if let Some(permit) = attempt(reserve(), dice.roll(4), dice.roll(16) == 0)
            && dice.roll(4) > 0
        {
            return permit.unwrap().send(message(value)).unwrap();
        }
    }
}

/// Reservations and permits that are dropped keep no room, which would soon be all there is, and what was promised comes
/// once and in order.
///
/// Rules: MQ-076, MQ-078.
#[test]
fn dropped_permits_keep_no_room() {
    const COUNT: u64 = 5_000;
    for driver in DRIVERS {
        for place in places() {
            let context = context(driver);
            let pull = Pull::with_options(&context, options(small)).unwrap();
            let push = Push::with_options(&context, options(small)).unwrap();
            push.connect(&pull.bind_blocking(place).unwrap()).unwrap();
            let nodrop = options(|options| {
                small(options);
                options.xpub_nodrop = true;
            });
            let publisher = Pub::with_options(&context, nodrop).unwrap();
            let sub = Sub::with_options(&context, options(small)).unwrap();
            sub.subscribe("").unwrap();
            sub.connect(&publisher.bind_blocking(&place.replace("cancelled", "news")).unwrap()).unwrap();
            rig::until("the subscription", || publisher.topics_count() == 1);
            let rep = Rep::with_options(&context, options(small)).unwrap();
            let req = Req::with_options(&context, options(small)).unwrap();
            req.connect(&rep.bind_blocking(&place.replace("cancelled", "asked")).unwrap()).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut dice = Dice(31);
                    for value in 0..COUNT {
                        send_promised(&mut dice, || push.reserve(), value);
                        send_promised(&mut dice, || publisher.reserve(), value);
                    }
                });
                scope.spawn(|| {
                    let mut dice = Dice(32);
                    for value in 0..COUNT {
                        send_promised(&mut dice, || req.reserve(), value);
                        assert_eq!(number(&req.recv_blocking().unwrap()), value);
                    }
                });
                scope.spawn(|| {
                    for value in 0..COUNT {
                        let question = rep.recv_blocking().unwrap();
                        assert_eq!(number(&question), value);
                        rep.send_blocking(question).unwrap();
                    }
                });
                for value in 0..COUNT {
                    assert_eq!(number(&pull.recv_blocking().unwrap()), value);
                    assert_eq!(number(&sub.recv_blocking().unwrap()), value);
                }
            });
            context.term_blocking();
        }
    }
}

/// A million receives that are dropped after a first look, with a message in between now and then.
///
/// Rules: MQ-078, MQ-520.
#[test]
fn a_million_receives_are_cancelled() {
    const CANCELLED: u64 = 1_000_000;
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(&context, options(|_| ())).unwrap();
        let push = Push::with_options(&context, options(|_| ())).unwrap();
        push.connect(&pull.bind_blocking("tcp://127.0.0.1:*").unwrap()).unwrap();
        let mut dice = Dice(13);
        let (mut cancelled, mut sent, mut next) = (0_u64, 0, 0);
        while cancelled < CANCELLED / 2 {
            // The worker may not have run for as long as a queue takes to fill.
            if dice.roll(50) == 0 && push.try_send(message(sent)).is_ok() {
                sent += 1;
            }
            match attempt(pull.recv(), 1 + dice.roll(2), false) {
                None => cancelled += 1,
                Some(got) => {
                    assert_eq!(number(&got.unwrap()), next);
                    next += 1;
                }
            }
        }
        assert!(sent > 0);
        while next < sent {
            assert_eq!(number(&pull.recv_blocking().unwrap()), next);
            next += 1;
        }
        let nothing_more = attempt(poll_fn(|context| pin!(pull.recv()).poll(context)), 3, true);
        assert!(nothing_more.is_none(), "a message too many");
        context.term_blocking();
    }
}
