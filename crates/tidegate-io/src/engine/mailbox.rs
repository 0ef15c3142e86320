//! How other threads reach a worker: jobs, and connections that ask for attention.
//!
//! A worker is woken at most once until it has run (MQ-058): [`Mailbox::state`] says whether it runs, runs and has
//! been told to look again, or sleeps. Only the thread that finds it asleep pays for a system call.

use std::{mem, task::Waker};

use crate::sync::{AtomicU32, Mutex, Ordering, lock};

const RUNNING: u32 = 0;
const SIGNALLED: u32 = 1;
const PARKED: u32 = 2;

/// What waits for a worker.
#[derive(Debug)]
pub(crate) struct Inbox<J, K> {
    /// Closures to run on the worker, in order.
    pub(crate) jobs: Vec<J>,
    /// Connections whose requests have become non-empty.
    pub(crate) kicked: Vec<K>,
    closed: bool,
}

impl<J, K> Inbox<J, K> {
    pub(crate) const fn new() -> Self {
        Self { jobs: Vec::new(), kicked: Vec::new(), closed: false }
    }
}

/// The door of a worker.
#[derive(Debug)]
pub(crate) struct Mailbox<J, K> {
    state: AtomicU32,
    inbox: Mutex<Inbox<J, K>>,
    waker: Waker,
}

impl<J, K> Mailbox<J, K> {
    /// A mailbox whose worker runs and can be woken from its sleep by `waker`.
    pub(crate) fn new(waker: Waker) -> Self {
        Self { state: AtomicU32::new(RUNNING), inbox: Mutex::new(Inbox::new()), waker }
    }

    /// Hands `job` to the worker, or gives it back when the worker has ended.
    pub(crate) fn post(&self, job: J) -> Result<(), J> {
        let mut inbox = lock(&self.inbox);
        if inbox.closed {
            return Err(job);
        }
        inbox.jobs.push(job);
        drop(inbox);
        self.signal();
        Ok(())
    }

    /// Asks the worker to look at a connection. No effect when the worker has ended.
    pub(crate) fn kick(&self, key: K) {
        let mut inbox = lock(&self.inbox);
        if inbox.closed {
            return;
        }
        inbox.kicked.push(key);
        drop(inbox);
        self.signal();
    }

    /// Exchanges the waiting content for `empty`, which keeps its memory for later.
    pub(crate) fn take(&self, empty: &mut Inbox<J, K>) {
        let mut inbox = lock(&self.inbox);
        mem::swap(&mut inbox.jobs, &mut empty.jobs);
        mem::swap(&mut inbox.kicked, &mut empty.kicked);
    }

    /// Nothing is taken any more. Returns the jobs that were taken and not yet run.
    #[must_use]
    pub(crate) fn close(&self) -> Vec<J> {
        let mut inbox = lock(&self.inbox);
        inbox.closed = true;
        mem::take(&mut inbox.jobs)
    }

    /// Whether the worker may sleep. Answers no when something came since [`awake`](Self::awake).
    pub(crate) fn may_park(&self) -> bool {
        // Release pairs with the swap in `signal`; nothing is taken here, so failure may be relaxed.
        self.state.compare_exchange(RUNNING, PARKED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The worker runs and is about to look: what is posted from now on signals again.
    pub(crate) fn awake(&self) {
        // Acquire pairs with the swap in `signal`: what was posted before it is found by the `take` that follows.
        self.state.swap(RUNNING, Ordering::AcqRel);
    }

    /// Has the worker look again without handing it anything.
    pub(crate) fn signal(&self) {
        // Release publishes the post to `awake`; acquire sees that the worker decided to sleep.
        if self.state.swap(SIGNALLED, Ordering::AcqRel) == PARKED {
            self.waker.wake_by_ref();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::Arc,
        task::{Wake, Waker},
    };

    use super::*;
    use crate::sync::AtomicU32;

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Rules: MQ-058.
    #[test]
    fn a_sleeping_worker_is_woken_once() {
        let count = Arc::new(Count(AtomicU32::new(0)));
        let mailbox = Mailbox::<(), u32>::new(Waker::from(count.clone()));
        mailbox.kick(1);
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "it runs");
        assert!(!mailbox.may_park(), "it has not looked yet");
        mailbox.awake();
        let mut inbox = Inbox::new();
        mailbox.take(&mut inbox);
        assert_eq!(inbox.kicked, [1]);
        assert!(mailbox.may_park());
        for key in 0..1000 {
            mailbox.kick(key);
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        mailbox.post(()).unwrap();
        assert_eq!(mailbox.close(), [()], "it was taken");
        assert_eq!(mailbox.post(()), Err(()));
        assert!(mailbox.close().is_empty());
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Posting against falling asleep: whatever was posted before the worker sleeps, or while it does, is found.

    use std::{
        sync::Arc,
        task::{Wake, Waker},
    };

    use loom::thread;

    use super::*;
    use crate::sync::AtomicBool;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// Rules: MQ-053, MQ-058.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let flag = Arc::new(Flag(AtomicBool::new(false)));
            let mailbox = Arc::new(Mailbox::<(), u32>::new(Waker::from(flag.clone())));
            let posters: Vec<_> = (0..2)
                .map(|key| {
                    let mailbox = mailbox.clone();
                    thread::spawn(move || mailbox.kick(key))
                })
                .collect();
            let look = || {
                mailbox.awake();
                let mut inbox = Inbox::new();
                mailbox.take(&mut inbox);
                inbox.kicked.len()
            };
            let first = look();
            let parked = mailbox.may_park();
            for poster in posters {
                poster.join().unwrap();
            }
            // A worker that did not fall asleep looks again; one that did looks when it was woken.
            let woken = flag.0.load(Ordering::Acquire);
            let second = if !parked || woken { look() } else { 0 };
            assert_eq!(first + second, 2);
        });
    }
}
