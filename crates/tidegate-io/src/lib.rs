//! The I/O kernel of Tidegate: moves messages between applications and byte streams, and knows no protocol.
//!
//! From the outside in:
//! - [`engine`]: worker threads that own every file descriptor, each a compio runtime on io_uring or on polling. A worker
//!   drives a connection by two pumps, one reading and one writing, and hands bytes to the connection's
//!   [`Connection`](protocol::Connection), which is where a protocol is plugged in.
//! - [`hub`]: how a socket with many peers chooses among them: who has a turn, who is connected, who has which routing id;
//!   all of them pure data structures keyed by [`PeerKey`](peer::PeerKey) and [`Epoch`](peer::Epoch).
//! - [`index`]: which peers want a topic.
//! - [`queue`] and [`wait`]: a bounded queue of messages, and who waits for room or for a message.
//! - [`message`], [`packed`] and [`buffer`]: reference-counted parts, messages that wait, receive pages, write batches.
//!
//! The crate has no unsafe code of its own; buffers lent to the operating system are moved into the runtime and come
//! back with the result.

#![forbid(unsafe_code)]

pub mod batch;
pub mod buffer;
#[cfg(not(loom))]
pub mod engine;
/// In models: what threads share, without I/O.
#[cfg(loom)]
mod engine {
    #![allow(dead_code, unreachable_pub, reason = "only their models use them")]
    mod mailbox;
    mod token;
}
pub mod hub;
pub mod index;
pub mod message;
pub mod packed;
pub mod peer;
#[cfg(not(loom))]
pub mod protocol;
pub mod queue;
pub mod sync;
pub mod wait;
