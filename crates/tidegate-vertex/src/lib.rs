//! Runtime of a vertex: reads a source, gives batches to a user function in another process over shared memory, writes what
//! comes back to sinks.
//!
//! | module | gives |
//! |---|---|
//! | [`run`] | the vertex |
//! | [`config`] | the pipeline file |
//! | [`fence`] | the word that is tested before every write |
//! | [`flow`] | the order of one partition: pure |
//! | [`ledger`] | what has been processed, durably |
//! | [`operate`] | watching and steering it from other threads |
//! | [`failpoint`] | steps at which tests end the process |
//! | [`own`] | who has a partition |
//! | [`lane`] | the runtime's end of a worker |
//! | [`source`], [`sink`], [`batch`] | where records come from, where outputs go, and what is between |
//! | [`npy`] | the header of `.npy` files |
//! | `hub` | channels of the data hub (feature `hub`) |
//! | `nats` | JetStream: connections, streams with barriers, ownership (feature `nats`) |
//! | `tensor` | tensor streams, and how they are linked to a node (feature `tensor`) |
//! | [`wake`] | how their threads wake the vertex |
//!
//! The protocol between runtime and worker is in `tidegate_udf`.

#![forbid(unsafe_code)]

#[cfg(not(loom))]
#[cfg(not(loom))]
pub mod answer;
pub mod batch;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod failpoint;
pub mod fence;
#[cfg(not(loom))]
pub mod flow;
#[cfg(all(not(loom), feature = "hub"))]
pub mod hub;
#[cfg(not(loom))]
mod inbox;
#[cfg(not(loom))]
pub mod lane;
#[cfg(not(loom))]
pub mod ledger;
#[cfg(all(not(loom), feature = "nats"))]
pub mod nats;
#[cfg(not(loom))]
pub mod npy;
#[cfg(not(loom))]
pub mod operate;
#[cfg(all(not(loom), any(feature = "hub", feature = "tensor")))]
mod origin;
#[cfg(not(loom))]
pub mod own;
#[cfg(not(loom))]
pub mod retry;
#[cfg(not(loom))]
pub mod run;
#[cfg(not(loom))]
pub mod sink;
#[cfg(not(loom))]
pub mod source;
#[cfg(all(not(loom), feature = "tensor"))]
pub mod tensor;
#[cfg(not(loom))]
pub mod wake;

#[cfg(not(loom))]
pub use tidegate_udf::wire::ids::PartitionId;
