//! Why a request would be allowed or refused now. Nothing is issued and nothing is written.

use std::time::Duration;

use super::{
    Broker, approve,
    refusal::Refusal,
    registry::Tenant,
    view,
    who::Operator,
    wish::{audiences, intent, intent_of},
};
use crate::{
    identity::Caller,
    model::{
        CredentialKind, GrantName, PartnerName, Purpose, Scope, Standing, Task, TaskId, TenantName, Timestamp,
        WorkloadName,
    },
    pb, policy,
    policy::{Asked, BindingWish, Decision, Facts, Origin, Role, Scene, Selector},
};

impl Broker {
    /// Why a request would be allowed or refused now, without issuing.
    ///
    /// The caller's certificate is not known here: whoever could come with one is taken to, and its expiry does not count.
    ///
    /// # Errors
    /// When the caller is no operator, a name is malformed, or the tenant or task is unknown to the operator.
    pub async fn explain(&self, caller: &Caller, request: pb::ExplainRequest) -> Result<pb::ExplainResponse, Refusal> {
        let basis = self.ledger.basis();
        let now = self.now();
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let wish = request.request.clone().unwrap_or_default();
        let task = self.task_of(&operator, &wish)?;
        let tenant_name: TenantName =
            name("tenant", [&request.tenant, &wish.tenant], task.as_ref().map(|t| &t.tenant))?;
        let partner: PartnerName =
            name("partner", [&request.partner, &wish.partner], task.as_ref().map(|t| &t.partner))?;
        let purpose: Purpose = name("request.purpose", [&wish.purpose, ""], task.as_ref().map(|t| &t.purpose))?;
        let workload: WorkloadName = view::id("workload", &request.workload)?;
        let grant: Option<GrantName> = view::optional_id("request.grant", &wish.grant)?;
        if !operator.reaches(Some(&tenant_name), Some(&partner)) {
            return Err(Refusal::Unknown("tenant"));
        }
        let tenant = self.registry.tenant(&self.ledger, &tenant_name)?.ok_or(Refusal::Unknown("tenant"))?;
        if let Err(why) = self.policies_ready(&tenant).await
            && !matches!(why, Refusal::Busy { .. })
        {
            return Err(why);
        }
        let dns_names: Vec<String> = wish.dns_names.iter().map(|dns_name| dns_name.to_ascii_lowercase()).collect();
        let kind = kind_of(wish.kind)?;
        let audiences = audiences(kind, &wish)?;
        let asked = Asked {
            workload: &workload,
            partner: &partner,
            purpose: &purpose,
            grant: grant.as_ref(),
            kind,
            audiences: &audiences,
            actions: &wish.actions,
            dns_names: &dns_names,
            ttl_seconds: wish.ttl_seconds,
            binding: binding_of(wish.binding)?,
        };
        let attested = |grant: &GrantName| tenant.attested.get(grant).copied();
        let leaves = self.leaves(task.as_ref(), &tenant, now)?;
        let approved = approve::approved(&leaves);
        let owner = |grant: &GrantName| tenant.new_owner(grant).map(str::to_owned);
        let global = self.registry.global();
        let told = intent(&wish.task_type, &wish.parameters)?;
        let intent = task.as_ref().map_or(Ok(told.clone()), |task| intent_of(task, told))?;
        let facts = Facts {
            basis,
            task_deadline: deadline(task.as_ref(), wish.task_deadline_seconds, now),
            proof_expires: None,
            issuer_expires: self.issuer_end(&tenant, asked.kind)?,
            has_certificate: may_have_certificate(&tenant, &workload),
            attest_by: &attested,
            proofs: Vec::new(),
            origin: origin_of(&tenant, &workload),
            approved: &approved,
            scene: Scene {
                global: Some(&global),
                intent: intent.as_deref(),
                renewals: None,
                opens: task.is_none(),
                owner: Some(&owner),
            },
        };
        let steps = policy::explain(&tenant.trust, &asked, &facts, now);
        let mut answer = pb::ExplainResponse { steps, ..Default::default() };
        match policy::decide(&tenant.trust, &asked, &facts, now) {
            Err(denied) => denied.reason().clone_into(&mut answer.reason),
            Ok(decision) => self.allowed(&mut answer, &tenant, &decision, task.as_ref(), now)?,
        }
        Ok(answer)
    }

    /// Fills in what policy allows, and what stands in its way beside policy.
    fn allowed(
        &self,
        answer: &mut pb::ExplainResponse,
        tenant: &Tenant,
        decision: &Decision,
        task: Option<&Task>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        answer.grant = decision.grant().to_string();
        let seconds = decision.expires().seconds().saturating_sub(now.seconds());
        answer.ttl_seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        answer.bound = decision.bound_by().code();
        let reason = self.obstacle(answer, tenant, decision, task, now)?;
        (answer.allowed, answer.reason) = (reason.is_empty(), reason.to_owned());
        Ok(())
    }

    fn obstacle(
        &self,
        answer: &mut pb::ExplainResponse,
        tenant: &Tenant,
        decision: &Decision,
        task: Option<&Task>,
        now: Timestamp,
    ) -> Result<&'static str, Refusal> {
        let standing = task.map(|task| self.ledger.task_standing(task, now)).transpose()?;
        if let Some(hold) = self.ledger.holds().first() {
            answer.steps.push(format!("nothing is issued for now: {}", hold.explanation()));
            return Ok("ISSUING_HELD");
        }
        match standing {
            Some(Standing::Ended(why)) => {
                answer.steps.push(format!("task: has ended: {}", why.word()));
                return Ok("TASK_ENDED");
            }
            Some(Standing::Suspended) => {
                answer.steps.push("task: is suspended".to_owned());
                return Ok("SUSPENDED");
            }
            Some(Standing::Live) | None => {}
        }
        let workload = Scope::Workload(tenant.trust.name().clone(), decision.workload().clone());
        match self.secret_in_force(tenant, decision) {
            Ok(None) => {}
            Ok(Some(secret)) => {
                let scope = Scope::Secret(tenant.trust.name().clone(), secret.name.clone());
                if self.ledger.barred(&[scope.id()]) {
                    answer.steps.push(format!("secret `{}`: is barred", secret.name));
                    return Ok("BARRED");
                }
                answer.steps.push(format!("secret `{}`: version {} is in force", secret.name, secret.number));
            }
            Err(Refusal::SecretUnavailable(name)) => {
                answer.steps.push(format!("secret `{name}`: nobody put it for this partner, or it was retired"));
                return Ok("SECRET_UNAVAILABLE");
            }
            Err(other) => return Err(other),
        }
        let state = match self.ledger.barred(&[workload.id()]) {
            true => "barred",
            false => self.grant_state(tenant, decision.grant(), now),
        };
        answer.steps.push(format!("grant `{}`: bars and quotas: {state}", decision.grant()));
        Ok(match state {
            "usable" => "",
            "dormant" => "GRANT_DORMANT",
            quota if quota.starts_with("quota") => "QUOTA_USED_UP",
            _ => "BARRED",
        })
    }

    fn task_of(&self, operator: &Operator, wish: &pb::IssueRequest) -> Result<Option<Task>, Refusal> {
        let id: Option<TaskId> = view::optional_id("request.task_id", &wish.task_id)?;
        let Some(id) = id else { return Ok(None) };
        let task = self.ledger.task(id)?;
        let task = task.filter(|task| operator.reaches(Some(&task.tenant), Some(&task.partner)));
        task.map(Some).ok_or(Refusal::Unknown("task"))
    }

    fn issuer_end(&self, tenant: &Tenant, kind: CredentialKind) -> Result<Option<Timestamp>, Refusal> {
        match kind {
            CredentialKind::Jwt | CredentialKind::Opaque | CredentialKind::Secret => Ok(None),
            CredentialKind::X509 => {
                Ok(self.rings.ring(&self.ledger, tenant.number)?.ca.as_ref().map(|ca| ca.not_after()))
            }
        }
    }
}

/// A name that may be given twice, or by the task; those that are given must agree.
fn name<T>(field: &'static str, given: [&str; 2], of_task: Option<&T>) -> Result<T, Refusal>
where
    T: std::str::FromStr<Err = crate::model::id::InvalidId> + Clone + Eq,
{
    let mut agreed = of_task.cloned();
    for text in given.into_iter().filter(|text| !text.is_empty()) {
        let one: T = view::id(field, text)?;
        match &agreed {
            Some(other) if *other != one => return Err(Refusal::invalid(field, "is given twice, and not the same")),
            Some(_) | None => agreed = Some(one),
        }
    }
    agreed.ok_or_else(|| Refusal::invalid(field, "is missing"))
}

fn kind_of(code: i32) -> Result<CredentialKind, Refusal> {
    let kind = u32::try_from(code).ok().and_then(CredentialKind::from_code);
    kind.ok_or_else(|| Refusal::invalid("request.kind", "is unset or unknown; name the form of credential"))
}

fn binding_of(code: i32) -> Result<BindingWish, Refusal> {
    match pb::Binding::try_from(code) {
        Ok(pb::Binding::Unspecified) => Ok(BindingWish::Default),
        Ok(pb::Binding::Certificate) => Ok(BindingWish::Certificate),
        Ok(pb::Binding::None) => Ok(BindingWish::None),
        Err(_) => Err(Refusal::invalid("request.binding", "is none that this version knows")),
    }
}

fn deadline(task: Option<&Task>, seconds: u32, now: Timestamp) -> Option<Timestamp> {
    let of_new = (seconds > 0).then(|| now.after(Duration::from_secs(seconds.into())));
    task.map(|task| task.deadline).or(of_new)
}

/// A workload that has no other way comes by a Unix socket; of others it is not known from where.
fn origin_of(tenant: &Tenant, workload: &WorkloadName) -> Origin {
    match tenant.trust.workloads().get(workload) {
        Some(workload) if workload.is_local() => Origin::Local,
        Some(_) | None => Origin::Unknown,
    }
}

fn may_have_certificate(tenant: &Tenant, workload: &WorkloadName) -> bool {
    let selectors = tenant.trust.workloads().get(workload).map(|workload| &workload.selectors);
    selectors.is_some_and(|selectors| {
        selectors.iter().any(|selector| match selector {
            // A federated caller comes with a key of its own, and the certificate around it.
            Selector::SpiffeId { .. } | Selector::DnsName { .. } | Selector::Federated(_) => true,
            Selector::Unix { .. } => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_twice_must_agree_and_one_of_the_task_counts() {
        let zeta: PartnerName = "zeta".parse().unwrap();
        assert_eq!(name::<PartnerName>("partner", ["zeta", ""], None).unwrap(), zeta);
        assert_eq!(name("partner", ["", ""], Some(&zeta)).unwrap(), zeta);
        assert_eq!(name("partner", ["zeta", "zeta"], Some(&zeta)).unwrap(), zeta);
        assert!(name::<PartnerName>("partner", ["zeta", "eta"], None).is_err());
        assert!(name("partner", ["eta", ""], Some(&zeta)).is_err());
        assert!(name::<PartnerName>("partner", ["", ""], None).is_err());
    }
}
