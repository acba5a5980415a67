//! When grants were used last: kept in memory at each issue, written now and then.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    ledger::UseRow,
    model::{GrantName, TenantNumber, Timestamp},
    policy::TenantTrust,
    records,
};

/// When one grant was used last. Noting a use is one store; nothing waits for it to be written.
#[derive(Debug, Default)]
pub struct LastUse {
    since: AtomicU64,
    at: AtomicU64,
    written: AtomicU64,
}

impl LastUse {
    /// When the grant was added, or first looked at; 1970 when not known.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        Timestamp::from_millis(self.since.load(Ordering::Relaxed))
    }

    /// When it was used; 1970 when it never was.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at.load(Ordering::Relaxed))
    }

    /// Notes a use.
    pub fn note(&self, now: Timestamp) {
        self.at.fetch_max(now.millis(), Ordering::Relaxed);
    }

    /// Notes since when the grant is there.
    pub fn note_since(&self, since: Timestamp) {
        self.since.fetch_max(since.millis(), Ordering::Relaxed);
    }

    /// Whether the row is `granularity` or more behind.
    fn is_behind(&self, granularity: u64) -> bool {
        let (at, written) = (self.at.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        at > written && (written == 0 || at - written >= granularity)
    }

    fn row(&self, tenant: TenantNumber, grant: &GrantName) -> UseRow {
        UseRow { tenant, grant: grant.clone(), since: self.since(), last_used: self.at() }
    }
}

/// The last uses of all tenants that were asked for since the start.
///
/// They outlive the trust map in memory, which is read anew when it changes: a use that is not written yet is not lost.
#[derive(Debug, Default)]
pub struct Uses(Mutex<HashMap<TenantNumber, HashMap<GrantName, Arc<LastUse>>>>);

impl Uses {
    /// Those of a tenant's grants; what is stored counts where it is later than what is known.
    pub fn of(
        &self,
        number: TenantNumber,
        trust: &TenantTrust,
        stored: Vec<(String, records::GrantUseRecord)>,
    ) -> HashMap<GrantName, Arc<LastUse>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(number).or_default();
        for name in trust.grants().keys() {
            known.entry(name.clone()).or_default();
        }
        for (name, record) in stored {
            if let Some(cell) = name.parse().ok().and_then(|name: GrantName| known.get(&name)) {
                cell.since.fetch_max(record.since, Ordering::Relaxed);
                cell.at.fetch_max(record.last_used, Ordering::Relaxed);
                cell.written.fetch_max(record.last_used, Ordering::Relaxed);
            }
        }
        known.clone()
    }

    /// What is to be written: all that is `granularity` milliseconds or more ahead of its row, at most `most`.
    #[must_use]
    pub fn unwritten(&self, granularity: u64, most: usize) -> Vec<UseRow> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = all.iter().flat_map(|(number, cells)| cells.iter().map(|(name, cell)| (*number, name, cell)));
        cells
            .filter(|(_, _, cell)| cell.is_behind(granularity))
            .take(most)
            .map(|(number, name, cell)| cell.row(number, name))
            .collect()
    }

    /// Notes what was written.
    pub fn written(&self, rows: &[UseRow]) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if let Some(cell) = all.get(&row.tenant).and_then(|cells| cells.get(&row.grant)) {
                cell.written.fetch_max(row.last_used.millis(), Ordering::Relaxed);
            }
        }
    }
}
