//! Frames of an `.npy` array.

use super::header::{MAX_TEXT, NpyHeader, NpyHeaderError};
use crate::media::input::Input;
use crate::media::signature::NPY;
use crate::media::{Frame, FrameSource, MediaError, Part, frame_bytes};
use crate::tensor::tensor::{MajorOrder, TensorLayout};

/// Largest Fortran-order array whose frames are taken apart in memory.
pub const MAX_INTERLEAVED_BYTES: u64 = 256 << 20;

/// Frames of an array. Its header has been checked against the tensor pool and, for a regular file, against its length.
pub(in crate::media) struct NpySource {
    input: Input,
    layout: TensorLayout,
    /// Where the elements start.
    start: u64,
    /// Bytes of all elements.
    array_bytes: usize,
    frame_bytes: usize,
    frames: usize,
    next: usize,
    buffer: Vec<u8>,
    /// The whole array, when its frames are interleaved; filled by the first frame.
    interleaved: Option<Vec<u8>>,
}

impl NpySource {
    pub(in crate::media) fn open(mut input: Input, single_tensor: bool) -> Result<Self, MediaError> {
        let text = header_text(&mut input)?;
        let start = input.position();
        let name = input.name();
        let refuse = |source| MediaError::NpyHeader { name: name.to_owned(), source };

        let header = NpyHeader::parse(&text).map_err(refuse)?;
        let bytes = header.array_bytes().map_err(refuse)?;
        let array_bytes = usize::try_from(bytes).map_err(|_| refuse(NpyHeaderError::TooLarge))?;
        let (frames, axes) = match header.shape.as_slice() {
            [] => return Err(refuse(NpyHeaderError::NoAxis)),
            [frames, axes @ ..] if !axes.is_empty() && !single_tensor => (*frames, axes),
            axes => (1, axes),
        };
        if bytes == 0 {
            return Err(MediaError::NoElements { name: name.to_owned() });
        }
        // No axis is 0, so none is larger than the whole array.
        let frames = usize::try_from(frames).map_err(|_| refuse(NpyHeaderError::TooLarge))?;
        let interleaved = header.order == MajorOrder::Column && frames > 1;
        let layout = frame_layout(name, &header, axes)?;
        let frame_bytes = frame_bytes(name, &layout)?;
        if interleaved && bytes > MAX_INTERLEAVED_BYTES {
            let (name, max) = (input.into_name(), MAX_INTERLEAVED_BYTES);
            return Err(MediaError::InterleavedTooLarge { name, bytes, max });
        }

        let end = start.checked_add(bytes).ok_or_else(|| refuse(NpyHeaderError::TooLarge))?;
        match input.len() {
            Some(len) if len < end => return Err(input.truncated(Part::Array, end, len)),
            Some(len) if len > end => {
                return Err(MediaError::Trailing { name: input.into_name(), expected: end });
            }
            _ => {}
        }
        let interleaved = interleaved.then(Vec::new);
        Ok(Self {
            input,
            layout,
            start,
            array_bytes,
            frame_bytes,
            frames,
            next: 0,
            buffer: Vec::new(),
            interleaved,
        })
    }

    /// Bytes of memory reserved for elements.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.interleaved.as_ref().map_or(0, Vec::capacity)
    }

    /// The first frame brings the whole array into memory; every frame is then picked out of it.
    fn pick_frame(&mut self) -> Result<(), MediaError> {
        let Some(array) = &mut self.interleaved else {
            return Ok(());
        };
        if array.is_empty() {
            self.input.fill(array, self.array_bytes, Part::Array)?;
        }
        let size = self.layout.element_size();
        self.buffer.clear();
        for column in array.chunks_exact(size * self.frames) {
            self.buffer
                .extend_from_slice(column.get(self.next * size..(self.next + 1) * size).unwrap_or_default());
        }
        Ok(())
    }
}

impl FrameSource for NpySource {
    fn layout(&self) -> &TensorLayout {
        &self.layout
    }

    fn next_frame(&mut self) -> Result<Option<Frame<'_>>, MediaError> {
        if self.next == self.frames {
            let expected = self.start + self.array_bytes as u64;
            return match self.input.at_end()? {
                true => Ok(None),
                false => Err(MediaError::Trailing { name: self.input.name().to_owned(), expected }),
            };
        }
        if self.interleaved.is_some() {
            self.pick_frame()?;
        } else {
            self.input.fill(&mut self.buffer, self.frame_bytes, Part::Frame(self.next as u64))?;
        }
        self.next += 1;
        Ok(Some(Frame { layout: &self.layout, bytes: &self.buffer }))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        // An array in memory can be played again even when it came from a pipe.
        if self.interleaved.as_ref().is_none_or(Vec::is_empty) {
            self.input.seek(self.start)?;
        }
        self.next = 0;
        Ok(())
    }
}

/// Reads up to the end of the header text and returns the text.
fn header_text(input: &mut Input) -> Result<Vec<u8>, MediaError> {
    let mut bytes = Vec::new();
    input.fill(&mut bytes, NPY.len() + 2, Part::Header)?;
    let refuse = |input: &Input, source| MediaError::NpyHeader { name: input.name().to_owned(), source };
    let width = match bytes.get(NPY.len()..) {
        Some([1, 0]) => 2,
        Some([2 | 3, 0]) => 4,
        Some([major, minor]) => {
            return Err(refuse(input, NpyHeaderError::Version { major: *major, minor: *minor }));
        }
        _ => return Err(refuse(input, NpyHeaderError::Version { major: 0, minor: 0 })),
    };
    input.fill(&mut bytes, width, Part::Header)?;
    let len = bytes.iter().rev().fold(0, |len: u64, &byte| len << 8 | u64::from(byte));
    match usize::try_from(len) {
        Ok(len) if len <= MAX_TEXT => input.fill(&mut bytes, len, Part::Header)?,
        _ => return Err(refuse(input, NpyHeaderError::TooLong { found: len, max: MAX_TEXT })),
    }
    Ok(bytes)
}

fn frame_layout(name: &str, header: &NpyHeader, axes: &[u64]) -> Result<TensorLayout, MediaError> {
    // A length beyond usize cannot be one of i32 either; the largest usize is refused as such.
    let shape: Vec<usize> = axes.iter().map(|&axis| usize::try_from(axis).unwrap_or(usize::MAX)).collect();
    // With one axis both orders are the same; row order is what readers expect.
    let order = if shape.len() == 1 { MajorOrder::Row } else { header.order };
    TensorLayout::contiguous(header.dtype, order, &shape)
        .map_err(|source| MediaError::Tensor { name: name.to_owned(), source })
}
