//! `tidegate tensor pub --align`: rows of a frame at multiples of so many bytes.

use tidegate::tensor::tensor::{MajorOrder, TensorError, TensorLayout};

use crate::output::Stop;

/// Rows moved apart to multiples of an alignment.
pub(super) struct Padding {
    layout: TensorLayout,
    line: usize,
    pitch: usize,
    buffer: Vec<u8>,
}

impl Padding {
    pub(super) fn new(packed: &TensorLayout, align: u32) -> Result<Self, Stop> {
        let usage = |error: TensorError| Stop::usage(format!("--align {align}: {error}"));
        let shape = packed.shape();
        let (fastest, next) = match packed.order() {
            MajorOrder::Row => (shape.len() - 1, shape.len().checked_sub(2)),
            MajorOrder::Column => (0, (shape.len() > 1).then_some(1)),
        };
        let length = shape.get(fastest).copied().unwrap_or(0);
        let line = usize::try_from(length).unwrap_or(0) * packed.element_size();
        let pitch = line.next_multiple_of(align as usize);
        let layout = match next {
            Some(next) if pitch != line => {
                let mut strides = vec![0; shape.len()];
                strides[next] = pitch;
                packed.with_strides(&strides).map_err(usage)?
            }
            _ => *packed,
        };
        Ok(Self { layout, line, pitch, buffer: Vec::new() })
    }

    /// What the padded frames look like.
    pub(super) fn layout(&self) -> TensorLayout {
        self.layout
    }

    /// Bytes of a padded frame.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.layout.extent_bytes()).unwrap_or(usize::MAX)
    }

    /// A packed frame with its rows moved apart.
    pub(super) fn apply<'a>(&'a mut self, packed: &'a [u8]) -> &'a [u8] {
        if self.layout.is_contiguous() {
            return packed;
        }
        self.buffer.resize(self.len(), 0);
        for (row, line) in packed.chunks_exact(self.line.max(1)).enumerate() {
            let start = row * self.pitch;
            if let Some(place) = self.buffer.get_mut(start..start + line.len()) {
                place.copy_from_slice(line);
            }
        }
        &self.buffer
    }
}
