//! Which boot of which host this is, and the namespaces in which pids and times have a meaning.
//!
//! Also the size of a page. Two processes can judge each other's pids and start times only if all three agree.

use std::{fs, io};

use rustix::{fs::stat, io::Errno};

/// The boot and the namespaces of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostId {
    /// Random number the kernel draws at each boot.
    pub boot_id: [u8; 16],
    /// Inode of the pid namespace.
    pub pid_namespace: u64,
    /// Inode of the time namespace, 0 where the kernel has none.
    pub time_namespace: u64,
}

impl HostId {
    /// That of the calling process.
    ///
    /// # Errors
    /// `/proc` is not mounted or has another form than this code knows.
    pub fn current() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot_id = parse_uuid(text.trim_end()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            boot_id,
            pid_namespace: stat("/proc/self/ns/pid")?.st_ino,
            time_namespace: match stat("/proc/self/ns/time") {
                Ok(stat) => stat.st_ino,
                Err(Errno::NOENT) => 0,
                Err(errno) => return Err(errno.into()),
            },
        })
    }
}

/// Bytes of an ordinary page.
pub fn page_size() -> usize {
    rustix::param::page_size()
}

/// Parses 32 hex digits in groups of 8-4-4-4-12.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let digits = groups.concat();
    if lengths != [8, 4, 4, 4, 12] || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_parsed_strictly() {
        let parsed = parse_uuid("00010203-0405-0607-0809-0a0b0c0d0e0f").unwrap();
        assert_eq!(parsed, std::array::from_fn(|i| i as u8));
        for wrong in [
            "",
            "00010203-0405-0607-0809-0a0b0c0d0e0",
            "00010203-0405-0607-0809-0a0b0c0d0e0g",
            "000102030405060708090a0b0c0d0e0f",
            "+0010203-0405-0607-0809-0a0b0c0d0e0f",
            "0001020-30405-0607-0809-0a0b0c0d0e0f",
        ] {
            assert_eq!(parse_uuid(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn this_host_stays_the_same_and_has_a_boot_and_namespaces() {
        let host = HostId::current().unwrap();
        assert_eq!(HostId::current().unwrap(), host);
        assert!(host.boot_id != [0; 16] && host.pid_namespace != 0);
    }
}
