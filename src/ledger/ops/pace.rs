//! How fast a task goes on: counted in its own row, and what exceeds a limit suspends it.

use super::{custody, ended_or};
use crate::{
    ledger::{ops::custody::Custody, refused::Refused, tx::Tx},
    model::{Pace, Scope, ScopeId, Suspension, Task, TaskId, Timestamp, Tripped, Velocity},
    pb,
};

/// What one more derivation does.
#[derive(Debug)]
pub(in crate::ledger) enum Counted {
    /// Nothing is limited.
    Free,
    /// It is within the limits: the task to note that in, and what.
    Within(TaskId, Pace),
    /// It exceeds one: the task that is suspended for it.
    Beyond(Box<Task>, Tripped),
}

/// Counts one more derivation in a task. Its first ancestor keeps the count, so that child tasks are no way around it.
pub(in crate::ledger) fn count(
    tx: &Tx<'_>,
    task: &Task,
    limits: Velocity,
    audiences: &[String],
    now: Timestamp,
) -> Result<Counted, Refused> {
    if limits.is_unlimited() {
        return Ok(Counted::Free);
    }
    let mut first = task.clone();
    for _ in 0..Task::MAX_ANCESTORS {
        let Some(id) = first.parent else { break };
        // One that is gone has ended, and with it this one.
        first = ended_or(tx.task(id))?.ok_or(Refused::Unknown)?;
    }
    let pace = first.pace.as_deref().cloned().unwrap_or_default();
    Ok(match pace.with(limits, audiences, now) {
        Ok(pace) => Counted::Within(first.id, pace),
        Err(tripped) => Counted::Beyond(Box::new(first), tripped),
    })
}

/// Writes a count to the row of another task than the one that is written anyway.
pub(in crate::ledger) fn note(tx: &mut Tx<'_>, id: TaskId, pace: Pace) -> Result<(), Refused> {
    if let Some(mut task) = ended_or(tx.task(id))? {
        task.pace = Some(Box::new(pace));
        tx.put_task(&task);
    }
    Ok(())
}

/// Suspends a task for a limit that was exceeded, and tells why. `cause` is the event of what was asked.
pub(in crate::ledger) fn suspend(
    tx: &mut Tx<'_>,
    task: &Task,
    tripped: Tripped,
    cause: &pb::Event,
    now: Timestamp,
) -> Result<(), Refused> {
    let scope = Scope::Task(task.id);
    let evidence = format!("{} of at most {}", tripped.count, tripped.limit);
    let event = pb::Event {
        kind: "task.suspended".to_owned(),
        decision: "done".to_owned(),
        actor: "broker".to_owned(),
        task_id: task.id.to_string(),
        lease_id: String::new(),
        credential_sha256: String::new(),
        credential_kind: 0,
        expires: None,
        reason: "velocity".to_owned(),
        details: vec![
            format!("scope={scope}"),
            "suspend=true".to_owned(),
            format!("cause={}", Suspension::Velocity.words()),
            format!("rule=velocity.{}", tripped.rule),
            format!("limit={}", tripped.limit),
            format!("count={}", tripped.count),
            format!("asked={}", cause.kind),
            format!("asked_by={}", cause.actor),
            format!("asked_in={}", cause.task_id),
            format!("way_out=mayfly appeal file task {}", task.id),
        ],
        ..cause.clone()
    };
    let reason = format!("velocity.{}: {evidence}", tripped.rule);
    let act = Custody::Suspend {
        scope,
        cause: Suspension::Velocity,
        until: None,
        auto_lift: false,
        may_shorten: false,
        operator: "broker".to_owned(),
        reason,
    };
    tx.mark_time(now);
    tx.audit(&event)?;
    custody::write(tx, &act, now)
}

/// Has a task count anew: an operator has looked.
pub(in crate::ledger) fn forgive(tx: &mut Tx<'_>, id: TaskId) -> Result<(), Refused> {
    if let Some(mut task) = ended_or(tx.task(id))?.filter(|task| task.pace.is_some()) {
        task.pace = None;
        tx.put_task(&task);
    }
    Ok(())
}

/// Forgets the suspension of a task that is swept.
pub(in crate::ledger) fn forget(tx: &mut Tx<'_>, id: TaskId) {
    let scope = ScopeId::task(id);
    let state = tx.scope(scope);
    if state.held.has(Suspension::Velocity) {
        tx.delete(crate::ledger::engine::Table::Bars, crate::ledger::keys::suspension(scope, Suspension::Velocity));
        // A store that fails here fails the whole commit.
        let _closed = super::appeals::close(tx, scope, Suspension::Velocity, tx.time());
        let held = state.held.without([Suspension::Velocity].into_iter().collect());
        tx.set_scope(scope, crate::ledger::book::ScopeState { held, ..state });
    }
}
