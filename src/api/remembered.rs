//! What is kept of many, where the longest idle may be forgotten.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    mem,
};

/// Values by key, of those used lately and of those of the time before: a move of one half forgets the idle without a
/// search.
#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    /// How many the young half holds.
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Remembered<K, V> {
    /// Takes memory for at most twice `half`.
    pub(super) fn new(half: usize) -> Self {
        Self { half: half.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// The value of a key, which counts as used; a `fresh` one where none is remembered.
    pub(super) fn of(&mut self, key: K, fresh: impl FnOnce() -> V) -> &mut V {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        match self.young.entry(key) {
            Entry::Occupied(used) => used.into_mut(),
            Entry::Vacant(room) => {
                let value = self.old.remove(room.key()).unwrap_or_else(fresh);
                room.insert(value)
            }
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
