//! Cuts and bars: one write each, whatever they cover.

use crate::{
    ledger::{book::ScopeState, codec, engine::Table, keys, refused::Refused, tx::Tx},
    model::{EndReason, Scope, Timestamp},
    pb, records,
};

/// A cut to write, with or without a bar.
#[derive(Debug)]
pub struct CutDraft {
    /// What it ends.
    pub scope: Scope,
    /// What it makes of a lease.
    pub why: EndReason,
    /// Whether to bar the scope's future as well.
    pub bar: bool,
    /// Who, for the record.
    pub operator: String,
    /// The operator's words.
    pub reason: String,
    /// The greatest not-after that it can concern.
    pub covers_until: Timestamp,
    /// Its event.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
    /// Whether the confirmed time mark goes back to `now`.
    pub resets_time: bool,
}

/// What became of a revocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Revoked {
    /// Revision of the cut that is in force.
    pub cut: u64,
    /// False when the same cut and bar stood before and nothing was written.
    pub changed: bool,
    /// Live leases that the ledger counted in the scope, where it counts.
    pub leases: u64,
}

/// A bar to write or lift.
#[derive(Clone, Debug)]
pub struct BarDraft {
    /// What it concerns.
    pub scope: Scope,
    /// Whether it also suspends what lives.
    pub suspend: bool,
    /// Who, for the record.
    pub operator: String,
    /// The operator's words.
    pub reason: String,
    /// Its event.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// Writes a cut (and a bar).
pub(in crate::ledger) fn cut(tx: &mut Tx<'_>, draft: &CutDraft) -> Result<Revoked, Refused> {
    let id = draft.scope.id();
    let state = tx.scope(id);
    // Behind a bar that stood at the cut nothing has begun since: the old cut says it all. Between a cut and a later bar
    // something may have begun.
    if draft.bar && state.bar > 0 && state.cut >= state.bar {
        return Ok(Revoked { cut: state.cut, changed: false, leases: 0 });
    }
    let leases = tx.live(id, draft.now);
    tx.mark_time(draft.now);
    tx.audit(&draft.event)?;
    if draft.resets_time {
        tx.reset_time(draft.now);
    }
    write_cut(tx, draft);
    if draft.bar && state.bar == 0 {
        write_bar(tx, &draft.scope, false, &draft.operator, &draft.reason, draft.now);
    }
    Ok(Revoked { cut: tx.number(), changed: true, leases })
}

/// Writes a cut's rows; its event is the caller's.
pub(in crate::ledger) fn write_cut(tx: &mut Tx<'_>, draft: &CutDraft) {
    let (id, number) = (draft.scope.id(), tx.number());
    let record = records::CutRecord {
        scope: Some(codec::scope_name(&draft.scope)),
        at: draft.now.millis(),
        covers_until: draft.covers_until.millis(),
        operator: draft.operator.clone(),
        reason: draft.reason.clone(),
        cursor: Vec::new(),
        walked: 0,
        ended: 0,
        done: false,
        why: draft.why.code().into(),
    };
    tx.put_record(Table::Cuts, keys::cut(id, number), &record);
    tx.announce(pb::RevocationKind::Cut, id, draft.covers_until);
    let state = tx.scope(id);
    tx.set_scope(
        id,
        ScopeState { cut: number, cut_at: state.cut_at.max(draft.now), why: Some(draft.why), cleaned: false, ..state },
    );
}

/// Writes a bar; false when the same stood before.
pub(in crate::ledger) fn bar(tx: &mut Tx<'_>, draft: &BarDraft) -> Result<bool, Refused> {
    let state = tx.scope(draft.scope.id());
    if state.bar > 0 && (state.suspend || !draft.suspend) {
        return Ok(false);
    }
    tx.mark_time(draft.now);
    tx.audit(&draft.event)?;
    write_bar(tx, &draft.scope, draft.suspend, &draft.operator, &draft.reason, draft.now);
    Ok(true)
}

/// Lifts a bar; false when there was none.
pub(in crate::ledger) fn lift(tx: &mut Tx<'_>, draft: &BarDraft) -> Result<bool, Refused> {
    let id = draft.scope.id();
    let state = tx.scope(id);
    if state.bar == 0 {
        return Ok(false);
    }
    tx.mark_time(draft.now);
    tx.audit(&draft.event)?;
    tx.delete(Table::Bars, id.as_bytes().to_vec());
    if state.suspend && state.held.is_empty() {
        tx.announce(pb::RevocationKind::Lift, id, draft.now.after(FEED_KEPT));
    }
    // A decision made under the bar cannot exist; one made before it must not pass now either.
    let changed = tx.number();
    tx.set_scope(id, ScopeState { bar: 0, suspend: false, changed, changed_at: draft.now, ..state });
    Ok(true)
}

fn write_bar(tx: &mut Tx<'_>, scope: &Scope, suspend: bool, operator: &str, reason: &str, now: Timestamp) {
    let (id, number) = (scope.id(), tx.number());
    let record = records::BarRecord {
        scope: Some(codec::scope_name(scope)),
        revision: number,
        suspend,
        at: now.millis(),
        operator: operator.to_owned(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    tx.put_record(Table::Bars, id.as_bytes().to_vec(), &record);
    if suspend {
        tx.announce(pb::RevocationKind::Suspend, id, now.after(FEED_KEPT));
    }
    let state = tx.scope(id);
    tx.set_scope(id, ScopeState { bar: number, suspend, ..state });
}

/// How long the feed tells of a suspension or its end: longer than anything that lives now. Watchers that begin later get
/// suspensions in force from the book.
pub(super) const FEED_KEPT: std::time::Duration = std::time::Duration::from_secs(26 * 3_600);
