//! Messages one after another in one piece of memory.
//!
//! A message that waits, or is handed from thread to thread, is kept as bytes: short parts are copied, long ones are
//! shared slices beside. A copy of a few words costs less than a count that two processors write in turn, and memory
//! that one thread allocates and another one frees; many messages change hands by one exchange.
//!
//! ```text
//! bytes:   used up | head body | head body head | head ...        head (2, little-endian): length << 3 | flags
//!                  ^ start      MORE        SHARED                flags: MORE 1, SHARED 2, NO_PARTS 4
//! shared:  Bytes of the parts with SHARED, in order
//! ```

use std::{cell::RefCell, collections::VecDeque, mem};

use bytes::Bytes;

use crate::{
    buffer::SmallFrames,
    message::{Message, Part},
};

/// Longest part that is copied (MQ-022).
const COPIED: usize = 256;

/// Another part of the message follows.
const MORE: u16 = 1;
/// The body is the next of the shared slices.
const SHARED: u16 = 1 << 1;
/// A message without parts.
const NO_PARTS: u16 = 1 << 2;
const LENGTH: u32 = 3;

/// Octets of a head.
const HEAD: usize = 2;

/// Memory that is kept for reuse when there are no messages.
const KEPT: usize = 256 * 1024;

/// Messages in the order in which they came.
#[derive(Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    /// Where the first message starts.
    start: usize,
    shared: VecDeque<Bytes>,
    messages: usize,
    size: Size,
}

/// Size of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes in all parts together, as [`Message::byte_len`].
    pub payload: usize,
    /// Bytes of memory charged, as [`Message::retained`].
    pub retained: usize,
}

/// One part of a packed message.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A short one.
    Copied(&'a [u8]),
    /// A long one.
    Shared(Bytes),
}

impl Piece<'_> {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Packed {
    /// No messages, no memory.
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            shared: VecDeque::new(),
            messages: 0,
            size: Size { payload: 0, retained: 0 },
        }
    }

    /// Number of messages.
    #[inline]
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether there is no message.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Whether there is neither a message nor memory for one.
    pub fn is_bare(&self) -> bool {
        self.is_empty() && self.bytes.capacity() == 0
    }

    /// Size of all messages together.
    #[inline]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Adds `message` at the end, and leaves it without parts.
    #[inline]
    pub fn push(&mut self, message: &mut Message) {
        self.begin(message.len());
        let mut left = message.len();
        for part in message.parts_mut() {
            left -= 1;
            if part.len() <= COPIED {
                self.put(more(left), part);
            } else {
                self.put_shared(more(left), mem::take(part).into_bytes());
            }
        }
        message.clear();
    }

    /// Adds a copy of `message`, which shares its long parts, at the end.
    #[inline]
    pub fn push_clone(&mut self, message: &Message) {
        self.begin(message.len());
        let mut left = message.len();
        for part in message {
            left -= 1;
            match part.shared() {
                Some(bytes) if bytes.len() > COPIED => self.put_shared(more(left), bytes.clone()),
                _ => self.put(more(left), part),
            }
        }
    }

    /// Adds a message of one short part at the end; does nothing and returns false when the part is long.
    #[inline]
    pub fn push_short(&mut self, part: &[u8]) -> bool {
        let is_short = part.len() <= COPIED;
        if is_short {
            self.begin(1);
            self.put(0, part);
        }
        is_short
    }

    /// Takes the first message into `place`, if there is one.
    #[inline]
    pub fn pop_into(&mut self, place: &mut Message) -> bool {
        if self.messages == 0 {
            return false;
        }
        place.clear();
        self.take_with(|piece, _| {
            place.push(match piece {
                Piece::Copied(bytes) => Part::inline(bytes).unwrap_or_else(|| small(bytes)),
                Piece::Shared(bytes) => Part::from(bytes),
            });
        })
    }

    /// Takes the first message.
    pub fn pop(&mut self) -> Option<Message> {
        let mut message = Message::new();
        self.pop_into(&mut message).then_some(message)
    }

    /// Takes the first message and shows its parts in order, each with whether another one follows. Returns false when
    /// there is no message.
    #[inline]
    pub fn take_with(&mut self, mut show: impl FnMut(Piece<'_>, bool)) -> bool {
        if self.messages == 0 {
            return false;
        }
        let mut size = Size::default();
        let mut at = self.start;
        while let Some((flags, body)) = piece(&self.bytes, at) {
            at += HEAD + body.len();
            let has_more = flags & MORE != 0;
            if flags & SHARED != 0 {
                let bytes = self.shared.pop_front().unwrap_or_default();
                size.add(bytes.len());
                show(Piece::Shared(bytes), has_more);
            } else if flags & NO_PARTS == 0 {
                size.add(body.len());
                show(Piece::Copied(body), has_more);
            }
            if !has_more {
                break;
            }
        }
        self.took(at, size);
        true
    }

    /// The first part of the first message; empty when there is none.
    #[inline]
    pub fn first_part(&self) -> &[u8] {
        match piece(&self.bytes, self.start) {
            Some((flags, _)) if flags & SHARED != 0 => self.shared.front().map(|bytes| &**bytes),
            Some((_, body)) => Some(body),
            None => None,
        }
        .unwrap_or_default()
    }

    /// Moves the first message to the end of `other`. Returns its size, or `None` when there is no message.
    #[inline]
    pub fn move_first(&mut self, other: &mut Self) -> Option<Size> {
        if self.messages == 0 {
            return None;
        }
        let mut size = Size::default();
        let mut end = self.start;
        while let Some((flags, body)) = piece(&self.bytes, end) {
            end += HEAD + body.len();
            if flags & SHARED != 0 {
                let bytes = self.shared.pop_front().unwrap_or_default();
                size.add(bytes.len());
                other.shared.push_back(bytes);
            } else if flags & NO_PARTS == 0 {
                size.add(body.len());
            }
            if flags & MORE == 0 {
                break;
            }
        }
        other.copy(self.bytes.get(self.start..end).unwrap_or_default());
        other.messages += 1;
        other.size.plus(size);
        self.took(end, size);
        Some(size)
    }

    /// Moves all messages to the end of `other`. When that is empty, the two exchange their memory.
    #[inline]
    pub fn move_all(&mut self, other: &mut Self) {
        if other.is_empty() {
            return mem::swap(self, other);
        }
        other.copy(self.bytes.get(self.start..).unwrap_or_default());
        other.shared.append(&mut self.shared);
        other.messages += self.messages;
        other.size.plus(self.size);
        self.clear();
    }

    /// Drops all messages.
    pub fn clear(&mut self) {
        self.shared.clear();
        self.messages = 0;
        self.size = Size::default();
        self.rest();
    }

    /// Counts a message of so many parts that is going to be added.
    #[inline]
    fn begin(&mut self, parts: usize) {
        self.messages += 1;
        if parts == 0 {
            self.copy(&NO_PARTS.to_le_bytes());
        }
    }

    #[inline]
    fn put(&mut self, flags: u16, body: &[u8]) {
        let head = (body.len() as u16) << LENGTH | flags;
        self.make_room(HEAD + body.len());
        self.bytes.extend_from_slice(&head.to_le_bytes());
        self.bytes.extend_from_slice(body);
        self.size.add(body.len());
    }

    #[inline]
    fn put_shared(&mut self, flags: u16, body: Bytes) {
        self.copy(&(flags | SHARED).to_le_bytes());
        self.size.add(body.len());
        self.shared.push_back(body);
    }

    #[inline]
    fn copy(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Uses the memory of what is gone, rather than more, when that is at least half of it.
    #[inline]
    fn make_room(&mut self, more: usize) {
        let len = self.bytes.len();
        if self.bytes.capacity() - len < more && self.start >= len - self.start {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(len - self.start);
            self.start = 0;
        }
    }

    /// The first message, which ended here, is gone.
    #[inline]
    fn took(&mut self, end: usize, size: Size) {
        self.start = end;
        self.messages -= 1;
        self.size.minus(size);
        if self.messages == 0 {
            self.rest();
        }
    }

    fn rest(&mut self) {
        self.bytes.clear();
        self.start = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        if self.shared.capacity() > KEPT / size_of::<Bytes>() {
            self.shared = VecDeque::new();
        }
    }
}

impl Size {
    /// Adds a part of so many bytes.
    #[inline]
    fn add(&mut self, len: usize) {
        self.payload += len;
        self.retained += Part::retained_by(len);
    }

    #[inline]
    fn plus(&mut self, other: Self) {
        self.payload += other.payload;
        self.retained += other.retained;
    }

    #[inline]
    fn minus(&mut self, other: Self) {
        self.payload -= other.payload;
        self.retained -= other.retained;
    }
}

/// Flag of a part that so many others follow.
#[inline]
fn more(left: usize) -> u16 {
    if left > 0 { MORE } else { 0 }
}

/// The flags at `at`, and the body behind them.
#[inline]
fn piece(bytes: &[u8], at: usize) -> Option<(u16, &[u8])> {
    let rest = bytes.get(at..)?;
    let (head, rest) = rest.split_first_chunk()?;
    let head = u16::from_le_bytes(*head);
    Some((head, rest.get(..usize::from(head >> LENGTH))?))
}

/// A copy in a page of the calling thread, so that its count is this thread's own as long as the part is.
fn small(bytes: &[u8]) -> Part {
    thread_local! {
        static PAGES: RefCell<SmallFrames> = const { RefCell::new(SmallFrames::new()) };
    }
    PAGES
        .try_with(|pages| pages.try_borrow_mut().ok().map(|mut pages| pages.copy(bytes)))
        .ok()
        .flatten()
        .unwrap_or_else(|| Part::copy_from(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rules: MQ-018.
    #[test]
    fn long_parts_are_shared() {
        let long = Part::from(vec![1; COPIED + 1]);
        let message: Message = [Part::from("a"), long.clone(), Part::from("b")].into_iter().collect();
        let mut packed = Packed::new();
        packed.push_clone(&message);
        packed.push(&mut message.clone());
        for _ in 0..2 {
            let out = packed.pop().unwrap();
            assert_eq!(out, message);
            assert_eq!(out.get(1).map(|part| part.as_ptr()), Some(long.as_ptr()));
        }
    }

    /// Rules: MQ-022.
    #[test]
    fn short_parts_hold_on_to_nothing() {
        let page = Bytes::from(vec![7; 10_000]);
        let mut packed = Packed::new();
        for len in [0, 1, 64, 65, COPIED] {
            packed.push(&mut Message::from(page.slice(..len)));
        }
        assert!(page.is_unique());
        let out: Vec<Message> = std::iter::from_fn(|| packed.pop()).collect();
        assert!(page.is_unique());
        let lengths: Vec<usize> = out.iter().map(Message::byte_len).collect();
        assert_eq!(lengths, [0, 1, 64, 65, COPIED]);
    }

    #[test]
    fn a_message_without_parts_is_a_message() {
        let mut packed = Packed::new();
        packed.push(&mut Message::new());
        packed.push_clone(&Message::new());
        packed.push(&mut Message::from("x"));
        assert_eq!(packed.first_part(), b"");
        let mut other = Packed::new();
        assert_eq!(packed.move_first(&mut other), Some(Size::default()));
        for packed in [&mut packed, &mut other] {
            assert_eq!(packed.pop(), Some(Message::new()));
        }
        assert_eq!((packed.pop(), packed.pop(), other.pop()), (Some(Message::from("x")), None, None));
    }

    #[test]
    fn much_memory_is_given_back_and_little_is_kept() {
        let mut packed = Packed::new();
        let fill = |packed: &mut Packed, count: usize| {
            (0..count).for_each(|_| packed.push(&mut Message::from(vec![0; 200])));
            while packed.pop().is_some() {}
        };
        fill(&mut packed, 100);
        assert!(packed.bytes.capacity() >= 100 * 200);
        fill(&mut packed, 10_000);
        assert_eq!(packed.bytes.capacity(), 0);
    }

    /// A queue that never runs empty does not grow either.
    #[test]
    fn memory_follows_what_is_there() {
        let mut packed = Packed::new();
        for _ in 0..100_000 {
            packed.push(&mut Message::from(vec![0; 100]));
            if packed.len() > 50 {
                packed.pop().unwrap();
            }
        }
        assert!(packed.bytes.capacity() < 4 * 51 * 102, "{}", packed.bytes.capacity());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<usize>),
        PushClone(Vec<usize>),
        PushShort(usize),
        Pop,
        TakeWith,
        MoveFirst,
        MoveAll,
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = prop_oneof![0usize..40, 250usize..260, 0usize..2000];
        let lengths = prop::collection::vec(len.clone(), 0..7);
        prop_oneof![
            4 => lengths.clone().prop_map(Step::Push),
            2 => lengths.prop_map(Step::PushClone),
            2 => len.prop_map(Step::PushShort),
            3 => Just(Step::Pop),
            2 => Just(Step::TakeWith),
            3 => Just(Step::MoveFirst),
            1 => Just(Step::MoveAll),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        /// Against two lists: messages go into the first, on to the second, and out of it.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec(step(), 0..200)) {
            let (mut packed, mut other) = (Packed::new(), Packed::new());
            let (mut model, mut onward) = (VecDeque::new(), VecDeque::new());
            for (number, step) in steps.into_iter().enumerate() {
                let message = |lengths: &[usize]| -> Message {
                    lengths.iter().map(|len| vec![number as u8; *len]).collect()
                };
                match step {
                    Step::Push(lengths) => {
                        packed.push(&mut message(&lengths));
                        model.push_back(message(&lengths));
                    }
                    Step::PushClone(lengths) => {
                        packed.push_clone(&message(&lengths));
                        model.push_back(message(&lengths));
                    }
                    Step::PushShort(len) => {
                        let taken = packed.push_short(&vec![number as u8; len]);
                        prop_assert_eq!(taken, len <= COPIED);
                        model.extend(taken.then(|| message(&[len])));
                    }
                    Step::Pop => prop_assert_eq!(other.pop(), onward.pop_front()),
                    Step::TakeWith => {
                        let mut parts = Vec::new();
                        let mut more = Vec::new();
                        let taken = other.take_with(|piece, has_more| {
                            parts.push(piece.as_slice().to_vec());
                            more.push(has_more);
                        });
                        let expected = onward.pop_front();
                        prop_assert_eq!(taken, expected.is_some());
                        prop_assert_eq!(parts.into_iter().collect::<Message>(), expected.unwrap_or_default());
                        prop_assert!(more.iter().rev().enumerate().all(|(at, more)| *more == (at > 0)));
                    }
                    Step::MoveFirst => {
                        let moved = packed.move_first(&mut other);
                        let expected: Option<Message> = model.pop_front();
                        prop_assert_eq!(moved.map(|size| size.payload), expected.as_ref().map(Message::byte_len));
                        prop_assert_eq!(moved.map(|size| size.retained), expected.as_ref().map(Message::retained));
                        onward.extend(expected);
                    }
                    Step::MoveAll => {
                        packed.move_all(&mut other);
                        onward.append(&mut model);
                    }
                    Step::Clear => {
                        packed.clear();
                        model.clear();
                    }
                }
                for (packed, model) in [(&packed, &model), (&other, &onward)] {
                    prop_assert_eq!(packed.len(), model.len());
                    prop_assert_eq!(packed.size().payload, model.iter().map(Message::byte_len).sum::<usize>());
                    prop_assert_eq!(packed.size().retained, model.iter().map(Message::retained).sum::<usize>());
                    let first = model.front().and_then(Message::first).map(|part| part.as_slice());
                    prop_assert_eq!(packed.first_part(), first.unwrap_or_default());
                }
            }
        }
    }
}
