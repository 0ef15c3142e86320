//! One attempt to reach one address.

use std::{
    future::Future,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use compio::driver::op::{Interest, PollOnce};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::Dial;
use crate::engine::{
    address::{StreamAddress, Target},
    bind,
    timers::bounded,
    worker::Worker,
};

/// First and longest wait for room in the backlog of a Unix listener.
const ROOM_FIRST: Duration = Duration::from_millis(2);
const ROOM_MOST: Duration = Duration::from_millis(100);
/// How long is waited for such room if the user set no limit.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// A failed attempt, with the number of the descriptor it had.
pub(super) struct Failure {
    pub(super) fd: Option<RawFd>,
    pub(super) error: io::Error,
}

/// Dials `address`; `delayed` is called when that does not succeed at once.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    dial: &Dial,
    address: &SockAddr,
    delayed: impl FnOnce(RawFd),
) -> Result<OwnedFd, Failure> {
    let socket = prepare(dial, address).map_err(|error| Failure { fd: None, error })?;
    let number = socket.as_raw_fd();
    let fd = Arc::new(OwnedFd::from(socket));
    let outcome = establish(worker, dial, &fd, address, || delayed(number)).await;
    let fail = |error| Failure { fd: Some(number), error };
    outcome.map_err(fail)?;
    // The operation that waited has completed and let go of its share.
    match Arc::try_unwrap(fd) {
        Ok(fd) => Ok(fd),
        Err(shared) => shared.try_clone().map_err(fail),
    }
}

fn prepare(dial: &Dial, address: &SockAddr) -> io::Result<Socket> {
    let tcp = !address.is_unix();
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
    dial.options.before_connect(&SockRef::from(&socket), tcp)?;
    dial.options.on_stream(&SockRef::from(&socket), tcp, address.is_ipv6())?;
    if let Target::Tcp { source: Some((host, port)), .. } = &dial.target {
        let ipv6 = address.domain() == Domain::IPV6;
        let source = bind::host_address(host, *port, ipv6)
            .map_err(|error| io::Error::new(io::ErrorKind::AddrNotAvailable, error))?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    Ok(socket)
}

async fn establish(
    worker: &Rc<Worker>,
    dial: &Dial,
    fd: &Arc<OwnedFd>,
    address: &SockAddr,
    delayed: impl FnOnce(),
) -> io::Result<()> {
    let socket = SockRef::from(&**fd);
    match socket.connect(address) {
        Ok(()) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return wait_for_room(dial, &socket, address).await;
        }
        Err(error) => return Err(error),
    }
    delayed();
    let writable = worker.submit(PollOnce::new(fd.clone(), Interest::Writable));
    within(dial.connect_timeout, writable).await?.0?;
    match socket.take_error()? {
        Some(error) => Err(error),
        None => not_to_itself(&socket),
    }
}

/// A Unix listener whose backlog is full says so at once instead of queueing.
async fn wait_for_room(dial: &Dial, socket: &SockRef<'_>, address: &SockAddr) -> io::Result<()> {
    let retry = async {
        let mut pause = ROOM_FIRST;
        loop {
            compio::time::sleep(pause).await;
            match socket.connect(address) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => pause = ROOM_MOST.min(pause * 2),
                outcome => return outcome,
            }
        }
    };
    within(Some(dial.connect_timeout.unwrap_or(ROOM_PATIENCE)), retry).await?
}

async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> io::Result<T> {
    match limit.and_then(bounded) {
        None => Ok(future.await),
        Some(limit) => compio::time::timeout(limit, future).await.map_err(|_| io::ErrorKind::TimedOut.into()),
    }
}

/// TCP can meet itself when it dials a free port of its own host and happens to dial from it (MQ-260).
fn not_to_itself(socket: &SockRef<'_>) -> io::Result<()> {
    let local = StreamAddress::from_socket(&socket.local_addr()?);
    if local == StreamAddress::from_socket(&socket.peer_addr()?) {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens: connected to itself"));
    }
    Ok(())
}
