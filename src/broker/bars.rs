//! Bars: what operators forbid.

use super::{
    Broker, event,
    refusal::Refusal,
    revoke::{barrable, check_reason},
    task::revision,
    view,
};
use crate::{
    identity::Caller,
    ledger::{BarDraft, Custody, CustodyDraft},
    model::{Scope, Suspension, TaskId},
    pb,
    policy::Role,
};

impl Broker {
    /// Forbids issue and renew in a scope until lifted.
    ///
    /// # Errors
    /// When the operator may not.
    pub async fn bar(&self, caller: &Caller, request: pb::BarRequest) -> Result<pb::BarResponse, Refusal> {
        let draft = self.bar_draft(caller, request.scope.as_ref(), request.suspend, request.reason, "scope.barred")?;
        let (changed, receipt) = self.ledger.bar(draft).await?;
        Ok(pb::BarResponse { revision: Some(revision(&receipt)), changed })
    }

    /// Lifts a bar or a quarantine. Suspensions of grants for other reasons stay: an attestation lifts them.
    ///
    /// # Errors
    /// When the operator may not: who may bar may lift, but only admins lift. When both stand and the request does not name
    /// the quarantine.
    pub async fn lift(&self, caller: &Caller, request: pb::LiftRequest) -> Result<pb::LiftResponse, Refusal> {
        self.operator(caller)?.require(Role::Admin)?;
        if let Some(Scope::Task(id)) = request.scope.as_ref().map(view::scope_of).transpose()? {
            return self.lift_task(caller, id, request.reason).await;
        }
        let draft = self.bar_draft(caller, request.scope.as_ref(), false, request.reason, "scope.lifted")?;
        let state = self.ledger.scope(draft.scope.id());
        if !request.only_quarantine && state.bar > 0 && state.held.has(Suspension::Quarantine) {
            // A bar for good must not go with a quarantine by oversight.
            let problem =
                "must say which: a bar and a quarantine stand; lift the quarantine with `--quarantine`, then the bar";
            return Err(Refusal::invalid("only_quarantine", problem));
        }
        let (barred, mut last) = if request.only_quarantine {
            (false, None)
        } else {
            let again = BarDraft { scope: draft.scope.clone(), event: draft.event.clone(), ..draft.clone() };
            let (changed, receipt) = self.ledger.lift(again).await?;
            (changed, Some(receipt))
        };
        let mut event = draft.event;
        event.kind = "scope.released".to_owned();
        event.details.push(format!("cause={}", Suspension::Quarantine.words()));
        let causes = [Suspension::Quarantine].into_iter().collect();
        let acts = vec![(Custody::Release { scope: draft.scope, causes }, event)];
        let (released, receipt) = self.ledger.custody(CustodyDraft { acts, basis: None, now: draft.now }).await?;
        let receipt = last.take().filter(|_| released == 0).unwrap_or(receipt);
        Ok(pb::LiftResponse { revision: Some(revision(&receipt)), changed: barred || released > 0 })
    }

    /// Lets a task go on that exceeded a limit of its grant; it counts anew.
    async fn lift_task(&self, caller: &Caller, id: TaskId, reason: String) -> Result<pb::LiftResponse, Refusal> {
        let (operator, now, scope) = (self.operator(caller)?, self.now(), Scope::Task(id));
        check_reason(&reason)?;
        self.may_end(&operator, &scope)?;
        let task = self.ledger.task(id)?.ok_or(Refusal::Unknown("task"))?;
        let mut event = event::by(caller, operator.actor(), "task.resumed", now);
        event::of_task(&mut event, &task);
        event.reason = reason;
        event.details.push(format!("scope={scope}"));
        event.details.push(format!("cause={}", Suspension::Velocity.words()));
        let causes = [Suspension::Velocity].into_iter().collect();
        let acts = vec![(Custody::Release { scope, causes }, event)];
        let (released, receipt) = self.ledger.custody(CustodyDraft { acts, basis: None, now }).await?;
        Ok(pb::LiftResponse { revision: Some(revision(&receipt)), changed: released > 0 })
    }

    fn bar_draft(
        &self,
        caller: &Caller,
        scope: Option<&pb::Scope>,
        suspend: bool,
        reason: String,
        kind: &str,
    ) -> Result<BarDraft, Refusal> {
        let operator = self.operator(caller)?;
        let now = self.now();
        let scope = barrable(scope)?;
        check_reason(&reason)?;
        self.may_end(&operator, &scope)?;
        let mut event = event::by(caller, operator.actor(), kind, now);
        if let Scope::Grant(tenant, _)
        | Scope::PartnerInTenant(tenant, _)
        | Scope::Tenant(tenant)
        | Scope::Workload(tenant, _) = &scope
        {
            event.tenant = tenant.to_string();
        }
        event.reason.clone_from(&reason);
        event.details.push(format!("scope={scope}"));
        if suspend {
            event.details.push("suspend=true".into());
        }
        Ok(BarDraft { scope, suspend, operator: operator.name.to_string(), reason, event, now })
    }
}

#[cfg(test)]
mod velocity;
