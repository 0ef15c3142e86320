//! Waiting: for how long, and until something can be done.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context as TaskContext, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidegate_mq::{Context, Error, Interest, Pull, Push, Rep, Req};

use crate::{
    Count, near, options, pipeline,
    support::{PATIENCE, wait},
    text,
};

/// Rules: MQ-186, MQ-187, MQ-300.
#[test]
fn timeouts_are_infinite_immediate_or_measured_over_the_whole_call() {
    let context = Context::new();
    let push = Push::new(&context).unwrap();
    let pull = Pull::new(&context).unwrap();
    // 0: at once, whatever way it is called.
    push.set_raw(28, &0_i32.to_ne_bytes()).unwrap();
    pull.set_raw(27, &0_i32.to_ne_bytes()).unwrap();
    for _ in 0..2 {
        let before = Instant::now();
        assert!(matches!(wait(pull.recv()), Err(Error::WouldBlock)));
        let failed = wait(push.send("kept")).unwrap_err();
        assert!(matches!(failed.error, Error::WouldBlock), "{failed}");
        assert_eq!(text(&failed.message), "kept");
        assert!(matches!(pull.recv_blocking().unwrap_err().errno(), 11));
        assert_eq!(push.send_blocking("kept").unwrap_err().error.errno(), 11);
        assert!(before.elapsed() < Duration::from_secs(20));
    }
    // n: over the whole call, though others wake it in between.
    pull.set_raw(27, &100_i32.to_ne_bytes()).unwrap();
    let (go, started) = mpsc::channel();
    let waiting = pull.clone();
    let waiter = thread::spawn(move || {
        go.send(()).unwrap();
        let before = Instant::now();
        (wait(waiting.recv()).map(|message| text(&message)), before.elapsed())
    });
    started.recv().unwrap();
    let (result, took) = waiter.join().unwrap();
    assert!(matches!(result, Err(Error::Timeout)), "{result:?}");
    assert!(took >= Duration::from_millis(99) && took < Duration::from_secs(20), "{took:?}");
    // -1: as long as it takes.
    pull.set_raw(27, &(-1_i32).to_ne_bytes()).unwrap();
    push.set_raw(28, &(-1_i32).to_ne_bytes()).unwrap();
    assert_eq!(pull.options().rcvtimeo, None);
    let endpoint = pull.bind_blocking("inproc://timeouts").unwrap();
    let sender = push.clone();
    let sending = thread::spawn(move || sender.send_blocking("late").unwrap());
    push.connect(&endpoint).unwrap();
    assert_eq!(text(&pull.recv_blocking().unwrap()), "late");
    sending.join().unwrap();
}

/// Rules: MQ-048.
#[test]
fn ready_waits_for_what_was_asked_for() {
    let context = Context::new();
    let (push, pull) = near(&context, 2);
    assert!(wait(push.ready(Interest::Any)).unwrap().send);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut cx = TaskContext::from_waker(&waker);
    let mut readable = pin!(pull.ready(Interest::Receive));
    assert!(readable.as_mut().poll(&mut cx).is_pending());
    drop(pull.ready(Interest::Receive));
    push.send_blocking("1").unwrap();
    assert_eq!(*count.0.lock().unwrap(), 1);
    assert!(
        matches!(readable.as_mut().poll(&mut cx), Poll::Ready(Ok(ready)) if ready.receive && !ready.send)
    );
    push.send_blocking("2").unwrap();
    let mut writable = pin!(push.ready(Interest::Send));
    assert!(writable.as_mut().poll(&mut cx).is_pending());
    pull.recv_blocking().unwrap();
    pull.recv_blocking().unwrap();
    assert!(matches!(writable.as_mut().poll(&mut cx), Poll::Ready(Ok(ready)) if ready.send));
    assert_eq!(*count.0.lock().unwrap(), 2);
    // REQ becomes writable by receiving, REP by receiving a request.
    let (req, rep) =
        (Req::with_options(&context, options()).unwrap(), Rep::with_options(&context, options()).unwrap());
    rep.bind_blocking("inproc://ready").unwrap();
    req.connect("inproc://ready").unwrap();
    assert!(!rep.readiness().unwrap().send);
    req.send_blocking("?").unwrap();
    let ready = req.readiness().unwrap();
    assert!(!ready.send && !ready.receive);
    rep.recv_blocking().unwrap();
    assert!(wait(rep.ready(Interest::Send)).unwrap().send);
    rep.send_blocking("!").unwrap();
    assert!(wait(req.ready(Interest::Any)).unwrap().receive);
}

fn is_readable(fd: &tidegate_mq::ReadableFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(timeout).unwrap())).unwrap() == 1
}

/// Rules: MQ-048.
#[test]
fn the_descriptor_is_readable_exactly_while_there_is_a_message() {
    let context = Context::new();
    let (push, pull) = pipeline(&context, 1000);
    push.send_blocking("early").unwrap();
    wait(pull.ready(Interest::Receive)).unwrap();
    let fd = pull.readable_fd().unwrap();
    assert!(is_readable(&fd, Duration::ZERO), "what was there before counts");
    assert!(is_readable(&fd, Duration::ZERO), "level-triggered: looking changes nothing");
    pull.recv_blocking().unwrap();
    assert!(!is_readable(&fd, Duration::ZERO));
    for _ in 0..3 {
        push.send_blocking("a").unwrap();
        push.send_blocking("b").unwrap();
        assert!(is_readable(&fd, PATIENCE), "woken by the worker");
        pull.recv_blocking().unwrap();
        assert!(is_readable(&fd, PATIENCE), "one is left");
        pull.recv_blocking().unwrap();
        assert!(!is_readable(&fd, Duration::ZERO));
    }
    use std::os::fd::{AsFd, AsRawFd};
    let number = i32::from_ne_bytes(pull.raw(14).unwrap().try_into().unwrap());
    assert_eq!(fd.as_fd().as_raw_fd(), number, "one descriptor per socket");
    context.term_blocking();
    assert!(is_readable(&fd, PATIENCE), "the end is to be noticed");
    assert!(matches!(pull.try_recv(), Err(Error::Terminated)));
}
