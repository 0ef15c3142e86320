//! Ends: what was sent is out of our hands, the rest is counted, and nobody waits on.

use std::{
    pin::pin,
    sync::mpsc,
    task::{Context as TaskContext, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use tidegate_io::wait::block_on;
use tidegate_mq::{Context, Error, Interest, Message, Pull, Push, SocketType};

use crate::{
    options, pipeline,
    support::{PATIENCE, wait},
};

/// Rules: MQ-059.
#[test]
fn drained_means_out_of_our_hands() {
    let context = Context::new();
    let push = Push::with_options(&context, options()).unwrap();
    wait(push.drained()).unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    wait(push.connect_ready(&endpoint, PATIENCE)).unwrap();
    for round in 0..20 {
        for i in 0..50 {
            push.send_blocking(vec![round; 1 << (i % 18)]).unwrap();
        }
        wait(push.drained()).unwrap();
        let out = push.metrics().out;
        assert_eq!((out.depth, out.left), (0, out.entered));
        for _ in 0..50 {
            pull.recv_blocking().unwrap();
        }
    }
    // It waits for a peer that is not there yet, and not for what is sent after the call.
    let push = Push::with_options(&context, options()).unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    push.connect("inproc://drained").unwrap();
    push.send_blocking("queued").unwrap();
    let mut drained = pin!(push.drained());
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    pull.bind_blocking("inproc://drained").unwrap();
    assert!(matches!(drained.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
}

/// Rules: MQ-081, MQ-083.
#[test]
fn shutdown_wakes_everybody_and_fails_what_follows() {
    let context = Context::new();
    let pull = Pull::new(&context).unwrap();
    let push = Push::new(&context).unwrap();
    let (ready, started) = mpsc::channel();
    let mut waiting = Vec::new();
    for round in 0..6 {
        let (pull, push, ready) = (pull.clone(), push.clone(), ready.clone());
        let lonely = Push::new(&context).unwrap();
        waiting.push(thread::spawn(move || {
            ready.send(()).unwrap();
            let error = match round {
                0 => pull.recv_blocking().unwrap_err(),
                1 => push.send_blocking("x").unwrap_err().error,
                2 => block_on(pull.recv(), None).unwrap().unwrap_err(),
                3 => block_on(push.reserve(), None).unwrap().map(drop).unwrap_err(),
                4 => block_on(pull.ready(Interest::Receive), None).unwrap().unwrap_err(),
                _ => block_on(lonely.connect_ready("inproc://nobody", PATIENCE), None).unwrap().unwrap_err(),
            };
            (error, Instant::now())
        }));
    }
    waiting.iter().for_each(|_| started.recv().unwrap());
    let began = Instant::now();
    assert_eq!(context.term_blocking(), 0);
    for waiter in waiting {
        let (error, woken) = waiter.join().unwrap();
        assert!(matches!(error, Error::Terminated), "{error:?}");
        assert_eq!(error.errno(), 156_384_765);
        assert!(woken.saturating_duration_since(began) < Duration::from_secs(20));
    }
    assert!(matches!(pull.try_recv(), Err(Error::Terminated)));
    assert!(matches!(push.try_send("x").unwrap_err().error, Error::Terminated));
    assert!(matches!(push.connect("tcp://127.0.0.1:1"), Err(Error::Terminated)));
    assert!(matches!(pull.bind_blocking("tcp://127.0.0.1:*"), Err(Error::Terminated)));
    assert!(matches!(pull.readiness(), Err(Error::Terminated)));
    assert!(matches!(Pull::new(&context), Err(Error::Terminated)));
}

/// Rules: MQ-080, MQ-081, MQ-294.
#[test]
fn close_sends_what_is_queued_for_as_long_as_it_may_and_counts_the_rest() {
    let context = Context::new();
    let endpoint = "tcp://127.0.0.1:9";
    let unsent = || {
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(endpoint).unwrap();
        (0..7).for_each(|_| push.send_blocking("x").unwrap());
        push
    };
    let before = Instant::now();
    assert_eq!(wait(unsent().close(Some(Duration::ZERO))), 7);
    assert!(before.elapsed() < Duration::from_secs(20));
    let before = Instant::now();
    assert_eq!(wait(unsent().close(Some(Duration::from_millis(150)))), 7);
    assert!(before.elapsed() >= Duration::from_millis(149));
    let (push, pull) = pipeline(&context, 0);
    let count = 3_000;
    for _ in 0..count {
        push.send_blocking(vec![1; 2_000]).unwrap();
    }
    let closing = thread::spawn(move || block_on(push.close(None), None).unwrap());
    for _ in 0..count {
        pull.recv_blocking().unwrap();
    }
    assert_eq!(closing.join().unwrap(), 0);
    // A dropped handle does the same in the background, and does not wait.
    let (push, pull) = pipeline(&context, 0);
    for _ in 0..count {
        push.send_blocking(vec![1; 2_000]).unwrap();
    }
    let before = Instant::now();
    drop(push);
    assert!(before.elapsed() < Duration::from_secs(20));
    for _ in 0..count {
        pull.recv_blocking().unwrap();
    }
    // Shutdown counts what it had to give up.
    let other = Context::new();
    let mut options = options();
    options.linger = Some(Duration::from_millis(50));
    let push = Push::with_options(&other, options).unwrap();
    push.connect(endpoint).unwrap();
    (0..5).for_each(|_| push.send_blocking("x").unwrap());
    assert_eq!(other.term_blocking(), 5);
}

/// Rules: MQ-067, MQ-364.
#[test]
fn metrics_add_up() {
    let context = Context::new();
    let (push, pull) = pipeline(&context, 1000);
    for _ in 0..10 {
        push.send_blocking(["ab", "c"].into_iter().collect::<Message>()).unwrap();
    }
    wait(push.drained()).unwrap();
    for _ in 0..4 {
        pull.recv_blocking().unwrap();
    }
    while pull.metrics().inbound.entered < 10 {
        thread::yield_now();
    }
    let (out, inbound) = (push.metrics().out, pull.metrics().inbound);
    assert_eq!((out.entered, out.entered_bytes, out.left, out.depth), (10, 30, 10, 0));
    assert_eq!((inbound.entered, inbound.left, inbound.depth), (10, 4, 6));
    let peers = pull.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].peer().socket_type(), Some(SocketType::Push));
    assert!(peers[0].is_connected());
    pull.recv_blocking().unwrap();
    assert_eq!(peers[0].read().inbound.left, 5, "read anew");
    drop(push);
    while pull.try_recv().is_ok() {}
    let deadline = Instant::now() + PATIENCE;
    while !pull.peers().is_empty() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    assert_eq!(pull.metrics().inbound.left, 10, "numbers of peers that are gone stay");
}
