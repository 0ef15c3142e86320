//! The regions of one epoch: what a message says about them, opening them, creating them.
//!
//! | module | what it is |
//! |---|---|
//! | [`RegionSpec`] | a description from the wire, structurally checked |
//! | [`ReadRegions`], [`WriteRegions`] | opened and validated mappings: all regions of the set, or none (TP-058) |
//! | `announce` | saying where the regions are |
//! | [`store`] | directories and files, for whoever creates regions |

mod announce;
mod mapped;
mod spec;
pub mod store;

pub(crate) use announce::{ANNOUNCE_REPEAT, RegionUris};
pub use mapped::{MapError, ReadRegions, RegionOpener, WriteRegions};
pub use spec::{PoolRegion, RegionSpec, SpecError};
