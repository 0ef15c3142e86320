//! A validated tensor description with resolved strides.
//!
//! Invariants, for `n` axes with lengths `d`, strides `s` and element size `e`:
//! - `1 <= n <= 8`, `d[i] >= 0`, `e <= s[i] <= i32::MAX`
//! - going from the fastest axis to the slowest, each stride is at least the previous one times
//!   `max(previous length, 1)`: elements do not overlap
//! - entries from `n` on are 0 (TP-092)

use super::{Dtype, MAX_DIMS, MajorOrder, ProgressUnit, RawTensorHeader, Runs, TensorError};

/// Shape, element type, order and byte strides of a tensor whose elements do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorLayout {
    dtype: Dtype,
    order: MajorOrder,
    progress: ProgressUnit,
    ndims: u8,
    dims: [i32; MAX_DIMS],
    strides: [i32; MAX_DIMS],
}

impl TensorLayout {
    /// A tensor without padding between its elements.
    ///
    /// `shape` holds the lengths of 1 to 8 axes; a length of 0 makes an empty tensor.
    ///
    /// # Errors
    /// [`TensorError`] for a bad number of axes, or a length or stride that the wire cannot carry.
    pub fn contiguous(dtype: Dtype, order: MajorOrder, shape: &[usize]) -> Result<Self, TensorError> {
        let too_large = |axis, found| TensorError::DimTooLarge { axis, found };
        let dims = wire_numbers(shape, too_large)?;
        Self::resolve(dtype, order, shape.len(), &dims, &[0; MAX_DIMS])
    }

    /// The same tensor with these byte strides, one per axis; 0 stands for the smallest possible one.
    ///
    /// # Errors
    /// [`TensorError`] when elements would overlap, a stride contradicts the order, or their number is wrong.
    pub fn with_strides(self, strides: &[usize]) -> Result<Self, TensorError> {
        if strides.len() != self.ndims() {
            return Err(TensorError::StrideCount { expected: self.ndims(), found: strides.len() });
        }
        let too_large = |axis, found| TensorError::StrideTooLarge { axis, required: found as u64 };
        let strides = wire_numbers(strides, too_large)?;
        Self::resolve(self.dtype, self.order, self.ndims(), &self.dims, &strides)?
            .with_progress(self.progress)
    }

    /// The same tensor with progress reported in `unit`. The progress stride follows from the strides (TP-098).
    ///
    /// # Errors
    /// [`TensorError::ProgressRank`] when the tensor lacks the axis.
    pub const fn with_progress(mut self, unit: ProgressUnit) -> Result<Self, TensorError> {
        match self.set_progress(unit) {
            Ok(()) => Ok(self),
            Err(error) => Err(error),
        }
    }

    #[inline]
    pub(super) const fn set_progress(&mut self, unit: ProgressUnit) -> Result<(), TensorError> {
        match unit.axis() {
            Some(axis) if axis >= self.ndims() => {
                Err(TensorError::ProgressRank { unit, ndims: self.ndims() })
            }
            _ => {
                self.progress = unit;
                Ok(())
            }
        }
    }

    /// Checks lengths and strides and infers missing strides (TP-090, TP-091, TP-094 to TP-096). Entries of `dims` and
    /// `strides` from `ndims` on are ignored.
    #[inline]
    pub(super) fn resolve(
        dtype: Dtype,
        order: MajorOrder,
        ndims: usize,
        dims: &[i32; MAX_DIMS],
        strides: &[i32; MAX_DIMS],
    ) -> Result<Self, TensorError> {
        if ndims == 0 || ndims > MAX_DIMS {
            return Err(TensorError::Rank { found: ndims });
        }
        let mut layout = Self {
            dtype,
            order,
            progress: ProgressUnit::None,
            ndims: ndims as u8,
            dims: [0; MAX_DIMS],
            strides: [0; MAX_DIMS],
        };
        let mut required = dtype.element_size() as u64;
        let mut resolve_axis = |axis: usize| {
            let dim = dims[axis];
            if dim < 0 {
                return Err(TensorError::NegativeDim { axis, found: dim });
            }
            let stride = resolve_stride(axis, strides[axis], required)?;
            layout.dims[axis] = dim;
            layout.strides[axis] = stride;
            // Both factors are below 2^31, so the product fits 62 bits.
            required = stride as u64 * dim.max(1) as u64;
            Ok(())
        };
        match order {
            MajorOrder::Row => (0..ndims).rev().try_for_each(&mut resolve_axis)?,
            MajorOrder::Column => (0..ndims).try_for_each(&mut resolve_axis)?,
        }
        Ok(layout)
    }

    /// Element type.
    #[must_use]
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Which axis is the fastest.
    #[must_use]
    pub const fn order(&self) -> MajorOrder {
        self.order
    }

    /// Number of axes, 1 to 8.
    #[must_use]
    pub const fn ndims(&self) -> usize {
        self.ndims as usize
    }

    /// Lengths of the axes; none is negative.
    #[must_use]
    pub fn shape(&self) -> &[i32] {
        self.dims.get(..self.ndims()).unwrap_or_default()
    }

    /// Distance in bytes along each axis, resolved: none is smaller than the element size.
    #[must_use]
    pub fn strides(&self) -> &[i32] {
        self.strides.get(..self.ndims()).unwrap_or_default()
    }

    /// Bytes of one element.
    #[must_use]
    pub const fn element_size(&self) -> usize {
        self.dtype.element_size()
    }

    /// Number of elements.
    #[must_use]
    pub fn element_count(&self) -> u64 {
        // At most dims[slowest] * strides[slowest] by the invariants, below 2^62; 0 wherever an axis is empty.
        self.shape().iter().fold(1, |count: u64, &dim| count.saturating_mul(dim as u64))
    }

    /// Bytes of all elements without padding: what [`runs`](Self::runs) yields in total.
    #[must_use]
    pub fn packed_bytes(&self) -> u64 {
        self.element_count().saturating_mul(self.element_size() as u64)
    }

    /// Bytes from the first byte of the first element to the last byte of the last; 0 when any axis is empty (TP-099).
    #[must_use]
    pub fn extent_bytes(&self) -> u64 {
        let mut extent = self.element_size() as u64;
        for (&dim, &stride) in self.shape().iter().zip(self.strides()) {
            if dim == 0 {
                return 0;
            }
            extent += (dim as u64 - 1) * stride as u64;
        }
        extent
    }

    /// Whether a payload of `values_len` bytes holds every element. Only then may a typed view be handed out (TP-099).
    #[must_use]
    pub fn fits(&self, values_len: u64) -> bool {
        self.extent_bytes() <= values_len
    }

    /// Whether there is no padding between elements.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.extent_bytes() == self.packed_bytes()
    }

    /// In which steps progress is reported.
    #[must_use]
    pub const fn progress_unit(&self) -> ProgressUnit {
        self.progress
    }

    /// Bytes of one progress step: the stride of the unit's axis, 0 for no progress (TP-098).
    #[must_use]
    pub const fn progress_stride_bytes(&self) -> u32 {
        match self.progress.axis() {
            Some(axis) => self.strides[axis] as u32,
            None => 0,
        }
    }

    /// The byte ranges that hold the elements, in row order (last axis fastest) whatever the order in memory.
    ///
    /// Concatenated, they are the tensor's values as a contiguous C-order array. Ranges are relative to the start of
    /// the payload, none is empty, all end within [`extent_bytes`](Self::extent_bytes).
    #[must_use]
    pub fn runs(&self) -> Runs {
        Runs::new(self)
    }

    /// The header to write into a slot: strides resolved, entries beyond the axes 0 (TP-092).
    #[must_use]
    pub const fn to_raw(&self) -> RawTensorHeader {
        RawTensorHeader {
            dtype: self.dtype.raw(),
            major_order: self.order.raw(),
            ndims: self.ndims,
            progress_unit: self.progress.raw(),
            progress_stride_bytes: self.progress_stride_bytes(),
            dims: self.dims,
            strides: self.strides,
        }
    }
}

/// The stride of one axis, when at least `required` bytes are needed.
#[inline]
const fn resolve_stride(axis: usize, stride: i32, required: u64) -> Result<i32, TensorError> {
    if stride < 0 {
        return Err(TensorError::NegativeStride { axis, found: stride });
    }
    if stride == 0 {
        if required > i32::MAX as u64 {
            return Err(TensorError::StrideTooLarge { axis, required });
        }
        return Ok(required as i32);
    }
    if (stride as u64) < required {
        return Err(TensorError::StrideTooSmall { axis, found: stride, required });
    }
    Ok(stride)
}

/// Application numbers as the wire's i32, padded with 0 to eight entries.
fn wire_numbers(
    numbers: &[usize],
    too_large: impl Fn(usize, usize) -> TensorError,
) -> Result<[i32; MAX_DIMS], TensorError> {
    let mut wire = [0; MAX_DIMS];
    if numbers.len() > MAX_DIMS {
        return Err(TensorError::Rank { found: numbers.len() });
    }
    for (axis, (slot, &number)) in wire.iter_mut().zip(numbers).enumerate() {
        *slot = i32::try_from(number).map_err(|_| too_large(axis, number))?;
    }
    Ok(wire)
}
