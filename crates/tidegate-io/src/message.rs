//! Messages: one or more parts, each an immutable, cheaply cloned string of bytes.
//!
//! A part of at most [`Part::INLINE`] bytes that is copied is stored in place; a longer one, and one that brings memory of
//! its own, is a reference-counted slice. A message of up to four parts needs no allocation for its list of parts (MQ-018,
//! MQ-024).

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

use bytes::Bytes;
use smallvec::SmallVec;

/// One part of a [`Message`].
#[derive(Clone)]
pub struct Part(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; Part::INLINE] },
    Shared(Bytes),
}

impl Part {
    /// Longest part that is stored in place.
    pub const INLINE: usize = 64;

    /// The part of no bytes.
    pub const EMPTY: Self = Self(Repr::Inline { len: 0, bytes: [0; Self::INLINE] });

    /// A copy of `bytes`: in place when short, else in an allocation of its own.
    #[inline]
    pub fn copy_from(bytes: &[u8]) -> Self {
        if bytes.len() > Self::INLINE {
            return Self(Repr::Shared(Bytes::copy_from_slice(bytes)));
        }
        Self::inline(bytes).unwrap_or_default()
    }

    /// A copy of `bytes` stored in place, when they are few enough.
    #[inline]
    pub fn inline(bytes: &[u8]) -> Option<Self> {
        let mut place = [0; Self::INLINE];
        place.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Repr::Inline { len: bytes.len() as u8, bytes: place }))
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The shared slice behind the part, unless it is stored in place.
    #[inline]
    pub fn shared(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Inline { .. } => None,
            Repr::Shared(bytes) => Some(bytes),
        }
    }

    /// The part as a shared slice; copies when it is stored in place.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Inline { len, bytes } => {
                Bytes::copy_from_slice(bytes.get(..usize::from(len)).unwrap_or_default())
            }
            Repr::Shared(bytes) => bytes,
        }
    }

    /// Bytes of memory that this part is charged with in a byte budget (MQ-023): its own place and what it shares.
    #[inline]
    pub fn retained(&self) -> usize {
        Self::retained_by(self.len())
    }

    /// The same for a part of so many bytes. A short one is charged as if stored in place, which is how it is queued.
    #[inline]
    pub(crate) fn retained_by(len: usize) -> usize {
        size_of::<Self>() + if len > Self::INLINE { len } else { 0 }
    }
}

impl Default for Part {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Deref for Part {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Part {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// Shares the slice; use [`Part::copy_from`] for a few bytes of a large buffer that should not stay alive.
impl From<Bytes> for Part {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Shared(bytes))
    }
}

/// Takes the memory over, unless it is for a few bytes only, or has unused room and holds no more than is stored in place.
impl From<Vec<u8>> for Part {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        let is_tight = bytes.len() == bytes.capacity() && bytes.len() > FEW;
        if is_tight || bytes.len() > Self::INLINE {
            return Self(Repr::Shared(bytes.into()));
        }
        Self::inline(&bytes).unwrap_or_default()
    }
}

/// So many bytes are copied and freed sooner than handed on.
const FEW: usize = 16;

impl From<String> for Part {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&[u8]> for Part {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Part {
    fn from(bytes: &[u8; N]) -> Self {
        Self::copy_from(bytes)
    }
}

impl From<&str> for Part {
    fn from(text: &str) -> Self {
        Self::copy_from(text.as_bytes())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Part {
    fn eq(&self, other: &T) -> bool {
        self.as_slice() == other.as_ref()
    }
}

impl Eq for Part {}

/// As a slice of the same bytes, so that tables with parts as keys are searched by slice.
impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

/// Shows printable text as text and the rest escaped, at most 64 bytes of it.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        let shown = self.get(..SHOWN).unwrap_or(self);
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if self.len() > SHOWN { write!(f, "... ({} bytes)", self.len()) } else { Ok(()) }
    }
}

/// A message: its parts in order. What is sent and received has at least one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    parts: SmallVec<[Part; 4]>,
}

impl Message {
    /// A message without parts, to which parts are added.
    pub fn new() -> Self {
        Self { parts: SmallVec::new() }
    }

    /// The parts in order.
    #[inline]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    #[inline]
    pub(crate) fn parts_mut(&mut self) -> &mut [Part] {
        &mut self.parts
    }

    /// Number of parts.
    #[inline]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is no part.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The part at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&Part> {
        self.parts.get(index)
    }

    /// The first part.
    #[inline]
    pub fn first(&self) -> Option<&Part> {
        self.parts.first()
    }

    /// Adds a part at the end.
    #[inline]
    pub fn push(&mut self, part: impl Into<Part>) {
        self.parts.push(part.into());
    }

    /// Adds a part before the others.
    pub fn push_front(&mut self, part: impl Into<Part>) {
        self.parts.insert(0, part.into());
    }

    /// Takes the first part off.
    pub fn pop_front(&mut self) -> Option<Part> {
        if self.parts.is_empty() { None } else { Some(self.parts.remove(0)) }
    }

    /// Takes the first `count` parts off, or all when there are fewer.
    pub fn split_front(&mut self, count: usize) -> Self {
        let count = count.min(self.parts.len());
        Self { parts: self.parts.drain(..count).collect() }
    }

    /// Removes all parts and keeps the room for them.
    pub fn clear(&mut self) {
        self.parts.clear();
    }

    /// Bytes in all parts together.
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Bytes of memory that this message is charged with in a byte budget (MQ-023).
    #[inline]
    pub fn retained(&self) -> usize {
        self.parts.iter().map(Part::retained).sum()
    }
}

impl<P: Into<Part>> From<P> for Message {
    // Always: moving a message that was just written costs more than all the rest of sending it.
    #[inline(always)]
    fn from(part: P) -> Self {
        let mut message = Self::new();
        message.push(part);
        message
    }
}

impl<P: Into<Part>> FromIterator<P> for Message {
    fn from_iter<I: IntoIterator<Item = P>>(parts: I) -> Self {
        Self { parts: parts.into_iter().map(Into::into).collect() }
    }
}

impl<P: Into<Part>> Extend<P> for Message {
    fn extend<I: IntoIterator<Item = P>>(&mut self, parts: I) {
        self.parts.extend(parts.into_iter().map(Into::into));
    }
}

impl IntoIterator for Message {
    type Item = Part;
    type IntoIter = smallvec::IntoIter<[Part; 4]>;

    fn into_iter(self) -> Self::IntoIter {
        self.parts.into_iter()
    }
}

impl<'a> IntoIterator for &'a Message {
    type Item = &'a Part;
    type IntoIter = std::slice::Iter<'a, Part>;

    fn into_iter(self) -> Self::IntoIter {
        self.parts.iter()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.parts).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However a part is made, it holds these bytes.
        #[test]
        fn a_part_holds_what_it_was_made_from(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let shared = Bytes::from(bytes.clone());
            let parts = [Part::copy_from(&bytes), Part::from(shared), Part::from(bytes.clone())];
            for part in parts {
                prop_assert_eq!(&part, &bytes);
                prop_assert_eq!(part.clone().into_bytes(), &bytes);
                let table = HashMap::from([(part, ())]);
                prop_assert!(table.contains_key(bytes.as_slice()));
            }
            prop_assert_eq!(Part::inline(&bytes).is_some(), bytes.len() <= Part::INLINE);
        }

        /// A message behaves as a list of parts.
        #[test]
        fn a_message_is_a_list(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
            count in 0usize..10,
        ) {
            let mut message: Message = parts.iter().map(|part| part.as_slice()).collect();
            prop_assert_eq!(message.len(), parts.len());
            prop_assert_eq!(message.byte_len(), parts.iter().map(Vec::len).sum::<usize>());
            let front = message.split_front(count);
            let count = count.min(parts.len());
            prop_assert!(front.parts().iter().eq(parts[..count].iter()));
            prop_assert!(message.parts().iter().eq(parts[count..].iter()));
            if let Some(first) = message.pop_front() {
                prop_assert_eq!(&first, &parts[count]);
                message.push_front(first);
            }
            prop_assert!(message.into_iter().eq(parts[count..].iter()));
        }
    }

    /// Rules: MQ-018.
    #[test]
    fn a_clone_of_a_long_part_shares_its_bytes() {
        let part = Part::from(vec![1; 1000]);
        assert_eq!(part.clone().as_ptr(), part.as_ptr());
        assert_eq!(
            Message::from(part.clone()).clone().first().map(|part| part.as_ptr()),
            Some(part.as_ptr())
        );
    }

    /// Memory without unused room is taken over, unless it is only for a few bytes; a short part does not keep unused room.
    #[test]
    fn a_part_takes_memory_over() {
        for (len, room, is_taken) in
            [(16, 0, false), (17, 0, true), (64, 0, true), (17, 1, false), (64, 1, false), (65, 1, true)]
        {
            let mut bytes = Vec::with_capacity(len + room);
            bytes.resize(len, 7);
            let place = bytes.as_ptr();
            let part = Part::from(bytes);
            assert_eq!(part, vec![7; len]);
            assert_eq!(part.as_ptr() == place, is_taken, "{len} bytes, {room} unused");
        }
    }

    /// Rules: MQ-023.
    #[test]
    fn a_part_is_charged_with_its_place_and_what_it_shares() {
        assert_eq!(Part::copy_from(&[0; 64]).retained(), size_of::<Part>());
        assert_eq!(Part::copy_from(&[0; 65]).retained(), size_of::<Part>() + 65);
    }

    #[test]
    fn long_parts_are_shown_in_short() {
        assert_eq!(format!("{:?}", Part::from("a\n")), "\"a\\n\"");
        let long = format!("{:?}", Part::from(vec![b'x'; 100]));
        assert!(long.ends_with("... (100 bytes)") && long.len() < 100, "{long}");
    }
}
