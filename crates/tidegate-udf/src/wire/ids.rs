//! Ids and units that cross the two processes, each a type of its own.

use std::fmt;

/// Defines a number with a meaning.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($ty:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $ty);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// Unit of ownership and of order in a source.
    PartitionId(u32);
    /// Number of one ownership session of one partition; 0 means none.
    Generation(u64);
    /// Number of one commit unit of one partition.
    EpochId(u64);
    /// Number of a batch in its session, from 1 on.
    BatchId(u64);
    /// Random number of one attachment of one worker; not 0.
    SessionId(u64);
    /// Id of a schema; 0 is untyped bytes.
    SchemaId(u64);
    /// Place of a record in its source partition; grows in source order.
    Position(u64);
    /// Slot of segment F that holds the fence word of a partition.
    FenceSlot(u16);
    /// Place in a ring, counted in bytes since its beginning, never wrapping.
    RingPos(u64);
}

impl SchemaId {
    /// Untyped bytes.
    pub const NONE: Self = Self(0);
}
