//! Tensor pool: lossy broadcast of tensors over shared memory.
//!
//! A producer writes tensors into slots of file-backed regions and announces each one with a small
//! descriptor; any number of consumers read the slots in place. The producer never waits. A consumer that is too
//! slow loses frames, knows how many, and never sees bytes that changed while it read them.
//!
//! | module | what it is |
//! |---|---|
//! | [`ids`] | newtypes for every id that crosses an API |
//! | [`uri`], [`channel`] | region URIs and Aeron channel strings |
//! | [`tensor`], [`layout`] | tensor descriptions and the byte layout of regions |
//! | [`config`] | driver configuration |
//! | [`region`] | creating and mapping the regions of one epoch |
//! | [`frame`] | writing and reading one frame under the commit protocol |
//! | [`transport`] | what the control plane needs from a message transport |
//! | [`driver`] | the tensor driver: leases, epochs, announces |
//! | [`client`] | conductor, producer, consumer |
//! | [`clock`] | where time comes from |
//! | [`agent`] | running a duty cycle on a thread, or by hand |
//!
//! The protocol parts (`driver`, the state machines of `client`) take bytes and time and return bytes and events;
//! sockets, clocks and threads are at the edges.

#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("the tensor pool's layouts are little-endian and accessed in native order (TP-004)");

pub mod agent;
pub mod channel;
pub mod client;
pub mod clock;
pub mod config;
pub mod driver;
pub mod frame;
pub mod ids;
pub mod layout;
pub mod region;
pub mod tensor;
pub mod transport;
pub mod uri;
