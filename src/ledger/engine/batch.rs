//! What every engine does with a batch and a range before it touches its own store.

use std::{collections::BTreeMap, io, ops::Bound};

use super::{Batch, Compare, EngineError, Limits, Op, Range, Table};

/// The longest key, in bytes. Fjall's journal counts key bytes in 16 bits, and a shared keyspace adds a prefix byte.
pub(super) const MAX_KEY_BYTES: usize = 4 * 1024;

/// What the embedded engines take in one commit.
///
/// Small enough that one commit cannot fill a fresh memtable of [`super::fjall::Fjall`], which its bound on sealed
/// memtables relies on: the store counts some 100 bytes for a row on top of the row itself.
pub(super) const LIMITS: Limits = Limits { ops: 131_072, bytes: 128 * 1024 * 1024 };

/// The last operation on each row: a value to write, or `None` to delete.
pub(super) type LastOps<'a> = BTreeMap<(Table, &'a [u8]), Option<&'a [u8]>>;

impl Batch {
    /// Refuses a batch that is beyond `limits` or has a key that some engine cannot hold.
    ///
    /// # Errors
    /// [`EngineError::Io`] with [`io::ErrorKind::InvalidInput`]; nothing was written.
    pub(super) fn check(&self, limits: Limits) -> Result<(), EngineError> {
        let mut bytes = 0_usize;
        for op in &self.ops {
            let (key, value) = match op {
                Op::Put(_, key, value) => (key, value.len()),
                Op::Delete(_, key) => (key, 0),
            };
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(invalid("a key is empty or too long"));
            }
            bytes = bytes.saturating_add(key.len()).saturating_add(value);
        }
        if self.ops.len() > limits.ops || bytes > limits.bytes {
            return Err(invalid("a batch is beyond the engine's limits"));
        }
        Ok(())
    }

    /// What is left when later operations on a row replace earlier ones.
    ///
    /// Fjall gives every row of a batch the same sequence number, so that two operations on one row in one batch
    /// would have no order there.
    pub(super) fn last_ops(&self) -> LastOps<'_> {
        self.ops
            .iter()
            .map(|op| match op {
                Op::Put(table, key, value) => ((*table, key.as_slice()), Some(value.as_slice())),
                Op::Delete(table, key) => ((*table, key.as_slice()), None),
            })
            .collect()
    }

    /// Whether every compare holds, read through `get`.
    ///
    /// Reading before writing is sound in an embedded store because nobody else can write in between: the file lock
    /// keeps other processes out, and each engine lets one commit run at a time. A clustered engine has to send its
    /// compares along with the writes.
    pub(super) fn compares_hold<V: AsRef<[u8]>>(
        &self,
        get: impl Fn(Table, &[u8]) -> Result<Option<V>, EngineError>,
    ) -> Result<bool, EngineError> {
        for Compare { table, key, expected } in &self.compares {
            if get(*table, key)?.as_ref().map(AsRef::as_ref) != expected.as_deref() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether no key can be in `range`. Ordered maps panic on some such ranges, so engines ask first.
pub(super) fn is_empty(range: Range<'_>) -> bool {
    match range {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
    }
}

fn invalid(what: &'static str) -> EngineError {
    EngineError::Io(io::Error::new(io::ErrorKind::InvalidInput, what).into())
}
