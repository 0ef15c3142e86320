//! Frames on the wire (§3.1), and how messages become frames.
//!
//! ```text
//! flags (1): MORE 01, LONG 02, COMMAND 04     size (1, or 8 big-endian with LONG)     body
//! ```

use bytes::BufMut;
use tidegate_io::{
    batch::WriteBatch,
    message::Message,
    packed::{Packed, Piece},
};

use crate::close::CloseReason;

/// Flag of a part that is not the last of its message.
pub const MORE: u8 = 0x01;
/// Flag of a size on eight octets.
pub const LONG: u8 = 0x02;
/// Flag of a command.
pub const COMMAND: u8 = 0x04;

/// Longest header.
pub const MAX_HEADER: usize = 9;

/// First octets of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`MORE`], [`LONG`] and [`COMMAND`].
    pub flags: u8,
    /// Octets of the body; less than 2^63.
    pub size: u64,
}

impl Header {
    /// The header at the start of `bytes` and how many octets it takes; `None` when it is not complete.
    ///
    /// # Errors
    ///
    /// As soon as an octet is there that no header has (MQ-102, MQ-103).
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, CloseReason> {
        let Some((&flags, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
            return Err(CloseReason::MalformedFrame);
        }
        if flags & LONG == 0 {
            return Ok(rest.first().map(|&size| (Self { flags, size: u64::from(size) }, 2)));
        }
        if rest.first().is_some_and(|&top| top & 0x80 != 0) {
            return Err(CloseReason::MalformedFrame);
        }
        Ok(rest.first_chunk().map(|size| (Self { flags, size: u64::from_be_bytes(*size) }, MAX_HEADER)))
    }

    /// Whether the frame is a command.
    #[inline]
    pub const fn command(self) -> bool {
        self.flags & COMMAND != 0
    }
}

/// The header of a frame with a body of `len` octets, and how many octets of it count (MQ-101).
#[inline]
pub(crate) fn header(flags: u8, len: usize) -> ([u8; MAX_HEADER], usize) {
    let mut header = [0; MAX_HEADER];
    if let Ok(short) = u8::try_from(len) {
        header[0] = flags;
        header[1] = short;
        (header, 2)
    } else {
        header[0] = flags | LONG;
        header[1..].copy_from_slice(&(len as u64).to_be_bytes());
        (header, MAX_HEADER)
    }
}

/// Appends the header of a frame with a body of `len` octets.
pub(crate) fn put_header(out: &mut impl BufMut, flags: u8, len: usize) {
    let (header, used) = header(flags, len);
    out.put_slice(header.get(..used).unwrap_or_default());
}

/// Adds the frames of `message` to `batch`, as NULL and PLAIN send them; parts of at least `vectored_threshold` octets
/// by reference (MQ-052).
#[inline]
pub fn encode(message: &Message, batch: &mut WriteBatch, vectored_threshold: usize) {
    let mut left = message.len();
    for part in message {
        left -= 1;
        let piece = match part.shared() {
            Some(bytes) if bytes.len() >= vectored_threshold => Piece::Shared(bytes.clone()),
            _ => Piece::Copied(part),
        };
        put_part(piece, left > 0, batch, vectored_threshold);
    }
}

/// The same for all messages of `messages`, which is empty afterwards.
#[inline]
pub fn encode_all(messages: &mut Packed, batch: &mut WriteBatch, vectored_threshold: usize) {
    while messages.take_with(|piece, has_more| put_part(piece, has_more, batch, vectored_threshold)) {}
}

#[inline]
fn put_part(part: Piece<'_>, has_more: bool, batch: &mut WriteBatch, vectored_threshold: usize) {
    let (header, used) = header(if has_more { MORE } else { 0 }, part.as_slice().len());
    batch.put(header.get(..used).unwrap_or_default());
    match part {
        Piece::Shared(bytes) if bytes.len() >= vectored_threshold => batch.put_shared(bytes),
        part => batch.put(part.as_slice()),
    }
}
