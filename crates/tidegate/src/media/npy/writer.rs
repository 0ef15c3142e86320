//! Frames into one `.npy` array.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::header;
use crate::media::MediaError;
use crate::tensor::tensor::{Dtype, TensorLayout};

/// Collects frames of one type and shape into a C-order array whose first axis counts them.
///
/// The frames go to a hidden file beside the target. [`finish`](Self::finish) completes its header, flushes it to the
/// disk and puts it in the place of the target in one step. A writer that is dropped without it removes the hidden file
/// and leaves the target as it was; so an interrupted program must call `finish` to keep what it has, and a killed one
/// leaves `.NAME.XXXXXX.part` behind.
#[derive(Debug)]
pub struct NpyWriter {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    /// Type and shape of the frames, known from the first one on.
    frame: Option<(Dtype, Vec<i32>)>,
    frames: u64,
}

impl NpyWriter {
    /// Prepares to write `path`, whose directory must exist. An existing file stays untouched until the end.
    ///
    /// # Errors
    /// [`MediaError::Write`] when no file can be made in that directory.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        let refuse = |source| MediaError::Write { path: path.to_owned(), source };
        let name = path.file_name().ok_or_else(|| refuse(io::ErrorKind::IsADirectory.into()))?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            // What a file made without further wishes has; the umask takes its part.
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(refuse)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), frame: None, frames: 0 })
    }

    /// Frames written so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Appends a frame. Padding is left out and column order turned into row order. Octets and bits become `uint8`.
    ///
    /// # Errors
    /// [`MediaError::ShapeChanged`] and [`MediaError::ShortFrame`] leave the array as it was; after
    /// [`MediaError::Write`] it is not usable.
    pub fn push(&mut self, layout: &TensorLayout, bytes: &[u8]) -> Result<(), MediaError> {
        if !layout.fits(bytes.len() as u64) {
            let (frame, expected) = (self.frames, layout.extent_bytes());
            return Err(MediaError::ShortFrame { frame, expected, found: bytes.len() as u64 });
        }
        match &self.frame {
            None => {
                let header = header::format(layout.dtype(), layout.shape(), 0);
                self.file.write_all(&header).map_err(|source| self.refuse(source))?;
                self.frame = Some((layout.dtype(), layout.shape().to_vec()));
            }
            Some((dtype, shape)) if *dtype != layout.dtype() || shape != layout.shape() => {
                return Err(MediaError::ShapeChanged {
                    path: self.path.clone(),
                    frame: self.frames,
                    expected: format!("{dtype} {shape:?}"),
                    found: format!("{} {:?}", layout.dtype(), layout.shape()),
                });
            }
            Some(_) => {}
        }
        for run in layout.runs() {
            // In range, because the extent fits.
            let run = bytes.get(run).unwrap_or_default();
            self.file.write_all(run).map_err(|source| self.refuse(source))?;
        }
        self.frames += 1;
        Ok(())
    }

    /// Completes the array and puts it in its place. Returns the number of frames; with none, no file is made.
    ///
    /// # Errors
    /// [`MediaError::Write`]; the target is then as it was.
    pub fn finish(self) -> Result<u64, MediaError> {
        let Some((dtype, shape)) = &self.frame else {
            return Ok(0);
        };
        let header = header::format(*dtype, shape, self.frames);
        complete(self.file, &self.path, &header)
            .map_err(|source| MediaError::Write { path: self.path.clone(), source })?;
        Ok(self.frames)
    }

    fn refuse(&self, source: io::Error) -> MediaError {
        MediaError::Write { path: self.path.clone(), source }
    }
}

fn complete(file: BufWriter<NamedTempFile>, path: &Path, header: &[u8]) -> io::Result<()> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(header)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
