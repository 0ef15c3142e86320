//! Which block a channel has on this host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tidegate::hub::block::{self, AttachOptions, DEFAULT_DIR, FindError, Found, Role, attach};
use tidegate::hub::broker::{Discovery, MessageHub, RetryPolicy, Verifier};
use tidegate::hub::layout::{ChannelName, Secret};
use tidegate::hub::secret::read_key_file;

use super::connection::{ANSWER, Reach, Reached};
use super::faults;
use crate::output::{Exit, Stop, exit_of_io};

/// Where blocks are.
#[derive(Debug, Clone, Args)]
pub(super) struct Place {
    /// Directory of the blocks
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(super) dir: PathBuf,
    /// Key file of a channel that opens for nobody without it; `tidegate hub secret gen` makes one
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

/// Where a channel is looked for.
pub(super) struct Finder<'a> {
    pub(super) dir: &'a Path,
    /// Asked first.
    pub(super) broker: Option<Reached>,
    /// Of the channel.
    pub(super) secret: Option<Secret>,
}

impl Place {
    /// Here, with the broker that answers.
    pub(super) fn finder(&self) -> Result<Finder<'_>, Stop> {
        let secret = self.secret.as_deref().map(read_key_file).transpose()?;
        Ok(Finder { dir: &self.dir, broker: self.reach.open()?, secret })
    }
}

impl Finder<'_> {
    /// The one block of `channel` that is in use, if there is one: the one that the broker knows, else what lies in the
    /// directory. Closed ones are over.
    pub(super) fn find(&self, channel: &ChannelName) -> Result<Option<Found>, Stop> {
        if let Some(found) = self.broker.as_ref().and_then(|broker| self.known(&broker.hub, channel)) {
            return Ok(Some(found));
        }
        let mut found = block::find(channel, &self.options()).map_err(|error| match error {
            FindError::Dir { ref source, .. } => {
                let (exit, code) = exit_of_io(source);
                Stop::Error { exit, code, message: error.to_string() }
            }
            FindError::Attach { name, source } => faults::attach(&format!("block {name}"), &source),
            error => Stop::Error { exit: Exit::Failed, code: "block", message: error.to_string() },
        })?;
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

    /// The block that the broker names, if it is what the broker says (DH-199). Whatever is wrong with it, the directory
    /// decides.
    fn known(&self, hub: &MessageHub, channel: &ChannelName) -> Option<Found> {
        let mut discovery = Discovery::of(channel.clone());
        if let Some(verifier) = self.verifier(channel) {
            discovery = discovery.verifier(verifier);
        }
        let facts = match hub.discover(&discovery, ANSWER, RetryPolicy::none()) {
            Ok(discovered) => discovered.channel,
            Err(error) => {
                tracing::debug!(%error, "the broker knows no block");
                return None;
            }
        };
        let name = facts.shm_name.to_string();
        let block = attach(&name, &self.options()).ok()?;
        if let Err(error) = facts.check(block.descriptor()) {
            tracing::warn!(%error, "the broker's word on a channel is not taken");
            return None;
        }
        Some(Found { name, descriptor: Arc::clone(block.descriptor()) })
    }

    /// Proves to the broker that the secret is known.
    pub(super) fn verifier(&self, channel: &ChannelName) -> Option<Verifier> {
        self.secret.as_ref().map(|secret| Verifier::of(secret, channel))
    }

    fn options(&self) -> AttachOptions<'_> {
        let secret = self.secret.as_ref();
        AttachOptions { dir: self.dir.to_owned(), secret, ..AttachOptions::new(Role::Consumer) }
    }
}
