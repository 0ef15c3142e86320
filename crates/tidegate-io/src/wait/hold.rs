//! Wake-ups that a thread keeps back for a moment.
//!
//! A thread that wakes another for each of several things that come together wakes it as often as that one falls asleep
//! between them. Who knows that more may be there [holds](hold) what its [`Wakes`](super::Wakes) would call, looks, and then
//! [lets go](release).

use std::{cell::RefCell, task::Waker};

use crate::sync::thread_local;

#[derive(Default)]
struct Held {
    holds: bool,
    /// Its memory is kept.
    wakers: Vec<Waker>,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

/// From now on this thread keeps wakers instead of calling them, until [`release`].
#[cfg(not(loom))]
pub(crate) fn hold() {
    let _ = HELD.try_with(|held| held.borrow_mut().holds = true);
}

/// Calls what was kept, in order; what comes later is called at once.
#[cfg(not(loom))]
pub(crate) fn release() {
    let _ = HELD.try_with(|held| {
        let mut now = held.borrow_mut();
        now.holds = false;
        let mut wakers = std::mem::take(&mut now.wakers);
        drop(now);
        // Who is called may call others through here.
        wakers.drain(..).for_each(Waker::wake);
        held.borrow_mut().wakers = wakers;
    });
}

/// Calls the waker, or keeps it.
#[inline]
pub(super) fn wake(waker: Waker) {
    let mut waker = Some(waker);
    let _ = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        if held.holds {
            held.wakers.extend(waker.take());
        }
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{sync::Arc, task::Wake};

    use super::*;
    use crate::{
        sync::{AtomicUsize, Ordering},
        wait::Wakes,
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Rules: MQ-057.
    #[test]
    fn what_is_held_is_called_when_let_go_and_not_before() {
        let count = Arc::new(Count::default());
        let fire = || {
            let mut wakes = Wakes::new();
            wakes.push(count.clone().into());
            wakes.fire();
            count.0.load(Ordering::Relaxed)
        };
        assert_eq!(fire(), 1);
        hold();
        assert_eq!((fire(), fire()), (1, 1));
        hold();
        assert_eq!(fire(), 1, "held already");
        let elsewhere = std::thread::scope(|scope| scope.spawn(fire).join());
        assert_eq!(elsewhere.ok(), Some(2), "another thread holds nothing");
        release();
        assert_eq!(count.0.load(Ordering::Relaxed), 5);
        assert_eq!(fire(), 6);
        release();
        assert_eq!(count.0.load(Ordering::Relaxed), 6);
    }
}
