//! Finds frames in received chunks.
//!
//! A frame that lies whole in a chunk is used where it is. One that spans chunks is staged: its body is gathered in a
//! buffer of its own, whose size follows what has arrived (MQ-030, MQ-104).
//!
//! ```text
//!   chunk:  ...used | header body | header body | hea      the rest of a header waits in `split`
//!   chunk:  der | body of a large fra                      the rest of a body waits in `staging`
//! ```
//!
//! Invariant: when [`Input::next`] gave `None`, the chunk is empty; what there was is in `split` or `staging`.

use bytes::{Buf, Bytes, BytesMut};
use tidegate_io::{buffer::Slab, message::Part};
use zeroize::Zeroize;

use crate::{
    close::CloseReason,
    frame::{COMMAND, Header, MAX_HEADER, MORE},
};

/// Memory that may be committed to a frame ahead of its octets, however few have arrived (MQ-104).
const AHEAD: usize = 64 * 1024;

/// Largest frame of an established connection for which memory is reserved at once (MQ-104).
const RESERVED_AT_ONCE: usize = 1024 * 1024;

/// Memory with which the body of a handshake command starts.
const HANDSHAKE_START: usize = 1024;

/// Largest body that is staged in a page of the slab.
const FROM_SLAB: usize = 16 * 1024;

/// A body with at least this much missing is read straight into its staging buffer: for less, the copy costs less than
/// a read of its own.
const WORTH_READING_INTO: usize = 16 * 1024;

/// Received octets that are not decoded yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    chunk: BytesMut,
    /// Start of a header that goes on in the next chunk.
    split: [u8; MAX_HEADER],
    split_len: usize,
    /// The frame whose body is in `staging`, or lies whole at the start of the chunk.
    header: Option<Header>,
    staging: BytesMut,
}

/// A frame that is there as a whole; ends with [`Input::part`] or [`Input::discard`].
///
/// Whole words only: it is handed through several results for every message, and a word that was written in pieces is
/// slow to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Where the body starts in the chunk or in the staging buffer, and where it ends.
    start: usize,
    end: usize,
    /// Flags of the header, and [`STAGED`].
    flags: usize,
}

/// The body is in the staging buffer.
const STAGED: usize = 1 << 8;

impl Frame {
    fn new(header: Header, start: usize, end: usize, staged: bool) -> Self {
        Self { start, end, flags: usize::from(header.flags) | if staged { STAGED } else { 0 } }
    }

    /// Whether the frame is a command.
    #[inline]
    pub(super) fn is_command(self) -> bool {
        self.flags & usize::from(COMMAND) != 0
    }

    /// Whether another part of the message follows.
    #[inline]
    pub(super) fn has_more(self) -> bool {
        self.flags & usize::from(MORE) != 0
    }

    /// Octets of the body.
    #[inline]
    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    /// The frame that was in the box: it starts after `overhead` octets and has flags of its own.
    #[inline]
    pub(super) fn unboxed(self, overhead: usize, flags: u8) -> Self {
        let start = self.end.min(self.start + overhead);
        Self { start, end: self.end, flags: usize::from(flags) | (self.flags & STAGED) }
    }

    /// The same frame, reduced to the last `len` octets of its body.
    pub(super) fn last(self, len: usize) -> Self {
        Self { start: self.end.saturating_sub(len), ..self }
    }

    fn is_staged(self) -> bool {
        self.flags & STAGED != 0
    }
}

impl Input {
    /// Adds what was received.
    pub(super) fn receive(&mut self, bytes: BytesMut) {
        if self.chunk.is_empty() {
            self.chunk = bytes;
        } else {
            // The session holds input back while a verdict is due.
            self.chunk.extend_from_slice(&bytes);
        }
    }

    /// Octets of the chunk that are not used yet.
    pub(super) fn chunk(&mut self) -> &mut BytesMut {
        &mut self.chunk
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next whole frame. `admit` is asked once for each frame, as soon as its header is there.
    #[inline]
    pub(super) fn next(
        &mut self,
        established: bool,
        slab: &mut Slab,
        admit: impl FnOnce(Header) -> Result<(), CloseReason>,
    ) -> Result<Option<Frame>, CloseReason> {
        if let Some(header) = self.header {
            return self.gather(header, established, slab);
        }
        let (header, start) = if self.split_len == 0 {
            match Header::parse(&self.chunk)? {
                Some(found) => found,
                None => return self.keep_split(),
            }
        } else {
            match self.complete_split()? {
                Some(header) => (header, 0),
                None => return Ok(None),
            }
        };
        admit(header)?;
        let size = usize::try_from(header.size).map_err(|_| CloseReason::OutOfMemory(header.size))?;
        if self.chunk.len() - start >= size {
            return Ok(Some(Frame::new(header, start, start + size, false)));
        }
        self.chunk.advance(start);
        self.header = Some(header);
        self.gather(header, established, slab)
    }

    /// The body of `frame`.
    #[inline]
    pub(super) fn body(&self, frame: Frame) -> &[u8] {
        let buffer = if frame.is_staged() { &self.staging } else { &self.chunk };
        buffer.get(frame.start..frame.end).unwrap_or_default()
    }

    /// The body of `frame`, to be decrypted or wiped in place.
    #[inline]
    pub(super) fn body_mut(&mut self, frame: Frame) -> &mut [u8] {
        let buffer = if frame.is_staged() { &mut self.staging } else { &mut self.chunk };
        buffer.get_mut(frame.start..frame.end).unwrap_or_default()
    }

    /// Ends with `frame`.
    #[inline]
    pub(super) fn discard(&mut self, frame: Frame) {
        if frame.is_staged() {
            self.header = None;
            self.staging = BytesMut::new();
        } else {
            self.chunk.advance(frame.end);
        }
    }

    /// Ends with `frame` and gives its body: a copy of few octets, a slice of many (MQ-022).
    #[inline]
    pub(super) fn part(&mut self, frame: Frame, threshold: usize, slab: &mut Slab) -> Part {
        if frame.len() > threshold {
            return slab.part(self.take(frame));
        }
        let body = self.body(frame);
        let part = Part::inline(body).unwrap_or_else(|| slab.small(body));
        self.discard(frame);
        part
    }

    /// Ends with `frame` and shares its body.
    fn take(&mut self, frame: Frame) -> Bytes {
        if frame.is_staged() {
            self.header = None;
            let mut body = std::mem::take(&mut self.staging);
            body.advance(frame.start);
            return body.freeze();
        }
        self.chunk.advance(frame.start);
        self.chunk.split_to(frame.len()).freeze()
    }

    /// The staging buffer, where much of a body is missing; see [`Session::staging`](super::Session::staging).
    pub(super) fn lend(&mut self) -> Option<BytesMut> {
        let size = usize::try_from(self.header?.size).ok()?;
        if !self.chunk.is_empty() || size - self.staging.len() < WORTH_READING_INTO {
            return None;
        }
        grow(&mut self.staging, size, true).ok()?;
        Some(std::mem::take(&mut self.staging))
    }

    /// Takes the staging buffer back, with what was read into it.
    pub(super) fn give_back(&mut self, mut staging: BytesMut) {
        if let Some(size) = self.header.and_then(|header| usize::try_from(header.size).ok())
            && staging.len() > size
        {
            // The buffer had more room than was asked for.
            self.chunk = staging.split_off(size);
        }
        self.staging = staging;
    }

    /// Moves the start of a header out of the chunk, so that the chunk's memory is free.
    fn keep_split(&mut self) -> Result<Option<Frame>, CloseReason> {
        if let Some(place) = self.split.get_mut(..self.chunk.len()) {
            place.copy_from_slice(&self.chunk);
            self.split_len = place.len();
        }
        self.chunk = BytesMut::new();
        Ok(None)
    }

    /// The header that began in an earlier chunk, once the rest of it is there.
    fn complete_split(&mut self) -> Result<Option<Header>, CloseReason> {
        while let Some((&octet, _)) = self.chunk.split_first()
            && let Some(place) = self.split.get_mut(self.split_len)
        {
            *place = octet;
            self.split_len += 1;
            self.chunk.advance(1);
            if let Some((header, _)) = Header::parse(self.split.get(..self.split_len).unwrap_or_default())? {
                self.split_len = 0;
                return Ok(Some(header));
            }
        }
        self.chunk = BytesMut::new();
        Ok(None)
    }

    /// The frame of `header` once its body has been gathered.
    fn gather(
        &mut self,
        header: Header,
        established: bool,
        slab: &mut Slab,
    ) -> Result<Option<Frame>, CloseReason> {
        let size = usize::try_from(header.size).map_err(|_| CloseReason::OutOfMemory(header.size))?;
        let used = self.chunk.len().min(size - self.staging.len());
        if used > 0 && self.staging.is_empty() && established && size <= FROM_SLAB {
            self.staging = slab_region(slab, size);
        }
        let taken = self.chunk.get_mut(..used).unwrap_or_default();
        let mut left: &[u8] = taken;
        while !left.is_empty() {
            grow(&mut self.staging, size, established)?;
            let room = self.staging.capacity() - self.staging.len();
            let (now, later) = left.split_at_checked(room).unwrap_or((left, &[]));
            self.staging.extend_from_slice(now);
            left = later;
        }
        if !established {
            // It may hold credentials.
            taken.zeroize();
        }
        if self.staging.len() == size {
            self.chunk.advance(used);
            return Ok(Some(Frame::new(header, 0, size, true)));
        }
        self.chunk = BytesMut::new();
        Ok(None)
    }
}

/// `size` octets of a page of `slab`.
fn slab_region(slab: &mut Slab, size: usize) -> BytesMut {
    let mut page = slab.take(size);
    let rest = page.split_off(size);
    slab.give_back(rest);
    page
}

/// Makes room in the full `staging` for more of a body of `size` octets, within what MQ-104 allows.
fn grow(staging: &mut BytesMut, size: usize, established: bool) -> Result<(), CloseReason> {
    let len = staging.len();
    if len < staging.capacity() {
        return Ok(());
    }
    let target = match established {
        true if size <= RESERVED_AT_ONCE => size,
        true => size.min(AHEAD.max(2 * len)),
        false => size.min(HANDSHAKE_START.max(2 * len)),
    };
    // `Vec` can fail to reserve, and moves large blocks without copying them. All conversions only move ownership.
    let mut memory = Vec::from(std::mem::take(staging));
    memory.try_reserve_exact(target - len).map_err(|_| CloseReason::OutOfMemory(size as u64))?;
    *staging = BytesMut::from(Bytes::from(memory));
    Ok(())
}
