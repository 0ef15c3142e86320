//! The control socket between a runtime and a worker: datagrams of at most 64 KiB, and descriptors with the first one. It is a
//! pair that the runtime makes, or a connection to where the runtime listens.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
        SocketType, connect, recvmsg, sendmsg, shutdown, socket_with, socketpair,
    },
    time::Timespec,
};
use tidegate_shm::clock::{Nanos, monotonic_now};

use crate::wire::message::MAX_MESSAGE;

/// One end of a control socket.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
}

/// What came.
#[derive(Debug)]
pub enum Incoming {
    /// A datagram and the descriptors that there was room for.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// The other end is gone.
    HangUp,
}

impl Control {
    /// Both ends of a new socket; neither survives an `exec`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Connects to where a runtime listens. Does not wait: one that has too many to greet already is as one that is not there.
    ///
    /// # Errors
    /// What the kernel says: nobody listens there, or it is no place for this process.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket })
    }

    /// Uses a socket that somebody else made.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a datagram with descriptors. Never waits: a peer that does not read gets an error (VX-426).
    ///
    /// # Errors
    /// What the kernel says: the peer is gone, or its buffer is full.
    pub fn send(&self, datagram: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::TOOBIG.into());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(&self.socket, &[IoSlice::new(datagram)], &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// Ends the connection for both sides, also for those who have copies of the socket.
    pub fn hang_up(&self) {
        // One that the other side has ended is ended.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// As [`Control::send`], without descriptors, waiting for room until the deadline.
    ///
    /// # Errors
    /// As [`Control::send`].
    pub fn send_until(&self, datagram: &[u8], deadline: Nanos) -> io::Result<()> {
        loop {
            let sent = self.send(datagram, &[]);
            let is_full = sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            let left = deadline.saturating_sub(monotonic_now());
            if !is_full || left == Nanos::ZERO {
                return sent;
            }
            self.ready_within(PollFlags::OUT, left)?;
        }
    }

    /// Takes a datagram that has arrived, and `descriptors` with it; descriptors that there is no room for are closed by
    /// the kernel. `None` when nothing has arrived.
    ///
    /// # Errors
    /// What the kernel says, and a datagram that is longer than the protocol has.
    pub fn receive(&self, descriptors: bool) -> io::Result<Option<Incoming>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let room = if descriptors { &mut space[..] } else { &mut [] };
        let mut ancillary = RecvAncillaryBuffer::new(room);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut take = || recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags);
        let taken = match take() {
            // The other side has gone with something of this one unread, which is said once and before what it said last.
            Err(Errno::CONNRESET) => take(),
            taken => taken,
        };
        let received = match taken {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Some(Incoming::HangUp)),
            Err(errno) => return Err(errno.into()),
        };
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(Errno::MSGSIZE.into());
        }
        if received.bytes == 0 {
            // The protocol has no empty datagrams.
            return Ok(Some(Incoming::HangUp));
        }
        let mut taken = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                taken.extend(rights);
            }
        }
        bytes.truncate(received.bytes);
        Ok(Some(Incoming::Message(bytes, taken)))
    }

    /// As [`Control::receive`], sleeping until something arrives; `None` when the deadline passed.
    ///
    /// # Errors
    /// As [`Control::receive`].
    pub fn receive_until(&self, deadline: Nanos, descriptors: bool) -> io::Result<Option<Incoming>> {
        loop {
            if let Some(incoming) = self.receive(descriptors)? {
                return Ok(Some(incoming));
            }
            let left = deadline.saturating_sub(monotonic_now());
            if left == Nanos::ZERO || !self.ready_within(PollFlags::IN, left)? {
                return self.receive(descriptors);
            }
        }
    }

    /// Sleeps until something arrives, or there is room, or the other end is gone (true), or so much time has passed (false).
    fn ready_within(&self, what: PollFlags, time: Nanos) -> io::Result<bool> {
        let timeout = Timespec::try_from(std::time::Duration::from(time)).unwrap_or_default();
        let mut fds = [PollFd::new(&self.socket, what)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Control> for OwnedFd {
    fn from(control: Control) -> Self {
        control.socket
    }
}

/// D, U and F.
const MAX_DESCRIPTORS: usize = 3;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

    use super::*;

    /// A worker that is turned away before it was heard learns why.
    /// Rules: VX-420.
    #[test]
    fn what_was_said_last_is_heard_although_the_other_side_did_not_listen() {
        let (one, other) = Control::pair().unwrap();
        one.send(b"not read", &[]).unwrap();
        other.send(b"last words", &[]).unwrap();
        drop(other);
        let Some(Incoming::Message(datagram, _)) = one.receive(false).unwrap() else { panic!("nothing") };
        assert_eq!(datagram, b"last words");
        assert!(matches!(one.receive(false).unwrap(), Some(Incoming::HangUp)));
        assert!(one.send(b"anybody?", &[]).is_err());
    }

    /// Also for who has a copy of the other end.
    /// Rules: VX-430.
    #[test]
    fn a_hang_up_is_heard_by_both() {
        let (one, other) = Control::pair().unwrap();
        let copy = Control::new(other.as_fd().try_clone_to_owned().unwrap());
        one.hang_up();
        for end in [&one, &other, &copy] {
            assert!(matches!(end.receive(false).unwrap(), Some(Incoming::HangUp)));
        }
    }
}
