//! Ending one lease or one task: always possible, harmless when repeated.

use super::{counted, issue};
use crate::{
    ledger::{engine::Table, refused::Refused, tx::Tx},
    model::{EndReason, Lease, LeaseId, Scope, Task, TaskId, Timestamp, time::SKEW},
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

/// Ends a lease; false when it had ended before.
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
    tx.mark_time(end.now);
    tx.audit(&end.event)?;
    end_lease(tx, lease, end.why, end.now)?;
    Ok(true)
}

/// Ends a task; false when it had ended before. What lives under it, child tasks included, ends with its row.
pub(in crate::ledger) fn task(tx: &mut Tx<'_>, end: &EndTask) -> Result<bool, Refused> {
    let mut task = match tx.task(end.task) {
        Ok(Some(task)) => task,
        Ok(None) => return Err(Refused::Unknown),
        Err(Refused::TaskEnded(_)) => return Ok(false),
        Err(refused) => return Err(refused),
    };
    if !task.own_standing(end.now).is_live() {
        return Ok(false);
    }
    tx.mark_time(end.now);
    tx.audit(&end.event)?;
    free_quota(tx, &task, end.now);
    task.live.clear();
    task.ended = Some((end.why, end.now));
    if task.held {
        tx.delete(Table::Held, task.id.as_bytes().to_vec());
        task.held = false;
    }
    tx.put_task(&task);
    tx.announce(pb::RevocationKind::Cut, Scope::Task(task.id).id(), task.deadline.after(SKEW));
    Ok(true)
}

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
