//! Files that have had a name one after the other: which one comes behind the one that was read, when there was more than one
//! rotation since.
//!
//! A rotation gives files numbers or dates: `log` becomes `log.1`, `log-20261123` or `app.1.log`. So those between are the ones
//! whose names differ from that of the file that was read in numbers only, and which were made behind it.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{SourceError, failed};

/// The file that had the name `path` next behind the one that was read, unless that is the one that has it now.
///
/// # Errors
/// [`SourceError::Rotated`] when there may be one, and the file that was read has no name any more that could tell.
pub(super) fn between(
    path: &Path,
    read: &Metadata,
    newest: &Metadata,
) -> Result<Option<PathBuf>, SourceError> {
    let failed = failed(path);
    let name = path.file_name().unwrap_or_default();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (begin, end) = (born(read).map_err(&failed)?, born(newest).map_err(&failed)?);
    let (mut own, mut others) = (None, Vec::new());
    for entry in fs::read_dir(dir).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        // One that is gone meanwhile is none.
        let Ok(metadata) = entry.metadata() else { continue };
        let is = |other: &Metadata| (metadata.dev(), metadata.ino()) == (other.dev(), other.ino());
        if is(read) {
            own = Some(entry.file_name());
        } else if metadata.is_file() && !is(newest) {
            let born = born(&metadata).map_err(&failed)?;
            if begin < born && born <= end {
                others.push((born, entry.file_name()));
            }
        }
    }
    others.sort();
    let Some(own) = own else {
        // Its name could have been taken by the next one.
        let next = others.into_iter().find(|(_, other)| other.as_bytes().starts_with(name.as_bytes()));
        return match next {
            Some((_, found)) => Err(SourceError::Rotated { path: path.to_owned(), found: dir.join(found) }),
            None => Ok(None),
        };
    };
    let next = others.into_iter().find(|(_, other)| is_sibling(name, &own, other));
    Ok(next.map(|(_, next)| dir.join(next)))
}

/// Whether a file that was called `name` and is called `one` now could be called `other` by another rotation.
fn is_sibling(name: &OsStr, one: &OsStr, other: &OsStr) -> bool {
    let (name, one, other) = (name.as_bytes(), one.as_bytes(), other.as_bytes());
    let front = name.iter().zip(one).take_while(|(a, b)| a == b).count();
    let (begin, end) = name.split_at(front);
    let added = |of: &[u8]| Some(without_numbers(of.strip_prefix(begin)?.strip_suffix(end)?));
    added(one).is_some_and(|of_one| added(other) == Some(of_one))
}

/// With a zero in place of each number.
fn without_numbers(text: &[u8]) -> Vec<u8> {
    let mut kept: Vec<u8> =
        text.iter().map(|byte| if byte.is_ascii_digit() { b'0' } else { *byte }).collect();
    kept.dedup_by(|a, b| (*a, *b) == (b'0', b'0'));
    kept
}

/// When a file was made; when it was written last, where nobody keeps that.
pub(super) fn born(file: &Metadata) -> io::Result<SystemTime> {
    file.created().or_else(|_| file.modified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_of_a_file_differ_in_numbers() {
        for (name, one, other, expected) in [
            ("log", "log.2", "log.1", true),
            ("log", "log.10", "log.9", true),
            ("log", "log-20261122", "log-20261123", true),
            ("log", "log.2026-11-22T10", "log.2026-11-23T9", true),
            ("app.log", "app.2.log", "app.1.log", true),
            ("app.log", "app-20261122.log", "app-20261123.log", true),
            ("worker1.log", "worker1.log.2", "worker1.log.1", true),
            ("worker1.log", "worker1.log.2", "worker2.log.1", false),
            ("app.log", "app.log.2", "app-1.log", false),
            ("log", "log.2", "log.1.gz", false),
            ("log", "log.2", "log", false),
            ("log", "old", "older", false),
        ] {
            let [name, one, other] = [name, one, other].map(OsStr::new);
            assert_eq!(is_sibling(name, one, other), expected, "{one:?} and {other:?}");
        }
    }
}
