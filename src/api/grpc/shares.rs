//! Room for open streams: a bounded number in all, of which no caller gets more than half.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::identity::Caller;

/// Streams of one kind that may be open.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only callers with open streams.
    by_caller: HashMap<String, usize>,
}

/// One stream's part of the room until it is dropped.
#[derive(Debug)]
pub struct Share {
    caller: String,
    taken: Arc<Mutex<Taken>>,
}

impl Shares {
    /// Room for `most` streams.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// Takes room for one stream; `None` when there is none left, or the caller has its half.
    #[must_use]
    pub fn take(&self, caller: &Caller) -> Option<Share> {
        self.take_as(caller.party())
    }

    fn take_as(&self, caller: String) -> Option<Share> {
        let mut taken = lock(&self.taken);
        let own = taken.by_caller.get(&caller).copied().unwrap_or(0);
        if taken.all >= self.most || own >= (self.most / 2).max(1) {
            return None;
        }
        taken.all += 1;
        taken.by_caller.insert(caller.clone(), own + 1);
        Some(Share { caller, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all = taken.all.saturating_sub(1);
        let left = taken.by_caller.get(&self.caller).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            taken.by_caller.remove(&self.caller);
        } else if let Some(own) = taken.by_caller.get_mut(&self.caller) {
            *own = left;
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // A panic elsewhere cannot leave the counts half-changed: nothing between them can panic.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(shares: &Shares, caller: &str, tries: usize) -> Vec<Share> {
        (0..tries).filter_map(|_| shares.take_as(caller.to_owned())).collect()
    }

    #[test]
    fn one_caller_gets_half_and_all_together_the_whole() {
        let shares = Shares::new(10);
        let one = taken(&shares, "one", 9);
        let two = taken(&shares, "two", 4);
        assert_eq!((one.len(), two.len()), (5, 4));
        assert_eq!(taken(&shares, "three", 9).len(), 1);
        drop((one, two));
        assert_eq!(lock(&shares.taken).all, 0);
        assert!(lock(&shares.taken).by_caller.is_empty(), "callers without streams are forgotten");
    }

    #[test]
    fn where_one_may_be_open_one_is() {
        assert_eq!(taken(&Shares::new(1), "one", 2).len(), 1);
        assert_eq!(taken(&Shares::new(0), "one", 2).len(), 0);
    }
}
