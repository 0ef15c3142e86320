//! ZeroMQ sockets: messages between processes and hosts, interoperable with libzmq.
//!
//! ```
//! use tidegate_mq::{Context, Pull, Push};
//!
//! let context = Context::new();
//! let pull = Pull::new(&context)?;
//! let endpoint = pull.bind_blocking("tcp://127.0.0.1:*")?;
//! let push = Push::new(&context)?;
//! push.connect(&endpoint)?;
//! push.send_blocking("hello")?;
//! assert_eq!(pull.recv_blocking()?.parts()[0], "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

//! What to know:
//!
//! - [`socket`] has the kinds of sockets and what they share: calls that wait exist as futures for any runtime, as `try_…`
//!   and as `…_blocking`.
//! - [`Options`] are those of libzmq and some more, with the same defaults; the presets are combinations of them.
//! - [`monitor`] tells what happens to connections, [`metrics`] counts what passes, [`proxy`] ties sockets together,
//!   [`auth`] says who may connect.
//! - [`AnySocket`], [`Socket::set_raw`], [`Socket::raw`], [`Error::errno`] and [`Socket::monitor_to`] are for bindings: they
//!   speak libzmq's numbers.

#![forbid(unsafe_code)]
#![allow(
    clippy::result_large_err,
    reason = "a message that was not sent comes back as it is; a box would be an allocation per refusal"
)]

pub mod auth;
mod context;
mod embedded;
mod endpoint;
mod error;
mod inproc;
mod keys;
pub mod metrics;
pub mod monitor;
pub mod options;
mod pattern;
mod peer;
pub mod proxy;
mod shared;
pub mod socket;
mod state;
mod timer;
mod wire;
mod zap;

pub use tidegate_io::engine::{Driver, DriverChoice};
pub use tidegate_io::message::{Message, Part};
pub use tidegate_zmtp::mechanism::curve::{PublicKey, SecretKey};
pub use tidegate_zmtp::socket_type::SocketType;

pub use self::{
    context::{Context, ContextOptions, QueueUsage},
    embedded::Embedded,
    endpoint::{BindEndpoint, ConnectEndpoint, EndpointError},
    error::{Error, Result, SendError},
    keys::new_secret_key,
    options::Options,
    peer::Peer,
    socket::*,
};

/// The programs in the guides, compiled and run.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/guides/messaging/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../../../docs/guides/messaging/security.md")]
    struct Security;
}
