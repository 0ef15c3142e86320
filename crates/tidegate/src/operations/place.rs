//! Where admin sockets are, so that commands find a vertex without being told.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The admin socket of a pipeline of this name, when its file does not say: in the node's directory.
#[must_use]
pub fn admin_socket(node: &Path, pipeline: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = pipeline.chars().map(plain).take(LONGEST).collect();
    node.join(DIR).join(format!("{name}.sock"))
}

/// Sockets in the node's directory that a process listens at.
#[must_use]
pub fn running(node: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(node.join(DIR)).into_iter().flatten().flatten();
    let sockets =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "sock"));
    let mut sockets: Vec<PathBuf> = sockets.filter(|path| UnixStream::connect(path).is_ok()).collect();
    sockets.sort_unstable();
    sockets
}

const DIR: &str = "vertex";
/// The path of a socket has 107 bytes at most.
const LONGEST: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_directory() {
        let node = Path::new("/run/node");
        assert_eq!(admin_socket(node, "orders-1"), Path::new("/run/node/vertex/orders-1.sock"));
        assert_eq!(admin_socket(node, "../../etc/x"), Path::new("/run/node/vertex/.._.._etc_x.sock"));
        assert_eq!(admin_socket(node, &"x".repeat(500)).file_name().map(|name| name.len()), Some(45));
    }
}
