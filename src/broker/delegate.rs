//! Tasks that were passed on to another workload, or opened with less than their parent has: what is done in them is within
//! what everybody above may, and says through whom it came.

use super::{
    Broker,
    approve::approved,
    refusal::Refusal,
    task::check_same,
    view,
    who::Workload,
    wish::{Wish, intent_of},
};
use crate::{
    identity::Caller,
    ledger::ApprovalUse,
    model::{
        CredentialKind, Delegator, GrantName, Intent, Lease, PartnerName, Purpose, ScopeId, Task, TaskId, TaskLimits,
        Timestamp, WorkloadName, stamp::Stamp,
    },
    pb,
    policy::{self, Asked, BindingWish, Bound, Decision, Denied, Facts, Origin, Pattern, Scene},
};

#[cfg(test)]
mod tests;

/// The tasks above one, as far as they matter to what may be done in it.
pub(super) struct Above {
    /// From its parent on: each task that another workload than that of the task below it opened.
    passed_on: Vec<Task>,
    /// The task itself and all above it.
    ids: Vec<TaskId>,
    /// What ends one of these, or bars what begins in it; each once.
    scopes: Vec<ScopeId>,
}

impl Above {
    /// Through whom it was passed on, from the first on.
    pub(super) fn delegators(&self) -> Vec<Delegator> {
        let one = |task: &Task| Delegator { workload: task.workload.clone(), task: task.id };
        self.passed_on.iter().rev().map(one).collect()
    }

    /// What must not be barred beside what is the caller's own: where it was passed on, what all of the chain are in and
    /// what they proved themselves with.
    pub(super) fn through(&self) -> Vec<ScopeId> {
        if self.is_empty() { Vec::new() } else { self.scopes.clone() }
    }

    /// Whether nobody passed it on.
    pub(super) fn is_empty(&self) -> bool {
        self.passed_on.is_empty()
    }
}

impl Broker {
    /// Who passed a task on.
    ///
    /// # Errors
    /// When a task above is gone: it has ended then, and this one with it.
    pub(super) fn above(&self, task: &Task) -> Result<Above, Refusal> {
        let (mut passed_on, mut ids, mut scopes) = (Vec::new(), vec![task.id], task.scopes());
        let (mut workload, mut above) = (task.workload.clone(), task.parent);
        for _ in 0..Task::MAX_ANCESTORS {
            let Some(id) = above else { break };
            let parent = self.ledger.task(id)?.ok_or(Refusal::Unknown("task"))?;
            ids.push(id);
            scopes.extend(parent.scopes());
            (workload, above) = {
                let (before, next) = (workload, parent.parent);
                let own = parent.workload.clone();
                if own != before {
                    passed_on.push(parent);
                }
                (own, next)
            };
        }
        scopes.sort_unstable();
        scopes.dedup();
        Ok(Above { passed_on, ids, scopes })
    }

    /// What a credential says of its basis and scopes, for who checks offline: what ends its task or one above ends it too.
    ///
    /// # Errors
    /// When there are more than fit.
    pub(super) fn stamp(lease: &Lease, mut scopes: Vec<ScopeId>, above: Option<&Above>) -> Result<Stamp, Refusal> {
        let ends = [ScopeId::task(lease.id.task()), ScopeId::lease(lease.id)];
        let above = above.into_iter().flat_map(|above| {
            let ids = above.ids.iter().map(|&id| ScopeId::task(id));
            above.scopes.iter().copied().chain(ids)
        });
        for scope in ends.into_iter().chain(above) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        Stamp::new(lease.basis, scopes).ok_or(Refusal::Unproven("the chain of proofs is too long"))
    }

    /// Refuses what one of those through whom the task was passed on could not obtain in its own task, under the same grant:
    /// passing on never widens. Policies are asked of each. The approvals that theirs rests on, each with its task: the
    /// commit looks at them again.
    ///
    /// # Errors
    /// What refuses them.
    pub(super) fn check_delegators(
        &self,
        caller: &Caller,
        workload: &Workload,
        wish: &Wish,
        above: &Above,
        decision: &Decision,
    ) -> Result<Vec<(TaskId, ApprovalUse)>, Refusal> {
        let mut rests_on = Vec::new();
        if above.is_empty() {
            return Ok(rests_on);
        }
        let tenant = &workload.tenant;
        let attested = |grant: &GrantName| tenant.attested.get(grant).copied();
        let owner = |grant: &GrantName| tenant.new_owner(grant).map(str::to_owned);
        let global = self.registry.global();
        let is_token = matches!(wish.kind, CredentialKind::Jwt | CredentialKind::Opaque);
        // Whether it is bound was decided of who holds it; the others' policies hear the same.
        let binding = if is_token && !decision.bind() { BindingWish::None } else { BindingWish::Default };
        for task in &above.passed_on {
            // An approval is of the one task that it was given to.
            let leaves = self.leaves(Some(task), tenant, decision.issued())?;
            let approved = approved(&leaves);
            let asked = Asked {
                workload: &task.workload,
                partner: &wish.partner,
                purpose: &wish.purpose,
                grant: Some(decision.grant()),
                kind: wish.kind,
                audiences: &wish.audiences,
                actions: &wish.actions,
                dns_names: &wish.dns_names,
                ttl_seconds: wish.ttl_seconds,
                binding,
            };
            let facts = Facts {
                basis: decision.basis(),
                task_deadline: Some(task.deadline),
                proof_expires: None,
                issuer_expires: None,
                has_certificate: true,
                attest_by: &attested,
                proofs: Vec::new(),
                origin: Origin::of(caller),
                approved: &approved,
                scene: Scene {
                    global: Some(&global),
                    intent: task.intent.as_deref(),
                    renewals: wish.renews.as_ref().map(|old| old.renewals.saturating_add(1)),
                    opens: false,
                    owner: Some(&owner),
                },
            };
            let within = policy::decide(&tenant.trust, &asked, &facts, decision.issued())?;
            if within.expires() < decision.expires() {
                return Err(Denied::BeyondTask { what: "life", value: decision.expires().to_string() }.into());
            }
            let own = leaves.into_iter().map(|leave| leave.wanted).find(|wanted| wanted.grant == *within.grant());
            rests_on.extend(own.filter(|_| within.needs_approval()).map(|wanted| (task.id, wanted)));
        }
        Ok(rests_on)
    }

    /// The SPIFFE ID of a workload in a task.
    pub(super) fn spiffe_id(&self, lease: &Lease, workload: &WorkloadName, task: TaskId) -> String {
        format!("{}/task/{task}", self.svid_id(&lease.tenant, &lease.partner, workload))
    }

    /// Whom a credential is for, and who acts for it, the newest first (RFC 8693 section 4.1). A certificate and
    /// an SVID name who holds them: they are that one's identity.
    pub(super) fn principal(&self, lease: &Lease) -> (String, Vec<String>) {
        let own = self.subject(lease);
        let is_identity = lease.kind == CredentialKind::X509 || lease.svid;
        let Some((first, between)) = lease.delegated.split_first().filter(|_| !is_identity) else {
            return (own, Vec::new());
        };
        let id = |workload: &WorkloadName, task: TaskId| self.spiffe_id(lease, workload, task);
        let actors = between.iter().rev().map(|one| id(&one.workload, one.task));
        (id(&first.workload, first.task), std::iter::once(own).chain(actors).collect())
    }
}

/// What a child task was asked to be beside its deadline.
pub(super) struct Passed {
    /// The workload that shall act in it, where that is another.
    pub(super) delegate: Option<WorkloadName>,
    /// What is allowed in it at most.
    pub(super) limits: Option<Box<TaskLimits>>,
}

/// Reads to whom a task is passed on and within what.
///
/// # Errors
/// When there is no task to pass on, an approval is named, or more is asked for than the parent has.
pub(super) fn passed(
    request: &pb::OpenTaskRequest,
    workload: &Workload,
    parent: Option<&Task>,
) -> Result<Passed, Refusal> {
    let delegate: Option<WorkloadName> = view::optional_id("for_workload", &request.for_workload)?;
    let delegate = delegate.filter(|name| *name != workload.name);
    let asked = request.limits.as_ref().map(limits).transpose()?.filter(|limits| !limits.is_empty());
    if delegate.is_some() && parent.is_none() {
        return Err(Refusal::invalid(
            "parent_task_id",
            "is missing; only an open task is passed on to another workload",
        ));
    }
    if delegate.is_some() && !request.approval_id.is_empty() {
        return Err(Refusal::invalid(
            "approval_id",
            "is for the workload that it was given to; the other one asks itself",
        ));
    }
    let above = parent.and_then(|parent| parent.limits.as_deref());
    let limits = match (above, asked) {
        (None, asked) => asked,
        (Some(above), None) => Some(above.clone()),
        (Some(above), Some(asked)) => Some(narrowed(above, asked)?),
    };
    Ok(Passed { delegate, limits: limits.map(Box::new) })
}

/// What a child is about, where it may not be about anything else than its parent: where its opener is confined to that one,
/// and where the parent was passed on, is passed on, or has limits.
pub(super) fn confined(
    is_confined: bool,
    parent: &Task,
    above: &Above,
    passed: &Passed,
    (partner, purpose): (&PartnerName, &Purpose),
    told: Option<Box<Intent>>,
) -> Result<Option<Box<Intent>>, Refusal> {
    let narrows = passed.delegate.is_some() || passed.limits.is_some() || !above.is_empty();
    if !is_confined && !narrows {
        // A child that tells nothing is about what its parent is.
        return Ok(told.or_else(|| parent.intent.clone()));
    }
    check_same(parent, partner, purpose)?;
    intent_of(parent, told)
}

/// Refuses what is beyond the limits of a task.
///
/// # Errors
/// [`Denied::BeyondTask`], with what is.
pub(super) fn check_limits(task: &Task, decision: &Decision, asked_ttl: u32) -> Result<(), Denied> {
    let Some(limits) = task.limits.as_deref() else { return Ok(()) };
    let beyond = |what, value: &str| Denied::BeyondTask { what, value: value.to_owned() };
    if let Some(audience) = decision.audiences().iter().find(|asked| !allows(&limits.audiences, asked)) {
        return Err(beyond("audience", audience));
    }
    if let Some(action) = decision.actions().iter().find(|asked| !allows(&limits.actions, asked)) {
        return Err(beyond("action", action));
    }
    if !limits.kinds.is_empty() && !limits.kinds.contains(&decision.kind()) {
        return Err(beyond("kind", decision.kind().word()));
    }
    // A static secret can do whatever it can: what is limited to actions has it only where it is named.
    let is_secret = decision.kind() == CredentialKind::Secret;
    if is_secret && !limits.actions.is_empty() && limits.kinds.is_empty() {
        return Err(beyond("kind", decision.kind().word()));
    }
    if limits.ttl_max > 0 && asked_ttl > limits.ttl_max {
        return Err(beyond("life", &format!("{asked_ttl}s")));
    }
    Ok(())
}

/// The end of a task that is passed on: nobody passes on for longer than he has proven himself.
///
/// # Errors
/// When a longer one was asked for, or the proof has ended.
pub(super) fn end_passed(
    deadline: Timestamp,
    proof_end: Option<Timestamp>,
    asked_seconds: u32,
    now: Timestamp,
) -> Result<Timestamp, Denied> {
    match proof_end.map(Timestamp::floor_second) {
        Some(end) if end.seconds() <= now.seconds() => Err(Denied::LifetimeTooShort(Bound::CallerProof)),
        Some(end) if end < deadline && asked_seconds > 0 => Err(Denied::ProofEndsSooner(end)),
        Some(end) => Ok(deadline.min(end)),
        None => Ok(deadline),
    }
}

/// The end of a credential in a task, by its deadline and by how long one may live in it.
pub(super) fn end_within(task: &Task, now: Timestamp) -> Timestamp {
    let most = task.limits.as_deref().map_or(0, |limits| limits.ttl_max);
    if most == 0 {
        return task.deadline;
    }
    task.deadline.min(now.after(std::time::Duration::from_secs(most.into())))
}

/// Nothing listed allows all. A text that is no pattern allows nothing.
fn allows(listed: &[String], asked: &str) -> bool {
    listed.is_empty() || listed.iter().any(|text| text.parse::<Pattern>().is_ok_and(|pattern| pattern.fits(asked)))
}

fn covers(listed: &[String], asked: &str) -> bool {
    let Ok(asked) = asked.parse::<Pattern>() else { return false };
    listed.is_empty() || listed.iter().any(|text| text.parse::<Pattern>().is_ok_and(|pattern| pattern.covers(&asked)))
}

fn limits(asked: &pb::TaskLimits) -> Result<TaskLimits, Refusal> {
    let texts = |field: &'static str, texts: &[String]| {
        if texts.len() > TaskLimits::MAX_LIST {
            let problem = format!("has {} entries of at most {}", texts.len(), TaskLimits::MAX_LIST);
            return Err(Refusal::invalid(field, problem));
        }
        let bad = texts.iter().find_map(|text| text.parse::<Pattern>().err());
        match bad {
            Some(why) => Err(Refusal::invalid(field, format!("has an entry that {why}"))),
            None => Ok(texts.to_vec()),
        }
    };
    let kind = |code: &i32| u32::try_from(*code).ok().and_then(CredentialKind::from_code);
    let kinds: Option<Vec<CredentialKind>> = asked.kinds.iter().map(kind).collect();
    Ok(TaskLimits {
        audiences: texts("limits.audiences", &asked.audiences)?,
        actions: texts("limits.actions", &asked.actions)?,
        kinds: kinds
            .ok_or_else(|| Refusal::invalid("limits.kinds", "has one that is none of JWT, OPAQUE, X509, SECRET"))?,
        ttl_max: asked.ttl_max_seconds,
    })
}

/// What is asked for, where it is within what there is; what is not asked for stays as it is.
fn narrowed(above: &TaskLimits, asked: TaskLimits) -> Result<TaskLimits, Refusal> {
    let texts = |field: &'static str, above: &[String], asked: Vec<String>| {
        if asked.is_empty() {
            return Ok(above.to_vec());
        }
        match asked.iter().find(|text| !covers(above, text)) {
            Some(text) => Err(Refusal::invalid(field, format!("has `{text}`, which the parent task does not allow"))),
            None => Ok(asked),
        }
    };
    let kinds = match asked.kinds.iter().find(|kind| !above.kinds.is_empty() && !above.kinds.contains(kind)) {
        Some(kind) => {
            let problem = format!("has `{}`, which the parent task does not allow", kind.word());
            return Err(Refusal::invalid("limits.kinds", problem));
        }
        None if asked.kinds.is_empty() => above.kinds.clone(),
        None => asked.kinds,
    };
    if above.ttl_max > 0 && asked.ttl_max > above.ttl_max {
        let problem = format!("is more than the {} s of the parent task", above.ttl_max);
        return Err(Refusal::invalid("limits.ttl_max_seconds", problem));
    }
    Ok(TaskLimits {
        audiences: texts("limits.audiences", &above.audiences, asked.audiences)?,
        actions: texts("limits.actions", &above.actions, asked.actions)?,
        kinds,
        ttl_max: if asked.ttl_max == 0 { above.ttl_max } else { asked.ttl_max },
    })
}
