//! Who waits in line: those who give up leave it, nobody is overtaken, and what is granted to one is not shown to others.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context as TaskContext, Poll, Wake, Waker},
    time::Duration,
};

use tidegate_mq::{Context, Error, Interest, Options, Pair, Pub, Push, Rep, Req, Router, Sub};

use crate::{
    Count, near, options,
    support::{PATIENCE, expect, message, nothing, wait, with},
    text,
};

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut TaskContext::from_waker(Waker::noop()))
}

fn waits<T>(future: Pin<&mut impl Future<Output = T>>) {
    assert!(poll(future).is_pending());
}

fn impatient() -> Options {
    with(|options| {
        options.rcvtimeo = Some(Duration::from_millis(1));
        options.sndtimeo = Some(Duration::from_millis(1));
        (options.sndhwm, options.rcvhwm) = (1, 1);
    })
}

/// A receive that has timed out is in nobody's way, also while its future is still there.
///
/// Rules: MQ-187, MQ-300.
#[test]
fn who_has_timed_out_is_out_of_the_line() {
    let context = Context::new();
    let [one, other] = [(); 2].map(|()| Pair::with_options(&context, impatient()).unwrap());
    one.bind_blocking("inproc://a").unwrap();
    other.connect("inproc://a").unwrap();

    let mut late = pin!(one.recv());
    assert!(matches!(wait(late.as_mut()), Err(Error::Timeout)));
    other.try_send("first").unwrap();
    other.try_send("second").unwrap();
    expect(&one, &[b"first"]);
    assert_eq!(text(&one.try_recv().unwrap()), "second");

    (0..2).for_each(|_| one.try_send("full").unwrap());
    let mut late = pin!(one.send("late"));
    assert!(matches!(wait(late.as_mut()).unwrap_err().error, Error::Timeout));
    (0..2).for_each(|_| expect(&other, &[b"full"]));
    one.try_send("there is room").unwrap();
    expect(&other, &[b"there is room"]);
}

/// What is granted to a task that has not run yet is not shown to others, who could not have it; when it is left, it is.
///
/// Rules: MQ-048, MQ-061.
#[test]
fn readiness_is_what_a_call_would_find() {
    let context = Context::new();
    let (push, pull) = near(&context, 2);
    let mut granted = Box::pin(pull.recv());
    waits(granted.as_mut());
    push.try_send("for who waits").unwrap();
    assert!(!pull.readiness().unwrap().receive);
    let mut ready = pin!(pull.ready(Interest::Receive));
    waits(ready.as_mut());
    nothing(&pull);
    drop(granted);
    assert!(wait(ready).unwrap().receive);
    assert_eq!(text(&pull.try_recv().unwrap()), "for who waits");

    (0..2).for_each(|_| push.try_send("full").unwrap());
    let mut granted = Box::pin(push.send("waits"));
    waits(granted.as_mut());
    (0..2).for_each(|_| expect(&pull, &[b"full"]));
    assert!(!push.readiness().unwrap().send);
    let mut ready = pin!(push.ready(Interest::Send));
    waits(ready.as_mut());
    assert!(matches!(push.try_send("overtakes").unwrap_err().error, Error::WouldBlock));
    drop(granted);
    assert!(wait(ready).unwrap().send);
    push.try_send("there is room").unwrap();
}

/// Whoever waits for room on a pipe is not overtaken by others who need the same, whoever runs first.
///
/// Rules: MQ-061, MQ-217.
#[test]
fn nobody_is_overtaken_on_the_way_to_a_peer() {
    let context = Context::new();
    let news = Pub::with_options(
        &context,
        with(|options| {
            (options.sndhwm, options.xpub_nodrop) = (1, true);
        }),
    )
    .unwrap();
    news.bind_blocking("inproc://news").unwrap();
    let narrow = || with(|options| options.rcvhwm = 1);
    let [sub, other] = [["A", "AB"], ["B", "AB"]].map(|topics| {
        let sub = Sub::with_options(&context, narrow()).unwrap();
        sub.connect("inproc://news").unwrap();
        topics.iter().for_each(|topic| sub.subscribe(topic).unwrap());
        sub
    });
    (0..2).for_each(|_| news.try_send("A0").unwrap());
    let [mut first, mut second, mut third] = ["A1", "A2", "A3"].map(|text| Box::pin(news.send(text)));
    waits(first.as_mut());
    waits(second.as_mut());
    waits(third.as_mut());
    (0..2).for_each(|_| expect(&sub, &[b"A0"]));
    assert!(matches!(news.try_send("A4").unwrap_err().error, Error::WouldBlock));
    waits(second.as_mut());
    assert!(news.readiness().unwrap().send, "for those for whom nobody waits");
    news.try_send("B").unwrap();
    expect(&other, &[b"B"]);
    assert!(poll(first.as_mut()).is_ready());
    // Who stood before it does not need it any more: it is the turn of the next one, which gives up, and of the last.
    drop(second);
    assert!(poll(third.as_mut()).is_ready());
    ["A1", "A3"].iter().for_each(|expected| expect(&sub, &[expected.as_bytes()]));

    let router = Router::with_options(
        &context,
        with(|options| (options.sndhwm, options.router_mandatory) = (1, true)),
    )
    .unwrap();
    router.bind_blocking("inproc://router").unwrap();
    let dealer = tidegate_mq::Dealer::with_options(
        &context,
        with(|options| {
            options.rcvhwm = 1;
            options.set_raw(5, b"D").unwrap();
        }),
    )
    .unwrap();
    dealer.connect("inproc://router").unwrap();
    (0..2).for_each(|_| router.try_send(message(["D", "0"])).unwrap());
    let [mut first, mut second] = ["1", "2"].map(|text| Box::pin(router.send(message(["D", text]))));
    waits(first.as_mut());
    waits(second.as_mut());
    (0..2).for_each(|_| expect(&dealer, &[b"0"]));
    waits(second.as_mut());
    assert!(matches!(router.try_send(message(["D", "3"])).unwrap_err().error, Error::WouldBlock));
    assert!(poll(first.as_mut()).is_ready());
    assert!(wait(second).is_ok());
    ["1", "2"].iter().for_each(|expected| expect(&dealer, &[expected.as_bytes()]));
    router.try_send(message(["D", "4"])).unwrap();
}

/// Futures that have been asked once and wait, with counters of how often they were woken since.
fn line<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<(Pin<Box<F>>, Arc<Count>)> {
    let place = |future: F| {
        let (mut future, count) = (Box::pin(future), Arc::new(Count::default()));
        assert!(future.as_mut().poll(&mut TaskContext::from_waker(&count.clone().into())).is_pending());
        (future, count)
    };
    futures.into_iter().map(place).collect()
}

fn woken<F>(line: &[(F, Arc<Count>)]) -> Vec<usize> {
    line.iter().map(|(_, count)| *count.0.lock().unwrap()).collect()
}

/// Room wakes those at the front of the line for whom there is some, and no others.
///
/// Rules: MQ-061, MQ-217.
#[test]
fn only_those_are_woken_who_can_go_on() {
    let context = Context::new();
    let (push, pull) = near(&context, 2);
    (0..2).for_each(|_| push.try_send("full").unwrap());
    let mut senders = line(["1", "gives up", "2", "3"].map(|text| push.send(text)));
    (0..2).for_each(|_| expect(&pull, &[b"full"]));
    drop(senders.remove(1));
    assert_eq!(woken(&senders), [1, 0, 0], "the first is to go before others");
    for (nth, after) in [[1, 1, 0], [1, 1, 0]].into_iter().enumerate() {
        assert!(poll(senders[nth].0.as_mut()).is_ready());
        assert_eq!(woken(&senders), after);
    }

    let news = Pub::with_options(&context, with(|options| (options.sndhwm, options.xpub_nodrop) = (1, true)))
        .unwrap();
    news.bind_blocking("inproc://news").unwrap();
    let sub = Sub::with_options(&context, with(|options| options.rcvhwm = 1)).unwrap();
    sub.connect("inproc://news").unwrap();
    ["A", "B"].iter().for_each(|topic| sub.subscribe(topic).unwrap());
    (0..2).for_each(|_| news.try_send("A").unwrap());
    let mut senders = line(["A", "B", "A"].map(|topic| news.send(topic)));
    expect(&sub, &[b"A"]);
    assert_eq!(woken(&senders), [1, 0, 0]);
    sub.subscribe("C").unwrap();
    assert_eq!(woken(&senders), [1, 0, 0]);
    // It is nobody's any more: that is for whoever has it.
    sub.unsubscribe("B").unwrap();
    assert_eq!(woken(&senders), [1, 1, 1]);
    assert!(poll(senders[1].0.as_mut()).is_ready());
    assert!(poll(senders[2].0.as_mut()).is_pending(), "the first has the room");
    assert!(poll(senders[0].0.as_mut()).is_ready());
}

/// A REQ that has asked may not ask again: those who wait for that are told so, and are in nobody's way after the answer.
///
/// Rules: MQ-061, MQ-188.
#[test]
fn who_waits_to_ask_is_told_that_another_has() {
    let context = Context::new();
    let narrow = || with(|options| (options.sndhwm, options.rcvhwm) = (1, 1));
    let req = Req::with_options(&context, narrow()).unwrap();
    req.bind_blocking("inproc://ask").unwrap();
    // More than there comes to be room for.
    let mut askers = line(["1", "2", "3", "4"].map(|text| req.send(text)));
    let rep = Rep::with_options(&context, narrow()).unwrap();
    rep.connect("inproc://ask").unwrap();
    assert!(woken(&askers).contains(&0));
    assert!(matches!(poll(askers[0].0.as_mut()), Poll::Ready(Ok(()))));
    for (late, count) in &mut askers[1..] {
        assert!(*count.0.lock().unwrap() > 0, "it sleeps");
        let Poll::Ready(Err(failed)) = poll(late.as_mut()) else { panic!("it waits") };
        assert!(matches!(failed.error, Error::WrongState(_)), "{failed}");
    }
    expect(&rep, &[b"1"]);
    rep.try_send("answer").unwrap();
    expect(&req, &[b"answer"]);
    req.try_send("the next").unwrap();
}

/// A PAIR has the room of its partner, not that of an endpoint with which it is not paired.
///
/// Rules: MQ-076.
#[test]
fn a_pair_keeps_room_with_its_partner() {
    let context = Context::new();
    let partner = Pair::with_options(&context, with(|options| options.rcvhwm = 1)).unwrap();
    partner.bind_blocking("inproc://partner").unwrap();
    let pair = Pair::with_options(&context, with(|options| options.sndhwm = 1)).unwrap();
    pair.connect("inproc://partner").unwrap();
    pair.connect("inproc://nobody").unwrap();
    let kept = [pair.try_reserve().unwrap(), pair.try_reserve().unwrap()];
    assert!(matches!(pair.try_reserve(), Err(Error::WouldBlock)));
    for permit in kept {
        permit.send("kept").unwrap();
        expect(&partner, &[b"kept"]);
    }
}

/// Who does not wait any more leaves nothing behind with a socket where nothing happens.
///
/// Rules: MQ-221, MQ-059.
#[test]
fn who_ceases_to_wait_is_forgotten() {
    struct Task;
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let context = Context::new();
    let publisher = Pub::with_options(&context, options()).unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://nobody").unwrap();
    push.try_send("queued").unwrap();
    let task = Arc::new(Task);
    let waker = Waker::from(task.clone());
    let known = Arc::strong_count(&task);
    {
        let mut subscribers = pin!(publisher.wait_for_subscribers(b"", 1, PATIENCE));
        let mut drained = pin!(push.drained());
        for _ in 0..2 {
            assert!(subscribers.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending());
            assert!(drained.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending());
        }
        assert!(Arc::strong_count(&task) > known);
    }
    assert_eq!(Arc::strong_count(&task), known);
}
