//! A vertex: one thread that reads the source, sends batches to the lanes, and writes what comes back to the sinks.
//!
//! ```text
//!  source --> flow of a partition --permit--> lane --> worker
//!                    ^                                    |
//!                    +---------- inbox <---- answers -----+
//!                    |
//!                    +--permit--> sinks, batch by batch, or by epochs: SEAL, PERSIST, PREPARE, COMMIT
//! ```
//!
//! A partition belongs to the lane `partition mod workers`, so its batches are answered in order; without order it has all lanes
//! (VX-440). Nothing grows
//! without bound: a batch is sent only when there is room for its answer, and a partition reads ahead by its window only
//! (VX-310, VX-311); a sink that is slow stops the source.
//!
//! | module | gives |
//! |---|---|
//! | `backlog` | what sinks that are not required have still to take |
//! | `careful` | partitions whose last runs took the runtime with them |
//! | `claim` | the beginning and end of a session of a partition |
//! | `linger` | outputs that wait for more |
//! | `lanes` | batches to the workers and answers from them |
//! | `outgoing` | outputs to the sinks |
//! | `read` | reading ahead |
//! | `turns` | whose turn it is on a lane, or to read |
//! | `commit` | progress: cursors and epochs |
//! | `oversee` | the end of a run that is stuck in a write |

mod backlog;
mod careful;
mod claim;
mod commit;
mod cursors;
mod dead;
mod error;
mod lanes;
mod linger;
mod outgoing;
mod oversee;
mod read;
mod report;
mod tenure;
mod turns;
mod watch;

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering},
};
use tidegate_udf::wire::{ids::PartitionId, record::RecordWriter};

pub use error::VertexError;
pub use report::{ByClass, Report};
pub use watch::memory;

use crate::{
    config::{Delivery as Promise, Pipeline},
    failpoint::{self, Point},
    fence::{FenceTable, Reason, WriteGuard},
    inbox::Inbox,
    lane::{
        door::Door,
        hears::Heard,
        session::Typing,
        supervise::{AttachError, Lane, LaneEvent, random},
    },
    ledger::{Disk, Ledger},
    operate::{Board, Control, Doing, Wish},
    own::Manager,
    sink::{self, OutputIds},
    source::{self, Budget, Source},
    wake::Waker,
};
use backlog::Backlog;
use dead::Letters;
use lanes::LaneState;
use outgoing::{End, SinkMeter, Sorter, Way};
use oversee::{Ended, oversee};
use tenure::Partition;
use turns::Turns;
use watch::Meter;

/// A handle by which another thread ends a vertex or takes its right to write.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    inbox: Arc<Inbox<Event>>,
    fences: Arc<Mutex<Vec<(PartitionId, WriteGuard)>>>,
}

impl Stop {
    /// Asks the vertex to read no more, to finish what it has begun, and to end.
    pub fn drain(&self) {
        // Relaxed: nothing is published with it.
        self.asked.store(true, Ordering::Relaxed);
        self.inbox.wake();
    }

    /// Takes the right to write to a partition, or to all of them, now, whatever the vertex is doing (VX-724). Returns the
    /// guards, by which the end of writes from before can be awaited.
    pub fn fence(&self, partition: Option<PartitionId>, reason: Reason) -> Vec<(PartitionId, WriteGuard)> {
        let guards: Vec<_> = lock(&self.fences)
            .iter()
            .filter(|(id, _)| partition.is_none_or(|partition| partition == *id))
            .cloned()
            .collect();
        for (_, guard) in &guards {
            guard.revoke(reason);
        }
        self.inbox.wake();
        guards
    }
}

#[derive(Debug)]
enum Event {
    Lane(u32, LaneEvent),
    /// A worker came by itself whose schemas do not fit.
    Misfit(AttachError),
}

/// A vertex, to be run.
pub struct Vertex {
    pipeline: Pipeline,
    source: Box<dyn Source>,
    sinks: Vec<End>,
    /// The sink of each route.
    routes: Vec<usize>,
    letters: Option<Letters>,
    partitions: Vec<Partition>,
    lanes: Vec<LaneState>,
    /// What records are.
    typing: Typing,
    /// Where workers come in that somebody else starts.
    door: Option<Door>,
    /// Of those, how many in a row have had other schemas, while there was no worker.
    misfits: u32,
    heard: Arc<Heard>,
    /// Whose turn it is when all partitions share all lanes.
    turns: Turns,
    /// Whose turn it is to read.
    reads: Turns,
    inbox: Arc<Inbox<Event>>,
    asked: Arc<AtomicBool>,
    budget: Budget,
    /// Answers that there is room for.
    room: usize,
    /// Where payloads of requests are made.
    payload: RecordWriter,
    ledger: Option<Ledger<Disk>>,
    manager: Arc<dyn Manager>,
    fence: FenceTable,
    fences: Arc<Mutex<Vec<(PartitionId, WriteGuard)>>>,
    /// Hash of the function's program.
    function: u128,
    last_commit: Nanos,
    report: Report,
    board: Arc<Board>,
    meter: Meter,
}

impl Vertex {
    /// Opens source and sinks, claims the partitions and starts the workers.
    ///
    /// # Errors
    /// As [`VertexError`] says; nothing was read.
    pub fn start(pipeline: Pipeline) -> Result<Self, VertexError> {
        let manager = claim::manager(&pipeline)?;
        Self::start_under(pipeline, manager)
    }

    /// As [`Vertex::start`], under a manager of its own.
    ///
    /// # Errors
    /// As [`Vertex::start`].
    pub fn start_under(pipeline: Pipeline, manager: Arc<dyn Manager>) -> Result<Self, VertexError> {
        let inbox = Arc::new(Inbox::new());
        let waking = inbox.clone();
        let waker = Waker::new(move || waking.wake());
        let mut source = source::open(&pipeline.source, &waker)?;
        let mut sinks = Vec::new();
        for config in &pipeline.sink {
            let sink = sink::open(config, pipeline.uid(), pipeline.keep(), &waker)?;
            let ids = OutputIds::new(pipeline.uid(), config.name());
            let late = (!config.required).then(|| Backlog::new(config.buffer.0));
            let (config, meter) = (config.clone(), SinkMeter::default());
            sinks.push(End { config, sink, ids, dirty: false, state: None, late, meter });
        }
        let ledger = match &pipeline.ledger {
            Some(config) => {
                Some(Ledger::open(Disk::open(&config.path, pipeline.new_ledger)?, pipeline.uid())?)
            }
            None => None,
        };
        if let Some(ledger) = &ledger {
            source.remember(&claim::resumes(ledger)?);
        }
        let instance = random()?;
        let fence = FenceTable::create(instance, source.partitions().max(MIN_SLOTS))?;
        let transport = pipeline.transport();
        let count = source.partitions();
        pipeline.check_only(count)?;
        let budget = Budget {
            records: pipeline.batch.max_records.get() as usize,
            bytes: pipeline.batch.max_bytes.0 as usize,
            value: pipeline.longest_record(),
        };
        // The other half is for outputs that wait for their commit.
        let room = (pipeline.limits.epoch_buffers.0 / 2 / transport.max_response) as usize;
        // Before anything is claimed: another vertex may be there.
        let typing = pipeline.typing()?;
        let knocking = inbox.clone();
        let tell = move |error| knocking.tell(Event::Misfit(error));
        let door = pipeline.door(typing).map(|spec| Door::open(spec, tell)).transpose()?;
        let spec = lanes::worker_spec(&pipeline, typing, door.as_ref(), instance);
        let owners = inbox.clone();
        manager.watch(Arc::new(move || owners.wake()));
        let ringing = inbox.clone();
        let board = Board::new(count, move || ringing.wake());
        let meter = Meter::new(&pipeline);
        let mut vertex = Self {
            routes: pipeline.routes().map(|(index, _)| index).collect(),
            letters: Letters::of(&pipeline),
            function: claim::fingerprint(&pipeline.udf.command),
            pipeline,
            source,
            sinks,
            partitions: (0..count).map(PartitionId).map(Partition::new).collect(),
            lanes: Vec::new(),
            door,
            heard: Heard::start().map_err(|source| VertexError::Thread { source })?,
            typing,
            misfits: 0,
            turns: Turns::default(),
            reads: Turns::default(),
            inbox: inbox.clone(),
            asked: Arc::new(AtomicBool::new(false)),
            budget,
            room,
            payload: RecordWriter::default(),
            ledger,
            manager,
            fence,
            fences: Arc::new(Mutex::new(Vec::new())),
            last_commit: monotonic_now(),
            report: Report::default(),
            board,
            meter,
        };
        vertex.say_memory();
        vertex.claim_at_start()?;
        failpoint::at(Point::Claimed);
        for number in 0..vertex.pipeline.udf.workers.get() {
            let inbox = inbox.clone();
            let tell = move |event| inbox.tell(Event::Lane(number, event));
            let lane = Lane::start(number, spec.clone(), &vertex.fence, vertex.heard.clone(), tell)
                .map_err(|source| VertexError::Lane { lane: number, source })?;
            let limit = vertex.pipeline.restarts();
            vertex.lanes.push(LaneState::new(lane, limit));
        }
        Ok(vertex)
    }

    /// A handle by which another thread ends the vertex.
    pub fn stop_handle(&self) -> Stop {
        Stop { asked: self.asked.clone(), inbox: self.inbox.clone(), fences: self.fences.clone() }
    }

    /// A handle by which other threads watch and steer the vertex.
    pub fn control(&self) -> Control {
        Control::new(self.board.clone())
    }

    /// Runs until the source has no more and everything is written, or until it is told to stop.
    ///
    /// # Errors
    /// As [`VertexError`] says. The fences are revoked and the workers ended (I2), unless it is
    /// [`VertexError::Pending`]: then a write hangs in a thread that is left behind, and the process has to end (VX-733).
    pub fn run(self) -> Result<Report, VertexError> {
        let fences = self.fences.clone();
        let guards = move || lock(&fences).clone();
        match oversee(move || self.run_here(), guards, LOOK, claim::LONGEST_WRITE) {
            Ok(Ended::By(result)) => result,
            Ok(Ended::Stuck(PartitionId(partition), running)) => {
                Err(VertexError::Pending { partition, running })
            }
            Err(source) => Err(VertexError::Thread { source }),
        }
    }

    fn run_here(mut self) -> Result<Report, VertexError> {
        let ended = self.work();
        // Nothing is written any more to a ledger that has failed (VX-776).
        let stopped = match &ended {
            Err(VertexError::Ledger(_)) => Ok(()),
            _ => self.say_stopped(0..self.partitions.len()),
        };
        for index in 0..self.partitions.len() {
            self.end_tenure(index, Reason::Shutdown);
        }
        self.end_backlogs();
        let quiesced = self.await_writes();
        self.manager.leave();
        // Nobody comes in any more.
        self.door = None;
        for lane in &self.lanes {
            lane.lane.stop();
        }
        // Waits for the workers.
        self.lanes.clear();
        self.heard.finish();
        self.report.counters = self.heard.function().counters;
        self.report.left_out = self.source.left_out();
        ended?;
        stopped?;
        quiesced?;
        debug_assert!(self.report.balances(), "an input without an outcome: {:?}", self.report);
        Ok(self.report)
    }

    fn work(&mut self) -> Result<(), VertexError> {
        self.board.say(self.status());
        let mut give_up = None;
        loop {
            self.board.tick();
            while let Some(event) = self.inbox.take() {
                match event {
                    Event::Lane(lane, event) => self.happened(lane, event)?,
                    Event::Misfit(error) => self.misfit(error)?,
                }
            }
            self.claim()?;
            self.deliver()?;
            let stopping = self.is_ending();
            if !stopping {
                self.read()?;
            }
            let looked = monotonic_now();
            self.keep_marks()?;
            self.send();
            let due = self.commit(stopping)?;
            self.catch_up()?;
            let finished = self.is_finished(stopping);
            let now = monotonic_now();
            // Sinks that no commit waits for get a little more time.
            let waits = match (&finished, self.patience()) {
                (Ok(true), Some(patience)) => now < *give_up.get_or_insert(now.saturating_add(patience)),
                _ => false,
            };
            let gave_away = !waits && self.give_away()?;
            if self.board.wants_status() || !waits && !matches!(finished, Ok(false)) {
                self.board.say(self.status());
            }
            if finished? && !waits {
                return Ok(());
            }
            if gave_away || self.has_place_again() {
                // Released at once, since the lease runs; or a commit made place for answers that have waited.
                continue;
            }
            let limit = now.saturating_add(LONGEST_SLEEP);
            let late = self.sinks.iter().filter_map(|end| end.late.as_ref()?.next_time());
            let due = due.into_iter().chain(late).chain(give_up).min();
            let times =
                self.partitions.iter().filter_map(|partition| partition.tenure.as_ref()?.next_time(looked));
            let deadline = times.chain(due).min();
            self.inbox.wait_until(deadline.unwrap_or(limit).min(limit));
        }
    }

    /// Whether it was told to end.
    fn is_ending(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.board.is_to_end()
    }

    /// Nothing is on its way and nothing comes any more; a partition that stopped stays as it is.
    ///
    /// # Errors
    /// No partition is left that is owned, and none comes back (VX-234).
    fn is_finished(&self, stopping: bool) -> Result<bool, VertexError> {
        let mut owned = 0;
        for tenure in self.partitions.iter().filter_map(|partition| partition.tenure.as_ref()) {
            owned += 1;
            if !tenure.is_settled() || !(tenure.is_over() || stopping && tenure.flow.is_empty()) {
                return Ok(false);
            }
        }
        if owned == self.partitions.len() || stopping {
            return Ok(true);
        }
        let mut own =
            self.partitions.iter().filter(|partition| self.pipeline.may_have(partition.id)).peekable();
        if own.peek().is_some() && own.all(|partition| partition.refused.is_some()) {
            let regressed = |partition: &&Partition| partition.refused == Some(Reason::OwnershipRegressed);
            let Some(regressed) = self.partitions.iter().find(regressed) else { return Ok(true) };
            let refused = self.report.stopped.iter().find(|(id, ..)| *id == regressed.id.0);
            return Err(VertexError::Regressed {
                what: refused.map(|(.., what)| what.clone()).unwrap_or_default(),
            });
        }
        // Drained, and to stay.
        if owned == 0 && self.partitions.iter().all(|partition| partition.given_away) {
            return Ok(false);
        }
        if self.manager.gives_back() {
            return Ok(false);
        }
        match self.report.fenced.first() {
            Some((_, generation)) if owned == 0 => {
                let generation = tidegate_udf::wire::ids::Generation(*generation);
                Err(crate::fence::Fenced { generation }.into())
            }
            _ => Ok(true),
        }
    }

    /// Gives the sinks what is final, in the order of each partition, or adds it to the open epoch.
    fn deliver(&mut self) -> Result<(), VertexError> {
        for index in 0..self.partitions.len() {
            let delivered = self.deliver_of(index);
            self.tolerate(index, delivered)?;
        }
        Ok(())
    }

    fn deliver_of(&mut self, index: usize) -> Result<(), VertexError> {
        while self.deliver_next(index)? {}
        Ok(())
    }

    /// Whether the sinks have taken something, so that there may be more.
    fn deliver_next(&mut self, index: usize) -> Result<bool, VertexError> {
        let now = monotonic_now();
        let promise = self.pipeline.pipeline.delivery;
        let full = promise == Promise::EffectivelyOnce && self.takes_no_more(index);
        let hurries = self.is_under_pressure() || self.is_ending();
        let Some(partition) = self.partitions.get_mut(index) else { return Ok(false) };
        let id = partition.id;
        let Some(tenure) = &mut partition.tenure else { return Ok(false) };
        if tenure.outgoing.is_none() && !full {
            let sorter = Sorter {
                session: tenure.session,
                epoch: tenure.open_epoch(),
                routes: &self.routes,
                sinks: self.sinks.len(),
                letters: self.letters.as_ref(),
            };
            if promise == Promise::EffectivelyOnce {
                // A batch at a time: what is more than the open epoch may have is for the next.
                let done = tenure.flow.finish_batch(now);
                let Some(chunk) = sorter.sort(done, &mut self.report) else { return Ok(false) };
                tenure.add(chunk, now);
                if tenure.is_full(&self.pipeline.epoch) {
                    self.seal(false)?;
                }
                return Ok(true);
            }
            let wish = self.board.wish(id).max(self.manager.wish(id));
            let ends_here = hurries || tenure.flow.is_empty() && wish != Wish::Run;
            tenure.outgoing = tenure.next_outgoing(&self.sinks, now, ends_here);
            if tenure.outgoing.is_none() && tenure.may_go_on() {
                let done = tenure.flow.finish(now);
                let Some(mut chunk) = sorter.sort(done, &mut self.report) else { return Ok(false) };
                for (position, delay) in std::mem::take(&mut chunk.back) {
                    self.source.give_back(id, position, delay);
                }
                tenure.begin(chunk, &self.sinks, now);
            }
        }
        let epoch = tenure.open_epoch();
        let Some(outgoing) = &mut tenure.outgoing else { return Ok(false) };
        let way = Way {
            session: tenure.session,
            epoch,
            source: tenure.lineage.unwrap_or(0),
            guard: &tenure.guard,
            letters: self.letters.as_ref(),
            leave_out: self.pipeline.leaves_out(),
            sealed: false,
            now,
        };
        self.board.doing(Doing::Sink);
        let published = outgoing.publish(&mut self.sinks, &way, &mut self.report);
        self.board.doing(Doing::Work);
        let published = published?;
        if !published && !outgoing.is_resting() {
            return Ok(false);
        }
        let Some(outgoing) = tenure.outgoing.take() else { return Ok(false) };
        if !published {
            tenure.aside.push(outgoing);
            return Ok(true);
        }
        for (token, new) in tenure.tokens.iter_mut().zip(outgoing.tokens) {
            *token = new.or(token.take());
        }
        let inputs =
            if outgoing.joined.is_empty() { vec![outgoing.chunk.published()] } else { outgoing.joined };
        for chunk in inputs {
            match promise {
                // Its inputs were committed before they were sent.
                Promise::AtMostOnce => self.report.add(&chunk.outcomes),
                _ => tenure.add_delivered(chunk, now),
            }
        }
        Ok(true)
    }
}

/// The data is whole at every moment: a thread that panicked while it had the lock changes nothing about that.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Fence slots that there are at least.
const MIN_SLOTS: u32 = 256;
const LONGEST_SLEEP: Nanos = Nanos::from_secs(10);
/// Time between looks at writes of partitions that were fenced.
const LOOK: Nanos = Nanos::from_secs(5);
