//! Telling formats apart by their first bytes.

use super::input::Input;
use super::{MediaError, Part};

/// A format that describes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Npy,
    Y4m,
}

/// First bytes of `.npy`.
pub(super) const NPY: &[u8] = b"\x93NUMPY";
/// First bytes of `.y4m`.
pub(super) const Y4M: &[u8] = b"YUV4MPEG2";

/// First bytes of formats that people try, for the error only.
const OTHERS: [(&[u8], &str); 14] = [
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"RIFF", "an AVI, WAV or WebP file"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"PK\x03\x04", "a zip archive, such as .npz; unpack it first"),
    (b"\x1f\x8b", "gzip; decompress it first"),
    (b"\x28\xb5\x2f\xfd", "zstd; decompress it first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"\x80\x04\x95", "a Python pickle"),
];

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Npy => ".npy",
            Self::Y4m => ".y4m",
        }
    }
}

/// The format of an input that describes itself.
///
/// Waits for no more bytes than are needed to decide, so that a slow stream of short raw frames starts at once.
pub(super) fn detect(input: &mut Input) -> Result<Option<Format>, MediaError> {
    let Some(&first) = input.peek(1)?.first() else {
        return Err(MediaError::Empty { name: input.name().to_owned() });
    };
    for (format, magic) in [(Format::Npy, NPY), (Format::Y4m, Y4M)] {
        if magic.first() == Some(&first) && input.peek(magic.len())? == magic {
            return Ok(Some(format));
        }
    }
    Ok(None)
}

/// The error for an input in which [`detect`] saw nothing.
pub(super) fn unknown(mut input: Input) -> Result<MediaError, MediaError> {
    let start = input.peek(16)?;
    for magic in [NPY, Y4M] {
        if magic.starts_with(start) {
            let found = start.len() as u64;
            return Ok(input.truncated(Part::Header, magic.len() as u64, found));
        }
    }
    // The size of the first box of an MP4 varies; its name does not.
    let mp4 = start.get(4..8) == Some(b"ftyp");
    let looks_like = OTHERS
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
        .map(|&(_, what)| what)
        .or(mp4.then_some("an MP4 video"));
    Ok(MediaError::UnknownFormat { name: input.into_name(), looks_like })
}
