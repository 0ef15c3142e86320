//! Models of what threads share when they wait: the signal, the blocking adapter with a line of waiters under a lock, and
//! the budget. No interleaving and no stale value may lose a wake-up, and each ordering of the signal is proved
//! necessary.
//!
//! That somebody is never woken shows as a deadlock, which loom reports.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-io --release --test loom_wait`.

#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../tidegate-shm/tests/broken/mod.rs"]
mod broken;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc as StdArc, Mutex as StdMutex},
    task::{Context, Poll, Waker},
};

use broken::breaks;
use tidegate_io::{
    message::Message,
    queue::{Capacity, Queue},
    sync::{Arc, AtomicUsize, Mutex, Ordering, lock, thread},
    wait::{Budget, Orderings, Shipped, Signal, Ticket, Waiters, Wakes, block_on},
};

/// Explores a model, with at most so many switches away from a thread that could go on, and says how often it ran.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) -> usize {
    let runs = StdArc::new(StdMutex::new(0));
    let inside = runs.clone();
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = preemptions;
    explorer.check(move || {
        *inside.lock().unwrap() += 1;
        model();
    });
    *runs.lock().unwrap()
}

/// `senders` threads each make one change, raise the signal, and unpark the receiver if told so. The receiver must see
/// all changes, although it looks only when the signal was raised.
fn signal<O: Orderings + Send + Sync + 'static>(senders: usize) -> usize {
    explore(None, move || {
        let shared = Arc::new((Signal::<O>::with_orderings(), AtomicUsize::new(0)));
        let receiving = shared.clone();
        // A thread of its own: loom's main thread may not be unparked while it joins others.
        let receiver = thread::spawn(move || {
            while !(receiving.0.lower() && receiving.1.load(Ordering::Relaxed) == senders) {
                thread::park();
            }
        });
        let send = |shared: &(Signal<O>, AtomicUsize), receiver: &thread::Thread| {
            // Relaxed: the signal alone must order it.
            shared.1.fetch_add(1, Ordering::Relaxed);
            if shared.0.raise() {
                receiver.unpark();
            }
        };
        let threads: Vec<_> = (1..senders)
            .map(|_| {
                let (shared, receiver) = (shared.clone(), receiver.thread().clone());
                thread::spawn(move || send(&shared, &receiver))
            })
            .collect();
        send(&shared, receiver.thread());
        for thread in threads {
            thread.join().unwrap();
        }
        receiver.join().unwrap();
    })
}

/// A pipe as a socket has it: a queue, and those who wait for messages and for room, under one lock.
struct Pipe {
    queue: Queue,
    receivers: Waiters,
    senders: Waiters,
}

impl Pipe {
    fn shared(messages: usize) -> Arc<Mutex<Self>> {
        let queue = Queue::new(Capacity { messages, bytes: 0 });
        Arc::new(Mutex::new(Self { queue, receivers: Waiters::new(), senders: Waiters::new() }))
    }

    /// Wakes whom the present state lets proceed.
    fn settle(&mut self, wakes: &mut Wakes) {
        let messages = self.queue.len().saturating_sub(self.receivers.granted());
        self.receivers.grant_many(messages, wakes);
        let room = self.queue.room().saturating_sub(self.senders.granted());
        self.senders.grant_many(room, wakes);
    }
}

/// Takes a message.
struct Receiving {
    pipe: Arc<Mutex<Pipe>>,
    ticket: Option<Ticket>,
    /// Whether one that gives up passes an unused grant on, as it must.
    passes_on: bool,
}

impl Future for Receiving {
    type Output = Message;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Message> {
        let this = &mut *self;
        let mut wakes = Wakes::new();
        let mut pipe = lock(&this.pipe);
        match &this.ticket {
            None if pipe.queue.len() > pipe.receivers.granted() => {}
            Some(ticket) if pipe.receivers.is_granted(ticket, context.waker()) => {}
            None => {
                this.ticket = Some(pipe.receivers.join((), context.waker()));
                return Poll::Pending;
            }
            Some(_) => return Poll::Pending,
        }
        let Some(message) = pipe.queue.pop() else { panic!("granted without a message") };
        if let Some(ticket) = this.ticket.take() {
            pipe.receivers.finish(ticket);
        }
        pipe.settle(&mut wakes);
        drop(pipe);
        wakes.fire();
        Poll::Ready(message)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut wakes = Wakes::new();
        let mut pipe = lock(&self.pipe);
        pipe.receivers.finish(ticket);
        if self.passes_on {
            pipe.settle(&mut wakes);
        }
        drop(pipe);
        wakes.fire();
    }
}

/// Queues a message.
struct Sending {
    pipe: Arc<Mutex<Pipe>>,
    message: Message,
    ticket: Option<Ticket>,
}

impl Future for Sending {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut wakes = Wakes::new();
        let mut pipe = lock(&this.pipe);
        match &this.ticket {
            None if pipe.queue.room() > pipe.senders.granted() => {}
            Some(ticket) if pipe.senders.is_granted(ticket, context.waker()) => {}
            None => {
                this.ticket = Some(pipe.senders.join((), context.waker()));
                return Poll::Pending;
            }
            Some(_) => return Poll::Pending,
        }
        assert!(!pipe.queue.is_full(), "granted without room");
        pipe.queue.push_clone(&this.message);
        if let Some(ticket) = this.ticket.take() {
            pipe.senders.finish(ticket);
        }
        pipe.settle(&mut wakes);
        drop(pipe);
        wakes.fire();
        Poll::Ready(())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut wakes = Wakes::new();
        let mut pipe = lock(&self.pipe);
        pipe.senders.finish(ticket);
        pipe.settle(&mut wakes);
        drop(pipe);
        wakes.fire();
    }
}

fn send(pipe: &Arc<Mutex<Pipe>>, text: &str) {
    block_on(Sending { pipe: pipe.clone(), message: text.into(), ticket: None }, None);
}

fn recv(pipe: &Arc<Mutex<Pipe>>) -> Receiving {
    Receiving { pipe: pipe.clone(), ticket: None, passes_on: true }
}

/// Rules: MQ-470.
#[test]
fn a_full_pipe_blocks_and_goes_on_in_order() {
    let runs = explore(Some(3), || {
        let pipe = Pipe::shared(1);
        let sending = pipe.clone();
        let sender = thread::spawn(move || {
            send(&sending, "first");
            send(&sending, "second");
        });
        assert_eq!(block_on(recv(&pipe), None), Some("first".into()));
        assert_eq!(block_on(recv(&pipe), None), Some("second".into()));
        sender.join().unwrap();
    });
    assert!(runs > 100, "{runs} runs");
}

/// One receiver is woken, or about to be, when it gives up: the other one must get the message.
fn giving_up(passes_on: bool) -> usize {
    explore(Some(3), move || {
        let pipe = Pipe::shared(0);
        let mut gives_up = recv(&pipe);
        gives_up.passes_on = passes_on;
        let polled = Pin::new(&mut gives_up).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let sending = pipe.clone();
        let sender = thread::spawn(move || send(&sending, "message"));
        let receiving = pipe.clone();
        let receiver = thread::spawn(move || block_on(recv(&receiving), None));
        drop(gives_up);
        assert_eq!(receiver.join().unwrap(), Some("message".into()));
        sender.join().unwrap();
        assert!(lock(&pipe).receivers.is_empty());
    })
}

/// Rules: MQ-077, MQ-470.
#[test]
fn a_receiver_that_gives_up_loses_no_message() {
    let runs = giving_up(true);
    assert!(runs > 100, "{runs} runs");
}

/// Rules: MQ-077.
#[test]
fn passing_an_unused_grant_on_is_needed() {
    assert!(breaks("passing_an_unused_grant_on_is_needed", "deadlock", || giving_up(false)));
}

/// One owner waits for a budget that two others give back to, each part of it.
///
/// Rules: MQ-066, MQ-470.
#[test]
fn a_free_budget_is_found_by_who_waits_for_it() {
    let runs = explore(Some(3), || {
        let budget = Arc::new(Budget::new(2));
        assert!(!budget.change(0, 3));
        let owners: Vec<_> = [2, 1]
            .into_iter()
            .map(|bytes| {
                let budget = budget.clone();
                thread::spawn(move || {
                    if budget.change(bytes, 0) {
                        budget.wake();
                    }
                })
            })
            .collect();
        let found = budget.clone();
        // A thread of its own: loom's main thread may not be unparked while it joins others.
        let waiter = thread::spawn(move || {
            let free = std::future::poll_fn(|context| match found.is_used_up(context.waker()) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            });
            block_on(free, None).unwrap();
        });
        waiter.join().unwrap();
        for owner in owners {
            owner.join().unwrap();
        }
        assert_eq!(budget.held(), 0);
    });
    assert!(runs > 20, "{runs} runs");
}

/// Rules: MQ-058, MQ-470.
#[test]
fn no_change_is_missed() {
    let runs = signal::<Shipped>(2);
    assert!(runs > 20, "{runs} runs");
}

struct RelaxedRaise;
impl Orderings for RelaxedRaise {
    const RAISE: Ordering = Ordering::Relaxed;
}

struct RelaxedLower;
impl Orderings for RelaxedLower {
    const LOWER: Ordering = Ordering::Relaxed;
}

#[test]
fn the_release_of_raising_is_needed() {
    assert!(breaks("the_release_of_raising_is_needed", "deadlock", || signal::<RelaxedRaise>(2)));
}

#[test]
fn the_acquire_of_lowering_is_needed() {
    assert!(breaks("the_acquire_of_lowering_is_needed", "deadlock", || signal::<RelaxedLower>(2)));
}
