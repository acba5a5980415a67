//! Issue: who, may it, sign it, make it durable, hand it out. In this order.

use std::sync::Arc;

use super::{
    Broker,
    approve::{Leave, approved},
    decided::decided,
    delegate::{Above, check_limits, end_within},
    event,
    federate::job_url,
    fresh::Fresh,
    refusal::Refusal,
    registry::Tenant,
    rings::Ring,
    view,
    who::Workload,
    wish::{Wish, check_fields, earliest, lease_of, new_task, wish, within},
};
use crate::{
    identity::Caller,
    ledger::{ApprovalUse, HandOut, IssueDraft, Quota},
    model::{
        CredentialKind, GrantName, Lease, LeaseId, ScopeId, Standing, Task, TaskId, TenantName, Timestamp, WorkloadName,
    },
    pb,
    policy::{self, Asked, Decision, Denied, Facts, Origin, Scene, TaskDecision},
};

impl Broker {
    /// Issues one credential under a task, opening the task first when asked to.
    ///
    /// # Errors
    /// When anything refuses; nothing was issued then.
    pub async fn issue(&self, caller: &Caller, request: pb::IssueRequest) -> Result<pb::IssueResponse, Refusal> {
        self.issue_as(caller, request, false).await
    }

    /// As [`Self::issue`], in the form of an SVID where `svid` says so.
    pub(super) async fn issue_as(
        &self,
        caller: &Caller,
        request: pb::IssueRequest,
        svid: bool,
    ) -> Result<pb::IssueResponse, Refusal> {
        check_fields(&request)?;
        decided(|| async {
            let now = self.now();
            let basis = self.ledger.basis();
            let (tenant, task) = self.place(&request)?;
            match self.workload(caller, &tenant, now) {
                Ok(workload) => {
                    let task = match (task, workload.confined_to()) {
                        // Partner and purpose are those of the task, also when it is not named.
                        (None, Some(own)) => Some(self.ledger.task(own)?.ok_or(Refusal::Unknown("task"))?),
                        (task, _) => task,
                    };
                    let wish = Wish { svid, ..wish(&request, task, &workload, caller, &self.csrs)? };
                    let done = match self.policies_ready(&workload.tenant).await {
                        Ok(()) => self.decide_and_issue(caller, &workload, &wish, basis, now).await,
                        Err(why) => Err(why),
                    };
                    done.inspect_err(|why| self.refused(caller, Some(&workload), &tenant, "lease.refused", why, now))
                }
                Err(why) => {
                    self.refused(caller, None, &tenant, "lease.refused", &why, now);
                    // A foreign task and one that is not look the same.
                    Err(if task.is_some() && matches!(why, Refusal::Denied(_)) {
                        Refusal::Unknown("task")
                    } else {
                        why
                    })
                }
            }
        })
        .await
    }

    /// The workload that a caller is, when it is the one that a lease or task belongs to; else there is no such thing.
    pub(super) fn holder(
        &self,
        caller: &Caller,
        tenant: &TenantName,
        name: &WorkloadName,
        now: Timestamp,
        what: &'static str,
    ) -> Result<Workload, Refusal> {
        match self.workload(caller, tenant, now) {
            Ok(workload) if workload.name == *name => Ok(workload),
            Ok(_) | Err(Refusal::Denied(_)) => Err(Refusal::Unknown(what)),
            Err(other) => Err(other),
        }
    }

    /// Tenant and task of a request.
    fn place(&self, request: &pb::IssueRequest) -> Result<(TenantName, Option<Task>), Refusal> {
        if request.task_id.is_empty() {
            return Ok((view::id("tenant", &request.tenant)?, None));
        }
        let id: TaskId = request.task_id.parse().map_err(|_| Refusal::Unknown("task"))?;
        let task = self.ledger.task(id)?.ok_or(Refusal::Unknown("task"))?;
        let fits = |asked: &str, is: &str| asked.is_empty() || asked == is;
        if !fits(&request.tenant, task.tenant.as_str()) {
            return Err(Refusal::Unknown("task"));
        }
        Ok((task.tenant.clone(), Some(task)))
    }

    /// Decides, mints and commits; nothing is handed out before the commit.
    pub(super) async fn decide_and_issue(
        &self,
        caller: &Caller,
        workload: &Workload,
        wish: &Wish,
        basis: (u64, u64),
        now: Timestamp,
    ) -> Result<pb::IssueResponse, Refusal> {
        let (draft, fresh) = self.prepare(caller, workload, wish, basis, now)?;
        let receipt = match self.ledger.issue(Arc::clone(&draft)).await {
            Ok(receipt) => receipt,
            Err(refused) => return Err(self.ledger_refused(caller, workload, refused, now).await),
        };
        let lease = &draft.lease;
        workload.tenant.note_use(&lease.grant, now);
        metrics::counter!("mayfly_issued_total", "kind" => lease.kind.word()).increment(1);
        debug_assert_eq!(receipt.incarnation(), lease.basis.0);
        Ok(fresh.response(lease))
    }

    /// Everything up to the commit: all of it pure but for reads of the ledger.
    fn prepare(
        &self,
        caller: &Caller,
        workload: &Workload,
        wish: &Wish,
        basis: (u64, u64),
        now: Timestamp,
    ) -> Result<(Arc<IssueDraft>, Fresh), Refusal> {
        if let Some(hold) = self.ledger.holds().first() {
            return Err(Refusal::Held(hold.explanation()));
        }
        let task = self.task_for(caller, workload, wish, now)?;
        let ring = self.rings.ring(&self.ledger, workload.tenant.number)?;
        let leaves = self.leaves_with(wish.approval, task.as_ref(), workload, now)?;
        let deciding = tracing::trace_span!(target: "mayfly::spans", "decide");
        let decision =
            deciding.in_scope(|| self.decide(caller, workload, wish, task.as_ref(), &leaves, &ring, basis, now))?;
        let above = task.as_ref().map(|task| self.above(task)).transpose()?;
        let mut leaves_above = Vec::new();
        if let (Some(task), Some(above)) = (&task, &above) {
            check_limits(task, &decision, wish.ttl_seconds)?;
            leaves_above = self.check_delegators(caller, workload, wish, above, &decision)?;
        }
        let (task_id, new_task) = match &task {
            Some(task) => (task.id, None),
            None => {
                let task = self.opened_here(caller, workload, wish, &leaves, &decision, now)?;
                (task.id, Some(task))
            }
        };
        let mut lease = lease_of(LeaseId::fresh(task_id)?, &decision, workload, wish, caller, &ring);
        lease.secret = self.secret_in_force(&workload.tenant, &decision)?.map(Box::new);
        lease.delegated = above.as_ref().map(Above::delegators).unwrap_or_default();
        // Admission comes before signing: what is sure to be refused costs no signature.
        let scopes = lease.scopes();
        self.admit(&scopes)?;
        let through = above.as_ref().map(Above::through).unwrap_or_default();
        self.admit(&through)?;
        let stamp = Self::stamp(&lease, scopes, above.as_ref())?;
        let minting = tracing::trace_span!(target: "mayfly::spans", "mint", kind = lease.kind.word());
        let credential = minting.in_scope(|| self.mint(workload, wish, &decision, &mut lease, &stamp, &ring))?;
        let mut fresh = Fresh { credential, bound: decision.bound_by() };
        let waits = match &wish.pickup {
            Some(wished) => Some(self.set_aside(&mut fresh, &mut lease, wished, &ring, now)?),
            None => None,
        };
        let holder_until = now.after(self.settings.audit_kept);
        let hand_out = (lease.secret.is_some() || waits.is_some()).then_some(HandOut { holder_until, waits });
        let approval = leaves.into_iter().map(|leave| leave.wanted).find(|wanted| wanted.grant == *decision.grant());
        let approval = approval.filter(|_| decision.needs_approval());
        let draft = self.draft(caller, workload, wish, &decision, lease, new_task, approval, now);
        Ok((Arc::new(IssueDraft { hand_out, through, above: leaves_above, ..draft }), fresh))
    }

    /// The task to issue under: the one named, or the one that the caller's certificate confines it to.
    fn task_for(
        &self,
        caller: &Caller,
        workload: &Workload,
        wish: &Wish,
        now: Timestamp,
    ) -> Result<Option<Task>, Refusal> {
        let task = match (&wish.task, workload.confined_to()) {
            (Some(task), _) => {
                within(workload, task.id, "task")?;
                Some(task.clone())
            }
            (None, Some(own)) => Some(self.ledger.task(own)?.ok_or(Refusal::Unknown("task"))?),
            (None, None) => None,
        };
        let Some(task) = task else { return Ok(None) };
        if task.workload != workload.name {
            return Err(Refusal::Unknown("task"));
        }
        Self::check_client_key(caller, &task, "task")?;
        match self.ledger.task_standing(&task, now)? {
            Standing::Live => Ok(Some(task)),
            Standing::Suspended => Err(Refusal::Suspended("task")),
            Standing::Ended(why) => Err(Refusal::Ended { what: "task", why }),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that a decision rests on, in the order it was found")]
    fn decide(
        &self,
        caller: &Caller,
        workload: &Workload,
        wish: &Wish,
        task: Option<&Task>,
        leaves: &[Leave],
        ring: &Ring,
        basis: (u64, u64),
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let asked = Asked {
            workload: &workload.name,
            partner: &wish.partner,
            purpose: &wish.purpose,
            grant: wish.grant.as_ref(),
            kind: wish.kind,
            audiences: &wish.audiences,
            actions: &wish.actions,
            dns_names: &wish.dns_names,
            ttl_seconds: wish.ttl_seconds,
            binding: wish.binding,
        };
        let attested = |grant: &GrantName| workload.tenant.attested.get(grant).copied();
        let owner = |grant: &GrantName| workload.tenant.new_owner(grant).map(str::to_owned);
        let global = self.registry.global();
        let issuer = ring.ca.as_ref().filter(|_| wish.kind == CredentialKind::X509);
        let own = if wish.task_deadline_seconds == 0 {
            None
        } else {
            Some(now.after(std::time::Duration::from_secs(wish.task_deadline_seconds.into())))
        };
        let approved = approved(leaves);
        let facts = Facts {
            basis,
            task_deadline: task.map(|task| end_within(task, now)).or(own),
            proof_expires: earliest(Self::proof_end(caller, task), workload.lease.as_ref().map(|lease| lease.expires)),
            issuer_expires: issuer.map(|ca| ca.not_after()),
            has_certificate: caller.shown_certificate().is_some(),
            attest_by: &attested,
            proofs: workload.proofs.clone(),
            origin: Origin::of(caller),
            scene: Scene {
                global: Some(&global),
                intent: wish.intent.as_deref(),
                renewals: wish.renews.as_ref().map(|old| old.renewals.saturating_add(1)),
                // With a deadline of its own it is decided about by itself.
                opens: task.is_none() && wish.task_deadline_seconds == 0,
                owner: Some(&owner),
            },
            approved: &approved,
        };
        let decided = policy::decide(&workload.tenant.trust, &asked, &facts, now);
        let shadow = decided.as_ref().map_or_else(Denied::shadow, Decision::shadow);
        self.note_differences(caller, workload, &wish.partner, &wish.purpose, shadow, now);
        let decision = decided?;
        check_awake(&workload.tenant, decision.grant(), now)?;
        Ok(decision)
    }

    /// The task that is opened for this credential.
    fn opened_here(
        &self,
        caller: &Caller,
        workload: &Workload,
        wish: &Wish,
        leaves: &[Leave],
        decision: &Decision,
        now: Timestamp,
    ) -> Result<Task, Refusal> {
        let opening = if wish.task_deadline_seconds == 0 {
            TaskDecision::with_lease(decision)
        } else {
            self.decide_task(
                caller,
                workload,
                &workload.name,
                &wish.partner,
                &wish.purpose,
                wish.task_deadline_seconds,
                None,
                wish.intent.as_deref(),
                leaves,
                decision.basis(),
                now,
            )?
        };
        new_task(workload, &opening, None, false, wish.intent.clone(), job_url(caller, "")?)
    }

    fn admit(&self, scopes: &[ScopeId]) -> Result<(), Refusal> {
        if let Some(&scope) = scopes.iter().find(|&&scope| self.ledger.scope(scope).is_barred()) {
            return Err(Refusal::Barred(scope));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all that a lease's commit holds")]
    fn draft(
        &self,
        caller: &Caller,
        workload: &Workload,
        wish: &Wish,
        decision: &Decision,
        lease: Lease,
        new_task: Option<Task>,
        approval: Option<ApprovalUse>,
        now: Timestamp,
    ) -> IssueDraft {
        let kind = if wish.renews.is_some() { "lease.renewed" } else { "lease.issued" };
        let mut event = event::by(caller, workload.actor(), kind, now);
        event.decision = event::ALLOWED.into();
        event::of_lease(&mut event, &lease);
        event.trust_hash = decision.trust_hash().to_string();
        event.details.push(format!("bound={:?}", decision.bound_by()));
        if lease.kind != CredentialKind::Secret {
            let grant = workload.tenant.trust.grants().get(decision.grant());
            event.details.extend(grant.and_then(|grant| event::actions_of(&lease.actions, grant)));
        }
        if let Some(until) = lease.pickup_until {
            event.details.push(format!("pickup_until={until}"));
            let by = wish.pickup.as_ref().and_then(|wished| wished.by.as_ref());
            event.details.extend(by.map(|by| format!("pickup_by={by}")));
        }
        event.details.extend(lease.svid.then(|| "svid".to_owned()));
        let resellers = workload.tenant.trust.resellers(decision.partner());
        event.details.extend(resellers.iter().map(|name| format!("reseller={name}")));
        if let Some(old) = &wish.renews {
            event.details.push(format!("renews={}", old.id));
        }
        event.details.extend(new_task.iter().flat_map(|task| &task.intent).flat_map(|intent| intent.details()));
        event.details.extend(approval.as_ref().map(|wanted| format!("approval={}", wanted.id)));
        let global = self.registry.global();
        let everywhere = global.partners.get(decision.partner()).map_or(0, |partner| partner.max_live_leases);
        let most = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        IssueDraft {
            lease,
            new_task,
            retry: wish.retry,
            spend: wish.spend,
            approval,
            above: Vec::new(),
            velocity: decision.velocity(),
            hand_out: None,
            through: Vec::new(),
            supersedes: wish.renews.as_ref().map(|lease| lease.id),
            quota: Quota {
                task: decision.max_leases_per_task(),
                grant: most(decision.max_live_leases()),
                partner: most(everywhere),
                partner_everywhere: most(everywhere),
                tenant: most(workload.tenant.trust.max_live_leases()),
            },
            event,
            now,
        }
    }
}

/// Refuses a grant that was not used for too long, also when no sweep has found it yet.
pub(super) fn check_awake(tenant: &Tenant, grant: &GrantName, now: Timestamp) -> Result<(), Refusal> {
    match tenant.dormant_at(grant) {
        Some(at) if at <= now => Err(Denied::GrantDormant { grant: grant.clone(), at }.into()),
        Some(_) | None => Ok(()),
    }
}
