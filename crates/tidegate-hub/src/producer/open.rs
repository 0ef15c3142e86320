//! Making a block and taking one over.

use std::{mem::offset_of, sync::Arc, thread, time::Duration};

use tidegate_shm::{clock::monotonic_now, sync::AtomicU32};

use super::{EndOfLife, Producer, digest::Digests, typed::TypedCheck};
use crate::{
    attachment::{Process, WriterWords, writer_core},
    block::{AttachError, AttachOptions, Block, CreateError, Expectations, Role, attach, create},
    config::{HubConfig, IfExists, Timeout},
    core::{Adopted, TakeOver, config::Deadline, writer::Writer},
    error::{AcquireError, OpenError},
    handover::{
        Predecessors, call_off, end, end_closed, floor_hold, not_left_yet, observe, retire_predecessor,
    },
    layout::pages::ControlPage,
    upkeep::{self, Beats, Member, ProducerMember},
};

impl Producer {
    /// Makes a block, or takes over the one that exists, as the configuration says (DH-017).
    ///
    /// # Errors
    /// The configuration is not valid, the block cannot be made, or exists and may not be taken.
    pub fn create(config: &HubConfig) -> Result<Self, OpenError> {
        config.validate()?;
        let make = || Self::of_new(Arc::new(create(&config.block_spec(), &config.create_options())?), config);
        let Some(uuid) = config.uuid.filter(|_| config.if_exists == IfExists::Adopt) else { return make() };
        let name = config.channel.file_name(&uuid);
        let mut tries = 0..TRIES;
        loop {
            let over = match Self::adopt(&name, config, Timeout::Default) {
                Err(OpenError::Attach(error))
                    if error.is_missing() || matches!(error, AttachError::Closed) =>
                {
                    error
                }
                result => return result,
            };
            match make() {
                // Somebody else has made it meanwhile, or it is closed and its name was to stay.
                Err(OpenError::Create(CreateError::AlreadyExists { .. })) if tries.next().is_some() => {}
                Err(OpenError::Create(CreateError::AlreadyExists { .. })) => return Err(over.into()),
                result => return result,
            }
        }
    }

    /// Takes over the block whose file is `name` from a writer that is dead or has left (5.10); ids go on where it
    /// stopped. Waits until then if it still lives.
    ///
    /// # Errors
    /// The configuration is not valid, the block is not what it says, or its writer lives on. A block that takes no more
    /// data, since its writer died while it closed it or was cut off by force, or since the block that it was left for is
    /// gone, is ended instead: its name goes, and the error is [`AttachError::Closed`], as of one that its writer closes
    /// meanwhile; the channel goes on in a new block.
    pub fn adopt(name: &str, config: &HubConfig, timeout: Timeout) -> Result<Self, OpenError> {
        config.validate()?;
        let deadline = timeout.deadline(config.timeouts.maintenance_lock);
        // The writer may live for long; whoever only cleans up after it is done in a moment.
        let mut pause = SHORTEST;
        let mut was_there = false;
        loop {
            let error = match Self::adopt_now(name, config, deadline) {
                Err(error) if error.may_pass() => error,
                Err(OpenError::Attach(error)) if was_there && error.is_missing() => {
                    return Err(AttachError::Closed.into());
                }
                result => return result,
            };
            let now = monotonic_now();
            if deadline.passed(now) {
                return Err(error);
            }
            was_there = true;
            thread::sleep(pause.min(deadline.left(now).into()));
            pause = (pause * 2).min(LONGEST);
        }
    }

    fn adopt_now(name: &str, config: &HubConfig, deadline: Deadline) -> Result<Self, OpenError> {
        let options = AttachOptions {
            dir: config.dir.clone(),
            huge_dir: config.huge_dir.clone(),
            trust: config.trust.clone(),
            secret: config.secret.as_ref(),
            init_wait: config.timeouts.init_wait,
            lock_memory: config.lock_memory,
            expect: Expectations { channel: Some(&config.channel), ..Expectations::default() },
            ..AttachOptions::new(Role::Writer)
        };
        let mut name = name.to_owned();
        // A block that says that the channel has left it.
        let mut left = None;
        for _ in 0..MOVES {
            let block = match attach(&name, &options) {
                Ok(block) => Arc::new(block),
                Err(AttachError::Closed) => {
                    name = end_closed(&name, config, &options, deadline)?;
                    continue;
                }
                Err(error) => match left {
                    // And where it went was ended, or removed, before it was.
                    Some(left) if error.is_missing() => {
                        end(&left, config, deadline)?;
                        return Err(AttachError::Closed.into());
                    }
                    _ => return Err(error.into()),
                },
            };
            left = None;
            let announced = observe(&block.inspector_views()?).filter(|announced| announced.state.is_cut());
            if let Some(announced) = announced {
                // The channel is in the successor (15.6).
                name = announced.name;
                left = Some(block);
                continue;
            }
            if let Some(old) = not_left_yet(block.descriptor(), &options) {
                // The channel never came here.
                name = old;
                continue;
            }
            let core = writer_core(&block, config.wait, config.timeouts.timing())?;
            let hold = floor_hold(&block, &options);
            let adopted = core.adopt_holding(TakeOver::IfDead, deadline, hold)?;
            if adopted.handover {
                call_off(&adopted.writer, &options);
            }
            let predecessors = retire_predecessor(block.descriptor(), config, &options);
            match adopted.writer.check_open() {
                Err(AcquireError::Closed { handed_over: true }) => {
                    // Its writer moved the channel before it died.
                    let _ = adopted.writer.resign();
                    continue;
                }
                Err(AcquireError::Closed { handed_over: false }) => {
                    predecessors.finish();
                    // What was committed is there to be read for those who have it. Not ours any more means that somebody
                    // else ends it.
                    let _ = adopted.writer.finish_closing(|| block.remove_name());
                    return Err(OpenError::Attach(AttachError::Closed));
                }
                _ => {}
            }
            // Nothing is the matter with the block: who tries again finds it as it was.
            let mut producer = Self::open(block, adopted, config, Opened::resign)?;
            producer.follow(predecessors);
            producer.note::<{ offset_of!(ControlPage, writer_attached_ns) }>();
            return Ok(producer);
        }
        Err(OpenError::Attach(AttachError::Closed))
    }

    /// The producer of a block that this process has just made.
    pub(crate) fn of_new(block: Arc<Block>, config: &HubConfig) -> Result<Self, OpenError> {
        let core = writer_core(&block, config.wait, config.timeouts.timing())
            .inspect_err(|_| block.remove_name())?;
        let adopted = Adopted { writer: core.created()?, abandoned: 0, handover: false };
        // Nobody may find it without a producer.
        let give_up = |writer: &Opened| writer.finish_closing(|| block.remove_name());
        Self::open(block.clone(), adopted, config, give_up)
    }

    fn open(
        block: Arc<Block>,
        adopted: Adopted<WriterWords, Process, crate::core::protocol::Shipped>,
        config: &HubConfig,
        give_up: impl FnOnce(&Opened) -> Result<(), AcquireError>,
    ) -> Result<Self, OpenError> {
        let Adopted { mut writer, abandoned, .. } = adopted;
        writer.set_stall(config.stall);
        writer.core().host().set_measuring(config.metrics.enabled);
        let beats = Beats::new(&config.timeouts, config.heartbeat_thread);
        let member = Arc::new(ProducerMember::new(writer.core().clone(), beats));
        let end = EndOfLife { unlink: config.unlink_on_close, linger: config.close_linger, done: false };
        member.beat();
        let known: Arc<dyn Member> = member.clone();
        let kept = upkeep::register(Arc::downgrade(&known)).map_err(OpenError::Upkeep);
        let digests = match kept.and_then(|()| Digests::of(&block, config.secret.as_ref())) {
            Ok(digests) => digests,
            Err(error) => {
                // Not ours any more is as well.
                let _ = give_up(&writer);
                return Err(error);
            }
        };
        Ok(Self {
            writer,
            block,
            member,
            timeouts: config.timeouts.clone(),
            end,
            zero_on_acquire: config.zero_on_acquire,
            sample_every: config.metrics.sample_every,
            operations: AtomicU32::new(0),
            typed: TypedCheck::default(),
            digests,
            secret: config.secret.clone(),
            abandoned,
            notifier: None,
            handing_over: AtomicU32::new(0),
            predecessors: Predecessors::default(),
        })
    }
}

type Opened = Writer<WriterWords, Process>;

/// Blocks that a channel may have moved through since somebody learnt its name.
const MOVES: u32 = 64;
/// How often others may make a block by the name before this process does.
const TRIES: u32 = 1;
/// How often to ask whether the writer still lives: the longer, the longer it does.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(16);
