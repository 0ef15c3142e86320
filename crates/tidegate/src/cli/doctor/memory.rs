//! Shared memory that runs low, and huge pages.

use std::fs;
use std::path::Path;

use super::{Check, Finding};
use crate::cli::text;
use crate::output::{Exit, Stop};

const MIB: u64 = 1 << 20;
/// Less free memory than this is a problem, whatever the size of the file system.
const MIN_FREE: u64 = 256 * MIB;
/// So is less than this part of it.
const MIN_FREE_PART: u64 = 10;

/// Free space where regions and media drivers live.
pub(super) fn space(shm: &Path, min_free_mib: Option<u64>) -> Result<Finding, Stop> {
    let stat = rustix::fs::statvfs(shm).map_err(|errno| Stop::Error {
        exit: Exit::Failed,
        code: "io",
        message: format!("cannot find out the free space of {}: {errno}", shm.display()),
    })?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let total = stat.f_blocks.saturating_mul(stat.f_frsize);
    let least = min_free_mib.map_or(MIN_FREE.max(total / MIN_FREE_PART), |mib| mib.saturating_mul(MIB));
    let message = format!("{} of {} free", text::bytes(free), text::bytes(total));
    let mut finding = if free >= least {
        Finding::ok(Check::Memory, Some(shm), message)
    } else {
        let advice = format!(
            "remove what is not needed (`du -s {}/*`), or make it larger: mount -o remount,size=... {}",
            shm.display(),
            shm.display()
        );
        let message = format!("{message}, at least {} are advised", text::bytes(least));
        Finding::problem(Check::Memory, Some(shm), message, advice)
    };
    finding.bytes = Some(total.saturating_sub(free));
    Ok(finding)
}

/// What the kernel has reserved.
pub(super) fn huge_pages() -> Finding {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    Finding::ok(Check::HugePages, None, summary(&meminfo, &mounts))
}

fn summary(meminfo: &str, mounts: &str) -> String {
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let total = field("HugePages_Total").unwrap_or(0);
    let mounted: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (dir, kind) = (fields.next()?, fields.next()?);
            (kind == "hugetlbfs").then_some(dir)
        })
        .collect();
    let mounted =
        if mounted.is_empty() { "nowhere".to_owned() } else { format!("at {}", mounted.join(", ")) };
    if total == 0 {
        return format!("none reserved; hugetlbfs is mounted {mounted}");
    }
    let size = text::bytes(field("Hugepagesize").unwrap_or(0).saturating_mul(1024));
    let free = field("HugePages_Free").unwrap_or(0);
    format!("{free} of {total} pages of {size} free; hugetlbfs is mounted {mounted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_summed_up() {
        let mounts = "tmpfs /dev/shm tmpfs rw 0 0\nhugetlbfs /mnt/huge hugetlbfs rw 0 0\n";
        let meminfo = "MemTotal: 1 kB\nHugePages_Total:      10\nHugePages_Free:        4\nHugepagesize:       2048 kB\n";
        let expected = "4 of 10 pages of 2.0 MiB free; hugetlbfs is mounted at /mnt/huge";
        assert_eq!(summary(meminfo, mounts), expected);
        assert_eq!(summary("", ""), "none reserved; hugetlbfs is mounted nowhere");
    }
}
