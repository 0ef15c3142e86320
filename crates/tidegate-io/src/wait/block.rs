//! See [`block_on`].

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    sync::Arc as StdArc,
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use super::Signal;
use crate::sync::{thread, thread_local};

/// Runs a future on the calling thread until it is ready, or until the deadline passes (None); the future is dropped
/// in that case. It is polled at least once, and once more after the deadline.
///
/// Needs no runtime and may be called on a thread of one, which is blocked meanwhile (MQ-044). Calls may be nested.
/// After a thread's first call nothing is allocated.
pub fn block_on<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let parker = CachedParker::take();
    let waker = Waker::from(parker.0.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if !parker.0.park(deadline) {
            return match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            };
        }
    }
}

/// Puts one thread to sleep.
struct Parker {
    signal: Signal,
    thread: thread::Thread,
}

impl Parker {
    /// Sleeps until woken (true) or until the deadline passes (false). Takes a wake-up that came before at once.
    fn park(&self, deadline: Option<Instant>) -> bool {
        // A thread may be unparked by others for their own reasons: only the signal counts.
        while !self.signal.lower() {
            match deadline {
                None => thread::park(),
                Some(deadline) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return false;
                    }
                    park_until(now, deadline);
                }
            }
        }
        true
    }
}

impl Wake for Parker {
    fn wake(self: StdArc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &StdArc<Self>) {
        if self.signal.raise() {
            self.thread.unpark();
        }
    }
}

#[cfg(not(loom))]
fn park_until(now: Instant, deadline: Instant) {
    thread::park_timeout(deadline.saturating_duration_since(now));
}

/// Models have no time.
#[cfg(loom)]
fn park_until(_: Instant, _: Instant) {
    thread::park();
}

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "the model checker's macro has no constant form")]
    static CACHE: Cell<Option<StdArc<Parker>>> = Cell::new(None);
}

/// The thread's parker, which goes back to its place when dropped.
///
/// A nested call finds the place empty and makes a parker of its own, as does a call while the thread's local storage
/// is being destroyed. A waker that somebody keeps from an earlier call can cause a poll without need, no more.
struct CachedParker(StdArc<Parker>);

impl CachedParker {
    fn take() -> Self {
        let cached = CACHE.try_with(Cell::take).ok().flatten();
        Self(
            cached
                .unwrap_or_else(|| StdArc::new(Parker { signal: Signal::new(), thread: thread::current() })),
        )
    }
}

impl Drop for CachedParker {
    fn drop(&mut self) {
        let _ = CACHE.try_with(|place| place.set(Some(self.0.clone())));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        future::{pending, poll_fn, ready},
        sync::{Arc, mpsc},
        thread,
        time::Duration,
    };

    use super::*;

    /// Rules: MQ-044.
    #[test]
    fn a_ready_future_needs_no_time() {
        assert_eq!(block_on(ready(7), Some(Instant::now())), Some(7));
    }

    #[test]
    fn a_deadline_ends_the_wait_and_drops_the_future() {
        let kept = Arc::new(());
        let inside = kept.clone();
        let start = Instant::now();
        let future = async move {
            pending::<()>().await;
            drop(inside);
        };
        assert_eq!(block_on(future, Some(start + Duration::from_millis(20))), None);
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    /// A future that is ready after another thread woke it `times` times.
    fn woken_from_another_thread(times: usize) -> impl Future<Output = usize> {
        let (polls, polled) = mpsc::channel::<Waker>();
        thread::spawn(move || polled.into_iter().for_each(Waker::wake));
        let mut count = 0;
        poll_fn(move |context| {
            if count == times {
                return Poll::Ready(count);
            }
            count += 1;
            assert!(polls.send(context.waker().clone()).is_ok());
            Poll::Pending
        })
    }

    #[test]
    fn a_wake_from_another_thread_is_not_lost() {
        let deadline = Instant::now() + Duration::from_secs(60);
        assert_eq!(block_on(woken_from_another_thread(10_000), Some(deadline)), Some(10_000));
    }

    /// Rules: MQ-044.
    #[test]
    fn calls_may_be_nested() {
        let deadline = Some(Instant::now() + Duration::from_secs(60));
        let outer = async {
            let inner = block_on(woken_from_another_thread(3), deadline);
            inner.unwrap() + woken_from_another_thread(4).await
        };
        assert_eq!(block_on(outer, deadline), Some(7));
    }

    /// Rules: MQ-044.
    #[test]
    fn a_thread_of_a_runtime_is_blocked_and_nothing_else() {
        let runtime = compio::runtime::Runtime::new().unwrap();
        let sum = runtime.block_on(async {
            let first = block_on(woken_from_another_thread(5), None);
            first.unwrap() + woken_from_another_thread(6).await
        });
        assert_eq!(sum, 11);
    }
}
