//! Who waits, and how they are woken.
//!
//! - [`Waiters`]: a first-in first-out list of tasks that wait for something under a lock; giving up is safe at any
//!   moment. Wakers to be called are collected in [`Wakes`] and called after the lock is released.
//! - [`Budget`]: bytes that several owners, each with a lock of its own, may hold together.
//! - `hold`: wakers are not called at once where more is likely to come.
//! - [`Signal`]: a wake-up that is sent once until its receiver has run.
//! - [`Turns`]: whether an answer is expected so soon that sleeping does not pay.
//! - [`Spin`]: looking for it instead.
//! - [`block_on`]: waits for a future on the calling thread, with a deadline, without any runtime.

mod block;
mod budget;
pub(crate) mod hold;
mod list;
mod signal;
mod spin;
mod turns;

pub use block::block_on;
pub use budget::{Budget, Share};
pub use list::{Decision, Ticket, Waiters, Wakes};
#[cfg(loom)]
pub use signal::Orderings;
pub use signal::{Shipped, Signal};
pub use spin::{DEFAULT_TIME as DEFAULT_SPIN, Spin};
pub use turns::Turns;
