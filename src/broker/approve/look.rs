//! Looking at approvals. Nothing here writes.

use crate::{
    broker::{Broker, event::stamp, event::task_text, page, refusal::Refusal, view, who::Operator},
    identity::Caller,
    model::{Approval, ApprovalStanding, ApprovalVote, TenantName, Timestamp},
    pb,
    policy::Role,
};

impl Broker {
    /// Where a request of the calling workload stands.
    ///
    /// # Errors
    /// When it has none of this id.
    pub fn check_approval(
        &self,
        caller: &Caller,
        request: &pb::CheckApprovalRequest,
    ) -> Result<pb::CheckApprovalResponse, Refusal> {
        let now = self.now();
        let (approval, _) = self.own_approval(caller, &request.approval_id, now)?;
        Ok(pb::CheckApprovalResponse { approval: Some(self.approval_view(&approval, false, now)?) })
    }

    /// One request, for operators.
    ///
    /// # Errors
    /// When there is none that the operator may know of.
    pub fn get_approval(
        &self,
        caller: &Caller,
        request: &pb::GetApprovalRequest,
    ) -> Result<pb::GetApprovalResponse, Refusal> {
        let operator = self.operator(caller)?;
        let approval = self.seen_approval(&operator, &request.approval_id)?;
        Ok(pb::GetApprovalResponse { approval: Some(self.approval_view(&approval, true, self.now())?) })
    }

    /// Requests within the operator's scope, and those that wait for its word. A page may be short while there is a next
    /// one.
    ///
    /// # Errors
    /// When the caller is no operator, a filter is malformed, or the store failed.
    pub async fn list_approvals(
        &self,
        caller: &Caller,
        request: pb::ListApprovalsRequest,
    ) -> Result<pb::ListApprovalsResponse, Refusal> {
        let now = self.now();
        let operator = self.operator(caller)?;
        let ask = page::PageAsk::of(request.page.as_ref())?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let standing = match request.standing.as_str() {
            "" => None,
            word => Some(ApprovalStanding::from_word(word).ok_or_else(|| {
                let words = ApprovalStanding::ALL.map(ApprovalStanding::word).join(", ");
                Refusal::invalid("standing", format!("is none of {words}"))
            })?),
        };
        let keep = |approval: &Approval| {
            if tenant.as_ref().is_some_and(|tenant| *tenant != approval.tenant)
                || !self.sees_approval(&operator, approval)?
            {
                return Ok(None);
            }
            let found = self.standing_of(approval, now)?;
            if standing.is_some_and(|standing| standing != found) {
                return Ok(None);
            }
            let (key, person) = (caller.key_text(), operator.identity());
            let involved = approval.involves(&operator.name, &key, person.as_ref());
            let waits = found == ApprovalStanding::Open && !involved;
            if request.for_me && !(waits && self.is_named(&operator, approval)?) {
                return Ok(None);
            }
            self.approval_view(approval, true, now).map(Some)
        };
        let fetch = |prefix: &[u8], after: &[u8], limit| self.ledger.approvals(prefix, after, limit);
        let key = |approval: &Approval| approval.id.as_bytes().to_vec();
        let (approvals, next_page_token) = page::scan(&ask, &[Vec::new()], fetch, key, keep).await?;
        Ok(pb::ListApprovalsResponse { approvals, next_page_token })
    }

    pub(super) fn sees_approval(&self, operator: &Operator, approval: &Approval) -> Result<bool, Refusal> {
        let within = operator.reaches(Some(&approval.tenant), Some(&approval.partner));
        Ok((within && operator.require(Role::Auditor).is_ok())
            || approval.asked_by == operator.actor()
            || self.is_named(operator, approval)?)
    }

    /// Whether the grant, as it is now, has the operator decide.
    fn is_named(&self, operator: &Operator, approval: &Approval) -> Result<bool, Refusal> {
        let known = self.registry.tenant(&self.ledger, &approval.tenant)?;
        let terms = self.terms(known.as_deref(), approval, 0);
        Ok(terms.is_some_and(|terms| terms.by.contains(&operator.name)))
    }

    /// An approval as the wire says it; who decides is for operators only.
    pub(super) fn approval_view(
        &self,
        approval: &Approval,
        full: bool,
        now: Timestamp,
    ) -> Result<pb::Approval, Refusal> {
        let known = self.registry.tenant(&self.ledger, &approval.tenant)?;
        let terms = self.terms(known.as_deref(), approval, 0);
        let named = terms.as_ref().map(|terms| terms.by.clone()).unwrap_or_default();
        let counts = |vote: &ApprovalVote| {
            let held = |scope: &crate::model::ScopeId| {
                let state = self.ledger.scope(*scope);
                !state.is_barred() && state.cut <= vote.basis
            };
            named.contains(&vote.operator) && vote.proofs.iter().all(held) && self.people.counts(vote)
        };
        let vote = |vote: &ApprovalVote| pb::ApprovalVote {
            operator: if full { vote.operator.to_string() } else { String::new() },
            at: Some(stamp(vote.at)),
            counts: counts(vote),
        };
        let approvers = if full { named.iter().map(ToString::to_string).collect() } else { Vec::new() };
        Ok(pb::Approval {
            approval_id: approval.id.to_string(),
            tenant: approval.tenant.to_string(),
            partner: approval.partner.to_string(),
            grant: approval.grant.to_string(),
            workload: approval.workload.to_string(),
            purpose: approval.purpose.to_string(),
            task_id: task_text(approval.task),
            reason: approval.reason.clone(),
            asked_by: approval.asked_by.clone(),
            asked: Some(stamp(approval.asked)),
            waits_until: Some(stamp(approval.waits_until)),
            votes: approval.votes.iter().map(vote).collect(),
            needed: terms.map_or(0, |terms| terms.needed),
            approvers,
            until: approval.until.map(stamp),
            used_by_task_id: task_text(approval.used_by),
            standing: self.standing_of(approval, now)?.word().to_owned(),
            closed: approval.closed.map(|(_, at)| stamp(at)),
        })
    }
}
