//! Who is at the other end of a Unix socket.
//!
//! The kernel noted it when the socket was connected: what the peer says about itself plays no part. On a socketpair that is
//! whoever made the pair.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The process that connected a socket, or that listened when this side connected.
#[derive(Debug)]
pub struct Peer {
    /// Its number as this process sees it; `None` when it is in a pid namespace that cannot be seen from here.
    pub pid: Option<u32>,
    /// Its effective user then.
    pub uid: u32,
    /// Its effective group then.
    pub gid: u32,
    /// Becomes readable with its death. `None` when the kernel gives none: before 6.5 for one in a foreign pid namespace, or
    /// when it is dead already.
    pub pidfd: Option<OwnedFd>,
}

impl Peer {
    /// The other end of a connected Unix socket.
    ///
    /// # Errors
    /// What the kernel says: no connected Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let socket = socket.as_fd().as_raw_fd();
        // `rustix` has a type for this in which a pid is never 0, which it is for a process in a foreign namespace.
        let libc::ucred { pid, uid, gid } = option(socket, libc::SO_PEERCRED)?;
        let pid = u32::try_from(pid).ok().filter(|&pid| pid != 0);
        Ok(Self { pid, uid, gid, pidfd: pidfd(socket).or_else(|| pidfd_of(pid?)) })
    }
}

/// From 6.5 on.
fn pidfd(socket: RawFd) -> Option<OwnedFd> {
    let fd: libc::c_int = option(socket, SO_PEERPIDFD).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the kernel has just made this descriptor for this call, so nobody else owns it; it sets close-on-exec itself.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A number may have a new owner by now, if the peer is dead. Then the socket says so, unless the peer left a child behind that
/// has it; and the death of a stranger at most ends a connection.
fn pidfd_of(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Types that are valid whatever bytes they have.
trait Plain: Copy {}
impl Plain for libc::c_int {}
impl Plain for libc::ucred {}

/// An option of the socket level.
fn option<T: Plain>(socket: RawFd, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: both pointers are to live values of this function, and `len` says how many bytes `value` has.
    let done =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, name, value.as_mut_ptr().cast(), &mut len) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    if len as usize != size_of::<T>() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: zeroed and then written by the kernel, and every pattern of bits is a `T`.
    Ok(unsafe { value.assume_init() })
}

/// `include/uapi/asm-generic/socket.h`; the same on x86-64 and AArch64.
const SO_PEERPIDFD: libc::c_int = 77;

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::unix::net::UnixStream,
        process::{Command, Stdio},
    };

    use rustix::{
        event::{PollFd, PollFlags, poll},
        time::Timespec,
    };

    use super::*;

    #[test]
    fn whoever_made_a_pair_is_at_both_of_its_ends() {
        let (one, other) = UnixStream::pair().unwrap();
        for end in [&one, &other] {
            let peer = Peer::of(end).unwrap();
            assert_eq!(peer.pid, Some(std::process::id()));
            assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
            assert!(peer.pidfd.is_some());
        }
        assert!(Peer::of(File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn the_death_of_a_process_is_seen() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pidfd = pidfd_of(child.id()).unwrap();
        let is_dead = |seconds| {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() > 0
        };
        assert!(!is_dead(0));
        drop(child.stdin.take());
        assert!(is_dead(60));
        child.wait().unwrap();
        assert!(pidfd_of(0).is_none() && pidfd_of(u32::MAX).is_none());
    }
}
