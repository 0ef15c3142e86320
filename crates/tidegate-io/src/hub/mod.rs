//! How a socket with many peers chooses among them. Pure data structures: no I/O, no locks, no clock.
//!
//! | type | answers |
//! |---|---|
//! | [`Peers`] | which pipe has this key, and is this news about its present connection |
//! | [`Rotation`] | from which peer is the next message taken (MQ-188), to which one does it go (MQ-189) |
//! | [`PeerSet`] | who may get a message that is for many (MQ-190) |
//! | [`RoutingTable`] | which peer has this routing id (MQ-213) |
//!
//! Everything is stamped with the [`Epoch`](crate::peer::Epoch) of the connection that it belongs to, and whatever comes
//! with another epoch than the one on record is ignored: what a dead connection still says cannot touch its successor
//! (MQ-068). Every operation takes constant time, except those that visit peers by their nature, and needs no memory
//! beyond what the largest number of peers at one time needed.

mod peers;
mod rotation;
mod route;
mod set;

pub use peers::Peers;
pub use rotation::Rotation;
pub use route::{Claim, Down, Route, RouteState, RoutingTable, Up};
pub use set::PeerSet;
