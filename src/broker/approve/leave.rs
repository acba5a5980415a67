//! Approvals as what is begun rests on them.

use crate::{
    broker::{Broker, refusal::Refusal, registry::Tenant, who::Workload},
    ledger::ApprovalUse,
    model::{Approval, ApprovalId, ApprovalStanding, GrantName, Task, Timestamp},
};

/// An approval that can be used now, as far as the broker knows; the commit looks again.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Leave {
    /// For the commit.
    pub(in crate::broker) wanted: ApprovalUse,
    /// Until when.
    pub(in crate::broker) until: Timestamp,
}

/// Grants that are approved, each until when.
pub(in crate::broker) fn approved(leaves: &[Leave]) -> Vec<(GrantName, Timestamp)> {
    leaves.iter().map(|leave| (leave.wanted.grant.clone(), leave.until)).collect()
}

impl Broker {
    /// The approvals that a task uses. One that is over is left out: its grant then needs another.
    pub(in crate::broker) fn leaves(
        &self,
        task: Option<&Task>,
        tenant: &Tenant,
        now: Timestamp,
    ) -> Result<Vec<Leave>, Refusal> {
        let Some(task) = task.filter(|task| !task.approvals.is_empty()) else { return Ok(Vec::new()) };
        let mut leaves = Vec::with_capacity(task.approvals.len());
        for id in &task.approvals {
            let Some(approval) = self.ledger.approval(*id)? else { continue };
            if approval.used_by != Some(task.id) {
                continue;
            }
            leaves.extend(self.leave(&approval, tenant, now).ok());
        }
        Ok(leaves)
    }

    /// Those of the task, and the one that a request names.
    pub(in crate::broker) fn leaves_with(
        &self,
        named: Option<ApprovalId>,
        task: Option<&Task>,
        workload: &Workload,
        now: Timestamp,
    ) -> Result<Vec<Leave>, Refusal> {
        let mut leaves = self.leaves(task, &workload.tenant, now)?;
        let Some(id) = named else { return Ok(leaves) };
        let approval = self.ledger.approval(id)?.filter(|approval| {
            approval.id.tenant() == workload.tenant.number
                && approval.tenant == *workload.tenant.trust.name()
                && approval.workload == workload.name
        });
        let leave = self.leave(&approval.ok_or(Refusal::Unknown("approval"))?, &workload.tenant, now)?;
        leaves.retain(|other| other.wanted.grant != leave.wanted.grant);
        leaves.push(leave);
        Ok(leaves)
    }

    fn leave(&self, approval: &Approval, tenant: &Tenant, now: Timestamp) -> Result<Leave, Refusal> {
        let basis = self.ledger.basis().1;
        let standing = self.ledger.approval_standing(approval, now);
        if standing.is_over() {
            return Err(Refusal::Approval(standing));
        }
        let terms = self.terms(Some(tenant), approval, basis).filter(|terms| terms.hash == approval.terms);
        let terms = terms.ok_or(Refusal::Approval(ApprovalStanding::Void))?;
        let until = approval.until.ok_or(Refusal::Approval(ApprovalStanding::Open))?;
        Ok(Leave { wanted: ApprovalUse { id: approval.id, grant: approval.grant.clone(), terms }, until })
    }
}
