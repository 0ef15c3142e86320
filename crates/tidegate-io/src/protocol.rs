//! Where a protocol is plugged into the engine.
//!
//! The engine moves bytes and knows when; a [`Connection`] knows what they mean. It is a state machine without I/O: it
//! lives on one worker thread, is called with bytes and the time, and answers what the engine shall do next. Whatever
//! a connection shares with application threads (queues of a socket, for example) is its own affair; to be called
//! again from outside it uses its [`Control`].
//!
//! ```text
//!            opened
//!   stream ----------> received* / resumed* / fill* / written* / expired*  ----------> closed
//!                      (in any order, never two at once)
//! ```

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use crate::batch::WriteBatch;
pub use crate::engine::{Control, StreamInfo};

/// What the engine shall do after it called a [`Connection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Go on. If the call made something to write, the engine asks for it by [`Connection::fill`]; if bytes were given, only
    /// where [`Connection::has_answer`].
    Continue,
    /// Stop reading until [`Control::resume`]; writing goes on (MQ-062).
    Pause,
    /// Write what [`Connection::fill`] still gives, shut the write side down, drain the peer for at most 200 ms
    /// (MQ-082), then close.
    Close,
    /// Close at once.
    Abort,
}

/// Why a stream ended, as far as the engine knows.
#[derive(Debug)]
pub enum Ended {
    /// The connection said [`Flow::Close`] or [`Flow::Abort`], or was told so by its [`Control`], listener, dialer or engine.
    Local,
    /// The peer closed its side.
    Eof,
    /// Its place among the pending handshakes of its listener went to a newcomer (MQ-262).
    Displaced,
    /// Reading or writing failed.
    Failed(io::Error),
}

/// What a dialer shall do after its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The connection worked and was lost: dial again by the usual delays.
    Lost,
    /// The peer ended it before it was of use, without saying why: delays grow at least up to a second.
    Unexplained,
    /// The peer broke the protocol or refused what we are: delays from one second up to thirty.
    Slow,
    /// The peer refused who we are, and dialing again after this time, at least a second, is wanted all the same.
    After(Duration),
    /// The peer refused who we are: dial again only when told to.
    Never,
}

/// Protocol state of one byte stream, with whatever ties it to its user.
pub trait Connection: 'static {
    /// The stream is up. `control` reaches this connection from any thread.
    fn opened(&mut self, stream: &StreamInfo, control: Control, now: Instant) -> Flow;

    /// Bytes have arrived, in order, split anywhere. They are the connection's own: parts of them may be kept as
    /// shared slices, or written over.
    fn received(&mut self, bytes: BytesMut, now: Instant) -> Flow;

    /// A buffer of the connection with spare capacity into which the next bytes shall be read, for what is too large
    /// for a receive page. It comes back through [`received_into`](Self::received_into), before any other call that
    /// gives bytes.
    fn staging(&mut self) -> Option<BytesMut> {
        None
    }

    /// Most bytes to be given at once by [`received`](Self::received), which is never more than a receive page has.
    /// Asked once.
    fn read_most(&self) -> usize {
        usize::MAX
    }

    /// The buffer of [`staging`](Self::staging), now longer by what has arrived.
    fn received_into(&mut self, staging: BytesMut, now: Instant) -> Flow {
        self.received(staging, now)
    }

    /// Reading may go on after [`Flow::Pause`]: somebody asked for it by [`Control::resume`]. What the connection kept of
    /// what it was given may be worked on now, whether or not anything can be written.
    fn resumed(&mut self, now: Instant) -> Flow {
        let _ = now;
        Flow::Continue
    }

    /// Whether there is something to write that came of what was received. Asked after that, so that those who have
    /// nothing to answer need not be asked for it by [`fill`](Self::fill); what others have to write they tell by
    /// [`Control::kick`].
    fn has_answer(&self) -> bool {
        true
    }

    /// Adds to `batch` what is to be written next, until [`WriteBatch::is_full`]; adds nothing when there is nothing.
    /// Called while nothing is being written: the operating system has taken all that was added before.
    fn fill(&mut self, batch: &mut WriteBatch, now: Instant) -> Flow;

    /// The stream is being closed: [`fill`](Self::fill) is called until it gives nothing more. What arrives until then is
    /// still given, since a peer may wait for answers while it reads; [`Flow::Pause`] has no effect any more.
    fn closing(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`expired`](Self::expired) shall be called, if anything waits for time to pass. Asked after every call.
    fn deadline(&self) -> Option<Instant>;

    /// The deadline has passed.
    fn expired(&mut self, now: Instant) -> Flow;

    /// The stream is gone. No other call follows.
    fn closed(&mut self, why: &Ended, now: Instant) -> Retry;
}
