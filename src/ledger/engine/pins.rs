//! Older states of an engine that keeps none by itself: what a commit overwrites is copied first, while a pin is open.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{EngineError, Pin, Range, Row, Table, batch::LastOps, batch::is_empty};

/// The pins that are open, each with the rows that commits have changed since.
///
/// Costs a read of each changed row while a pin is open, and nothing else. The caller's lock keeps commits and pages
/// apart.
#[derive(Debug, Default)]
pub(super) struct Pins {
    open: Mutex<(u64, BTreeMap<u64, Kept>)>,
}

#[derive(Debug, Default)]
struct Kept {
    /// What was there; `None` where nothing was.
    rows: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    bytes: usize,
}

impl Pins {
    pub(super) fn open(&self) -> Pin {
        let mut pins = self.lock();
        pins.0 += 1;
        let pin = pins.0;
        pins.1.insert(pin, Kept::default());
        Pin(pin)
    }

    pub(super) fn close(&self, pin: Pin) {
        self.lock().1.remove(&pin.0);
    }

    /// Copies what `ops` will change. A pin that has become too large is given up.
    pub(super) fn keep(
        &self,
        ops: &LastOps<'_>,
        read: impl Fn(Table, &[u8]) -> Result<Option<Vec<u8>>, EngineError>,
    ) -> Result<(), EngineError> {
        let mut pins = self.lock();
        for kept in pins.1.values_mut() {
            for (table, key) in ops.keys() {
                let place = (*table, key.to_vec());
                if !kept.rows.contains_key(&place) {
                    let value = read(*table, key)?;
                    kept.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + ROW_COST;
                    kept.rows.insert(place, value);
                }
            }
        }
        pins.1.retain(|_, kept| kept.bytes <= KEPT_MOST);
        Ok(())
    }

    /// Up to `limit` rows of a pinned state; `page` gives those that are there now.
    pub(super) fn scan(
        &self,
        pin: Pin,
        table: Table,
        range: Range<'_>,
        limit: usize,
        page: impl Fn(Range<'_>, usize) -> Result<Vec<Row>, EngineError>,
    ) -> Result<Vec<Row>, EngineError> {
        let pins = self.lock();
        let kept = pins.1.get(&pin.0).ok_or_else(lost)?;
        let (mut rows, mut lower) = (Vec::new(), range.0.map(<[u8]>::to_vec));
        while rows.len() < limit {
            let from = (as_slice(&lower), range.1);
            if is_empty(from) {
                break;
            }
            let now = page(from, limit)?;
            let end = now.last().filter(|_| now.len() == limit).map(|(key, _)| key.clone());
            let upper = end.as_deref().map_or(range.1, Bound::Included);
            let mut part: BTreeMap<Vec<u8>, Vec<u8>> = now.into_iter().collect();
            let place = |bound: Bound<&[u8]>, all| match bound {
                Bound::Included(key) => Bound::Included((table, key.to_vec())),
                Bound::Excluded(key) => Bound::Excluded((table, key.to_vec())),
                Bound::Unbounded => all,
            };
            let past = Table::ALL.into_iter().find(|next| *next > table);
            let past = past.map_or(Bound::Unbounded, |next| Bound::Excluded((next, Vec::new())));
            let first = Bound::Included((table, Vec::new()));
            for ((_, key), value) in kept.rows.range((place(from.0, first), place(upper, past))) {
                match value {
                    Some(value) => part.insert(key.clone(), value.clone()),
                    None => part.remove(key),
                };
            }
            rows.extend(part);
            match end {
                Some(end) => lower = Bound::Excluded(end),
                None => break,
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Kept>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The answer for a pin that is no more.
pub(super) fn lost() -> EngineError {
    EngineError::Io(
        io::Error::other("the older state is gone: too much has changed since, or the store came back").into(),
    )
}

/// What changed rows may take in memory for one pin.
const KEPT_MOST: usize = 256 << 20;
/// Of a map entry, about.
const ROW_COST: usize = 64;
