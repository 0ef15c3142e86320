//! Where a node is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tidegate_tensor::config::user_component;
use tidegate_tensor::region::store::user_name;

/// Environment variable that names the node's directory.
pub const DIR_VARIABLE: &str = "TIDEGATE_DIR";

/// The directory of a node and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlace {
    dir: PathBuf,
}

impl NodePlace {
    /// The directory given, else `$TIDEGATE_DIR`, else `/dev/shm/tidegate-<user>`.
    #[must_use]
    pub fn find(given: Option<PathBuf>, variable: Option<OsString>) -> Self {
        let dir = given
            .or_else(|| variable.filter(|value| !value.is_empty()).map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(format!("/dev/shm/tidegate-{}", user_component(&user_name()))));
        Self { dir }
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The embedded media driver's directory.
    #[must_use]
    pub fn aeron_dir(&self) -> PathBuf {
        self.dir.join("aeron")
    }

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join(".lock")
    }

    /// The description.
    #[must_use]
    pub fn description(&self) -> PathBuf {
        self.dir.join("node.json")
    }

    /// The directory of the broker's sockets.
    #[must_use]
    pub fn hub_dir(&self) -> PathBuf {
        self.dir.join("hub")
    }

    /// The admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }
}
