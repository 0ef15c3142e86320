//! Walking a strided tensor in row order.
//!
//! The innermost axes that lie gap-free in row order are merged into one run; an odometer steps through the rest. A
//! contiguous row-order tensor is one run, a column-order one yields element by element.

use std::iter::FusedIterator;
use std::ops::Range;

use super::{MAX_DIMS, TensorLayout};

// A range is an index into a payload, and extents use up to 62 bits.
const _: () = assert!(usize::BITS >= 64, "the tensor pool needs a 64-bit target");

/// Iterator over the byte ranges of a tensor; see [`TensorLayout::runs`].
#[derive(Debug, Clone)]
pub struct Runs {
    /// Lengths and strides of the axes the odometer steps through, slowest first.
    dims: [usize; MAX_DIMS],
    strides: [usize; MAX_DIMS],
    axes: usize,
    index: [usize; MAX_DIMS],
    offset: usize,
    run: usize,
    remaining: u64,
}

impl Runs {
    pub(super) fn new(layout: &TensorLayout) -> Self {
        let mut runs = Self {
            dims: [0; MAX_DIMS],
            strides: [0; MAX_DIMS],
            axes: 0,
            index: [0; MAX_DIMS],
            offset: 0,
            run: layout.element_size(),
            remaining: 0,
        };
        if layout.element_count() == 0 {
            return runs;
        }
        let axes =
            || layout.shape().iter().zip(layout.strides()).map(|(&dim, &s)| (dim as usize, s as usize));
        // An axis of length 1 is never stepped along, so its stride does not matter.
        let mut inner = layout.ndims();
        for (dim, stride) in axes().rev() {
            if dim != 1 && stride != runs.run {
                break;
            }
            runs.run *= dim;
            inner -= 1;
        }
        for (dim, stride) in axes().take(inner) {
            if dim != 1 {
                runs.dims[runs.axes] = dim;
                runs.strides[runs.axes] = stride;
                runs.axes += 1;
            }
        }
        runs.remaining = layout.packed_bytes() / runs.run as u64;
        runs
    }

    /// Moves the odometer one step; wraps to the start after the last run.
    fn step(&mut self) {
        for axis in (0..self.axes).rev() {
            self.index[axis] += 1;
            self.offset += self.strides[axis];
            if self.index[axis] < self.dims[axis] {
                return;
            }
            self.offset -= self.strides[axis] * self.dims[axis];
            self.index[axis] = 0;
        }
    }
}

impl Iterator for Runs {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        self.remaining = self.remaining.checked_sub(1)?;
        let range = self.offset..self.offset + self.run;
        self.step();
        Some(range)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining as usize, Some(self.remaining as usize))
    }
}

impl ExactSizeIterator for Runs {}
impl FusedIterator for Runs {}
