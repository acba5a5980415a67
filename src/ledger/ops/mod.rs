//! What can be proposed: one file a kind.

pub mod appeals;
pub mod apply;
pub mod approve;
pub mod custody;
pub mod end;
pub mod issue;
pub mod keys;
pub mod notices;
pub mod pace;
pub mod people;
pub mod pickups;
pub mod scope;
pub mod secrets;
pub mod spend;
pub mod task;
pub mod upkeep;

use super::{refused::Refused, tx::Tx};
use crate::model::{EndReason, Lease, LeaseId, ScopeId, Standing, Task, TaskId, Timestamp};

/// The scopes whose live leases are counted: tenant, partner, partner in tenant, grant.
pub(super) fn counted(lease: &Lease) -> [ScopeId; 4] {
    [
        ScopeId::tenant(&lease.tenant),
        ScopeId::partner(&lease.partner),
        ScopeId::partner_in_tenant(&lease.tenant, &lease.partner),
        ScopeId::grant(&lease.tenant, &lease.grant),
    ]
}

/// The standing of a task with its ancestors, the leases they were opened through, cuts and bars, as this commit sees it.
pub(super) fn task_standing(tx: &Tx<'_>, task: &Task, now: Timestamp) -> Result<Standing, Refused> {
    task_within(tx, task, now, Task::MAX_ANCESTORS)
}

/// The standing of a lease with its task, the lease it was obtained through, cuts and bars, as this commit sees it.
pub(super) fn lease_standing(tx: &Tx<'_>, id: LeaseId, now: Timestamp) -> Result<Standing, Refused> {
    lease_within(tx, id, now, Task::MAX_ANCESTORS)
}

/// As [`lease_standing`], of a row at hand.
pub(super) fn standing_of_lease(tx: &Tx<'_>, lease: &Lease, now: Timestamp) -> Result<Standing, Refused> {
    within(tx, lease, now, Task::MAX_ANCESTORS)
}

/// The standing of the lease that the caller proved itself with, as one above what is to begin.
pub(super) fn proof_standing(tx: &Tx<'_>, lease: Option<LeaseId>, now: Timestamp) -> Result<Standing, Refused> {
    above(tx, Standing::Live, lease, now, Task::MAX_ANCESTORS)
}

/// `left` leases may stand above; a longer chain counts as ended, for what is above it is not known.
fn lease_within(tx: &Tx<'_>, id: LeaseId, now: Timestamp, left: usize) -> Result<Standing, Refused> {
    let lease = match tx.lease(id) {
        Ok(Some(lease)) => lease,
        Ok(None) => return Ok(Standing::Ended(EndReason::Expired)),
        Err(Refused::LeaseEnded(why)) => return Ok(Standing::Ended(why)),
        Err(refused) => return Err(refused),
    };
    within(tx, &lease, now, left)
}

fn within(tx: &Tx<'_>, lease: &Lease, now: Timestamp, left: usize) -> Result<Standing, Refused> {
    let mut standing = lease.own_standing(now).and(scopes_standing(tx, &lease.scopes(), lease.basis));
    standing = standing.and(tx.shared.lapse(lease, now));
    standing = standing.and(match ended_or(tx.task(lease.id.task()))? {
        Some(task) => task_within(tx, &task, now, left)?,
        None => Standing::Ended(EndReason::Expired),
    });
    above(tx, standing, lease.parent, now, left)
}

fn task_within(tx: &Tx<'_>, task: &Task, now: Timestamp, left: usize) -> Result<Standing, Refused> {
    let mut standing = above(tx, own_task_standing(tx, task, now), task.parent_lease, now, left)?;
    let mut parent = task.parent;
    for _ in 0..Task::MAX_ANCESTORS {
        let Some(id) = parent else { break };
        let Some(task) = ended_or(tx.task(id))? else { return Ok(Standing::Ended(EndReason::Expired)) };
        standing = above(tx, standing.and(own_task_standing(tx, &task, now)), task.parent_lease, now, left)?;
        parent = task.parent;
    }
    Ok(if parent.is_some() { Standing::Ended(EndReason::Damaged) } else { standing })
}

/// `standing`, and that of the lease above. What has ended already is not looked into.
fn above(
    tx: &Tx<'_>,
    standing: Standing,
    lease: Option<LeaseId>,
    now: Timestamp,
    left: usize,
) -> Result<Standing, Refused> {
    match (standing, lease, left.checked_sub(1)) {
        (Standing::Ended(_), _, _) | (_, None, _) => Ok(standing),
        (_, Some(_), None) => Ok(Standing::Ended(EndReason::Damaged)),
        (_, Some(id), Some(left)) => Ok(standing.and(lease_within(tx, id, now, left)?)),
    }
}

/// A task that is live, for beginning something under it.
pub(super) fn live_task(tx: &Tx<'_>, id: TaskId, now: Timestamp) -> Result<Task, Refused> {
    let task = tx.task(id)?.ok_or(Refused::Unknown)?;
    match task_standing(tx, &task, now)? {
        Standing::Live => Ok(task),
        Standing::Suspended => Err(Refused::TaskSuspended),
        Standing::Ended(why) => Err(Refused::TaskEnded(why)),
    }
}

fn own_task_standing(tx: &Tx<'_>, task: &Task, now: Timestamp) -> Standing {
    let own = task.own_standing(now).and(scopes_standing(tx, &task.scopes(), task.basis));
    own.and(if tx.scope(ScopeId::task(task.id)).is_suspended() { Standing::Suspended } else { Standing::Live })
}

fn scopes_standing(tx: &Tx<'_>, scopes: &[ScopeId], (incarnation, basis): (u64, u64)) -> Standing {
    if incarnation != tx.shared.incarnation {
        return Standing::Ended(EndReason::Revoked);
    }
    scopes.iter().map(|&scope| tx.scope(scope)).fold(Standing::Live, |standing, state| {
        standing.and(if state.cut > basis {
            Standing::Ended(state.why.unwrap_or(EndReason::Revoked))
        } else if state.is_suspended() {
            Standing::Suspended
        } else {
            Standing::Live
        })
    })
}

pub(super) fn ended_or(task: Result<Option<Task>, Refused>) -> Result<Option<Task>, Refused> {
    match task {
        // A damaged ancestor counts as ended.
        Err(Refused::TaskEnded(EndReason::Damaged)) => Ok(None),
        other => other,
    }
}
