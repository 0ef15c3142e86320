//! Where sockets and keys are, and that they are private (DH-185, DH-209, DH-210).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};
use tidegate_mq::SecretKey;
use zeroize::Zeroizing;

use super::{error::BrokerError, wire::BlockUuid};

/// Longest name of a Unix socket, in bytes.
pub const LONGEST_SOCKET_PATH: usize = 107;

/// The private directory of the hub's sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// `$XDG_RUNTIME_DIR/tidegate`, else `/tmp/tidegate-<uid>` and a warning; made if it is not there.
    ///
    /// # Errors
    /// [`BrokerError::NotPrivate`] when it is another user's or open to others, [`BrokerError::File`] when it cannot be made.
    pub fn of_user() -> Result<Self, BrokerError> {
        Self::below(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()))
    }

    /// Where the broker that runs by itself for this user listens, if its socket is there. Makes nothing.
    pub fn broker_of_user() -> Option<String> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let path = runtime.map_or_else(fallback, |dir| dir.join("tidegate"));
        check_private_dir(&path).ok()?;
        let dir = Self(path);
        dir.0.join(BROKER_SOCKET).exists().then(|| dir.broker_endpoint())
    }

    /// [`of_user`](Self::of_user) with the given value of `XDG_RUNTIME_DIR`.
    ///
    /// # Errors
    /// As [`of_user`](Self::of_user).
    pub fn below(xdg_runtime_dir: Option<PathBuf>) -> Result<Self, BrokerError> {
        let path = match xdg_runtime_dir {
            Some(dir) => dir.join("tidegate"),
            None => {
                let path = fallback();
                tracing::warn!(path = %path.display(), "XDG_RUNTIME_DIR is not set; sockets are in a directory below /tmp");
                path
            }
        };
        Self::open(path)
    }

    /// The given directory, made if it is not there.
    ///
    /// # Errors
    /// As [`of_user`](Self::of_user).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, BrokerError> {
        let path = path.into();
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(BrokerError::File { path, what: "cannot make the directory", source }),
        }
        check_private_dir(&path)?;
        Ok(Self(path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the broker listens.
    pub fn broker_endpoint(&self) -> String {
        self.endpoint(BROKER_SOCKET)
    }

    /// Where the broker publishes events.
    pub fn events_endpoint(&self) -> String {
        self.endpoint("events.sock")
    }

    /// Where the producer of a block publishes notifications (14).
    pub fn notification_endpoint(&self, block: BlockUuid) -> String {
        let digits: String = block.to_string().chars().take(12).collect();
        self.endpoint(&format!("n-{digits}.sock"))
    }

    fn endpoint(&self, name: &str) -> String {
        format!("ipc://{}", self.0.join(name).display())
    }
}

/// Reads a secret CURVE key from a file of mode 0600 in a directory of mode 0700, both the user's own (DH-209).
///
/// # Errors
/// [`BrokerError::NotPrivate`] when others may read it, [`BrokerError::File`] and [`BrokerError::KeyFile`] when it is not
/// there or no key.
pub fn read_secret_key(path: &Path) -> Result<SecretKey, BrokerError> {
    let file_error = |what| move |source| BrokerError::File { path: path.to_owned(), what, source };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_private_dir(dir)?;
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(file_error("cannot open the key file"))?;
    let metadata = file.metadata().map_err(file_error("cannot look at the key file"))?;
    if metadata.mode() & 0o077 != 0 || metadata.uid() != geteuid().as_raw() || !metadata.is_file() {
        let problem = "a secret key must be a file of this user that nobody else may read: chmod 600";
        return Err(BrokerError::NotPrivate { path: path.to_owned(), problem });
    }
    parse_key(file).map_err(|source| BrokerError::KeyFile { path: path.to_owned(), source })
}

/// Where sockets are without `XDG_RUNTIME_DIR`.
fn fallback() -> PathBuf {
    PathBuf::from(format!("/tmp/tidegate-{}", geteuid().as_raw()))
}

const BROKER_SOCKET: &str = "broker.sock";

fn parse_key(file: File) -> io::Result<SecretKey> {
    const LONGEST: u64 = 256;
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    file.take(LONGEST).read_to_string(&mut text)?;
    SecretKey::parse(text.trim().as_bytes()).map_err(io::Error::other)
}

/// Whether nobody but this user can enter `path`.
pub(crate) fn check_private_dir(path: &Path) -> Result<(), BrokerError> {
    let metadata = fs::symlink_metadata(path).map_err(|source| BrokerError::File {
        path: path.to_owned(),
        what: "cannot look at the directory",
        source,
    })?;
    let refuse = |problem| Err(BrokerError::NotPrivate { path: path.to_owned(), problem });
    if !metadata.is_dir() {
        return refuse("not a directory; remove it or choose another place");
    }
    if metadata.uid() != geteuid().as_raw() {
        return refuse("belongs to another user; choose another place");
    }
    if metadata.mode() & 0o077 != 0 {
        return refuse("others may enter it: chmod 700");
    }
    Ok(())
}
