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
//! [`Packed`]: the writer and the reader of a queue are different threads, and most messages are small. Its memory is
//! kept while the queue is in use; an unused queue owns none.

use crate::{
    message::Message,
    packed::{Packed, Size},
};

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
    messages: Packed,
    capacity: Capacity,
    full: bool,
    /// The queue ceased to be full and nobody has asked yet.
    credit: bool,
    conflate: bool,
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
        Self { messages: Packed::new(), capacity, full: false, credit: false, conflate }
    }

    /// Whether the queue has no room.
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

    /// Size of all messages together.
    #[inline]
    pub fn size(&self) -> Size {
        self.messages.size()
    }

    /// How many messages may be pushed before the queue is full by their number.
    pub fn room(&self) -> usize {
        match self.capacity.messages {
            _ if self.full => 0,
            0 => usize::MAX,
            most => most.saturating_sub(self.messages.len()),
        }
    }

    /// Adds a message at the end, and leaves it without parts. Also to a full queue: who is subject to the limits asks
    /// [`is_full`](Self::is_full) before.
    #[inline]
    pub fn push(&mut self, message: &mut Message) {
        self.replace();
        self.messages.push(message);
        self.note_full();
    }

    /// Adds a copy of a message, which shares its long parts.
    #[inline]
    pub fn push_clone(&mut self, message: &Message) {
        self.replace();
        self.messages.push_clone(message);
        self.note_full();
    }

    /// Adds the first message of `other`, if there is one.
    #[inline]
    pub fn push_first(&mut self, other: &mut Packed) {
        if !other.is_empty() {
            self.replace();
            other.move_first(&mut self.messages);
            self.note_full();
        }
    }

    /// Adds messages of `other`, in order, until the queue is full or `other` is empty.
    #[inline]
    pub fn push_many(&mut self, other: &mut Packed) {
        let Capacity { messages, bytes } = self.capacity;
        let fits = |limit: usize, has: usize, more: usize| limit == 0 || has.saturating_add(more) <= limit;
        if !self.full
            && !self.conflate
            && fits(messages, self.messages.len(), other.len())
            && fits(bytes, self.size().retained, other.size().retained)
        {
            other.move_all(&mut self.messages);
            return self.note_full();
        }
        while !self.full && !other.is_empty() {
            self.push_first(other);
        }
    }

    /// Takes the oldest message into `place`, if there is one.
    #[inline]
    pub fn pop_into(&mut self, place: &mut Message) -> bool {
        let taken = self.messages.pop_into(place);
        self.note_room();
        taken
    }

    /// Takes the oldest message.
    pub fn pop(&mut self) -> Option<Message> {
        let mut message = Message::new();
        self.pop_into(&mut message).then_some(message)
    }

    /// Drops all messages.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.note_room();
    }

    /// Moves messages to the end of `place` until it has `most` more of them, or at least `bytes` payload bytes more.
    pub fn take_into(&mut self, place: &mut Packed, most: usize, bytes: usize) {
        if self.messages.len() <= most && self.size().payload <= bytes {
            self.messages.move_all(place);
        } else {
            let (mut messages, mut taken) = (0, 0);
            while messages < most
                && taken < bytes
                && let Some(size) = self.messages.move_first(place)
            {
                messages += 1;
                taken += size.payload;
            }
        }
        self.note_room();
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

    /// Drops what a newer message replaces.
    #[inline]
    fn replace(&mut self) {
        if self.conflate {
            self.messages.clear();
        }
    }

    #[inline]
    fn note_full(&mut self) {
        if !self.full && self.at_limit() {
            self.full = true;
            self.credit = false;
        }
    }

    #[inline]
    fn note_room(&mut self) {
        if self.full && self.at_low_water() {
            self.full = false;
            self.credit = true;
        }
    }

    #[inline]
    fn at_limit(&self) -> bool {
        let Capacity { messages, bytes } = self.capacity;
        (messages != 0 && self.messages.len() >= messages) || (bytes != 0 && self.size().retained >= bytes)
    }

    #[inline]
    fn at_low_water(&self) -> bool {
        // HWM - (HWM + 1) / 2 is HWM / 2.
        let Capacity { messages, bytes } = self.capacity;
        (messages == 0 || self.messages.len() <= messages / 2)
            && (bytes == 0 || self.size().retained <= bytes / 2)
    }
}

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

    /// Pushes unless the queue is full.
    fn push(queue: &mut Queue, mut message: Message) -> bool {
        if queue.is_full() {
            return false;
        }
        queue.push(&mut message);
        assert!(message.is_empty());
        true
    }

    /// Fills the queue and says after how many messages taken it has room again.
    fn credit_after(hwm: usize) -> usize {
        let mut queue = bounded(hwm);
        while push(&mut queue, message(0, 0)) {}
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
        assert!(push(&mut queue, message(1, 100_000)));
        assert!(!push(&mut queue, message(2, 0)));
        assert_eq!(queue.pop().as_ref().map(number), Some(1));
        assert!(queue.take_credit() && push(&mut queue, message(2, 0)));
    }

    /// Rules: MQ-064.
    #[test]
    fn parts_do_not_count() {
        let mut queue = bounded(1);
        assert!(push(&mut queue, (0..100).map(|part: u32| part.to_string()).collect()));
        assert!(queue.is_full());
        assert_eq!(queue.pop().map(|message| message.len()), Some(100));
    }

    /// Rules: MQ-299.
    #[test]
    fn limits_change_while_messages_are_queued() {
        let mut queue = bounded(10);
        for index in 0..10 {
            assert!(push(&mut queue, message(index, 0)));
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
            assert!(push(&mut queue, message(index, 0)));
        }
    }

    /// Rules: MQ-250.
    #[test]
    fn a_conflating_queue_keeps_the_newest_message_whole() {
        let mut queue = Queue::conflating();
        for index in 0..1000 {
            assert!(push(&mut queue, message(index, index)));
            assert_eq!(queue.size().retained, message(index, index).retained());
        }
        queue.set_capacity(Capacity { messages: 1, bytes: 1 });
        assert!(!queue.is_full());
        let mut others = Packed::new();
        others.push(&mut message(1000, 1000));
        others.push(&mut message(1001, 1001));
        queue.push_many(&mut others);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.pop(), Some(message(1001, 1001)));
        assert_eq!((queue.pop(), queue.size()), (None, Size::default()));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(usize),
        PushClone(usize),
        PushFirst(usize, usize),
        PushMany(usize, usize),
        Pop,
        PopInto,
        TakeInto(usize, usize),
        Limit(usize, usize),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = 0usize..400;
        prop_oneof![
            6 => len.clone().prop_map(Step::Push),
            1 => len.clone().prop_map(Step::PushClone),
            1 => (0usize..3, len.clone()).prop_map(|(count, len)| Step::PushFirst(count, len)),
            2 => (0usize..6, len).prop_map(|(count, len)| Step::PushMany(count, len)),
            3 => Just(Step::Pop),
            1 => Just(Step::PopInto),
            2 => (0usize..5, 0usize..1000).prop_map(|(most, bytes)| Step::TakeInto(most, bytes)),
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
            let retained = |model: &[Message]| model.iter().map(Message::retained).sum::<usize>();
            let at_limit = |capacity: Capacity, model: &[Message]| {
                let reached = |limit: usize, count: usize| limit != 0 && count >= limit;
                reached(capacity.messages, model.len()) || reached(capacity.bytes, retained(model))
            };
            for step in steps {
                let mut taken = Vec::new();
                next += 1;
                match step {
                    Step::Push(len) => {
                        queue.push(&mut message(next, len));
                        model.push(message(next, len));
                    }
                    Step::PushClone(len) => {
                        let message = message(next, len);
                        queue.push_clone(&message);
                        model.push(message);
                    }
                    Step::PushFirst(count, len) => {
                        let mut others = packed(next, count, len);
                        queue.push_first(&mut others);
                        prop_assert_eq!(others.len(), count.saturating_sub(1));
                        model.extend((count > 0).then(|| message(next, len)));
                    }
                    Step::PushMany(count, len) => {
                        let mut others = packed(next, count, len);
                        queue.push_many(&mut others);
                        let mut left = count;
                        while left > 0 && !full {
                            model.push(message(next + count - left, len));
                            full = at_limit(capacity, &model);
                            credit &= !full;
                            left -= 1;
                        }
                        prop_assert_eq!(others.len(), left);
                        next += count;
                    }
                    Step::Pop => taken.extend(queue.pop()),
                    Step::PopInto => {
                        let mut place = message(0, 7);
                        if queue.pop_into(&mut place) {
                            taken.push(place);
                        }
                    }
                    Step::TakeInto(most, bytes) => {
                        let mut place = packed(0, 1, 7);
                        queue.take_into(&mut place, most, bytes);
                        prop_assert_eq!(place.pop(), Some(message(0, 7)));
                        let mut sum = 0;
                        let fits = |message: &&Message| {
                            sum += message.byte_len();
                            sum - message.byte_len() < bytes
                        };
                        let all = model.len() <= most && model.iter().map(Message::byte_len).sum::<usize>() <= bytes;
                        let expected =
                            if all { model.len() } else { model.iter().take(most).take_while(fits).count() };
                        prop_assert_eq!(place.len(), expected);
                        while let Some(message) = place.pop() {
                            taken.push(message);
                        }
                    }
                    Step::Limit(messages, bytes) => {
                        capacity = Capacity { messages, bytes };
                        queue.set_capacity(capacity);
                    }
                    Step::Clear => {
                        queue.clear();
                        model.clear();
                    }
                }
                prop_assert_eq!(&taken[..], &model[..taken.len()]);
                model.drain(..taken.len());

                let bytes = retained(&model);
                let low = |limit: usize, count: usize| limit == 0 || count <= limit / 2;
                let at_low = low(capacity.messages, model.len()) && low(capacity.bytes, bytes);
                let reset = matches!(step, Step::Limit(..));
                if at_limit(capacity, &model) {
                    credit &= full;
                    full = true;
                } else if full && (at_low || reset) {
                    full = false;
                    credit = true;
                }
                prop_assert_eq!(queue.is_full(), full, "{:?}", queue);
                prop_assert_eq!(queue.take_credit(), credit);
                credit = false;
                prop_assert_eq!((queue.len(), queue.size().retained), (model.len(), bytes));
                prop_assert_eq!(queue.size().payload, model.iter().map(Message::byte_len).sum::<usize>());
            }
        }
    }

    /// `count` messages, numbered from `first`.
    fn packed(first: usize, count: usize, len: usize) -> Packed {
        let mut packed = Packed::new();
        (first..first + count).for_each(|number| packed.push(&mut message(number, len)));
        packed
    }
}
