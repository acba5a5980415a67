//! Ending one lease or one task: always possible, harmless when repeated.

use std::ops::Bound;

use super::{
    counted, ended_or, issue, own_task_standing, pickups, scopes_standing,
    secrets::{Exposed, exposed_by_task},
    standing_of_lease, task_standing,
};
use crate::{
    ledger::{engine::Table, refused::Refused, tx::Tx},
    model::{EndReason, Lease, LeaseId, Scope, Standing, Task, TaskId, Timestamp, time::SKEW},
    pb,
};

/// A lease to end.
#[derive(Debug)]
pub struct EndLease {
    /// Which.
    pub lease: LeaseId,
    /// Why.
    pub why: EndReason,
    /// Its event.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// A task to end.
#[derive(Debug)]
pub struct EndTask {
    /// Which.
    pub task: TaskId,
    /// Why.
    pub why: EndReason,
    /// Its event.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// Ends a lease; false when it had ended before. What a cut or something above it ended keeps that reason in its row, and a
/// revocation of it is told all the same.
pub(in crate::ledger) fn lease(tx: &mut Tx<'_>, end: &EndLease) -> Result<bool, Refused> {
    let lease = match tx.lease(end.lease) {
        Ok(Some(lease)) => lease,
        Ok(None) => return Err(Refused::Unknown),
        // A damaged lease is ended already.
        Err(Refused::LeaseEnded(_)) => return Ok(false),
        Err(refused) => return Err(refused),
    };
    if !lease.own_standing(end.now).is_live() {
        return Ok(false);
    }
    let first = ended_by(standing_of_lease(tx, &lease, end.now)?);
    let is_news = first.is_none() || end.why == EndReason::Revoked;
    let mut exposed = Exposed::default();
    if is_news {
        exposed.note(&lease, end.why);
    } else if let Some(cut) = ended_by(scopes_standing(tx, &lease.scopes(), lease.basis)) {
        // The walk behind the cut will find it ended, and say nothing of it.
        exposed.note(&lease, cut);
    }
    tx.mark_time(end.now);
    if is_news {
        tx.audit(&end.event)?;
    }
    exposed.tell(tx, if is_news { &end.event.reason } else { CUT_BEFORE }, end.now)?;
    end_lease(tx, lease, first.unwrap_or(end.why), end.now)?;
    Ok(is_news)
}

/// Ends a task; false when it had ended before. What lives under it, child tasks included, ends with its row. What a cut or
/// something above it ended is treated as of a lease.
pub(in crate::ledger) fn task(tx: &mut Tx<'_>, end: &EndTask) -> Result<bool, Refused> {
    let task = match tx.task(end.task) {
        Ok(Some(task)) => task,
        Ok(None) => return Err(Refused::Unknown),
        Err(Refused::TaskEnded(_)) => return Ok(false),
        Err(refused) => return Err(refused),
    };
    if !task.own_standing(end.now).is_live() {
        return Ok(false);
    }
    let first = ended_by(task_standing(tx, &task, end.now)?);
    let is_news = first.is_none() || end.why == EndReason::Revoked;
    tx.mark_time(end.now);
    if is_news {
        let exposed = exposed_by_task(tx, &task, end.why)?;
        tx.audit(&end.event)?;
        exposed.tell(tx, &end.event.reason, end.now)?;
    }
    let why = first.unwrap_or(end.why);
    mark_ended(tx, task, why, end.now);
    free_below(tx, end.task, why, end.now, &mut { BELOW_MOST })?;
    Ok(is_news)
}

/// What ended something that its own row does not say.
fn ended_by(standing: Standing) -> Option<EndReason> {
    match standing {
        Standing::Ended(why) => Some(why),
        Standing::Live | Standing::Suspended => None,
    }
}

/// Ends a task in whose place another one is begun in the same commit. One that is gone or over is left as it is.
pub(in crate::ledger) fn replaced(tx: &mut Tx<'_>, id: TaskId, why: EndReason, now: Timestamp) -> Result<(), Refused> {
    if let Some(task) = ended_or(tx.task(id))?.filter(|task| task.own_standing(now).is_live()) {
        mark_ended(tx, task, why, now);
        free_below(tx, id, why, now, &mut { BELOW_MOST })?;
    }
    Ok(())
}

fn mark_ended(tx: &mut Tx<'_>, mut task: Task, why: EndReason, now: Timestamp) {
    free_quota(tx, &task, now);
    task.live.clear();
    task.ended = Some((why, now));
    if task.held {
        tx.delete(Table::Held, task.id.as_bytes().to_vec());
        task.held = false;
    }
    tx.put_task(&task);
    tx.announce(pb::RevocationKind::Cut, Scope::Task(task.id).id(), task.deadline.after(SKEW));
}

/// Marks child tasks as ended too, so that their leases count no more. They ended with the task above in any case; those
/// beyond `left` count until they expire.
fn free_below(tx: &mut Tx<'_>, above: TaskId, why: EndReason, now: Timestamp, left: &mut usize) -> Result<(), Refused> {
    let prefix = above.as_bytes();
    let end = crate::ledger::engine::prefix_end(prefix);
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    for (key, _) in tx.scan(Table::Children, (Bound::Included(prefix), upper), *left)? {
        let Some(id) = key.get(TaskId::BYTES..).and_then(TaskId::from_bytes) else { continue };
        // Those below a task before this one may have used it up.
        let Some(less) = left.checked_sub(1) else { break };
        *left = less;
        // A damaged one counts as ended.
        let Some(task) = ended_or(tx.task(id))?.filter(|task| task.own_standing(now).is_live()) else { continue };
        let why = ended_by(own_task_standing(tx, &task, now)).unwrap_or(why);
        mark_ended(tx, task, why, now);
        free_below(tx, id, why, now, left)?;
    }
    Ok(())
}

/// Why a secret has to be rotated whose lease was cut before its holder released it.
const CUT_BEFORE: &str = "its lease was revoked";
/// Tasks under one that ends whose quota is freed in the same commit.
const BELOW_MOST: usize = 64;

/// Marks a live lease as ended, frees its quota and tells watchers.
pub(in crate::ledger) fn end_lease(
    tx: &mut Tx<'_>,
    mut lease: Lease,
    why: EndReason,
    at: Timestamp,
) -> Result<(), Refused> {
    let minute = lease.expires.minute();
    // An ended task has freed the quota of its leases already.
    if let Ok(Some(mut task)) = tx.task(lease.id.task())
        && task.ended.is_none()
    {
        tx.count(&counted(&lease), minute, -1);
        if let Some(bucket) = task.live.iter_mut().find(|b| b.minute == minute && b.grant == lease.grant) {
            bucket.count = bucket.count.saturating_sub(1);
        }
        task.live.retain(|bucket| bucket.count > 0);
        tx.put_task(&task);
    }
    if let Some(until) = lease.pickup_until {
        pickups::clear(tx, lease.id, until)?;
    }
    lease.ended = Some((why, at));
    tx.put_lease(&lease);
    let (scope, covers_until) = issue::lease_end(&lease);
    tx.announce(pb::RevocationKind::Cut, scope, covers_until);
    Ok(())
}

fn free_quota(tx: &mut Tx<'_>, task: &Task, now: Timestamp) {
    for bucket in task.live.iter().filter(|bucket| bucket.minute >= now.minute()) {
        let scopes = [
            Scope::Tenant(task.tenant.clone()).id(),
            Scope::Partner(task.partner.clone()).id(),
            Scope::PartnerInTenant(task.tenant.clone(), task.partner.clone()).id(),
            Scope::Grant(task.tenant.clone(), bucket.grant.clone()).id(),
        ];
        tx.count(&scopes, bucket.minute, -i64::from(bucket.count));
    }
}
