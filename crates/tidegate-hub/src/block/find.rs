//! The blocks of one channel, found by the names of their files.

use std::{fs, io, mem::offset_of, path::PathBuf, sync::Arc};

use rustix::io::Errno;
use thiserror::Error;
use tidegate_shm::{
    region::{AccessError, OpenError},
    sync::Ordering,
};

use super::{AttachError, AttachOptions, Block, attach, look};
use crate::{
    handover::{Announcement, observe},
    layout::{ChannelName, Descriptor, InitState, pages::ControlPage},
};

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
/// are over, one that was left for another block is not the channel any more, also when that has ended before it, and those that are being made are not there yet; a
/// successor that the block before was never left for is not the channel either (DH-225). One that takes no more data counts only
/// while there is no other. Files of others, which are not trusted or
/// may not be read, are passed over with a word in the log.
///
/// # Errors
/// [`FindError`].
pub fn find(channel: &ChannelName, options: &AttachOptions<'_>) -> Result<Vec<Found>, FindError> {
    let mut seen: Vec<Seen> = Vec::new();
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
            Ok(block) => seen.push(
                Seen::of(&name, &block).map_err(|error| FindError::Attach { name, source: error.into() })?,
            ),
            // Over, being made, or just removed.
            Err(AttachError::Closed | AttachError::NotReady { .. } | AttachError::StaleBoot { .. }) => {}
            Err(error) if error.is_missing() => {}
            Err(source) => return Err(FindError::Attach { name, source }),
        }
    }
    let is_channel = |one: &&Seen| {
        // A block that was left stays for a while, for those who have not read it to its end.
        let is_left = seen.iter().any(|next| one.was_left_for(next)) || one.successor_is_gone(options);
        let is_unused = seen.iter().any(|old| one.names(old) && !old.was_left_for(one));
        !is_left && !is_unused
    };
    let mut channel: Vec<&Seen> = seen.iter().filter(is_channel).collect();
    // Who reads one that is closing has it; its successor by the same name is where data come.
    if channel.iter().any(|one| one.is_ready) {
        channel.retain(|one| one.is_ready);
    }
    Ok(channel.into_iter().map(|one| one.found.clone()).collect())
}

/// A block, and what it says of the channel.
struct Seen {
    found: Found,
    is_ready: bool,
    /// Where the channel went on.
    successor: Option<Announcement>,
}

impl Seen {
    fn of(name: &str, block: &Block) -> Result<Self, AccessError> {
        let views = block.inspector_views()?;
        let announced = observe(&views).filter(|announced| announced.state.is_cut());
        // Acquire: pairs with the release of whoever closes it.
        let state =
            views.control.row().u32::<{ offset_of!(ControlPage, init_state) }>().load(Ordering::Acquire);
        let is_ready = state == InitState::Ready.code();
        let found = Found { name: name.to_owned(), descriptor: Arc::clone(block.descriptor()) };
        Ok(Self { found, is_ready, successor: announced })
    }

    /// Whether it was made to follow `old`.
    fn names(&self, old: &Self) -> bool {
        self.found.descriptor.spec.predecessor == Some(old.found.descriptor.uuid)
    }

    fn was_left_for(&self, next: &Self) -> bool {
        let uuid = self.successor.as_ref().map(|successor| successor.successor);
        next.names(self) && uuid == Some(next.found.descriptor.uuid)
    }

    fn successor_is_gone(&self, options: &AttachOptions<'_>) -> bool {
        let successor = self.successor.as_ref();
        successor
            .is_some_and(|successor| look(&successor.name, options).is_err_and(|error| error.is_missing()))
    }
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
