//! The stream of events of a socket.

use std::{
    future::Future,
    sync::Arc,
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use tidegate_io::sync::{AtomicUsize, Ordering};
use tidegate_mq::{
    Context, Error, Pull, Push,
    monitor::{EventKind, Monitor},
};

use crate::rig::{ANYWHERE, PATIENCE, established, options, until};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A PULL with one peer, and its monitor, which has told everything so far.
fn connected(context: &Context) -> (Pull, Push, Monitor) {
    let pull = Pull::with_options(context, options()).unwrap();
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let push = Push::with_options(context, options()).unwrap();
    push.connect(&endpoint).unwrap();
    established(&monitor);
    assert!(monitor.try_next().is_none());
    (pull, push, monitor)
}

/// Every monitor has a queue of its own, of 1024 events: when nobody reads it the oldest are dropped, and the reader is
/// told how many. The socket goes on as if nothing were the matter.
///
/// Rules: MQ-360.
#[test]
fn nobody_has_to_read_the_events() {
    const MADE: usize = 1500;
    let context = Context::new();
    let (pull, push, read) = connected(&context);
    let unread = pull.monitor();
    for number in 0..MADE {
        push.send_blocking("x").unwrap();
        until("it has come", || pull.metrics().inbound.entered == number as u64 + 1);
        pull.report_queues();
        let event = read.next_blocking(Some(PATIENCE)).unwrap().unwrap();
        assert!(matches!(event.kind, EventKind::QueueDepths { .. }));
        if number % 500 == 499 {
            (0..500).for_each(|_| drop(pull.recv_blocking().unwrap()));
        }
    }
    let lost = unread.try_next().unwrap();
    assert!(matches!(lost.kind, EventKind::Lost(476)), "{lost:?}");
    let inbound: Vec<u64> = std::iter::from_fn(|| unread.try_next())
        .map(|event| match event.kind {
            EventKind::QueueDepths { inbound, .. } => inbound,
            other => panic!("{other:?}"),
        })
        .collect();
    // The newest of them, in their order.
    let expected: Vec<u64> = (476..MADE as u64).map(|number| number % 500 + 1).collect();
    assert_eq!(inbound, expected);
    // What is lost is told once.
    pull.report_queues();
    assert!(matches!(unread.try_next().unwrap().kind, EventKind::QueueDepths { .. }));
    assert!(unread.try_next().is_none());
}

/// Events are waited for by a future, which wakes its task, or by a thread, with a timeout or without.
///
/// Rules: MQ-360.
#[test]
fn events_are_waited_for_in_either_way() {
    let context = Context::new();
    let (pull, push, monitor) = connected(&context);
    assert!(matches!(monitor.next_blocking(Some(Duration::from_millis(20))), Err(Error::Timeout)));
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut task = TaskContext::from_waker(&waker);
    let mut next = Box::pin(monitor.next());
    assert!(next.as_mut().poll(&mut task).is_pending());
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    pull.report_queues();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Some(event)) = next.as_mut().poll(&mut task) else { panic!("nothing") };
    assert!(matches!(event.kind, EventKind::QueueDepths { .. }));
    drop(next);

    let waiting = thread::spawn(move || {
        let mut kinds = Vec::new();
        while let Some(event) = monitor.next_blocking(None).unwrap() {
            kinds.push(event.kind);
        }
        kinds
    });
    drop(push);
    drop(pull);
    // The end of the socket ends the stream, behind everything that belongs to it.
    let kinds = waiting.join().unwrap();
    assert!(kinds.iter().any(|kind| matches!(kind, EventKind::Disconnected { .. })), "{kinds:?}");
}

/// A reader of events that is dropped costs nothing more.
///
/// Rules: MQ-360.
#[test]
fn a_monitor_may_be_dropped() {
    let context = Context::new();
    let (pull, push, monitor) = connected(&context);
    drop(monitor);
    pull.report_queues();
    let later = pull.monitor();
    assert!(later.try_next().is_none(), "only what happens from now on");
    push.send_blocking("x").unwrap();
    pull.recv_blocking().unwrap();
}
