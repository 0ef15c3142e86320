//! Making a listening socket: addresses, options, and what happens to the file of a Unix socket.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{
    address::{BindAddress, BindHost, StreamAddress, UNIX_NAME_MAX},
    interface,
    options::StreamOptions,
    random::Random,
    resolve,
};

/// Why an address could not be listened at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody else listens there, or the path is that of something else.
    #[error("{address} is in use; choose another address, or stop whoever uses it")]
    InUse {
        /// The address.
        address: String,
    },
    /// This host has no such address or interface.
    #[error("this host has no address or interface {host}")]
    NoDevice {
        /// What was asked for.
        host: String,
    },
    /// The path or name is longer than a Unix socket address can hold.
    #[error("the socket name has {len} octets, at most {UNIX_NAME_MAX} are possible; use a shorter path")]
    NameTooLong {
        /// Its octets.
        len: usize,
    },
    /// The name is empty or holds a NUL.
    #[error("a socket name must not be empty or contain NUL")]
    InvalidName,
    /// A directory of the path does not exist.
    #[error("the directory of {} does not exist", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("cannot {step}: {error}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl BindError {
    /// The error number that comes closest, for events.
    pub fn errno(&self) -> i32 {
        use rustix::io::Errno;
        match self {
            Self::InUse { .. } => Errno::ADDRINUSE.raw_os_error(),
            Self::NoDevice { .. } => Errno::NODEV.raw_os_error(),
            Self::NameTooLong { .. } => Errno::NAMETOOLONG.raw_os_error(),
            Self::InvalidName => Errno::INVAL.raw_os_error(),
            Self::NoDirectory { .. } => Errno::NOENT.raw_os_error(),
            Self::System { error, .. } => error.raw_os_error().unwrap_or(0),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) fd: OwnedFd,
    pub(super) address: StreamAddress,
    pub(super) file: Option<SocketFile>,
}

/// The file of a Unix socket of ours, removed when dropped by the process that made it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: what is at the path later may be somebody else's (MQ-264).
    identity: (u64, u64),
    /// The private directory around it, which goes with it.
    directory: Option<PathBuf>,
    process: u32,
}

impl SocketFile {
    /// Removes the file, if it is still ours, and its directory.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> io::Result<()> {
        if std::process::id() != self.process {
            return Ok(());
        }
        let file = if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            fs::remove_file(&self.path)
        } else {
            Ok(())
        };
        file.and_then(|()| self.directory.take().map_or(Ok(()), fs::remove_dir))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

/// Binds and listens.
pub(super) fn bind(address: BindAddress, options: &StreamOptions) -> Result<Bound, BindError> {
    match address {
        BindAddress::Tcp { host, port } => tcp(&host, port, options),
        BindAddress::Path(path) => unix_path(path, None, options),
        BindAddress::PrivatePath => {
            let directory = private_directory()?;
            let bound = unix_path(directory.join("socket"), Some(directory.clone()), options);
            if bound.is_err() {
                let _ = fs::remove_dir(&directory);
            }
            bound
        }
        BindAddress::Abstract(name) => abstract_name(&name, options),
        BindAddress::Adopted(fd) => adopted(fd, options),
    }
}

fn tcp(host: &BindHost, port: u16, options: &StreamOptions) -> Result<Bound, BindError> {
    let address = host_address(host, port, options.ipv6)?;
    let domain = Domain::for_address(address);
    let socket = socket(domain)?;
    if address.is_ipv6() {
        let dual = address.ip().is_unspecified();
        socket.set_only_v6(!dual).map_err(system("choose the address families"))?;
    }
    socket.set_reuse_address(true).map_err(system("set SO_REUSEADDR"))?;
    if options.reuse_port {
        socket.set_reuse_port(true).map_err(system("set SO_REUSEPORT"))?;
    }
    options.before_connect(&SockRef::from(&socket), true).map_err(system("set options of the listener"))?;
    socket.bind(&address.into()).map_err(|error| refused(error, &address.to_string()))?;
    listen(socket, options, None)
}

/// The address that is meant by `host`.
pub(super) fn host_address(host: &BindHost, port: u16, ipv6: bool) -> Result<SocketAddr, BindError> {
    match host {
        BindHost::Any if ipv6 => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        BindHost::Any => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        BindHost::Ip(ip) => Ok((*ip, port).into()),
        BindHost::Name(name) => {
            if let Some(address) = interface::address(name, ipv6).map_err(system("list the interfaces"))? {
                return Ok(with_port(address, port));
            }
            let found = resolve::now(name, port, ipv6).ok().and_then(|found| found.into_iter().next());
            found.ok_or_else(|| BindError::NoDevice { host: name.clone() })
        }
    }
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

fn unix_path(path: PathBuf, directory: Option<PathBuf>, options: &StreamOptions) -> Result<Bound, BindError> {
    let address = path_address(&path)?;
    let socket = socket(Domain::UNIX)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(path_refused(error, &path));
        }
        make_room(&path, options.unix_takeover)?;
        socket.bind(&address).map_err(|error| path_refused(error, &path))?;
    }
    let identity = identity(&path).map_err(system("look at the socket file"))?;
    let file = SocketFile { path, identity, directory, process: std::process::id() };
    listen(socket, options, Some(file))
}

/// Removes what is at `path` if it is a socket nobody listens at (MQ-263).
fn make_room(path: &Path, takeover: bool) -> Result<(), BindError> {
    let in_use = || BindError::InUse { address: path.display().to_string() };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::System { step: "look at the socket file", error }),
    };
    if !found.file_type().is_socket() {
        return Err(in_use());
    }
    if !takeover {
        let probe = socket(Domain::UNIX)?;
        // Non-blocking: a listener whose backlog is full answers at once, too.
        match probe.connect(&path_address(path)?) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            _ => return Err(in_use()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BindError::System { step: "remove the stale socket file", error })
        }
        _ => Ok(()),
    }
}

/// The socket address of `path`.
pub(super) fn path_address(path: &Path) -> Result<SockAddr, BindError> {
    use std::os::unix::ffi::OsStrExt;
    let octets = path.as_os_str().as_bytes();
    check_name(octets)?;
    // A leading NUL would make it an abstract name.
    if octets.contains(&0) {
        return Err(BindError::InvalidName);
    }
    SockAddr::unix(path).map_err(system("make a socket address"))
}

/// The socket address of an abstract name: NUL, then the name, no NUL at the end (MQ-266).
pub(super) fn abstract_address(name: &[u8]) -> Result<SockAddr, BindError> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    check_name(name)?;
    let mut octets = vec![0];
    octets.extend_from_slice(name);
    SockAddr::unix(OsStr::from_bytes(&octets)).map_err(system("make a socket address"))
}

fn check_name(octets: &[u8]) -> Result<(), BindError> {
    match octets.len() {
        0 => Err(BindError::InvalidName),
        len if len > UNIX_NAME_MAX => Err(BindError::NameTooLong { len }),
        _ => Ok(()),
    }
}

fn abstract_name(name: &[u8], options: &StreamOptions) -> Result<Bound, BindError> {
    let address = abstract_address(name)?;
    let socket = socket(Domain::UNIX)?;
    socket.bind(&address).map_err(|error| refused(error, &format!("@{}", name.escape_ascii())))?;
    listen(socket, options, None)
}

/// A directory for one socket, which only its owner may enter (MQ-265).
fn private_directory() -> Result<PathBuf, BindError> {
    let parent = ["TMPDIR", "TEMPDIR", "TMP"]
        .iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from)
        .find(|path| path.is_absolute() && path.is_dir())
        .unwrap_or_else(|| PathBuf::from("/tmp"));
    let mut random = Random::seeded();
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..64 {
        let path = parent.join(format!("tidegate-{:012x}", random.next() >> 16));
        match builder.create(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(BindError::System { step: "make a private directory", error: last })
}

fn adopted(fd: OwnedFd, options: &StreamOptions) -> Result<Bound, BindError> {
    let socket = Socket::from(fd);
    socket.set_nonblocking(true).map_err(system("make the given socket non-blocking"))?;
    listen(socket, options, None)
}

fn listen(socket: Socket, options: &StreamOptions, file: Option<SocketFile>) -> Result<Bound, BindError> {
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(|error| refused(error, "the address"))?;
    let local = socket.local_addr().map_err(system("read the bound address"))?;
    Ok(Bound { address: StreamAddress::from_socket(&local), fd: socket.into(), file })
}

fn socket(domain: Domain) -> Result<Socket, BindError> {
    Socket::new(domain, Type::STREAM.nonblocking(), None).map_err(system("make a socket"))
}

fn refused(error: io::Error, address: &str) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address: address.into() },
        io::ErrorKind::AddrNotAvailable => BindError::NoDevice { host: address.into() },
        _ => BindError::System { step: "bind", error },
    }
}

fn path_refused(error: io::Error, path: &Path) -> BindError {
    match error.kind() {
        io::ErrorKind::NotFound => BindError::NoDirectory { path: path.into() },
        _ => refused(error, &path.display().to_string()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn system(step: &'static str) -> impl FnOnce(io::Error) -> BindError {
    move |error| BindError::System { step, error }
}

/// Ends listening at once, also for those who wait to be accepted.
pub(super) fn deafen(fd: &impl AsFd) {
    let _ = SockRef::from(fd).shutdown(Shutdown::Both);
}
