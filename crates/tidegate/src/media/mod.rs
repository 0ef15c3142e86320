//! Frames from files and pipes, and into files.
//!
//! | format | frames | recognised by |
//! |---|---|---|
//! | `.npy` | the array along its first axis; the whole array when it has one axis or [`OpenOptions::single_tensor`] is set | `\x93NUMPY` |
//! | `.y4m` | one uint8 or uint16 tensor per picture, shapes in [`y4m`] | `YUV4MPEG2` |
//! | raw | one after the other, as [`OpenOptions::raw`] describes them | nothing: it must be asked for |
//!
//! A source never holds more than one frame (one exception: [`npy`], arrays in Fortran order), never allocates more than
//! about twice the bytes that are really there, whatever a header claims, and never panics on any input. A file that
//! ends early, goes on after its end, or is not what it says is an error that names the file.

use std::path::Path;

mod error;
mod input;
pub mod npy;
mod raw;
mod signature;
pub mod y4m;

pub use error::{MediaError, Part};

use crate::tensor::tensor::TensorLayout;
use input::Input;
use signature::Format;

/// Most bytes of one frame: the largest stride of a payload pool, a multiple of 64 that fits 32 bits.
pub const MAX_FRAME_BYTES: u64 = u32::MAX as u64 - 63;

/// Frames of one type and shape, one after the other.
pub trait FrameSource: Send {
    /// What every frame of this source looks like. Frames have no padding: their bytes are
    /// [`TensorLayout::packed_bytes`] long.
    fn layout(&self) -> &TensorLayout;

    /// The next frame, or `None` after the last. After an error the source is finished.
    ///
    /// # Errors
    /// [`MediaError`] when the bytes cannot be read or are not what the header promised.
    fn next_frame(&mut self) -> Result<Option<Frame<'_>>, MediaError>;

    /// Goes back to the first frame.
    ///
    /// # Errors
    /// [`MediaError::NotRewindable`] for pipes and standard input; [`MediaError::Read`] when the system refuses.
    fn rewind(&mut self) -> Result<(), MediaError>;
}

/// One frame, valid until the next call on its source.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Type, shape and order.
    pub layout: &'a TensorLayout,
    /// The elements in memory order of the layout, little-endian, without padding.
    pub bytes: &'a [u8],
}

/// How to read an input.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Keep an `.npy` array whole instead of taking frames along its first axis.
    pub single_tensor: bool,
    /// The input has no header; it is frames of this layout back to back.
    pub raw: Option<TensorLayout>,
}

/// Opens a file, or standard input when `path` is `-`.
///
/// # Errors
/// [`MediaError`] when it cannot be opened, is of no known format, contradicts `options`, or has a header that is wrong.
pub fn open(path: &Path, options: OpenOptions) -> Result<Box<dyn FrameSource>, MediaError> {
    let input = if path.as_os_str() == "-" {
        Input::stream("standard input", Box::new(std::io::stdin()))
    } else {
        Input::file(path)?
    };
    open_input(input, options)
}

/// Reads from any byte stream; `name` stands for it in errors.
///
/// # Errors
/// As [`open`].
pub fn open_stream(
    name: &str,
    stream: Box<dyn std::io::Read + Send>,
    options: OpenOptions,
) -> Result<Box<dyn FrameSource>, MediaError> {
    open_input(Input::stream(name, stream), options)
}

fn open_input(mut input: Input, options: OpenOptions) -> Result<Box<dyn FrameSource>, MediaError> {
    let format = signature::detect(&mut input)?;
    if let Some(layout) = options.raw {
        return match format {
            Some(format) => Err(MediaError::RawNotWanted { name: input.into_name(), format: format.name() }),
            None => Ok(Box::new(raw::RawSource::open(input, layout)?)),
        };
    }
    match format {
        Some(Format::Npy) => Ok(Box::new(npy::NpySource::open(input, options.single_tensor)?)),
        Some(Format::Y4m) if options.single_tensor => {
            Err(MediaError::SingleNotWanted { name: input.into_name(), format: Format::Y4m.name() })
        }
        Some(Format::Y4m) => Ok(Box::new(y4m::Y4mSource::open(input)?)),
        None => Err(signature::unknown(input)?),
    }
}

/// Bytes of one frame of `layout`, checked against what the tensor pool can carry and against 0.
fn frame_bytes(name: &str, layout: &TensorLayout) -> Result<usize, MediaError> {
    let bytes = layout.packed_bytes();
    if bytes == 0 {
        return Err(MediaError::NoElements { name: name.to_owned() });
    }
    match usize::try_from(bytes) {
        Ok(len) if bytes <= MAX_FRAME_BYTES => Ok(len),
        _ => Err(MediaError::FrameTooLarge { name: name.to_owned(), bytes, max: MAX_FRAME_BYTES }),
    }
}

#[cfg(test)]
mod tests;
