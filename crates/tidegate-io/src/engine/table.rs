//! Things of a worker by small keys that never name a successor by mistake.

/// Names an entry of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    index: u32,
    /// Grows with every reuse of the index.
    generation: u32,
}

/// Entries by [`Key`].
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Vec<(u32, Option<T>)>,
    vacant: Vec<u32>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), vacant: Vec::new() }
    }

    /// Puts what `make` returns under a key it is told.
    pub(crate) fn insert(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        let mut key = Key { index, generation: 0 };
        if let Some((generation, entry)) = self.entries.get_mut(index as usize) {
            *generation = generation.wrapping_add(1);
            key.generation = *generation;
            *entry = Some(make(key));
        }
        key
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let (generation, entry) = self.entries.get(key.index as usize)?;
        if *generation == key.generation { entry.as_ref() } else { None }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, entry) = self.entries.get_mut(key.index as usize)?;
        let entry = if *generation == key.generation { entry.take() } else { None };
        if entry.is_some() {
            self.vacant.push(key.index);
        }
        entry
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|(_, entry)| entry.as_ref())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_does_not_find_the_successor() {
        let mut table = Table::new();
        let first = table.insert(|_| 'a');
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert(|_| 'b');
        assert_eq!(first.index, second.index, "the place is reused");
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!((table.get(second), table.len()), (Some(&'b'), 1));
    }
}
