//! One frame: writing it into a slot, reading it from a slot (chapter 7).
//!
//! ```text
//! producer                                   consumer
//! fence tested                               descriptor S
//! commit word := in progress (S)             commit word == committed (S)?   else late
//! payload, slot header                       slot header, payload
//! commit word := committed (S)               commit word unchanged?          else late
//! descriptor S -->
//! ```
//!
//! Nothing here sends or receives messages.

mod claim;
mod fence;
#[cfg(test)]
mod fixture;
mod order;
mod reader;
mod sequence;
mod writer;

pub use claim::Claim;
pub use fence::{Fence, Permit};
pub use reader::{EpochStats, FrameDrop, FrameView, InvalidFrame, MappedEpoch, Overwritten, TypedViewError};
pub use sequence::{SeqStep, SeqTracker};
pub(crate) use writer::PutError;
pub use writer::{Announcement, ClaimError, CommitError, FlushHook, FrameMeta, RingWriter, WriteOptions};
