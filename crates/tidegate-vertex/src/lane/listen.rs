//! Where workers that somebody else starts find the runtime: a socket that only its user, or a group, can reach (VX-420).
//!
//! The directory decides who reaches the socket, so it is one for this alone; a missing one is made. A lock beside the socket says
//! who listens there, and goes with its holder: a socket that a killed runtime left is removed by the next one, and that of a
//! living one is never touched.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with},
    process::geteuid,
};
use thiserror::Error;
use tidegate_shm::lock::{DirLock, LockError};

/// Why nobody can attach.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another runtime listens there.
    #[error("another vertex listens at {}: {source}; give each pipeline its own udf.listen", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
        /// Who.
        source: LockError,
    },
    /// The directory lets others in.
    #[error(
        "{} has mode {mode:04o}, user {uid} and group {gid}, so others could attach or take the place of the socket that udf.listen \
         names; {fix}, or name a directory in it that is not there, which is then made", path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// What makes it right.
        fix: String,
    },
    /// Something else is there.
    #[error("{} is not a socket; remove it, or give another udf.listen", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot {step} {}; see udf.listen and udf.group", path.display())]
    Io {
        /// What was attempted.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A socket at which this process listens; removed when dropped.
#[derive(Debug)]
pub(super) struct Listening {
    socket: OwnedFd,
    path: PathBuf,
    /// Released after the socket is gone.
    _lock: DirLock,
}

impl Listening {
    /// Listens at `path`. A `group` may connect besides this user.
    pub(super) fn at(path: &Path, group: Option<u32>) -> Result<Self, ListenError> {
        let failed = |step| move |source| ListenError::Io { step, path: path.to_owned(), source };
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        private(dir, group)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = DirLock::acquire(Path::new(&beside)).map_err(|source| match source {
            LockError::Held { .. } => ListenError::Taken { path: path.to_owned(), source },
            other => ListenError::Io {
                step: "lock the place of",
                path: path.to_owned(),
                source: io::Error::other(other),
            },
        })?;
        // Of a runtime that is dead, as the lock says.
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NoSocket { path: path.to_owned() });
            }
            Ok(_) => fs::remove_file(path).map_err(failed("remove the old socket"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at")(error)),
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = |errno: Errno| failed("listen at")(errno.into());
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(made)?;
        bind(&socket, &SocketAddrUnix::new(path).map_err(made)?).map_err(made)?;
        let listening = Self { socket, path: path.to_owned(), _lock: lock };
        if let Some(group) = group {
            chown(path, None, Some(group)).map_err(failed("give the group udf.group the socket"))?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the permissions of"))?;
        listen(&listening.socket, BACKLOG).map_err(made)?;
        Ok(listening)
    }

    /// Takes a connection; `None` when there is none.
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC) {
            Ok(socket) => Ok(Some(socket)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Somebody may have tidied up.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the directory if there is none, and refuses one that others can write, or can enter who need not.
fn private(dir: &Path, group: Option<u32>) -> Result<(), ListenError> {
    let failed = |step| move |source| ListenError::Io { step, path: dir.to_owned(), source };
    match fs::metadata(dir) {
        Ok(found) => return check(dir, &found, group),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(failed("make the directory"))?;
    if let Some(group) = group {
        chown(dir, None, Some(group)).map_err(failed("give the group udf.group the directory"))?;
        let entered = Permissions::from_mode(0o710);
        fs::set_permissions(dir, entered).map_err(failed("set the permissions of"))?;
    }
    check(dir, &fs::metadata(dir).map_err(failed("look at"))?, group)
}

fn check(dir: &Path, found: &Metadata, group: Option<u32>) -> Result<(), ListenError> {
    let (mode, uid, gid) = (found.mode() & 0o777, found.uid(), found.gid());
    let own = geteuid().as_raw();
    let is_closed = match group {
        // Its members find the socket, and cannot take its place.
        Some(group) => mode & 0o027 == 0 && mode & 0o010 != 0 && gid == group,
        None => mode & 0o077 == 0,
    };
    if found.is_dir() && uid == own && is_closed {
        return Ok(());
    }
    let fix = match group {
        Some(group) => format!("make it a directory of user {own} and group {group} with mode 0710"),
        None => format!("make it a directory of user {own} with mode 0700"),
    };
    Err(ListenError::Open { path: dir.to_owned(), mode, uid, gid, fix })
}

/// Connections that wait to be seen; more of them are told to come again.
const BACKLOG: i32 = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

    use rustix::process::getegid;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Rules: VX-420.
    #[test]
    fn a_place_that_is_not_there_is_made_for_those_who_are_named() {
        let place = tempfile::tempdir().unwrap();
        for (group, dir_mode, socket_mode) in [(None, 0o700, 0o600), (Some(getegid().as_raw()), 0o710, 0o660)]
        {
            let dir = place.path().join(format!("{dir_mode:o}/a/b"));
            let path = dir.join("socket");
            let listening = Listening::at(&path, group).unwrap();
            assert_eq!((mode(&dir), mode(&path)), (dir_mode, socket_mode));
            // Nobody has connected.
            assert!(listening.accept().unwrap().is_none());
            drop(listening);
            assert!(!path.exists());
            // And once more, in a place that is there.
            Listening::at(&path, group).unwrap();
        }
    }

    /// Rules: VX-420.
    #[test]
    fn a_place_that_others_can_enter_or_change_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("door");
        fs::create_dir(&dir).unwrap();
        let group = getegid().as_raw();
        for (mode, of, fits) in [
            (0o700, None, true),
            (0o710, None, false),
            (0o701, None, false),
            (0o755, None, false),
            (0o700, Some(group), false),
            (0o710, Some(group), true),
            (0o750, Some(group), true),
            (0o770, Some(group), false),
            (0o711, Some(group), false),
            (0o710, Some(group + 1), false),
        ] {
            set(&dir, mode);
            let listening = Listening::at(&dir.join("socket"), of);
            assert_eq!(listening.is_ok(), fits, "{mode:o} {of:?}: {listening:?}");
            if let Err(error) = listening {
                let said = error.to_string();
                assert!(said.contains(&format!("mode {mode:04o}")) && said.contains("udf.listen"), "{said}");
            }
        }
    }

    /// Rules: VX-420.
    #[test]
    fn a_socket_of_the_dead_is_taken_over_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        set(place.path(), 0o700);
        let path = place.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = Listening::at(&path, None).unwrap();
        let taken = Listening::at(&path, None).err();
        assert!(matches!(taken, Some(ListenError::Taken { .. })), "{taken:?}");
        // The one that listens is as it was.
        assert!(path.exists());
        drop(first);
        fs::write(&path, "precious").unwrap();
        let refused = Listening::at(&path, None).err();
        assert!(matches!(refused, Some(ListenError::NoSocket { .. })), "{refused:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
