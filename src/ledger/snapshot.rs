//! One state of the whole store, readable while commits go on; and a store made from one.

use std::{ops::Bound, sync::Arc};

use super::{
    anchor::Mark,
    codec::Codec,
    engine::{Batch, Engine, EngineError, Op, Pin, Row, Table},
    held::Candidate,
    keys,
    open::{Ledger, OpenError},
    refused::Refused,
    shared::{Aside, Hold, Shared},
};
use crate::{
    model::{Digest, Timestamp, secret::MacKey},
    records,
};

/// One state of the whole store. Dropping it lets the state go.
#[derive(Debug)]
pub struct Snapshot {
    shared: Arc<Shared>,
    pin: Pin,
    /// What the store says of itself at this state.
    pub meta: records::MetaRecord,
}

impl Ledger {
    /// Takes a snapshot as of the last commit. Commits go on.
    ///
    /// # Errors
    /// When the store failed.
    pub fn snapshot(&self) -> Result<Snapshot, Refused> {
        let shared = Arc::clone(&self.shared);
        let pin = shared.engine.pin().map_err(|e| shared.fault(&e))?;
        let mut snapshot = Snapshot { shared, pin, meta: records::MetaRecord::default() };
        let rows = snapshot.page(Table::Meta, &[], usize::from(u8::MAX))?;
        let own = rows.iter().find(|(key, _)| key == keys::META).ok_or(Refused::StoreFailed)?;
        let read = snapshot.shared.codec.decode(Table::Meta, keys::META, &own.1);
        snapshot.meta = read.map_err(|e| {
            snapshot.shared.aside.note(Table::Meta, keys::META, &e);
            Refused::StoreFailed
        })?;
        Ok(snapshot)
    }
}

impl Ledger {
    /// Where the store stands once it is closed, for the anchor.
    ///
    /// # Errors
    /// When its own row does not read.
    pub fn stored_mark(&self) -> Result<Mark, Refused> {
        let stored = self.shared.engine.get(Table::Meta, keys::META).map_err(|e| self.shared.fault(&e))?;
        let stored = stored.ok_or(Refused::StoreFailed)?;
        let meta: records::MetaRecord =
            self.shared.codec.decode(Table::Meta, keys::META, &stored).map_err(|_| Refused::StoreFailed)?;
        let audit_head = Digest::from_slice(&meta.audit_head).unwrap_or_default();
        Ok(Mark { incarnation: meta.incarnation, number: meta.revision, audit_head, closed: true })
    }
}

impl Snapshot {
    /// Up to `limit` rows of a table behind the key `after`; an empty page is the end.
    ///
    /// # Errors
    /// When the store failed, or the state is kept no more.
    pub fn page(&self, table: Table, after: &[u8], limit: usize) -> Result<Vec<Row>, Refused> {
        let lower = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let rows = self.shared.engine.scan_pinned(self.pin, table, (lower, Bound::Unbounded), limit);
        rows.map_err(|e| self.shared.fault(&e))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.shared.engine.unpin(self.pin);
    }
}

/// Writes rows into a store that is being made from a snapshot, in commits that the engine takes.
#[derive(Debug)]
pub struct Filler<'a> {
    engine: &'a dyn Engine,
    waiting: Vec<Op>,
    bytes: usize,
}

impl<'a> Filler<'a> {
    /// Into an empty store.
    #[must_use]
    pub fn new(engine: &'a dyn Engine) -> Self {
        Self { engine, waiting: Vec::new(), bytes: 0 }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the engine failed.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), EngineError> {
        self.bytes += key.len() + value.len();
        self.waiting.push(Op::Put(table, key, value));
        if self.waiting.len() >= FILL_ROWS || self.bytes >= FILL_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// When the engine failed.
    pub fn flush(&mut self) -> Result<(), EngineError> {
        self.bytes = 0;
        let batch = Batch { compares: Vec::new(), ops: std::mem::take(&mut self.waiting) };
        self.engine.commit(&batch).map(drop)
    }
}

/// Gives a store that was filled from a backup a new incarnation and the hold, so that nothing of before lives in it.
/// `past` is a revision that it must not fall behind.
///
/// # Errors
/// When the rows do not read: the row key is another one.
pub fn hold_restored(
    engine: &dyn Engine,
    row_key: MacKey,
    past: u64,
    backup_at: Timestamp,
    now: Timestamp,
) -> Result<(), OpenError> {
    let (codec, aside) = (Codec::new(row_key), Aside::default());
    let (mut meta, doubt) = super::recall::read_meta(engine, &codec, &aside, now)?;
    meta.number = meta.number.max(past);
    let is_damaged = doubt.is_some();
    let mut candidate =
        Candidate { engine, codec: &codec, aside: &aside, meta: &mut meta, is_new: false, is_damaged, now };
    candidate.begin(Hold::Restored, backup_at.millis()).map(drop)
}

const FILL_ROWS: usize = 4_096;
const FILL_BYTES: usize = 2 << 20;
