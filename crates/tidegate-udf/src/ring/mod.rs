//! One ring between two processes: a [`Publisher`] on one side, a [`Reader`] on the other (chapters 4 and 5 of the sheet).
//!
//! Both rings of a session are this one: each side owns a segment that it writes and reads the segment of the other. The
//! publisher's segment holds the frames and the head, the reader's what was consumed and how far the publisher may go.
//!
//! # Invariants
//!
//! - `consumed <= head <= grant <= consumed + capacity`, and the same for batches (VX-300 to VX-302).
//! - Nothing below `head` changes before it was consumed. The bytes and the PUBLISHED bit are there before `head` moves over
//!   them: who loads `head` with Acquire sees them all (VX-210).
//! - Every word of the other side is loaded once, compared with the last one and with the own words, and a peer that breaks
//!   a rule ends the session ([`Violation`], VX-121, VX-303). A reader never waits for a frame that is below `head` (I7).

#[cfg(test)]
mod plain;
mod publish;
mod read;
mod words;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub use publish::{PublishError, Publisher};
pub use read::{Reader, Taken};
pub use words::{Access, Orders, Own, Peer, Shipped};

use thiserror::Error;
use tidegate_shm::region::AccessError;

use crate::wire::frame::FrameFault;

/// What no correct peer does. The session ends with PROTOCOL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A word went back or broke its bound.
    #[error("the peer's word {word} is {found}, allowed is {low} to {high}")]
    Word {
        /// Which word.
        word: &'static str,
        /// What it holds.
        found: u64,
        /// Least value it may have.
        low: u64,
        /// Greatest value it may have.
        high: u64,
    },
    /// A position that is not on a frame boundary.
    #[error("the peer's word {word} is {found}, not a multiple of 128")]
    Unaligned {
        /// Which word.
        word: &'static str,
        /// What it holds.
        found: u64,
    },
    /// A frame below the head that is not complete.
    #[error("the frame at {position} is below the head and not published")]
    Unpublished {
        /// Where it is.
        position: u64,
    },
    /// A header that is wrong.
    #[error("the frame at {position}: {fault}")]
    Frame {
        /// Where it is.
        position: u64,
        /// What is wrong.
        fault: FrameFault,
    },
    /// A payload that is not what its checksum says.
    #[error("the payload of the frame at {position} has CRC {found:#x}, its header says {expected:#x}")]
    Payload {
        /// Where it is.
        position: u64,
        /// CRC of the copy.
        found: u32,
        /// CRC of the header.
        expected: u32,
    },
    /// This side's mapping does not have the ring; a defect, reported as an end of the session.
    #[error("a place of the ring is not mapped")]
    Access(#[from] AccessError),
}

/// A value that has to lie in a range.
fn within(word: &'static str, found: u64, low: u64, high: u64) -> Result<u64, Violation> {
    if (low..=high).contains(&found) { Ok(found) } else { Err(Violation::Word { word, found, low, high }) }
}

fn aligned(word: &'static str, found: u64) -> Result<(), Violation> {
    if found.is_multiple_of(u64::from(crate::wire::frame::FRAME_ALIGN)) {
        return Ok(());
    }
    Err(Violation::Unaligned { word, found })
}
