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
//! A program that somebody else starts, in another container for example, connects to the socket that `TIDEGATE_VX_SOCKET` names,
//! which is `udf.listen` of the pipeline file. It waits for the runtime, and ends with it: whoever started it starts it again.
//!
//! | kind | the function gets | and |
//! |---|---|---|
//! | [`Worker::map`] | a record | emits any number of outputs, or says what else became of it |
//! | [`Worker::filter`] | a record | says whether it goes on, unchanged |
//! | [`Worker::flat_map`] | a record | returns its outputs |
//! | [`Worker::batch_map`] | a batch | answers its records in any order |
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
mod batch;
#[cfg(not(loom))]
pub mod control;
#[cfg(not(loom))]
mod function;
#[cfg(not(loom))]
mod harness;
#[cfg(not(loom))]
mod journal;
#[cfg(not(loom))]
pub mod pace;
#[cfg(not(loom))]
mod reach;
pub mod ring;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
mod session;
pub mod wire;

#[cfg(not(loom))]
mod worker;

/// The programs in the guides, compiled and run.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/guides/vertex/getting-started.md")]
    struct GettingStarted;
    #[cfg(feature = "schema-text")]
    #[doc = include_str!("../../../docs/guides/vertex/functions.md")]
    struct Functions;
}

#[cfg(not(loom))]
pub use api::{Ctx, Emit, FenceCheck, Outcome, Output, Record, StopToken};
#[cfg(not(loom))]
pub use batch::{Answers, Batch, Failure, Handled, Handler, Place};
#[cfg(not(loom))]
pub use harness::{Answered, Harness, Made};
#[cfg(not(loom))]
pub use journal::Journal;
#[cfg(not(loom))]
pub use session::{Schemas, Sdk, WorkerError, serve};
pub use wire::ids::SchemaId;
#[cfg(not(loom))]
pub use wire::message::Level;
#[cfg(not(loom))]
pub use worker::{FunctionWorker, Worker, worker};
