//! Node ids: the 10-bit part of trace ids, one per lease (15.6).
//!
//! An id is free, held by one active lease, or cooling down. Cooling exists because trace ids are made of (time, node
//! id, counter): two holders within one clock tick could make the same trace id. It therefore applies to the client
//! that held the id before as well.

use tidegate_shm::clock::Nanos;

use crate::ids::{ClientId, NodeId};

/// All node ids with their state.
#[derive(Debug)]
pub(super) struct NodeIds {
    /// Index 0 is node id 1.
    entries: Vec<Entry>,
    cooldown: Nanos,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    held: bool,
    /// Not handed out before this time (TP-274).
    free_from: Nanos,
    /// Who held it last; a client comes back to its id (TP-272). Set for at most one id per client.
    last_client: Option<ClientId>,
}

impl NodeIds {
    pub(super) fn new(cooldown: Nanos) -> Self {
        let entry = Entry { held: false, free_from: Nanos::ZERO, last_client: None };
        Self { entries: vec![entry; NodeId::RANGE.len()], cooldown }
    }

    /// Whether `id` is inside 1..=1023, not held and not cooling down (TP-271, TP-273, TP-274).
    pub(super) fn is_available(&self, id: u32, now: Nanos) -> bool {
        index_of(id).and_then(|index| self.entries.get(index)).is_some_and(|entry| entry.is_free(now))
    }

    /// Hands out `desired` if available; without a wish the id `client` had before, else the lowest one.
    pub(super) fn allocate(&mut self, desired: Option<u32>, client: ClientId, now: Nanos) -> Option<NodeId> {
        let index = match desired {
            Some(id) => index_of(id)?,
            None => self
                .entries
                .iter()
                .position(|entry| entry.last_client == Some(client) && entry.is_free(now))
                .or_else(|| self.entries.iter().position(|entry| entry.is_free(now)))?,
        };
        let entry = self.entries.get(index).filter(|entry| entry.is_free(now))?;
        let taken = Entry { held: true, last_client: Some(client), ..*entry };
        for entry in &mut self.entries {
            if entry.last_client == Some(client) {
                entry.last_client = None;
            }
        }
        *self.entries.get_mut(index)? = taken;
        u16::try_from(index + 1).ok().map(NodeId::new)
    }

    /// Takes an id back; it cools down from `now` on.
    pub(super) fn release(&mut self, id: NodeId, now: Nanos) {
        let index = index_of(id.get().into());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.held = false;
            entry.free_from = now.saturating_add(self.cooldown);
        }
    }
}

impl Entry {
    fn is_free(&self, now: Nanos) -> bool {
        !self.held && now >= self.free_from
    }
}

fn index_of(id: u32) -> Option<usize> {
    let id = u16::try_from(id).ok().filter(|id| NodeId::RANGE.contains(id))?;
    Some(usize::from(id) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClientId = ClientId::new(1);
    const B: ClientId = ClientId::new(2);

    fn ms(milliseconds: u64) -> Nanos {
        Nanos::from_millis(milliseconds)
    }

    /// Rules: TP-271, TP-273.
    #[test]
    fn ids_are_1_to_1023_and_each_is_held_once() {
        let mut ids = NodeIds::new(ms(1000));
        let mut seen: Vec<u16> = (0..1023)
            .map(|client| ids.allocate(None, ClientId::new(100 + client), ms(0)).unwrap().get())
            .collect();
        assert_eq!(ids.allocate(None, A, ms(0)), None);
        seen.sort_unstable();
        assert_eq!(seen, (1..=1023).collect::<Vec<_>>());
        for id in [0, 1, 1024, 65_537, u32::MAX] {
            assert!(!ids.is_available(id, ms(0)), "{id}");
            assert_eq!(ids.allocate(Some(id), A, ms(0)), None);
        }
    }

    /// Rules: TP-272, TP-274.
    #[test]
    fn a_released_id_cools_down_and_then_goes_back_to_its_client() {
        let mut ids = NodeIds::new(ms(1000));
        let first = ids.allocate(None, A, ms(0)).unwrap();
        ids.release(first, ms(0));
        // While it cools even its old client gets another one.
        let second = ids.allocate(None, A, ms(999)).unwrap();
        assert_eq!((first.get(), second.get()), (1, 2));
        ids.release(second, ms(1000));
        assert_eq!(ids.allocate(None, B, ms(1000)), Some(first));
        ids.release(first, ms(1100));
        // Both are free again: A had 2 last, although 1 is lower.
        assert_eq!(ids.allocate(None, A, ms(3000)), Some(second));
        assert_eq!(ids.allocate(None, ClientId::new(3), ms(3000)), Some(first));
    }

    #[test]
    fn the_id_a_client_had_before_is_not_given_to_it_while_somebody_holds_it() {
        let mut ids = NodeIds::new(Nanos::ZERO);
        let id = ids.allocate(Some(5), A, ms(0)).unwrap();
        ids.release(id, ms(0));
        assert_eq!(ids.allocate(Some(5), B, ms(0)), Some(id));
        assert_eq!(ids.allocate(None, A, ms(0)), Some(NodeId::new(1)));
    }
}
