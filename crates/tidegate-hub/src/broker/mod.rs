//! The broker: which producer owns which channel, and where its block is (13); notifications between peers (14).
//!
//! The broker tells consumers where a block is. It moves no data, opens no block for writing, and judges no process: when
//! it is gone, data flow on (DH-003, DH-183).
//!
//! ```text
//! MessageHub --DEALER--> ROUTER  Broker --Machine(request, time) -> replies, events
//!     ^                             |
//!     +-----SUB <----- PUB ---------+             Store: the registry over restarts
//! ```
//!
//! - [`wire`]: the messages, checked while they are read.
//! - [`machine`]: what the broker answers, as a state machine without I/O.
//! - [`Broker`]: one thread that owns the sockets and the machine.
//! - [`MessageHub`]: what clients hold; [`Notifier`] and [`Notifications`] between producers and consumers directly.

pub mod host;
pub mod machine;
pub mod place;
pub mod wire;

mod address;
mod describe;
mod error;
mod hub;
mod proof;
mod seal;
mod service;
mod sockets;
mod store;
#[cfg(test)]
mod test_blocks;

pub use self::{
    address::BrokerAddress,
    describe::Disagreement,
    error::{BrokerError, HubError, RefusedBy},
    hub::{
        AttachViaError, Attachment, CountedIn, Discovery, EventStream, HubConfig, HubCounters, HubCurve,
        MessageHub, Notifications, Notifier, NotifierConfig, NotifierCurve, Registration, RetryPolicy,
    },
    proof::{LONGEST_SECRET, ProofLabel, SHORTEST_SECRET, Verifier},
    service::{AllowedClient, Broker, BrokerConfig, BrokerCurve, BrokerMeter, BrokerMetrics},
    store::{Loaded, Store},
};
