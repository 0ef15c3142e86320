//! Sockets of the operating system, as they are opened.

use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tidegate_mq::{Pull, Push, monitor::EventKind};

use super::rig::{ANYWHERE, DRIVERS, context, event, options};

/// A copy of a descriptor of this process.
fn copy(fd: i32) -> OwnedFd {
    pidfd_getfd(pidfd_open(getpid(), PidfdFlags::empty()).unwrap(), fd, PidfdGetfdFlags::empty()).unwrap()
}

/// The flags with which a file of this process is open.
fn flags(fd: i32) -> u32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap()
}

/// No program that is started inherits a listener or a connection, none of them makes the engine wait, and a listener gets
/// its port back whatever is left of former connections.
///
/// Rules: MQ-258.
#[test]
fn listeners_and_connections_are_opened_as_they_should_be() {
    const CLOSED_ON_EXEC: u32 = 0o2_000_000;
    const NOT_BLOCKING: u32 = 0o4_000;
    for driver in DRIVERS {
        let context = context(driver);
        for place in [ANYWHERE, "ipc://*"] {
            let pull = Pull::with_options(&context, options()).unwrap();
            let accepting = pull.monitor();
            let endpoint = pull.bind_blocking(place).unwrap();
            let push = Push::with_options(&context, options()).unwrap();
            let connecting = push.monitor();
            push.connect(&endpoint).unwrap();
            let fd = |kind: &EventKind| match kind {
                EventKind::Listening(fd) | EventKind::Accepted(fd) | EventKind::Connected(fd) => Some(*fd),
                _ => None,
            };
            let listener = event(&accepting, "listener", fd);
            let streams = [event(&accepting, "accepted", fd), event(&connecting, "connected", fd)];
            for fd in [listener, streams[0], streams[1]] {
                assert_ne!(flags(fd) & CLOSED_ON_EXEC, 0, "{place} {fd}");
            }
            for fd in streams {
                assert_ne!(flags(fd) & NOT_BLOCKING, 0, "{place} {fd}");
            }
            if place == ANYWHERE {
                assert!(socket2::Socket::from(copy(listener)).reuse_address().unwrap());
                for fd in streams {
                    assert!(socket2::Socket::from(copy(fd)).tcp_nodelay().unwrap());
                }
            }
        }
    }
}
