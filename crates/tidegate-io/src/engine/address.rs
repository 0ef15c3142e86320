//! Where to listen, whom to dial, and who is at the other end of a stream.

use std::{
    ffi::OsStr,
    fmt,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use rustix::net::{SocketAddrAny, SocketAddrUnix};

/// Longest path or abstract name of a Unix socket address, in octets (MQ-264, MQ-266).
pub const UNIX_NAME_MAX: usize = 107;

/// A TCP host that is to be bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindHost {
    /// Every local address: `[::]` for both families when IPv6 is on, else `0.0.0.0`.
    Any,
    /// This address.
    Ip(IpAddr),
    /// The first address of this network interface, else of this host name.
    Name(String),
}

/// Where to listen.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindAddress {
    /// TCP; port 0 is any free one.
    Tcp {
        /// The local host.
        host: BindHost,
        /// The port.
        port: u16,
    },
    /// A Unix socket at a path.
    Path(PathBuf),
    /// A Unix socket with an abstract name, without the leading NUL.
    Abstract(Vec<u8>),
    /// A Unix socket named `socket` in a fresh private directory (MQ-265).
    PrivatePath,
    /// A socket that is bound already. Its path, if it has one, is not ours to remove.
    Adopted(OwnedFd),
}

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// TCP; the host is looked up for every attempt (MQ-259).
    Tcp {
        /// An address, with a zone for link-local IPv6 if needed, or a name.
        host: String,
        /// The port.
        port: u16,
        /// Where to dial from, if it matters; port 0 is any free one.
        source: Option<(BindHost, u16)>,
    },
    /// A Unix socket at a path.
    Path(PathBuf),
    /// A Unix socket with an abstract name, without the leading NUL.
    Abstract(Vec<u8>),
}

/// One end of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamAddress {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix socket at a path.
    Path(PathBuf),
    /// A Unix socket with an abstract name, without the leading NUL.
    Abstract(Vec<u8>),
    /// A Unix socket without a name: the dialing end, usually.
    Unnamed,
}

impl StreamAddress {
    /// The IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Path(_) | Self::Abstract(_) | Self::Unnamed => None,
        }
    }

    /// The address that came with an accepted stream.
    pub(super) fn from_accept(address: Option<SocketAddrAny>) -> Self {
        let Some(address) = address else { return Self::Unnamed };
        if let Ok(ip) = SocketAddr::try_from(address.clone()) {
            return Self::Ip(ip);
        }
        let Ok(unix) = SocketAddrUnix::try_from(address) else { return Self::Unnamed };
        match (unix.path_bytes(), unix.abstract_name()) {
            (Some(path), _) if !path.is_empty() => Self::Path(OsStr::from_bytes(path).into()),
            (_, Some(name)) => Self::Abstract(name.into()),
            _ => Self::Unnamed,
        }
    }

    pub(super) fn from_socket(address: &socket2::SockAddr) -> Self {
        if let Some(ip) = address.as_socket() {
            Self::Ip(ip)
        } else if let Some(path) = address.as_pathname() {
            Self::Path(path.into())
        } else if let Some(name) = address.as_abstract_namespace() {
            Self::Abstract(name.into())
        } else {
            Self::Unnamed
        }
    }
}

impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            Self::Unnamed => f.write_str("unnamed"),
        }
    }
}

/// Which end of a stream this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The stream came to a listener of ours.
    Accepted,
    /// We dialed.
    Dialed,
}

/// The process at the other end of a Unix socket, as the operating system vouches for it (MQ-267).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Process id, in our process-id namespace; 0 if it cannot be named there.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Facts about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Number of the descriptor, to tell streams apart in events. Not to be used otherwise.
    pub fd: RawFd,
    /// Which end this is.
    pub side: Side,
    /// Our address.
    pub local: StreamAddress,
    /// The peer's address.
    pub peer: StreamAddress,
    /// The peer's process, on Unix sockets.
    pub credentials: Option<Credentials>,
}

impl StreamInfo {
    /// Whether this is TCP; else it is a Unix socket.
    pub fn is_tcp(&self) -> bool {
        matches!(self.local, StreamAddress::Ip(_))
    }

    /// Whether this is TCP over the loopback.
    pub fn is_loopback(&self) -> bool {
        matches!(self.peer, StreamAddress::Ip(peer) if peer.ip().to_canonical().is_loopback())
    }
}
