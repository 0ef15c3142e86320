//! An engine without threads: its one worker is the thread that made it, while that thread waits (MQ-057).

use std::{
    fmt,
    future::Future,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use compio::runtime::Runtime;

use super::{
    Ended, Engine, EngineError, Inner,
    driver::{self, DriverChoice},
    mailbox::Inbox,
    resolve::Resolver,
    worker::{Door, Work, Worker},
};
use crate::{
    engine::table::Key,
    sync::{AtomicBool, Ordering},
};

/// An engine that is served by the calling thread.
///
/// Nothing happens to its streams except during [`run`](Self::run). When it is dropped they end.
pub struct Embedded {
    engine: Engine,
    worker: Rc<Worker>,
    inbox: Inbox<Work, Key>,
    // After the worker, whose tasks it holds.
    runtime: Runtime,
}

impl Embedded {
    /// Makes the calling thread the worker of a new engine; `spin` as in [`EngineConfig`](super::EngineConfig).
    ///
    /// # Errors
    /// [`EngineError::Driver`] when the driver that was asked for is not to be had.
    pub fn new(choice: DriverChoice, spin: Duration) -> Result<Self, EngineError> {
        let runtime = driver::runtime(choice).map_err(|error| EngineError::Driver { choice, error })?;
        let door = Arc::new(Door::new(runtime.waker()));
        let doors = Arc::new(vec![door.clone()]);
        let engine = Engine(Arc::new(Inner {
            doors: doors.clone(),
            driver: driver::driver_of(&runtime),
            resolver: Resolver::default(),
            ended: Arc::new(Ended::default()),
        }));
        Ok(Self {
            engine,
            worker: Worker::with_crowd(door, doors, spin, usize::MAX),
            inbox: Inbox::new(),
            runtime,
        })
    }

    /// The engine, for this thread and others.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Serves the streams until `future` is done. It is polled on this thread, and whatever a stream brings it wakes it
    /// without any other thread or the operating system.
    pub fn run<F: Future>(&mut self, future: F) -> F::Output {
        let Self { worker, inbox, runtime, .. } = self;
        let root = Arc::new(Root { door: worker.door.clone(), woken: AtomicBool::new(true) });
        let waker = Waker::from(root.clone());
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        runtime.enter(|| {
            loop {
                // Acquire pairs with the release of `wake`: the future sees why it was woken.
                if root.woken.swap(false, Ordering::Acquire)
                    && let Poll::Ready(output) = future.as_mut().poll(&mut context)
                {
                    return output;
                }
                worker.stay();
                // Relaxed: only whether to look again.
                worker.turn(runtime, inbox, &|| root.woken.load(Ordering::Relaxed));
            }
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let Self { worker, runtime, .. } = self;
        runtime.enter(|| worker.finish());
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// What the thread waits for.
struct Root {
    door: Arc<Door>,
    woken: AtomicBool,
}

impl Wake for Root {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release pairs with the acquire of `run`. The signal of the door comes after: a worker that it finds awake
        // looks at this before it sleeps.
        self.woken.store(true, Ordering::Release);
        self.door.wake();
    }
}
