//! What the threads of the lanes tell the thread that runs the vertex.
//!
//! Bounded by construction: a lane says when it is attached and when it ended, and answers each batch once, and no more
//! batches are on their way than the window allows. So telling never waits (VX-313). That everything is to be looked at
//! again is one flag, however many say it.

use std::collections::VecDeque;

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Condvar, Mutex, MutexGuard},
};

/// Events in the order in which they were told.
#[derive(Debug)]
pub(crate) struct Inbox<E> {
    state: Mutex<State<E>>,
    told: Condvar,
}

#[derive(Debug)]
struct State<E> {
    events: VecDeque<E>,
    /// A fence, a source, a sink or the order to stop: everything is to be looked at again.
    woken: bool,
}

impl<E> Inbox<E> {
    /// Nothing told yet.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { events: VecDeque::new(), woken: false }), told: Condvar::new() }
    }

    /// Adds an event and wakes who waits.
    pub(crate) fn tell(&self, event: E) {
        self.lock().events.push_back(event);
        self.told.notify_one();
    }

    /// Wakes who waits, or will.
    pub(crate) fn wake(&self) {
        self.lock().woken = true;
        self.told.notify_one();
    }

    /// Takes the next event without waiting.
    pub(crate) fn take(&self) -> Option<E> {
        self.lock().events.pop_front()
    }

    /// Sleeps until an event is there, somebody woke it since it last slept, or the deadline passes.
    pub(crate) fn wait_until(&self, deadline: Nanos) {
        let mut state = self.lock();
        while state.events.is_empty() && !state.woken {
            let left = deadline.saturating_sub(monotonic_now());
            if left == Nanos::ZERO {
                return;
            }
            state = match self.told.wait_timeout(state, left.into()) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        state.woken = false;
    }

    /// The queue is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many say that everything is to be looked at again, it is one note; and none is lost.
    /// Rules: VX-313.
    #[test]
    fn wakes_do_not_pile_up() {
        let inbox = Inbox::<u32>::new();
        (0..100_000).for_each(|_| inbox.wake());
        assert_eq!((inbox.take(), inbox.lock().events.capacity()), (None, 0));
        let far = Nanos(u64::MAX);
        inbox.wait_until(far);
        inbox.tell(1);
        inbox.wait_until(far);
        inbox.wake();
        assert_eq!(inbox.take(), Some(1));
        inbox.wait_until(far);
        inbox.wait_until(Nanos::ZERO);
    }
}
