//! Tidegate moves data between processes without copying it.
//!
//! This crate is the one to depend on: it re-exports the parts of the workspace under short names. The command line
//! `tidegate` is built from the same package.
//!
//! | module | what it is |
//! |---|---|
//! | [`tensor`] | the tensor pool: lossy broadcast of tensors over shared memory |
//! | [`sbe`] | messages of the tensor pool's control plane |
//! | [`shm`] | shared-memory foundation: regions, doorbells, process identity |
//! | `hub` | typed channels between the processes of a host, and their broker; with the feature `hub`, a default one |
//! | `mq` | messages between processes and hosts, interoperable with ZeroMQ; with the feature `zmq`, a default one |
//! | `vertex` | source, user function in another process, sink; with the feature `vertex`, a default one |
//! | `operations` | the admin socket of a vertex, its metrics and health; with the feature `vertex` |
//! | `exporter` | the `/metrics` page of a host; with the feature `hub` |
//! | [`node`] | the node: media driver and tensor driver in one process |
//! | [`media`] | frames from and to files: `.npy`, `.y4m`, raw |

#![forbid(unsafe_code)]

#[cfg(feature = "hub")]
pub use tidegate_hub as hub;
#[cfg(feature = "zmq")]
pub use tidegate_mq as mq;
pub use tidegate_sbe as sbe;
pub use tidegate_shm as shm;
pub use tidegate_tensor as tensor;
#[cfg(feature = "vertex")]
pub use tidegate_vertex as vertex;

#[cfg(feature = "hub")]
pub mod exporter;
#[cfg(any(feature = "hub", feature = "vertex"))]
mod http;
pub mod media;
pub mod node;
#[cfg(feature = "vertex")]
pub mod operations;

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
