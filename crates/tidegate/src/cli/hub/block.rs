//! Which block a command is about (DH-264), and how errors of blocks end a command.

use std::path::PathBuf;

use clap::Args;
use tidegate::hub::block::{AttachError, AttachOptions, DEFAULT_DIR, Role, names};
use tidegate::hub::broker::{Discovery, RetryPolicy};
use tidegate::hub::inspect::Inspector;
use tidegate::hub::layout::ChannelName;
use tidegate::shm::region::{DirError, OpenError};

use super::connection::{ANSWER, Reach};
use crate::output::{Exit, HubExit, Report, Stop};

/// Where blocks are.
#[derive(Debug, Clone, Args)]
pub(crate) struct DirArgs {
    /// Directory of the blocks
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    /// Accepted for scripts: the output has no colours
    #[arg(long, hide = true)]
    no_color: bool,
}

/// Which block.
#[derive(Debug, Clone, Args)]
pub(crate) struct BlockArgs {
    /// Name of the block
    #[arg(value_name = "NAME", conflicts_with_all = ["shm_name", "channel"])]
    name: Option<String>,
    /// Name of the block
    #[arg(long, value_name = "NAME", conflicts_with = "channel")]
    shm_name: Option<String>,
    /// Channel: the block that the broker knows, else the one there is on this host
    #[arg(long, value_name = "CH")]
    channel: Option<String>,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    pub(crate) dir: DirArgs,
}

impl DirArgs {
    /// How blocks here are attached in `role`.
    pub(crate) fn options(&self, role: Role) -> AttachOptions<'static> {
        AttachOptions { dir: self.dir.clone(), ..AttachOptions::new(role) }
    }
}

impl BlockArgs {
    /// Name of the block.
    pub(crate) fn name(&self) -> Result<String, Stop> {
        match (self.name.as_ref().or(self.shm_name.as_ref()), &self.channel) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some(channel)) => self.find(channel),
            (None, None) => Err(Stop::usage("which block? Give its name, or --channel CH")),
        }
    }

    /// Opens the block read-only.
    pub(crate) fn open(&self) -> Result<Inspector, Stop> {
        Ok(Inspector::open(&self.name()?, &self.dir.options(Role::Inspector))?)
    }

    /// The block of a channel that the broker names, if it is here and of that channel.
    fn known(&self, channel: &str) -> Result<Option<String>, Stop> {
        let Ok(name) = ChannelName::new(channel) else { return Ok(None) };
        let Some(broker) = self.reach.open()? else { return Ok(None) };
        let found = match broker.hub.discover(&Discovery::of(name), ANSWER, RetryPolicy::none()) {
            Ok(found) => found.channel,
            Err(error) => {
                tracing::debug!(%error, "the broker knows no block");
                return Ok(None);
            }
        };
        let name = found.shm_name.to_string();
        let opened = Inspector::open(&name, &self.dir.options(Role::Inspector));
        Ok(opened.ok().filter(|block| found.check(block.descriptor()).is_ok()).map(|_| name))
    }

    /// The one block of a channel.
    fn find(&self, channel: &str) -> Result<String, Stop> {
        if let Some(name) = self.known(channel)? {
            return Ok(name);
        }
        let options = self.dir.options(Role::Inspector);
        let is_wanted = |name: &String| {
            let opened = Inspector::open(name, &options);
            opened.is_ok_and(|block| block.descriptor().spec.channel.as_str() == channel)
        };
        let mut found: Vec<String> = names(&self.dir.dir)?.into_iter().filter(is_wanted).collect();
        match (found.pop(), found.is_empty()) {
            (Some(name), true) => Ok(name),
            (None, _) => Err(Stop::Error {
                exit: Exit::Hub(HubExit::NotFound),
                code: "not_found",
                message: format!(
                    "no block of channel {channel} in {}; start its producer",
                    self.dir.dir.display()
                ),
            }),
            (Some(last), false) => {
                found.push(last);
                let message = format!("channel {channel} has several blocks, name one: {}", found.join(", "));
                Err(Stop::Error { exit: Exit::Usage, code: "ambiguous", message })
            }
        }
    }
}

/// The results say that something is wrong.
pub(crate) fn problems(found: bool) -> Result<(), Stop> {
    if found { Err(Stop::Reported(Exit::Hub(HubExit::Problems))) } else { Ok(()) }
}

impl Report for AttachError {
    fn exit(&self) -> Exit {
        match self {
            Self::Open(error) => open_exit(error),
            Self::Dir(error) => error.exit(),
            Self::UntrustedOwner { .. } | Self::AuthFailed { .. } | Self::KeyRequired { .. } => {
                Exit::Hub(HubExit::Permission)
            }
            Self::Locked => Exit::Hub(HubExit::Unsafe),
            Self::TooSmall { .. } | Self::Layout(_) | Self::StaleBoot { .. } | Self::Corrupt(_) => {
                Exit::Hub(HubExit::Damaged)
            }
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Open(error) => match open_exit(error) {
                Exit::Hub(HubExit::Permission) => "permission",
                Exit::Hub(HubExit::NotFound) => "not_found",
                _ => "io",
            },
            Self::Dir(error) => Report::code(error),
            Self::UntrustedOwner { .. } => "untrusted_owner",
            Self::AuthFailed { .. } => "auth_failed",
            Self::KeyRequired { .. } => "key_required",
            Self::Locked => "locked",
            Self::TooSmall { .. } | Self::Layout(_) | Self::Corrupt(_) => "damaged",
            Self::StaleBoot { .. } => "stale_boot",
            Self::NotReady { .. } => "not_ready",
            Self::Closed => "closed",
            _ => "block",
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::TooSmall { .. } | Self::Layout(_) => {
                Some("save a copy if that matters, then `tidegate hub force-unlink --force`")
            }
            Self::Open(_) => Some("`tidegate hub list` shows what there is"),
            _ => None,
        }
    }
}

fn open_exit(error: &OpenError) -> Exit {
    match error.errno() {
        Some(errno) if errno == rustix::io::Errno::NOENT.raw_os_error() => Exit::Hub(HubExit::NotFound),
        Some(errno) if errno == rustix::io::Errno::ACCESS.raw_os_error() => Exit::Hub(HubExit::Permission),
        _ => Exit::Failed,
    }
}

impl Report for DirError {
    fn exit(&self) -> Exit {
        match self {
            Self::Missing { .. } => Exit::Hub(HubExit::NotFound),
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "not_found",
            Self::InvalidName { .. } => "usage",
            _ => "io",
        }
    }
}
