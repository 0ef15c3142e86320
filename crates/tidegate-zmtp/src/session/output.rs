//! What a session itself has to send: greeting and handshake, then commands; always ahead of data (MQ-056).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidegate_io::batch::WriteBatch;
use zeroize::Zeroizing;

use crate::{
    close::CloseReason,
    command, frame,
    mechanism::{Boxing, INNER_COMMAND, Traffic},
};

/// Most PONGs that wait to be written when another PING arrives (MQ-170).
const MAX_PONGS: usize = 64;

/// Room for the greeting, a command with credentials, and an ERROR.
const HANDSHAKE: usize = 1024;

/// Memory that is kept when nothing waits.
const KEPT: usize = 1024;

/// Octets and commands in the order in which they are to be sent.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Greeting, handshake, and an ERROR that ends it: as they go out. Credentials may be in it.
    handshake: Zeroizing<Vec<u8>>,
    /// Frames of the established connection, not boxed yet: boxes are made in the order of the wire (MQ-145).
    commands: BytesMut,
    /// PONGs that wait, and those of them that waited already when the peer was last read.
    pongs: usize,
    overdue: usize,
}

impl Output {
    /// Where the greeting and the commands of the handshake go.
    pub(super) fn handshake(&mut self) -> &mut Vec<u8> {
        // All of it at once, so that growing leaves no copy of credentials behind.
        if self.handshake.capacity() == 0 {
            self.handshake.reserve(HANDSHAKE);
        }
        &mut self.handshake
    }

    pub(super) fn ping(&mut self, ttl: u16) {
        frame::put_header(&mut self.commands, frame::COMMAND, 7);
        command::put_ping(&mut self.commands, ttl);
    }

    /// Something of the peer was read. Answers to what was read together could not be written in between, however
    /// many; those that still wait now are ones that the peer does not take.
    pub(super) fn peer_was_read(&mut self) {
        self.overdue = self.pongs;
    }

    /// Queues the answer to a PING. `piled_up`: the peer may have sent it long ago, when it was not read.
    ///
    /// # Errors
    ///
    /// When too many answers waited already.
    pub(super) fn pong(&mut self, context: &[u8], piled_up: bool) -> Result<(), CloseReason> {
        if self.overdue >= MAX_PONGS && !piled_up {
            return Err(CloseReason::PingFlood);
        }
        self.pongs += 1;
        frame::put_header(&mut self.commands, frame::COMMAND, 5 + context.len().min(command::MAX_CONTEXT));
        command::put_pong(&mut self.commands, context);
        Ok(())
    }

    /// Queues a frame whose body is `head` and `tail`.
    pub(super) fn frame(&mut self, flags: u8, head: &[u8], tail: &[u8]) {
        self.commands.reserve(frame::MAX_HEADER + head.len() + tail.len());
        frame::put_header(&mut self.commands, flags, head.len() + tail.len());
        self.commands.put_slice(head);
        self.commands.put_slice(tail);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.handshake.capacity() == 0 && self.commands.is_empty()
    }

    /// Moves what is queued into `batch`, whole frames until it is full.
    ///
    /// # Errors
    ///
    /// When a command cannot be boxed.
    pub(super) fn fill(&mut self, batch: &mut WriteBatch, traffic: &mut Traffic) -> Result<(), CloseReason> {
        if self.handshake.capacity() > 0 {
            // Not copied: this memory is wiped when it is written.
            batch.put_shared(Bytes::from_owner(std::mem::take(&mut self.handshake)));
        }
        while !batch.is_full()
            && let Some((header, used)) = frame::Header::parse(&self.commands)?
        {
            let len = used + usize::try_from(header.size).unwrap_or(usize::MAX);
            let bytes = self.commands.get(..len).unwrap_or(&self.commands);
            let body = bytes.get(used..).unwrap_or_default();
            if header.command() && body.starts_with(b"\x04PONG") {
                self.pongs = self.pongs.saturating_sub(1);
                self.overdue = self.overdue.saturating_sub(1);
            }
            match traffic {
                Traffic::Clear => batch.put(bytes),
                Traffic::Boxed(boxes) => {
                    boxes.seal(if header.command() { INNER_COMMAND } else { 0 }, body, batch)?;
                }
            }
            self.commands.advance(bytes.len());
        }
        if self.commands.is_empty() {
            if self.commands.capacity() > KEPT {
                self.commands = BytesMut::new();
            } else {
                self.commands.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory with credentials is the one that is written, and is wiped when it is dropped; no copy is left in a batch.
    ///
    /// Rules: MQ-137.
    #[test]
    fn credentials_are_wiped_once_they_are_written() {
        fn is_wiped(_: &impl zeroize::ZeroizeOnDrop) {}
        let mut output = Output::default();
        output.handshake().extend_from_slice(b"greeting");
        let place = output.handshake.as_ptr();
        output.handshake().extend_from_slice(&[b's'; 600]);
        assert_eq!(output.handshake.as_ptr(), place, "a copy was left behind");
        is_wiped(&output.handshake);
        let mut batch = WriteBatch::new(4096);
        output.fill(&mut batch, &mut Traffic::Clear).unwrap();
        let segments: Vec<_> = batch.segments().iter().map(|bytes| (bytes.as_ptr(), bytes.len())).collect();
        assert_eq!(segments, [(place, 608)]);
    }
}
