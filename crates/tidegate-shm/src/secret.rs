//! Private memory for keys: left out of core dumps, not swapped out where that is permitted, wiped before it is given
//! back.
//!
//! A key takes pages of its own, so that excluding it from dumps and pinning it concern nothing else. Copies that a
//! cipher makes on the stack or in registers are beyond the reach of this; holders keep them short-lived.

use std::{fmt, io, ptr::NonNull, slice};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};

/// Bytes of this process only. Shows nothing of them when printed.
pub struct SecretBytes {
    base: NonNull<u8>,
    len: usize,
    locked: bool,
}

// SAFETY: the bytes are owned exclusively, as those of a `Box<[u8]>` are.
unsafe impl Send for SecretBytes {}
// SAFETY: as above; shared use only reads.
unsafe impl Sync for SecretBytes {}

impl SecretBytes {
    /// A copy of `bytes`, which the caller wipes.
    ///
    /// # Errors
    /// There is no memory, or the kernel does not exclude it from dumps.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut secret = Self::zeroed(bytes.len())?;
        secret.as_bytes_mut().copy_from_slice(bytes);
        Ok(secret)
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// As [`SecretBytes::new`].
    pub fn zeroed(len: usize) -> io::Result<Self> {
        let map_len = len.max(1);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), map_len, access, MapFlags::PRIVATE) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut secret = Self { base, len, locked: false };
        // SAFETY: exactly our mapping; what a dump contains does not matter to this process.
        unsafe { madvise(base.as_ptr().cast(), map_len, Advice::LinuxDontDump) }?;
        // SAFETY: exactly our mapping; locking changes no contents.
        secret.locked = unsafe { mlock(base.as_ptr().cast(), map_len) }.is_ok();
        Ok(secret)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `len` mapped, initialised bytes that only this value owns; the borrow keeps them from being written.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`; the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// Whether the kernel keeps them out of swap; it refuses above `ulimit -l`.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    fn wipe(&mut self) {
        for byte in self.as_bytes_mut() {
            // SAFETY: a byte of an exclusive slice. Volatile, so that it happens although nobody reads it again.
            unsafe { std::ptr::write_volatile(byte, 0) };
        }
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.wipe();
        // SAFETY: exactly the range that was mapped; references into it are bound to this value.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len.max(1)) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags of the mapping that holds `address`, from `/proc/self/smaps`.
    fn flags_of(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            if let Some((start, end)) = range
                && let (Ok(start), Ok(end)) =
                    (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
            {
                inside = (start..end).contains(&address);
            }
            if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.to_owned();
            }
        }
        panic!("no mapping at {address:x}");
    }

    #[test]
    fn secrets_are_left_out_of_dumps_and_pinned() {
        let secret = SecretBytes::new(b"a secret").unwrap();
        assert_eq!(secret.as_bytes(), b"a secret");
        let flags = flags_of(secret.as_bytes().as_ptr() as usize);
        assert!(flags.split_whitespace().any(|flag| flag == "dd"), "dumped: {flags}");
        assert_eq!(flags.split_whitespace().any(|flag| flag == "lo"), secret.is_locked());
        assert_eq!(format!("{secret:?}"), "SecretBytes(8 bytes)");
    }

    #[test]
    fn wiping_leaves_zeros() {
        let mut secret = SecretBytes::new(&[7; 40]).unwrap();
        secret.wipe();
        assert_eq!(secret.as_bytes(), [0; 40]);
        assert!(SecretBytes::new(&[]).unwrap().as_bytes().is_empty());
    }
}
