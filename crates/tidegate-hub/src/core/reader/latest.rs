//! Reading the newest value: LatestOnly.

use super::{Acquired, Found, Reader};
use crate::core::{
    codec::{Claim, SlotId},
    config::Deadline,
    error::{AcquireError, Holder},
    host::{Counter, Host},
    protocol::Protocol,
    words::{Control64, Words},
};

impl<W: Words, H: Host, P: Protocol> Reader<W, H, P> {
    /// The newest value, unless it was returned before (DH-112).
    ///
    /// # Errors
    /// Nothing new in time, a value that was always just being overwritten, the right lost, the block closed, or a slot
    /// held already.
    pub fn acquire_latest(&mut self, deadline: Deadline) -> Result<Acquired, AcquireError> {
        let result = self.wait_for_latest(deadline);
        if let Ok(acquired) = &result {
            self.position.jump(acquired.id);
            self.position.hold(acquired.id);
        }
        self.seat.recorded(result)
    }

    fn wait_for_latest(&self, deadline: Deadline) -> Result<Acquired, AcquireError> {
        if self.position.holds_any() {
            return Err(AcquireError::Locked { holder: Holder::Caller });
        }
        let mut raced = false;
        let waited = self.seat.core.data_wait(deadline).until::<P, _, AcquireError>(|_| {
            let attempt = self.try_latest()?;
            raced = matches!(attempt, Attempt::Raced);
            match attempt {
                Attempt::Got(acquired) => Ok(Some(acquired)),
                Attempt::Raced | Attempt::Nothing => Ok(None),
            }
        })?;
        waited.result.ok_or_else(|| match deadline {
            _ if raced => {
                self.seat.core.host.count(Counter::ReaderNotReady, 1);
                AcquireError::NotReady
            }
            Deadline::Immediate => AcquireError::QueueEmpty,
            _ => AcquireError::Timeout,
        })
    }

    fn try_latest(&self) -> Result<Attempt, AcquireError> {
        self.seat.check_row()?;
        let Some(id) = self.newest() else {
            return match self.seat.core.closed() {
                // The writer stores the end last: what is not there now never comes.
                Some(closed) if self.newest().is_none() => Err(closed),
                _ => Ok(Attempt::Nothing),
            };
        };
        // All on their way at once: the writer has had them in its hands.
        self.seat.core.words.expect_to_claim(self.seat.ticket.row);
        self.seat.core.words.expect_read(self.seat.core.config.index(id));
        self.seat.claim(&self.position, Claim::new(id, 1))?;
        let found = self.seat.look(id, self.seat.core.config.index(id));
        if let Ok(Found::Data(acquired)) = found {
            return Ok(Attempt::Got(acquired));
        }
        self.seat.store_claim(Claim::NONE);
        self.seat.core.wake_writer();
        found?;
        self.seat.core.host.count(Counter::ReaderRaceDetected, 1);
        Ok(Attempt::Raced)
    }

    /// The newest id, if it may be returned.
    pub(super) fn newest(&self) -> Option<SlotId> {
        let id = SlotId::of_tag(self.seat.core.control(Control64::LatestTag))?;
        (id >= self.position.next() || (self.allow_repeat && id >= self.seat.ticket.start)).then_some(id)
    }
}

/// How one look ended.
enum Attempt {
    Got(Acquired),
    /// The slot was just being taken.
    Raced,
    Nothing,
}
