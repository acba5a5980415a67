//! An engine that fails on cue, for tests and simulations.

use std::{
    fmt, io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{Batch, Committed, Engine, EngineError, Limits, Order, Pin, Range, Row, Table, Usage};

/// What happens to one commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It goes through to the engine.
    None,
    /// It fails with [`EngineError::Full`]; nothing is written.
    Full,
    /// It is written, and fails with [`EngineError::Unknown`]. A conflict is still answered as one.
    UnknownApplied,
    /// It is not written, and fails with [`EngineError::Unknown`].
    UnknownLost,
    /// As [`Self::UnknownApplied`], and the next recovery fails.
    StuckApplied,
    /// As [`Self::UnknownLost`], and the next recovery fails.
    StuckLost,
}

/// Wraps an engine and makes chosen commits fail, so that callers can be tested against every outcome.
///
/// Reads go through untouched. Only commits are counted, from 1, and conflicts and failures
/// count too. Compiled outside of tests because integration tests and simulations link the library as it ships; the
/// daemon never builds one.
pub struct Faulty<E> {
    inner: E,
    script: Box<dyn Fn(u64) -> Fault + Send + Sync>,
    commits: AtomicU64,
    /// Whether the next recovery fails.
    stuck: AtomicBool,
}

impl<E: Engine> Faulty<E> {
    /// Asks `script` for the fault of each commit, by its number.
    pub fn new(inner: E, script: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Self {
        Self { inner, script: Box::new(script), commits: AtomicU64::new(0), stuck: AtomicBool::new(false) }
    }

    /// The engine below.
    pub fn inner(&self) -> &E {
        &self.inner
    }

    /// How many commits were tried.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }
}

impl<E: fmt::Debug> fmt::Debug for Faulty<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).field("commits", &self.commits).finish_non_exhaustive()
    }
}

// === impl Engine ===

impl<E: Engine> Engine for Faulty<E> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.inner.get(table, key)
    }

    fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.inner.scan(table, range, order, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, EngineError> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let fault = (self.script)(number);
        self.stuck.fetch_or(matches!(fault, Fault::StuckApplied | Fault::StuckLost), Ordering::SeqCst);
        match fault {
            Fault::None => self.inner.commit(batch),
            Fault::Full => Err(EngineError::Full(io::Error::from(io::ErrorKind::StorageFull).into())),
            Fault::UnknownApplied | Fault::StuckApplied => match self.inner.commit(batch)? {
                Committed::Applied => Err(unknown()),
                Committed::Conflict => Ok(Committed::Conflict),
            },
            Fault::UnknownLost | Fault::StuckLost => Err(unknown()),
        }
    }

    fn pin(&self) -> Result<Pin, EngineError> {
        self.inner.pin()
    }

    fn scan_pinned(&self, pin: Pin, table: Table, range: Range<'_>, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.inner.scan_pinned(pin, table, range, limit)
    }

    fn unpin(&self, pin: Pin) {
        self.inner.unpin(pin);
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }

    fn recover(&self) -> Result<(), EngineError> {
        if self.stuck.swap(false, Ordering::SeqCst) {
            return Err(EngineError::Io(io::Error::other("a scripted fault").into()));
        }
        self.inner.recover()
    }
}

fn unknown() -> EngineError {
    EngineError::Unknown(io::Error::other("a scripted fault").into())
}
