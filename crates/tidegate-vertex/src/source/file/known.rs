//! By what a file is known again (15.2, VX-833).
//!
//! ```text
//!  u64 position of its first byte   u64 device   u64 inode   u64 bytes at the start of it that count   u64 hash of these
//!  u64 hash of the bytes before the resume position   u64 hash of its path
//! ```
//! Big-endian; hashes are XXH3. The last is not there in what earlier versions kept.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use twox_hash::XxHash3_64;

use super::super::Identity;

/// A file and what was read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Position of its first byte: 0, or behind the files before it.
    pub(super) base: u64,
    pub(super) device: u64,
    pub(super) inode: u64,
    head_len: u64,
    head: u64,
    tail: u64,
}

impl Known {
    /// The file as it is now, with nothing read of it.
    pub(super) fn of(file: &File, base: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let head_len = metadata.len().min(SAMPLE);
        let head = hash(file, 0, head_len)?;
        Ok(Self { base, device: metadata.dev(), inode: metadata.ino(), head_len, head, tail: 0 })
    }

    /// The same when everything below `offset` was read.
    pub(super) fn read_up_to(self, file: &File, offset: u64) -> io::Result<Self> {
        let len = offset.min(SAMPLE);
        Ok(Self { tail: hash(file, offset - len, len)?, ..self })
    }

    /// What is different in this file, of which everything below `offset` was read.
    pub(super) fn differs(self, file: &File, offset: u64) -> io::Result<Option<&'static str>> {
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) != (self.device, self.inode) {
            return Ok(Some("its inode"));
        }
        if hash(file, 0, self.head_len)? != self.head {
            return Ok(Some("its beginning"));
        }
        let same = self.read_up_to(file, offset)?.tail == self.tail;
        Ok((!same).then_some("what stands before the position"))
    }

    /// The same number for the same file, however much of it was read.
    pub(super) fn lineage(self) -> u64 {
        XxHash3_64::oneshot([self.base, self.device, self.inode].map(u64::to_be_bytes).as_flattened())
    }

    /// Of the file at this path.
    pub(super) fn encode(self, path: &Path) -> Identity {
        let Self { base, device, inode, head_len, head, tail } = self;
        Identity([base, device, inode, head_len, head, tail, name(path)].map(u64::to_be_bytes).concat())
    }

    /// Whether this is, or was, the file at this path; `None` when nobody has kept that.
    pub(super) fn was_at(Identity(bytes): &Identity, path: &Path) -> Option<bool> {
        let (words, _) = bytes.as_chunks::<8>();
        Some(u64::from_be_bytes(*words.get(6)?) == name(path))
    }

    pub(super) fn decode(Identity(bytes): &Identity) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let (words, path) = words.split_first_chunk::<6>()?;
        if path.len() > 1 {
            return None;
        }
        let [base, device, inode, head_len, head, tail] = *words;
        let [base, device, inode, head_len, head, tail] =
            [base, device, inode, head_len, head, tail].map(u64::from_be_bytes);
        rest.is_empty().then_some(Self { base, device, inode, head_len, head, tail })
    }
}

fn name(path: &Path) -> u64 {
    XxHash3_64::oneshot(path.as_os_str().as_bytes())
}

/// The hash of a part of a file, or of as much of it as there is.
fn hash(mut file: &File, offset: u64, len: u64) -> io::Result<u64> {
    let place = file.stream_position()?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(len.min(SAMPLE)).read_to_end(&mut bytes)?;
    file.seek(SeekFrom::Start(place))?;
    Ok(XxHash3_64::oneshot(&bytes))
}

/// Bytes of a file that are compared, at its beginning and before the resume position.
const SAMPLE: u64 = 64 * 1024;
