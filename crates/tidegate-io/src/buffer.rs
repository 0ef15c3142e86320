//! Memory for what is received: pages that many reads share, reused when nobody looks at them any more.
//!
//! # How a page is used
//!
//! ```text
//!   page of 64 KiB:  | read 1 (frozen, sliced into parts) | read 2 | tail: given to the next read |
//! ```
//!
//! [`Slab::take`] lends the tail of the current page by value, the operating system fills its front, the reader splits
//! that off and gives the tail back (MQ-019). The split handles are unique over disjoint ranges, so that what was
//! received can be shared but never written again. The slab keeps one handle of every page that it has used up. When
//! all others are gone the page is reused from its start; the handle itself tells (`BytesMut::try_reclaim`). No page
//! is written while a view of it lives, since that is what the handles' uniqueness means (MQ-017).
//!
//! # How much memory
//!
//! A page is looked at again only when a new one is needed, and then only a few of them, oldest first, because a queue
//! gives messages back in order. At most [`SlabOptions::resting_pages`] are kept; beyond that the oldest is left to
//! those who hold views of it, whose last one frees it. An application that holds parts for long therefore costs the
//! memory that it holds and a constant amount of work per page. When the last stream of a worker has ended the slab lets
//! go of all its pages ([`Slab::trim`]); while there are streams it keeps at most 8 MiB of receive pages and 1 MiB of
//! small-frame pages.
//!
//! Small frames must not keep a large page alive (MQ-022): up to 64 bytes are stored in the [`Part`] itself, up to the
//! copy threshold they are packed into pages of 4 KiB of their own. Larger frames are slices of the receive page. When
//! the application holds more pages than the slab keeps, frames of less than a quarter of a page are copied into
//! allocations of their own, since then a few of them may keep many pages alive.

use std::{cell::Cell, collections::VecDeque};

use bytes::{Bytes, BytesMut};

use crate::message::Part;

/// Sizes of a [`Slab`].
#[derive(Clone, Copy, Debug)]
pub struct SlabOptions {
    /// Bytes of a receive page.
    pub page: usize,
    /// Frames up to this many bytes are copied out of the receive page.
    pub inline_copy_threshold: usize,
    /// Most used-up receive pages that are kept for reuse.
    pub resting_pages: usize,
}

impl Default for SlabOptions {
    fn default() -> Self {
        Self { page: 64 * 1024, inline_copy_threshold: 256, resting_pages: 128 }
    }
}

/// Receive memory of one worker.
#[derive(Debug)]
pub struct Slab {
    pages: Pages,
    /// The tail of the page in use.
    current: Option<BytesMut>,
    small: SmallFrames,
    inline_copy_threshold: usize,
}

impl Slab {
    /// An empty slab.
    pub fn new(options: SlabOptions) -> Self {
        Self {
            pages: Pages::new(options.page, options.resting_pages),
            current: None,
            small: SmallFrames::new(),
            inline_copy_threshold: options.inline_copy_threshold.min(SmallFrames::PAGE),
        }
    }

    /// An empty buffer with room for at least `least` bytes, usually more. More than a page gets memory of its own
    /// (MQ-021). The rest is to be [given back](Self::give_back) after what was read was split off.
    pub fn take(&mut self, least: usize) -> BytesMut {
        let page = self.pages.size;
        if least > page {
            return BytesMut::with_capacity(least);
        }
        let Some(mut current) = self.current.take() else { return self.pages.fresh() };
        // Often all that was read is gone already: starting over keeps the page in the processor's cache.
        if current.capacity() < page {
            self.pages.reclaim(&mut current);
        }
        if (least..=page).contains(&current.capacity()) {
            return current;
        }
        // More than a page is what once was a buffer of its own.
        if current.capacity() < least {
            self.pages.rest(current);
        }
        self.pages.fresh()
    }

    /// Takes back what is left of a buffer that [`take`](Self::take) lent.
    pub fn give_back(&mut self, mut tail: BytesMut) {
        tail.clear();
        if tail.capacity() > self.pages.size {
            return;
        }
        match &mut self.current {
            Some(current) if current.capacity() >= tail.capacity() => self.pages.rest(tail),
            current => {
                if let Some(smaller) = current.replace(tail) {
                    self.pages.rest(smaller);
                }
            }
        }
    }

    /// The part made of a received frame; see the module text for when it is copied.
    #[inline]
    pub fn part(&mut self, frame: Bytes) -> Part {
        if frame.len() <= self.inline_copy_threshold {
            return self.small.copy(&frame);
        }
        if frame.len() * PINNED_PER_BYTE < self.pages.size && self.pages.are_held() {
            return Part::copy_from(&frame);
        }
        Part::from(frame)
    }

    /// A copy of a few bytes, without an allocation of its own.
    #[inline]
    pub fn small(&mut self, bytes: &[u8]) -> Part {
        self.small.copy(bytes)
    }

    /// Gives all memory back that nobody looks at: for workers without streams.
    pub fn trim(&mut self) {
        self.current = None;
        self.pages.resting = VecDeque::new();
        self.small.trim();
    }

    /// Number of pages that the slab holds a handle of.
    pub fn pages(&self) -> usize {
        self.pages.resting.len() + usize::from(self.current.is_some())
    }
}

impl Default for Slab {
    fn default() -> Self {
        Self::new(SlabOptions::default())
    }
}

/// Packs copies of small frames one after another into pages of 4 KiB, so that a copy needs no allocation (MQ-022).
#[derive(Debug)]
pub struct SmallFrames {
    pages: Pages,
    current: Option<BytesMut>,
}

impl SmallFrames {
    /// Bytes of a page.
    pub const PAGE: usize = 4096;

    /// Without any page yet.
    pub const fn new() -> Self {
        Self { pages: Pages::new(Self::PAGE, RESTING_SMALL_PAGES), current: None }
    }

    /// A copy of `bytes`: in place when short, in an allocation of its own when larger than a page.
    #[inline]
    pub fn copy(&mut self, bytes: &[u8]) -> Part {
        if let Some(part) = Part::inline(bytes) {
            return part;
        }
        if bytes.len() > Self::PAGE {
            return Part::copy_from(bytes);
        }
        let mut page = match self.current.take() {
            Some(page) if page.capacity() >= bytes.len() => page,
            used => self.turn_page(used),
        };
        page.extend_from_slice(bytes);
        let part = Part::from(page.split().freeze());
        self.current = Some(page);
        part
    }

    /// Gives all memory back that is not in use.
    pub fn trim(&mut self) {
        self.current = None;
        self.pages.resting = VecDeque::new();
    }

    fn turn_page(&mut self, used: Option<BytesMut>) -> BytesMut {
        if let Some(mut used) = used {
            if self.pages.reclaim(&mut used) {
                return used;
            }
            self.pages.rest(used);
        }
        self.pages.fresh()
    }
}

impl Default for SmallFrames {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls `with` with the calling thread's own slab.
///
/// For code that runs on a worker and is not handed its slab. When the thread's slab is in use further up the stack, or
/// already destroyed at the end of the thread, an empty one is used instead.
pub fn with_local_slab<R>(with: impl FnOnce(&mut Slab) -> R) -> R {
    thread_local! {
        static LOCAL: Cell<Option<Box<Slab>>> = const { Cell::new(None) };
    }
    let mut slab = LOCAL.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let result = with(&mut slab);
    let _ = LOCAL.try_with(|place| place.set(Some(slab)));
    result
}

/// Pages of one size that are used up, kept until all views of them are gone.
#[derive(Debug)]
struct Pages {
    size: usize,
    resting: VecDeque<BytesMut>,
    most: usize,
    /// A page had to be let go because too many rested.
    overflowed: bool,
}

impl Pages {
    const fn new(size: usize, most: usize) -> Self {
        Self { size, resting: VecDeque::new(), most, overflowed: false }
    }

    /// An empty page: a resting one that nobody looks at any more, or a new one.
    fn fresh(&mut self) -> BytesMut {
        for place in 0..PROBES.min(self.resting.len()) {
            let Some(mut page) = self.resting.remove(place) else { break };
            if !self.reclaim(&mut page) {
                self.resting.insert(place, page);
            } else if page.capacity() <= self.size {
                return page;
            }
            // Else it was a buffer of its own, larger than a page, and is not kept.
        }
        // The oldest may be held for long: let others have their turn.
        self.resting.rotate_left(1.min(self.resting.len()));
        BytesMut::with_capacity(self.size)
    }

    /// Makes the page whole again if nobody looks at it any more.
    fn reclaim(&mut self, page: &mut BytesMut) -> bool {
        let free = page.try_reclaim(self.size);
        self.overflowed &= !free;
        free
    }

    fn rest(&mut self, page: BytesMut) {
        if self.resting.len() >= self.most {
            self.overflowed = true;
            self.resting.pop_front();
        }
        self.resting.push_back(page);
    }

    /// Whether the application holds on to more pages than are kept.
    fn are_held(&self) -> bool {
        self.overflowed
    }
}

/// Resting pages that are looked at when a page is needed.
const PROBES: usize = 4;

/// Most bytes of memory that a byte of a frame may keep alive while pages are short.
const PINNED_PER_BYTE: usize = 4;

/// Small-frame pages kept for reuse: 1 MiB.
const RESTING_SMALL_PAGES: usize = 256;

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 4096;

    fn slab(resting_pages: usize) -> Slab {
        Slab::new(SlabOptions { page: PAGE, inline_copy_threshold: 256, resting_pages })
    }

    /// Reads `bytes` as a pump would.
    fn read(slab: &mut Slab, bytes: &[u8]) -> Bytes {
        let mut buffer = slab.take(bytes.len());
        assert!(buffer.is_empty() && buffer.capacity() >= bytes.len());
        buffer.put_slice(bytes);
        let filled = buffer.split().freeze();
        slab.give_back(buffer);
        filled
    }

    /// Rules: MQ-019.
    #[test]
    fn consumption_tracks_what_was_read() {
        let mut slab = slab(10);
        let first = read(&mut slab, &[1; 100]);
        let second = read(&mut slab, &[2; 100]);
        assert_eq!(first.as_ptr() as usize + 100, second.as_ptr() as usize);
        // Nothing was read: nothing is used up.
        let tail = slab.take(1);
        assert_eq!(tail.capacity(), PAGE - 200);
        slab.give_back(tail);
        assert_eq!(slab.take(1).capacity(), PAGE - 200);
    }

    /// Rules: MQ-021.
    #[test]
    fn a_read_larger_than_a_page_has_memory_of_its_own() {
        let mut slab = slab(10);
        let small = read(&mut slab, &[1; 10]);
        let large = read(&mut slab, &[2; PAGE + 1]);
        assert_eq!((small, large), (vec![1; 10].into(), vec![2; PAGE + 1].into()));
        // What is left of it does not become a page: the next regions still fit into one.
        for _ in 0..10 {
            assert!(slab.take(PAGE).capacity() <= PAGE);
        }
        let mut large = slab.take(10 * PAGE);
        large.put_slice(&[3; 9 * PAGE + 1]);
        let held = large.split().freeze();
        slab.give_back(large);
        drop(held);
        for _ in 0..10 {
            let buffer = slab.take(PAGE);
            assert!(buffer.capacity() <= PAGE);
            slab.give_back(buffer);
        }
    }

    /// Rules: MQ-017.
    #[test]
    fn a_page_is_reused_when_no_view_is_left_and_not_before() {
        let mut slab = slab(10);
        let held = read(&mut slab, &[1; PAGE]);
        let address = held.as_ptr();
        let other = read(&mut slab, &[2; PAGE]);
        assert_ne!(other.as_ptr(), address);
        assert_eq!(held, vec![1; PAGE]);
        drop(held);
        assert_eq!(read(&mut slab, &[3; PAGE]).as_ptr(), address);
        assert_eq!(other, vec![2; PAGE]);
    }

    #[test]
    fn parts_held_for_long_cost_no_scan_and_no_unbounded_list() {
        let mut slab = slab(8);
        let mut held: Vec<Bytes> = (0..1000).map(|_| read(&mut slab, &[1; PAGE])).collect();
        assert!(slab.pages() <= 9);
        assert!(slab.pages.are_held());
        held.clear();
        let reused = (0..4).map(|_| read(&mut slab, &[2; PAGE])).count();
        assert_eq!(reused, 4);
        assert!(!slab.pages.are_held());
    }

    /// Rules: MQ-022.
    #[test]
    fn small_frames_do_not_keep_the_receive_page_alive() {
        let mut slab = slab(8);
        let chunk = read(&mut slab, &[5; PAGE]);
        let parts = [1, 64, 65, 256].map(|len| slab.part(chunk.slice(..len)));
        let address = chunk.as_ptr();
        drop(chunk);
        assert_eq!(read(&mut slab, &[6; PAGE]).as_ptr(), address, "the page was not free");
        for (part, len) in parts.iter().zip([1, 64, 65, 256]) {
            assert_eq!(part, &[5; 256][..len]);
        }
        assert!(parts[0].shared().is_none() && parts[1].shared().is_none());
        // Packed one after the other.
        assert_eq!(parts[2].as_ptr() as usize + 65, parts[3].as_ptr() as usize);
    }

    /// Rules: MQ-018, MQ-022.
    #[test]
    fn larger_frames_are_slices_unless_pages_are_short() {
        let mut slab = slab(4);
        let chunk = read(&mut slab, &[5; PAGE]);
        let part = slab.part(chunk.slice(..257));
        assert_eq!(part.as_ptr(), chunk.as_ptr());

        let mut held: Vec<Bytes> = (0..10).map(|_| read(&mut slab, &[1; PAGE])).collect();
        let copied = slab.part(chunk.slice(..257));
        assert_ne!(copied.as_ptr(), chunk.as_ptr());
        assert_eq!(copied, chunk[..257]);
        assert_eq!(slab.part(chunk.slice(..PAGE / 4)).as_ptr(), chunk.as_ptr());
        held.clear();
    }

    #[test]
    fn the_local_slab_can_be_used_within_itself() {
        let part = with_local_slab(|outer| {
            let inner = with_local_slab(|inner| inner.small(&[1; 100]));
            (outer.small(&[2; 100]), inner)
        });
        assert_eq!(part, (Part::from(vec![2; 100]), Part::from(vec![1; 100])));
        let address = with_local_slab(|slab| slab.small(&[3; 80])).as_ptr() as usize;
        assert_eq!(with_local_slab(|slab| slab.small(&[4; 80])).as_ptr() as usize, address + 80);
    }

    /// Rules: MQ-017.
    #[test]
    fn a_trimmed_slab_holds_nothing_and_what_is_held_stays() {
        let mut slab = slab(8);
        let held: Vec<Bytes> = (0..4).map(|_| read(&mut slab, &[1; PAGE])).collect();
        let small: Vec<Part> = (0..40).map(|_| slab.part(held[0].slice(..200))).collect();
        assert!(slab.pages() >= 4);
        assert_eq!(slab.small.pages.resting.len(), 1);
        slab.trim();
        assert_eq!((slab.pages(), slab.small.pages.resting.len()), (0, 0));
        assert_eq!(read(&mut slab, &[2; PAGE]), vec![2; PAGE]);
        assert!(held.iter().all(|held| *held == vec![1; PAGE]));
        assert!(small.iter().all(|small| *small == vec![1; 200]));
    }

    proptest! {
        /// Whatever is held and dropped in whatever order, every view keeps its bytes.
        ///
        /// Rules: MQ-017.
        #[test]
        fn views_keep_their_bytes(
            steps in prop::collection::vec((1usize..6000, any::<bool>(), 0usize..20), 1..300),
        ) {
            let mut slab = slab(3);
            let mut held: Vec<(Part, u8)> = Vec::new();
            for (index, (len, keep, drop_at)) in steps.into_iter().enumerate() {
                let fill = index as u8;
                let chunk = read(&mut slab, &vec![fill; len]);
                let part = slab.part(chunk.slice(..len / 2 + 1));
                if keep {
                    held.push((part, fill));
                }
                if drop_at < held.len() {
                    held.swap_remove(drop_at);
                }
                for (part, fill) in &held {
                    prop_assert!(part.iter().all(|byte| byte == fill));
                }
                prop_assert!(slab.pages() <= 4);
            }
        }
    }
}
