//! Watching and steering a vertex from other threads: fence, drain, pause, status.
//!
//! | module | gives |
//! |---|---|
//! | [`status`] | what there is to know, as it is printed |
//! | [`histogram`] | times and sizes, counted in steps |
//! | `board` | what the thread that runs the vertex and those that watch it share |
//!
//! The thread that runs the vertex may be stuck: in a sink that takes nothing, in the kernel, under a debugger. So nothing here
//! waits for it without a deadline, and revoking a fence takes no lock that it holds (VX-867).

mod board;
pub mod histogram;
pub mod status;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_shm::{clock::monotonic_now, sync::Arc};
use tidegate_udf::wire::ids::PartitionId;

pub use board::Wish;
pub(crate) use board::{Board, Doing};

use crate::fence::{Quiesce, Reason};
use status::Status;

/// Which partitions are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// This one.
    One(PartitionId),
}

/// A handle of a running vertex. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Control {
    board: Arc<Board>,
}

/// What became of the fence of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fencing {
    /// The partition.
    pub partition: u32,
    /// The generation that may not write any more; 0 if the vertex did not own the partition.
    pub generation: u64,
    /// No write runs and none will start.
    pub quiesced: bool,
    /// The writes that still run, by kind.
    pub pending: String,
}

/// There is no such partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no partition {partition}; this vertex has {count}, counted from 0")]
pub struct UnknownPartition {
    /// What was asked for.
    pub partition: PartitionId,
    /// How many there are.
    pub count: usize,
}

impl Control {
    pub(crate) fn new(board: Arc<Board>) -> Self {
        Self { board }
    }

    /// Takes the right to write away, now, and then waits for the end of writes that run (VX-724, VX-725).
    ///
    /// # Errors
    /// [`UnknownPartition`].
    pub fn fence(&self, which: Which, wait: Duration) -> Result<Vec<Fencing>, UnknownPartition> {
        let guards = self.board.guards(which)?;
        for guard in guards.iter().filter_map(|(_, guard)| guard.as_ref()) {
            guard.revoke(Reason::Operator);
        }
        self.board.wake();
        let deadline = monotonic_now().saturating_add(wait.into());
        let outcome = guards.into_iter().map(|(partition, guard)| {
            let Some(guard) = guard else {
                return Fencing {
                    partition: partition.0,
                    generation: 0,
                    quiesced: true,
                    pending: String::new(),
                };
            };
            let quiesce = guard.quiesce(|| {
                std::thread::sleep(LOOK);
                monotonic_now() < deadline
            });
            let (quiesced, pending) = match quiesce {
                Quiesce::Quiesced => (true, String::new()),
                Quiesce::Pending(running) => (false, running.to_string()),
            };
            Fencing { partition: partition.0, generation: guard.generation().0, quiesced, pending }
        });
        let outcome: Vec<Fencing> = outcome.collect();
        for Fencing { partition, generation, quiesced, pending } in &outcome {
            tracing::warn!(partition, generation, quiesced, pending, reason = "operator", "fenced");
        }
        Ok(outcome)
    }

    /// Says what is wanted of partitions from now on.
    ///
    /// # Errors
    /// [`UnknownPartition`].
    pub fn wish(&self, which: Which, wish: Wish) -> Result<(), UnknownPartition> {
        self.board.set_wish(which, wish)?;
        tracing::info!(?which, ?wish, "asked by an operator");
        self.board.wake();
        Ok(())
    }

    /// The vertex ends when everything is drained.
    pub fn end_when_drained(&self) {
        self.board.end();
        self.board.wake();
    }

    /// What there is to know. Waits a little for the thread that runs the vertex to say it anew; when it does not, this is what it
    /// said last, with its age, and the fences as they are now.
    pub fn status(&self) -> Status {
        self.board.status(PATIENCE)
    }

    /// What the thread that runs the vertex said last, without asking it.
    pub fn last_status(&self) -> Status {
        self.board.status(Duration::ZERO)
    }
}

/// Time between looks at writes that still run.
const LOOK: Duration = Duration::from_millis(1);
/// How long an answer of the thread that runs the vertex is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
