//! What the calls of the protocol can end in.

use super::codec::ProcessKey;

/// The nine kinds of 6.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// The deadline passed.
    #[error(
        "the deadline passed; the other side is slow, stopped or dead: `tidegate hub diagnose` says which"
    )]
    Timeout,
    /// The ring is full and waiting is not wanted.
    #[error("the ring is full; wait, add slots, or let it drop the oldest")]
    QueueFull,
    /// There is nothing to read and waiting is not wanted.
    #[error("nothing to read yet")]
    QueueEmpty,
    /// The slot is between two values.
    #[error("the slot is being overwritten; try again")]
    NotReady,
    /// Ids were overwritten before they were read; reading goes on behind them.
    #[error("{lost} ids were overwritten before they were read; read faster or add slots")]
    Lapped {
        /// How many.
        lost: u64,
    },
    /// Someone else has what is needed.
    #[error("held by {holder}; nothing was changed")]
    Locked {
        /// Who.
        holder: Holder,
    },
    /// This handle lost its right.
    #[error("this handle lost its right: the writer was displaced or the consumer evicted; attach again")]
    Fenced,
    /// The block takes no more data, and all there was has been read.
    #[error("the block is closed{}", if *.handed_over { "; the channel goes on in its successor" } else { "" })]
    Closed {
        /// Whether a successor exists.
        handed_over: bool,
    },
    /// A word of the block holds what it never may.
    #[error("the block is damaged or misused; `tidegate hub validate` shows where")]
    InvalidState,
}

/// Who holds what is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Another process, or another thread of this one.
    Process(ProcessKey),
    /// The caller: waiting would be for itself.
    Caller,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(key) => write!(f, "process {key}"),
            Self::Caller => f.write_str("the caller itself"),
        }
    }
}

/// Why no slot could be allocated or committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// One of the nine kinds.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// More slots than the ring has (DH-056).
    #[error("{requested} slots asked for, the ring has {available}; ask for fewer")]
    BatchTooLarge {
        /// Asked for.
        requested: u32,
        /// Slots of the ring.
        available: u32,
    },
    /// The last id was given away.
    #[error("the channel used all its ids; create it anew")]
    IdSpaceExhausted,
    /// The channel has no digests (DH-156).
    #[error("the channel has no digests; its producer chooses an algorithm when it makes it")]
    DigestsDisabled,
    /// Every slot must be authenticated, and this process cannot (DH-154).
    #[error("slot id {id} cannot be authenticated here: key or algorithm are missing; it was given up")]
    CannotSeal {
        /// The slot.
        id: u64,
    },
    /// Longer than a slot (DH-127).
    #[error("{len} bytes do not fit into a slot of {available}")]
    TooLong {
        /// Wanted.
        len: u64,
        /// Bytes of a slot.
        available: u64,
    },
}

/// Why several slots could not be read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadBatchError {
    /// One of the nine kinds.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// More than this consumer may hold (DH-122).
    #[error("{requested} slots asked for, this consumer may hold {available}; ask for fewer")]
    BatchTooLarge {
        /// Asked for.
        requested: u32,
        /// May be held.
        available: u32,
    },
    /// Latest-value consumers hold one slot at a time (DH-122).
    #[error("a channel of latest values has no batches; acquire the latest value")]
    LatestOnly,
}

fn no_place(rows: u32, only: Option<ProcessKey>) -> String {
    match only {
        Some(only) => format!(
            "each record is for one consumer, and {only} is that; let it leave, or make the channel for all readers \
             (`hub pub --sync all`)"
        ),
        None => format!("all {rows} places for consumers are taken; let one leave or raise max_consumers"),
    }
}

/// Why the registry could not be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The maintenance lock could not be had in time.
    #[error("the maintenance lock is held by {}; it is held for moments only, so look at that process", .holder.map_or_else(|| "somebody".into(), |key| key.to_string()))]
    LockTimeout {
        /// Who was last seen with it.
        holder: Option<ProcessKey>,
    },
    /// No row is free, or the one consumer is there already (DH-074, DH-102).
    #[error("{}", no_place(*.rows, *.only))]
    ConsumerLimit {
        /// Number of places.
        rows: u32,
        /// Who reads, where there is one consumer by [`SyncPolicy::SingleReader`](super::config::SyncPolicy::SingleReader).
        only: Option<ProcessKey>,
    },
    /// The wanted start is outside of what the ring holds.
    #[error("id {wanted} is not between the floor {floor} and the end {end}")]
    BadStart {
        /// Asked for.
        wanted: u64,
        /// Smallest id that can be promised.
        floor: u64,
        /// Next id to come.
        end: u64,
    },
    /// The row is not this consumer's any more.
    #[error("the row belongs to somebody else by now; attach again")]
    NotOwner,
    /// The writer lives, or nobody can tell (DH-034).
    #[error("process {owner} writes this block and is not dead; stop it first")]
    WriterAlive {
        /// Its key.
        owner: ProcessKey,
    },
    /// A word of the block holds what it never may.
    #[error("the block is damaged; `tidegate hub validate` shows where")]
    Damaged,
}
