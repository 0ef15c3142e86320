//! Notifications about commits, for consumers that wait on sockets (14).

use tidegate_shm::{clock::monotonic_now, sync::Ordering};

use super::Producer;
use crate::{
    broker::{
        Notifier,
        wire::{Notification, U64},
    },
    core::{
        codec::SlotId,
        words::{Control64, Load, Words},
    },
};

impl Producer {
    /// Has `notifier` tell of every commit from now on, thinned out as it is configured (DH-217, DH-218). It is told when the
    /// commit is visible, and never waited for (DH-216).
    pub fn notify_by(&mut self, notifier: Notifier) {
        notifier.count_in(self.writer.core().host().metrics());
        self.notifier = Some(notifier);
    }

    /// Publishes what a thinned-out notifier holds back.
    pub fn flush_notify(&self) {
        if let Some(notifier) = &self.notifier {
            notifier.flush();
        }
    }

    /// `id` was committed.
    #[inline]
    pub(super) fn tell_committed(&self, id: SlotId) {
        let Some(notifier) = &self.notifier else { return };
        // Acquire: pairs with the release of the thread that moved it.
        let commit_index =
            Load::load(self.writer.core().words().control64(Control64::CommitIndex), Ordering::Acquire);
        notifier.committed(Notification {
            block_uuid: self.descriptor().uuid,
            slot_id: U64(id.0),
            commit_index: U64(commit_index),
            ts_ns: monotonic_now().0,
        });
    }
}
