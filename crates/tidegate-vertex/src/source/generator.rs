//! A source that makes its records, the same ones each time: for tests and measurements.

use std::fmt::Write;

use bytes::BytesMut;
use tidegate_udf::wire::ids::{PartitionId, Position};

use super::{Abilities, AckMode, Budget, Identity, Polled, Positions, Replay, Resume, Source, SourceError};
use crate::batch::{Input, Record};

/// Records `<partition>:<position>` padded with dots to a length.
#[derive(Debug)]
pub struct Generator {
    /// The next position of each partition.
    next: Vec<u64>,
    records: u64,
    bytes: usize,
}

impl Generator {
    /// `records` records of at least `bytes` bytes in each of `partitions` partitions.
    pub fn new(partitions: u32, records: u64, bytes: usize) -> Self {
        Self { next: vec![0; partitions as usize], records, bytes }
    }

    /// The value of a record.
    pub fn value(partition: PartitionId, position: Position, bytes: usize) -> Vec<u8> {
        let mut value = BytesMut::new();
        Self::write(partition, position, bytes, &mut value);
        value.into()
    }

    fn write(partition: PartitionId, position: Position, bytes: usize, value: &mut BytesMut) {
        // Memory takes everything.
        let _ = write!(value, "{partition}:{position}");
        if value.len() < bytes {
            value.resize(bytes, b'.');
        }
    }
}

impl Source for Generator {
    fn abilities(&self) -> Abilities {
        Abilities { positions: Positions::Stable, replay: Replay::Yes, ack: AckMode::None, ordered: true }
    }

    fn partitions(&self) -> u32 {
        u32::try_from(self.next.len()).unwrap_or(u32::MAX)
    }

    fn open(&mut self, partition: PartitionId, from: Option<&Resume>) -> Result<Position, SourceError> {
        let resume = from.map_or(Position(0), |from| from.position);
        if resume.0 > self.records {
            return Err(SourceError::Gap { resume, found: Position(self.records) });
        }
        if let Some(next) = self.next.get_mut(partition.0 as usize) {
            *next = resume.0;
        }
        Ok(resume)
    }

    fn poll(&mut self, partition: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        let Some(next) = self.next.get_mut(partition.0 as usize) else { return Ok(Polled::End) };
        let (mut inputs, mut room) = (Vec::new(), max.bytes);
        // All values in one piece of memory.
        let mut values =
            BytesMut::with_capacity(max.records.saturating_mul(self.bytes.max(24)).min(max.bytes));
        while *next < self.records && inputs.len() < max.records {
            let position = Position(*next);
            Self::write(partition, position, self.bytes, &mut values);
            if values.len() > max.value {
                return Err(SourceError::TooLong { position, max: max.value });
            }
            let record = Record::of(values.split());
            let len = record.len();
            if len > room && !inputs.is_empty() {
                break;
            }
            room = room.saturating_sub(len);
            *next += 1;
            inputs.push(Input { position, next: Position(*next), record });
        }
        Ok(if inputs.is_empty() { Polled::End } else { Polled::Inputs(inputs) })
    }
    fn identity(&mut self, _: PartitionId, _: Position) -> Result<Identity, SourceError> {
        Ok(Identity::default())
    }

    fn pending(&self, partition: PartitionId) -> Option<u64> {
        self.next.get(partition.0 as usize).map(|next| self.records.saturating_sub(*next))
    }
}
