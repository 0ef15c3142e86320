//! The bells of the workers: a revoke rings all of them, so that a worker that waits looks at its fence at once (VX-724).

use tidegate_shm::sync::{Arc, Mutex, MutexGuard};
use tidegate_udf::segment::Link;

/// Each with a number by which it is taken down again.
type Links = Arc<Vec<(u64, Link)>>;

/// The links of the sessions there are. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct Bells {
    /// Replaced when a session begins or ends, so that whoever rings holds no lock, and keeps the mappings while it does.
    links: Arc<Mutex<Links>>,
}

impl Bells {
    /// Rings the bell of this link at every revoke, until what is returned is dropped.
    pub fn hang(&self, link: Link) -> Hung {
        let mut links = self.lock();
        let number = links.last().map_or(0, |(last, _)| last + 1);
        let others = links.iter().cloned();
        *links = Arc::new(others.chain([(number, link)]).collect());
        drop(links);
        Hung { bells: self.clone(), number }
    }

    /// Rings all.
    pub(super) fn ring(&self) {
        let links = self.lock().clone();
        for (_, link) in &*links {
            link.ring_bell();
        }
    }

    /// The list is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A bell that is rung at every revoke.
#[derive(Debug)]
#[must_use = "the bell is taken down when it is dropped"]
pub struct Hung {
    bells: Bells,
    number: u64,
}

impl Drop for Hung {
    fn drop(&mut self) {
        let mut links = self.bells.lock();
        *links = Arc::new(links.iter().filter(|(number, _)| *number != self.number).cloned().collect());
    }
}
