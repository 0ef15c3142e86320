//! A block for tests.

use crate::layout::{BlockSpec, ChannelName};

/// Eight slots of 4 KiB, untyped.
pub(super) fn spec(channel: &str) -> BlockSpec {
    BlockSpec::ring(ChannelName::new(channel).unwrap(), 8, 4096)
}
