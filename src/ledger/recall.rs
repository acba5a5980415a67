//! What a store knows of the ledger, read when it is opened; founded when it knows nothing.

use std::{collections::hash_map::Entry, ops::Bound, sync::PoisonError};

use subtle::ConstantTimeEq;

use super::{
    book::{Book, ScopeState},
    codec::Codec,
    counts::Counts,
    engine::{Batch, Compare, Engine, EngineError, Op, Order, Row, Table},
    journal::read_head,
    keys,
    meta::{Authority, MetaDraft},
    migrate,
    open::OpenError,
    ops::upkeep::Moved,
    shared::{Aside, Shared},
};
use crate::{
    model::{
        Digest, EndReason, Suspension, TenantNumber, Timestamp,
        secret::{self, EntropyUnavailable},
    },
    pb, records,
};

/// Founds the ledger in an empty store; whether it did. A store of another seal key is refused.
pub(super) fn found(
    engine: &dyn Engine,
    codec: &Codec,
    seal_check: &[u8; 32],
    now: Timestamp,
) -> Result<bool, OpenError> {
    if let Some(check) = engine.get(Table::Meta, keys::FOUNDING)? {
        if !bool::from(check.as_slice().ct_eq(&seal_check[..])) {
            return Err(OpenError::WrongSealKey);
        }
        return Ok(false);
    }
    let meta = MetaDraft { incarnation: fresh_incarnation()?, next_tenant: 1, now, ..MetaDraft::default() };
    let record = meta.record(1, now, Authority::default());
    let batch = Batch {
        compares: vec![Compare { table: Table::Meta, key: keys::FOUNDING.to_vec(), expected: None }],
        ops: vec![
            Op::Put(Table::Meta, keys::FOUNDING.to_vec(), seal_check.to_vec()),
            Op::Put(Table::Meta, keys::META.to_vec(), codec.encode(Table::Meta, keys::META, &record)),
        ],
    };
    engine.commit(&batch)?;
    Ok(true)
}

/// Reads the ledger's own row. When it cannot be read, a new incarnation begins: everything before it has ended.
pub(super) fn read_meta(
    engine: &dyn Engine,
    codec: &Codec,
    aside: &Aside,
    now: Timestamp,
) -> Result<(MetaDraft, Option<&'static str>), OpenError> {
    let stored = engine.get(Table::Meta, keys::META)?;
    let record: Option<records::MetaRecord> = stored.as_deref().and_then(|value| {
        codec.decode(Table::Meta, keys::META, value).inspect_err(|e| aside.note(Table::Meta, keys::META, e)).ok()
    });
    let Some(record) = record else {
        let meta = MetaDraft {
            stored,
            incarnation: fresh_incarnation()?,
            next_tenant: last_tenant(engine)? + 1,
            number: last_revision(engine)? + REVISION_GAP,
            now,
            ..MetaDraft::default()
        };
        return Ok((meta, Some("the ledger's own row is damaged")));
    };
    for step in migrate::path(record.schema)? {
        let batch = step(engine)?;
        engine.commit(&batch)?;
    }
    let meta = MetaDraft {
        stored,
        incarnation: record.incarnation,
        next_tenant: record.next_tenant,
        number: record.revision,
        now: Timestamp::from_millis(record.time_mark),
        authority: Authority {
            rows: record.authority_rows,
            digest: record.authority_digest.try_into().unwrap_or_default(),
        },
        audit_head: Digest::from_slice(&record.audit_head).unwrap_or_default(),
        anchored: record.anchored,
    };
    Ok((meta, None))
}

/// Loads every cut and bar. A damaged cut still cuts: scope and revision are in its key. A damaged bar still bars, and
/// suspends.
pub(super) fn read_book(
    engine: &dyn Engine,
    codec: &Codec,
    aside: &Aside,
) -> Result<(Book, Authority, bool), OpenError> {
    let (mut book, mut authority, mut damaged) = (Book::default(), Authority::default(), false);
    for (key, value) in all(engine, Table::Cuts)? {
        authority.replace(None, Some(&value));
        let Some((scope, number)) = keys::parse_cut(&key) else { continue };
        let state = book.state(scope);
        let read = codec.decode::<records::CutRecord>(Table::Cuts, &key, &value);
        let (why, at, done) = match &read {
            Ok(r) => (EndReason::from_code(r.why), Timestamp::from_millis(r.at), r.done),
            Err(e) => {
                aside.note(Table::Cuts, &key, e);
                damaged = true;
                (Some(EndReason::Revoked), Timestamp::from_millis(u64::MAX), false)
            }
        };
        if number > state.cut {
            let cut_at = state.cut_at.max(at);
            book.set(scope, ScopeState { cut: number, cut_at, why, cleaned: done, ..state });
        }
    }
    for (key, value) in all(engine, Table::Bars)? {
        authority.replace(None, Some(&value));
        let Some((scope, cause)) = keys::parse_bar(&key) else { continue };
        let state = book.state(scope);
        if let Some(cause) = cause.and_then(Suspension::from_code) {
            // The reason stands in the key: a damaged one suspends all the same, and is never lifted by time.
            let revision = match codec.decode::<records::BarRecord>(Table::Bars, &key, &value) {
                Ok(record) => record.revision,
                Err(e) => {
                    aside.note(Table::Bars, &key, &e);
                    damaged = true;
                    u64::MAX
                }
            };
            let held_at = state.held_at.max(revision);
            book.set(scope, ScopeState { held: state.held.with(cause), held_at, ..state });
            continue;
        }
        let (bar, suspend) = match codec.decode::<records::BarRecord>(Table::Bars, &key, &value) {
            Ok(_) if cause.is_some() => (u64::MAX, true),
            Ok(record) => (record.revision, record.suspend),
            Err(e) => {
                aside.note(Table::Bars, &key, &e);
                damaged = true;
                (u64::MAX, true)
            }
        };
        book.set(scope, ScopeState { bar, suspend, ..state });
    }
    if let Some(value) = engine.get(Table::Meta, keys::HOLD)? {
        authority.replace(None, Some(&value));
    }
    Ok((book, authority, damaged))
}

/// Loads the live counts.
pub(super) fn read_counts(engine: &dyn Engine, codec: &Codec, aside: &Aside) -> Result<Counts, OpenError> {
    let mut counts = Counts::default();
    for (key, value) in all(engine, Table::Counts)? {
        let Some((scope, minute)) = keys::parse_count(&key) else { continue };
        match codec.decode::<records::CountRecord>(Table::Counts, &key, &value) {
            Ok(record) => counts.set(scope, minute, record.live),
            Err(e) => aside.note(Table::Counts, &key, &e),
        }
    }
    Ok(counts)
}

/// Streams that moved after the last checkpoint and before the stop: from the log, which is short.
pub(super) fn restore_moved(shared: &Shared, moved: &Moved) -> Result<(), OpenError> {
    let last = shared.engine.scan(Table::Checkpoints, EVERYTHING, Order::Descending, 1)?;
    let after = last
        .first()
        .and_then(|(key, value)| shared.codec.decode::<pb::Checkpoint>(Table::Checkpoints, key, value).ok())
        .and_then(|checkpoint| checkpoint.revision)
        .map_or(0, |revision| revision.number);
    let lower = keys::revision(after);
    let range = (Bound::Excluded(lower.as_slice()), Bound::Unbounded);
    let rows = shared.engine.scan(Table::Log, range, Order::Descending, MOVED_MOST)?;
    let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
    for (key, value) in rows {
        let Ok(page) = shared.codec.decode::<records::LogPage>(Table::Log, &key, &value) else { continue };
        for entry in page.pages {
            let Ok(id) = keys::StreamId::try_from(entry.stream.as_slice()) else { continue };
            if let Entry::Vacant(slot) = moved.entry(id)
                && let Ok(head) = read_head(shared, id)
            {
                slot.insert(head);
            }
        }
    }
    Ok(())
}

fn all(engine: &dyn Engine, table: Table) -> Result<Vec<Row>, EngineError> {
    engine.scan(table, EVERYTHING, Order::Ascending, usize::MAX)
}

fn last_revision(engine: &dyn Engine) -> Result<u64, EngineError> {
    let mut last = 0;
    for table in [Table::Log, Table::Feed] {
        let row = engine.scan(table, EVERYTHING, Order::Descending, 1)?;
        last = last.max(row.first().and_then(|(key, _)| keys::leading_revision(key)).unwrap_or(0));
    }
    let cuts = all(engine, Table::Cuts)?;
    Ok(cuts.iter().filter_map(|(key, _)| keys::parse_cut(key)).map(|(_, number)| number).fold(last, u64::max))
}

fn last_tenant(engine: &dyn Engine) -> Result<u32, EngineError> {
    let upper = [keys::TENANT_NAMES];
    let range = (Bound::Unbounded, Bound::Excluded(upper.as_slice()));
    let row = engine.scan(Table::Trust, range, Order::Descending, 1)?;
    let number = row.first().and_then(|(key, _)| key.first_chunk::<4>().copied());
    Ok(number.and_then(TenantNumber::from_bytes).map_or(0, TenantNumber::get))
}

pub(super) fn fresh_incarnation() -> Result<u64, EntropyUnavailable> {
    let mut bytes = [0; 8];
    secret::fill(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

const EVERYTHING: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);
/// How far revisions jump when the last one is not known for sure.
pub(super) const REVISION_GAP: u64 = 1 << 20;
/// Commits after the last checkpoint that are looked at; checkpoints are seconds apart.
const MOVED_MOST: usize = 100_000;
