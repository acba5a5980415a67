//! The engine that keeps everything in memory, for tests, the demo and models.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use super::{
    Batch, Committed, Engine, EngineError, Limits, Order, Pin, Range, Row, Table, Usage,
    batch::{LIMITS, is_empty},
    pins::Pins,
};

/// Ordered maps behind one lock. Nothing outlives the value: durability is not promised.
#[derive(Debug, Default)]
pub struct Memory {
    tables: RwLock<BTreeMap<Table, Rows>>,
    pins: Pins,
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> RwLockReadGuard<'_, BTreeMap<Table, Rows>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Engine ===

impl Engine for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.tables().get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, EngineError> {
        if is_empty(range) {
            return Ok(Vec::new());
        }
        let tables = self.tables();
        let Some(rows) = tables.get(&table) else { return Ok(Vec::new()) };
        let rows = rows.range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>(range);
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match order {
            Order::Ascending => rows.take(limit).map(owned).collect(),
            Order::Descending => rows.rev().take(limit).map(owned).collect(),
        })
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, EngineError> {
        batch.check(self.limits())?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if !batch.compares_hold(|table, key| Ok(tables.get(&table).and_then(|rows| rows.get(key))))? {
            return Ok(Committed::Conflict);
        }
        let ops = batch.last_ops();
        self.pins.keep(&ops, |table, key| Ok(tables.get(&table).and_then(|rows| rows.get(key)).cloned()))?;
        for ((table, key), value) in ops {
            let rows = tables.entry(table).or_default();
            match value {
                Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                None => rows.remove(key),
            };
        }
        Ok(Committed::Applied)
    }

    fn pin(&self) -> Result<Pin, EngineError> {
        let _tables = self.tables();
        Ok(self.pins.open())
    }

    fn scan_pinned(&self, pin: Pin, table: Table, range: Range<'_>, limit: usize) -> Result<Vec<Row>, EngineError> {
        let tables = self.tables();
        self.pins.scan(pin, table, range, limit, |range, limit| {
            let rows = tables.get(&table).into_iter().flat_map(|rows| rows.range::<[u8], _>(range));
            Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
        })
    }

    fn unpin(&self, pin: Pin) {
        self.pins.close(pin);
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    /// Counts keys and values as if they were on disk, by walking them all: for tests only.
    fn usage(&self) -> Usage {
        let bytes: usize = self.tables().values().flatten().map(|(key, value)| key.len() + value.len()).sum();
        Usage { disk_bytes: u64::try_from(bytes).unwrap_or(u64::MAX), buffered_bytes: 0 }
    }

    fn recover(&self) -> Result<(), EngineError> {
        Ok(())
    }
}
