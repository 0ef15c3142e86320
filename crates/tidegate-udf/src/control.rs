//! The control socket between a runtime and a worker: datagrams of at most 64 KiB, and descriptors with the first one.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg,
        socketpair,
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
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
        {
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
