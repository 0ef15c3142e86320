//! Why a tensor description was refused.

use thiserror::Error;

use super::{MAX_DIMS, ProgressUnit};

/// A tensor description that breaks chapter 6.4. A consumer drops the frame, a producer refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// UNKNOWN or an unassigned element type (TP-093).
    #[error("dtype {found} is not assigned")]
    Dtype {
        /// The wire number.
        found: i16,
    },
    /// UNKNOWN or an unlisted order (TP-093).
    #[error("major_order must be 1 (row) or 2 (column), found {found}")]
    MajorOrder {
        /// The wire number.
        found: i16,
    },
    /// An unlisted progress unit (TP-093).
    #[error("progress_unit must be 0 to 2, found {found}")]
    ProgressUnit {
        /// The wire number.
        found: u8,
    },
    /// No axis, or too many (TP-090).
    #[error("a tensor has 1 to {MAX_DIMS} axes, found {found}")]
    Rank {
        /// `ndims`.
        found: usize,
    },
    /// A negative length (TP-091).
    #[error("length of axis {axis} is negative: {found}")]
    NegativeDim {
        /// The axis, from 0.
        axis: usize,
        /// `dims[axis]`.
        found: i32,
    },
    /// A length that an i32 cannot carry.
    #[error("length of axis {axis} is {found}, at most 2147483647 fits the wire")]
    DimTooLarge {
        /// The axis, from 0.
        axis: usize,
        /// The length asked for.
        found: usize,
    },
    /// A negative stride (TP-094).
    #[error("stride of axis {axis} is negative: {found}")]
    NegativeStride {
        /// The axis, from 0.
        axis: usize,
        /// `strides[axis]`.
        found: i32,
    },
    /// As many strides as axes are needed.
    #[error("{found} strides were given for {expected} axes")]
    StrideCount {
        /// Number of axes.
        expected: usize,
        /// Number of strides.
        found: usize,
    },
    /// A stride that would let elements overlap, or that contradicts the order (TP-094, TP-095).
    #[error("stride of axis {axis} is {found} bytes, at least {required} are needed")]
    StrideTooSmall {
        /// The axis, from 0.
        axis: usize,
        /// The stride.
        found: i32,
        /// The smallest legal stride.
        required: u64,
    },
    /// A stride, given or inferred, that an i32 cannot carry (TP-096).
    #[error("stride of axis {axis} would be {required} bytes, at most 2147483647 fits the wire")]
    StrideTooLarge {
        /// The axis, from 0.
        axis: usize,
        /// The stride needed.
        required: u64,
    },
    /// The progress unit needs an axis that does not exist (TP-098).
    #[error("progress in {unit} needs more than {ndims} axes")]
    ProgressRank {
        /// The unit.
        unit: ProgressUnit,
        /// Number of axes.
        ndims: usize,
    },
    /// The progress stride is not the stride of its axis (TP-098).
    #[error("progress_stride_bytes in {unit} must be {expected}, found {found}")]
    ProgressStride {
        /// The unit.
        unit: ProgressUnit,
        /// The resolved stride of the axis.
        expected: u32,
        /// The field.
        found: u32,
    },
}
