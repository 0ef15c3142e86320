//! A bounded first-in first-out queue of messages: one direction of a pipe.
//!
//! Pure: no locks, no wake-ups. The owner calls it under its own lock and acts on what it answers.
//!
//! # Limits
//!
//! A [`Capacity`] bounds messages and bytes (MQ-060). A message is admitted while the queue is not full, so that the
//! last one may exceed the byte limit and no message is too large for an empty queue. The queue becomes full when
//! either limit is reached and stays full until the reader has taken enough that both counts are down to half of
//! their limit: for messages this is the low-water rule, by which credit returns after (HWM + 1) / 2 messages
//! (MQ-063). Without it a full queue would wake its writer for every single message.
//!
//! A limit may be changed at any time; messages beyond a lowered one stay (MQ-299).
//!
//! A conflating queue keeps the newest message, whole, and is never full (MQ-250).
//!
//! # Layout
//!
//! A plain ring of [`Message`]s. A ring of single parts with a "more" flag, 48 instead of 168 bytes for a message of one
//! part, was measured as well (release build, push and pop of one 20-byte part / of three, depth 1000, ns): messages
//! 47 / 52, parts 45 / 68, and between two threads messages 39, parts 67. So the simple one stays. The ring grows as
//! needed, is kept while the queue is in use and given back by [`Queue::release`]; an unused queue owns no memory.

use std::collections::VecDeque;

use crate::message::Message;

/// How much a [`Queue`] takes. 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Complete messages (high-water mark).
    pub messages: usize,
    /// Bytes of memory as counted by [`Message::retained`].
    pub bytes: usize,
}

impl Capacity {
    /// No limit.
    pub const UNLIMITED: Self = Self { messages: 0, bytes: 0 };
}

/// Bounded queue of messages.
#[derive(Debug)]
pub struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Payload bytes of the messages.
    payload: usize,
    capacity: Capacity,
    full: bool,
    /// The queue ceased to be full and nobody has asked yet.
    credit: bool,
    conflate: bool,
    counters: Counters,
}

/// What a [`Queue`] has seen since it was made (MQ-067).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages admitted.
    pub messages: u64,
    /// Payload bytes of these messages.
    pub bytes: u64,
    /// Messages that a newer one replaced in a conflating queue.
    pub replaced: u64,
    /// Messages dropped by [`Queue::clear`].
    pub discarded: u64,
    /// How often the queue became full.
    pub stalls: u64,
    /// Largest number of messages at one time.
    pub high_water: usize,
}

impl Queue {
    /// An empty queue.
    pub const fn new(capacity: Capacity) -> Self {
        Self::with(capacity, false)
    }

    /// An empty queue that keeps only the newest message (MQ-250).
    pub const fn conflating() -> Self {
        Self::with(Capacity::UNLIMITED, true)
    }

    const fn with(capacity: Capacity, conflate: bool) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            payload: 0,
            capacity,
            full: false,
            credit: false,
            conflate,
            counters: Counters { messages: 0, bytes: 0, replaced: 0, discarded: 0, stalls: 0, high_water: 0 },
        }
    }

    /// Whether [`push`](Self::push) refuses.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Number of messages.
    #[inline]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is no message.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes of memory held by the messages.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The limits.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// How many messages may be pushed before the queue is full by their number.
    pub fn room(&self) -> usize {
        match self.capacity.messages {
            _ if self.full => 0,
            0 => usize::MAX,
            most => most.saturating_sub(self.messages.len()),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Adds a message at the end.
    ///
    /// # Errors
    ///
    /// The message itself when the queue is full.
    #[expect(clippy::result_large_err, reason = "the message is given back, and would be moved anyway")]
    #[inline]
    pub fn push(&mut self, message: Message) -> Result<(), Message> {
        if self.full {
            return Err(message);
        }
        self.push_over(message);
        Ok(())
    }

    /// Adds a message at the end, also to a full queue: for what is not subject to the limits, or was already taken
    /// from a peer and has no other place.
    #[inline]
    pub fn push_over(&mut self, message: Message) {
        if self.conflate && self.messages.pop_front().is_some() {
            self.counters.replaced += 1;
            self.bytes = 0;
            self.payload = 0;
        }
        let payload = message.byte_len();
        self.bytes += message.retained();
        self.payload += payload;
        self.counters.messages += 1;
        self.counters.bytes += payload as u64;
        self.messages.push_back(message);
        self.counters.high_water = self.counters.high_water.max(self.messages.len());
        self.note_full();
    }

    /// Takes the oldest message.
    #[inline]
    pub fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.left(&message);
        self.note_room();
        Some(message)
    }

    /// Takes the oldest message into `place`, if there is one.
    #[inline]
    pub fn pop_into(&mut self, place: &mut Message) -> bool {
        let Some(message) = self.pop() else { return false };
        *place = message;
        true
    }

    /// The oldest message. A writer encodes from here and then calls [`drop_front`](Self::drop_front), which saves
    /// moving each message out.
    #[inline]
    pub fn front(&self) -> Option<&Message> {
        self.messages.front()
    }

    /// Drops the oldest message. False when there was none.
    #[inline]
    pub fn drop_front(&mut self) -> bool {
        self.pop().is_some()
    }

    /// Moves messages to the end of `place` until it has `most` more of them, or at least `bytes` payload bytes more.
    /// Returns the payload bytes moved. When all may go to an empty place, the two only exchange their memory.
    pub fn take_into(&mut self, place: &mut VecDeque<Message>, most: usize, bytes: usize) -> usize {
        let before = self.payload;
        let last = place.len().saturating_add(most);
        if place.is_empty() && self.messages.len() <= most && self.payload <= bytes {
            std::mem::swap(&mut self.messages, place);
            self.bytes = 0;
            self.payload = 0;
        } else {
            while place.len() < last
                && before - self.payload < bytes
                && let Some(message) = self.messages.pop_front()
            {
                self.left(&message);
                place.push_back(message);
            }
        }
        self.note_room();
        before - self.payload
    }

    /// Whether the queue ceased to be full since this was last asked: then whoever waits for room, or paused reading
    /// (MQ-062), goes on.
    #[inline]
    pub fn take_credit(&mut self) -> bool {
        std::mem::take(&mut self.credit)
    }

    /// Changes the limits without dropping anything (MQ-299).
    pub fn set_capacity(&mut self, capacity: Capacity) {
        if self.conflate {
            return;
        }
        self.capacity = capacity;
        if self.full && !self.at_limit() {
            self.full = false;
            self.credit = true;
        } else {
            self.note_full();
        }
    }

    /// Drops all messages. Returns how many.
    pub fn clear(&mut self) -> usize {
        let count = self.messages.len();
        self.messages.clear();
        self.bytes = 0;
        self.payload = 0;
        self.counters.discarded += count as u64;
        self.note_room();
        count
    }

    /// Gives the memory of an empty queue back: for owners that go idle.
    pub fn release(&mut self) {
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    #[inline]
    fn left(&mut self, message: &Message) {
        self.bytes = self.bytes.saturating_sub(message.retained());
        self.payload = self.payload.saturating_sub(message.byte_len());
    }

    #[inline]
    fn note_full(&mut self) {
        if !self.full && self.at_limit() {
            self.full = true;
            self.credit = false;
            self.counters.stalls += 1;
        }
    }

    #[inline]
    fn note_room(&mut self) {
        if self.full && self.at_low_water() {
            self.full = false;
            self.credit = true;
        }
        if self.messages.is_empty() && self.messages.capacity() > KEPT {
            self.messages = VecDeque::new();
        }
    }

    #[inline]
    fn at_limit(&self) -> bool {
        let Capacity { messages, bytes } = self.capacity;
        (messages != 0 && self.messages.len() >= messages) || (bytes != 0 && self.bytes >= bytes)
    }

    #[inline]
    fn at_low_water(&self) -> bool {
        // HWM - (HWM + 1) / 2 is HWM / 2.
        let Capacity { messages, bytes } = self.capacity;
        (messages == 0 || self.messages.len() <= messages / 2) && (bytes == 0 || self.bytes <= bytes / 2)
    }
}

/// A queue that once held more than this many messages gives its memory back when it runs empty. Above the default
/// high-water mark, so that an ordinary queue keeps its ring.
const KEPT: usize = 8192;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(number: usize, len: usize) -> Message {
        let mut message = Message::from(number.to_string());
        message.push(vec![0; len]);
        message
    }

    fn number(message: &Message) -> usize {
        message.first().and_then(|part| std::str::from_utf8(part).ok()?.parse().ok()).unwrap()
    }

    fn bounded(messages: usize) -> Queue {
        Queue::new(Capacity { messages, bytes: 0 })
    }

    /// Fills the queue and says after how many messages taken it has room again.
    fn credit_after(hwm: usize) -> usize {
        let mut queue = bounded(hwm);
        while queue.push(message(0, 0)).is_ok() {}
        assert_eq!(queue.len(), hwm);
        (1..).find(|_| queue.pop().is_some() && queue.take_credit()).unwrap()
    }

    /// Rules: MQ-063.
    #[test]
    fn credit_comes_back_at_the_low_water_mark() {
        let measured = [2, 4, 6, 8, 10, 16, 18].map(credit_after);
        assert_eq!(measured, [1, 2, 3, 4, 5, 8, 9]);
        assert_eq!([1, 3, 5, 1000].map(credit_after), [1, 2, 3, 500]);
    }

    /// Rules: MQ-060.
    #[test]
    fn a_message_above_the_byte_limit_is_admitted_when_the_queue_is_empty() {
        let mut queue = Queue::new(Capacity { messages: 10, bytes: 1000 });
        assert!(queue.push(message(1, 100_000)).is_ok());
        assert_eq!(queue.push(message(2, 0)).map_err(|back| number(&back)), Err(2));
        assert_eq!(queue.pop().as_ref().map(number), Some(1));
        assert!(queue.take_credit() && queue.push(message(2, 0)).is_ok());
    }

    /// Rules: MQ-064.
    #[test]
    fn parts_do_not_count() {
        let mut queue = bounded(1);
        assert!(queue.push((0..100).map(|part: u32| part.to_string()).collect()).is_ok());
        assert!(queue.is_full());
        assert_eq!(queue.pop().map(|message| message.len()), Some(100));
    }

    /// Rules: MQ-299.
    #[test]
    fn limits_change_while_messages_are_queued() {
        let mut queue = bounded(10);
        for index in 0..10 {
            assert!(queue.push(message(index, 0)).is_ok());
        }
        queue.set_capacity(Capacity { messages: 4, bytes: 0 });
        assert!(queue.is_full() && !queue.take_credit());
        assert_eq!(queue.len(), 10);
        let room_after = (1..=10).find(|_| queue.pop().is_some() && queue.take_credit());
        assert_eq!(room_after, Some(8));

        queue.set_capacity(Capacity { messages: 2, bytes: 0 });
        assert!(queue.is_full());
        queue.set_capacity(Capacity { messages: 3, bytes: 0 });
        assert!(!queue.is_full() && queue.take_credit());
        queue.set_capacity(Capacity::UNLIMITED);
        for index in 0..10_000 {
            assert!(queue.push(message(index, 0)).is_ok());
        }
    }

    /// Rules: MQ-250.
    #[test]
    fn a_conflating_queue_keeps_the_newest_message_whole() {
        let mut queue = Queue::conflating();
        for index in 0..1000 {
            assert!(queue.push(message(index, index)).is_ok());
            assert_eq!(queue.bytes(), message(index, index).retained());
        }
        queue.set_capacity(Capacity { messages: 1, bytes: 1 });
        assert!(!queue.is_full());
        assert_eq!((queue.len(), queue.counters().replaced), (1, 999));
        assert_eq!(queue.pop(), Some(message(999, 999)));
        assert_eq!((queue.pop(), queue.bytes()), (None, 0));
    }

    #[test]
    fn an_empty_queue_gives_its_memory_back() {
        let mut queue = bounded(0);
        for index in 0..100_000 {
            queue.push_over(message(index, 0));
        }
        while queue.drop_front() {}
        assert_eq!(queue.messages.capacity(), 0);
        queue.push_over(message(0, 0));
        queue.release();
        assert_eq!(queue.len(), 1);
        assert!(queue.drop_front());
        queue.release();
        assert_eq!(queue.messages.capacity(), 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(usize),
        PushOver(usize),
        Pop,
        PopInto,
        /// Takes so many messages, or so many bytes, behind so many that are taken already.
        Take(usize, usize, usize),
        Limit(usize, usize),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0usize..300).prop_map(Step::Push),
            1 => (0usize..300).prop_map(Step::PushOver),
            3 => Just(Step::Pop),
            1 => Just(Step::PopInto),
            2 => (0usize..3, 0usize..5, 0usize..600).prop_map(|(had, most, bytes)| Step::Take(had, most, bytes)),
            1 => (0usize..8, 0usize..2000).prop_map(|(messages, bytes)| Step::Limit(messages, bytes)),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        /// Against a list and the rule in the module text.
        ///
        /// Rules: MQ-060, MQ-063, MQ-299, MQ-468.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec(step(), 0..200)) {
            let mut capacity = Capacity { messages: 5, bytes: 1000 };
            let mut queue = Queue::new(capacity);
            let mut model: Vec<Message> = Vec::new();
            let (mut full, mut credit, mut next) = (false, false, 0);
            for step in steps {
                let mut taken = Vec::new();
                next += 1;
                match step {
                    Step::Push(len) => {
                        let pushed = queue.push(message(next, len)).is_ok();
                        prop_assert_eq!(pushed, !full);
                        if pushed {
                            model.push(message(next, len));
                        }
                    }
                    Step::PushOver(len) => {
                        queue.push_over(message(next, len));
                        model.push(message(next, len));
                    }
                    Step::Pop => taken.extend(queue.pop()),
                    Step::PopInto => {
                        let mut place = message(0, 7);
                        if queue.pop_into(&mut place) {
                            taken.push(place);
                        }
                    }
                    Step::Take(had, most, bytes) => {
                        let mut place: VecDeque<Message> = (0..had).map(|_| message(0, 7)).collect();
                        let got = queue.take_into(&mut place, most, bytes);
                        prop_assert!(place.iter().take(had).all(|before| *before == message(0, 7)));
                        taken.extend(place.into_iter().skip(had));
                        prop_assert_eq!(got, taken.iter().map(Message::byte_len).sum::<usize>());
                        // One that ends the taking is the last; every other leaves something to be taken.
                        prop_assert!(taken.len() <= most);
                        let before_last = taken.iter().rev().skip(1).map(Message::byte_len).sum::<usize>();
                        prop_assert!(taken.is_empty() || before_last < bytes);
                        prop_assert!(taken.len() == most.min(model.len()) || got >= bytes);
                    }
                    Step::Limit(messages, bytes) => {
                        capacity = Capacity { messages, bytes };
                        queue.set_capacity(capacity);
                    }
                    Step::Clear => {
                        prop_assert_eq!(queue.clear(), model.len());
                        model.clear();
                    }
                }
                prop_assert_eq!(&taken[..], &model[..taken.len()]);
                model.drain(..taken.len());

                let bytes: usize = model.iter().map(Message::retained).sum();
                let reached = |limit: usize, count: usize| limit != 0 && count >= limit;
                let low = |limit: usize, count: usize| limit == 0 || count <= limit / 2;
                let at_limit = reached(capacity.messages, model.len()) || reached(capacity.bytes, bytes);
                let at_low = low(capacity.messages, model.len()) && low(capacity.bytes, bytes);
                let reset = matches!(step, Step::Limit(..));
                if at_limit {
                    credit &= full;
                    full = true;
                } else if full && (at_low || reset) {
                    full = false;
                    credit = true;
                }
                prop_assert_eq!(queue.is_full(), full, "{:?}", queue);
                prop_assert_eq!(queue.take_credit(), credit);
                credit = false;
                prop_assert_eq!((queue.len(), queue.bytes()), (model.len(), bytes));
                prop_assert_eq!(queue.front(), model.first());
                let counters = queue.counters();
                prop_assert!(counters.high_water >= queue.len() && counters.messages >= queue.len() as u64);
            }
        }
    }
}
