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
pub mod core;
pub mod identity;
#[cfg(not(loom))]
pub mod integrity;
#[cfg(not(loom))]
pub mod lock;
#[cfg(not(loom))]
pub mod schema;
#[cfg(not(loom))]
pub mod secret;
#[cfg(not(loom))]
pub mod zone;
