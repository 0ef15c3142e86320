//! The TensorHeader body as bytes (6.4).
//!
//! ```text
//! offset  size  field
//!      0     2  dtype                  i16
//!      2     2  major_order            i16
//!      4     1  ndims                  u8
//!      5     1  pad_align              written 0, ignored
//!      6     1  progress_unit          u8
//!      7     4  progress_stride_bytes  u32
//!     11    32  dims                   i32[8]
//!     43    32  strides                i32[8]
//!     75   109  pad                    written 0, ignored
//! ```
//!
//! Little-endian, nothing aligned (TP-087).

use super::{Dtype, MAX_DIMS, MajorOrder, ProgressUnit, TensorError, TensorLayout};
use crate::layout::bytes::{get, put};

const DTYPE: usize = 0;
const MAJOR_ORDER: usize = 2;
const NDIMS: usize = 4;
const PROGRESS_UNIT: usize = 6;
const PROGRESS_STRIDE: usize = 7;
const DIMS: usize = 11;
const STRIDES: usize = 43;

/// A TensorHeader as the bytes say it, not validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawTensorHeader {
    /// Wire number of the element type.
    pub dtype: i16,
    /// Wire number of the order.
    pub major_order: i16,
    /// Number of axes.
    pub ndims: u8,
    /// Wire number of the progress unit.
    pub progress_unit: u8,
    /// Bytes between two progress steps.
    pub progress_stride_bytes: u32,
    /// Lengths of the axes; entries from `ndims` on have no meaning.
    pub dims: [i32; MAX_DIMS],
    /// Byte distances along the axes, 0 for "contiguous"; entries from `ndims` on have no meaning.
    pub strides: [i32; MAX_DIMS],
}

impl RawTensorHeader {
    /// Length of the body in bytes.
    pub const LEN: usize = 184;

    /// Reads a body; every byte pattern is a raw header.
    #[must_use]
    pub fn decode(body: &[u8; Self::LEN]) -> Self {
        let list = |start: usize| -> [i32; MAX_DIMS] {
            std::array::from_fn(|axis| i32::from_le_bytes(get(body, start + 4 * axis)))
        };
        Self {
            dtype: i16::from_le_bytes(get(body, DTYPE)),
            major_order: i16::from_le_bytes(get(body, MAJOR_ORDER)),
            ndims: body[NDIMS],
            progress_unit: body[PROGRESS_UNIT],
            progress_stride_bytes: u32::from_le_bytes(get(body, PROGRESS_STRIDE)),
            dims: list(DIMS),
            strides: list(STRIDES),
        }
    }

    /// Writes the whole body, padding as zero (TP-097).
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut body = [0; Self::LEN];
        put(&mut body, DTYPE, self.dtype.to_le_bytes());
        put(&mut body, MAJOR_ORDER, self.major_order.to_le_bytes());
        body[NDIMS] = self.ndims;
        body[PROGRESS_UNIT] = self.progress_unit;
        put(&mut body, PROGRESS_STRIDE, self.progress_stride_bytes.to_le_bytes());
        for (axis, (dim, stride)) in self.dims.iter().zip(&self.strides).enumerate() {
            put(&mut body, DIMS + 4 * axis, dim.to_le_bytes());
            put(&mut body, STRIDES + 4 * axis, stride.to_le_bytes());
        }
        body
    }

    /// Checks everything 6.4 demands and resolves the strides (TP-090 to TP-098).
    ///
    /// # Errors
    /// [`TensorError`] names the first field that is wrong.
    #[inline]
    pub fn validate(&self) -> Result<TensorLayout, TensorError> {
        let dtype = Dtype::from_raw(self.dtype).ok_or(TensorError::Dtype { found: self.dtype })?;
        let order = MajorOrder::from_raw(self.major_order)
            .ok_or(TensorError::MajorOrder { found: self.major_order })?;
        let unit = ProgressUnit::from_raw(self.progress_unit)
            .ok_or(TensorError::ProgressUnit { found: self.progress_unit })?;
        let mut layout =
            TensorLayout::resolve(dtype, order, usize::from(self.ndims), &self.dims, &self.strides)?;
        layout.set_progress(unit)?;

        let expected = layout.progress_stride_bytes();
        if unit != ProgressUnit::None && self.progress_stride_bytes != expected {
            return Err(TensorError::ProgressStride { unit, expected, found: self.progress_stride_bytes });
        }
        Ok(layout)
    }
}
