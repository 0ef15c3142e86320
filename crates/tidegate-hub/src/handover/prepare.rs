//! The producer's side: prepare, ask, cut (15.3).

use std::{sync::Arc, thread, time::Duration};

use tidegate_shm::clock::{Nanos, monotonic_now};

use super::{
    HandoverError, HandoverState,
    page::{Writing, answer_of},
};
use crate::{
    block::Building,
    config::HubConfig,
    core::{codec::SlotId, config::Deadline, crash, crash::Point},
    error::AcquireError,
    layout::{BlockSpec, BlockUuid},
    producer::Producer,
};

/// Whom a producer asks before it moves the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confirm {
    /// Every consumer that takes part.
    #[default]
    All,
    /// At least one, if there is any.
    Any,
    /// Nobody.
    None,
}

/// What is done when consumers that are asked do not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSilence {
    /// The handover is called off.
    #[default]
    Cancel,
    /// It is made.
    Proceed,
}

/// How a channel is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandoverOptions {
    /// Whom to ask.
    pub confirm: Confirm,
    /// What to do about those who do not answer.
    pub on_silence: OnSilence,
    /// How long to wait for answers, for slots that are being written, and for consumers to follow; none:
    /// `handover_grace` of the new block's timeouts.
    pub grace: Option<Duration>,
    /// Whether slots that are still being written when the time is up are aborted instead of the handover (DH-223).
    pub abort_pending: bool,
}

/// What consumers answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answers {
    /// They come along.
    pub ready: u32,
    /// They do not.
    pub refused: u32,
    /// They did not answer.
    pub silent: u32,
}

/// A handover that is prepared: writing goes on in the old block. Dropped, it is called off.
#[derive(Debug)]
pub struct Handover<'p> {
    producer: &'p Producer,
    config: HubConfig,
    options: HandoverOptions,
    grace: Duration,
    epoch: u32,
    uuid: BlockUuid,
    name: String,
    /// None once it is made or called off.
    building: Option<Building>,
}

impl Producer {
    /// Prepares moving the channel to a new block made as `config` says, whose ids go on where those of this block end
    /// (15.3, steps 1 and 2). All memory that it needs is reserved; nobody sees it yet.
    ///
    /// # Errors
    /// The configuration is not valid, the block cannot be made, or this one was moved already.
    pub fn begin_handover(
        &self,
        config: &HubConfig,
        options: HandoverOptions,
    ) -> Result<Handover<'_>, HandoverError> {
        config.validate()?;
        self.block().check().map_err(|_| AcquireError::Fenced)?;
        let spec = BlockSpec { predecessor: Some(self.descriptor().uuid), ..config.block_spec() };
        let building = Building::new(&spec, &config.create_options())?;
        self.writer().check_open()?;
        if !self.start_handover() {
            return Err(HandoverError::UnderWay);
        }
        let mut handover = Handover {
            producer: self,
            config: config.clone(),
            options,
            grace: options.grace.unwrap_or(config.timeouts.handover_grace),
            epoch: 0,
            uuid: building.uuid(),
            name: building.name().to_owned(),
            building: None,
        };
        let now = monotonic_now();
        handover.epoch = handover.page().prepare(&handover.uuid, &handover.name, now);
        handover.building = Some(building);
        crash::at(Point::HandoverPrepare);
        self.writer().core().wake_readers();
        Ok(handover)
    }
}

impl Handover<'_> {
    /// Number of the attempt.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The block that will follow.
    pub fn successor(&self) -> (&BlockUuid, &str) {
        (&self.uuid, &self.name)
    }

    /// How the new block is made.
    pub fn config(&self) -> &HubConfig {
        &self.config
    }

    /// How long everybody is waited for.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// What the consumers that take part have answered so far.
    pub fn answers(&self) -> Answers {
        let core = self.producer.writer().core();
        let views = core.words().views();
        let mut answers = Answers::default();
        for row in core.active_rows() {
            match views.consumers.row(row.0).map(|row| answer_of(&row, self.epoch)) {
                Some(Some(true)) => answers.ready += 1,
                Some(Some(false)) => answers.refused += 1,
                Some(None) | None => answers.silent += 1,
            }
        }
        answers
    }

    /// Waits for the answers that are wanted, then moves the channel: the next write is the new producer's, and writing
    /// through the old one ends in `Closed` (DH-224). The old block goes when nobody reads there any more, at the latest
    /// after three times the grace (15.3, steps 3 to 6).
    ///
    /// # Errors
    /// Consumers do not come along, slots are still being written, or the new block cannot be completed. Then the
    /// handover is called off.
    pub fn cut(&mut self) -> Result<Producer, HandoverError> {
        if self.building.is_none() {
            return Err(HandoverError::Over);
        }
        let made = self.confirm().and_then(|()| self.make());
        if made.is_err() {
            self.call_off();
        }
        made
    }

    /// Calls the handover off: the old block goes on as if nothing had been.
    ///
    /// # Errors
    /// It was made or called off already (DH-229).
    pub fn cancel(&mut self) -> Result<(), HandoverError> {
        if self.building.is_none() {
            return Err(HandoverError::Over);
        }
        self.call_off();
        Ok(())
    }

    /// Step 3.
    fn confirm(&self) -> Result<(), HandoverError> {
        let deadline = monotonic_now().saturating_add(self.grace.into());
        loop {
            let answers = self.answers();
            let Answers { ready, refused, silent } = answers;
            // Whoever is still on the way here from the block before must find this one.
            let all_here = !self.producer.writer().holds_floor();
            let decided = match self.options.confirm {
                _ if !all_here => None,
                Confirm::None => Some(true),
                Confirm::All if refused > 0 => Some(false),
                Confirm::Any if ready > 0 => Some(true),
                Confirm::All | Confirm::Any if silent == 0 => Some(refused == 0),
                _ => None,
            };
            let over = (monotonic_now() >= deadline).then_some(self.options.on_silence == OnSilence::Proceed);
            match decided.or(over) {
                Some(true) => return Ok(()),
                Some(false) => return Err(HandoverError::NotConfirmed(answers)),
                // Who is dead answers nothing and takes part no longer once this is done.
                None => drop(self.producer.reap()),
            }
            thread::sleep(POLL);
        }
    }

    /// Step 4.
    fn make(&mut self) -> Result<Producer, HandoverError> {
        let Some(building) = self.building.take() else { return Err(HandoverError::Over) };
        let Self { producer: old, config, options, grace, .. } = self;
        let deadline = Deadline::At(monotonic_now().saturating_add((*grace).into()));
        let page = Writing(old.writer().core().words().views().control.row());
        let (mut producer, cut) = old.writer().hand_over(deadline, options.abort_pending, |end| {
            crash::at(Point::HandoverQuiesce);
            // From here to the cut everything may fail, and what was made is removed again.
            let mut producer = successor(building, end, config)?;
            crash::at(Point::HandoverLink);
            let cut = monotonic_now();
            let until = cut.saturating_add((*grace).into());
            producer.hold_floor(old.consumer_count(), until);
            // Who was paused and cut off meanwhile moves the channel nowhere: what is in the old block is others' business.
            if let Err(error) = old.writer().check_open() {
                producer.discard();
                return Err(error.into());
            }
            page.cut(end, until);
            crash::at(Point::HandoverCut);
            Ok::<_, HandoverError>((producer, cut))
        })?;
        old.writer().core().wake_readers();
        let over = cut.saturating_add(Nanos(Nanos::from(*grace).0.saturating_mul(3)));
        producer.follow(old.predecessors().and(old.member().clone(), None, over));
        Ok(producer)
    }

    fn call_off(&mut self) {
        self.building = None;
        // Whoever lost the block leaves its words to the next writer, who calls it off.
        if self.producer.member().is_writer() {
            self.page().store_state(HandoverState::Cancelled);
            self.producer.writer().core().wake_readers();
        }
        // Now the next one may begin.
        self.producer.end_handover();
    }

    fn page(&self) -> Writing<'_> {
        Writing(self.producer.writer().core().words().views().control.row())
    }
}

impl Drop for Handover<'_> {
    fn drop(&mut self) {
        if self.building.is_some() && self.producer.block().check().is_ok() {
            self.call_off();
        }
    }
}

/// The new block, complete and with its name.
fn successor(building: Building, first: SlotId, config: &HubConfig) -> Result<Producer, HandoverError> {
    Ok(Producer::of_new(Arc::new(building.link(first.0)?), config)?)
}

/// How often to look for answers.
const POLL: Duration = Duration::from_micros(500);
