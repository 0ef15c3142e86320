//! A context without engine threads.

use std::future::Future;

use tidegate_io::engine;

use crate::{
    context::{Context, ContextOptions, engine_error},
    error::Result,
};

/// A context whose engine is served by the calling thread (MQ-057): what a stream brings reaches the application without
/// waking another thread, and a program decides itself where its I/O runs.
///
/// Streams are read, written, accepted and dialed, and their timers run, only during [`run`](Self::run). Sockets of the
/// [`context`](Self::context) may be used by other threads, too. On this thread everything that waits belongs into `run`
/// as a future; a `..._blocking` call would wait for what only this thread can bring, until its timeout.
///
/// When it is dropped, its connections end at once; `run(context.shutdown())` before sends what is queued.
///
/// ```
/// use tidegate_mq::{Context, ContextOptions, Embedded, Pull, Push};
///
/// let mut engine = Embedded::new(ContextOptions::default())?;
/// let context = engine.context().clone();
/// let (push, pull) = (Push::new(&context)?, Pull::new(&context)?);
/// let message = engine.run(async {
///     let endpoint = pull.bind("tcp://127.0.0.1:*").await?;
///     push.connect(&endpoint)?;
///     push.send("here").await?;
///     pull.recv().await
/// })?;
/// assert_eq!(message.parts()[0], *b"here");
/// # Ok::<(), tidegate_mq::Error>(())
/// ```
#[derive(Debug)]
pub struct Embedded {
    context: Context,
    engine: engine::Embedded,
}

impl Embedded {
    /// Makes the calling thread the engine of a new context. The options for engine threads have no effect.
    ///
    /// # Errors
    /// [`System`](crate::Error::System) when the driver that was asked for is not to be had.
    pub fn new(options: ContextOptions) -> Result<Self> {
        let engine = engine::Embedded::new(options.driver, options.spin).map_err(engine_error)?;
        let context = Context::with_options(ContextOptions { io_threads: 1, ..options });
        context.inner().adopt(engine.engine().clone());
        Ok(Self { context, engine })
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Serves the context's streams until `future` is done.
    pub fn run<F: Future>(&mut self, future: F) -> F::Output {
        self.engine.run(future)
    }
}
