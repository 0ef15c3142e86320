//! Reading with closures (9.1): consumed if the closure succeeds, delivered again if not.

use super::{Consumer, ReadSlot};
use crate::{
    config::Timeout,
    core::codec::SlotId,
    error::{AcquireError, TxError},
    schema::HubPod,
};

impl Consumer {
    /// Reads the next slot with `body`: consumed if it returns `Ok`, delivered again if it returns `Err` or panics.
    ///
    /// # Errors
    /// See [`TxError`].
    #[inline]
    pub fn with_next<R, E>(
        &mut self,
        timeout: Timeout,
        body: impl FnOnce(&ReadSlot<'_>) -> Result<R, E>,
    ) -> Result<R, TxError<E>> {
        let slot = self.next(timeout).map_err(TxError::Acquire)?;
        slot.use_in(body)
    }

    /// Reads the next record with `body`.
    ///
    /// # Errors
    /// See [`TxError`]. A slot that does not hold such a record is treated like a failed reading.
    #[inline]
    pub fn with_typed_next<T: HubPod, R, E>(
        &mut self,
        timeout: Timeout,
        body: impl FnOnce(&T) -> Result<R, E>,
    ) -> Result<R, TxError<E>> {
        let slot = self.next(timeout).map_err(TxError::Acquire)?;
        let result = match slot.read::<T>() {
            Ok(record) => body(&record).map_err(TxError::User),
            Err(error) => Err(error.into()),
        };
        if result.is_err() {
            slot.fail();
        }
        result
    }

    /// Reads the slot of `id` with `body`; reading goes on behind it.
    ///
    /// # Errors
    /// See [`TxError`]. `QueueEmpty` if nothing was written under this id; what comes behind it is next.
    pub fn with_read<R, E>(
        &mut self,
        id: SlotId,
        timeout: Timeout,
        body: impl FnOnce(&ReadSlot<'_>) -> Result<R, E>,
    ) -> Result<R, TxError<E>> {
        self.seek_to(id).map_err(TxError::Acquire)?;
        let slot = self.next(timeout).map_err(TxError::Acquire)?;
        if slot.id() != id {
            slot.nack();
            return Err(TxError::Acquire(AcquireError::QueueEmpty));
        }
        slot.use_in(body)
    }
}

impl ReadSlot<'_> {
    #[inline]
    fn use_in<R, E>(self, body: impl FnOnce(&Self) -> Result<R, E>) -> Result<R, TxError<E>> {
        match body(&self) {
            Ok(result) => Ok(result),
            Err(error) => {
                self.fail();
                Err(TxError::User(error))
            }
        }
    }
}
