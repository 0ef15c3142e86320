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

#![forbid(unsafe_code)]

pub mod auth;
mod context;
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
    context::{Context, ContextOptions},
    endpoint::{BindEndpoint, ConnectEndpoint, EndpointError},
    error::{Error, Result, SendError},
    keys::new_secret_key,
    options::Options,
    peer::Peer,
    socket::*,
};
