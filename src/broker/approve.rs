//! Approvals: leave to use a grant, asked for with a reason and given by people whom the grant names.

mod leave;
mod look;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{
    Broker,
    decided::decided,
    event,
    refusal::{INVOLVED, Refusal},
    registry::Tenant,
    sign_in::Person,
    task::revision,
    view,
    who::{Operator, Workload},
    wish::within,
};
use crate::{
    identity::Caller,
    ledger::{AgreeDraft, AskDraft, CloseDraft, Receipt, Terms, TrustCommit},
    model::{
        Approval, ApprovalId, ApprovalStanding, ApprovalVote, Digest, GrantName, Purpose, Standing, Task, TaskId,
        TenantName, Timestamp, WorkloadName, approval::Closed,
    },
    pb,
    policy::{Denied, Grant, Role, TenantTrust},
};

pub(super) use leave::{Leave, approved};

/// What is asked for, parsed.
struct Wanted {
    grant: GrantName,
    purpose: Purpose,
    task: Option<TaskId>,
    reason: String,
}

/// Who asks, and at which revision that was found.
struct Asker {
    event: pb::Event,
    key: String,
    person: Option<Digest>,
    basis: (u64, u64),
    now: Timestamp,
}

impl Wanted {
    fn of(grant: &str, purpose: &str, task: &str, reason: &str) -> Result<Self, Refusal> {
        if reason.trim().is_empty() {
            return Err(Refusal::invalid("reason", "is missing; say why, for those who decide"));
        }
        check_words(reason)?;
        Ok(Self {
            grant: view::id("grant", grant)?,
            purpose: view::id("purpose", purpose)?,
            task: view::optional_id("task_id", task)?,
            reason: reason.to_owned(),
        })
    }
}

impl Broker {
    /// A workload asks for leave to use a grant.
    ///
    /// # Errors
    /// When the grant is not for it, needs no approval, or too many requests wait.
    pub async fn request_approval(
        &self,
        caller: &Caller,
        request: pb::RequestApprovalRequest,
    ) -> Result<pb::RequestApprovalResponse, Refusal> {
        let tenant: TenantName = view::id("tenant", &request.tenant)?;
        let wanted = Wanted::of(&request.grant, &request.purpose, &request.task_id, &request.reason)?;
        let asked = decided(|| async {
            let (basis, now) = (self.ledger.basis(), self.now());
            let workload = self.workload(caller, &tenant, now).inspect_err(|why| {
                self.refused(caller, None, &tenant, REFUSED, why, now);
            })?;
            let event = event::by(caller, workload.actor(), "approval.requested", now);
            let asker = Asker { event, key: caller.key_text(), person: None, basis, now };
            let confined = workload.confined_to();
            let wanted =
                Wanted { task: wanted.task.or(confined), reason: wanted.reason.clone(), ..wanted.clone_names() };
            let about = |event: &mut pb::Event| of_request(event, &tenant, &workload.name, &wanted);
            let within = wanted.task.map_or(Ok(()), |task| within(&workload, task, "task"));
            let asked = match within {
                Ok(()) => self.ask(&workload.tenant, &workload.name, wanted.clone_names(), asker).await,
                Err(why) => Err(why),
            };
            asked.inspect_err(|why| {
                let refused = event::by(caller, workload.actor(), REFUSED, now);
                self.tell_refused(tenant.as_str(), refused, why, now, about);
            })
        });
        let (approval, receipt) = asked.await?;
        let approval = Some(self.approval_view(&approval, false, self.now())?);
        Ok(pb::RequestApprovalResponse { approval, revision: Some(revision(&receipt)) })
    }

    /// An operator asks on behalf of a workload.
    ///
    /// # Errors
    /// As for [`Self::request_approval`], and when the grant lies outside the operator's scope.
    pub async fn request_approval_for(
        &self,
        caller: &Caller,
        request: pb::RequestApprovalForRequest,
    ) -> Result<pb::RequestApprovalForResponse, Refusal> {
        let tenant: TenantName = view::id("tenant", &request.tenant)?;
        let workload: WorkloadName = view::id("workload", &request.workload)?;
        let wanted = Wanted::of(&request.grant, &request.purpose, &request.task_id, &request.reason)?;
        let asked = decided(|| async {
            let (basis, now) = (self.ledger.basis(), self.now());
            let operator = self.operator(caller)?;
            let known = self.registry.tenant(&self.ledger, &tenant)?;
            let reached = known.as_ref().filter(|known| {
                let grant = known.trust.grants().get(&wanted.grant);
                grant.is_some_and(|grant| operator.reaches(Some(&tenant), Some(&grant.partner)))
            });
            let event = event::by(caller, operator.actor(), "approval.requested", now);
            let asker = Asker { event, key: caller.key_text(), person: operator.identity(), basis, now };
            let asked = match reached {
                Some(known) => self.ask(known, &workload, wanted.clone_names(), asker).await,
                None => Err(Refusal::Unknown("grant")),
            };
            asked.inspect_err(|why| {
                let refused = event::by(caller, operator.actor(), REFUSED, now);
                // What it may not know of is its claim only.
                match reached {
                    Some(_) => self.tell_refused(tenant.as_str(), refused, why, now, |event| {
                        of_request(event, &tenant, &workload, &wanted);
                    }),
                    None => self.tell_refused("", refused, why, now, |event| {
                        event
                            .details
                            .extend([format!("claimed_tenant={tenant}"), format!("claimed_grant={}", wanted.grant)]);
                    }),
                }
            })
        });
        let (approval, receipt) = asked.await?;
        let approval = Some(self.approval_view(&approval, true, self.now())?);
        Ok(pb::RequestApprovalForResponse { approval, revision: Some(revision(&receipt)) })
    }

    async fn ask(
        &self,
        tenant: &Tenant,
        workload: &WorkloadName,
        wanted: Wanted,
        asker: Asker,
    ) -> Result<(Approval, Receipt), Refusal> {
        let Asker { mut event, key, person, basis, now } = asker;
        let grant = askable(&tenant.trust, workload, &wanted, now)?;
        let needed = grant.approvals_for(&wanted.purpose).map_or(0, |need| need.needed);
        if let Some(id) = wanted.task {
            let task = self.ledger.task(id)?.filter(|task| is_of(task, tenant.trust.name(), workload));
            let task = task.ok_or(Refusal::Unknown("task"))?;
            if task.partner != grant.partner || task.purpose != wanted.purpose {
                return Err(Refusal::invalid(
                    "task_id",
                    "is of another partner or purpose; name one that fits, or none",
                ));
            }
            match self.ledger.task_standing(&task, now)? {
                Standing::Live => {}
                Standing::Suspended => return Err(Refusal::Suspended("task")),
                Standing::Ended(why) => return Err(Refusal::Ended { what: "task", why }),
            }
        }
        let approval = Approval {
            id: ApprovalId::fresh(tenant.number)?,
            tenant: tenant.trust.name().clone(),
            partner: grant.partner.clone(),
            grant: wanted.grant,
            workload: workload.clone(),
            purpose: wanted.purpose,
            task: wanted.task,
            reason: wanted.reason,
            asked_by: event.actor.clone(),
            asked_key: key,
            asked_person: person,
            asked: now,
            waits_until: now.after(WAITS),
            votes: Vec::new(),
            until: None,
            used_by: None,
            closed: None,
            terms: grant.terms(),
            basis,
        };
        describe(&mut event, &approval);
        event.reason.clone_from(&approval.reason);
        event.details.push(format!("needed={needed}"));
        event.details.push(format!("waits_until={}", approval.waits_until));
        let receipt = self.ledger.ask_approval(AskDraft { approval: approval.clone(), event, now }).await?;
        metrics::counter!("mayfly_approvals_requested_total").increment(1);
        Ok((approval, receipt))
    }

    /// A named operator agrees to a request, or denies it.
    ///
    /// # Errors
    /// When the grant does not name the operator, it asked or has agreed itself, or the request is over.
    pub async fn decide_approval(
        &self,
        caller: &Caller,
        request: pb::DecideApprovalRequest,
    ) -> Result<pb::DecideApprovalResponse, Refusal> {
        check_words(&request.reason)?;
        if !request.approve && request.reason.trim().is_empty() {
            return Err(Refusal::invalid("reason", "is missing; say why it is denied"));
        }
        let (approval, receipt) = decided(|| self.try_decide(caller, &request)).await?;
        let approval = Some(self.approval_view(&approval, true, self.now())?);
        Ok(pb::DecideApprovalResponse { approval, revision: Some(revision(&receipt)) })
    }

    async fn try_decide(
        &self,
        caller: &Caller,
        request: &pb::DecideApprovalRequest,
    ) -> Result<(Approval, Receipt), Refusal> {
        let (basis, now) = (self.ledger.basis().1, self.now());
        let operator = self.operator(caller)?;
        let approval = self.seen_approval(&operator, &request.approval_id)?;
        let decided = self.decide_seen(caller, &operator, approval.clone(), request, basis, now).await;
        decided.inspect_err(|why| {
            let refused = event::by(caller, operator.actor(), REFUSED, now);
            self.tell_refused(approval.tenant.as_str(), refused, why, now, |event| {
                describe(event, &approval);
                event.details.push(format!("approve={}", request.approve));
            });
        })
    }

    async fn decide_seen(
        &self,
        caller: &Caller,
        operator: &Operator,
        approval: Approval,
        request: &pb::DecideApprovalRequest,
        basis: u64,
        now: Timestamp,
    ) -> Result<(Approval, Receipt), Refusal> {
        let standing = self.standing_of(&approval, now)?;
        if standing.is_over() {
            return Err(Refusal::Approval(standing));
        }
        let known = self.registry.tenant(&self.ledger, &approval.tenant)?;
        let grant = known.as_ref().and_then(|tenant| tenant.trust.grants().get(&approval.grant));
        let need = grant.and_then(|grant| grant.approvals_for(&approval.purpose));
        let need = need.ok_or(Refusal::Approval(ApprovalStanding::Void))?;
        if !need.by.has(&operator.name) {
            return Err(Refusal::NotAllowed("the grant names others to decide this"));
        }
        let kind = if request.approve { "approval.approved" } else { "approval.denied" };
        let mut event = event::by(caller, operator.actor(), kind, now);
        describe(&mut event, &approval);
        event.reason.clone_from(&request.reason);
        if !request.approve {
            let draft = CloseDraft { id: approval.id, why: Closed::Denied, event, now };
            return Ok(self.ledger.close_approval(draft).await?);
        }
        let (key, person) = (caller.key_text(), operator.identity());
        if approval.involves(&operator.name, &key, person.as_ref()) {
            return Err(Refusal::NotAllowed(INVOLVED));
        }
        let voter = operator.person.as_ref().map(Person::voter);
        let proofs = caller.scopes();
        let vote = ApprovalVote { operator: operator.name.clone(), at: now, key, person, voter, proofs, basis };
        let terms = self.terms(known.as_deref(), &approval, basis).ok_or(Refusal::Approval(ApprovalStanding::Void))?;
        let valid = Duration::from_secs(need.valid_seconds.into());
        let draft = AgreeDraft { id: approval.id, vote, terms, valid, event, now };
        Ok(self.ledger.agree_approval(draft).await?)
    }

    /// A workload takes a request of its own back.
    ///
    /// # Errors
    /// When it is not its own, or over.
    pub async fn withdraw_approval(
        &self,
        caller: &Caller,
        request: pb::WithdrawApprovalRequest,
    ) -> Result<pb::WithdrawApprovalResponse, Refusal> {
        check_words(&request.reason)?;
        let now = self.now();
        let (approval, workload) = self.own_approval(caller, &request.approval_id, now)?;
        let event = event::by(caller, workload.actor(), "approval.withdrawn", now);
        let (approval, receipt) = self.withdraw(&approval, event, request.reason, now).await?;
        let approval = Some(self.approval_view(&approval, false, now)?);
        Ok(pb::WithdrawApprovalResponse { approval, revision: Some(revision(&receipt)) })
    }

    /// An operator takes a request back: one that it asked for, or as an admin.
    ///
    /// # Errors
    /// When it may not, or the request is over.
    pub async fn retract_approval(
        &self,
        caller: &Caller,
        request: pb::RetractApprovalRequest,
    ) -> Result<pb::RetractApprovalResponse, Refusal> {
        check_words(&request.reason)?;
        let now = self.now();
        let operator = self.operator(caller)?;
        let approval = self.seen_approval(&operator, &request.approval_id)?;
        let within = operator.reaches(Some(&approval.tenant), Some(&approval.partner));
        if approval.asked_by != operator.actor() && !(within && operator.require(Role::Admin).is_ok()) {
            return Err(Refusal::NotAllowed("who asked for it takes it back, or an admin"));
        }
        let event = event::by(caller, operator.actor(), "approval.withdrawn", now);
        let (approval, receipt) = self.withdraw(&approval, event, request.reason, now).await?;
        let approval = Some(self.approval_view(&approval, true, now)?);
        Ok(pb::RetractApprovalResponse { approval, revision: Some(revision(&receipt)) })
    }

    async fn withdraw(
        &self,
        approval: &Approval,
        mut event: pb::Event,
        reason: String,
        now: Timestamp,
    ) -> Result<(Approval, Receipt), Refusal> {
        describe(&mut event, approval);
        event.reason = reason;
        let draft = CloseDraft { id: approval.id, why: Closed::Withdrawn, event, now };
        Ok(self.ledger.close_approval(draft).await?)
    }

    /// Adds to a commit of the trust map what no longer fits it, each with its event.
    ///
    /// # Errors
    /// When the store failed.
    pub(super) fn void_approvals(
        &self,
        commit: &mut TrustCommit,
        (caller, operator): (&Caller, &Operator),
        old: &Tenant,
        new: Option<&TenantTrust>,
    ) -> Result<(), Refusal> {
        for approval in self.ledger.approvals_of(old.number)? {
            if self.ledger.approval_standing(&approval, commit.now).is_over() {
                continue;
            }
            let grant = new.and_then(|new| new.grants().get(&approval.grant));
            if grant.is_some_and(|grant| grant.terms() == approval.terms) {
                continue;
            }
            let mut event = event::by(caller, operator.actor(), "approval.voided", commit.now);
            describe(&mut event, &approval);
            "the trust map changed the grant".clone_into(&mut event.reason);
            commit.voided.push((approval.id, event));
        }
        Ok(())
    }

    /// What the trust map says of an approval's grant; `None` when that needs no approval or is gone. Operators who are
    /// gone do not count.
    fn terms(&self, tenant: Option<&Tenant>, approval: &Approval, basis: u64) -> Option<Terms> {
        let grant = tenant?.trust.grants().get(&approval.grant)?;
        let need = grant.approvals_for(&approval.purpose)?;
        let global = self.registry.global();
        let by = need.by.iter().filter(|name| global.operators.contains_key(*name)).cloned().collect();
        Some(Terms { needed: need.needed, by, hash: grant.terms(), basis })
    }

    /// Where an approval stands, by its row and the grant as it is now.
    fn standing_of(&self, approval: &Approval, now: Timestamp) -> Result<ApprovalStanding, Refusal> {
        let standing = self.ledger.approval_standing(approval, now);
        if standing.is_over() {
            return Ok(standing);
        }
        let known = self.registry.tenant(&self.ledger, &approval.tenant)?;
        let grant = known.as_ref().and_then(|tenant| tenant.trust.grants().get(&approval.grant));
        let fits = grant.is_some_and(|grant| grant.terms() == approval.terms);
        Ok(if fits { standing } else { ApprovalStanding::Void })
    }

    /// An approval of the calling workload's own, and within its task where it is confined to one.
    fn own_approval(&self, caller: &Caller, id: &str, now: Timestamp) -> Result<(Approval, Workload), Refusal> {
        let unknown = || Refusal::Unknown("approval");
        let id: ApprovalId = id.parse().map_err(|_| unknown())?;
        let approval = self.ledger.approval(id)?.ok_or_else(unknown)?;
        let workload = self.holder(caller, &approval.tenant, &approval.workload, now, "approval")?;
        match workload.confined_to() {
            Some(own) if approval.used_by.or(approval.task) != Some(own) => Err(unknown()),
            Some(_) | None => Ok((approval, workload)),
        }
    }

    /// An approval that an operator may know of: within its scope, asked for by it, or waiting for its word.
    fn seen_approval(&self, operator: &Operator, id: &str) -> Result<Approval, Refusal> {
        let unknown = || Refusal::Unknown("approval");
        let id: ApprovalId = id.parse().map_err(|_| unknown())?;
        let approval = self.ledger.approval(id)?.ok_or_else(unknown)?;
        if self.sees_approval(operator, &approval)? { Ok(approval) } else { Err(unknown()) }
    }
}

impl Wanted {
    fn clone_names(&self) -> Self {
        Self { grant: self.grant.clone(), purpose: self.purpose.clone(), task: self.task, reason: self.reason.clone() }
    }
}

/// The grant, when it is for this workload and purpose and needs approvals.
fn askable<'t>(
    trust: &'t TenantTrust,
    workload: &WorkloadName,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<&'t Grant, Refusal> {
    let name = &wanted.grant;
    let grant = trust.grants().get(name).ok_or_else(|| Denied::UnknownGrant(name.clone()))?;
    if !grant.workloads.has(workload) {
        return Err(Denied::WorkloadNotGranted { grant: name.clone(), workload: workload.clone() }.into());
    }
    if !grant.purposes.has(&wanted.purpose) {
        return Err(Denied::PurposeNotGranted(wanted.purpose.clone()).into());
    }
    if grant.expires <= now {
        return Err(Denied::GrantExpired { grant: name.clone(), at: grant.expires }.into());
    }
    if grant.approvals_for(&wanted.purpose).is_none() {
        return Err(Refusal::invalid("purpose", "needs no approval under this grant; issue without one"));
    }
    Ok(grant)
}

fn is_of(task: &Task, tenant: &TenantName, workload: &WorkloadName) -> bool {
    task.tenant == *tenant && task.workload == *workload
}

/// Fills in what was asked for.
fn of_request(event: &mut pb::Event, tenant: &TenantName, workload: &WorkloadName, wanted: &Wanted) {
    event.tenant = tenant.to_string();
    event.workload = workload.to_string();
    event.grant = wanted.grant.to_string();
    event.purpose = wanted.purpose.to_string();
    event.task_id = event::task_text(wanted.task);
}

/// Fills in what an approval says.
fn describe(event: &mut pb::Event, approval: &Approval) {
    event.tenant = approval.tenant.to_string();
    event.partner = approval.partner.to_string();
    event.workload = approval.workload.to_string();
    event.grant = approval.grant.to_string();
    event.purpose = approval.purpose.to_string();
    event.task_id = event::task_text(approval.used_by.or(approval.task));
    event.details.push(format!("approval={}", approval.id));
}

fn check_words(reason: &str) -> Result<(), Refusal> {
    if reason.len() > Approval::REASON_MAX_BYTES {
        let problem = format!("has {} bytes of at most {}", reason.len(), Approval::REASON_MAX_BYTES);
        return Err(Refusal::invalid("reason", problem));
    }
    if reason.chars().any(char::is_control) {
        return Err(Refusal::invalid("reason", "has a control character; write it on one line"));
    }
    Ok(())
}

/// The event of a request or a decision that was refused.
const REFUSED: &str = "approval.refused";
/// How long a request waits for people.
pub(super) const WAITS: Duration = Duration::from_secs(3_600);
