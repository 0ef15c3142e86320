//! Writing with closures (9.1): one slot, all or nothing (DH-125).

use std::ops::{Deref, DerefMut};

use super::{Producer, WriteSlot};
use crate::{config::Timeout, core::codec::SlotId, error::TxError, schema::HubPod};

/// A slot inside of a closure, which can be given up without an error.
#[derive(Debug)]
pub struct WriteTx<'p> {
    slot: WriteSlot<'p>,
    aborted: bool,
}

impl WriteTx<'_> {
    /// Gives the slot up when the closure returns, whatever it returns.
    pub fn abort(&mut self) {
        self.aborted = true;
    }
}

impl<'p> Deref for WriteTx<'p> {
    type Target = WriteSlot<'p>;

    fn deref(&self) -> &WriteSlot<'p> {
        &self.slot
    }
}

impl<'p> DerefMut for WriteTx<'p> {
    fn deref_mut(&mut self) -> &mut WriteSlot<'p> {
        &mut self.slot
    }
}

impl Producer {
    /// Writes one slot with `body`: committed if it returns `Ok`, aborted if it returns `Err`, calls
    /// [`WriteTx::abort`], or panics.
    ///
    /// # Errors
    /// See [`TxError`].
    #[inline]
    pub fn with_write<R, E>(
        &self,
        timeout: Timeout,
        body: impl FnOnce(&mut WriteTx<'_>) -> Result<R, E>,
    ) -> Result<R, TxError<E>> {
        let slot = self.write(timeout).map_err(TxError::Acquire)?;
        let mut tx = WriteTx { slot, aborted: false };
        let result = body(&mut tx).map_err(TxError::User)?;
        if !tx.aborted {
            tx.slot.finish_kind().map_err(TxError::Commit)?;
        }
        Ok(result)
    }

    /// Writes one record, which `body` is given as all zeros.
    ///
    /// # Errors
    /// See [`TxError`].
    #[inline]
    pub fn with_typed_write<T: HubPod, R, E>(
        &self,
        timeout: Timeout,
        body: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, TxError<E>> {
        self.check_type::<T>()?;
        let mut slot = self.write(timeout).map_err(TxError::Acquire)?;
        let mut record = T::new_zeroed();
        let result = body(&mut record).map_err(TxError::User)?;
        slot.put(&record)?;
        slot.finish_kind().map_err(TxError::Commit)?;
        Ok(result)
    }

    /// Writes one record.
    ///
    /// # Errors
    /// See [`TxError`].
    #[inline]
    pub fn send_record<T: HubPod>(
        &self,
        record: &T,
        timeout: Timeout,
    ) -> Result<SlotId, TxError<std::convert::Infallible>> {
        self.check_type::<T>()?;
        let mut slot = self.write(timeout).map_err(TxError::Acquire)?;
        slot.put(record)?;
        slot.finish_kind().map_err(TxError::Commit)
    }
}
