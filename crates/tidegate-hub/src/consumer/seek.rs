//! Where reading goes on (7.2).

use super::Consumer;
use crate::{
    attachment::{ConsumerWords, Process},
    core::{codec::SlotId, reader::Reader},
    error::{AcquireError, RegistryError},
};

impl Consumer {
    /// The next result is the first data at or above `id`. Backwards it reaches as far as the floor (DH-073).
    ///
    /// # Errors
    /// `Lapped` if `id` is below the floor: reading goes on at the floor. `InvalidState` if it lies beyond the end.
    pub fn seek_to(&mut self, id: SlotId) -> Result<(), AcquireError> {
        let reached = self.seek(|reader| reader.seek(id))?;
        match reached.0.checked_sub(id.0) {
            Some(lost) if lost > 0 => Err(AcquireError::Lapped { lost }),
            _ => Ok(()),
        }
    }

    /// The next result is the newest committed slot if there is one, else the next commit.
    ///
    /// # Errors
    /// The right was lost.
    pub fn seek_latest(&mut self) -> Result<(), AcquireError> {
        self.seek(Reader::seek_latest).map(drop)
    }

    /// The next result is a later commit.
    ///
    /// # Errors
    /// The right was lost.
    pub fn seek_end(&mut self) -> Result<(), AcquireError> {
        self.seek(Reader::seek_end).map(drop)
    }

    /// Goes on at the floor.
    ///
    /// # Errors
    /// The right was lost.
    pub fn seek_oldest(&mut self) -> Result<(), AcquireError> {
        self.seek(Reader::seek_oldest).map(drop)
    }

    /// Passes over the next data without reading it.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub fn skip(&mut self) -> Result<SlotId, AcquireError> {
        self.try_next().map(|slot| slot.id())
    }

    /// The id that is tried next.
    pub fn position(&self) -> SlotId {
        self.reader.as_ref().map_or(self.ticket.start, Reader::position)
    }

    /// How many ids there are from the next one on, holes among them.
    pub fn backlog(&self) -> u64 {
        match &self.reader {
            Some(reader) if self.block.check().is_ok() => reader.backlog(),
            _ => 0,
        }
    }

    /// Id and length of the next data, without claiming it; none when there is nothing yet. Both may be out of date by
    /// the time they are seen.
    ///
    /// # Errors
    /// The next slot is being overwritten or was.
    pub fn peek(&self) -> Result<Option<(SlotId, u64)>, AcquireError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        self.reader.as_ref().ok_or(AcquireError::Fenced)?.peek()
    }

    fn seek(
        &mut self,
        go: impl FnOnce(&mut Reader<ConsumerWords, Process>) -> Result<SlotId, RegistryError>,
    ) -> Result<SlotId, AcquireError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        let reader = self.reader.as_mut().ok_or(AcquireError::Fenced)?;
        go(reader).map_err(|_| AcquireError::InvalidState)
    }
}
