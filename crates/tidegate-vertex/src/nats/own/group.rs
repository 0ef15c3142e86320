//! All vertices of a pipeline, as operators see them: who has which partition, and what is wanted of it.

use std::thread;

use thiserror::Error;
use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::ids::PartitionId;

use super::{
    super::{Nats, NatsError},
    Bucket, Order, OwnError, Settings, read, wishes,
};
use crate::operate::{UnknownPartition, Which, Wish};

/// The ownership store of a pipeline.
#[derive(Debug)]
pub struct Group {
    bucket: Bucket,
    uid: u64,
    partitions: u32,
}

/// What the store says about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The partition.
    pub partition: PartitionId,
    /// Who has it, or had it when it died; nobody when it was given away or never had.
    pub owner: Option<String>,
    /// The newest generation; 0 is none.
    pub generation: u64,
    /// The last committed epoch; 0 is none.
    pub epoch: u64,
    /// Position of the next record to read.
    pub resume: u64,
    /// What lasts of what was ordered.
    pub wish: Wish,
}

/// Why an order was not given.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The store cannot be reached, or there is none.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// What is in the store cannot be read.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// There is no such partition.
    #[error(transparent)]
    Unknown(#[from] UnknownPartition),
}

impl Group {
    /// Opens the store of a pipeline that was run before.
    ///
    /// # Errors
    /// [`NatsError`]: it cannot be reached, there is none, or it has settings by which it may forget.
    pub fn open(settings: &Settings) -> Result<Self, NatsError> {
        let nats = Nats::connect(&settings.endpoint, "tidegate operator")?;
        let bucket = Bucket::existing(nats, &settings.pipeline)?;
        Ok(Self { bucket, uid: settings.uid, partitions: settings.partitions })
    }

    /// Tells every vertex what is wanted. They look about every eighth of their lease.
    ///
    /// # Errors
    /// [`GroupError`]; the order holds only without one.
    pub fn order(&self, which: Which, order: Order, reason: &str) -> Result<(), GroupError> {
        self.chosen(which)?;
        Ok(wishes::order(&self.bucket, which, order, reason)?)
    }

    /// Who has what.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn holdings(&self, which: Which) -> Result<Vec<Holding>, GroupError> {
        let wishes = wishes::Wishes::read(&self.bucket)?;
        let holding = |partition| {
            let document = read(&self.bucket, partition, self.uid)?.map(|(_, document)| document);
            let (epoch, resume) = document
                .as_ref()
                .and_then(|document| document.committed())
                .map_or((0, 0), |(epoch, resume)| (epoch.0, resume.0));
            let generation = document.as_ref().map_or(0, |document| document.generation);
            let owner = document.filter(|document| !document.released).map(|document| document.owner);
            Ok(Holding { partition, owner, generation, epoch, resume, wish: wishes.of(partition) })
        };
        self.chosen(which)?.into_iter().map(holding).collect()
    }

    /// Waits until partitions have no owner, or for so long; what the store says then.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn await_free(&self, which: Which, within: Nanos) -> Result<Vec<Holding>, GroupError> {
        let give_up = monotonic_now().saturating_add(within);
        loop {
            let holdings = self.holdings(which)?;
            if holdings.iter().all(|holding| holding.owner.is_none()) || monotonic_now() >= give_up {
                return Ok(holdings);
            }
            thread::sleep(LOOK.into());
        }
    }

    fn chosen(&self, which: Which) -> Result<Vec<PartitionId>, UnknownPartition> {
        match which {
            Which::All => Ok((0..self.partitions).map(PartitionId).collect()),
            Which::One(partition) if partition.0 < self.partitions => Ok(vec![partition]),
            Which::One(partition) => Err(UnknownPartition { partition, count: self.partitions as usize }),
        }
    }
}

/// Between two looks.
const LOOK: Nanos = Nanos::from_millis(100);
