//! What a connection writes next: small frames copied one after another, large ones by reference (MQ-052).

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes collected for one submission, in order.
///
/// A batch is filled by a [`Connection`](crate::protocol::Connection), written by the write pump or by the sending
/// thread, and then filled anew. Copied bytes go to a page that holds a quarter more than the limit, so that the
/// message which fills the batch fits as well; it is written from its start again once nobody holds a slice of the
/// batch before. In steady state nothing is allocated (MQ-026).
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

    /// From now on the batch is full when `limit` bytes have been copied into it.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
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
        self.make_room(bytes.len());
        self.page.extend_from_slice(bytes);
        self.copied += bytes.len();
        self.len += bytes.len();
    }

    /// Adds `len` zero bytes and gives them to be written over, for encryption in place.
    pub fn put_with(&mut self, len: usize) -> &mut [u8] {
        self.make_room(len);
        let start = self.page.len();
        self.page.resize(start + len, 0);
        self.copied += len;
        self.len += len;
        self.page.get_mut(start..).unwrap_or_default()
    }

    /// Adds `bytes` by reference.
    pub fn put_shared(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
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

    #[inline]
    fn make_room(&mut self, len: usize) {
        if self.len == 0 || self.page.capacity() - self.page.len() < len {
            self.turn_page(len);
        }
    }

    /// Starts the page over if nobody holds a slice of it, or takes a new one when the rest of it is too small.
    fn turn_page(&mut self, len: usize) {
        let size = len.max(self.limit + self.limit / 4);
        if self.page.is_empty() && self.page.capacity() < size && self.page.try_reclaim(size) {
            return;
        }
        if self.page.capacity() - self.page.len() < len {
            self.seal();
            self.page = BytesMut::with_capacity(size);
        }
    }

    fn seal(&mut self) {
        if !self.page.is_empty() {
            self.segments.push_back(self.page.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(batch: &mut WriteBatch) -> Vec<u8> {
        batch.segments().iter().flat_map(|segment| segment.to_vec()).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<u8>),
        Zeros(u8),
        Shared(Vec<u8>),
        Write(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Put),
            any::<u8>().prop_map(Step::Zeros),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Shared),
            (0usize..200).prop_map(Step::Write),
        ]
    }

    proptest! {
        /// What is written is what was put, in order, wherever the operating system stops.
        ///
        /// Rules: MQ-034.
        #[test]
        fn bytes_leave_in_order(steps in prop::collection::vec(step(), 0..100)) {
            let mut batch = WriteBatch::new(64);
            let mut model = Vec::new();
            let mut writing = false;
            for step in steps {
                match step {
                    Step::Write(count) => {
                        let count = count.min(model.len());
                        batch.advance(count);
                        model.drain(..count);
                        writing = !model.is_empty();
                    }
                    _ if writing => {}
                    Step::Put(bytes) => {
                        batch.put(&bytes);
                        model.extend(bytes);
                    }
                    Step::Zeros(len) => {
                        batch.put_with(usize::from(len)).fill(len);
                        model.extend(std::iter::repeat_n(len, usize::from(len)));
                    }
                    Step::Shared(bytes) => {
                        model.extend(&bytes);
                        batch.put_shared(bytes.into());
                    }
                }
                prop_assert_eq!(batch.len(), model.len());
                prop_assert_eq!(written(&mut batch), &model[..]);
            }
        }
    }

    /// Rules: MQ-052.
    #[test]
    fn a_batch_is_full_at_its_limit_of_copied_bytes_or_of_segments() {
        let mut batch = WriteBatch::new(100);
        batch.put(&[1; 99]);
        assert!(!batch.is_full());
        batch.put(&[1]);
        assert!(batch.is_full());
        batch.advance(100);
        assert!(batch.is_empty() && !batch.is_full());

        let mut batch = WriteBatch::new(100_000);
        let large = Bytes::from(vec![0; 20_000]);
        while !batch.is_full() {
            batch.put(&[1]);
            batch.put_shared(large.clone());
        }
        assert!(batch.segments().len() <= WriteBatch::MAX_SEGMENTS);
        assert!(batch.segments().len() > WriteBatch::MAX_SEGMENTS - 3);
    }

    /// Rules: MQ-018.
    #[test]
    fn a_shared_slice_is_not_copied() {
        let large = Bytes::from(vec![7; 20_000]);
        let mut batch = WriteBatch::new(100);
        batch.put(b"head");
        batch.put_shared(large.clone());
        assert_eq!(batch.segments()[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn a_slice_that_is_still_held_is_not_overwritten() {
        let mut batch = WriteBatch::new(100);
        batch.put(&[1; 50]);
        let held = batch.segments()[0].clone();
        batch.advance(50);
        batch.put(&[2; 120]);
        assert_eq!(held, vec![1; 50]);
    }
}
