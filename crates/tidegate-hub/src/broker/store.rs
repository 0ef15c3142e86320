//! The registry in a file, over restarts (13.8).
//!
//! ```text
//! line 1   tidegate-hub-registry 1 <BLAKE2b-256 of line 2, hex>
//! line 2   the snapshot as JSON
//! ```
//!
//! It is written to a temporary file beside it, flushed, and renamed: whatever happens at whichever moment, the file is the
//! old one or the new one. One that does not fit its digest is moved aside and ignored.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use blake2::{Blake2b, Digest, digest::consts::U32};
use rustix::fs::OFlags;

use super::{
    error::BrokerError,
    machine::Snapshot,
    wire::{Fixed, json},
};

const TITLE: &str = "tidegate-hub-registry 1 ";

/// Largest file that is read: more than a full registry has.
const LARGEST: u64 = 256 << 20;

/// The file of a registry.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

/// What was in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    /// There is no file.
    Nothing,
    /// A registry.
    Registry(Snapshot),
    /// Not a registry; it was moved here.
    Corrupt(PathBuf),
}

impl Store {
    /// A registry in `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`BrokerError::File`] when it is there and cannot be read, or cannot be moved aside.
    pub fn load(&self) -> Result<Loaded, BrokerError> {
        let file =
            match OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&self.path)
            {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
                Err(source) => return Err(self.error("cannot open the registry", source)),
            };
        let mut text = Vec::new();
        file.take(LARGEST)
            .read_to_end(&mut text)
            .map_err(|source| self.error("cannot read the registry", source))?;
        if let Some(snapshot) = decode(&text) {
            return Ok(Loaded::Registry(snapshot));
        }
        let aside = self.sibling(".corrupt");
        fs::rename(&self.path, &aside)
            .map_err(|source| self.error("cannot move the corrupt registry aside", source))?;
        Ok(Loaded::Corrupt(aside))
    }

    /// Replaces the file, mode 0600.
    ///
    /// # Errors
    /// [`BrokerError::File`]; the file is as it was then.
    pub fn save(&self, snapshot: &Snapshot) -> Result<(), BrokerError> {
        let temporary = self.sibling(".new");
        self.write(&temporary, snapshot).inspect_err(|_| {
            // What is left of it is overwritten the next time.
            let _ = fs::remove_file(&temporary);
        })
    }

    fn write(&self, temporary: &Path, snapshot: &Snapshot) -> Result<(), BrokerError> {
        // A leftover may have another mode or be a link; what is made anew has neither.
        match fs::remove_file(temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(self.error("cannot remove an old temporary registry", source)),
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)
            .map_err(|source| self.error("cannot make a temporary registry", source))?;
        file.write_all(&encode(snapshot))
            .map_err(|source| self.error("cannot write the registry", source))?;
        file.sync_all().map_err(|source| self.error("cannot flush the registry", source))?;
        fs::rename(temporary, &self.path)
            .map_err(|source| self.error("cannot replace the registry", source))?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| self.error("cannot flush its directory", source))
    }

    fn sibling(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().map_or_else(OsString::new, OsString::from);
        name.push(suffix);
        self.path.with_file_name(name)
    }

    fn error(&self, what: &'static str, source: io::Error) -> BrokerError {
        BrokerError::File { path: self.path.clone(), what, source }
    }
}

fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let body = json(snapshot);
    let mut text = format!("{TITLE}{}\n", digest(&body)).into_bytes();
    text.extend(body);
    text.push(b'\n');
    text
}

fn decode(text: &[u8]) -> Option<Snapshot> {
    let text = text.strip_prefix(TITLE.as_bytes())?.strip_suffix(b"\n")?;
    let (expected, body) = (text.get(..64)?, text.get(64..)?.strip_prefix(b"\n")?);
    if expected != digest(body).to_string().as_bytes() {
        return None;
    }
    serde_json::from_slice(body).ok()
}

fn digest(body: &[u8]) -> Fixed<32> {
    Fixed(Blake2b::<U32>::digest(body).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn snapshot(last_id: u32) -> Snapshot {
        Snapshot { last_id, ..Snapshot::default() }
    }

    /// Rules: DH-213, DH-214.
    #[test]
    fn what_was_saved_is_loaded_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("registry"));
        assert_eq!(store.load().unwrap(), Loaded::Nothing);
        store.save(&snapshot(1)).unwrap();
        store.save(&snapshot(2)).unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Registry(snapshot(2)));
        assert_eq!(fs::metadata(store.path()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Every prefix of a registry and every changed byte is noticed.
    ///
    /// Rules: DH-214.
    #[test]
    fn a_damaged_file_is_moved_aside() {
        let whole = encode(&snapshot(7));
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), None, "cut at {cut}");
            let mut changed = whole.clone();
            changed[cut] ^= 1;
            assert_eq!(decode(&changed), None, "changed at {cut}");
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("registry"));
        fs::write(store.path(), &whole[..whole.len() / 2]).unwrap();
        let aside = dir.path().join("registry.corrupt");
        assert_eq!(store.load().unwrap(), Loaded::Corrupt(aside.clone()));
        assert!(aside.exists() && !store.path().exists());
    }

    /// A writer that died before the rename has changed nothing; its leftover does not disturb the next.
    ///
    /// Rules: DH-213, DH-214.
    #[test]
    fn a_leftover_of_a_killed_writer_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("registry"));
        store.save(&snapshot(1)).unwrap();
        fs::write(store.sibling(".new"), "half a reg").unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Registry(snapshot(1)));
        store.save(&snapshot(2)).unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Registry(snapshot(2)));
    }

    /// Rules: DH-213.
    #[test]
    fn a_failed_save_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("registry"));
        store.save(&snapshot(1)).unwrap();
        fs::create_dir(store.sibling(".new")).unwrap();
        assert!(matches!(store.save(&snapshot(2)), Err(BrokerError::File { .. })));
        assert_eq!(store.load().unwrap(), Loaded::Registry(snapshot(1)));
    }
}
