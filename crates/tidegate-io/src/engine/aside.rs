//! Ending an engine without blocking who asks for it.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use super::{Engine, Shutdown};

impl Engine {
    /// [`shutdown`](Self::shutdown), waited for on a thread of its own: it takes as long as peers take to close, for
    /// which the calling thread may have other tasks to serve. If the system has no thread, it is waited for on this one.
    ///
    /// # Cancellation
    /// Once polled, the engine ends whether this is dropped or not.
    pub async fn shutdown_aside(&self, linger: Duration) -> Shutdown {
        let is_here = self.0.doors.iter().any(|door| door.is_here());
        if is_here {
            return self.shutdown(linger);
        }
        let answer = Arc::<Mutex<Answer>>::default();
        let (engine, asked) = (self.clone(), answer.clone());
        let thread = thread::Builder::new().name("tidegate-io-end".into()).spawn(move || {
            let report = engine.shutdown(linger);
            let waker = {
                let mut answer = lock(&asked);
                answer.report = Some(report);
                answer.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        if thread.is_err() {
            return self.shutdown(linger);
        }
        poll_fn(|context| {
            let mut answer = lock(&answer);
            if let Some(report) = answer.report {
                return Poll::Ready(report);
            }
            answer.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// What the thread has found, or who waits for it.
#[derive(Default)]
struct Answer {
    report: Option<Shutdown>,
    waker: Option<Waker>,
}

fn lock(answer: &Mutex<Answer>) -> MutexGuard<'_, Answer> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{future::Future, pin::pin, sync::mpsc, task::Context, time::Instant};

    use super::*;
    use crate::{engine::EngineConfig, wait::block_on};

    /// A worker that is held up holds up nobody who waits for its end.
    ///
    /// Rules: MQ-081.
    #[test]
    fn the_calling_thread_is_not_blocked() {
        let engine = Engine::new(&EngineConfig::default()).unwrap();
        let (release, held) = mpsc::channel();
        engine.0.doors[0].post(move |_| held.recv().unwrap());
        let mut ending = pin!(engine.shutdown_aside(Duration::from_secs(8)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(ending.as_mut().poll(&mut context).is_pending());
        release.send(()).unwrap();
        let report = block_on(ending, Some(Instant::now() + Duration::from_secs(20)));
        assert_eq!(report, Some(Shutdown::default()), "it ended after all");
    }
}
