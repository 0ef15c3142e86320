//! Channels of the data hub as ends of a vertex: how they are found, and what can go wrong with them.
//!
//! A channel is the one block of its name that is in use in the directory of the blocks. No broker is asked.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use tidegate_hub::{
    block::{AttachOptions, DEFAULT_DIR, FindError, Found, Role, find},
    error::{AcquireError, FollowError, OpenError, WriteError},
    layout::{ChannelName, Secret},
    secret::{SecretError, read_key_file},
};

/// Why a channel cannot be an end of this vertex.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// There is no such channel.
    #[error(
        "no channel {channel} is in use in {}; start its producer first, or name the directory with dir",
        dir.display()
    )]
    NoChannel {
        /// Its name.
        channel: ChannelName,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Several blocks say that they are the channel.
    #[error("channel {channel} has several blocks in {}: {}; stop or remove all but one", dir.display(), names.join(", "))]
    Ambiguous {
        /// Its name.
        channel: ChannelName,
        /// Where they are.
        dir: PathBuf,
        /// Names of their files.
        names: Vec<String>,
    },
    /// The blocks cannot be looked at.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The block cannot be made, taken over or read.
    #[error("channel {channel}: {source}")]
    Open {
        /// Its name.
        channel: ChannelName,
        /// Why.
        source: Box<OpenError>,
    },
    /// The channel is made in another way than the pipeline file expects.
    #[error("channel {channel}: {key} is {found}; it has to be {expected}")]
    Made {
        /// Its name.
        channel: ChannelName,
        /// What differs, as the pipeline file calls it.
        key: &'static str,
        /// How it is made.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// It goes on where nobody can follow.
    #[error("channel {channel}: {source}")]
    Follow {
        /// Its name.
        channel: ChannelName,
        /// Why.
        source: Box<FollowError>,
    },
    /// A slot cannot be read.
    #[error("channel {channel}: {source}")]
    Read {
        /// Its name.
        channel: ChannelName,
        /// Why.
        source: AcquireError,
    },
    /// A slot cannot be written.
    #[error("channel {channel}: {source}")]
    Write {
        /// Its name.
        channel: ChannelName,
        /// Why.
        source: WriteError,
    },
    /// A slot that is no output of a vertex.
    #[error(
        "slot {id} of channel {channel}: {field} is {found}, allowed is {allowed}; set format = \"value\" unless a vertex \
         writes the channel"
    )]
    Slot {
        /// Name of the channel.
        channel: ChannelName,
        /// Id of the slot.
        id: u64,
        /// What is wrong.
        field: &'static str,
        /// What it is.
        found: u64,
        /// What it may be.
        allowed: u64,
    },
}

/// A channel, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) channel: ChannelName,
    pub(crate) dir: PathBuf,
    pub(crate) secret: Option<Secret>,
}

impl Place {
    /// Reads the secret, if the channel has one.
    pub(crate) fn new(channel: &ChannelName, dir: &Path, secret: Option<&Path>) -> Result<Self, HubError> {
        let secret = secret.map(read_key_file).transpose()?;
        Ok(Self { channel: channel.clone(), dir: dir.to_owned(), secret })
    }

    /// The block that is in use, if there is one.
    pub(crate) fn find(&self) -> Result<Option<Found>, HubError> {
        let secret = self.secret.as_ref();
        let options = AttachOptions { dir: self.dir.clone(), secret, ..AttachOptions::new(Role::Consumer) };
        let mut found = find(&self.channel, &options)?;
        if found.len() > 1 {
            let names = found.into_iter().map(|found| found.name).collect();
            return Err(HubError::Ambiguous { channel: self.channel.clone(), dir: self.dir.clone(), names });
        }
        Ok(found.pop())
    }

    /// The block that is in use.
    pub(crate) fn known(&self) -> Result<Found, HubError> {
        let missing = || HubError::NoChannel { channel: self.channel.clone(), dir: self.dir.clone() };
        self.find()?.ok_or_else(missing)
    }

    pub(crate) fn failed(&self, source: OpenError) -> HubError {
        HubError::Open { channel: self.channel.clone(), source: Box::new(source) }
    }
}

/// The name of a channel in a pipeline file.
pub(crate) fn channel_name<'de, D: serde::Deserializer<'de>>(from: D) -> Result<ChannelName, D::Error> {
    let name = String::deserialize(from)?;
    let wrong = |error| serde::de::Error::custom(format!("channel is {name:?}: {error}"));
    ChannelName::new(&name).map_err(wrong)
}

pub(crate) fn default_dir() -> PathBuf {
    DEFAULT_DIR.into()
}
