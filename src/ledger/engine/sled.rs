//! The second engine: sled, a tree per table.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use sled::{
    Db, Transactional, Tree,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree},
};

use super::{
    Batch, Committed, Engine, EngineError, Limits, Order, Pin, Range, Row, Table, Usage,
    batch::{LIMITS, LastOps, is_empty},
    pins::Pins,
    slot::{Slot, patiently},
};

/// Sled with a tree per table and one multi-tree transaction per commit.
///
/// A read may see a commit a moment before it is durable. A commit that then cannot be made durable ends as
/// [`EngineError::Unknown`], never as applied.
pub struct Sled {
    dir: PathBuf,
    slot: Slot<Open>,
    /// Sled's iterators are no snapshots: pages are read under the shared side, transactions run under the other.
    turn: RwLock<()>,
    pins: Pins,
}

/// A key, and what to write there; `None` deletes.
type LastOp<'a> = (&'a [u8], Option<&'a [u8]>);

struct Open {
    db: Db,
    trees: BTreeMap<Table, Tree>,
}

impl Sled {
    /// Opens the store in `dir`, or creates it.
    ///
    /// # Errors
    /// [`EngineError::Locked`] when it is open already; [`EngineError::Damaged`] when its files are corrupt;
    /// [`EngineError::Full`] and [`EngineError::Io`] as the file system says.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        Ok(Self {
            dir: dir.to_path_buf(),
            slot: Slot::new(patiently(|| Open::at(dir))?),
            turn: RwLock::new(()),
            pins: Pins::default(),
        })
    }
}

impl fmt::Debug for Sled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sled").field("dir", &self.dir).finish_non_exhaustive()
    }
}

// === impl Engine ===

impl Engine for Sled {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.slot.with(|open| open.get(table, key))
    }

    fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, EngineError> {
        if is_empty(range) {
            return Ok(Vec::new());
        }
        self.slot.with(|open| {
            let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            let rows = open.tree(table)?.range::<&[u8], _>(range);
            let owned = |row: sled::Result<(sled::IVec, sled::IVec)>| {
                row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(failed)
            };
            match order {
                Order::Ascending => rows.take(limit).map(owned).collect(),
                Order::Descending => rows.rev().take(limit).map(owned).collect(),
            }
        })
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, EngineError> {
        batch.check(self.limits())?;
        self.slot.with(|open| {
            let turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
            if !batch.compares_hold(|table, key| open.get(table, key))? {
                return Ok(Committed::Conflict);
            }
            let ops = batch.last_ops();
            self.pins.keep(&ops, |table, key| open.get(table, key))?;
            open.apply(&ops)?;
            drop(turn);
            open.db.flush().map_err(unknown)?;
            Ok(Committed::Applied)
        })
    }

    fn pin(&self) -> Result<Pin, EngineError> {
        let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
        Ok(self.pins.open())
    }

    fn scan_pinned(&self, pin: Pin, table: Table, range: Range<'_>, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.slot.with(|open| {
            let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            let tree = open.tree(table)?;
            self.pins.scan(pin, table, range, limit, |range, limit| {
                let rows = tree.range::<&[u8], _>(range).take(limit);
                rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(failed)).collect()
            })
        })
    }

    fn unpin(&self, pin: Pin) {
        self.pins.close(pin);
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    /// Sled writes in place of a buffer that could be measured: `buffered_bytes` is 0, and so are both when closed.
    fn usage(&self) -> Usage {
        let disk_bytes = self.slot.with(|open| open.db.size_on_disk().map_err(failed)).unwrap_or(0);
        Usage { disk_bytes, buffered_bytes: 0 }
    }

    fn recover(&self) -> Result<(), EngineError> {
        self.slot.reopen(|| Open::at(&self.dir))?;
        self.slot.with(|open| open.db.flush().map(drop).map_err(failed))
    }
}

// === impl Open ===

impl Open {
    fn at(dir: &Path) -> Result<Self, EngineError> {
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .open()
            .map_err(failed)?;
        let mut trees = BTreeMap::new();
        for table in Table::ALL {
            trees.insert(table, db.open_tree(table.name()).map_err(failed)?);
        }
        Ok(Self { db, trees })
    }

    fn tree(&self, table: Table) -> Result<&Tree, EngineError> {
        self.trees.get(&table).ok_or_else(|| failed(sled::Error::CollectionNotFound(table.name().into())))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.tree(table)?.get(key).map_err(failed)?.map(|value| value.to_vec()))
    }

    /// Writes all of `ops` or none, without a flush.
    ///
    /// The transaction spans the touched trees. `sled::Batch` on one tree is avoided: it let memory grow without
    /// bound. The closure may run more than once and does nothing but write.
    fn apply(&self, ops: &LastOps<'_>) -> Result<(), EngineError> {
        let mut by_table: Vec<(Table, Vec<LastOp<'_>>)> = Vec::new();
        for ((table, key), value) in ops {
            match by_table.last_mut() {
                Some((last, rows)) if last == table => rows.push((key, *value)),
                _ => by_table.push((*table, vec![(key, *value)])),
            }
        }
        let trees = by_table.iter().map(|(table, _)| self.tree(*table)).collect::<Result<Vec<_>, _>>()?;
        if trees.is_empty() {
            return Ok(());
        }
        let write = |trees: &Vec<TransactionalTree>| {
            for (tree, (_, rows)) in trees.iter().zip(&by_table) {
                for (key, value) in rows {
                    match value {
                        Some(value) => tree.insert(*key, *value)?,
                        None => tree.remove(*key)?,
                    };
                }
            }
            Ok::<(), ConflictableTransactionError<sled::Error>>(())
        };
        trees.as_slice().transaction(write).map_err(|error| match error {
            TransactionError::Abort(error) | TransactionError::Storage(error) => unknown(error),
        })
    }
}

/// A failed read, or a failed open.
fn failed(error: sled::Error) -> EngineError {
    match error {
        sled::Error::Corruption { .. } => EngineError::Damaged {
            explanation: "sled found corrupt pages: restore the last backup into an empty folder".to_owned(),
            source: Some(error.into()),
        },
        // Sled has no kind of its own for a lock that is taken.
        sled::Error::Io(ref io) if io.to_string().contains("could not acquire lock") => EngineError::Locked,
        sled::Error::Io(ref io) if io.kind() == std::io::ErrorKind::StorageFull => EngineError::Full(error.into()),
        sled::Error::Io(_)
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_) => EngineError::Io(error.into()),
    }
}

/// A failed write. Sled's log may hold it already when it fails for want of room, so that is unknown too.
fn unknown(error: sled::Error) -> EngineError {
    EngineError::Unknown(error.into())
}

const CACHE_BYTES: u64 = 64 * 1024 * 1024;
