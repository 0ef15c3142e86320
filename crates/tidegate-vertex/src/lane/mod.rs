//! The runtime's end of one worker (VX-010).
//!
//! | module | gives |
//! |---|---|
//! | [`session`] | the segments of one attachment; publishing batches |
//! | `receive` | the thread that takes answers out of U |
//! | [`hears`] | what functions count and write to the log |
//! | `says` | what a worker prints |
//! | `backoff` | how long until a worker is started again |
//! | `attach` | starting a worker process, and agreeing with one |
//! | [`door`] | workers that somebody else starts, and who they are |
//! | `listen` | the socket that they find |
//! | [`supervise`] | the thread that starts a worker, sees it die, and starts it again |
//!
//! The worker is hostile: whatever it writes ends its session at worst (VX-011).

mod attach;
mod backoff;
pub mod door;
pub mod hears;
mod listen;
mod receive;
mod says;
pub mod session;
pub mod supervise;

pub use says::Tail;
