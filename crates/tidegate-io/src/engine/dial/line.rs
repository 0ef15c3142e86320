//! Who dials an address next.
//!
//! A listener lets a hundred newcomers wait by default and drops what comes beyond, which is sent again after a second, then
//! after longer and longer, up to half a minute. So of the dialers of a worker only so many at a time have an attempt or a
//! handshake with an address under way, and the others wait in line.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use async_lock::{Semaphore, SemaphoreGuardArc};

use crate::engine::address::StreamAddress;

/// How many dial an address at a time.
pub(super) const AT_ONCE: usize = 100;

/// The turn of one; the next in line has it when it is dropped.
pub(super) type Turn = SemaphoreGuardArc;

/// The lines in front of all addresses.
#[derive(Default)]
pub(in crate::engine) struct Lines(RefCell<HashMap<StreamAddress, Arc<Semaphore>>>);

impl Lines {
    /// The line in front of `address`.
    pub(super) fn of(&self, address: &StreamAddress) -> Arc<Semaphore> {
        let mut lines = self.0.borrow_mut();
        if let Some(line) = lines.get(address) {
            return line.clone();
        }
        // Those in which nobody is.
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        lines.entry(address.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
    }
}
