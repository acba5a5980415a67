//! Opening a task, and holding it.

use std::ops::Bound;

use super::{
    approve::{self, ApprovalUse},
    issue, live_task,
    pace::{self, Counted},
    proof_standing,
    spend::{self, Spend, Use},
};
use crate::{
    ledger::{engine::Table, ops::issue::Retry, refused::Refused, tx::Tx},
    model::{EndReason, ScopeId, Task, TaskId, Timestamp, Tripped, Velocity},
    pb, records,
};

/// A task to open.
#[derive(Debug)]
pub struct OpenDraft {
    /// The task.
    pub task: Task,
    /// What must not be barred beside its own scopes: those of who passed it or its parent on.
    pub through: Vec<ScopeId>,
    /// The client's idempotency key.
    pub retry: Option<Retry>,
    /// The identity token that opens it.
    pub spend: Option<Spend>,
    /// The approval that is used in it.
    pub approval: Option<ApprovalUse>,
    /// How fast the task above it may go on, to which it counts.
    pub velocity: Velocity,
    /// Its event.
    pub event: pb::Event,
    /// When it was decided.
    pub now: Timestamp,
}

/// What became of a draft that was not refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::ledger) enum Opened {
    /// This task is open: the draft's, or the one that the same idempotency key opened before.
    Task(TaskId),
    /// It would have been too much for the task above, which is suspended for it; there is no task.
    Suspended(Tripped),
}

/// Opens the task, or answers with the one that the same idempotency key opened before.
pub(in crate::ledger) fn open(tx: &mut Tx<'_>, draft: &OpenDraft) -> Result<Opened, Refused> {
    let (task, now) = (&draft.task, draft.now);
    if let Some(hold) = tx.shared.holds.first() {
        return Err(Refused::Held(hold.explanation()));
    }
    tx.check_basis(&task.scopes(), task.basis)?;
    tx.check_basis(&draft.through, task.basis)?;
    let parent = match task.parent {
        Some(parent) => Some(live_task(tx, parent, now)?),
        None => None,
    };
    let passed_on_by = parent.filter(|parent| parent.workload != task.workload).map(|parent| parent.id);
    if !proof_standing(tx, task.parent_lease, now)?.is_live() {
        return Err(Refused::LeaseEnded(EndReason::Revoked));
    }
    if let Some(before) = opened_before(tx, draft.retry)? {
        return Ok(Opened::Task(before));
    }
    let spent = match &draft.spend {
        None => None,
        Some(spend) => match spend::judge(tx, spend, task)? {
            Use::Retry(before) => return Ok(Opened::Task(before)),
            Use::Fresh(record) => Some((spend, record)),
        },
    };
    if let Some(parent) = passed_on_by {
        check_passed_on(tx, parent)?;
    }
    let approval = match &draft.approval {
        Some(wanted) => approve::admit(tx, wanted, task, true, None, now)?,
        None => None,
    };
    let limits = if task.parent.is_some() { draft.velocity } else { Velocity::default() };
    let paced = pace::count(tx, task, limits, &[], now)?;
    if let Counted::Beyond(first, tripped) = &paced {
        pace::suspend(tx, first, *tripped, &draft.event, now)?;
        return Ok(Opened::Suspended(*tripped));
    }
    tx.mark_time(now);
    tx.audit(&draft.event)?;
    if let Some(approval) = approval {
        approve::take(tx, &approval, now)?;
    }
    if let Counted::Within(first, pace) = paced {
        pace::note(tx, first, pace)?;
    }
    issue::begin_task(tx, task, passed_on_by.is_some());
    tx.put_task(task);
    if let Some(retry) = draft.retry {
        issue::remember(tx, retry, task.id, None, task.deadline);
    }
    if let Some((spend, record)) = &spent {
        spend::write(tx, spend, record);
    }
    Ok(Opened::Task(task.id))
}

/// A task can be passed on to so many others only. Counted by the marks in the index: no child's row is read.
fn check_passed_on(tx: &Tx<'_>, parent: TaskId) -> Result<(), Refused> {
    let prefix = parent.as_bytes();
    let end = crate::ledger::engine::prefix_end(prefix);
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let known = tx.scan(Table::Children, (Bound::Included(prefix.as_slice()), upper), CHILDREN_READ)?;
    // Where there are more than are read, nobody knows.
    if known.len() >= CHILDREN_READ {
        return Err(Refused::Quota("task's child tasks, of those that can be passed on"));
    }
    let mut passed_on = known.iter().filter(|(_, mark)| !mark.is_empty()).take(Task::MAX_DELEGATIONS).count();
    for key in tx.staged(Table::Children, prefix) {
        if passed_on >= Task::MAX_DELEGATIONS {
            break;
        }
        // One that was there before, and goes in this commit, counts still.
        let is_known = known.binary_search_by(|(known, _)| known.as_slice().cmp(key)).is_ok();
        passed_on += usize::from(!is_known && tx.get(Table::Children, key)?.is_some_and(|mark| !mark.is_empty()));
    }
    if passed_on >= Task::MAX_DELEGATIONS { Err(Refused::Quota("task's delegations")) } else { Ok(()) }
}

/// Child tasks that are looked at.
const CHILDREN_READ: usize = 1_024;

/// Marks a task as held by a stream, or no longer.
pub(in crate::ledger) fn hold(tx: &mut Tx<'_>, id: TaskId, now: Timestamp) -> Result<Task, Refused> {
    let mut task = live_task(tx, id, now)?;
    if !task.held {
        task.held = true;
        tx.put_task(&task);
        tx.put(Table::Held, id.as_bytes().to_vec(), Vec::new());
    }
    Ok(task)
}

fn opened_before(tx: &Tx<'_>, retry: Option<Retry>) -> Result<Option<TaskId>, Refused> {
    let Some(retry) = retry else { return Ok(None) };
    let Some(value) = tx.get(Table::Retries, &retry.key)? else { return Ok(None) };
    let record: records::RetryRecord = tx.shared.codec.decode(Table::Retries, &retry.key, &value).map_err(|e| {
        tx.shared.aside.note(Table::Retries, &retry.key, &e);
        Refused::RetryMismatch
    })?;
    if record.request_sha256 != retry.request.0 {
        return Err(Refused::RetryMismatch);
    }
    Ok(TaskId::from_bytes(&record.task))
}
