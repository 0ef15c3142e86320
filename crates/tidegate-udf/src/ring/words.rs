//! The words and bytes of a segment by name: a mapping in the shipped code, plain atomics in models.

use tidegate_shm::{region::AccessError, sync::Ordering};

use crate::wire::segment::Word;

/// What an access to the bytes of a ring can end in.
pub type Access<T> = Result<T, AccessError>;

/// The segment that this side writes. Offsets count from the beginning of the ring.
pub trait Own {
    /// Stores a word.
    fn store(&self, word: Word, value: u64, order: Ordering);
    /// Stores the flags of the frame at `offset`.
    ///
    /// # Errors
    /// Outside of the ring.
    fn store_flags(&self, offset: u64, flags: u32, order: Ordering) -> Access<()>;
    /// Copies bytes into the ring.
    ///
    /// # Errors
    /// Outside of the ring.
    fn write(&self, offset: u64, bytes: &[u8]) -> Access<()>;
}

/// The segment that the other side writes.
pub trait Peer {
    /// Loads a word.
    fn load(&self, word: Word, order: Ordering) -> u64;
    /// Loads the flags of the frame at `offset`.
    ///
    /// # Errors
    /// Outside of the ring.
    fn load_flags(&self, offset: u64, order: Ordering) -> Access<u32>;
    /// Copies bytes out of the ring.
    ///
    /// # Errors
    /// Outside of the ring.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Access<()>;
    /// Appends `len` bytes of the ring to `bytes`.
    ///
    /// # Errors
    /// Outside of the ring; nothing was appended that may be used.
    fn append(&self, offset: u64, len: usize, bytes: &mut Vec<u8>) -> Access<()> {
        let start = bytes.len();
        bytes.resize(start + len, 0);
        self.read(offset, bytes.get_mut(start..).unwrap_or_default())
    }
}

/// The choices that the models change one at a time, to see the shipped code fail without them. Each is explained where it
/// is used.
#[allow(missing_docs, reason = "each is explained where it is used")]
pub trait Orders: 'static {
    const FLAGS: Ordering = Ordering::Release;
    const HEAD: Ordering = Ordering::Release;
    const SEE_HEAD: Ordering = Ordering::Acquire;
    const CONSUMED: Ordering = Ordering::Release;
    const GRANT: Ordering = Ordering::Release;
    const SEE_GRANT: Ordering = Ordering::Acquire;
    const GRANT_BEFORE_CONSUMED: bool = true;
    const CONSUMED_BEFORE_GRANT: bool = true;
    const HEAD_LAST: bool = true;
}

/// What everybody uses.
#[derive(Debug, Clone, Copy)]
pub struct Shipped;

impl Orders for Shipped {}
