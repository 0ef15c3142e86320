//! User functions of a Tidegate vertex in Rust.
//!
//! A vertex reads a source, gives batches of records to a function in another process over shared memory, and writes what
//! comes back to sinks. This crate is the other process:
//!
//! ```no_run
//! use tidegate_udf::{Ctx, Emit, Outcome, Record, worker};
//!
//! fn enrich(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
//!     if record.value().is_empty() {
//!         return Outcome::drop("empty");
//!     }
//!     out.record().key(record.key()).value(&record.value().to_ascii_uppercase());
//!     Outcome::ok()
//! }
//!
//! fn main() -> Result<(), tidegate_udf::WorkerError> {
//!     worker().map("enrich", enrich).run()
//! }
//! ```
//!
//! The pipeline file names the program under `udf.command`; the runtime starts it, passes the control socket, and ends it.
//! A function that panics fails one record; a process that dies is started again and its batches are sent to the new one.
//!
//! # What a function may rely on
//!
//! - Batches of a partition come in order, one at a time.
//! - An input that was answered may come again, after a crash of the worker or of the runtime; [`Ctx::attempt`] and
//!   [`Ctx::is_replay`] say so.
//! - What it is given does not change: records are copied out of shared memory once.
//!
//! The modules [`wire`], [`ring`], [`segment`] and [`control`] are the protocol itself, which the runtime uses from the other
//! side.

#![forbid(unsafe_code)]

#[cfg(not(loom))]
mod api;
#[cfg(not(loom))]
pub mod control;
#[cfg(not(loom))]
mod function;
pub mod ring;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
mod session;
pub mod wire;

#[cfg(not(loom))]
pub use api::{Ctx, Emit, Outcome, Output, Record};
#[cfg(not(loom))]
pub use session::WorkerError;

/// A worker process, to be given its function.
#[cfg(not(loom))]
pub fn worker() -> Worker {
    Worker { private: () }
}

/// See [`worker`].
#[cfg(not(loom))]
#[derive(Debug)]
pub struct Worker {
    private: (),
}

#[cfg(not(loom))]
impl Worker {
    /// A function of one record at a time; `name` is for logs and for `tidegate vertex status`.
    pub fn map<F>(self, name: &str, function: F) -> MapWorker
    where
        F: FnMut(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome + 'static,
    {
        let Self { private: () } = self;
        MapWorker { name: name.to_owned(), function: Box::new(function) }
    }
}

/// A worker process with its function.
#[cfg(not(loom))]
pub struct MapWorker {
    name: String,
    function: Box<dyn function::MapFn>,
}

#[cfg(not(loom))]
impl MapWorker {
    /// Attaches to the runtime that started this process and answers batches until the runtime ends the session. Takes
    /// standard input, over which the runtime passes the control socket.
    ///
    /// # Errors
    /// There is no runtime, it refused the worker, or it broke the protocol.
    pub fn run(self) -> Result<(), WorkerError> {
        session::run(&self.name, self.function)
    }
}

#[cfg(not(loom))]
impl std::fmt::Debug for MapWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapWorker").field("name", &self.name).finish_non_exhaustive()
    }
}
