//! Options of sockets, applied through safe wrappers only.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use super::StreamInfo;

/// Options of streams and listeners. Those of TCP have no effect on Unix sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// `SO_SNDBUF` in bytes; `None` leaves the choice for TCP to the system, but for a stream of this host that writes
    /// large frames, which asks for 256 KiB; and asks for 2 MiB for Unix sockets, whose buffers the system does not fit
    /// to what they carry.
    pub send_buffer: Option<u32>,
    /// `SO_RCVBUF` in bytes; `None` leaves the system's choice.
    pub receive_buffer: Option<u32>,
    /// `IP_TOS` and `IPV6_TCLASS`; 0 leaves it alone.
    pub tos: u8,
    /// `SO_PRIORITY`; 0 leaves what follows from `tos`. More than 6 needs `CAP_NET_ADMIN`.
    pub priority: u32,
    /// `SO_BUSY_POLL` in microseconds; 0 leaves the system's choice, more than that needs `CAP_NET_ADMIN`.
    pub busy_poll: u32,
    /// Whether keep-alive probes are sent; `None` leaves the system's choice.
    pub keepalive: Option<bool>,
    /// Probes that may go unanswered.
    pub keepalive_count: Option<u32>,
    /// Idle time before the first probe.
    pub keepalive_idle: Option<Duration>,
    /// Time between probes.
    pub keepalive_interval: Option<Duration>,
    /// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
    /// Network device to which the socket is tied (`SO_BINDTODEVICE`; needs `CAP_NET_RAW`).
    pub device: Option<String>,
    /// Whether IPv6 is used: names resolve to IPv6 first, and wildcards bind both families (MQ-257).
    pub ipv6: bool,
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// `SO_REUSEPORT`: several listeners share a port.
    pub reuse_port: bool,
    /// Bind a path although somebody listens there, who is then cut off from newcomers (MQ-263).
    pub unix_takeover: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            send_buffer: None,
            receive_buffer: None,
            tos: 0,
            priority: 0,
            busy_poll: 0,
            keepalive: None,
            keepalive_count: None,
            keepalive_idle: None,
            keepalive_interval: None,
            user_timeout: None,
            device: None,
            ipv6: false,
            backlog: 100,
            reuse_port: false,
            unix_takeover: false,
        }
    }
}

/// What a Unix socket may hold that its peer has not read: as much as a TCP stream of this host. With the system's 208 KiB
/// sender and receiver wait for each other too often.
const UNIX_SEND_BUFFER: usize = 2 << 20;

/// The same of a TCP stream of this host once it writes large frames; the kernel doubles it. The system would let megabytes wait:
/// they leave the processor's cache before they are read, and a congestion control that paces (`bbr`) sets a timer for each part.
const LARGE_SEND_BUFFER: usize = 256 * 1024;

impl StreamOptions {
    /// Send buffer of a stream once it writes large frames, if it is not the one that it has.
    pub(super) fn large_send_buffer(&self, info: &StreamInfo) -> Option<usize> {
        (self.send_buffer.is_none() && info.is_loopback()).then_some(LARGE_SEND_BUFFER)
    }

    /// Applies what must be set before a socket is bound or connected, so that windows and routes follow it.
    pub(super) fn before_connect(&self, socket: &SockRef<'_>, tcp: bool) -> io::Result<()> {
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes as usize)?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes as usize)?;
        }
        if let Some(device) = &self.device
            && tcp
        {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        Ok(())
    }

    /// Applies what belongs to a stream, accepted or dialed (MQ-054, MQ-258).
    pub(super) fn on_stream(&self, socket: &SockRef<'_>, tcp: bool, v6: bool) -> io::Result<()> {
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes as usize)?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes as usize)?;
        }
        if !tcp {
            if self.send_buffer.is_none() {
                socket.set_send_buffer_size(UNIX_SEND_BUFFER)?;
            }
            return Ok(());
        }
        socket.set_tcp_nodelay(true)?;
        if self.tos != 0 {
            if v6 {
                socket.set_tclass_v6(u32::from(self.tos))?;
            } else {
                socket.set_tos_v4(u32::from(self.tos))?;
            }
        }
        // Behind the type of service, which sets a priority of its own.
        if self.priority != 0 {
            socket.set_priority(self.priority)?;
        }
        if self.busy_poll != 0 {
            socket.set_busy_poll(self.busy_poll)?;
        }
        match self.keepalive {
            None => {}
            Some(false) => socket.set_keepalive(false)?,
            Some(true) => {
                let mut keepalive = TcpKeepalive::new();
                if let Some(count) = self.keepalive_count {
                    keepalive = keepalive.with_retries(count);
                }
                if let Some(idle) = self.keepalive_idle {
                    keepalive = keepalive.with_time(idle);
                }
                if let Some(interval) = self.keepalive_interval {
                    keepalive = keepalive.with_interval(interval);
                }
                socket.set_tcp_keepalive(&keepalive)?;
            }
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}
