//! Holds an open store so that it can be closed and opened again under its readers.

use std::{
    io,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    thread,
    time::Duration,
};

use super::EngineError;

/// A store that is open, or closed because the last try to reopen it failed.
///
/// Invariant: no handle of the store leaves its guard, so dropping what is inside closes the store.
#[derive(Debug)]
pub(super) struct Slot<T>(RwLock<Option<T>>);

impl<T> Slot<T> {
    pub(super) fn new(store: T) -> Self {
        Self(RwLock::new(Some(store)))
    }

    /// Runs `read` on the open store. Many threads may do so at a time.
    ///
    /// # Errors
    /// What `read` returns, or [`EngineError::Io`] while the store is closed.
    pub(super) fn with<R>(&self, read: impl FnOnce(&T) -> Result<R, EngineError>) -> Result<R, EngineError> {
        match &*self.guard() {
            Some(store) => read(store),
            None => Err(EngineError::Io(io::Error::other("the store is closed until it recovers").into())),
        }
    }

    /// Waits for readers, closes the store and opens it again.
    ///
    /// # Errors
    /// What `open` returned last; the store is then closed.
    pub(super) fn reopen(&self, open: impl Fn() -> Result<T, EngineError>) -> Result<(), EngineError> {
        let mut slot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        drop(slot.take());
        *slot = Some(patiently(open)?);
        Ok(())
    }

    fn guard(&self) -> RwLockReadGuard<'_, Option<T>> {
        // A panic under this lock happens only in a reader, which changes nothing.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a store, and tries again for half a second while its lock is taken.
///
/// Background threads of a store that was just dropped may hold its file lock for a moment longer.
pub(super) fn patiently<T>(open: impl Fn() -> Result<T, EngineError>) -> Result<T, EngineError> {
    for _ in 0..LOCK_TRIES {
        match open() {
            Err(EngineError::Locked) => thread::sleep(LOCK_PAUSE),
            outcome => return outcome,
        }
    }
    open()
}

const LOCK_TRIES: u8 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
