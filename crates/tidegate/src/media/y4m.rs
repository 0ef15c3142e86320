//! YUV4MPEG2 video (`.y4m`), as ffmpeg and the codec tools write it.
//!
//! ```text
//! "YUV4MPEG2" *( " " parameter ) "\n"          W320 H200 F25:1 C420jpeg ...
//! *( "FRAME" *( " " parameter ) "\n" planes )   all of Y, then all of Cb, then all of Cr
//! ```
//!
//! One picture is one tensor, planes in file order, samples untouched:
//!
//! | colour space (`C`) | shape | rows of the tensor |
//! |---|---|---|
//! | `mono` | `[H, W]` | luma |
//! | `420`, `420jpeg`, `420mpeg2`, `420paldv`, or none given | `[H*3/2, W]` | H of luma; then Cb, then Cr, two chroma rows of W/2 in each tensor row |
//! | `411` | `[H*3/2, W]` | H of luma; then Cb, then Cr, four chroma rows of W/4 in each tensor row |
//! | `422` | `[H*2, W]` | H of luma; then Cb, then Cr, two chroma rows of W/2 in each tensor row |
//! | `444` | `[3, H, W]` | one plane per first index |
//! | `444alpha` | `[4, H, W]` | the same, and alpha |
//!
//! Element type uint8; with a depth, as in `420p10` or `mono12` (9 to 16 bits), uint16 with the value in the low bits.
//! Colour spaces that halve an axis need it to be even: anything else has no rectangular shape. Frame rate, aspect and
//! interlacing are not passed on.
//!
//! The parser is our own because the crate `y4m` 0.8 gives one and the same answer for a video that ends and one that is
//! cut inside a picture, computes plane sizes without overflow checks, and allocates a picture before a byte of it is
//! there.

use thiserror::Error;

use super::input::Input;
use super::signature::Y4M;
use super::{Frame, FrameSource, MediaError, Part, frame_bytes};
use crate::tensor::tensor::{Dtype, MajorOrder, TensorLayout};

/// Longest header line, of the file or of a picture.
const MAX_LINE: usize = 4096;

/// What is wrong with the header of a video or of one of its pictures.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Y4mHeaderError {
    /// A header line without an end.
    #[error("{part} is not closed by a newline within {MAX_LINE} bytes; this is not a .y4m video")]
    Line {
        /// Which header.
        part: Part,
    },
    /// Something other than a picture.
    #[error("{part} does not start with FRAME; the video is damaged, get it again from where it came")]
    NotFrame {
        /// Which header.
        part: Part,
    },
    /// No usable width or height.
    #[error("the header has no valid {parameter} (a number above 0); make the video again")]
    Size {
        /// `W` or `H`.
        parameter: char,
    },
    /// A colour space that has no tensor shape.
    #[error(
        "colour space `{found}` is not supported; convert with ffmpeg -pix_fmt gray, yuv420p, yuv422p or yuv444p"
    )]
    ColourSpace {
        /// Value of the parameter `C`.
        found: String,
    },
    /// A size that the colour space cannot divide.
    #[error(
        "{width} x {height} pixels in colour space `{colour_space}` make no rectangle; crop to multiples of \
         {across} x {down}"
    )]
    Odd {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Value of the parameter `C`.
        colour_space: String,
        /// The width must be a multiple of this.
        across: usize,
        /// The height must be a multiple of this.
        down: usize,
    },
}

/// Pictures of a video.
pub(super) struct Y4mSource {
    input: Input,
    layout: TensorLayout,
    /// Where the first picture's header starts.
    start: u64,
    frame_bytes: usize,
    next: u64,
    line: Vec<u8>,
    buffer: Vec<u8>,
}

impl Y4mSource {
    pub(super) fn open(mut input: Input) -> Result<Self, MediaError> {
        let mut line = Vec::new();
        read_line(&mut input, &mut line, Part::Header)?;
        let refuse = |source| MediaError::Y4mHeader { name: input.name().to_owned(), source };
        let picture = Picture::parse(&line).map_err(refuse)?;
        let (dtype, shape) = picture.tensor().map_err(refuse)?;
        let layout = TensorLayout::contiguous(dtype, MajorOrder::Row, &shape)
            .map_err(|source| MediaError::Tensor { name: input.name().to_owned(), source })?;
        let frame_bytes = frame_bytes(input.name(), &layout)?;
        let start = input.position();
        Ok(Self { input, layout, start, frame_bytes, next: 0, line, buffer: Vec::new() })
    }
}

impl FrameSource for Y4mSource {
    fn layout(&self) -> &TensorLayout {
        &self.layout
    }

    fn next_frame(&mut self) -> Result<Option<Frame<'_>>, MediaError> {
        if self.input.at_end()? {
            return Ok(None);
        }
        let part = Part::FrameHeader(self.next);
        read_line(&mut self.input, &mut self.line, part)?;
        match self.line.strip_prefix(b"FRAME") {
            Some([b'\n' | b' ', ..]) => {}
            _ => {
                let name = self.input.name().to_owned();
                return Err(MediaError::Y4mHeader { name, source: Y4mHeaderError::NotFrame { part } });
            }
        }
        self.input.fill(&mut self.buffer, self.frame_bytes, Part::Frame(self.next))?;
        self.next += 1;
        Ok(Some(Frame { layout: &self.layout, bytes: &self.buffer }))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        self.input.seek(self.start)?;
        self.next = 0;
        Ok(())
    }
}

/// What the header says about pictures.
struct Picture {
    width: usize,
    height: usize,
    colour_space: String,
}

impl Picture {
    fn parse(line: &[u8]) -> Result<Self, Y4mHeaderError> {
        let parameters = line.get(Y4M.len()..).unwrap_or_default().trim_ascii_end();
        let (mut width, mut height, mut colour_space) = (None, None, None);
        for parameter in parameters.split(|&byte| byte == b' ') {
            match parameter {
                [b'W', value @ ..] => width = number(value),
                [b'H', value @ ..] => height = number(value),
                [b'C', value @ ..] => colour_space = Some(value.escape_ascii().to_string()),
                _ => {}
            }
        }
        Ok(Self {
            width: width.ok_or(Y4mHeaderError::Size { parameter: 'W' })?,
            height: height.ok_or(Y4mHeaderError::Size { parameter: 'H' })?,
            colour_space: colour_space.unwrap_or_else(|| "420".to_owned()),
        })
    }

    /// Element type and shape, as in the table of the module.
    fn tensor(&self) -> Result<(Dtype, Vec<usize>), Y4mHeaderError> {
        let (width, height) = (self.width, self.height);
        let (sampling, dtype) = self.split()?;
        // (the width is a multiple of, the height is a multiple of, shape)
        let (across, down, shape) = match sampling {
            "mono" => (1, 1, vec![height, width]),
            "420" | "420jpeg" | "420mpeg2" | "420paldv" => (2, 2, vec![height.saturating_mul(3) / 2, width]),
            "411" => (4, 2, vec![height.saturating_mul(3) / 2, width]),
            "422" => (2, 1, vec![height.saturating_mul(2), width]),
            "444" => (1, 1, vec![3, height, width]),
            "444alpha" => (1, 1, vec![4, height, width]),
            _ => return Err(Y4mHeaderError::ColourSpace { found: self.colour_space.clone() }),
        };
        if width % across != 0 || height % down != 0 {
            let colour_space = self.colour_space.clone();
            return Err(Y4mHeaderError::Odd { width, height, colour_space, across, down });
        }
        Ok((dtype, shape))
    }

    /// Takes the depth off the colour space: `420p10`, `mono12`.
    fn split(&self) -> Result<(&str, Dtype), Y4mHeaderError> {
        let text = self.colour_space.as_str();
        let depth = match text.strip_prefix("mono") {
            Some("") => None,
            Some(depth) => Some(("mono", depth)),
            // `420paldv` and `420jpeg` have a p, but no number behind it.
            None => text.split_once('p').filter(|(_, depth)| depth.bytes().all(|byte| byte.is_ascii_digit())),
        };
        match depth {
            None => Ok((text, Dtype::Uint8)),
            Some((sampling, "9" | "10" | "12" | "14" | "16")) => Ok((sampling, Dtype::Uint16)),
            Some(_) => Err(Y4mHeaderError::ColourSpace { found: text.to_owned() }),
        }
    }
}

/// A line with its newline, or the error for one that lacks it.
fn read_line(input: &mut Input, line: &mut Vec<u8>, part: Part) -> Result<(), MediaError> {
    input.line(line, MAX_LINE)?;
    if line.last() == Some(&b'\n') {
        return Ok(());
    }
    if line.len() < MAX_LINE {
        let found = input.position();
        return Err(input.truncated(part, found.saturating_add(1), found));
    }
    Err(MediaError::Y4mHeader { name: input.name().to_owned(), source: Y4mHeaderError::Line { part } })
}

/// A positive number.
fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&number| number > 0)
}
