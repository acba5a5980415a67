//! Asking policies.

use std::collections::BTreeSet;

use cedar_policy::{Authorizer, Decision, Entities, PolicySet, Request, Response};

use crate::{
    model::{Digest, Ruling},
    policy::trust::{GlobalTrust, TenantTrust},
};

use super::{
    cell::{Bench, Cell, cell, parameters},
    compile::Side,
    question::Question,
    sets::Inner,
    verdict::{Difference, PolicyRefusal, RefusedBy, Verdict},
};

/// What policies said of a request that they allow.
pub(in crate::policy) struct Judged {
    pub(in crate::policy) ruling: Ruling,
    pub(in crate::policy) shadow: Vec<Difference>,
}

/// Asks about a request that the trust map allows; of several audiences, about each. `None` where there are no policies.
///
/// # Errors
/// When a guardrail or a policy of the tenant forbids it, none permits it, or one could not be read or evaluated.
pub(in crate::policy) fn judge(
    trust: &TenantTrust,
    global: Option<&GlobalTrust>,
    question: &Question<'_>,
) -> Result<Option<Judged>, Box<PolicyRefusal>> {
    if !asks(trust, global) {
        return Ok(None);
    }
    let rails = global.filter(|global| has_guardrails(global));
    if rails.is_some_and(|global| global.is_unreadable) {
        return Err(unreadable(question, "", "the guardrails cannot be read".to_owned()));
    }
    let own = trust.sets.of(trust.policy.as_ref(), Side::Tenant);
    let rails = rails.map(|global| global.sets.of(global.guardrails.as_ref(), Side::Guardrails));
    let mut all = Judged { ruling: Ruling { policies: Vec::new(), set: Digest::default() }, shadow: Vec::new() };
    let mut permitted = BTreeSet::new();
    for audience in question.subjects() {
        let (set, enforced) =
            ask(own, rails, question, audience, &mut all.shadow).map_err(|why| unreadable(question, audience, why))?;
        if !enforced.allowed {
            let by = if enforced.errors.is_empty() { RefusedBy::Policy } else { RefusedBy::Error };
            let Verdict { policies, errors, .. } = enforced;
            let refusal = PolicyRefusal { by, policies, errors, set, shadow: all.shadow, ..question.refusal(audience) };
            return Err(Box::new(refusal));
        }
        all.ruling.set = set;
        permitted.extend(enforced.policies);
    }
    all.ruling.policies = permitted.into_iter().take(Ruling::MAX_POLICIES).collect();
    Ok(Some(all))
}

/// Whether there is anything to ask: else nothing of this costs anything.
pub(in crate::policy) fn asks(trust: &TenantTrust, global: Option<&GlobalTrust>) -> bool {
    trust.policy.is_some() || global.is_some_and(has_guardrails)
}

fn has_guardrails(global: &GlobalTrust) -> bool {
    global.guardrails.is_some() || global.is_unreadable
}

/// What those in force say, and how what runs in shadow differs.
fn ask(
    own: &Inner,
    rails: Option<&Inner>,
    question: &Question<'_>,
    audience: &str,
    differences: &mut Vec<Difference>,
) -> Result<(Digest, Verdict), String> {
    let cell = cell(own, rails, question, audience)?;
    let enforced = cell.enforce.verdict(&cell, question);
    if let Some(shadow) = &cell.shadow {
        let shadow = shadow.verdict(&cell, question);
        if shadow.word() != enforced.word() {
            let grant = question.grant.map(|(name, _)| name.clone());
            let (action, audience, enforced) = (question.action, audience.to_owned(), enforced.clone());
            differences.push(Difference { action, grant, audience, enforced, shadow });
        }
    }
    Ok((cell.set, enforced))
}

fn unreadable(question: &Question<'_>, audience: &str, why: String) -> Box<PolicyRefusal> {
    Box::new(PolicyRefusal { errors: vec![why], ..question.refusal(audience) })
}

impl Question<'_> {
    /// What to ask about one by one.
    fn subjects(&self) -> impl Iterator<Item = &str> {
        let opens = self.grant.is_none().then_some("");
        opens.into_iter().chain(self.audiences.iter().map(String::as_str).filter(|_| self.grant.is_some()))
    }

    fn refusal(&self, audience: &str) -> PolicyRefusal {
        PolicyRefusal {
            by: RefusedBy::Unreadable,
            action: self.action,
            grant: self.grant.map(|(name, _)| name.clone()),
            audience: audience.to_owned(),
            policies: Vec::new(),
            errors: Vec::new(),
            set: Digest::default(),
            shadow: Vec::new(),
        }
    }
}

impl Bench {
    /// What they say, now or before.
    fn verdict(&self, cell: &Cell, question: &Question<'_>) -> Verdict {
        self.memo.answer(question.values(self.needs), || {
            self.ask(cell, question).unwrap_or_else(|error| Verdict {
                allowed: false,
                policies: Vec::new(),
                errors: vec![shortened(&error)],
            })
        })
    }

    /// Guardrails first: what they forbid, no tenant's policy permits.
    fn ask(&self, cell: &Cell, question: &Question<'_>) -> Result<Verdict, String> {
        let with_parameters = parameters(cell, question)?;
        let entities = with_parameters.as_ref().unwrap_or(&cell.entities);
        let request = self.request(cell, question)?;
        if let Some(rails) = &self.rails {
            let said = Said::of(&request, rails, entities);
            if !said.errors.is_empty() || !said.policies.is_empty() {
                return Ok(Verdict { allowed: false, policies: said.policies, errors: said.errors });
            }
        }
        Ok(match &self.own {
            None => Verdict { allowed: true, policies: Vec::new(), errors: Vec::new() },
            Some(own) => {
                let said = Said::of(&request, own, entities);
                let allowed = said.permits && said.errors.is_empty();
                Verdict { allowed, policies: said.policies, errors: said.errors }
            }
        })
    }

    fn request(&self, cell: &Cell, question: &Question<'_>) -> Result<Request, String> {
        let context = question.context(self.needs, &cell.parameters)?;
        let (principal, action, resource) = (cell.principal.clone(), cell.action.clone(), cell.resource.clone());
        // Without the schema, which costs as much as the policies; the tests hold our contexts against it.
        Request::new(principal, action, resource, context, None).map_err(|error| error.to_string())
    }
}

/// What Cedar answered.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Said {
    permits: bool,
    policies: Vec<String>,
    errors: Vec<String>,
}

impl Said {
    pub(super) fn of(request: &Request, policies: &PolicySet, entities: &Entities) -> Self {
        if policies.is_empty() {
            return Self { permits: false, policies: Vec::new(), errors: Vec::new() };
        }
        let response: Response = Authorizer::new().is_authorized(request, policies, entities);
        let mut ids: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        ids.sort_unstable();
        let errors = response.diagnostics().errors().map(|error| shortened(&error.to_string())).collect();
        Self { permits: response.decision() == Decision::Allow, policies: ids, errors }
    }
}

/// One line of at most 256 characters: what Cedar says may show values.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(256).collect()
}
