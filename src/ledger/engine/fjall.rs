//! The default engine: fjall, a log-structured store with one journal over all its keyspaces.

mod journal;

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
    config::CompressionPolicy,
};

pub use journal::set_damaged_journal_aside;

use super::{
    Batch, Committed, Engine, EngineError, Limits, Order, Pin, Range, Row, Table, Usage,
    batch::{LIMITS, LastOps, is_empty},
    pins,
    slot::Slot,
};

/// Fjall with a keyspace for each hot table and one for all others.
///
/// ```text
/// commit -> journal (fdatasync) -> memtables -> tables, in the background
///              | error: what was written is unknown, and fjall takes no more writes
///              v
///           recover: close, reopen, replay the journal
/// ```
///
/// Not promised: a commit may wait for the background workers when rows arrive faster than they reach the tables;
/// it never waits on workers that have failed.
pub struct Fjall {
    dir: PathBuf,
    slot: Slot<Open>,
    /// One commit at a time, so that nothing changes between a batch's compares and its writes.
    turn: Mutex<()>,
    next_pin: AtomicU64,
}

struct Open {
    db: Database,
    hot: Vec<(Table, Keyspace)>,
    shared: Keyspace,
    /// Go with the store when it is reopened.
    pins: Mutex<BTreeMap<u64, Snapshot>>,
}

/// Where a table's rows are: its keyspace, and the byte before each key if others share it.
struct Place<'a> {
    keyspace: &'a Keyspace,
    prefix: Option<u8>,
}

impl Fjall {
    /// Opens the store in `dir`, or creates it.
    ///
    /// # Errors
    /// [`EngineError::Locked`] when it is open already; [`EngineError::Damaged`] when its journal or tables cannot be
    /// read; [`EngineError::Full`] and [`EngineError::Io`] as the file system says.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        Ok(Self {
            dir: dir.to_path_buf(),
            slot: Slot::new(Open::at(dir)?),
            turn: Mutex::new(()),
            next_pin: AtomicU64::new(0),
        })
    }

    /// Finds out what became of a batch that failed for want of room.
    ///
    /// Fjall may have part or all of it in its journal, so the store is reopened, which drops a partial batch, and
    /// read. Where all its rows are as they should be, it has happened.
    fn settle(&self, batch: &Batch, error: fjall::Error) -> Result<Committed, EngineError> {
        let applied = self
            .slot
            .reopen(|| Open::at(&self.dir))
            .and_then(|()| self.slot.with(|open| open.holds_all(&batch.last_ops())));
        match applied {
            Ok(true) => Ok(Committed::Applied),
            Ok(false) => Err(EngineError::Full(error.into())),
            Err(_) => Err(EngineError::Unknown(error.into())),
        }
    }
}

impl fmt::Debug for Fjall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fjall").field("dir", &self.dir).finish_non_exhaustive()
    }
}

// === impl Engine ===

impl Engine for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.slot.with(|open| open.get(table, key))
    }

    fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, EngineError> {
        if is_empty(range) {
            return Ok(Vec::new());
        }
        self.slot.with(|open| open.scan(table, range, order, limit))
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, EngineError> {
        batch.check(self.limits())?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.slot.with(|open| {
            if !batch.compares_hold(|table, key| open.get(table, key))? {
                return Ok(Ok(Committed::Conflict));
            }
            Ok(open.write(&batch.last_ops()).map(|()| Committed::Applied))
        })?;
        match written {
            Ok(committed) => Ok(committed),
            Err(error) if is_full(&error) => self.settle(batch, error),
            Err(error) => Err(EngineError::Unknown(error.into())),
        }
    }

    fn pin(&self) -> Result<Pin, EngineError> {
        let number = self.next_pin.fetch_add(1, Ordering::Relaxed);
        self.slot.with(|open| {
            open.pins().insert(number, open.db.snapshot());
            Ok(Pin(number))
        })
    }

    fn scan_pinned(&self, pin: Pin, table: Table, range: Range<'_>, limit: usize) -> Result<Vec<Row>, EngineError> {
        if is_empty(range) {
            return Ok(Vec::new());
        }
        self.slot.with(|open| {
            let snapshot = open.pins().get(&pin.0).cloned().ok_or_else(pins::lost)?;
            open.scan_at(&snapshot, table, range, Order::Ascending, limit)
        })
    }

    fn unpin(&self, pin: Pin) {
        let unpinned = self.slot.with(|open| {
            open.pins().remove(&pin.0);
            Ok(())
        });
        // A store that is closed has let go of it already.
        drop(unpinned);
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    /// The journal counts with its full size from the start: fjall sets 64 MiB aside for each file. Zero while closed.
    fn usage(&self) -> Usage {
        let used = self.slot.with(|open| {
            let disk_bytes = open.db.disk_space().map_err(failed)?;
            Ok(Usage { disk_bytes, buffered_bytes: open.db.write_buffer_size() })
        });
        used.unwrap_or_default()
    }

    fn recover(&self) -> Result<(), EngineError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.slot.reopen(|| Open::at(&self.dir))?;
        self.slot.with(|open| open.flush_tables().map_err(failed))
    }
}

// === impl Open ===

impl Open {
    fn at(dir: &Path) -> Result<Self, EngineError> {
        let open = || {
            let db = Database::builder(dir)
                .worker_threads(WORKERS)
                .cache_size(CACHE_BYTES)
                .manual_journal_persist(true)
                .max_journaling_size(MAX_JOURNAL_BYTES)
                // It would be done by the one thread that commits, for rows that are soon in tables, and a start took half as
                // long again.
                .journal_compression(CompressionType::None)
                .open()?;
            let mut hot = Vec::new();
            for table in Table::ALL.into_iter().filter(|table| is_hot(*table)) {
                hot.push((table, db.keyspace(table.name(), || options(Some(table)))?));
            }
            let shared = db.keyspace(SHARED_KEYSPACE, || options(None))?;
            Ok(Self { db, hot, shared, pins: Mutex::default() })
        };
        open().map_err(|error| not_opened(dir, error))
    }

    fn place(&self, table: Table) -> Place<'_> {
        match self.hot.iter().find(|(hot, _)| *hot == table) {
            Some((_, keyspace)) => Place { keyspace, prefix: None },
            None => Place { keyspace: &self.shared, prefix: Some(discriminant(table)) },
        }
    }

    /// Reads through a snapshot: fjall's plain reads would show the first rows of a batch that is still being applied.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        if key.is_empty() {
            return Ok(None);
        }
        let place = self.place(table);
        let value = self.db.snapshot().get(place.keyspace, place.key(key)).map_err(failed)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.scan_at(&self.db.snapshot(), table, range, order, limit)
    }

    fn pins(&self) -> MutexGuard<'_, BTreeMap<u64, Snapshot>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scan_at(
        &self,
        snapshot: &Snapshot,
        table: Table,
        range: Range<'_>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, EngineError> {
        let place = self.place(table);
        let rows = snapshot.range(place.keyspace, place.range(range));
        let skip = usize::from(place.prefix.is_some());
        let owned = |row: fjall::Guard| {
            let (key, value) = row.into_inner().map_err(failed)?;
            Ok((key.get(skip..).unwrap_or_default().to_vec(), value.to_vec()))
        };
        match order {
            Order::Ascending => rows.take(limit).map(owned).collect(),
            Order::Descending => rows.rev().take(limit).map(owned).collect(),
        }
    }

    fn write(&self, ops: &LastOps<'_>) -> fjall::Result<()> {
        self.await_workers()?;
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for ((table, key), value) in ops {
            let place = self.place(*table);
            match value {
                Some(value) => batch.insert(place.keyspace, place.key(key), *value),
                None => batch.remove(place.keyspace, place.key(key)),
            }
        }
        batch.commit()
    }

    /// Waits until the workers have caught up enough for a commit not to wait inside fjall.
    ///
    /// Inside, it would wait at four sealed memtables or 30 young tables in steps of 100 ms, and for ever if the
    /// workers have died, as they do on a full disk. One commit adds at most one sealed memtable to a keyspace here.
    fn await_workers(&self) -> fjall::Result<()> {
        while self.keyspaces().any(|keyspace| {
            keyspace.sealed_memtable_count() >= MAX_SEALED || keyspace.l0_table_count() >= MAX_YOUNG_TABLES
        }) {
            // Says whether the workers have failed; there is nothing buffered to write.
            self.db.persist(PersistMode::Buffer)?;
            thread::sleep(WORKER_PAUSE);
        }
        Ok(())
    }

    /// Moves what the journal brought back into tables.
    ///
    /// After a failed flush the system may show journal pages that never reached the disk. New tables are written and
    /// flushed afresh, so what is visible from now on is durable whatever became of those pages.
    fn flush_tables(&self) -> fjall::Result<()> {
        for keyspace in self.keyspaces() {
            keyspace.rotate_memtable()?;
        }
        while self.keyspaces().any(|keyspace| keyspace.sealed_memtable_count() > 0) {
            self.db.persist(PersistMode::Buffer)?;
            thread::sleep(WORKER_PAUSE);
        }
        self.db.persist(PersistMode::SyncAll)
    }

    fn holds_all(&self, ops: &LastOps<'_>) -> Result<bool, EngineError> {
        for ((table, key), value) in ops {
            if self.get(*table, key)?.as_deref() != *value {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.hot.iter().map(|(_, keyspace)| keyspace).chain([&self.shared])
    }
}

// === impl Place ===

impl Place<'_> {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        self.prefix.into_iter().chain(key.iter().copied()).collect()
    }

    fn range(&self, (low, high): Range<'_>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let (first, past) = match self.prefix {
            None => (Bound::Unbounded, Bound::Unbounded),
            // A discriminant is below 255, so there is always a next one.
            Some(prefix) => (Bound::Included(vec![prefix]), Bound::Excluded(vec![prefix.saturating_add(1)])),
        };
        (self.bound(low).unwrap_or(first), self.bound(high).unwrap_or(past))
    }

    fn bound(&self, bound: Bound<&[u8]>) -> Option<Bound<Vec<u8>>> {
        match bound {
            Bound::Included(key) => Some(Bound::Included(self.key(key))),
            Bound::Excluded(key) => Some(Bound::Excluded(self.key(key))),
            Bound::Unbounded => None,
        }
    }
}

// === settings ===

/// Whether the table gets a keyspace of its own: those that every issue writes.
fn is_hot(table: Table) -> bool {
    match table {
        Table::Leases | Table::Tasks | Table::Expiry | Table::Audit | Table::Log | Table::Feed | Table::Counts => true,
        Table::Meta
        | Table::Children
        | Table::Cuts
        | Table::Bars
        | Table::Retries
        | Table::Streams
        | Table::Trust
        | Table::Keys
        | Table::GrantStates
        | Table::Held
        | Table::Checkpoints
        | Table::Sinks
        | Table::Spent
        | Table::Notices
        | Table::Unmanaged
        | Table::People
        | Table::Approvals
        | Table::Secrets
        | Table::SecretValues
        | Table::SecretHolders
        | Table::Pickups
        | Table::Appeals => false,
    }
}

/// Whether the table is worth the processor time of being compressed: written once, kept for long, seldom read. The
/// others' blocks are merged again and again while leases come and go; compressing them cost issuing a twentieth.
fn is_compressed(table: Table) -> bool {
    matches!(table, Table::Audit)
}

/// Whether nearly every read of one key finds it, so that filters on the last level are not worth their memory.
fn expects_hits(table: Table) -> bool {
    matches!(table, Table::Leases | Table::Tasks)
}

#[expect(clippy::as_conversions, reason = "the discriminant of a repr(u8) enum")]
fn discriminant(table: Table) -> u8 {
    table as u8
}

/// Of a table's own keyspace, or of the shared one. They are kept with the keyspace: changing them changes new stores only.
fn options(table: Option<Table>) -> KeyspaceCreateOptions {
    let compression = if table.is_some_and(is_compressed) { CompressionType::Lz4 } else { CompressionType::None };
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .expect_point_read_hits(table.is_some_and(expects_hits))
        .data_block_compression_policy(CompressionPolicy::all(compression))
}

/// More would stall commits for longer when a memtable is written out.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;
/// One falls behind in bursts. Of two, the first, which leaves compactions to the others, keeps a core busy asking for as
/// long as the second compacts.
const WORKERS: usize = 3;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Bounds the time to reopen.
const MAX_JOURNAL_BYTES: u64 = 128 * 1024 * 1024;
const MAX_SEALED: usize = 3;
const MAX_YOUNG_TABLES: usize = 28;
const WORKER_PAUSE: Duration = Duration::from_millis(1);
const SHARED_KEYSPACE: &str = "shared";

// === errors ===

fn not_opened(dir: &Path, error: fjall::Error) -> EngineError {
    if matches!(error, fjall::Error::Locked) {
        return EngineError::Locked;
    }
    if io_error(&error).is_some() {
        return failed(error);
    }
    let explanation = if matches!(error, fjall::Error::JournalRecovery(_)) {
        format!(
            "a journal file in {} holds a commit that does not match its checksum: keep a copy of the folder and run \
             `mayfly store check`; with `--set-journal-aside` it moves that file away and says what is lost",
            dir.display()
        )
    } else if matches!(error, fjall::Error::InvalidVersion(_)) {
        format!("{} is not a store of this version's format: open it with the version that wrote it", dir.display())
    } else {
        format!(
            "the tables in {} cannot be read: keep a copy of the folder, run `mayfly store check`, and restore the \
             last backup if it finds no other way",
            dir.display()
        )
    };
    EngineError::Damaged { explanation, source: Some(error.into()) }
}

fn failed(error: fjall::Error) -> EngineError {
    if is_full(&error) { EngineError::Full(error.into()) } else { EngineError::Io(error.into()) }
}

fn is_full(error: &fjall::Error) -> bool {
    io_error(error)
        .is_some_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn io_error(error: &fjall::Error) -> Option<&io::Error> {
    if let fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) = error {
        Some(error)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_every_other_failure() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::PermissionDenied] {
            for error in [fjall::Error::Io(kind.into()), fjall::Error::Storage(fjall::LsmError::Io(kind.into()))] {
                let is_full = matches!(failed(error), EngineError::Full(_));
                assert_eq!(is_full, kind != io::ErrorKind::PermissionDenied, "{kind}");
            }
        }
        assert!(matches!(failed(fjall::Error::Locked), EngineError::Io(_)));
    }
}
