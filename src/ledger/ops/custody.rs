//! Suspensions by reason: one row each, so that lifting one leaves the others.

use std::time::Duration;

use super::appeals;
use crate::{
    ledger::{book::ScopeState, codec, engine::Table, keys, refused::Refused, tx::Tx},
    model::{GrantName, Scope, Suspension, Suspensions, TenantNumber, Timestamp},
    pb, records,
};

/// Something to suspend, or to let go.
#[derive(Clone, Debug)]
pub enum Custody {
    /// Suspends a scope for a reason. A quarantine that stands is replaced, any other stays as it is.
    Suspend {
        /// What.
        scope: Scope,
        /// Why.
        cause: Suspension,
        /// Quarantines: when its time is over.
        until: Option<Timestamp>,
        /// Quarantines: lifted by itself then.
        auto_lift: bool,
        /// Quarantines: whether one that stands may be made less by this; else it is only added to.
        may_shorten: bool,
        /// Who, for the record.
        operator: String,
        /// The words that go with it.
        reason: String,
    },
    /// Lifts suspensions for some reasons.
    Release {
        /// Of what.
        scope: Scope,
        /// Which.
        causes: Suspensions,
    },
    /// Lifts a quarantine whose time is over, unless it was changed since that was found.
    Expire {
        /// Of what.
        scope: Scope,
        /// The revision at which the quarantine that was found was declared.
        seen: u64,
    },
    /// Notes that the time of a quarantine is over and that it was told so, unless it was changed since that was found.
    Lapse {
        /// Of what.
        scope: Scope,
        /// As for [`Custody::Expire`].
        seen: u64,
    },
}

/// Acts of one commit, each with its event.
#[derive(Debug)]
pub struct CustodyDraft {
    /// What to do.
    pub acts: Vec<(Custody, pb::Event)>,
    /// Revision that acts on grants were computed from, where they were: refused when one of those has changed since.
    pub basis: Option<u64>,
    /// When.
    pub now: Timestamp,
}

/// When a grant was used last.
#[derive(Clone, Debug)]
pub struct UseRow {
    /// Its tenant.
    pub tenant: TenantNumber,
    /// Its name.
    pub grant: GrantName,
    /// When it was added.
    pub since: Timestamp,
    /// When it was used; 1970 for never.
    pub last_used: Timestamp,
}

/// Carries out what changes something; how many acts did.
pub(in crate::ledger) fn run(tx: &mut Tx<'_>, draft: &CustodyDraft) -> Result<usize, Refused> {
    if let Some(basis) = draft.basis
        && draft.acts.iter().any(|(act, _)| has_moved(tx, act, basis))
    {
        return Err(Refused::Moved);
    }
    let done = admit(tx, &draft.acts)?;
    if !done.is_empty() {
        tx.mark_time(draft.now);
        done.iter().try_for_each(|act| write(tx, act, draft.now))?;
    }
    Ok(done.len())
}

/// The acts that change something; their events are written. Refuses before the first row is.
pub(in crate::ledger) fn admit<'a>(
    tx: &mut Tx<'_>,
    acts: &'a [(Custody, pb::Event)],
) -> Result<Vec<&'a Custody>, Refused> {
    let mut done = Vec::with_capacity(acts.len());
    for (act, event) in acts {
        if changes(tx, act)? {
            tx.audit(event)?;
            done.push(act);
        }
    }
    Ok(done)
}

/// Whether the trust map or an attestation has changed a grant.
fn has_moved(tx: &Tx<'_>, act: &Custody, basis: u64) -> bool {
    let (Custody::Suspend { scope, .. }
    | Custody::Release { scope, .. }
    | Custody::Expire { scope, .. }
    | Custody::Lapse { scope, .. }) = act;
    is_changed(tx, scope, basis)
}

/// Whether the trust map or an attestation has changed a scope since, where it is a grant.
pub(super) fn is_changed(tx: &Tx<'_>, scope: &Scope, basis: u64) -> bool {
    let Scope::Grant(tenant, _) = scope else { return false };
    [scope.id(), Scope::Tenant(tenant.clone()).id()].into_iter().any(|id| tx.scope(id).changed > basis)
}

fn changes(tx: &Tx<'_>, act: &Custody) -> Result<bool, Refused> {
    Ok(match act {
        Custody::Suspend { scope, cause: Suspension::Quarantine, until, auto_lift, may_shorten, .. } => {
            let terms = merged(tx, scope, *until, *auto_lift, *may_shorten)?;
            let same = |record: records::BarRecord| terms == (record.until, record.auto_lift, record.lapsed);
            !tx.scope(scope.id()).held.has(Suspension::Quarantine)
                || !stored(tx, scope, Suspension::Quarantine)?.is_some_and(same)
        }
        // Of several who hand a grant over, the last one has named its owner.
        Custody::Suspend { scope, cause: cause @ Suspension::TransferPending, operator, .. } => {
            !tx.scope(scope.id()).held.has(*cause)
                || stored(tx, scope, *cause)?.is_none_or(|row| row.operator != *operator)
        }
        Custody::Suspend { scope, cause, .. } => !tx.scope(scope.id()).held.has(*cause),
        Custody::Release { scope, causes } => !tx.scope(scope.id()).held.and(*causes).is_empty(),
        Custody::Expire { scope, seen } => as_seen(tx, scope, *seen)?.is_some(),
        Custody::Lapse { scope, seen } => as_seen(tx, scope, *seen)?.is_some_and(|record| record.lapsed == 0),
    })
}

pub(in crate::ledger) fn write(tx: &mut Tx<'_>, act: &Custody, now: Timestamp) -> Result<(), Refused> {
    match act {
        Custody::Suspend { scope, cause, until, auto_lift, may_shorten, operator, reason } => {
            let (until, auto_lift, lapsed) = match cause {
                Suspension::Quarantine => merged(tx, scope, *until, *auto_lift, *may_shorten)?,
                Suspension::AttestationOverdue
                | Suspension::TransferPending
                | Suspension::OwnerLeft
                | Suspension::Dormant
                | Suspension::Velocity => (until.unwrap_or_default().millis(), *auto_lift, 0),
            };
            let record = records::BarRecord {
                scope: Some(codec::scope_name(scope)),
                revision: tx.number(),
                suspend: true,
                at: now.millis(),
                operator: operator.clone(),
                reason: reason.clone(),
                until,
                auto_lift,
                lapsed,
            };
            suspend(tx, scope, *cause, &record, now);
        }
        Custody::Release { scope, causes } => {
            if let Scope::Task(id) = scope
                && causes.has(Suspension::Velocity)
            {
                super::pace::forgive(tx, *id)?;
            }
            release(tx, scope, *causes, now)?;
        }
        Custody::Expire { scope, seen } => {
            if as_seen(tx, scope, *seen)?.is_some() {
                release(tx, scope, [Suspension::Quarantine].into_iter().collect(), now)?;
            }
        }
        Custody::Lapse { scope, seen } => {
            if let Some(record) = as_seen(tx, scope, *seen)? {
                let record = records::BarRecord { lapsed: now.millis(), ..record };
                tx.put_record(Table::Bars, keys::suspension(scope.id(), Suspension::Quarantine), &record);
            }
        }
    }
    Ok(())
}

fn suspend(tx: &mut Tx<'_>, scope: &Scope, cause: Suspension, record: &records::BarRecord, now: Timestamp) {
    let id = scope.id();
    tx.put_record(Table::Bars, keys::suspension(id, cause), record);
    tx.announce(pb::RevocationKind::Suspend, id, now.after(FEED_KEPT));
    let state = tx.scope(id);
    tx.set_scope(id, ScopeState { held: state.held.with(cause), held_at: tx.number(), ..state });
}

/// Lifts some suspensions. What another reason, or a bar, still suspends stays suspended.
fn release(tx: &mut Tx<'_>, scope: &Scope, causes: Suspensions, now: Timestamp) -> Result<(), Refused> {
    let id = scope.id();
    let state = tx.scope(id);
    for cause in state.held.and(causes).iter() {
        tx.delete(Table::Bars, keys::suspension(id, cause));
        appeals::close(tx, id, cause, now)?;
    }
    // As when a bar is lifted: a decision made before must not pass now.
    let after = ScopeState { held: state.held.without(causes), changed: tx.number(), changed_at: now, ..state };
    if !after.is_suspended() {
        tx.announce(pb::RevocationKind::Lift, id, now.after(FEED_KEPT));
    }
    tx.set_scope(id, after);
    Ok(())
}

/// The end, the way out and the note of a lapse that a quarantine gets. Who may not shorten the one that stands only adds
/// to it; a damaged one does not say to what, so it is left to who may.
fn merged(
    tx: &Tx<'_>,
    scope: &Scope,
    until: Option<Timestamp>,
    auto_lift: bool,
    may_shorten: bool,
) -> Result<(u64, bool, u64), Refused> {
    let until = until.unwrap_or_default().millis();
    if may_shorten || !tx.scope(scope.id()).held.has(Suspension::Quarantine) {
        return Ok((until, auto_lift, 0));
    }
    let old = stored(tx, scope, Suspension::Quarantine)?.ok_or_else(|| Refused::Barred(scope.id()))?;
    let lapsed = if until > old.until { 0 } else { old.lapsed };
    Ok((until.max(old.until), auto_lift && old.auto_lift, lapsed))
}

/// A quarantine, when it is still the one that was declared at a revision.
fn as_seen(tx: &Tx<'_>, scope: &Scope, seen: u64) -> Result<Option<records::BarRecord>, Refused> {
    Ok(stored(tx, scope, Suspension::Quarantine)?.filter(|record| record.revision == seen))
}

pub(super) fn stored(tx: &Tx<'_>, scope: &Scope, cause: Suspension) -> Result<Option<records::BarRecord>, Refused> {
    let key = keys::suspension(scope.id(), cause);
    let Some(value) = tx.get(Table::Bars, &key)? else { return Ok(None) };
    // A damaged one stays closed, whatever its time was.
    Ok(tx.shared.codec.decode(Table::Bars, &key, &value).ok())
}

/// Writes when grants were used last. Nothing is audited: the issues were.
pub(in crate::ledger) fn note_uses(tx: &mut Tx<'_>, rows: &[UseRow]) {
    for row in rows {
        let record = records::GrantUseRecord { since: row.since.millis(), last_used: row.last_used.millis() };
        tx.put_record(Table::GrantStates, keys::grant_use(row.tenant, &row.grant), &record);
    }
}

/// As long as the feed tells of bars.
const FEED_KEPT: Duration = super::scope::FEED_KEPT;
