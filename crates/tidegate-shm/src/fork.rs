//! Noticing that a handle has crossed a fork.
//!
//! Mappings that a child process must not have are left out of forks by the kernel (`MADV_DONTFORK`), so a handle that
//! a forked child inherits points to nothing, or to whatever the child mapped there since. [`ForkGuard::check`] tells
//! before the first touch.
//!
//! The guard is a word in a page of its own that the kernel gives to a child filled with zeros (`MADV_WIPEONFORK`).
//! Checking it is one load from a line that is never written and one comparison. The alternatives are worse: comparing
//! pids costs a system call each time and is fooled when the child of a child gets the old pid; `pthread_atfork` is not
//! run by processes made with `clone` directly.
//!
//! Each process of a family gets a number of its own when it first makes a guard: one more than the largest its
//! ancestors had used when it was forked.

use std::{io, ptr::NonNull, sync::OnceLock};

use rustix::{
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous},
    param::page_size,
};

use crate::sync::{MappedU64, Ordering};

/// The process that made a handle.
#[derive(Debug, Clone, Copy)]
pub struct ForkGuard {
    word: &'static MappedU64,
    process: u64,
}

impl ForkGuard {
    /// A guard of the calling process. The first one allocates a page, which stays for the life of the process.
    ///
    /// # Errors
    /// The kernel gives no page that is wiped on fork (Linux 4.14 or newer is needed).
    pub fn new() -> io::Result<Self> {
        let word = word()?;
        let process = match word.load(Ordering::Relaxed) {
            0 => number_this_process(word),
            process => process,
        };
        Ok(Self { word, process })
    }

    /// Whether the calling process is the one that made the guard.
    ///
    /// # Errors
    /// [`Forked`] in a child of that process (DH-011).
    #[inline]
    pub fn check(&self) -> Result<(), Forked> {
        // Relaxed: the word changes only by forking, which orders everything.
        if self.word.load(Ordering::Relaxed) == self.process { Ok(()) } else { Err(Forked) }
    }

    /// A number that no ancestor of this process used: what was noted under another one was inherited.
    pub fn process(&self) -> u64 {
        self.process
    }
}

/// A handle was used in a child of the process that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the handle was made before this process was forked; open it again in the child")]
pub struct Forked;

/// The word in the page that a child gets zeroed.
fn word() -> Result<&'static MappedU64, Errno> {
    static WORD: OnceLock<Result<&'static MappedU64, Errno>> = OnceLock::new();
    *WORD.get_or_init(|| {
        let page = wiped_page()?;
        // SAFETY: 8 mapped bytes at the start of a page, never unmapped, touched only through this word.
        Ok(unsafe { MappedU64::from_ptr(page.as_ptr().cast()) })
    })
}

fn wiped_page() -> Result<NonNull<u8>, Errno> {
    let len = page_size();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint makes a new mapping, which cannot touch existing memory.
    let page = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE) }?;
    // SAFETY: exactly the page just mapped, whose contents nobody has used yet.
    unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }?;
    NonNull::new(page.cast()).ok_or(Errno::NOMEM)
}

fn number_this_process(word: &MappedU64) -> u64 {
    /// The largest number given in this process and its ancestors; ordinary memory, so that it is inherited.
    static LAST: MappedU64 = MappedU64::new(0);
    // Relaxed: numbers only have to differ, and the exchange decides which of two threads counts.
    let fresh = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => fresh,
        Err(other) => other,
    }
}
