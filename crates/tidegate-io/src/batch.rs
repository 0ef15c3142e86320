//! What a connection writes next: small frames copied one after another, large ones by reference (MQ-052).

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes collected for one submission, in order.
///
/// A batch is filled by a [`Connection`](crate::protocol::Connection), written by the write pump or by the sending
/// thread, and then filled anew; its memory is reused.
#[derive(Debug)]
pub struct WriteBatch {
    /// Copied bytes after the last segment.
    page: BytesMut,
    segments: VecDeque<Bytes>,
    copied: usize,
    len: usize,
    limit: usize,
}

impl WriteBatch {
    /// Most segments of one submission.
    pub const MAX_SEGMENTS: usize = 256;

    /// An empty batch that is full when `limit` bytes have been copied into it.
    pub fn new(limit: usize) -> Self {
        Self { page: BytesMut::new(), segments: VecDeque::new(), copied: 0, len: 0, limit }
    }

    /// Bytes to write.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the batch should be written before more is added. Adding to a full batch is allowed: a message that
    /// was begun is completed.
    pub fn is_full(&self) -> bool {
        // Two segments are kept back: one for copied bytes, one for a shared slice after them.
        self.copied >= self.limit || self.segments.len() + 2 > Self::MAX_SEGMENTS
    }

    /// Adds a copy of `bytes`.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.page.extend_from_slice(bytes);
        self.copied += bytes.len();
        self.len += bytes.len();
    }

    /// Adds `len` zero bytes and gives them to be written over, for encryption in place.
    pub fn put_with(&mut self, len: usize) -> &mut [u8] {
        let start = self.page.len();
        self.page.resize(start + len, 0);
        self.copied += len;
        self.len += len;
        self.page.get_mut(start..).unwrap_or_default()
    }

    /// Adds `bytes` by reference.
    pub fn put_shared(&mut self, bytes: Bytes) {
        self.seal();
        self.len += bytes.len();
        self.segments.push_back(bytes);
    }

    /// The segments to write, in order. Nothing may be added before all of them were taken by [`advance`](Self::advance).
    pub fn segments(&mut self) -> &VecDeque<Bytes> {
        self.seal();
        &self.segments
    }

    /// Drops the first `written` bytes, which the operating system has taken (MQ-034).
    pub fn advance(&mut self, written: usize) {
        self.seal();
        self.len = self.len.saturating_sub(written);
        let mut left = written;
        while let Some(first) = self.segments.front_mut() {
            if first.len() > left {
                first.advance(left);
                break;
            }
            left -= first.len();
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.copied = 0;
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.page.clear();
        self.segments.clear();
        self.copied = 0;
        self.len = 0;
    }

    fn seal(&mut self) {
        if !self.page.is_empty() {
            self.segments.push_back(self.page.split().freeze());
        }
    }
}
