//! Between the ledger and its engine: counts what is written, and can hold a commit up.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::ledger::engine::{Batch, Committed, Engine, EngineError, Limits, Order, Pin, Range, Row, Table, Usage};

/// An engine whose operations are counted, and whose commits wait at a gate.
#[derive(Debug)]
pub struct Tap {
    pub below: Arc<dyn Engine>,
    pub ops: Arc<AtomicU64>,
    pub gate: Arc<Gate>,
}

/// Holds commits up while it is closed.
#[derive(Debug, Default)]
pub struct Gate {
    /// Whether it is closed, and whether a commit waits.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

/// Keeps a gate closed until it is dropped, also when a test fails.
#[derive(Debug)]
pub struct Closed(Arc<Gate>);

impl Gate {
    pub fn close(self: &Arc<Self>) -> Closed {
        *self.state() = (true, false);
        Closed(Arc::clone(self))
    }

    fn pass(&self) {
        let mut state = self.state();
        while state.0 {
            state.1 = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, (bool, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Closed {
    /// Until a commit waits at the gate.
    pub async fn reached(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.0.state().1 {
            assert!(Instant::now() < deadline, "no commit came");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        *self.0.state() = (false, false);
        self.0.changed.notify_all();
    }
}

impl Engine for Tap {
    fn name(&self) -> &'static str {
        self.below.name()
    }
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.below.get(table, key)
    }
    fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.below.scan(table, range, order, limit)
    }
    fn commit(&self, batch: &Batch) -> Result<Committed, EngineError> {
        self.gate.pass();
        self.ops.fetch_add(batch.ops.len() as u64, Ordering::SeqCst);
        self.below.commit(batch)
    }
    fn pin(&self) -> Result<Pin, EngineError> {
        self.below.pin()
    }
    fn scan_pinned(&self, pin: Pin, table: Table, range: Range<'_>, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.below.scan_pinned(pin, table, range, limit)
    }
    fn unpin(&self, pin: Pin) {
        self.below.unpin(pin);
    }
    fn limits(&self) -> Limits {
        self.below.limits()
    }
    fn usage(&self) -> Usage {
        self.below.usage()
    }
    fn recover(&self) -> Result<(), EngineError> {
        self.below.recover()
    }
}
