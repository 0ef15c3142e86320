//! Typed channels between the processes of one host: data blocks in shared memory, a broker that says where they are, and
//! the tools that look into them and repair them.

#![forbid(unsafe_code)]

pub mod layout;

#[cfg(not(loom))]
pub mod attachment;
#[cfg(not(loom))]
pub mod block;
#[cfg(not(loom))]
pub mod broker;
#[cfg(not(loom))]
pub mod cancel;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod consumer;
pub mod core;
#[cfg(not(loom))]
pub mod error;
#[cfg(not(loom))]
pub mod handover;
pub mod identity;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
pub mod integrity;
#[cfg(not(loom))]
pub mod lock;
#[cfg(not(loom))]
pub mod metrics;
#[cfg(not(loom))]
pub mod producer;
#[cfg(not(loom))]
pub mod recover;
#[cfg(not(loom))]
pub mod schema;
#[cfg(not(loom))]
pub mod secret;
#[cfg(not(loom))]
mod upkeep;
#[cfg(not(loom))]
pub mod zone;

/// The programs in the guides, compiled and run.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/guides/hub/getting-started.md")]
    struct GettingStarted;

    #[doc = include_str!("../../../docs/guides/hub/moving.md")]
    struct Moving;
}
