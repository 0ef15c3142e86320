//! Which block a channel has on this host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tidegate::hub::block::{AttachError, AttachOptions, DEFAULT_DIR, Role, attach};
use tidegate::hub::layout::{ChannelName, Descriptor};

use super::faults;
use crate::output::{Exit, Stop, exit_of_io};

/// Where blocks are.
#[derive(Debug, Clone, Args)]
pub(super) struct Place {
    /// Directory of the blocks
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(super) dir: PathBuf,
}

/// A block that was found.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) descriptor: Arc<Descriptor>,
}

impl Place {
    /// The one block of `channel` that is in use, if there is one. Closed ones are over.
    pub(super) fn find(&self, channel: &ChannelName) -> Result<Option<Found>, Stop> {
        let mut found = Vec::new();
        for name in candidates(&self.dir, channel)? {
            let options = AttachOptions { dir: self.dir.clone(), ..AttachOptions::new(Role::Consumer) };
            match attach(&name, &options) {
                Ok(block) if block.descriptor().spec.channel == *channel => {
                    found.push(Found { name, descriptor: Arc::clone(block.descriptor()) });
                }
                // Of another channel whose name begins the same, over, being made, or just removed.
                Ok(_)
                | Err(AttachError::Closed | AttachError::NotReady { .. } | AttachError::StaleBoot { .. }) => {
                }
                Err(AttachError::Open(error)) if is_gone(error.errno()) => {}
                Err(error) => return Err(faults::attach(&format!("block {name}"), &error)),
            }
        }
        if found.len() > 1 {
            let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
            return Err(Stop::Error {
                exit: Exit::Refused,
                code: "ambiguous",
                message: format!(
                    "channel {channel} has several blocks in {}: {}; stop or remove all but one",
                    self.dir.display(),
                    names.join(", ")
                ),
            });
        }
        Ok(found.pop())
    }
}

fn is_gone(errno: Option<i32>) -> bool {
    errno == Some(rustix::io::Errno::NOENT.raw_os_error())
}

/// Files that are called as blocks of the channel are: `tidegate_<channel>_<8 hex digits>`.
fn candidates(dir: &Path, channel: &ChannelName) -> Result<Vec<String>, Stop> {
    let failed = |error: std::io::Error| {
        let (exit, code) = exit_of_io(&error);
        Stop::Error { exit, code, message: format!("cannot look for blocks in {}: {error}", dir.display()) }
    };
    let prefix = channel.file_name_start();
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let digits = name.strip_prefix(&prefix).unwrap_or_default();
        if digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
