//! Safe wrapper of the Aeron C client and an embeddable media driver.
//!
//! [`MediaDriver`] runs the Aeron C media driver inside this process. [`Client`] connects to a media driver, embedded or
//! not, and makes [`Publication`]s, [`ExclusivePublication`]s, [`Subscription`]s and [`Counter`]s.
//!
//! What this crate guarantees on top of the C library:
//!
//! - No Aeron type is visible to callers, and nothing here aborts or exits the process: the C library's default error
//!   handler, which calls `exit`, is never installed.
//! - Every wait has a deadline, a truncated or abandoned `cnc.dat` included.
//! - A directory that a live driver owns is never taken, one that a dead driver left is cleaned, and one that is no
//!   driver directory is left alone.
//! - A client is closed after everything made from it, in whatever order the values are dropped.
//! - Offering allocates nothing, and so does polling once its buffers have grown to the sizes of the messages.
//! - Received bytes are copied out of the log before they are shown, so a publisher that writes into its log again cannot
//!   change what a handler is reading.
//!
//! The log buffers themselves are trusted as in every Aeron client: whoever may write the driver's directory can make its
//! clients read garbage. Keep the directory readable by one user only.
//!
//! ```no_run
//! use std::time::Duration;
//! use tidegate_aeron::{Client, ClientOptions, MediaDriver, MediaDriverOptions};
//!
//! # fn main() -> Result<(), tidegate_aeron::AeronError> {
//! let driver = MediaDriver::launch(&MediaDriverOptions::new("/dev/shm/example"))?;
//! let client = Client::connect(&ClientOptions::new(driver.dir()))?;
//! let mut subscription = client.add_subscription("aeron:ipc", 1000, Duration::from_secs(5))?;
//! let mut publication = client.add_publication("aeron:ipc", 1000, Duration::from_secs(5))?;
//! let _ = publication.offer(b"hello");
//! subscription.poll(10, &mut |fragment| println!("{} bytes", fragment.data.len()))?;
//! # Ok(())
//! # }
//! ```

mod assembler;
mod client;
mod cnc;
mod connection;
mod counter;
mod directory;
mod driver;
mod error;
mod error_log;
mod ffi;
mod pending;
mod publication;
mod subscription;

pub use client::{Client, ClientOptions};
pub use cnc::{driver_is_active, driver_pid};
pub use counter::{Counter, CounterInfo};
pub use driver::{Idle, MediaDriver, MediaDriverOptions, Threading};
pub use error::{AeronError, ChannelConflict, OfferError, Resource};
pub use error_log::{DriverError, driver_errors};
pub use pending::{Pending, Registrable};
pub use publication::{
    Exclusive, ExclusivePublication, LogAccess, Position, Publication, PublicationOf, Shared,
};
pub use subscription::{Fragment, Subscription};
