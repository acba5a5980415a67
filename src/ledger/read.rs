//! Reading, and the proposals by name.

use std::{ops::Bound, sync::PoisonError};

use super::{
    codec,
    engine::{Order, Range, Row, Table, Usage, prefix_end},
    keys::{self, StreamId},
    open::Ledger,
    ops::upkeep,
    refused::Refused,
    shared::{Aside, Holds},
};
use crate::{
    model::{EndReason, Lease, LeaseId, Scope, ScopeId, Standing, Suspension, Task, TaskId, TenantNumber, Timestamp},
    pb, records,
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

/// What one commit wrote to the audit.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// Its revision.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Streams and the first sequence of each page.
    pub pages: Vec<(StreamId, u64)>,
    /// Those of them that somebody may have to be told of.
    pub notable: Vec<(StreamId, u64)>,
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

    /// Audit streams that moved since the last checkpoint.
    #[must_use]
    pub fn unsigned_streams(&self) -> usize {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// When the last checkpoint was signed; `None` when there is none.
    ///
    /// # Errors
    /// When the store failed.
    pub fn last_checkpoint(&self) -> Result<Option<Timestamp>, Refused> {
        let rows = self.scan(Table::Checkpoints, EVERYTHING, Order::Descending, 1)?;
        let Some((key, value)) = rows.first() else { return Ok(None) };
        let read: Result<pb::Checkpoint, _> = self.shared.codec.decode(Table::Checkpoints, key, value);
        let at = read.inspect_err(|e| self.shared.aside.note(Table::Checkpoints, key, e)).ok().and_then(|made| made.at);
        Ok(at.map(|at| Timestamp::from_seconds(u64::try_from(at.seconds).unwrap_or(0))))
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

    /// A lease's row. `None` also when it is unreadable, which is noted: it counts as ended.
    ///
    /// # Errors
    /// When the store failed.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, Refused> {
        let Some(value) = self.get(Table::Leases, id.as_bytes())? else { return Ok(None) };
        let read = self.shared.codec.decode_lease(id, &value);
        Ok(read.inspect_err(|e| self.shared.aside.note(Table::Leases, id.as_bytes(), e)).ok())
    }

    /// A task's row. `None` also when it is unreadable, which is noted: it counts as ended.
    ///
    /// # Errors
    /// When the store failed.
    pub fn task(&self, id: TaskId) -> Result<Option<Task>, Refused> {
        let Some(value) = self.get(Table::Tasks, id.as_bytes())? else { return Ok(None) };
        let read = self.shared.codec.decode_task(id, &value);
        Ok(read.inspect_err(|e| self.shared.aside.note(Table::Tasks, id.as_bytes(), e)).ok())
    }

    /// Whether a lease may be used now: its row, its task and the tasks above, cuts, bars, the leases that it and they were
    /// obtained through, and the time.
    ///
    /// # Errors
    /// When the store failed.
    pub fn lease_standing(&self, lease: &Lease, now: Timestamp) -> Result<Standing, Refused> {
        self.lease_within(lease, now, Task::MAX_ANCESTORS)
    }

    /// Whether something may be begun under a task now.
    ///
    /// # Errors
    /// When the store failed.
    pub fn task_standing(&self, task: &Task, now: Timestamp) -> Result<Standing, Refused> {
        self.task_within(task, now, Task::MAX_ANCESTORS)
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

    /// Audit streams after `after`.
    ///
    /// # Errors
    /// When the store failed.
    pub fn streams(&self, after: &[u8], limit: usize) -> Result<Paged<(StreamId, records::StreamRecord)>, Refused> {
        self.page(Table::Streams, &[], after, limit, |key, value| {
            let id = StreamId::try_from(key).ok()?;
            let read = self.shared.codec.decode(Table::Streams, key, value);
            Some((id, read.inspect_err(|e| self.shared.aside.note(Table::Streams, key, e)).unwrap_or_default()))
        })
    }

    /// Audit pages of a stream that begin at or after sequence `from`, as stored: first sequence and record, `None` when
    /// unreadable.
    ///
    /// # Errors
    /// When the store failed.
    pub fn audit_pages(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Option<records::AuditPage>)>, Refused> {
        let (lower, end) = (keys::audit(stream, from), prefix_end(stream));
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.scan(Table::Audit, (Bound::Included(&lower), upper), Order::Ascending, limit)?;
        Ok(rows.iter().filter_map(|(key, value)| self.audit_page_of(key, value)).collect())
    }

    /// The page of a stream that holds sequence `at`, or the last one before it.
    ///
    /// # Errors
    /// When the store failed.
    pub fn audit_page_at(
        &self,
        stream: &StreamId,
        at: u64,
    ) -> Result<Option<(u64, Option<records::AuditPage>)>, Refused> {
        let (lower, upper) = (keys::audit(stream, 0), keys::audit(stream, at));
        let range = (Bound::Included(lower.as_slice()), Bound::Included(upper.as_slice()));
        let rows = self.scan(Table::Audit, range, Order::Descending, 1)?;
        Ok(rows.first().and_then(|(key, value)| self.audit_page_of(key, value)))
    }

    /// What commits after revision `after` wrote to the audit.
    ///
    /// # Errors
    /// When the store failed.
    pub fn log_after(&self, after: u64, limit: usize) -> Result<Vec<LogRow>, Refused> {
        let lower = keys::revision(after);
        let range = (Bound::Excluded(lower.as_slice()), Bound::Unbounded);
        let rows = self.scan(Table::Log, range, Order::Ascending, limit)?;
        Ok(rows.iter().filter_map(|(key, value)| self.log_row(key, value)).collect())
    }

    /// The oldest commit that the log still knows.
    ///
    /// # Errors
    /// When the store failed.
    pub fn log_begin(&self) -> Result<Option<LogRow>, Refused> {
        let rows = self.scan(Table::Log, EVERYTHING, Order::Ascending, 1)?;
        Ok(rows.first().and_then(|(key, value)| self.log_row(key, value)))
    }

    /// The last commit before a time that the log still knows, by bisection over revisions; the first one when none is
    /// before it.
    ///
    /// # Errors
    /// When the store failed.
    pub fn log_before(&self, at: Timestamp) -> Result<u64, Refused> {
        let (mut low, mut high) = (self.log_begin()?.map_or(0, |row| row.number), self.shared.number());
        while low < high {
            let middle = low.midpoint(high);
            let next = self.log_after(middle, 1)?.into_iter().next();
            match next {
                Some(row) if row.at < at => low = row.number,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    /// Feed rows after revision `after`: revision and record.
    ///
    /// # Errors
    /// When the store failed.
    pub fn feed_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, records::FeedRecord)>, Refused> {
        let lower = keys::feed(after, u16::MAX);
        let rows = self.scan(Table::Feed, (Bound::Excluded(&lower), Bound::Unbounded), Order::Ascending, limit)?;
        Ok(rows
            .iter()
            .filter_map(|(key, value)| {
                let number = keys::leading_revision(key)?;
                let read = self.shared.codec.decode(Table::Feed, key, value);
                Some((number, read.inspect_err(|e| self.shared.aside.note(Table::Feed, key, e)).ok()?))
            })
            .collect())
    }

    /// The last revision that was removed from the feed; 0 when none was. Resuming after an older one would miss it.
    ///
    /// # Errors
    /// When the store failed.
    pub fn feed_floor(&self) -> Result<u64, Refused> {
        Ok(self.acknowledged(upkeep::FEED_FLOOR)?.unwrap_or(0))
    }

    /// Audit checkpoints after number `after`.
    ///
    /// # Errors
    /// When the store failed.
    pub fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<pb::Checkpoint>, Refused> {
        let lower = keys::revision(after);
        let range = (Bound::Excluded(lower.as_slice()), Bound::Unbounded);
        let rows = self.scan(Table::Checkpoints, range, Order::Ascending, limit)?;
        Ok(rows
            .iter()
            .filter_map(|(key, value)| {
                let read = self.shared.codec.decode(Table::Checkpoints, key, value);
                read.inspect_err(|e| self.shared.aside.note(Table::Checkpoints, key, e)).ok()
            })
            .collect())
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

    /// How far an audit sink has acknowledged.
    ///
    /// # Errors
    /// When the store failed.
    pub fn acknowledged(&self, sink: &str) -> Result<Option<u64>, Refused> {
        Ok(self.record::<records::MetaRecord>(Table::Sinks, sink.as_bytes())?.map(|record| record.revision))
    }

    /// `left` leases may stand above; a longer chain counts as ended, for what is above it is not known.
    fn lease_within(&self, lease: &Lease, now: Timestamp, left: usize) -> Result<Standing, Refused> {
        let own = self.own_lease_standing(lease, now);
        if matches!(own, Standing::Ended(_)) {
            return Ok(own);
        }
        let standing = own.and(match self.task(lease.id.task())? {
            Some(task) => self.task_within(&task, now, left)?,
            None => Standing::Ended(EndReason::Expired),
        });
        self.above(standing, lease.parent, now, left)
    }

    fn task_within(&self, task: &Task, now: Timestamp, left: usize) -> Result<Standing, Refused> {
        let mut standing = self.above(self.own_task_standing(task, now), task.parent_lease, now, left)?;
        let mut parent = task.parent;
        for _ in 0..Task::MAX_ANCESTORS {
            let Some(id) = parent else { break };
            let Some(task) = self.task(id)? else { return Ok(Standing::Ended(EndReason::Expired)) };
            standing = self.above(standing.and(self.own_task_standing(&task, now)), task.parent_lease, now, left)?;
            parent = task.parent;
        }
        Ok(if parent.is_some() { Standing::Ended(EndReason::Damaged) } else { standing })
    }

    /// `standing`, and that of the lease above. What has ended already is not looked into.
    fn above(
        &self,
        standing: Standing,
        lease: Option<LeaseId>,
        now: Timestamp,
        left: usize,
    ) -> Result<Standing, Refused> {
        match (standing, lease, left.checked_sub(1)) {
            (Standing::Ended(_), _, _) | (_, None, _) => Ok(standing),
            (_, Some(_), None) => Ok(Standing::Ended(EndReason::Damaged)),
            (_, Some(id), Some(left)) => Ok(standing.and(match self.lease(id)? {
                Some(lease) => self.lease_within(&lease, now, left)?,
                None => Standing::Ended(EndReason::Expired),
            })),
        }
    }

    fn own_lease_standing(&self, lease: &Lease, now: Timestamp) -> Standing {
        let own = lease.own_standing(now);
        if !own.is_live() {
            return own;
        }
        if lease.basis.0 != self.shared.incarnation {
            return Standing::Ended(EndReason::Revoked);
        }
        self.shared.book().standing(&lease.scopes(), lease.basis.1).and(self.shared.lapse(lease, now))
    }

    fn own_task_standing(&self, task: &Task, now: Timestamp) -> Standing {
        let own = task.own_standing(now);
        if !own.is_live() {
            return own;
        }
        if task.basis.0 != self.shared.incarnation {
            return Standing::Ended(EndReason::Revoked);
        }
        let book = self.shared.book();
        let standing = book.standing(&task.scopes(), task.basis.1);
        standing.and(if book.state(ScopeId::task(task.id)).is_suspended() {
            Standing::Suspended
        } else {
            Standing::Live
        })
    }

    pub(super) fn record<R: prost::Message + Default>(&self, table: Table, key: &[u8]) -> Result<Option<R>, Refused> {
        let Some(value) = self.get(table, key)? else { return Ok(None) };
        self.shared.codec.decode(table, key, &value).map(Some).map_err(|e| {
            self.shared.aside.note(table, key, &e);
            Refused::StoreFailed
        })
    }

    fn audit_page_of(&self, key: &[u8], value: &[u8]) -> Option<(u64, Option<records::AuditPage>)> {
        let (_, first) = keys::parse_audit(key)?;
        let read = self.shared.codec.decode(Table::Audit, key, value);
        Some((first, read.inspect_err(|e| self.shared.aside.note(Table::Audit, key, e)).ok()))
    }

    fn log_row(&self, key: &[u8], value: &[u8]) -> Option<LogRow> {
        let number = keys::leading_revision(key)?;
        let read: Result<records::LogPage, _> = self.shared.codec.decode(Table::Log, key, value);
        let page = read.inspect_err(|e| self.shared.aside.note(Table::Log, key, e)).ok()?;
        let place = |entry: &records::LogEntry| Some((entry.stream.as_slice().try_into().ok()?, entry.first_sequence));
        let pages = page.pages.iter().filter_map(place).collect();
        let notable = page.pages.iter().filter(|entry| entry.notable).filter_map(place).collect();
        Some(LogRow { number, at: Timestamp::from_millis(page.at), pages, notable })
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

const EVERYTHING: Range<'static> = (Bound::Unbounded, Bound::Unbounded);
