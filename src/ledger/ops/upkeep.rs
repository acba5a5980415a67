//! Sweeping what is over, walking behind cuts, checkpoints: background work in small pages.

use std::{
    collections::HashMap,
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use prost::Message;

use super::{
    end,
    secrets::{self, Exposed},
};
use crate::{
    audit::{checkpoint::Statement, time::stamp},
    ledger::{
        codec,
        engine::{Order, Row, Table},
        journal::{self, Head, stream_name},
        keys::{self, StreamId},
        refused::Refused,
        tx::Tx,
    },
    model::{ApprovalId, Digest, EndReason, LeaseId, PersonId, ScopeId, TenantNumber, Timestamp},
    pb, records,
};

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SweepReport {
    /// Leases and tasks removed.
    pub removed: u64,
    /// Whether more is due.
    pub more: bool,
}

/// What one step of a walk did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WalkReport {
    /// Leases looked at so far.
    pub walked: u64,
    /// Of those, ended by this cut.
    pub ended: u64,
    /// Whether the walk is finished.
    pub done: bool,
}

/// Removes what ended in minutes before `before`: one page of expiries and some old counts, marks and feed rows.
///
/// Nothing is removed while the clock or the store is in doubt. The time mark moves in any case.
pub(in crate::ledger) fn sweep(
    tx: &mut Tx<'_>,
    before: Timestamp,
    now: Timestamp,
    log_kept_from: u64,
) -> Result<SweepReport, Refused> {
    tx.keep_time(now);
    if tx.shared.holds.in_doubt() {
        return Ok(SweepReport::default());
    }
    let upper = before.minute().to_be_bytes();
    let pages = tx.scan(Table::Expiry, (Bound::Unbounded, Bound::Excluded(&upper)), SWEEP_PAGES + 1)?;
    let mut report = SweepReport { removed: 0, more: pages.len() > SWEEP_PAGES };
    for (key, value) in pages.into_iter().take(SWEEP_PAGES) {
        match tx.shared.codec.decode::<records::ExpiryPage>(Table::Expiry, &key, &value) {
            Ok(page) => report.removed += sweep_page(tx, &page, keys::leading_minute(&key).unwrap_or(0)),
            Err(e) => tx.shared.aside.note(Table::Expiry, &key, &e),
        }
        tx.delete(Table::Expiry, key);
    }
    let stale = tx.shared.counts().stale(now.minute(), SWEEP_ROWS);
    tx.drop_counts(&stale);
    report.more |= sweep_feed(tx, now)? | sweep_log(tx, log_kept_from)? | (stale.len() == SWEEP_ROWS);
    forget_cuts(tx, now)?;
    Ok(report)
}

/// Looks at the next page of leases for a cut: marks those that it ended and frees their quota. Access ended at the cut,
/// not here.
pub(in crate::ledger) fn walk(
    tx: &mut Tx<'_>,
    scope: ScopeId,
    number: u64,
    tenant: Option<TenantNumber>,
) -> Result<WalkReport, Refused> {
    let key = keys::cut(scope, number);
    let Some(value) = tx.get(Table::Cuts, &key)? else { return Ok(WalkReport { done: true, ..Default::default() }) };
    let mut record: records::CutRecord = match tx.shared.codec.decode(Table::Cuts, &key, &value) {
        Ok(record) => record,
        Err(e) => {
            tx.shared.aside.note(Table::Cuts, &key, &e);
            return Ok(WalkReport { done: true, ..Default::default() });
        }
    };
    if record.done {
        return Ok(WalkReport { walked: record.walked, ended: record.ended, done: true });
    }
    let prefix = tenant.map(keys::tenant).unwrap_or_default();
    let end = crate::ledger::engine::prefix_end(&prefix);
    let lower =
        if record.cursor.is_empty() { Bound::Included(&prefix[..]) } else { Bound::Excluded(&record.cursor[..]) };
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let rows = tx.scan(Table::Leases, (lower, upper), WALK_ROWS)?;
    let why = EndReason::from_code(record.why).unwrap_or(EndReason::Revoked);
    let at = Timestamp::from_millis(record.at);
    record.done = rows.len() < WALK_ROWS;
    let mut exposed = Exposed::default();
    for (key, _) in rows {
        record.walked += 1;
        record.ended += u64::from(walk_lease(tx, &key, (scope, number), why, at, &mut exposed)?);
        record.cursor = key;
    }
    let because = cut_scope(&record).map(|scope| format!("{scope} was revoked: {}", record.reason));
    exposed.tell(tx, &because.unwrap_or_default(), at)?;
    tx.put_record(Table::Cuts, key, &record);
    if record.done {
        let state = tx.scope(scope);
        if state.cut == number {
            tx.set_scope(scope, crate::ledger::book::ScopeState { cleaned: true, ..state });
        }
    }
    Ok(WalkReport { walked: record.walked, ended: record.ended, done: record.done })
}

fn walk_lease(
    tx: &mut Tx<'_>,
    key: &[u8],
    (scope, cut): (ScopeId, u64),
    why: EndReason,
    at: Timestamp,
    exposed: &mut Exposed,
) -> Result<bool, Refused> {
    let Some(id) = LeaseId::from_bytes(key) else { return Ok(false) };
    // The row is read through the commit: it may have changed since the scan.
    let lease = match tx.lease(id) {
        Ok(Some(lease)) => lease,
        Ok(None) | Err(Refused::LeaseEnded(_)) => return Ok(false),
        Err(refused) => return Err(refused),
    };
    if lease.basis.1 >= cut || !lease.own_standing(at).is_live() || !lease.scopes().contains(&scope) {
        return Ok(false);
    }
    exposed.note(&lease, why);
    end::end_lease(tx, lease, why, at)?;
    Ok(true)
}

fn sweep_page(tx: &mut Tx<'_>, page: &records::ExpiryPage, minute: u32) -> u64 {
    let leases = page.leases.chunks_exact(LeaseId::BYTES);
    let tasks = page.tasks.chunks_exact(crate::model::TaskId::BYTES);
    let removed = leases.len() + tasks.len();
    for id in leases {
        tx.delete(Table::Leases, id.to_vec());
    }
    for id in tasks {
        tx.delete(Table::Tasks, id.to_vec());
        tx.delete(Table::Held, id.to_vec());
        if let Some(id) = crate::model::TaskId::from_bytes(id) {
            super::pace::forget(tx, id);
        }
    }
    for key in page.children.chunks_exact(2 * crate::model::TaskId::BYTES) {
        tx.delete(Table::Children, key.to_vec());
    }
    for key in page.retries.chunks_exact(16) {
        sweep_retry(tx, key);
    }
    for key in page.sign_ins.chunks_exact(1 + PersonId::BYTES) {
        tx.delete(Table::People, key.to_vec());
    }
    for token in page.spent.chunks_exact(32) {
        tx.delete(Table::Spent, token.to_vec());
    }
    for id in page.approvals.chunks_exact(ApprovalId::BYTES) {
        tx.delete(Table::Approvals, id.to_vec());
    }
    for key in &page.secret_holders {
        secrets::forget_holder(tx, key, minute);
    }
    for id in page.pickups.chunks_exact(LeaseId::BYTES).filter_map(LeaseId::from_bytes) {
        tx.delete(Table::Pickups, keys::pickup(id));
    }
    removed as u64
}

/// A key that was used again lives on with its latest use.
fn sweep_retry(tx: &mut Tx<'_>, key: &[u8]) {
    let Ok(Some(value)) = tx.get(Table::Retries, key) else { return };
    let record: Result<records::RetryRecord, _> = tx.shared.codec.decode(Table::Retries, key, &value);
    let in_use = record.is_ok_and(|record| {
        LeaseId::from_bytes(&record.lease).is_some_and(|id| matches!(tx.get(Table::Leases, id.as_bytes()), Ok(Some(_))))
    });
    if !in_use {
        tx.delete(Table::Retries, key.to_vec());
    }
}

fn sweep_feed(tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, Refused> {
    let rows = tx.scan(Table::Feed, (Bound::Unbounded, Bound::Unbounded), SWEEP_ROWS)?;
    let full = rows.len() == SWEEP_ROWS;
    let mut floor = None;
    for (key, value) in rows {
        let record: Result<records::FeedRecord, _> = tx.shared.codec.decode(Table::Feed, &key, &value);
        // The feed is removed from the front only, so that resuming knows where it begins.
        if record.is_ok_and(|record| record.covers_until >= now.millis()) {
            break;
        }
        floor = keys::leading_revision(&key).or(floor);
        tx.delete(Table::Feed, key);
    }
    if let Some(floor) = floor {
        acknowledge(tx, FEED_FLOOR, floor);
    }
    Ok(full && floor.is_some())
}

fn sweep_log(tx: &mut Tx<'_>, kept_from: u64) -> Result<bool, Refused> {
    let upper = keys::revision(kept_from);
    let rows = tx.scan(Table::Log, (Bound::Unbounded, Bound::Excluded(&upper)), SWEEP_ROWS)?;
    let more = rows.len() == SWEEP_ROWS;
    for (key, _) in rows {
        tx.delete(Table::Log, key);
    }
    Ok(more)
}

fn forget_cuts(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Refused> {
    let rows = tx.scan(Table::Cuts, (Bound::Unbounded, Bound::Unbounded), SWEEP_ROWS)?;
    for (key, value) in rows {
        let record: Result<records::CutRecord, _> = tx.shared.codec.decode(Table::Cuts, &key, &value);
        // A damaged cut is never forgotten.
        let over = record.is_ok_and(|record| record.done && record.covers_until < now.millis());
        let Some((scope, number)) = keys::parse_cut(&key).filter(|_| over) else { continue };
        tx.delete(Table::Cuts, key);
        let state = tx.scope(scope);
        if state.cut == number {
            let kept = crate::ledger::book::ScopeState {
                cut: 0,
                cut_at: Timestamp::default(),
                why: None,
                cleaned: false,
                ..state
            };
            tx.set_scope(scope, kept);
        }
    }
    Ok(())
}

/// Signs 32 bytes (Ed25519).
pub type Sign = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// How a checkpoint is signed.
#[derive(Clone)]
pub struct CheckpointDraft {
    /// The audit key's id.
    pub key_id: String,
    /// Its public key.
    pub public_key: [u8; 32],
    /// Signs 32 bytes (Ed25519).
    pub sign: Sign,
    /// When.
    pub now: Timestamp,
}

impl fmt::Debug for CheckpointDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointDraft").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Streams that moved since the last checkpoint.
pub(in crate::ledger) type Moved = Arc<Mutex<HashMap<StreamId, Head>>>;

/// Signs where every moved stream stands; `None` when none has moved.
pub(in crate::ledger) fn checkpoint(
    tx: &mut Tx<'_>,
    draft: &CheckpointDraft,
    moved: &Moved,
) -> Result<Option<pb::Checkpoint>, Refused> {
    let heads: HashMap<StreamId, Head> = moved.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if heads.is_empty() {
        return Ok(None);
    }
    let last = tx.shared.engine.scan(Table::Checkpoints, (Bound::Unbounded, Bound::Unbounded), Order::Descending, 1);
    let last = last.map_err(|e| tx.shared.fault(&e))?.into_iter().next();
    let previous: Option<pb::Checkpoint> =
        last.as_ref().and_then(|(key, value)| tx.shared.codec.decode(Table::Checkpoints, key, value).ok());
    let number = last.as_ref().and_then(|(key, _)| keys::leading_revision(key)).unwrap_or(0) + 1;
    let statement = Statement {
        number,
        at: stamp(draft.now),
        revision: pb::Revision { incarnation: tx.shared.incarnation, number: tx.number() - 1 },
        heads: heads.iter().map(|(id, head)| stream_head(tx, *id, *head)).collect::<Result<_, _>>()?,
        previous: previous.and_then(|p| Digest::from_slice(&p.hash)).unwrap_or_default(),
    };
    let checkpoint = statement.sign(&draft.key_id, &draft.public_key, |hash| (draft.sign)(hash));
    tx.put_record(Table::Checkpoints, keys::revision(number), &checkpoint);
    tx.mark_time(draft.now);
    let moved = Arc::clone(moved);
    tx.on_publish(move || {
        // A stream that moved again in this very commit stays.
        moved.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, head| heads.get(id) != Some(head));
    });
    Ok(Some(checkpoint))
}

fn stream_head(tx: &Tx<'_>, id: StreamId, head: Head) -> Result<pb::StreamHead, Refused> {
    let record: records::StreamRecord = tx
        .get(Table::Streams, &id)?
        .and_then(|value| tx.shared.codec.decode(Table::Streams, &id, &value).ok())
        .unwrap_or_default();
    Ok(pb::StreamHead {
        stream: stream_name(&record.tenant, &record.partner),
        sequence: head.sequence,
        hash: head.hash.0.to_vec(),
        first_sequence: record.first_sequence.max(1),
    })
}

/// What one step of trimming a stream found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TrimReport {
    /// Whether something lies before the stream's beginning, to be removed once that beginning is signed.
    pub pending: bool,
    /// Whether the beginning may move further.
    pub more: bool,
}

/// Says in a stream's row that it begins behind the pages older than `before`, and has the next checkpoint say so.
/// Nothing is removed yet: after a crash, a beginning that nobody has signed would look like truncation.
pub(in crate::ledger) fn trim_stream(
    tx: &mut Tx<'_>,
    id: StreamId,
    before: Timestamp,
    moved: &Moved,
) -> Result<TrimReport, Refused> {
    let Some(mut stream) = stream_row(tx, id)? else { return Ok(TrimReport::default()) };
    let rows = pages_from(tx, id, stream.first_sequence, SWEEP_ROWS + 1)?;
    let mut report = TrimReport { pending: false, more: rows.len() > SWEEP_ROWS };
    // The last page stays: it says where the stream stands.
    let last = rows.len().saturating_sub(1);
    for (key, value) in rows.into_iter().take(last) {
        let page = tx.shared.codec.decode::<records::AuditPage>(Table::Audit, &key, &value).ok();
        let Some((page, (_, first))) = page.filter(|page| is_older(page, before)).zip(keys::parse_audit(&key)) else {
            report.more = false;
            break;
        };
        (stream.first_sequence, stream.first_before) = (first + page.events.len() as u64, page.after);
    }
    let oldest = pages_from(tx, id, 0, 1)?.first().and_then(|(key, _)| keys::parse_audit(key));
    report.pending = oldest.is_some_and(|(_, first)| first < stream.first_sequence);
    if report.pending {
        tx.put_record(Table::Streams, id.to_vec(), &stream);
        let (head, moved) = (journal::read_head(tx.shared, id)?, Arc::clone(moved));
        tx.on_publish(move || {
            moved.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(head);
        });
    }
    Ok(report)
}

fn is_older(page: &records::AuditPage, before: Timestamp) -> bool {
    let newest = page.events.last().and_then(|bytes| pb::Event::decode(bytes.as_slice()).ok());
    let at = newest.and_then(|event| event.at).map_or(0, |at| at.seconds);
    at < i64::try_from(before.seconds()).unwrap_or(i64::MAX)
}

/// Removes audit pages that lie before a stream's beginning, a few at a time; how many events. Only once a checkpoint
/// has signed that beginning.
pub(in crate::ledger) fn drop_trimmed(tx: &mut Tx<'_>, id: StreamId) -> Result<u64, Refused> {
    let Some(stream) = stream_row(tx, id)? else { return Ok(0) };
    let mut removed = 0;
    for (key, value) in pages_from(tx, id, 0, SWEEP_ROWS)? {
        if keys::parse_audit(&key).is_none_or(|(_, first)| first >= stream.first_sequence) {
            break;
        }
        let page = tx.shared.codec.decode::<records::AuditPage>(Table::Audit, &key, &value);
        removed += page.map_or(1, |page| page.events.len() as u64);
        tx.delete(Table::Audit, key);
    }
    Ok(removed)
}

fn stream_row(tx: &Tx<'_>, id: StreamId) -> Result<Option<records::StreamRecord>, Refused> {
    let value = tx.get(Table::Streams, &id)?;
    // A damaged row says nothing of a beginning: nothing is removed.
    Ok(value.and_then(|value| tx.shared.codec.decode(Table::Streams, &id, &value).ok()))
}

fn pages_from(tx: &Tx<'_>, id: StreamId, first: u64, limit: usize) -> Result<Vec<Row>, Refused> {
    let (lower, end) = (keys::audit(&id, first), crate::ledger::engine::prefix_end(&id));
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    tx.scan(Table::Audit, (Bound::Included(&lower), upper), limit)
}

/// Notes how far an audit sink has acknowledged.
pub(in crate::ledger) fn acknowledge(tx: &mut Tx<'_>, sink: &str, number: u64) {
    let record = records::MetaRecord { revision: number, ..Default::default() };
    tx.put_record(Table::Sinks, sink.as_bytes().to_vec(), &record);
}

/// The scope a cut's record names.
pub(in crate::ledger) fn cut_scope(record: &records::CutRecord) -> Option<crate::model::Scope> {
    record.scope.as_ref().and_then(|name| codec::scope_from(name).ok())
}

/// The name under which the last revision removed from the feed is kept beside the sinks' positions; no sink can have
/// it.
pub(in crate::ledger) const FEED_FLOOR: &str = "\0feed";
/// Expiry pages swept in one commit; a page holds what one commit began.
const SWEEP_PAGES: usize = 4;
/// Rows of other kinds swept in one commit.
const SWEEP_ROWS: usize = 512;
/// Leases looked at in one step of a walk.
const WALK_ROWS: usize = 512;
