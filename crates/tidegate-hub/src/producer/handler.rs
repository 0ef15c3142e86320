//! Handlers that a thread of the library feeds with slots (DH-136).

use std::{
    fmt::Display,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use tidegate_shm::sync::{AtomicBool, Ordering};

use super::{Producer, WriteTx};
use crate::{
    config::Timeout,
    consumer::{Consumer, ReadSlot},
    error::{AcquireError, TxError},
};

/// A thread that runs a handler until it is stopped, or the channel is over.
#[derive(Debug)]
pub struct Runner<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T> Runner<T> {
    /// Lets the handler finish the slot that it is at, and ends the thread. Returns what was given to it; none if the thread
    /// could not keep it.
    pub fn stop(mut self) -> Option<T> {
        self.end()
    }

    /// Whether the thread has ended by itself, because the channel is closed or the right was lost.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn end(&mut self) -> Option<T> {
        // Relaxed: orders nothing; the thread looks after each slot.
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl<T> Drop for Runner<T> {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl Producer {
    /// Has `handler` fill slot after slot in a thread of its own. A slot for which it returns `Err` or panics is aborted, that
    /// is logged, and the next one comes.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn run<E: Display>(
        self: Arc<Self>,
        mut handler: impl FnMut(&mut WriteTx<'_>) -> Result<(), E> + Send + 'static,
    ) -> io::Result<Runner<Arc<Self>>> {
        start("tidegate-producer", self, move |producer| {
            producer.with_write(Timeout::Default, |slot| guarded(|| handler(slot)))
        })
    }
}

impl Consumer {
    /// Has `handler` read slot after slot in a thread of its own. What becomes of a slot for which it returns `Err` or panics
    /// is as configured (`on_read_error`); it is logged, and reading goes on.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn run<E: Display>(
        self,
        mut handler: impl FnMut(&ReadSlot<'_>) -> Result<(), E> + Send + 'static,
    ) -> io::Result<Runner<Self>> {
        start("tidegate-consumer", self, move |consumer| {
            consumer.with_next(Timeout::Default, |slot| guarded(|| handler(slot)))
        })
    }
}

/// A panic as an error.
fn guarded<E: Display>(handler: impl FnOnce() -> Result<(), E>) -> Result<(), String> {
    // The handler is called again after a panic: what it keeps is its own business.
    match catch_unwind(AssertUnwindSafe(handler)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the handler panicked".to_owned()),
    }
}

fn start<T: Send + 'static>(
    name: &str,
    handle: T,
    mut turn: impl FnMut(&mut T) -> Result<(), TxError<String>> + Send + 'static,
) -> io::Result<Runner<T>> {
    let stop = Arc::new(AtomicBool::new(false));
    let of_thread = stop.clone();
    let mut handle = handle;
    let run = move || {
        while !of_thread.load(Ordering::Relaxed) {
            match turn(&mut handle) {
                Ok(()) => {}
                Err(TxError::Acquire(AcquireError::Closed { .. } | AcquireError::Fenced)) => break,
                Err(TxError::Acquire(_)) => {}
                Err(error) => tracing::warn!(%error, "a handler failed"),
            }
        }
        handle
    };
    let thread = Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(Runner { stop, thread: Some(thread) })
}
