//! Files mapped as shared memory: making them, opening them, and touching their bytes.
//!
//! ```text
//!  RegionDir --create_region--> RegionMut          the owner: directories, exact modes, reserved space
//!  AllowedBases --open--> RegionFile --map-----> Region       everybody else: nothing about the path is trusted
//!                                    --map_mut-> RegionMut
//!                                    --map_guarded-> GuardedRegion      one range writable, left out of forks
//!  Draft --map--> GuardedRegion, --publish--> name      the owner, when nobody may see an incomplete file
//!  SealedMemory --map-> GuardedRegion            memory without a name, passed by descriptor, of fixed size
//!  Region / RegionMut --atomic_u64--> SharedU64 / SharedU64Mut     one word, atomically
//!                     --span--------> Span / SpanMut               bytes, untrusted
//!  GuardedRegion --record, table--> Record, Table                  words at offsets that the compiler checked
//! ```
//!
//! # Invariants
//!
//! - No `&T` or `&mut T` to mapped bytes exists anywhere: only atomics, opaque copies and raw pointers.
//! - Whether a mapping can be written is a matter of type: [`Region`] has no way to write, [`RegionMut`] has.
//! - Every offset and length is checked, in 64-bit arithmetic, against the length that was mapped, and the file was at
//!   least that long when it was mapped (TP-064, TP-086).
//! - All handles are cheap clones of one mapping, which is unmapped when the last of them is dropped.

mod ahead;
mod copy;
mod create;
mod dir;
mod draft;
mod file;
mod guarded;
mod huge;
mod mapping;
mod open;
mod sealed;
mod span;
mod table;
mod walk;
mod word;
mod words;

pub use create::{CreateError, CreateOptions, create_region};
pub use dir::{DirEntry, DirError, Entries, FileKind, FileStat, RegionDir, free_space};
pub use draft::Draft;
pub use file::{Access, RegionFile};
pub use guarded::GuardedRegion;
pub use huge::{HugePagePermission, shared_huge_page_permission};
pub use mapping::{AccessError, MapError, Region, RegionMut};
pub use open::{AllowedBases, HugePages, OpenError, PermissionPolicy, RejectedBase};
pub use sealed::{SealError, SealedMemory};
pub use span::{Chunks, SharedSpan, SharedSpanMut, Span, SpanMut};
pub use table::{Pieces, PiecesMut, Record, RecordMut, Row, RowMut, Table, TableMut};
pub use word::{
    LoadU64, OwnedU64, SharedI8, SharedI8Mut, SharedI16, SharedI16Mut, SharedI32, SharedI32Mut, SharedI64,
    SharedI64Mut, SharedU8, SharedU8Mut, SharedU16, SharedU16Mut, SharedU32, SharedU32Mut, SharedU64,
    SharedU64Mut, StoreU64,
};
pub use words::{SharedWord, Words, WordsMut};
