//! One request against one grant: the checks, in order.

use std::time::Duration;

use crate::model::{CredentialKind, GrantName, Purpose, SecretName, Timestamp, WorkloadName, static_secret};

use super::{
    cedar::{self, Judged, PolicyAction, Question},
    decide::{Asked, BindingWish, Facts, Origin},
    decision::{Bound, Decision},
    denied::Denied,
    grant::Grant,
    pattern::Pattern,
    trust::{TenantTrust, Workload},
};

/// One request against one grant.
pub(super) struct Case<'a> {
    pub(super) asked: &'a Asked<'a>,
    pub(super) facts: &'a Facts<'a>,
    pub(super) trust: &'a TenantTrust,
    pub(super) workload: &'a Workload,
    pub(super) name: &'a GrantName,
    pub(super) grant: &'a Grant,
    pub(super) now: Timestamp,
}

pub(super) type Check = fn(&Case<'_>) -> Result<(), Denied>;

/// Every check, in order, with its name for people.
pub(super) const CHECKS: [(&str, Check); 15] = [
    ("partner", |case| case.partner()),
    ("workload and environment", |case| case.caller()),
    ("source network", |case| from_network(case.name, case.grant, case.facts.origin)),
    ("purpose", |case| case.purpose()),
    ("kind", |case| case.kind()),
    ("audiences", |case| case.audiences()),
    ("actions", |case| case.actions()),
    ("DNS names", |case| case.dns_names()),
    ("expiry and attestation", |case| case.in_force()),
    ("ttl", |case| case.ttl()),
    ("renewals", |case| case.renewals()),
    ("binding", |case| case.binding()),
    ("approvals", |case| is_approved(case.name, case.grant, case.asked.purpose, case.facts.approved)),
    ("task, proof and issuer", |case| case.limits()),
    ("lifetime", |case| case.lifetime()),
];

impl Case<'_> {
    /// The first check that fails, and its place.
    pub(super) fn check(&self) -> Result<(), (usize, Denied)> {
        CHECKS.iter().enumerate().try_for_each(|(step, (_, check))| check(self).map_err(|why| (step, why)))
    }

    fn partner(&self) -> Result<(), Denied> {
        let named = self.grant.partner == *self.asked.partner;
        named.then_some(()).ok_or_else(|| Denied::PartnerNotGranted(self.asked.partner.clone()))
    }

    fn caller(&self) -> Result<(), Denied> {
        may_use(self.name, self.grant, self.asked.workload, self.workload)
    }

    fn purpose(&self) -> Result<(), Denied> {
        let named = self.grant.purposes.has(self.asked.purpose);
        named.then_some(()).ok_or_else(|| Denied::PurposeNotGranted(self.asked.purpose.clone()))
    }

    fn kind(&self) -> Result<(), Denied> {
        let denied = || Denied::KindNotGranted { grant: self.name.clone(), kind: self.asked.kind };
        self.grant.kinds.has(&self.asked.kind).then_some(()).ok_or_else(denied)
    }

    fn audiences(&self) -> Result<(), Denied> {
        if self.asked.audiences.is_empty() {
            return Err(Denied::AudienceRequired);
        }
        if self.asked.kind == CredentialKind::Secret {
            return self.secret().map(drop);
        }
        match misfit(self.asked.audiences, &self.grant.audiences) {
            None => Ok(()),
            Some(audience) => Err(Denied::AudienceNotGranted { grant: self.name.clone(), audience: audience.clone() }),
        }
    }

    /// The one static secret that is asked for, when the grant hands it out. What the grant's `audiences` say does not count.
    fn secret(&self) -> Result<SecretName, Denied> {
        let not_granted =
            |audience: &String| Denied::AudienceNotGranted { grant: self.name.clone(), audience: audience.clone() };
        let [audience] = self.asked.audiences else { return Err(Denied::AudienceRequired) };
        let secret = static_secret::of_audience(audience).ok_or_else(|| not_granted(audience))?;
        let denied = |secret| Denied::SecretNotGranted { grant: self.name.clone(), secret };
        if self.grant.secrets.has(&secret) { Ok(secret) } else { Err(denied(secret)) }
    }

    fn actions(&self) -> Result<(), Denied> {
        match misfit(self.asked.actions, &self.grant.actions) {
            None => Ok(()),
            Some(action) => Err(Denied::ActionNotGranted { grant: self.name.clone(), action: action.clone() }),
        }
    }

    fn dns_names(&self) -> Result<(), Denied> {
        let names = self.asked.dns_names;
        if !names.is_empty() && self.asked.kind != CredentialKind::X509 {
            return Err(Denied::DnsNamesNotForKind { kind: self.asked.kind });
        }
        match names.iter().find(|name| !self.grant.dns_names.has(name)) {
            None => Ok(()),
            Some(name) => Err(Denied::DnsNameNotGranted { grant: self.name.clone(), dns_name: name.clone() }),
        }
    }

    fn in_force(&self) -> Result<(), Denied> {
        is_in_force(self.name, self.grant, self.facts.attest_by, self.now)
    }

    fn ttl(&self) -> Result<(), Denied> {
        let (asked, max) = (self.asked.ttl_seconds, self.grant.ttl_max);
        let denied = || Denied::TtlTooLong { grant: self.name.clone(), asked, max };
        (asked <= max).then_some(()).ok_or_else(denied)
    }

    fn renewals(&self) -> Result<(), Denied> {
        match (self.grant.max_renewals, self.facts.scene.renewals) {
            (Some(max), Some(this)) if this > max => Err(Denied::RenewalsUsedUp { grant: self.name.clone(), max }),
            (Some(_) | None, _) => Ok(()),
        }
    }

    fn binding(&self) -> Result<(), Denied> {
        let has = self.facts.has_certificate;
        match (self.asked.kind, self.asked.binding) {
            (CredentialKind::X509, BindingWish::Default) => Ok(()),
            // Nothing binds its value; who gets it may have to hold a key.
            (CredentialKind::Secret, BindingWish::Default) => {
                let holds_key = has || self.facts.origin == Origin::Local;
                let is_free = holds_key || !self.trust.asks_for_a_key(&self.secret()?);
                is_free.then_some(()).ok_or_else(|| Denied::BindingRequired(self.name.clone()))
            }
            (CredentialKind::X509 | CredentialKind::Secret, BindingWish::Certificate | BindingWish::None) => {
                Err(Denied::BindingNotForKind)
            }
            (CredentialKind::Jwt | CredentialKind::Opaque, wish) => match wish {
                BindingWish::Certificate if !has => Err(Denied::CertificateRequired),
                BindingWish::Default if !has && self.grant.require_binding => {
                    Err(Denied::BindingRequired(self.name.clone()))
                }
                BindingWish::None if self.grant.require_binding => Err(Denied::BindingRequired(self.name.clone())),
                BindingWish::Certificate | BindingWish::Default | BindingWish::None => Ok(()),
            },
        }
    }

    /// When the approval of this grant ends, where it needs one.
    fn approved_until(&self) -> Option<Timestamp> {
        self.grant.approvals_for(self.asked.purpose)?;
        until(self.name, self.facts.approved)
    }

    /// Whether all that limits the end from outside the grant lies ahead.
    fn limits(&self) -> Result<(), Denied> {
        let outside = [
            (self.facts.task_deadline, Bound::TaskDeadline),
            (self.approved_until(), Bound::Approval),
            (self.facts.proof_expires, Bound::CallerProof),
            (self.facts.issuer_expires, Bound::IssuerCertificate),
        ];
        match outside.into_iter().find(|(end, _)| end.is_some_and(|end| end <= self.now)) {
            None => Ok(()),
            Some((_, bound)) => Err(Denied::LifetimeTooShort(bound)),
        }
    }

    fn lifetime(&self) -> Result<(), Denied> {
        let (end, bound) = self.end();
        if end.seconds() <= self.now.seconds() { Err(Denied::LifetimeTooShort(bound)) } else { Ok(()) }
    }

    /// The earliest of all that limit the end; of equals the first named.
    pub(super) fn end(&self) -> (Timestamp, Bound) {
        let first = match self.asked.ttl_seconds {
            0 => (end_after(self.grant.ttl_default, self.now), Bound::GrantDefault),
            seconds => (end_after(seconds, self.now), Bound::Requested),
        };
        let others = [
            (Some(self.grant.expires), Bound::GrantExpiry),
            (self.facts.task_deadline, Bound::TaskDeadline),
            (self.approved_until(), Bound::Approval),
            (self.facts.proof_expires, Bound::CallerProof),
            (self.facts.issuer_expires, Bound::IssuerCertificate),
        ];
        others.into_iter().fold(first, |least, (end, bound)| match end {
            Some(end) if end.floor_second() < least.0 => (end.floor_second(), bound),
            Some(_) | None => least,
        })
    }

    /// Whether a token is bound to the caller's certificate.
    fn binds(&self) -> bool {
        let binds = self.facts.has_certificate && self.asked.binding != BindingWish::None;
        binds && matches!(self.asked.kind, CredentialKind::Jwt | CredentialKind::Opaque)
    }

    /// Asks the policies: about the credential, and about the task where one is opened for it.
    fn judged(&self, trust: &TenantTrust, expires: Timestamp) -> Result<(Option<Judged>, Option<Judged>), Denied> {
        let scene = &self.facts.scene;
        if !cedar::asks(trust, scene.global) {
            return Ok((None, None));
        }
        let (asked, facts) = (self.asked, self.facts);
        let owner = scene.owner.and_then(|owner| owner(self.name)).unwrap_or_else(|| self.grant.owner.clone());
        let question = Question {
            action: PolicyAction::of(asked.kind, scene.renewals.is_some()),
            workload: (asked.workload, self.workload),
            partner: asked.partner,
            tenant: trust.name.as_str(),
            grant: Some((self.name, self.grant)),
            purpose: asked.purpose,
            intent: scene.intent,
            audiences: asked.audiences,
            actions: asked.actions,
            dns_names: asked.dns_names,
            kind: asked.kind,
            life_seconds: expires.seconds().saturating_sub(self.now.seconds()),
            origin: facts.origin,
            bound: self.binds() || asked.kind == CredentialKind::X509,
            renewals: scene.renewals.unwrap_or(0),
            owner,
            attest_by: (facts.attest_by)(self.name).unwrap_or(self.grant.attest_by),
            is_child: false,
            now: self.now,
        };
        let ask = |question: &Question<'_>| cedar::judge(trust, scene.global, question).map_err(Denied::Policy);
        let opening = Question { action: PolicyAction::OpenTask, grant: None, audiences: &[], ..question.clone() };
        let opened = if scene.opens { ask(&opening)? } else { None };
        Ok((ask(&question)?, opened))
    }

    pub(super) fn decision(&self, trust: &TenantTrust) -> Result<Decision, Denied> {
        let (expires, bound_by) = self.end();
        let (judged, opened) = self.judged(trust, expires)?;
        let (mut ruling, mut opening, mut shadow) = (None, None, Vec::new());
        for (judged, to) in [(judged, &mut ruling), (opened, &mut opening)] {
            if let Some(judged) = judged {
                shadow.extend(judged.shadow);
                *to = Some(judged.ruling);
            }
        }
        Ok(Decision {
            basis: self.facts.basis,
            trust_hash: trust.hash(),
            tenant: trust.name.clone(),
            partner: self.asked.partner.clone(),
            grant: self.name.clone(),
            workload: self.asked.workload.clone(),
            purpose: self.asked.purpose.clone(),
            kind: self.asked.kind,
            audiences: sorted(self.asked.audiences),
            actions: sorted(self.asked.actions),
            dns_names: sorted(self.asked.dns_names),
            issued: self.now,
            expires,
            bound_by,
            bind: self.binds(),
            proofs: self.facts.proofs.clone(),
            max_live_leases: self.grant.max_live_leases,
            max_leases_per_task: self.grant.max_leases_per_task,
            approved: self.grant.approvals_for(self.asked.purpose).is_some(),
            velocity: self.grant.velocity,
            environment: self.grant.environment.clone(),
            ruling,
            opening,
            shadow,
            secret: if self.asked.kind == CredentialKind::Secret { Some(self.secret()?) } else { None },
        })
    }
}

pub(super) fn may_use(
    name: &GrantName,
    grant: &Grant,
    caller: &WorkloadName,
    workload: &Workload,
) -> Result<(), Denied> {
    if !grant.workloads.has(caller) {
        return Err(Denied::WorkloadNotGranted { grant: name.clone(), workload: caller.clone() });
    }
    if grant.environment != workload.environment {
        return Err(Denied::EnvironmentMismatch {
            grant: name.clone(),
            granted: grant.environment.clone(),
            actual: workload.environment.clone(),
        });
    }
    Ok(())
}

pub(super) fn from_network(name: &GrantName, grant: &Grant, origin: Origin) -> Result<(), Denied> {
    let within = origin.is_within(&grant.sources);
    within.then_some(()).ok_or_else(|| Denied::SourceNotGranted { grant: name.clone() })
}

/// Refuses a grant that needs approvals for the purpose and has none.
pub(super) fn is_approved(
    name: &GrantName,
    grant: &Grant,
    purpose: &Purpose,
    approved: &[(GrantName, Timestamp)],
) -> Result<(), Denied> {
    match grant.approvals_for(purpose) {
        Some(need) if until(name, approved).is_none() => {
            Err(Denied::ApprovalNeeded { grant: name.clone(), purpose: purpose.clone(), needed: need.needed })
        }
        Some(_) | None => Ok(()),
    }
}

fn until(name: &GrantName, approved: &[(GrantName, Timestamp)]) -> Option<Timestamp> {
    approved.iter().find(|(grant, _)| grant == name).map(|(_, until)| *until)
}

pub(super) fn is_in_force(
    name: &GrantName,
    grant: &Grant,
    attested: &dyn Fn(&GrantName) -> Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Denied> {
    if grant.expires <= now {
        return Err(Denied::GrantExpired { grant: name.clone(), at: grant.expires });
    }
    let by = attested(name).unwrap_or(grant.attest_by);
    if by <= now { Err(Denied::AttestationOverdue { grant: name.clone(), at: by }) } else { Ok(()) }
}

fn misfit<'a>(asked: &'a [String], granted: &[Pattern]) -> Option<&'a String> {
    asked.iter().find(|text| !granted.iter().any(|pattern| pattern.fits(text)))
}

pub(super) fn end_after(seconds: u32, now: Timestamp) -> Timestamp {
    now.after(Duration::from_secs(seconds.into())).floor_second()
}

fn sorted(texts: &[String]) -> Vec<String> {
    let mut texts = texts.to_vec();
    texts.sort_unstable();
    texts.dedup();
    texts
}
