//! The node: one process that hosts the services of a host.
//!
//! ```text
//! <dir>                      $TIDEGATE_DIR, by default /dev/shm/tidegate-<user>; mode 0700
//!   .lock                    flock of the node; says who holds it
//!   node.json                what clients need to know (NodeDescription), written last at start, removed first at the end
//!   admin.sock               questions to the node, one JSON object per line
//!   broker.json              where the broker of data channels is
//!   hub/                     its sockets; mode 0700
//!   aeron, aeron.lock        embedded media driver
//!   tensorpool-<user>/...    regions, unless a configuration file says otherwise
//! ```
//!
//! A node that is stopped removes all of it. What a killed node leaves is taken over by the next one on the directory.

mod admin;
#[cfg(feature = "hub")]
mod broker;
mod client;
mod description;
mod error;
mod place;
mod run;
mod status;

#[cfg(feature = "hub")]
pub use broker::BrokerOptions;
pub use client::NodeClient;
pub use description::{EndpointDescription, NodeDescription, served_ids};
pub use error::NodeError;
pub use place::{DIR_VARIABLE, NodePlace};
pub use run::{MediaDriverHost, Node, NodeOptions};
pub use status::{LeaseStatus, NodeStatus, PoolStatus, StreamStatus};
