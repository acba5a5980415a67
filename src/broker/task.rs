//! Opening, completing and releasing.

use super::{
    Broker,
    approve::{Leave, approved},
    decided::decided,
    delegate::{confined, end_passed, passed},
    event,
    federate::{job_url, spend},
    refusal::Refusal,
    view,
    who::Workload,
    wish::{TASK_MAX_SECONDS, check_idempotency_key, intent, new_task, retry, within},
};
use crate::{
    identity::Caller,
    ledger::{EndLease, EndTask, OpenDraft, Receipt, Refused},
    model::{
        Digest, EndReason, Intent, LeaseId, PartnerName, Purpose, ScopeId, Standing, Task, TaskId, TenantName,
        Timestamp, WorkloadName,
    },
    pb,
    policy::{self, Denied, Scene, TaskAsked, TaskDecision, TaskFacts},
};

impl Broker {
    /// Opens a task.
    ///
    /// # Errors
    /// When no grant covers it, or its parent is over.
    pub async fn open_task(
        &self,
        caller: &Caller,
        request: pb::OpenTaskRequest,
    ) -> Result<pb::OpenTaskResponse, Refusal> {
        check_idempotency_key(&request.idempotency_key)?;
        if request.deadline_seconds > TASK_MAX_SECONDS {
            return Err(Refusal::invalid("deadline_seconds", format!("is more than {TASK_MAX_SECONDS}")));
        }
        let tenant: TenantName = view::id("tenant", &request.tenant)?;
        decided(|| async {
            let now = self.now();
            // Before the caller is looked at: a cut that comes after that look is one after the decision.
            let basis = self.ledger.basis();
            let workload = self.workload(caller, &tenant, now).inspect_err(|why| {
                self.refused(caller, None, &tenant, "task.refused", why, now);
            })?;
            let opened = match self.policies_ready(&workload.tenant).await {
                Ok(()) => self.try_open(caller, &workload, &request, basis, now).await,
                Err(why) => Err(why),
            };
            opened.inspect_err(|why| self.refused(caller, Some(&workload), &tenant, "task.refused", why, now))
        })
        .await
    }

    async fn try_open(
        &self,
        caller: &Caller,
        workload: &Workload,
        request: &pb::OpenTaskRequest,
        basis: (u64, u64),
        now: Timestamp,
    ) -> Result<pb::OpenTaskResponse, Refusal> {
        let (partner, purpose) = (view::id("partner", &request.partner)?, view::id("purpose", &request.purpose)?);
        let parent = self.parent(caller, workload, &request.parent_task_id, now)?;
        // A child that is held would go on with the key alone, long after what proved its opener.
        if Self::proof_end(caller, parent.as_ref()).is_some_and(|end| end <= now) {
            return Err(Refusal::Unproven("what you proved yourself with has ended"));
        }
        let told = intent(&request.task_type, &request.parameters)?;
        let passed = passed(request, workload, parent.as_ref())?;
        let intent = match parent.as_ref() {
            Some(parent) => {
                let (is_confined, above) = (workload.confined_to().is_some(), self.above(parent)?);
                confined(is_confined, parent, &above, &passed, (&partner, &purpose), told)?
            }
            None => told,
        };
        let named = view::optional_id("approval_id", &request.approval_id)?;
        let leaves = self.leaves_with(named, None, workload, now)?;
        let opening = self.decide_task(
            caller,
            workload,
            &workload.name,
            &partner,
            &purpose,
            request.deadline_seconds,
            parent.as_ref(),
            intent.as_deref(),
            &leaves,
            basis,
            now,
        )?;
        let job_url = job_url(caller, &request.job_url)?;
        let mut task = new_task(workload, &opening, parent.as_ref(), request.hold, intent, job_url)?;
        task.limits = passed.limits;
        if let Some(delegate) = passed.delegate {
            // Who opens it may open it for himself; who shall act in it must be allowed as much.
            let theirs = self.decide_task(
                caller,
                workload,
                &delegate,
                &partner,
                &purpose,
                request.deadline_seconds,
                parent.as_ref(),
                task.intent.as_deref(),
                &[],
                opening.basis(),
                now,
            )?;
            let (deadline, proof_end) =
                (task.deadline.min(theirs.deadline()), Self::proof_end(caller, parent.as_ref()));
            task.deadline = end_passed(deadline, proof_end, request.deadline_seconds, now)?;
            // It proves itself with what it has, not with the key of who opened it; and what ends who opened it ends it.
            task.client_key = None;
            task.proofs.push(ScopeId::workload(&task.tenant, &task.workload));
            task.workload = delegate;
        }
        let approval = leaves.into_iter().map(|leave| leave.wanted).next();
        task.approvals.extend(approval.as_ref().map(|wanted| wanted.id));
        let mut event = event::by(caller, workload.actor(), "task.opened", now);
        event.decision = event::ALLOWED.into();
        event::of_task(&mut event, &task);
        event.trust_hash = opening.trust_hash().to_string();
        event::ruled(&mut event, opening.ruling());
        event.details.extend(task.parent.map(|id| format!("parent={id}")));
        if task.workload != workload.name {
            event.details.push(format!("delegated_by={}", workload.name));
        }
        event.details.extend(task.limits.iter().flat_map(|limits| limits.details()));
        event.details.extend(approval.as_ref().map(|wanted| format!("approval={}", wanted.id)));
        let through = self.above(&task)?.through();
        let hash = Digest::of(&prost::Message::encode_to_vec(&pb::OpenTaskRequest {
            idempotency_key: String::new(),
            ..request.clone()
        }));
        let retry = retry(&request.idempotency_key, hash, workload, task.parent, caller);
        // Before it is opened: one that could not be held would live on without its holder.
        let room = if request.hold { Some(self.holds.room(task.id.tenant())?) } else { None };
        if request.hold {
            // Known before it is written: should whoever asked go away meanwhile, it is given up all the same.
            self.expect_hold(task.id);
        }
        drop(room);
        let spend = spend(caller, || task.parent.is_none().then_some(hash));
        let velocity = opening.velocity();
        let draft = OpenDraft { task: task.clone(), through, retry, spend, approval, velocity, event, now };
        let (id, _) = match self.ledger.open_task(draft).await {
            Ok(opened) => opened,
            Err(refused) => {
                // Of what may be in the store all the same, the grace time takes care.
                if !matches!(refused, Refused::Unanchored | Refused::StoreFailed | Refused::Stopping) {
                    self.holds.unexpect(task.id);
                }
                return Err(self.ledger_refused(caller, workload, refused, now).await);
            }
        };
        if id != task.id {
            self.holds.unexpect(task.id);
        }
        let task = if id == task.id { task } else { self.ledger.task(id)?.ok_or(Refusal::Unknown("task"))? };
        if task.held {
            self.expect_hold(task.id);
        }
        let standing = self.ledger.task_standing(&task, now)?;
        let delegators = self.above(&task)?.delegators();
        Ok(pb::OpenTaskResponse { task: Some(view::task(&task, &delegators, standing)) })
    }

    /// The task to open under: the one named, or the one that the caller's certificate confines it to.
    fn parent(
        &self,
        caller: &Caller,
        workload: &Workload,
        claimed: &str,
        now: Timestamp,
    ) -> Result<Option<Task>, Refusal> {
        let id = match (claimed, workload.confined_to()) {
            ("", None) => return Ok(None),
            ("", Some(own)) => own,
            (text, _) => text.parse().map_err(|_| Refusal::Unknown("task"))?,
        };
        within(workload, id, "task")?;
        let task = self.ledger.task(id)?.ok_or(Refusal::Unknown("task"))?;
        if task.workload != workload.name || task.tenant != *workload.tenant.trust.name() {
            return Err(Refusal::Unknown("task"));
        }
        Self::check_client_key(caller, &task, "task")?;
        match self.ledger.task_standing(&task, now)? {
            Standing::Live => {}
            Standing::Suspended => return Err(Refusal::Suspended("task")),
            Standing::Ended(why) => return Err(Refusal::Ended { what: "task", why }),
        }
        let mut depth = 1;
        let mut above = task.parent;
        while let Some(id) = above {
            depth += 1;
            above = self.ledger.task(id)?.and_then(|task| task.parent);
            if depth >= Task::MAX_ANCESTORS {
                let most = Task::MAX_ANCESTORS - 1;
                return Err(Refusal::invalid(
                    "parent_task_id",
                    format!("has {most} ancestors already, which is the most"),
                ));
            }
        }
        Ok(Some(task))
    }

    #[expect(clippy::too_many_arguments, reason = "all that a decision rests on, in the order it was found")]
    pub(super) fn decide_task(
        &self,
        caller: &Caller,
        workload: &Workload,
        name: &WorkloadName,
        partner: &PartnerName,
        purpose: &Purpose,
        deadline_seconds: u32,
        parent: Option<&Task>,
        intent: Option<&Intent>,
        leaves: &[Leave],
        basis: (u64, u64),
        now: Timestamp,
    ) -> Result<TaskDecision, Refusal> {
        let global = self.registry.global();
        let attested = |grant: &crate::model::GrantName| workload.tenant.attested.get(grant).copied();
        let asked = TaskAsked { workload: name, partner, purpose, deadline_seconds };
        let approved = approved(leaves);
        let facts = TaskFacts {
            basis,
            parent_deadline: parent.map(|task| task.deadline),
            attest_by: &attested,
            proofs: workload.proofs.clone(),
            origin: policy::Origin::of(caller),
            scene: Scene { global: Some(&global), intent, ..Scene::default() },
            approved: &approved,
        };
        let decided = policy::decide_task(&workload.tenant.trust, &asked, &facts, now);
        let shadow = decided.as_ref().map_or_else(Denied::shadow, TaskDecision::shadow);
        self.note_differences(caller, workload, partner, purpose, shadow, now);
        Ok(decided?)
    }

    /// Ends a task and everything under it.
    ///
    /// # Errors
    /// When there is no such task of the caller's.
    pub async fn complete_task(
        &self,
        caller: &Caller,
        request: pb::CompleteTaskRequest,
    ) -> Result<pb::CompleteTaskResponse, Refusal> {
        let id: TaskId = request.task_id.parse().map_err(|_| Refusal::Unknown("task"))?;
        let now = self.now();
        let task = self.ledger.task(id)?.ok_or(Refusal::Unknown("task"))?;
        let workload = self.holder(caller, &task.tenant, &task.workload, now, "task")?;
        within(&workload, task.id, "task")?;
        Self::check_client_key(caller, &task, "task")?;
        let mut event = event::by(caller, workload.actor(), "task.completed", now);
        event::of_task(&mut event, &task);
        let end = EndTask { task: id, why: EndReason::Completed, event, now };
        let (ended_now, receipt) = self.ledger.end_task(end).await?;
        Ok(pb::CompleteTaskResponse { revision: Some(revision(&receipt)), ended_now })
    }

    /// Ends one lease.
    ///
    /// # Errors
    /// When there is no such lease of the caller's.
    pub async fn release(&self, caller: &Caller, request: pb::ReleaseRequest) -> Result<pb::ReleaseResponse, Refusal> {
        let id: LeaseId = request.lease_id.parse().map_err(|_| Refusal::Unknown("lease"))?;
        let now = self.now();
        let lease = self.ledger.lease(id)?.ok_or(Refusal::Unknown("lease"))?;
        let workload = self.holder(caller, &lease.tenant, &lease.workload, now, "lease")?;
        within(&workload, lease.id.task(), "lease")?;
        self.check_key_of_lease(caller, &lease)?;
        let mut event = event::by(caller, workload.actor(), "lease.released", now);
        event::of_lease(&mut event, &lease);
        let end = EndLease { lease: id, why: EndReason::Released, event, now };
        let (ended_now, receipt) = self.ledger.end_lease(end).await?;
        Ok(pb::ReleaseResponse { revision: Some(revision(&receipt)), ended_now })
    }
}

/// Who is confined to a task reaches no other partner and no other purpose through its children either.
pub(super) fn check_same(parent: &Task, partner: &PartnerName, purpose: &Purpose) -> Result<(), Refusal> {
    if *partner != parent.partner {
        return Err(Refusal::invalid("partner", "is not the task's; who acts within a task opens others for it only"));
    }
    if *purpose != parent.purpose {
        return Err(Refusal::invalid("purpose", "is not the task's; who acts within a task opens others for it only"));
    }
    Ok(())
}

/// A receipt as the wire says it.
#[must_use]
pub fn revision(receipt: &Receipt) -> pb::Revision {
    pb::Revision { incarnation: receipt.incarnation(), number: receipt.number() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::testing::{TRUST, apply, founded, worker},
        ledger::TrustCommit,
        model::Scope,
    };

    #[tokio::test]
    async fn a_task_is_decided_anew_when_the_trust_map_changes_on_its_way() {
        let (broker, _) = founded().await;
        apply(&broker, TRUST).await;
        let request = || pb::OpenTaskRequest {
            tenant: "acme".into(),
            partner: "zeta".into(),
            purpose: "work".into(),
            ..Default::default()
        };
        for _ in 0..100 {
            let change = TrustCommit {
                changed: vec![Scope::Tenant("acme".parse().expect("name"))],
                ..TrustCommit::new(broker.ledger.basis().1, broker.now())
            };
            // Decided first, and overtaken by the change, which goes in the faster lane.
            let worker = worker();
            let (opened, changed) =
                tokio::join!(broker.open_task(&worker, request()), broker.ledger.apply(change, || ()));
            changed.expect("changes");
            opened.expect("opened");
        }
    }
}
