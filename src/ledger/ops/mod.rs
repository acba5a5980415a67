//! What can be proposed: one file a kind.

pub mod apply;
pub mod end;
pub mod issue;
pub mod keys;
pub mod scope;
pub mod task;
pub mod upkeep;

use super::{refused::Refused, tx::Tx};
use crate::model::{EndReason, Lease, LeaseId, Scope, ScopeId, Standing, Task, TaskId, Timestamp};

/// The scopes whose live leases are counted: tenant, partner, partner in tenant, grant.
pub(super) fn counted(lease: &Lease) -> [ScopeId; 4] {
    [
        Scope::Tenant(lease.tenant.clone()).id(),
        Scope::Partner(lease.partner.clone()).id(),
        Scope::PartnerInTenant(lease.tenant.clone(), lease.partner.clone()).id(),
        Scope::Grant(lease.tenant.clone(), lease.grant.clone()).id(),
    ]
}

/// The standing of a task with its ancestors, cuts and bars, as this commit sees it.
pub(super) fn task_standing(tx: &Tx<'_>, task: &Task, now: Timestamp) -> Result<Standing, Refused> {
    let mut standing = own_task_standing(tx, task, now);
    let mut parent = task.parent;
    for _ in 0..Task::MAX_ANCESTORS {
        let Some(id) = parent else { break };
        let Some(above) = ended_or(tx.task(id))? else { return Ok(Standing::Ended(EndReason::Expired)) };
        standing = standing.and(own_task_standing(tx, &above, now));
        parent = above.parent;
    }
    match task.parent_lease {
        Some(id) => Ok(standing.and(lease_standing(tx, id, now)?)),
        None => Ok(standing),
    }
}

/// Refuses unless the lease that the caller proved itself with, and those above it, are live.
pub(super) fn lease_standing(tx: &Tx<'_>, id: LeaseId, now: Timestamp) -> Result<Standing, Refused> {
    let mut standing = Standing::Live;
    let mut above = Some(id);
    for _ in 0..Task::MAX_ANCESTORS {
        let Some(id) = above else { break };
        let lease = match tx.lease(id) {
            Ok(Some(lease)) => lease,
            Ok(None) => return Ok(Standing::Ended(EndReason::Expired)),
            Err(Refused::LeaseEnded(why)) => return Ok(Standing::Ended(why)),
            Err(refused) => return Err(refused),
        };
        standing = standing.and(lease.own_standing(now)).and(scopes_standing(tx, &lease.scopes(), lease.basis.1));
        above = lease.parent;
    }
    Ok(standing)
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
    task.own_standing(now).and(scopes_standing(tx, &task.scopes(), task.basis.1))
}

fn scopes_standing(tx: &Tx<'_>, scopes: &[ScopeId], basis: u64) -> Standing {
    scopes.iter().map(|&scope| tx.scope(scope)).fold(Standing::Live, |standing, state| {
        standing.and(if state.cut > basis {
            Standing::Ended(state.why.unwrap_or(EndReason::Revoked))
        } else if state.bar > 0 && state.suspend {
            Standing::Suspended
        } else {
            Standing::Live
        })
    })
}

fn ended_or(task: Result<Option<Task>, Refused>) -> Result<Option<Task>, Refused> {
    match task {
        // A damaged ancestor counts as ended.
        Err(Refused::TaskEnded(EndReason::Damaged)) => Ok(None),
        other => other,
    }
}
