//! Opening a task, and holding it.

use std::ops::Bound;

use super::{
    approve::{self, ApprovalUse},
    ended_or, issue, live_task,
    pace::{self, Counted},
    proof_standing,
    spend::{self, Spend, Use},
};
use crate::{
    ledger::{engine::Table, ops::issue::Retry, refused::Refused, tx::Tx},
    model::{EndReason, Task, TaskId, Timestamp, Tripped, Velocity},
    pb, records,
};

/// A task to open.
#[derive(Debug)]
pub struct OpenDraft {
    /// The task.
    pub task: Task,
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
    if let Some(parent) = task.parent {
        let above = live_task(tx, parent, now)?;
        check_passed_on(tx, &above, task)?;
    }
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
    issue::begin_task(tx, task);
    tx.put_task(task);
    if let Some(retry) = draft.retry {
        issue::remember(tx, retry, task.id, None, task.deadline);
    }
    if let Some((spend, record)) = &spent {
        spend::write(tx, spend, record);
    }
    Ok(Opened::Task(task.id))
}

/// A task can be passed on to so many others only.
fn check_passed_on(tx: &Tx<'_>, parent: &Task, task: &Task) -> Result<(), Refused> {
    if parent.workload == task.workload {
        return Ok(());
    }
    let prefix = parent.id.as_bytes();
    let end = crate::ledger::engine::prefix_end(prefix);
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let known = tx.scan(Table::Children, (Bound::Included(prefix.as_slice()), upper), CHILDREN_READ)?;
    // Where there are more than are read, nobody knows.
    if known.len() >= CHILDREN_READ {
        return Err(Refused::Quota("task's child tasks, of those that can be passed on"));
    }
    let mut keys: Vec<&[u8]> = known.iter().map(|(key, _)| key.as_slice()).collect();
    keys.extend(tx.staged(Table::Children, prefix));
    keys.sort_unstable();
    keys.dedup();
    let mut passed_on = 0;
    for key in keys {
        let Some(id) = key.get(TaskId::BYTES..).and_then(TaskId::from_bytes) else { continue };
        // One that cannot be read counts.
        passed_on += usize::from(ended_or(tx.task(id))?.is_none_or(|child| child.workload != parent.workload));
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
