//! Putting messages together from fragments (TP-020).
//!
//! A message longer than one fragment is written as consecutive frames of one term: the first flagged `BEGIN`, the last
//! `END`. A frame that does not continue what was collected for its session is counted and discarded, with what was
//! collected. That happens when a subscriber joins in the middle of a message, or a network stream loses frames.
//!
//! Every message is copied, also a whole one, into memory of this process: its bytes lie in a log that its publisher can
//! still write.
//!
//! This is the pure part: it sees headers and a way to copy, no C.

use std::collections::HashMap;

/// Flag of the first frame of a message.
pub(crate) const BEGIN: u8 = 0x80;
/// Flag of the last frame of a message.
pub(crate) const END: u8 = 0x40;

/// Longest message Aeron sends, in bytes.
const MAX_MESSAGE_LENGTH: usize = 16 << 20;
/// Bytes kept for the next message when a longer one is done.
const RETAINED_LENGTH: usize = 256 << 10;
/// Sessions kept before those that left are looked for.
const MIN_SESSIONS: usize = 16;

const HEADER_LENGTH: i64 = 32;
const FRAME_ALIGNMENT: i64 = 32;

/// What a frame's header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHeader {
    pub(crate) flags: u8,
    pub(crate) session_id: i32,
    pub(crate) term_id: i32,
    pub(crate) term_offset: i32,
}

/// Collects the fragments of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    whole: Vec<u8>,
    sessions: HashMap<i32, Partial>,
    prune_at: usize,
    discarded: u64,
}

/// A message that has begun, or, when `next` is `None`, room for one.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    /// Term id and offset of the frame that continues the message.
    next: Option<(i32, i64)>,
}

impl Assembler {
    /// Takes a frame of `length` payload bytes, which `copy` appends to a buffer, and shows the message it completes.
    pub(crate) fn accept(
        &mut self,
        header: &FrameHeader,
        length: usize,
        copy: impl FnOnce(&mut Vec<u8>),
        show: impl FnOnce(&[u8]),
    ) {
        if header.flags & (BEGIN | END) == (BEGIN | END) {
            self.whole.clear();
            copy(&mut self.whole);
            show(&self.whole);
            shrink(&mut self.whole);
            return;
        }
        if header.flags & BEGIN != 0 {
            let partial = self.sessions.entry(header.session_id).or_default();
            if partial.next.is_some() {
                self.discarded += 1;
            }
            partial.bytes.clear();
            copy(&mut partial.bytes);
            partial.next = Some(following(header, length));
            return;
        }
        let expected = Some((header.term_id, i64::from(header.term_offset)));
        let partial = self.sessions.get_mut(&header.session_id).filter(|partial| partial.next.is_some());
        let Some(partial) = partial else {
            self.discarded += 1;
            return;
        };
        if partial.next != expected || partial.bytes.len().saturating_add(length) > MAX_MESSAGE_LENGTH {
            self.discarded += 1;
            partial.next = None;
            return;
        }
        copy(&mut partial.bytes);
        if header.flags & END == 0 {
            partial.next = Some(following(header, length));
            return;
        }
        partial.next = None;
        show(&partial.bytes);
        shrink(&mut partial.bytes);
    }

    /// Frames, and messages begun, that could not be used.
    pub(crate) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Whether enough sessions have been seen to look for those that left.
    pub(crate) fn wants_pruning(&self) -> bool {
        self.sessions.len() > self.prune_at.max(MIN_SESSIONS)
    }

    /// Forgets all sessions but those in `live`, and asks again when their number has doubled.
    pub(crate) fn retain(&mut self, live: &[i32]) {
        self.sessions.retain(|session_id, _| live.contains(session_id));
        self.prune_at = self.sessions.len().saturating_mul(2);
    }
}

/// Where the frame after this one begins.
fn following(header: &FrameHeader, length: usize) -> (i32, i64) {
    let frame = HEADER_LENGTH + i64::try_from(length).unwrap_or(i64::MAX / 2);
    let aligned = (frame + FRAME_ALIGNMENT - 1) & -FRAME_ALIGNMENT;
    (header.term_id, i64::from(header.term_offset) + aligned)
}

fn shrink(bytes: &mut Vec<u8>) {
    if bytes.capacity() > RETAINED_LENGTH {
        bytes.clear();
        bytes.shrink_to(RETAINED_LENGTH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, session_id: i32, term_id: i32, term_offset: i32) -> FrameHeader {
        FrameHeader { flags, session_id, term_id, term_offset }
    }

    fn feed(assembler: &mut Assembler, header: FrameHeader, payload: &[u8]) -> Option<Vec<u8>> {
        let mut shown = None;
        let copy = |bytes: &mut Vec<u8>| bytes.extend_from_slice(payload);
        assembler.accept(&header, payload.len(), copy, |message| shown = Some(message.to_vec()));
        shown
    }

    #[test]
    fn a_whole_message_is_shown_at_once() {
        let mut assembler = Assembler::default();
        assert_eq!(feed(&mut assembler, header(BEGIN | END, 1, 0, 0), b"abc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(feed(&mut assembler, header(BEGIN | END, 1, 0, 64), b"").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn interleaved_sessions_are_kept_apart() {
        let mut assembler = Assembler::default();
        assert_eq!(feed(&mut assembler, header(BEGIN, 1, 0, 0), &[1; 32]), None);
        assert_eq!(feed(&mut assembler, header(BEGIN, 2, 7, 128), &[2; 40]), None);
        assert_eq!(feed(&mut assembler, header(0, 1, 0, 64), &[3; 32]), None);
        assert_eq!(feed(&mut assembler, header(END, 2, 7, 224), b"x").map(|m| m.len()), Some(41));
        assert_eq!(feed(&mut assembler, header(END, 1, 0, 128), b"y").map(|m| m.len()), Some(65));
        assert_eq!(assembler.discarded(), 0);
    }

    #[test]
    fn frames_that_continue_nothing_are_counted_and_dropped() {
        let mut assembler = Assembler::default();
        assert_eq!(feed(&mut assembler, header(END, 1, 0, 64), b"tail"), None);
        assert_eq!(assembler.discarded(), 1);
        // A gap, then the rest of the broken message, then a good one.
        feed(&mut assembler, header(BEGIN, 1, 0, 0), &[0; 32]);
        assert_eq!(feed(&mut assembler, header(END, 1, 0, 128), b"tail"), None);
        assert_eq!(feed(&mut assembler, header(END, 1, 0, 64), b"tail"), None);
        assert_eq!(assembler.discarded(), 3);
        feed(&mut assembler, header(BEGIN, 1, 0, 256), &[0; 32]);
        assert_eq!(feed(&mut assembler, header(END, 1, 0, 320), b"t").map(|m| m.len()), Some(33));
    }

    #[test]
    fn the_same_offset_in_another_term_does_not_continue_a_message() {
        let mut assembler = Assembler::default();
        feed(&mut assembler, header(BEGIN, 1, 5, 0), &[0; 32]);
        assert_eq!(feed(&mut assembler, header(END, 1, 8, 64), b"tail"), None);
    }

    #[test]
    fn a_message_never_grows_past_the_longest_one() {
        let mut assembler = Assembler::default();
        let chunk = vec![0; 8 << 20];
        let step = (8 << 20) + 32;
        feed(&mut assembler, header(BEGIN, 1, 0, 0), &chunk);
        feed(&mut assembler, header(0, 1, 0, step), &chunk);
        assert_eq!(feed(&mut assembler, header(END, 1, 0, 2 * step), b"x"), None);
        assert_eq!(assembler.discarded(), 1);
    }

    #[test]
    fn sessions_that_left_are_forgotten() {
        let mut assembler = Assembler::default();
        for session in 0..17 {
            feed(&mut assembler, header(BEGIN, session, 0, 0), &[0; 32]);
        }
        assert!(assembler.wants_pruning());
        assembler.retain(&[3]);
        assert!(!assembler.wants_pruning());
        assert_eq!(feed(&mut assembler, header(END, 4, 0, 64), b"t"), None);
        assert_eq!(feed(&mut assembler, header(END, 3, 0, 64), b"t").map(|m| m.len()), Some(33));
    }

    #[test]
    fn a_long_message_does_not_keep_its_memory() {
        let mut assembler = Assembler::default();
        feed(&mut assembler, header(BEGIN | END, 1, 0, 0), &vec![0; 4 << 20]);
        assert!(assembler.whole.capacity() <= RETAINED_LENGTH);
    }
}
