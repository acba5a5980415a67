//! One commit in the making: what proposals read and write before the engine sees it.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
};

use prost::Message;

use super::{
    book::ScopeState,
    counts::Counts,
    engine::{Batch, Compare, EngineError, Op, Order, Range, Row, Table},
    journal::{Head, Heads, PageDraft, audit_hash, stream_id, stream_name},
    keys,
    meta::{Authority, MetaDraft},
    refused::Refused,
    shared::Shared,
};
use crate::{
    model::{Chain, Digest, EndReason, Lease, LeaseId, ScopeId, Task, TaskId, Timestamp},
    pb, records,
};

/// What the committer runs. May run more than once: it must not mint, log or draw entropy.
pub trait Work: Send {
    /// Reads and writes through `tx`. A refusal must come before the first write.
    fn run(&mut self, tx: &mut Tx<'_>);
    /// Learns how the commit ended and answers the caller.
    fn finish(self: Box<Self>, outcome: Result<u64, Refused>);
    /// Whether it must still be tried when there is no room to begin anything.
    fn is_end(&self) -> bool;
}

impl std::fmt::Debug for dyn Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_end() { "Work(end)" } else { "Work" })
    }
}

/// One commit in the making.
///
/// Reads see the store as of the last commit plus what this one has written so far.
pub struct Tx<'a> {
    /// The ledger's shared state.
    pub(super) shared: &'a Shared,
    /// The revision this commit will have.
    pub(super) number: u64,
    heads: &'a Heads,
    ops: Vec<Op>,
    at: HashMap<(Table, Vec<u8>), usize>,
    scopes: HashMap<ScopeId, ScopeState>,
    counts: HashMap<ScopeId, Vec<(u32, u32)>>,
    pages: BTreeMap<keys::StreamId, PageDraft>,
    expiry: BTreeMap<u32, records::ExpiryPage>,
    feed: Vec<records::FeedRecord>,
    hooks: Vec<Box<dyn FnOnce() + Send>>,
    now: Timestamp,
    authority: Authority,
    next_tenant: u32,
    /// Whether something changed that is no row of its own.
    touched: bool,
    /// Whether the store failed while proposals read it: then nothing of this commit happens, lest one be half done.
    failed: Cell<bool>,
}

/// What a finished commit changes in memory once the engine has it.
pub struct Changes {
    pub(super) scopes: HashMap<ScopeId, ScopeState>,
    pub(super) counts: HashMap<ScopeId, Vec<(u32, u32)>>,
    pub(super) heads: Vec<(keys::StreamId, Head)>,
    pub(super) feed: Vec<records::FeedRecord>,
    pub(super) hooks: Vec<Box<dyn FnOnce() + Send>>,
    pub(super) now: Timestamp,
    pub(super) authority: Authority,
    pub(super) next_tenant: u32,
    pub(super) log: Vec<records::LogEntry>,
    pub(super) audit_head: Digest,
}

impl<'a> Tx<'a> {
    pub(super) fn new(shared: &'a Shared, heads: &'a Heads, meta: &MetaDraft) -> Self {
        Self {
            shared,
            number: meta.number + 1,
            heads,
            ops: Vec::with_capacity(256),
            at: HashMap::with_capacity(256),
            scopes: HashMap::new(),
            counts: HashMap::new(),
            pages: BTreeMap::new(),
            expiry: BTreeMap::new(),
            feed: Vec::new(),
            hooks: Vec::new(),
            now: meta.now,
            authority: meta.authority,
            next_tenant: meta.next_tenant,
            touched: false,
            failed: Cell::new(false),
        }
    }

    /// The number that the next new tenant gets.
    pub(super) fn next_tenant(&self) -> u32 {
        self.next_tenant
    }

    pub(super) fn set_next_tenant(&mut self, next: u32) {
        self.next_tenant = next;
        self.touched = true;
    }

    /// The revision this commit will have.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The confirmed time mark that goes with this commit.
    pub(super) fn time(&self) -> Timestamp {
        self.now
    }

    /// Moves the confirmed time mark that goes with this commit; never back.
    pub fn mark_time(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// As [`Self::mark_time`], and writes the mark even when there is nothing else to write, once it lags.
    ///
    /// A start goes on from the mark: what expired after it would live again if the clock had been set back meanwhile.
    pub(super) fn keep_time(&mut self, now: Timestamp) {
        self.touched |= now.since(self.now) >= MARK_LAG;
        self.mark_time(now);
    }

    /// A row's value as this commit sees it.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        if let Some(op) = self.at.get(&(table, key.to_vec())).and_then(|&at| self.ops.get(at)) {
            return Ok(match op {
                Op::Put(_, _, value) => Some(value.clone()),
                Op::Delete(..) => None,
            });
        }
        self.shared.engine.get(table, key).map_err(|e| self.fault(&e))
    }

    /// Whether the store failed while proposals read it.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    fn fault(&self, error: &EngineError) -> Refused {
        self.failed.set(true);
        self.shared.fault(error)
    }

    /// Moves the confirmed time mark to `now`, even back: for a start with a clock that is behind it.
    pub(super) fn reset_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Rows as of the last commit: what this one has written is not among them.
    pub(super) fn scan(&self, table: Table, range: Range<'_>, limit: usize) -> Result<Vec<Row>, Refused> {
        self.shared.engine.scan(table, range, Order::Ascending, limit).map_err(|e| self.fault(&e))
    }

    /// Keys under a prefix that this commit writes or deletes, in no order.
    pub(super) fn staged<'t>(&'t self, table: Table, prefix: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        self.at.keys().filter(move |(of, key)| *of == table && key.starts_with(prefix)).map(|(_, key)| key.as_slice())
    }

    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.note_authority(table, &key, Some(&value));
        self.write(table, key.clone(), Op::Put(table, key, value));
    }

    pub(super) fn put_record(&mut self, table: Table, key: Vec<u8>, record: &impl Message) {
        let value = self.shared.codec.encode(table, &key, record);
        self.put(table, key, value);
    }

    pub(super) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.note_authority(table, &key, None);
        self.write(table, key.clone(), Op::Delete(table, key));
    }

    /// A lease; `None` when there is none. An unreadable one counts as damaged, so as ended.
    pub(super) fn lease(&self, id: LeaseId) -> Result<Option<Lease>, Refused> {
        let Some(value) = self.get(Table::Leases, id.as_bytes())? else { return Ok(None) };
        self.shared.codec.decode_lease(id, &value).map(Some).map_err(|e| {
            self.shared.aside.note(Table::Leases, id.as_bytes(), &e);
            Refused::LeaseEnded(EndReason::Damaged)
        })
    }

    /// A task; `None` when there is none. An unreadable one counts as damaged, so as ended.
    pub(super) fn task(&self, id: TaskId) -> Result<Option<Task>, Refused> {
        let Some(value) = self.get(Table::Tasks, id.as_bytes())? else { return Ok(None) };
        self.shared.codec.decode_task(id, &value).map(Some).map_err(|e| {
            self.shared.aside.note(Table::Tasks, id.as_bytes(), &e);
            Refused::TaskEnded(EndReason::Damaged)
        })
    }

    pub(super) fn put_lease(&mut self, lease: &Lease) {
        let value = self.shared.codec.encode_lease(lease);
        self.put(Table::Leases, lease.id.as_bytes().to_vec(), value);
    }

    pub(super) fn put_task(&mut self, task: &Task) {
        let value = self.shared.codec.encode_task(task);
        self.put(Table::Tasks, task.id.as_bytes().to_vec(), value);
    }

    /// What is known of a scope, with what this commit has done to it.
    pub(super) fn scope(&self, id: ScopeId) -> ScopeState {
        self.scopes.get(&id).copied().unwrap_or_else(|| self.shared.book().state(id))
    }

    pub(super) fn set_scope(&mut self, id: ScopeId, state: ScopeState) {
        self.scopes.insert(id, state);
    }

    /// Refuses a beginning whose scopes were barred, changed or cut after its basis.
    pub(super) fn check_basis(&self, scopes: &[ScopeId], basis: (u64, u64)) -> Result<(), Refused> {
        if basis.0 != self.shared.incarnation {
            return Err(Refused::Moved);
        }
        let book = self.shared.book();
        for &id in scopes {
            let state = self.scopes.get(&id).copied().unwrap_or_else(|| book.state(id));
            if state.is_barred() {
                return Err(Refused::Barred(id));
            }
            if state.cut > basis.1 || state.changed > basis.1 {
                return Err(Refused::Moved);
            }
        }
        Ok(())
    }

    /// Live leases of a scope, with what this commit has added.
    pub(super) fn live(&self, scope: ScopeId, now: Timestamp) -> u64 {
        let counts = self.shared.counts();
        let staged = self.counts.get(&scope).map(Vec::as_slice).unwrap_or_default();
        staged
            .iter()
            .filter(|(minute, _)| *minute >= now.minute())
            .fold(counts.live(scope, now.minute()), |live, &(minute, count)| {
                (live + u64::from(count)).saturating_sub(counts.at(scope, minute).into())
            })
    }

    /// Adds to (or, negative, takes from) the live counts of some scopes.
    pub(super) fn count(&mut self, scopes: &[ScopeId], minute: u32, by: i64) {
        for &scope in scopes {
            let stored = self.shared.counts().at(scope, minute);
            let bucket = self.bucket(scope, minute, stored);
            let next = i64::from(*bucket).saturating_add(by).max(0);
            *bucket = u32::try_from(next).unwrap_or(u32::MAX);
        }
    }

    /// Removes buckets whose minute is over.
    pub(super) fn drop_counts(&mut self, gone: &[(ScopeId, u32)]) {
        for &(scope, minute) in gone {
            *self.bucket(scope, minute, 0) = 0;
        }
    }

    /// Plans what is to be swept in or after a minute.
    pub(super) fn expires(&mut self, at: Timestamp) -> &mut records::ExpiryPage {
        self.expiry.entry(at.minute()).or_default()
    }

    /// Tells watchers.
    pub(super) fn announce(&mut self, kind: pb::RevocationKind, scope: ScopeId, covers_until: Timestamp) {
        self.feed.push(records::FeedRecord {
            kind: i32::from(kind).unsigned_abs(),
            scope_id: scope.as_bytes().to_vec(),
            covers_until: covers_until.millis(),
        });
    }

    /// Runs `hook` once the commit is on disk, before anyone is told.
    pub(super) fn on_publish(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }

    /// Appends an event to its stream: it becomes durable with this commit, or the commit does not happen.
    pub(super) fn audit(&mut self, event: &pb::Event) -> Result<(), Refused> {
        let id = stream_id(&event.tenant, &event.partner);
        if !self.pages.contains_key(&id) {
            let head = self.heads.load(self.shared, id).inspect_err(|_| self.failed.set(true))?;
            if head.sequence == 0 {
                let record = records::StreamRecord {
                    tenant: event.tenant.clone(),
                    partner: event.partner.clone(),
                    first_sequence: 1,
                    first_before: vec![0; 32],
                };
                self.put_record(Table::Streams, id.to_vec(), &record);
            }
            self.pages.insert(id, PageDraft::after(head));
        }
        let number = self.number;
        let revision = pb::Revision { incarnation: self.shared.incarnation, number };
        if let Some(page) = self.pages.get_mut(&id) {
            page.append(event, stream_name(&event.tenant, &event.partner), revision);
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.pages.is_empty() && self.counts.is_empty() && !self.touched
    }

    /// The batch for the engine and the changes in memory that go with it.
    pub(super) fn finish(mut self, meta: &MetaDraft) -> (Batch, Changes) {
        let mut log = records::LogPage { at: self.now.millis(), ..Default::default() };
        let mut audit_head = meta.audit_head;
        let mut heads = Vec::with_capacity(self.pages.len());
        for (id, page) in std::mem::take(&mut self.pages) {
            let (first_sequence, notable) = (page.first, page.notable);
            log.pages.push(records::LogEntry { stream: id.to_vec(), first_sequence, notable });
            let head = page.head();
            audit_head = audit_hash(audit_head, &id, head);
            heads.push((id, head));
            let key = keys::audit(&id, page.first);
            self.put_record(Table::Audit, key, &page.record(self.number));
        }
        for (minute, page) in std::mem::take(&mut self.expiry) {
            self.put_record(Table::Expiry, keys::expiry(minute, self.number), &page);
        }
        for (index, record) in std::mem::take(&mut self.feed).into_iter().enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            self.put_record(Table::Feed, keys::feed(self.number, index), &record);
            self.feed.push(record);
        }
        let counts = std::mem::take(&mut self.counts);
        for (&scope, buckets) in &counts {
            for &(minute, live) in buckets {
                self.write_count(scope, minute, live);
            }
        }
        if !log.pages.is_empty() {
            log.head = audit_head.0.to_vec();
            self.put_record(Table::Log, keys::revision(self.number), &log);
        }
        let record = MetaDraft { next_tenant: self.next_tenant, audit_head, ..meta.clone() }.record(
            self.number,
            self.now,
            self.authority,
        );
        let value = self.shared.codec.encode(Table::Meta, keys::META, &record);
        self.ops.push(Op::Put(Table::Meta, keys::META.to_vec(), value));
        let compare = Compare { table: Table::Meta, key: keys::META.to_vec(), expected: meta.stored.clone() };
        let changes = Changes {
            scopes: self.scopes,
            counts,
            heads,
            feed: self.feed,
            hooks: self.hooks,
            now: self.now,
            authority: self.authority,
            next_tenant: self.next_tenant,
            log: log.pages,
            audit_head,
        };
        (Batch { compares: vec![compare], ops: self.ops }, changes)
    }

    fn write(&mut self, table: Table, key: Vec<u8>, op: Op) {
        if let Some(slot) = self.at.get(&(table, key.clone())).and_then(|&at| self.ops.get_mut(at)) {
            *slot = op;
            return;
        }
        self.at.insert((table, key), self.ops.len());
        self.ops.push(op);
    }

    fn write_count(&mut self, scope: ScopeId, minute: u32, live: u32) {
        let key = keys::count(scope, minute);
        if live == 0 {
            self.delete(Table::Counts, key);
        } else {
            self.put_record(Table::Counts, key, &records::CountRecord { live });
        }
    }

    /// The staged bucket of a scope and minute, beginning with `stored`.
    fn bucket(&mut self, scope: ScopeId, minute: u32, stored: u32) -> &mut u32 {
        let buckets = self.counts.entry(scope).or_default();
        let at = buckets.iter().position(|&(m, _)| m == minute).unwrap_or_else(|| {
            buckets.push((minute, stored));
            buckets.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "`at` was found or pushed just above")]
        &mut buckets[at].1
    }

    fn note_authority(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        if !keys::is_authority(table, key) {
            return;
        }
        let old = self.get(table, key).unwrap_or_default();
        self.authority.replace(old.as_deref(), value);
    }
}

impl Shared {
    /// Turns an engine's error into a refusal; logged once, here.
    pub(super) fn fault(&self, error: &EngineError) -> Refused {
        tracing::error!(error = %Chain(error), engine = self.engine.name(), "the store failed");
        match error {
            EngineError::Full(_) => Refused::StoreFull,
            EngineError::Locked | EngineError::Unknown(_) | EngineError::Damaged { .. } | EngineError::Io(_) => {
                Refused::StoreFailed
            }
        }
    }

    /// Live counts, for reading.
    pub(super) fn counts(&self) -> std::sync::RwLockReadGuard<'_, Counts> {
        self.counts.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How far the time mark may lag behind a sweep.
const MARK_LAG: std::time::Duration = std::time::Duration::from_secs(5);
