//! Connections in the TLS handshake: a bounded number, of which the oldest gives way to the newest.
//!
//! Whoever proves himself does so within milliseconds; whoever says nothing gets old. So a crowd that opens connections
//! and stays silent waits for nobody but itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// The connections in the handshake, by their order of arrival.
#[derive(Clone, Debug)]
pub(super) struct Arriving {
    most: usize,
    places: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, CancellationToken>,
}

/// One connection's place until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    lost: CancellationToken,
    places: Arc<Mutex<Places>>,
}

impl Arriving {
    /// At most `most` at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { most, places: Arc::default() }
    }

    /// Takes a place; where there is none left, the oldest loses its own.
    pub(super) fn enter(&self) -> Place {
        let lost = CancellationToken::new();
        let mut places = lock(&self.places);
        let number = places.next;
        places.next += 1;
        while places.taken.len() >= self.most {
            let Some((_, oldest)) = places.taken.pop_first() else { break };
            oldest.cancel();
        }
        places.taken.insert(number, lost.clone());
        Place { number, lost, places: Arc::clone(&self.places) }
    }
}

impl Place {
    /// Returns when the place went to somebody else.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places).taken.remove(&self.number);
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    // Every change under the lock leaves it whole.
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_takes_the_place_of_the_oldest_and_of_no_other() {
        let arriving = Arriving::new(3);
        let places: Vec<_> = (0..4).map(|_| arriving.enter()).collect();
        let lost: Vec<_> = places.iter().map(|place| place.lost.is_cancelled()).collect();
        assert_eq!(lost, [true, false, false, false]);
    }

    #[test]
    fn who_is_through_the_handshake_leaves_room() {
        let arriving = Arriving::new(2);
        let kept = arriving.enter();
        for _ in 0..9 {
            drop(arriving.enter());
        }
        assert!(!kept.lost.is_cancelled());
    }
}
