//! What a handover asks of the core: an end of the ids that no thread passes, and a floor that waits for those who follow
//! (15.3).

use tidegate_shm::{
    clock::Nanos,
    sync::{AtomicU64, Ordering},
};

use super::Writer;
use crate::core::{
    codec::SlotId,
    config::Deadline,
    error::AcquireError,
    host::Host,
    protocol::Protocol,
    words::{Control64, WriterWords},
};

/// Keeps the floor where it is until consumers have come.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// End of the patience; 0: the floor moves.
    until: AtomicU64,
    /// How many consumers are awaited.
    consumers: AtomicU64,
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// Keeps the floor where it is until `consumers` take part or it is `until` (15.3, step 5). To be called before the
    /// writer is shared.
    pub fn hold_floor(&mut self, consumers: u32, until: Nanos) {
        let until = if consumers == 0 { 0 } else { until.0 };
        // Relaxed, both: handing the writer to another thread publishes them.
        self.hold.consumers.store(consumers.into(), Ordering::Relaxed);
        self.hold.until.store(until, Ordering::Relaxed);
    }

    /// Whether consumers of the block before are still awaited.
    pub fn holds_floor(&self) -> bool {
        // Relaxed, all: whoever looks decides for himself, and the word only goes to 0.
        let until = self.hold.until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let awaited = self.hold.consumers.load(Ordering::Relaxed);
        let holds = u64::from(self.core.active_consumers()) < awaited && self.core.host.now().0 < until;
        if !holds {
            self.hold.until.store(0, Ordering::Relaxed);
        }
        holds
    }

    /// Gives no more ids away, waits until all that were given away are resolved, and calls `cut` with the end of the ids.
    /// When that succeeds no id is ever given away again; else writing goes on as if nothing had been.
    ///
    /// With `abort_pending` ids that are open at the deadline become holes (DH-223).
    ///
    /// # Errors
    /// Ids are still open at the deadline, the right was lost, or what `cut` says.
    pub fn hand_over<R, E: From<AcquireError>>(
        &self,
        deadline: Deadline,
        abort_pending: bool,
        cut: impl FnOnce(SlotId) -> Result<R, E>,
    ) -> Result<R, E> {
        self.check()?;
        self.take_turn(deadline)?;
        let result = self.await_resolved(deadline, abort_pending).map_err(E::from).and_then(cut);
        if result.is_ok() {
            // The turn stays taken: who wants it finds why under the mutex.
            self.lock_prefix().is_over = true;
            self.moved.notify_all();
        } else {
            self.give_turn_back();
        }
        result
    }

    /// The end of the ids, once all of them are resolved. Nobody else gives ids away meanwhile.
    fn await_resolved(&self, deadline: Deadline, abort_pending: bool) -> Result<SlotId, AcquireError> {
        let end = self.own(Control64::WriteIndex);
        let mut parked = self.lock_prefix();
        while self.own(Control64::CommitIndex) < end {
            match self.park(parked, deadline) {
                Ok(woken) => parked = woken,
                Err(AcquireError::Timeout | AcquireError::QueueFull) if abort_pending => {
                    self.abort_all(end);
                    return if self.own(Control64::CommitIndex) < end {
                        Err(AcquireError::Timeout)
                    } else {
                        Ok(SlotId(end))
                    };
                }
                Err(AcquireError::QueueFull) => return Err(AcquireError::Timeout),
                Err(error) => return Err(error),
            }
        }
        Ok(SlotId(end))
    }

    fn abort_all(&self, end: u64) {
        for id in (self.own(Control64::CommitIndex)..end).map(SlotId).filter(|id| self.is_open(*id)) {
            // Its thread was faster.
            let _ = self.abort(id);
        }
    }
}
