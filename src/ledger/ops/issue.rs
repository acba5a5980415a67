//! Issue and renew: a lease, its task when it is new, its counts and its event in one commit.

use super::{
    approve::{self, ApprovalUse, FirstUse},
    counted, end, ended_or, lease_standing, live_task,
    pace::{self, Counted},
    pickups, proof_standing, secrets,
    spend::{self, Spend, Use},
};
use crate::{
    ledger::{engine::Table, refused::Refused, tx::Tx},
    model::{
        Digest, EndReason, Lease, LeaseId, Scope, ScopeId, Standing, Task, TaskId, Timestamp, Tripped, Velocity,
        task::LiveBucket, time::SKEW,
    },
    pb, records,
};

/// A lease to begin. Everything in it was decided at its basis; the ledger refuses it if that no longer holds.
#[derive(Debug)]
pub struct IssueDraft {
    /// The lease.
    pub lease: Lease,
    /// What must not be barred beside its own scopes: those of who passed its task on.
    pub through: Vec<ScopeId>,
    /// Its task, when the lease opens it.
    pub new_task: Option<Task>,
    /// The client's idempotency key.
    pub retry: Option<Retry>,
    /// The identity token that it is obtained with.
    pub spend: Option<Spend>,
    /// The approval that it rests on.
    pub approval: Option<ApprovalUse>,
    /// Approvals that it rests on too, each with the task above that uses it: of those who passed its task on.
    pub above: Vec<(TaskId, ApprovalUse)>,
    /// How fast its task may go on.
    pub velocity: Velocity,
    /// The lease it takes the place of.
    pub supersedes: Option<LeaseId>,
    /// What is left behind of it beside the lease: of a static secret, and of what waits to be picked up.
    pub hand_out: Option<HandOut>,
    /// Limits.
    pub quota: Quota,
    /// Its event.
    pub event: pb::Event,
    /// When it was decided.
    pub now: Timestamp,
}

/// What a hand-out leaves behind beside its lease.
#[derive(Debug)]
pub struct HandOut {
    /// Until when it is remembered who got a static secret.
    pub holder_until: Timestamp,
    /// The credential, when it waits to be picked up.
    pub waits: Option<Waiting>,
}

/// A credential that waits to be picked up.
#[derive(Debug)]
pub struct Waiting {
    /// Hash of the handle's secret.
    pub handle: Digest,
    /// The credential, sealed.
    pub sealed: Vec<u8>,
    /// The one workload that may take it; empty for any of the tenant.
    pub workload: String,
}

/// An idempotency key, bound to who used it and for what.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Hash of (tenant, workload, task, client key, idempotency key).
    pub key: [u8; 16],
    /// Hash of the request.
    pub request: Digest,
}

/// How many live leases there may be, this one included.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Under the task.
    pub task: u32,
    /// Under the grant.
    pub grant: u32,
    /// Of the partner in the tenant.
    pub partner: u32,
    /// Of the partner everywhere.
    pub partner_everywhere: u32,
    /// In the tenant.
    pub tenant: u32,
}

/// What became of a draft that was not refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::ledger) enum Issued {
    /// The lease has begun.
    Begun,
    /// It would have been too much for its task, which is suspended for it; there is no lease.
    Suspended(Tripped),
}

pub(in crate::ledger) fn run(tx: &mut Tx<'_>, draft: &IssueDraft) -> Result<Issued, Refused> {
    let (lease, now) = (&draft.lease, draft.now);
    if let Some(hold) = tx.shared.holds.first() {
        return Err(Refused::Held(hold.explanation()));
    }
    tx.check_basis(&lease.scopes(), lease.basis)?;
    tx.check_basis(&draft.through, lease.basis)?;
    if !proof_standing(tx, lease.parent, now)?.is_live() {
        return Err(Refused::LeaseEnded(EndReason::Revoked));
    }
    let task = task_of(tx, draft)?;
    let replaced = replaced(tx, draft)?;
    let spent = match &draft.spend {
        Some(spend) => Some((spend, spend::judge(tx, spend, &task)?)),
        None => None,
    };
    if let Some((_, Use::Retry(before))) = &spent {
        // What was ended on purpose is not begun anew by asking again.
        if let Err(refused) = live_task(tx, *before, now) {
            let is_over = matches!(refused, Refused::Unknown | Refused::TaskEnded(_));
            return Err(if is_over { Refused::TokenOpened } else { refused });
        }
    }
    check_quota(tx, draft, &task, replaced.as_ref())?;
    let approval = approved(tx, draft, &task, replaced.as_ref())?;
    for (user, wanted) in &draft.above {
        approve::still_used(tx, *user, wanted, now)?;
    }
    let paced = pace::count(tx, &task, draft.velocity, &lease.audiences, now)?;
    if let Counted::Beyond(first, tripped) = &paced {
        // A task that is not there yet needs no suspension: nothing would ever remove its rows.
        if draft.new_task.is_some() && first.id == task.id {
            return Err(Refused::TooFast(*tripped));
        }
        pace::suspend(tx, first, *tripped, &draft.event, now)?;
        return Ok(Issued::Suspended(*tripped));
    }

    // Nothing was written before this line; nothing is refused after it, but for a failing store.
    if let Some(old) = replaced {
        end::end_lease(tx, old, EndReason::Superseded, now)?;
    }
    match spent {
        Some((spend, Use::Fresh(record))) => spend::write(tx, spend, &record),
        Some((spend, Use::Retry(before))) => spend::replace(tx, spend, before, task.id, now)?,
        None => {}
    }
    if let Some(approval) = approval {
        approve::take(tx, &approval, now)?;
    }
    write(tx, draft, task, paced)?;
    Ok(Issued::Begun)
}

/// The approval that the lease rests on, when this is its first use.
fn approved(
    tx: &Tx<'_>,
    draft: &IssueDraft,
    task: &Task,
    replaced: Option<&Lease>,
) -> Result<Option<FirstUse>, Refused> {
    let Some(wanted) = &draft.approval else { return Ok(None) };
    if task.approvals.len() >= Task::MAX_APPROVALS && !task.approvals.contains(&wanted.id) {
        return Err(Refused::Quota("task's approvals"));
    }
    let instead = replaced.map(|old| old.id.task());
    approve::admit(tx, wanted, task, draft.new_task.is_some(), instead, draft.now)
}

/// Live leases that still count under a task.
pub(in crate::ledger) fn live_under(task: &Task, now: Timestamp) -> u32 {
    task.live.iter().filter(|bucket| bucket.minute >= now.minute()).map(|bucket| bucket.count).sum()
}

fn task_of(tx: &Tx<'_>, draft: &IssueDraft) -> Result<Task, Refused> {
    let task = match &draft.new_task {
        Some(task) => {
            tx.check_basis(&task.scopes(), task.basis)?;
            task.clone()
        }
        None => live_task(tx, draft.lease.id.task(), draft.now)?,
    };
    if let Some(parent) = task.parent.filter(|_| draft.new_task.is_some()) {
        live_task(tx, parent, draft.now)?;
    }
    if draft.lease.expires > task.deadline {
        return Err(Refused::Moved);
    }
    Ok(task)
}

fn replaced(tx: &Tx<'_>, draft: &IssueDraft) -> Result<Option<Lease>, Refused> {
    if let Some(id) = draft.supersedes {
        let old = tx.lease(id)?.ok_or(Refused::Unknown)?;
        // Also by cuts and by what is above it: what has ended has no successor.
        return match lease_standing(tx, id, draft.now)? {
            Standing::Live => Ok(Some(old)),
            Standing::Ended(why) => Err(Refused::LeaseEnded(why)),
            Standing::Suspended => Err(Refused::TaskSuspended),
        };
    }
    let Some(retry) = draft.retry else { return Ok(None) };
    let Some(value) = tx.get(Table::Retries, &retry.key)? else { return Ok(None) };
    let record: records::RetryRecord = match tx.shared.codec.decode(Table::Retries, &retry.key, &value) {
        Ok(record) => record,
        Err(e) => {
            tx.shared.aside.note(Table::Retries, &retry.key, &e);
            return Err(Refused::RetryMismatch);
        }
    };
    if record.request_sha256 != retry.request.0 {
        return Err(Refused::RetryMismatch);
    }
    match LeaseId::from_bytes(&record.lease) {
        Some(id) => Ok(tx.lease(id)?.filter(|lease| lease.own_standing(draft.now).is_live())),
        None => Ok(None),
    }
}

fn check_quota(tx: &Tx<'_>, draft: &IssueDraft, task: &Task, replaced: Option<&Lease>) -> Result<(), Refused> {
    let (lease, quota, now) = (&draft.lease, &draft.quota, draft.now);
    // A replaced lease makes room where it still counts: an ended task has freed its leases' quota already.
    let replaced = match replaced {
        Some(old) => ended_or(tx.task(old.id.task()))?.filter(|task| task.ended.is_none()).map(|_| old),
        None => None,
    };
    let freed_in_task = u64::from(replaced.is_some_and(|old| old.id.task() == task.id));
    if u64::from(live_under(task, now)) >= u64::from(quota.task) + freed_in_task {
        return Err(Refused::Quota("task"));
    }
    let [tenant, everywhere, partner, grant] = counted(lease);
    let limits = [
        (grant, quota.grant, "grant"),
        (partner, quota.partner, "partner in the tenant"),
        (everywhere, quota.partner_everywhere, "partner"),
        (tenant, quota.tenant, "tenant"),
    ];
    let freed = replaced.map_or([None; 4], |old| counted(old).map(Some));
    let is_full =
        |scope: ScopeId, most: u32| tx.live(scope, now) >= u64::from(most) + u64::from(freed.contains(&Some(scope)));
    match limits.into_iter().find(|&(scope, most, _)| is_full(scope, most)) {
        Some((_, _, whose)) => Err(Refused::Quota(whose)),
        None => Ok(()),
    }
}

fn write(tx: &mut Tx<'_>, draft: &IssueDraft, task: Task, paced: Counted) -> Result<(), Refused> {
    let (lease, now) = (&draft.lease, draft.now);
    // The superseded lease may have changed the task's row just now.
    let mut task = match &draft.new_task {
        Some(_) => task,
        None => tx.task(task.id)?.unwrap_or(task),
    };
    tx.mark_time(now);
    tx.audit(&draft.event)?;
    task.leases_issued = task.leases_issued.saturating_add(1);
    add_bucket(&mut task, lease, now);
    if draft.new_task.is_some() {
        begin_task(tx, &task, false);
    }
    if let Some(wanted) = &draft.approval {
        approve::bind(&mut task, wanted.id);
    }
    match paced {
        Counted::Within(first, pace) if first == task.id => task.pace = Some(Box::new(pace)),
        Counted::Within(first, pace) => pace::note(tx, first, pace)?,
        Counted::Free | Counted::Beyond(..) => {}
    }
    tx.put_task(&task);
    tx.put_lease(lease);
    match &draft.hand_out {
        Some(HandOut { waits: Some(waits), holder_until }) => pickups::wait(tx, lease, waits, *holder_until),
        Some(HandOut { waits: None, holder_until }) => secrets::note_holder(tx, lease, &task, "", *holder_until, now)?,
        None => {}
    }
    tx.expires(lease.expires).leases.extend_from_slice(lease.id.as_bytes());
    tx.count(&counted(lease), lease.expires.minute(), 1);
    if let Some(retry) = draft.retry {
        remember(tx, retry, task.id, Some(lease.id), lease.expires);
    }
    Ok(())
}

/// Writes the indexes of a new task. One that its parent's workload passed on to another has a mark there.
pub(in crate::ledger) fn begin_task(tx: &mut Tx<'_>, task: &Task, is_passed_on: bool) {
    tx.expires(task.deadline).tasks.extend_from_slice(task.id.as_bytes());
    if let Some(parent) = task.parent {
        let key = crate::ledger::keys::child(parent, task.id);
        tx.expires(task.deadline).children.extend_from_slice(&key);
        tx.put(Table::Children, key, if is_passed_on { vec![1] } else { Vec::new() });
    }
    if task.held {
        tx.put(Table::Held, task.id.as_bytes().to_vec(), Vec::new());
    }
}

/// Remembers an idempotency key for as long as what it began can live.
pub(in crate::ledger) fn remember(
    tx: &mut Tx<'_>,
    retry: Retry,
    task: TaskId,
    lease: Option<LeaseId>,
    expires: Timestamp,
) {
    let record = records::RetryRecord {
        request_sha256: retry.request.0.to_vec(),
        lease: lease.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        task: task.as_bytes().to_vec(),
        expires: expires.millis(),
    };
    tx.put_record(Table::Retries, retry.key.to_vec(), &record);
    tx.expires(expires).retries.extend_from_slice(&retry.key);
}

fn add_bucket(task: &mut Task, lease: &Lease, now: Timestamp) {
    task.live.retain(|bucket| bucket.minute >= now.minute());
    let minute = lease.expires.minute();
    match task.live.iter_mut().find(|bucket| bucket.minute == minute && bucket.grant == lease.grant) {
        Some(bucket) => bucket.count = bucket.count.saturating_add(1),
        None => task.live.push(LiveBucket { grant: lease.grant.clone(), minute, count: 1 }),
    }
}

/// The scope and the latest time that the end of a lease concerns.
pub(in crate::ledger) fn lease_end(lease: &Lease) -> (ScopeId, Timestamp) {
    (Scope::Lease(lease.id).id(), lease.expires.after(SKEW))
}
