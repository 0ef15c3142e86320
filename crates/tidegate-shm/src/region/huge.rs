//! Huge pages: asking for them, and finding out what came of it.
//!
//! A mapping of hugetlbfs has them by construction. For any other file they are the kernel's choice, which depends on a
//! setting of the system (`shmem_enabled`) and on options of the mount, so what was given is read from the kernel's own
//! account of the mapping instead of being inferred.

use std::{fs, io};

use rustix::mm::{Advice, madvise};

use super::mapping::{AccessError, Mapping, Region};

impl Region {
    /// Asks for transparent huge pages, touches every page that could be one, and returns how many bytes of the
    /// mapping are in huge pages now (DH-027).
    ///
    /// # Errors
    /// The kernel knows no huge pages, or `/proc` does not tell.
    pub fn advise_huge(&self) -> io::Result<u64> {
        let Mapping { base, map_len, .. } = *self.mapping;
        // SAFETY: exactly our mapping; advice changes no contents.
        unsafe { madvise(base.as_ptr().cast(), map_len, Advice::LinuxHugepage) }?;
        self.touch_every(SMALLEST_HUGE_PAGE).map_err(io::Error::other)?;
        self.huge_bytes()
    }

    /// Bytes of the mapping that are in huge pages of any kind, as `/proc/self/smaps` has it.
    ///
    /// # Errors
    /// `/proc` does not tell.
    pub fn huge_bytes(&self) -> io::Result<u64> {
        let Mapping { base, map_len, .. } = *self.mapping;
        let start = base.as_ptr() as u64;
        Ok(count_huge(&fs::read_to_string("/proc/self/smaps")?, start, start + map_len as u64))
    }

    fn touch_every(&self, distance: u64) -> Result<(), AccessError> {
        let mut offset = 0;
        while offset < self.len() {
            self.read(offset, &mut [0])?;
            offset += distance;
        }
        Ok(())
    }
}

/// What the system lets shared memory have, as far as its setting says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePagePermission {
    /// The kernel may give transparent huge pages to shared memory.
    Permitted,
    /// `never` or `deny`: only mounts with an option of their own have them.
    NotPermitted,
    /// The kernel has no such setting.
    Unsupported,
}

/// Reads the system's setting for shared memory (DH-030).
pub fn shared_huge_page_permission() -> HugePagePermission {
    match fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled") {
        Ok(text) => permission(&text),
        Err(_) => HugePagePermission::Unsupported,
    }
}

/// The setting in force is the one in brackets.
fn permission(text: &str) -> HugePagePermission {
    let chosen = text.split_ascii_whitespace().find(|word| word.starts_with('['));
    match chosen {
        Some("[never]" | "[deny]") => HugePagePermission::NotPermitted,
        Some(_) => HugePagePermission::Permitted,
        None => HugePagePermission::Unsupported,
    }
}

/// Sums the huge pages of all mappings that lie between two addresses.
fn count_huge(smaps: &str, start: u64, end: u64) -> u64 {
    let mut inside = false;
    let mut bytes: u64 = 0;
    for line in smaps.lines() {
        if let Some((from, to)) = address_range(line) {
            inside = from >= start && to <= end;
        } else if inside && let Some(size) = huge_size(line) {
            bytes = bytes.saturating_add(size);
        }
    }
    bytes
}

/// `7f00-7f10 rw-s ...` begins the account of one mapping.
fn address_range(line: &str) -> Option<(u64, u64)> {
    let (from, to) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

/// `ShmemPmdMapped:     2048 kB`, in bytes.
fn huge_size(line: &str) -> Option<u64> {
    const KINDS: [&str; 4] = ["ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb"];
    let (kind, size) = line.split_once(':')?;
    if !KINDS.contains(&kind) {
        return None;
    }
    let kilobytes: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Touching at this distance reaches every huge page of any size.
const SMALLEST_HUGE_PAGE: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-030.
    #[test]
    fn the_setting_in_brackets_decides() {
        for (text, expected) in [
            ("always within_size advise [never] deny force\n", HugePagePermission::NotPermitted),
            ("always within_size advise never [deny] force\n", HugePagePermission::NotPermitted),
            ("always within_size [advise] never deny force\n", HugePagePermission::Permitted),
            ("[always] within_size advise never deny force\n", HugePagePermission::Permitted),
            ("", HugePagePermission::Unsupported),
        ] {
            assert_eq!(permission(text), expected, "{text:?}");
        }
    }

    #[test]
    fn huge_pages_are_summed_over_the_parts_of_one_mapping_only() {
        let smaps = "\
7f0000000000-7f0000200000 r--s 00000000 00:01 1 /x\nSize: 2048 kB\nShmemPmdMapped:     2048 kB\n\
7f0000200000-7f0000400000 rw-s 00200000 00:01 1 /x\nFilePmdMapped:     0 kB\nShared_Hugetlb:    2048 kB\n\
7f0000400000-7f0000600000 rw-s 00200000 00:01 2 /y\nShmemPmdMapped:    2048 kB\n";
        assert_eq!(count_huge(smaps, 0x7f00_0000_0000, 0x7f00_0040_0000), 4 << 20);
        assert_eq!(count_huge(smaps, 0x7f00_0020_0000, 0x7f00_0040_0000), 2 << 20);
        assert_eq!(count_huge("ShmemPmdMapped: x kB\nnothing", 0, u64::MAX), 0);
    }
}
