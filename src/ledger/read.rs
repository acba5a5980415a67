//! Reading: what there is, by its key.

use std::ops::Bound;

use super::{
    codec,
    engine::{Order, Range, Row, Table, Usage, prefix_end},
    keys,
    open::Ledger,
    ops::upkeep,
    refused::Refused,
    shared::{Aside, Holds},
};
use crate::{
    model::{Lease, LeaseId, Scope, ScopeId, Suspension, Task, TaskId, TenantNumber, Timestamp},
    records,
};

/// A cut in force.
#[derive(Clone, Debug)]
pub struct CutRow {
    /// Its scope; `None` when its record is damaged: it cuts all the same.
    pub scope: Option<Scope>,
    /// Its scope's id.
    pub id: ScopeId,
    /// Its revision.
    pub number: u64,
    /// The rest; empty when damaged.
    pub record: records::CutRecord,
}

/// A bar in force, or a suspension for another reason.
#[derive(Clone, Debug)]
pub struct BarRow {
    /// Its scope; `None` when its record is damaged: it bars and suspends all the same.
    pub scope: Option<Scope>,
    /// Its scope's id.
    pub id: ScopeId,
    /// Why it is suspended; `None` for a bar.
    pub cause: Option<Suspension>,
    /// Its row's key: of one scope there can be several.
    pub key: Vec<u8>,
    /// The rest; empty when damaged.
    pub record: records::BarRecord,
}

/// A grant's name and its run-time facts; an unreadable row closes the grant.
pub type GrantState = (String, Result<records::GrantStateRecord, codec::Unreadable>);

/// Rows of a page, and where the next one begins.
pub type Paged<T> = (Vec<T>, Option<Vec<u8>>);

impl Ledger {
    /// The last published revision: what a decision made now is made at. Read it before anything it rests on.
    #[must_use]
    pub fn basis(&self) -> (u64, u64) {
        (self.shared.incarnation, self.shared.number())
    }

    /// Why nothing is begun.
    #[must_use]
    pub fn holds(&self) -> &Holds {
        &self.shared.holds
    }

    /// Rows that could not be read.
    #[must_use]
    pub fn aside(&self) -> &Aside {
        &self.shared.aside
    }

    /// How full the store is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.engine.usage()
    }

    /// The engine's name.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        self.shared.engine.name()
    }

    /// How many proposals wait: ends, beginnings, background.
    #[must_use]
    pub fn depths(&self) -> (usize, usize, usize) {
        self.shared.lanes.depths()
    }

    /// Scopes with a cut and scopes with a bar.
    #[must_use]
    pub fn cuts_and_bars(&self) -> (usize, usize) {
        let book = self.shared.book();
        (book.cuts(), book.bars())
    }

    /// Scopes whose cut still has leases to be walked.
    #[must_use]
    pub fn pending_cuts(&self) -> usize {
        self.shared.book().pending()
    }

    /// Scopes that are suspended now, with the revision of their bar.
    #[must_use]
    pub fn suspensions(&self) -> Vec<(ScopeId, u64)> {
        self.shared.book().suspensions()
    }

    /// Live leases counted for a scope: tenant, partner, partner in tenant or grant.
    #[must_use]
    pub fn live(&self, scope: &Scope, now: Timestamp) -> u64 {
        self.shared.counts().live(scope.id(), now.minute())
    }

    /// When the last live lease counted for a scope expires, to the minute; `None` when none is counted.
    #[must_use]
    pub fn latest(&self, scope: &Scope, now: Timestamp) -> Option<Timestamp> {
        let minute = self.shared.counts().latest(scope.id(), now.minute())?;
        Some(Timestamp::from_seconds((u64::from(minute) + 1) * 60))
    }

    /// Whether any of the scopes is barred now.
    #[must_use]
    pub fn barred(&self, scopes: &[ScopeId]) -> bool {
        self.shared.book().barred(scopes)
    }

    /// What is known of a scope.
    #[must_use]
    pub fn scope(&self, id: ScopeId) -> super::ScopeState {
        self.shared.book().state(id)
    }

    /// Leases in key order after `after`, under a key prefix (a tenant's or a task's).
    ///
    /// # Errors
    /// When the store failed.
    pub fn leases(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Paged<Lease>, Refused> {
        self.page(Table::Leases, prefix, after, limit, |key, value| {
            let id = LeaseId::from_bytes(key)?;
            let read = self.shared.codec.decode_lease(id, value);
            read.inspect_err(|e| self.shared.aside.note(Table::Leases, key, e)).ok()
        })
    }

    /// Tasks in key order after `after`, under a key prefix (a tenant's).
    ///
    /// # Errors
    /// When the store failed.
    pub fn tasks(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Paged<Task>, Refused> {
        self.page(Table::Tasks, prefix, after, limit, |key, value| {
            let id = TaskId::from_bytes(key)?;
            let read = self.shared.codec.decode_task(id, value);
            read.inspect_err(|e| self.shared.aside.note(Table::Tasks, key, e)).ok()
        })
    }

    /// Tasks that are to be held, after `after`.
    ///
    /// # Errors
    /// When the store failed.
    pub fn held(&self, after: &[u8], limit: usize) -> Result<Paged<TaskId>, Refused> {
        self.page(Table::Held, &[], after, limit, |key, _| TaskId::from_bytes(key))
    }

    /// Children of a task.
    ///
    /// # Errors
    /// When the store failed.
    pub fn children(&self, id: TaskId, limit: usize) -> Result<Vec<TaskId>, Refused> {
        let parse = |key: &[u8], _: &[u8]| key.split_at_checked(TaskId::BYTES).and_then(|(_, c)| TaskId::from_bytes(c));
        Ok(self.page(Table::Children, id.as_bytes(), &[], limit, parse)?.0)
    }

    /// Cuts after `after`, in key order.
    ///
    /// # Errors
    /// When the store failed.
    pub fn cuts(&self, after: &[u8], limit: usize) -> Result<Paged<CutRow>, Refused> {
        self.page(Table::Cuts, &[], after, limit, |key, value| {
            let (id, number) = keys::parse_cut(key)?;
            let record: records::CutRecord = self.shared.codec.decode(Table::Cuts, key, value).unwrap_or_default();
            Some(CutRow { scope: upkeep::cut_scope(&record), id, number, record })
        })
    }

    /// Bars after `after`, in key order.
    ///
    /// # Errors
    /// When the store failed.
    pub fn bars(&self, after: &[u8], limit: usize) -> Result<Paged<BarRow>, Refused> {
        self.page(Table::Bars, &[], after, limit, |key, value| self.bar_row(key, value))
    }

    /// Names and numbers of every tenant that ever was.
    ///
    /// # Errors
    /// When the store failed.
    pub fn tenant_names(&self) -> Result<Vec<(String, TenantNumber)>, Refused> {
        let lower = [keys::TENANT_NAMES];
        let rows =
            self.scan(Table::Trust, (Bound::Included(&lower), Bound::Unbounded), Order::Ascending, usize::MAX)?;
        Ok(rows
            .iter()
            .filter_map(|(key, value)| {
                let name = String::from_utf8(key.get(1..)?.to_vec()).ok()?;
                Some((name, TenantNumber::from_bytes(value.as_slice().try_into().ok()?)?))
            })
            .collect())
    }

    /// A tenant's trust map (the global part under number 0). `Ok(None)`: there is none.
    ///
    /// # Errors
    /// When the store failed or the row is damaged: then the tenant is closed.
    pub fn trust(&self, number: TenantNumber) -> Result<Option<records::TenantRecord>, Refused> {
        self.record(Table::Trust, &keys::tenant(number))
    }

    /// Whether a tenant's row is there and unreadable; not when the store failed, for then nobody knows.
    #[must_use]
    pub fn is_trust_damaged(&self, number: TenantNumber) -> bool {
        let key = keys::tenant(number);
        let Ok(Some(value)) = self.get(Table::Trust, &key) else { return false };
        self.shared.codec.decode::<records::TenantRecord>(Table::Trust, &key, &value).is_err()
    }

    /// A tenant's keys.
    ///
    /// # Errors
    /// When the store failed.
    pub fn tenant_keys(&self, number: TenantNumber) -> Result<Vec<(Vec<u8>, records::KeyRecord)>, Refused> {
        Ok(self
            .page(Table::Keys, &keys::tenant(number), &[], usize::MAX, |key, value| {
                let read = self.shared.codec.decode(Table::Keys, key, value);
                Some((key.to_vec(), read.inspect_err(|e| self.shared.aside.note(Table::Keys, key, e)).ok()?))
            })?
            .0)
    }

    /// Run-time facts about a grant.
    ///
    /// # Errors
    /// When the store failed or the row is damaged: then the grant is closed.
    pub fn grant_states(&self, number: TenantNumber) -> Result<Vec<GrantState>, Refused> {
        Ok(self
            .page(Table::GrantStates, &keys::tenant(number), &[], usize::MAX, |key, value| {
                let grant = String::from_utf8(key.get(4..)?.to_vec()).ok()?;
                let read = self.shared.codec.decode(Table::GrantStates, key, value);
                Some((grant, read.inspect_err(|e| self.shared.aside.note(Table::GrantStates, key, e))))
            })?
            .0)
    }

    pub(super) fn record<R: prost::Message + Default>(&self, table: Table, key: &[u8]) -> Result<Option<R>, Refused> {
        let Some(value) = self.get(table, key)? else { return Ok(None) };
        self.shared.codec.decode(table, key, &value).map(Some).map_err(|e| {
            self.shared.aside.note(table, key, &e);
            Refused::StoreFailed
        })
    }

    pub(super) fn page<T>(
        &self,
        table: Table,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Option<T>,
    ) -> Result<Paged<T>, Refused> {
        let end = prefix_end(prefix);
        let lower = if after.is_empty() { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.scan(table, (lower, upper), Order::Ascending, limit)?;
        let next = if rows.len() == limit { rows.last().map(|(key, _)| key.clone()) } else { None };
        Ok((rows.iter().filter_map(|(key, value)| read(key, value)).collect(), next))
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        self.shared.engine.get(table, key).map_err(|e| self.shared.fault(&e))
    }

    pub(super) fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, Refused> {
        self.shared.engine.scan(table, range, order, limit).map_err(|e| self.shared.fault(&e))
    }
}
