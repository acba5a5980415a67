//! Audit events: built here, so that each says who, from where, for what and with which decision.

pub use crate::audit::time::{stamp, unstamp};
use crate::{
    identity::Caller,
    model::{Lease, Ruling, Task, TaskId, Timestamp},
    pb,
    policy::{Grant, Pattern},
};

/// An event of the broker's own doing.
#[must_use]
pub fn own(kind: &str, now: Timestamp) -> pb::Event {
    pb::Event {
        kind: kind.to_owned(),
        decision: DONE.into(),
        actor: "broker".into(),
        at: Some(stamp(now)),
        ..Default::default()
    }
}

/// An event of a caller's doing.
#[must_use]
pub fn by(caller: &Caller, actor: String, kind: &str, now: Timestamp) -> pb::Event {
    pb::Event {
        kind: kind.to_owned(),
        decision: DONE.into(),
        actor,
        proof: caller.proof_text(),
        source: caller.source_text(),
        details: caller.proof_details(),
        at: Some(stamp(now)),
        ..Default::default()
    }
}

/// Fills in what a lease says.
pub fn of_lease(event: &mut pb::Event, lease: &Lease) {
    event.tenant = lease.tenant.to_string();
    event.partner = lease.partner.to_string();
    event.workload = lease.workload.to_string();
    event.grant = lease.grant.to_string();
    event.task_id = lease.id.task().to_string();
    event.lease_id = lease.id.to_string();
    event.purpose = lease.purpose.to_string();
    event.audiences.clone_from(&lease.audiences);
    event.credential_sha256 = lease.credential.to_string();
    event.credential_kind = lease.kind.code().into();
    event.details.extend(lease.delegated.iter().map(|one| format!("delegated_by={}/{}", one.workload, one.task)));
    event.expires = Some(stamp(lease.expires));
    event.details.extend(lease.secret.iter().flat_map(|secret| secret.details()));
    ruled(event, lease.ruling.as_deref());
}

/// Which actions a credential has, where they are not just those that its grant lists: most have, and it costs them no
/// byte. Both are sorted, each once.
#[must_use]
pub fn actions_of(actions: &[String], grant: &Grant) -> Option<String> {
    let is_all = grant.actions.iter().map(Pattern::as_str).eq(actions.iter().map(String::as_str));
    (!is_all).then(|| format!("{ACTIONS}{}", actions.join(" ")))
}

/// Fills in which policies allowed it.
pub fn ruled(event: &mut pb::Event, ruling: Option<&Ruling>) {
    if let Some(ruling) = ruling {
        event.policies.clone_from(&ruling.policies);
        event.policy_set = ruling.set.to_string();
    }
}

/// Fills in what a task says.
pub fn of_task(event: &mut pb::Event, task: &Task) {
    event.tenant = task.tenant.to_string();
    event.partner = task.partner.to_string();
    event.workload = task.workload.to_string();
    event.task_id = task.id.to_string();
    event.purpose = task.purpose.to_string();
    event.expires = Some(stamp(task.deadline));
    event.details.extend(task.job_url.iter().map(|url| format!("job_url={url}")));
    event.details.extend(task.intent.iter().flat_map(|intent| intent.details()));
}

/// Task id text, empty for none.
#[must_use]
pub fn task_text(id: Option<TaskId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// The name of the detail that [`actions_of`] makes.
pub const ACTIONS: &str = "actions=";
/// The decision of what succeeded.
pub const DONE: &str = "done";
/// The decision of what policy allowed.
pub const ALLOWED: &str = "allowed";
/// The decision of what was refused.
pub const REFUSED: &str = "refused";
