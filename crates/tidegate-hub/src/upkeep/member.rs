//! What the thread does for a producer and for a consumer.

use std::{mem::offset_of, path::PathBuf, sync::Arc};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::Ordering,
};

use super::{Beats, Member, recover::recover_writer};
use crate::{
    attachment::{ConsumerCore, WriterCore},
    block::{AttachOptions, Block, Role, Trust},
    core::{
        Ticket,
        codec::{Reg, Row, RowState},
        config::Deadline,
        host::{Host, Liveness, Place},
        words::{Control64, Load, Row32, Row64, Word, Words},
    },
    identity::ProcessKey,
    layout::{
        Secret,
        pages::{ControlPage, MetricsPage},
    },
};

/// A producer: it beats in the control page and removes dead consumers.
#[derive(Debug)]
pub(crate) struct ProducerMember {
    core: WriterCore,
    /// The epoch in which it writes.
    epoch: u64,
    beats: Beats,
}

impl ProducerMember {
    pub(crate) fn new(core: WriterCore, beats: Beats) -> Self {
        let epoch = Load::load(core.words().control64(Control64::WriterEpoch), Ordering::Acquire);
        Self { core, epoch, beats }
    }

    /// Whether the last beat is older than half the interval.
    pub(crate) fn is_overdue(&self, now: Nanos) -> bool {
        self.beats.is_overdue(self.last_beat(), now)
    }

    fn last_beat(&self) -> u64 {
        let control = self.core.words().views().control.row();
        // Relaxed: statistics.
        control.u64::<{ offset_of!(ControlPage, writer_heartbeat_ns) }>().load(Ordering::Relaxed)
    }

    /// Whether one of these processes is recorded in a row.
    fn is_any_here(&self, dead: &[ProcessKey]) -> bool {
        (0..self.core.config().max_consumers).map(Row).any(|row| {
            // Acquire: pairs with the releasing store of the joiner.
            let owner = self.core.words().row64(row, Row64::Owner).load(Ordering::Acquire);
            ProcessKey::from_word(owner).is_some_and(|owner| dead.contains(&owner))
        })
    }

    /// How many consumers have a beat that is too old.
    fn stale_rows(&self, now: Nanos) -> u64 {
        let row = |row, field| self.core.words().row64(row, field);
        let stale = (0..self.core.config().max_consumers).map(Row).filter(|&at| {
            // Acquire: pairs with the releasing store of the joiner.
            Reg(row(at, Row64::Reg).load(Ordering::Acquire)).is(RowState::Active)
                // Relaxed: statistics.
                && self.beats.is_stale(row(at, Row64::Heartbeat).load(Ordering::Relaxed), now)
        });
        stale.count() as u64
    }

    pub(crate) fn core(&self) -> &WriterCore {
        &self.core
    }

    pub(crate) fn is_writer(&self) -> bool {
        let words = self.core.words();
        // Acquire: pairs with the exchange of whoever took over.
        Load::load(words.control64(Control64::WriterOwner), Ordering::Acquire) == self.core.key().word()
            && Load::load(words.control64(Control64::WriterEpoch), Ordering::Acquire) == self.epoch
    }
}

impl Member for ProducerMember {
    fn beat_every(&self) -> Option<Nanos> {
        self.beats.every()
    }

    fn beat(&self) {
        let host = self.core.host();
        if host.block().check().is_err() {
            return;
        }
        let metrics = host.metrics().row();
        if !self.is_writer() {
            // Relaxed, here and below: statistics.
            metrics
                .u64::<{ offset_of!(MetricsPage, heartbeat_failed_count) }>()
                .fetch_add(1, Ordering::Relaxed);
            return;
        }
        let now = monotonic_now();
        let control = self.core.words().views().control.row();
        control.u64::<{ offset_of!(ControlPage, writer_heartbeat_ns) }>().store(now.0, Ordering::Relaxed);
        let created = host.block().descriptor().created_monotonic;
        let uptime = now.saturating_sub(created).0 / 1_000_000_000;
        metrics.u64::<{ offset_of!(MetricsPage, uptime_seconds) }>().store(uptime, Ordering::Relaxed);
        metrics
            .u64::<{ offset_of!(MetricsPage, heartbeat_stale_seen) }>()
            .fetch_add(self.stale_rows(now), Ordering::Relaxed);
        note_beat(host, now);
    }

    fn watched(&self, into: &mut Vec<ProcessKey>) {
        let host = self.core.host();
        if host.block().check().is_err() || !self.is_writer() {
            return;
        }
        host.note_seen();
        for row in (0..self.core.config().max_consumers).map(Row) {
            // Acquire, both: pairs with the releasing stores of the joiner.
            let reg = Reg(self.core.words().row64(row, Row64::Reg).load(Ordering::Acquire));
            let owner = self.core.words().row64(row, Row64::Owner).load(Ordering::Acquire);
            let Some(owner) = ProcessKey::from_word(owner).filter(|_| !reg.is(RowState::Free)) else {
                continue;
            };
            let judged = host.liveness(owner, Place::Row(row.0));
            // Of the own process only what a program before an exec has left; of others all that can be judged.
            if judged == Liveness::Dead || (owner != self.core.key() && judged == Liveness::Alive) {
                into.push(owner);
            }
        }
    }

    fn clean_up(&self, dead: &[ProcessKey]) -> bool {
        self.core.host().block().check().is_err()
            || !self.is_writer()
            || !self.is_any_here(dead)
            || self.core.reap(Deadline::Immediate).is_ok()
    }

    fn remind(&self, now: Nanos) -> Option<Nanos> {
        let block = self.core.host().block();
        if block.check().is_err() || !self.is_writer() {
            return None;
        }
        self.beats.remind("producer", &block.descriptor().file_name(), self.last_beat(), now)
    }
}

/// A consumer: it beats in its row and cleans up after a dead writer.
#[derive(Debug)]
pub(crate) struct ConsumerMember {
    core: ConsumerCore,
    ticket: Ticket,
    beats: Beats,
    recovery: Option<Recovery>,
}

/// What is needed to attach the block as a writer for a moment.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) dir: PathBuf,
    pub(crate) huge_dir: Option<PathBuf>,
    pub(crate) trust: Trust,
    pub(crate) secret: Option<Secret>,
}

impl ConsumerMember {
    pub(crate) fn new(core: ConsumerCore, ticket: Ticket, beats: Beats, recovery: Option<Recovery>) -> Self {
        let member = Self { core, ticket, beats, recovery };
        if member.beats.by_thread() {
            let flags = member.core.words().row32(ticket.row, Row32::Flags);
            // Relaxed: for people; the row is this consumer's.
            Word::store(flags, Load::load(flags, Ordering::Relaxed) | BEATS_BY_THREAD, Ordering::Relaxed);
        }
        member
    }

    /// Whether the last beat is older than half the interval.
    pub(crate) fn is_overdue(&self, now: Nanos) -> bool {
        self.beats.is_overdue(self.last_beat(), now)
    }

    fn last_beat(&self) -> u64 {
        // Relaxed: statistics.
        Load::load(self.core.words().row64(self.ticket.row, Row64::Heartbeat), Ordering::Relaxed)
    }

    /// The writer that the block names.
    fn writer(&self) -> Option<ProcessKey> {
        // Acquire: pairs with the exchange by which it came.
        let owner = Load::load(self.core.words().control64(Control64::WriterOwner), Ordering::Acquire);
        ProcessKey::from_word(owner)
    }

    fn block(&self) -> &Arc<Block> {
        self.core.host().block()
    }
}

impl Member for ConsumerMember {
    fn beat_every(&self) -> Option<Nanos> {
        self.beats.every()
    }

    fn beat(&self) {
        let host = self.core.host();
        if host.block().check().is_err() {
            return;
        }
        let row = |field| self.core.words().row64(self.ticket.row, field);
        // Acquire: pairs with the release of whoever gave the row to somebody else.
        let reg = Reg(row(Row64::Reg).load(Ordering::Acquire));
        let ours = reg.epoch() == self.ticket.epoch
            && matches!(reg.state(), Some(RowState::Active | RowState::Evicted));
        if !ours {
            let metrics = host.metrics().row();
            // Relaxed, here and below: statistics.
            metrics
                .u64::<{ offset_of!(MetricsPage, heartbeat_failed_count) }>()
                .fetch_add(1, Ordering::Relaxed);
            return;
        }
        let now = monotonic_now();
        row(Row64::Heartbeat).store(now.0, Ordering::Relaxed);
        row(Row64::Heartbeats).fetch_add(1, Ordering::Relaxed);
        note_beat(host, now);
    }

    fn watched(&self, into: &mut Vec<ProcessKey>) {
        if self.recovery.is_none() || self.block().check().is_err() {
            return;
        }
        self.core.host().note_seen();
        if let Some(writer) = self.writer().filter(|writer| *writer != self.core.key())
            && self.core.host().liveness(writer, Place::Writer) != Liveness::Unknown
        {
            into.push(writer);
        }
    }

    fn remind(&self, now: Nanos) -> Option<Nanos> {
        let block = self.block();
        if block.check().is_err() {
            return None;
        }
        self.beats.remind("consumer", &block.descriptor().file_name(), self.last_beat(), now)
    }

    fn clean_up(&self, _: &[ProcessKey]) -> bool {
        let (Some(recovery), Some(writer)) = (&self.recovery, self.writer()) else { return true };
        let block = self.block();
        if block.check().is_err()
            || writer == self.core.key()
            || self.core.host().liveness(writer, Place::Writer) != Liveness::Dead
        {
            return true;
        }
        let Some(name) = block.path().file_name() else { return true };
        let options = AttachOptions {
            dir: recovery.dir.clone(),
            huge_dir: recovery.huge_dir.clone(),
            trust: recovery.trust.clone(),
            secret: recovery.secret.as_ref(),
            init_wait: std::time::Duration::ZERO,
            ..AttachOptions::new(Role::Writer)
        };
        recover_writer(&name.to_string_lossy(), &options)
    }
}

fn note_beat(host: &crate::attachment::Process, now: Nanos) {
    let metrics = host.metrics().row();
    // Relaxed: statistics.
    metrics.u64::<{ offset_of!(MetricsPage, heartbeat_sent_count) }>().fetch_add(1, Ordering::Relaxed);
    metrics.u64::<{ offset_of!(MetricsPage, last_heartbeat_ns) }>().store(now.0, Ordering::Relaxed);
}

/// Flag of a row: the process's thread beats for it.
const BEATS_BY_THREAD: u32 = 2;
