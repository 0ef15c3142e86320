//! A file for each epoch, made visible in one step (VX-853, `mode = "epoch"`).
//!
//! ```text
//!  <dir>/p=<partition>/<epoch, 16 hex digits>-<first>-<last>.ndjson    what readers see
//!  <dir>/p=<partition>/.stage-<generation>-<nonce>/                    of the session that writes
//! ```
//!
//! An epoch is written and flushed in the session's staging directory and then renamed, by full path and without replacing. A
//! new session moves the staging directories of older ones away before it looks or writes: from then on their renames find
//! nothing. So the sink is of class A; what is visible of an epoch is all of it, and once.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

use super::{Class, Confirms, Delivery, Published, Session, Sink, SinkError, Token, file::Lines};
use crate::{
    failpoint::{self, Point},
    fence::{WriteGuard, WriteKind},
};

/// A directory of files, one for each epoch. The token of a partition is the name of its last file.
#[derive(Debug)]
pub struct Epochs {
    dir: PathBuf,
    lines: Lines,
    partitions: BTreeMap<PartitionId, Place>,
}

/// What the session of one partition has.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    stage: PathBuf,
    /// Files behind the last commit that an earlier session made visible.
    found: BTreeMap<EpochId, Name>,
}

/// What a file's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    epoch: EpochId,
    first: Position,
    last: Position,
}

impl Epochs {
    /// Opens the directory, which is made if there is none, and finds out whether its file system can do what is needed.
    ///
    /// # Errors
    /// [`SinkError::File`], [`SinkError::Unsupported`].
    pub fn open(dir: &Path, lines: Lines) -> Result<Self, SinkError> {
        fs::create_dir_all(dir).map_err(failed(dir))?;
        probe(dir)?;
        Ok(Self { dir: dir.to_owned(), lines, partitions: BTreeMap::new() })
    }

    /// The place of a partition whose barrier is up.
    fn place(&self, session: &Session) -> Result<&Place, SinkError> {
        let stage = || self.dir.join(partition_name(session.partition));
        self.partitions.get(&session.partition).ok_or_else(|| SinkError::Refused { path: stage() })
    }
}

impl Sink for Epochs {
    fn class(&self) -> Class {
        Class::A
    }

    fn confirms(&self) -> Confirms {
        Confirms::OnDisk
    }

    fn barrier(&mut self, session: &Session, guard: &WriteGuard) -> Result<(), SinkError> {
        let permit = guard.permit(WriteKind::Sink)?;
        let dir = self.dir.join(partition_name(session.partition));
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        // Its own directory first, so that of two sessions at least one sees the other.
        let stage = dir.join(stage_name(session));
        DirBuilder::new().mode(0o700).create(&stage).map_err(failed(&stage))?;
        sync(&dir)?;
        for entry in entries(&dir)? {
            if entry.as_encoded_bytes().starts_with(DEAD.as_bytes()) {
                remove(&dir.join(&entry))?;
            }
            let Some((generation, nonce)) = parse_stage(&entry) else { continue };
            let sink = || self.dir.display().to_string();
            let Session { partition, generation: own, nonce: own_nonce } = *session;
            if generation > own {
                return Err(SinkError::Newer { sink: sink(), partition, found: generation, own });
            }
            if generation == own && nonce != own_nonce {
                return Err(SinkError::Regressed { sink: sink(), partition, generation });
            }
            if generation < own {
                retire(&dir, &entry)?;
            }
        }
        sync(&dir)?;
        drop(permit);
        self.partitions.insert(session.partition, Place { dir, stage, found: BTreeMap::new() });
        Ok(())
    }

    fn read_back(
        &mut self,
        session: &Session,
        since: Option<&Token>,
        _: &WriteGuard,
    ) -> Result<u64, SinkError> {
        let committed = match since {
            Some(Token(name)) => {
                let name = std::str::from_utf8(name).ok().and_then(|name| parse(OsStr::new(name)));
                let sink = || self.dir.display().to_string();
                name.ok_or_else(|| SinkError::Token { sink: sink() })?.epoch
            }
            None => EpochId(0),
        };
        let dir = self.place(session)?.dir.clone();
        // A rename that is not on the disk yet does not count (VX-853).
        sync(&dir)?;
        let names = entries(&dir)?;
        let found: BTreeMap<_, _> = names
            .iter()
            .filter_map(|name| parse(name))
            .filter(|name| name.epoch > committed)
            .map(|name| (name.epoch, name))
            .collect();
        let count = found.len() as u64;
        if let Some(place) = self.partitions.get_mut(&session.partition) {
            place.found = found;
        }
        Ok(count)
    }

    fn stage(&mut self, epoch: &Delivery<'_>, guard: &WriteGuard) -> Result<(), SinkError> {
        let place = self.place(&epoch.session)?;
        let name = Name::of(epoch);
        if epoch.outputs.is_empty() || place.is_visible(name)? {
            return Ok(());
        }
        let path = place.stage.join(name.to_string());
        let mut buffer = Vec::new();
        let half = epoch.outputs.len() / 2;
        let mut middle = 0;
        for (index, output) in epoch.outputs.iter().enumerate() {
            if index == half {
                middle = buffer.len();
            }
            self.lines.add(output, || epoch.ids.of(epoch.session.partition, output), &mut buffer);
        }
        let permit = guard.permit(WriteKind::Sink)?;
        // What an earlier attempt of this session left is written over.
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let mut file = file.map_err(gone_or_failed(&path))?;
        let (before, behind) = buffer.split_at(middle);
        file.write_all(before).map_err(failed(&path))?;
        failpoint::at(Point::HalfStaged);
        file.write_all(behind).map_err(failed(&path))?;
        file.sync_all().map_err(failed(&path))?;
        drop(permit);
        Ok(())
    }

    fn publish(&mut self, epoch: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError> {
        let place = self.place(&epoch.session)?;
        let name = Name::of(epoch);
        if epoch.outputs.is_empty() {
            return Ok(Published::all(epoch));
        }
        let all = Published { token: Some(Token(name.to_string().into_bytes())), ..Published::all(epoch) };
        if place.is_visible(name)? {
            return Ok(all);
        }
        let (from, to) = (place.stage.join(name.to_string()), place.dir.join(name.to_string()));
        let permit = guard.permit(WriteKind::Sink)?;
        failpoint::at(Point::Permitted);
        match renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(SinkError::Refused { path: from }),
            Err(Errno::EXIST) => return Err(SinkError::ForeignWriter { path: to, epoch: epoch.epoch }),
            Err(errno) => return Err(failed(&to)(errno.into())),
        }
        sync(&place.dir)?;
        drop(permit);
        Ok(all)
    }

    fn abort(&mut self, partition: PartitionId, epoch: EpochId) {
        let Some(place) = self.partitions.get(&partition) else { return };
        let prefix = format!("{epoch:016x}-", epoch = epoch.0);
        let staged = entries(&place.stage).unwrap_or_default();
        for name in staged.iter().filter(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            // Nobody sees it; the next barrier removes it otherwise.
            let _ = fs::remove_file(place.stage.join(name));
        }
    }
}

impl Place {
    /// Whether an earlier session made this epoch visible.
    fn is_visible(&self, name: Name) -> Result<bool, SinkError> {
        if self.found.get(&name.epoch) == Some(&name) {
            return Ok(true);
        }
        let overlapping = self
            .found
            .values()
            .find(|found| found.epoch == name.epoch || found.first <= name.last && name.first <= found.last);
        match overlapping {
            None => Ok(false),
            Some(found) => {
                Err(SinkError::ForeignWriter { path: self.dir.join(found.to_string()), epoch: name.epoch })
            }
        }
    }
}

impl Name {
    fn of(epoch: &Delivery<'_>) -> Self {
        Self { epoch: epoch.epoch, first: epoch.first, last: epoch.last }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{}-{}.{EXTENSION}", self.epoch.0, self.first, self.last)
    }
}

/// The name of an epoch's file; names of other things are nobody's business.
fn parse(name: &OsStr) -> Option<Name> {
    let stem = name.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let mut parts = stem.split('-');
    let (epoch, first, last) = (parts.next()?, parts.next()?, parts.next()?);
    if epoch.len() != 16 || parts.next().is_some() {
        return None;
    }
    Some(Name {
        epoch: EpochId(u64::from_str_radix(epoch, 16).ok()?),
        first: Position(first.parse().ok()?),
        last: Position(last.parse().ok()?),
    })
}

fn partition_name(partition: PartitionId) -> String {
    format!("p={partition}")
}

fn stage_name(session: &Session) -> String {
    format!("{STAGE}{}-{:016x}", session.generation, session.nonce)
}

fn parse_stage(name: &OsStr) -> Option<(Generation, u64)> {
    let (generation, nonce) = name.to_str()?.strip_prefix(STAGE)?.split_once('-')?;
    Some((Generation(generation.parse().ok()?), u64::from_str_radix(nonce, 16).ok()?))
}

/// Takes an old session's staging directory away from it, and removes what is in it.
fn retire(dir: &Path, name: &OsStr) -> Result<(), SinkError> {
    let from = dir.join(name);
    let to = dir.join(name.to_string_lossy().replacen(STAGE, DEAD, 1));
    match fs::rename(&from, &to) {
        Ok(()) => {}
        // Another new session was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&from)(error)),
    }
    remove(&to)
}

/// Removes a directory that was taken away; what its old owner still has open in there is nowhere after it.
fn remove(dead: &Path) -> Result<(), SinkError> {
    match fs::remove_dir_all(dead) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(dead)(error)),
        _ => Ok(()),
    }
}

fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>, SinkError> {
    let entries = fs::read_dir(dir).map_err(failed(dir))?;
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed(dir))).collect()
}

/// Waits until what the directory lists is on the disk.
fn sync(dir: &Path) -> Result<(), SinkError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

/// Whether a rename without replacing works here, and refuses.
fn probe(dir: &Path) -> Result<(), SinkError> {
    let [from, to] = ["from", "to"].map(|end| dir.join(format!(".probe-{}-{end}", std::process::id())));
    let tried = (|| {
        File::create(&from)?;
        File::create(&to)?;
        Ok(renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE))
    })();
    for path in [&from, &to] {
        // Nobody looks at it.
        let _ = fs::remove_file(path);
    }
    match tried.map_err(failed(dir))? {
        Err(Errno::EXIST) => Ok(()),
        _ => Err(SinkError::Unsupported { path: dir.to_owned() }),
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SinkError {
    move |source| SinkError::File { path: path.to_owned(), source }
}

/// A staging directory that is gone was taken away by a later session.
fn gone_or_failed(path: &Path) -> impl Fn(io::Error) -> SinkError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => SinkError::Refused { path: path.to_owned() },
        _ => SinkError::File { path: path.to_owned(), source },
    }
}

const EXTENSION: &str = "ndjson";
const STAGE: &str = ".stage-";
/// A staging directory that was taken away and not removed yet.
const DEAD: &str = ".dead-";

#[cfg(test)]
#[path = "file_epoch_tests.rs"]
mod tests;
