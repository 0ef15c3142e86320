//! numpy's `.npy` files, format versions 1.0, 2.0 and 3.0, read and written.
//!
//! ```text
//! offset  bytes  content
//!      0      6  93 'N' 'U' 'M' 'P' 'Y'
//!      6      2  major and minor version
//!      8      2  length of the header text, u16 (1.0); u32 in 4 bytes (2.0, 3.0)
//!   then         header text: {'descr': '<f4', 'fortran_order': False, 'shape': (30, 200, 320), }, spaces, newline
//!   then         the elements, without padding
//! ```
//!
//! Reading. An array with several axes is frames along the first one. In C order they lie one after the other and are
//! streamed. In Fortran order each frame is spread over the whole array, so the array is held in memory, up to
//! [`MAX_INTERLEAVED_BYTES`], and its frames come out in column order. A whole Fortran-order array is one tensor in
//! column order and needs no rearranging.
//!
//! The header is read by a parser of our own. The crates `npyz` 0.8 and `ndarray-npy` 0.10 allocate whatever the length
//! field says, up to 4 GiB, before a byte of it is there; both hand the text to `py_literal`, whose running time doubles
//! with every nested bracket (20 of them take minutes); and `npyz` multiplies axes without a check. The text of an array
//! that a tensor can carry is short and flat, and so is what reads it.

mod header;
mod source;
mod writer;

pub use header::{DtypeReason, NpyHeaderError};
pub use source::MAX_INTERLEAVED_BYTES;
pub use writer::NpyWriter;

pub(super) use source::NpySource;

#[cfg(test)]
mod tests;
