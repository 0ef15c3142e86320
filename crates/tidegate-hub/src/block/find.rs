//! The blocks of one channel, found by the names of their files.

use std::{fs, io, path::PathBuf, sync::Arc};

use rustix::io::Errno;
use thiserror::Error;
use tidegate_shm::region::OpenError;

use super::{AttachError, AttachOptions, attach, look};
use crate::layout::{ChannelName, Descriptor};

/// A block that is in use.
#[derive(Debug, Clone)]
pub struct Found {
    /// Name of its file.
    pub name: String,
    /// What it is.
    pub descriptor: Arc<Descriptor>,
}

/// Why nobody can say which blocks a channel has.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FindError {
    /// The directory cannot be read.
    #[error("cannot look for blocks in {}: {source}", dir.display())]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A block that may be one of them cannot be looked at.
    #[error("block {name}: {source}")]
    Attach {
        /// Name of its file.
        name: String,
        /// Why.
        source: AttachError,
    },
}

/// The blocks of `channel` in the directory of `options` that are in use, by name: one, unless something is wrong. Closed ones
/// are over, one that was left for another block is not the channel any more, and those that are being made are not there yet. Files
/// of others, which are not trusted or may not be read, are passed over with a word in the log.
///
/// # Errors
/// [`FindError`].
pub fn find(channel: &ChannelName, options: &AttachOptions<'_>) -> Result<Vec<Found>, FindError> {
    let mut found: Vec<Found> = Vec::new();
    for name in candidates(channel, options)? {
        match look(&name, options) {
            // Another channel whose name begins the same.
            Ok(seen) if seen.descriptor.spec.channel != *channel => continue,
            Ok(_) => {}
            // Anybody may put something there, and nobody may keep the channel from others by that.
            Err(error) if is_foreign(&error) => {
                tracing::warn!(block = name, %error, "passed over a file that looks like a block of the channel");
                continue;
            }
            // Attaching says what is wrong with it.
            Err(_) => {}
        }
        match attach(&name, options) {
            Ok(block) => found.push(Found { name, descriptor: Arc::clone(block.descriptor()) }),
            // Over, being made, or just removed.
            Err(AttachError::Closed | AttachError::NotReady { .. } | AttachError::StaleBoot { .. }) => {}
            Err(AttachError::Open(error)) if error.errno() == Some(Errno::NOENT.raw_os_error()) => {}
            Err(source) => return Err(FindError::Attach { name, source }),
        }
    }
    // A block that was left stays for a while, for those who have not read it to its end.
    let left: Vec<_> = found.iter().filter_map(|found| found.descriptor.spec.predecessor).collect();
    found.retain(|found| !left.contains(&found.descriptor.uuid));
    Ok(found)
}

/// Whether it belongs to somebody who is not trusted, may not be read, or is no file.
fn is_foreign(error: &AttachError) -> bool {
    match error {
        AttachError::UntrustedOwner { .. } | AttachError::Open(OpenError::NotRegular { .. }) => true,
        AttachError::Open(error) => {
            let refusals = [Errno::ACCESS, Errno::PERM, Errno::LOOP];
            refusals.iter().any(|refusal| error.errno() == Some(refusal.raw_os_error()))
        }
        _ => false,
    }
}

/// Files that are called as blocks of the channel are: `tidegate_<channel>_<8 hex digits>`.
fn candidates(channel: &ChannelName, options: &AttachOptions<'_>) -> Result<Vec<String>, FindError> {
    let failed = |source| FindError::Dir { dir: options.dir.clone(), source };
    let prefix = channel.file_name_start();
    let mut names = Vec::new();
    for entry in fs::read_dir(&options.dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let digits = name.strip_prefix(&prefix).unwrap_or_default();
        if digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
