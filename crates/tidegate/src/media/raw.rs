//! Frames without any header, back to back.

use super::input::Input;
use super::{Frame, FrameSource, MediaError, Part, frame_bytes};
use crate::tensor::tensor::TensorLayout;

/// Frames of a layout the user gave.
pub(super) struct RawSource {
    input: Input,
    layout: TensorLayout,
    frame_bytes: usize,
    next: u64,
    buffer: Vec<u8>,
}

impl RawSource {
    /// Refuses a regular file whose length is not a whole number of frames before the first one is handed out.
    pub(super) fn open(input: Input, layout: TensorLayout) -> Result<Self, MediaError> {
        let frame_bytes = frame_bytes(input.name(), &layout)?;
        if let Some(len) = input.len() {
            let frame = len / frame_bytes as u64;
            let rest = len % frame_bytes as u64;
            if rest != 0 {
                let expected = (len - rest).saturating_add(frame_bytes as u64);
                return Err(input.truncated(Part::RawFrame(frame), expected, len));
            }
        }
        Ok(Self { input, layout, frame_bytes, next: 0, buffer: Vec::new() })
    }
}

impl FrameSource for RawSource {
    fn layout(&self) -> &TensorLayout {
        &self.layout
    }

    fn next_frame(&mut self) -> Result<Option<Frame<'_>>, MediaError> {
        if !self.input.fill_or_end(&mut self.buffer, self.frame_bytes, Part::RawFrame(self.next))? {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(Frame { layout: &self.layout, bytes: &self.buffer }))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        self.input.seek(0)?;
        self.next = 0;
        Ok(())
    }
}
