//! What a tensor looks like: element type, axes, strides (chapters 2.3 and 6.4).
//!
//! [`RawTensorHeader`] is what the bytes of a slot say, whatever that is. [`TensorLayout`] is a description that was
//! checked: every stride is resolved, no two elements overlap, the extent fits 62 bits. The only way from one to the
//! other is [`RawTensorHeader::validate`], so code that holds a `TensorLayout` needs no further checks except that the
//! extent lies within the bytes at hand ([`TensorLayout::fits`]).
//!
//! Nothing here allocates; all types are plain copies.

mod dtype;
mod error;
mod layout;
mod raw;
mod runs;

pub use dtype::{Dtype, MajorOrder, ParseDtypeError, ProgressUnit};
pub use error::TensorError;
pub use layout::TensorLayout;
pub use raw::RawTensorHeader;
pub use runs::Runs;

/// Most axes a tensor can have (`max_dims`).
pub const MAX_DIMS: usize = 8;

#[cfg(test)]
mod tests;
