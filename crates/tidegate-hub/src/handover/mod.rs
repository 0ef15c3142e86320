//! Moving a channel to another block while it is in use (chapter 15): more slots, other records, another key.
//!
//! ```text
//!  producer   begin_handover -> Handover --cut--> Producer of the new block   (dropped before: cancelled)
//!  consumer   HandoverIterator: reads the old block to its end, then the new one
//! ```
//!
//! The old block's control page decides everything; messages only make it faster (DH-221). It is the one store
//! `handover_state := 2` that makes the new block the channel (DH-222):
//!
//! | `handover_state` | the channel is in | who died before may have left |
//! |---|---|---|
//! | 0 none, 4 cancelled | this block | nothing |
//! | 1 prepared | this block | a successor that has a name already; whoever adopts removes it |
//! | 2 cut | the successor | this block's name, until nobody reads here or the time is up |
//! | 3 done | the successor | this block's name |

mod adopt;
mod error;
mod page;
mod prepare;
mod retire;

pub(crate) use adopt::{call_off, end, end_closed, floor_hold, not_left_yet, retire_predecessor};
pub use error::HandoverError;
pub use page::{Announcement, HandoverState};
pub(crate) use page::{answer, glance, observe};
pub use prepare::{Answers, Confirm, Handover, HandoverOptions, OnSilence};
pub(crate) use retire::Predecessors;
