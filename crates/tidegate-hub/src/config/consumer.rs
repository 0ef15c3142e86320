//! What a consumer attaches for.

use std::path::PathBuf;

use super::{ConfigInvalid, Fault, HubTimeouts, MetricsConfig, WaitStrategy};
use crate::{
    block::{AttachOptions, DEFAULT_DIR, ExpectedConfig, Role, Trust},
    core::{Start, codec::Claim},
    layout::{ChannelName, Secret},
    schema::{SchemaExpectation, SchemaMode},
};

/// What becomes of a slot whose reading failed (DH-105).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReadError {
    /// It comes again.
    #[default]
    Redeliver,
    /// The next one comes.
    Advance,
}

/// What a consumer attaches for.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Directory of the blocks.
    pub dir: PathBuf,
    /// A hugetlbfs mount with blocks.
    pub huge_dir: Option<PathBuf>,
    /// Whose blocks are accepted besides the own ones.
    pub trust: Trust,
    /// The secret of the channel.
    pub secret: Option<Secret>,
    /// Whether to lock the mapping into memory.
    pub lock_memory: bool,
    /// The channel it must be.
    pub channel: Option<ChannelName>,
    /// The records it must hold.
    pub schema: Option<SchemaExpectation>,
    /// How typed access judges the schema of the block when `schema` is none.
    pub schema_mode: SchemaMode,
    /// How the block must be made.
    pub expect: Option<ExpectedConfig>,
    /// Where to begin; none: as the policy suggests (DH-072).
    pub start: Option<Start>,
    /// Most slots held at a time, 1 to 65535 and at most the number of slots.
    pub max_held: u32,
    /// Whether reading the newest value may give the same one again (DH-112).
    pub allow_repeat: bool,
    /// What becomes of a slot whose reading failed.
    pub on_read_error: OnReadError,
    /// Unique id of the consumer, at most 40 bytes.
    pub uid: String,
    /// Name for people, at most 32 bytes.
    pub name: String,
    /// Whether the process's thread beats for the consumer (DH-233).
    pub heartbeat_thread: bool,
    /// Whether this process cleans up after a writer that died, so that what was finished can be read at once.
    pub recover_writer: bool,
    /// How long things may take.
    pub timeouts: HubTimeouts,
    /// How the consumer waits.
    pub wait: WaitStrategy,
    /// What is measured.
    pub metrics: MetricsConfig,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            dir: DEFAULT_DIR.into(),
            huge_dir: None,
            trust: Trust::default(),
            secret: None,
            lock_memory: false,
            channel: None,
            schema: None,
            schema_mode: SchemaMode::Strict,
            expect: None,
            start: None,
            max_held: 1,
            allow_repeat: false,
            on_read_error: OnReadError::default(),
            uid: String::new(),
            name: String::new(),
            heartbeat_thread: true,
            recover_writer: true,
            timeouts: HubTimeouts::default(),
            wait: WaitStrategy::Hybrid,
            metrics: MetricsConfig::default(),
        }
    }
}

impl ConsumerConfig {
    /// Checks everything.
    ///
    /// # Errors
    /// Every field that is not valid.
    pub fn validate(&self) -> Result<(), ConfigInvalid> {
        let mut faults: Vec<Fault> = self.timeouts.faults().into_iter().map(Fault::Value).collect();
        if !(1..=Claim::MAX_COUNT).contains(&self.max_held) {
            faults.push(Fault::MaxHeld { max_held: self.max_held });
        }
        for (field, text, limit) in [("uid", &self.uid, 40), ("name", &self.name, 32)] {
            if text.len() > limit {
                let fault = crate::layout::Mismatch::range(field, 0, limit as u64, text.len() as u64);
                faults.push(Fault::Value(fault));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigInvalid { faults }) }
    }

    /// How the block is attached in `role`, without what is expected of it.
    pub(crate) fn attach_options(&self, role: Role) -> AttachOptions<'_> {
        AttachOptions {
            dir: self.dir.clone(),
            huge_dir: self.huge_dir.clone(),
            trust: self.trust.clone(),
            secret: self.secret.as_ref(),
            init_wait: self.timeouts.init_wait,
            lock_memory: self.lock_memory,
            ..AttachOptions::new(role)
        }
    }
}
