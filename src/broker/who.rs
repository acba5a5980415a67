//! Who a caller is, in the words of the trust map.

use std::sync::Arc;

use super::{
    Broker, federate,
    refusal::Refusal,
    registry::Tenant,
    sign_in::{self, Person},
};
use crate::{
    identity::{Authority, Caller, Proof},
    ledger::ScopeState,
    model::{
        ClientKey, Digest, Lease, LeaseId, OpenedWith, OperatorName, PartnerName, Scope, ScopeId, TaskId, TenantName,
        Timestamp, WorkloadName, time::SKEW,
    },
    policy::{Denied, Origin, Reach, Role},
};

/// A workload, for one request.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The tenant it acts in.
    pub tenant: Arc<Tenant>,
    /// Its name there.
    pub name: WorkloadName,
    /// Scopes of everything it proved itself through.
    pub proofs: Vec<ScopeId>,
    /// The lease whose certificate it holds, when the broker issued that certificate: it acts within that task only.
    pub lease: Option<Lease>,
    /// The task whose key it holds: it acts within that task only.
    pub key_task: Option<TaskId>,
    /// The key that tasks which it opens are bound to.
    pub client_key: Option<ClientKey>,
    /// The identity token that it opens tasks with.
    pub opened_with: Option<Box<OpenedWith>>,
}

/// An operator, for one request.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Its name.
    pub name: OperatorName,
    /// What it may do.
    pub role: Role,
    /// In which tenants.
    pub tenants: Reach<TenantName>,
    /// For which partners.
    pub partners: Reach<PartnerName>,
    /// Who it is, when it came by sign-in.
    pub person: Option<Person>,
}

/// Who may ask about credentials, for one request.
#[derive(Clone, Debug)]
pub enum Checker {
    /// A resource server: of one tenant, or of several.
    Verifier {
        /// Its name.
        name: String,
        /// Which tenants it may ask about.
        tenants: Reach<TenantName>,
        /// For which audiences.
        verifier: crate::policy::Verifier,
    },
    /// An operator that may look.
    Operator(Operator),
}

impl Operator {
    /// Whether its scope reaches a partner in a tenant; `None` stands for what is not one tenant's or partner's.
    #[must_use]
    pub fn reaches(&self, tenant: Option<&TenantName>, partner: Option<&PartnerName>) -> bool {
        let within = |reach: &Reach<TenantName>| match (reach, tenant) {
            (Reach::All, _) => true,
            (Reach::Only(_), Some(tenant)) => reach.includes(tenant),
            (Reach::Only(_), None) => false,
        };
        let for_partner = |reach: &Reach<PartnerName>| match (reach, partner) {
            (Reach::All, _) => true,
            (Reach::Only(_), Some(partner)) => reach.includes(partner),
            (Reach::Only(_), None) => false,
        };
        within(&self.tenants) && for_partner(&self.partners)
    }

    /// Refuses unless the role is at least `role`.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`].
    pub fn require(&self, role: Role) -> Result<(), Refusal> {
        if self.role >= role {
            return Ok(());
        }
        Err(Refusal::NotAllowed(match role {
            Role::Auditor => "auditors may look",
            Role::Revoker => "only revokers and admins may end or bar",
            Role::Admin => "only admins may change this",
        }))
    }

    /// Refuses unless its scope is everything.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`].
    pub fn require_everywhere(&self) -> Result<(), Refusal> {
        if self.reaches(None, None) {
            return Ok(());
        }
        Err(Refusal::NotAllowed("this concerns more than your scope"))
    }

    /// The person behind it, by sign-in: the same whatever it signs in as.
    #[must_use]
    pub fn identity(&self) -> Option<Digest> {
        self.person.as_ref().map(Person::identity)
    }

    /// As rows of what it did name it: its name, and the person when it came by sign-in.
    #[must_use]
    pub fn signature(&self) -> String {
        match &self.person {
            // No operator's name holds a slash.
            Some(person) => format!("{}/{}", self.name, person.text),
            None => self.name.to_string(),
        }
    }

    /// Whether a signature is its own: of the same person where both are people who signed in, else of the same operator.
    #[must_use]
    pub fn has_signed(&self, signature: &str) -> bool {
        let (name, signed_in) = signature.split_once('/').map_or((signature, None), |(name, text)| (name, Some(text)));
        match (signed_in, &self.person) {
            (Some(text), Some(person)) => person.text == text,
            (Some(_), None) | (None, _) => self.name.as_str() == name,
        }
    }

    /// As events name it.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("operator:{}", self.signature())
    }
}

impl Broker {
    /// The workload that a caller is in a tenant.
    ///
    /// An unknown tenant and a caller without business in it look the same.
    ///
    /// # Errors
    /// When the caller selects no workload there, or its proof is cut, barred or over.
    pub fn workload(&self, caller: &Caller, tenant: &TenantName, now: Timestamp) -> Result<Workload, Refusal> {
        let _span = tracing::trace_span!(target: "mayfly::spans", "identity").entered();
        let unknown = || Refusal::Denied(Denied::UnknownWorkload);
        let found = self.registry.tenant(&self.ledger, tenant)?.ok_or_else(unknown)?;
        if let Some(lease) = self.own_lease(caller, now)? {
            if lease.tenant != *tenant || !found.trust.workloads().contains_key(&lease.workload) {
                return Err(unknown());
            }
            let mut proofs = caller.scopes();
            proofs.extend(&lease.proofs);
            proofs.push(Scope::Lease(lease.id).id());
            if !found.trust.may_ask_from(&lease.workload, Origin::of(caller)) {
                return Err(unknown());
            }
            caller.account().found_in(found.number);
            let name = lease.workload.clone();
            let (key_task, client_key, opened_with) = (None, None, None);
            return Ok(Workload { tenant: found, name, proofs, lease: Some(lease), key_task, client_key, opened_with });
        }
        let key_task = match caller.proof() {
            Proof::TaskKey(key) if key.tenant != *tenant => return Err(unknown()),
            Proof::TaskKey(key) => Some(key.task),
            Proof::Certificate(_) | Proof::Unix(_) | Proof::Federated(_) => None,
        };
        let domain = self.settings.trust_domain.of_tenant(tenant);
        let name = found.trust.workload_of(caller, &domain)?.clone();
        let proofs = caller.scopes();
        self.check_proofs(caller)?;
        caller.account().found_in(found.number);
        let client_key = federate::client_key(caller, &found.trust, &name, now);
        let opened_with = federate::opened_with(caller);
        Ok(Workload { tenant: found, name, proofs, lease: None, key_task, client_key, opened_with })
    }

    /// The lease behind a caller's certificate, when the broker issued it; refused unless it is live.
    ///
    /// # Errors
    /// When it is over, or not the certificate that the lease is for.
    pub fn own_lease(&self, caller: &Caller, now: Timestamp) -> Result<Option<Lease>, Refusal> {
        let Some(certificate) = caller.certificate() else { return Ok(None) };
        if certificate.authority != Authority::Own {
            return Ok(None);
        }
        let Some(id) = LeaseId::from_bytes(&certificate.serial) else { return Ok(None) };
        let gone = Refusal::Unproven("the certificate you came with is no longer good");
        let Some(lease) = self.ledger.lease(id)? else { return Err(gone) };
        if !lease.credential.matches(&certificate.sha256) || !self.ledger.lease_standing(&lease, now)?.is_live() {
            return Err(gone);
        }
        self.check_proofs(caller)?;
        Ok(Some(lease))
    }

    /// The operator that a caller is.
    ///
    /// # Errors
    /// When it is none, or its certificate is cut or barred.
    pub fn operator(&self, caller: &Caller) -> Result<Operator, Refusal> {
        let _span = tracing::trace_span!(target: "mayfly::spans", "identity").entered();
        let none = Refusal::Unproven("operators prove themselves with a certificate that the broker issued to them");
        let certificate = caller.certificate().filter(|certificate| certificate.authority == Authority::Own);
        let Some(id) = certificate.and_then(|certificate| certificate.spiffe_id.as_deref()) else { return Err(none) };
        let prefix = format!("spiffe://{}/operator/", self.settings.trust_domain.as_str());
        let Some(rest) = id.strip_prefix(&prefix) else { return Err(none) };
        let (name, signed_in) = match rest.split_once(sign_in::INFIX) {
            Some((name, sign_in)) => (name, Some(sign_in)),
            None => (rest, None),
        };
        let Ok(name) = name.parse::<OperatorName>() else { return Err(none) };
        let global = self.registry.global();
        let Some(operator) = global.operators.get(&name) else { return Err(none) };
        self.check_proofs(caller)?;
        let signed_in = signed_in.zip(caller.certificate());
        let person = signed_in.map(|(id, certificate)| self.signed_in(id, &name, certificate)).transpose()?;
        Ok(Operator {
            name,
            role: operator.role,
            tenants: operator.tenants.clone(),
            partners: operator.partners.clone(),
            person,
        })
    }

    /// Who a caller is to ask about credentials of a tenant.
    ///
    /// # Errors
    /// When it may not ask at all.
    pub fn checker(&self, caller: &Caller, tenant: Option<&TenantName>) -> Result<Vec<Checker>, Refusal> {
        let _span = tracing::trace_span!(target: "mayfly::spans", "identity").entered();
        self.check_proofs(caller)?;
        // Who comes with a certificate of ours asks only while its lease lives.
        self.own_lease(caller, self.now())?;
        let mut found = Vec::new();
        if let Some(tenant) = tenant
            && let Some(known) = self.registry.tenant(&self.ledger, tenant)?
        {
            let domain = self.settings.trust_domain.of_tenant(tenant);
            found.extend(known.trust.verifiers_of(caller, &domain).map(|(name, verifier)| Checker::Verifier {
                name: format!("{tenant}/{name}"),
                tenants: Reach::Only([tenant.clone()].into_iter().collect()),
                verifier: verifier.clone(),
            }));
        }
        let global = self.registry.global();
        let base = self.settings.trust_domain.as_str();
        found.extend(global.verifiers_of(caller, base).map(|(name, global)| Checker::Verifier {
            name: name.to_owned(),
            tenants: global.tenants.clone(),
            verifier: global.verifier.clone(),
        }));
        if let Ok(operator) = self.operator(caller) {
            found.push(Checker::Operator(operator));
        }
        Ok(found)
    }

    /// Refuses a caller whose proof was cut or barred.
    ///
    /// # Errors
    /// [`Refusal::Unproven`].
    pub fn check_proofs(&self, caller: &Caller) -> Result<(), Refusal> {
        let cut = caller.scopes().iter().any(|&scope| {
            let state = self.ledger.scope(scope);
            state.is_barred() || (state.cut > 0 && !is_since(caller, scope, &state))
        });
        if cut {
            return Err(Refusal::Unproven("what you proved yourself with was cut off"));
        }
        Ok(())
    }
}

/// Whether what the caller came with is from after the cut of its issuer, which goes on issuing when its bar is lifted. A
/// certificate, a token and a key are one thing each: once cut they stay so.
fn is_since(caller: &Caller, scope: ScopeId, state: &ScopeState) -> bool {
    match caller.proof() {
        Proof::Federated(token) if Scope::Issuer(token.issuer.name.clone()).id() == scope => {
            // The issuer's clock may be ahead of ours; who does not say when it was issued comes too early.
            token.issued.is_some_and(|issued| issued > state.cut_at.after(SKEW))
        }
        // INVARIANT: the end of its task ends a key, and a cut that the task was decided after has not ended it.
        Proof::TaskKey(key) if key.opened_with.as_ref().is_some_and(|with| is_issuer(with, scope)) => {
            key.basis >= state.cut
        }
        Proof::Certificate(_) | Proof::Unix(_) | Proof::Federated(_) | Proof::TaskKey(_) => false,
    }
}

fn is_issuer(with: &OpenedWith, scope: ScopeId) -> bool {
    Scope::Issuer(with.issuer.clone()).id() == scope
}

impl Workload {
    /// The task that a certificate of ours, or a task's key, confines its holder to.
    #[must_use]
    pub fn confined_to(&self) -> Option<TaskId> {
        self.lease.as_ref().map(|lease| lease.id.task()).or(self.key_task)
    }

    /// As events name it.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("workload:{}", self.name)
    }
}

impl Checker {
    /// Whether it may learn about a lease.
    #[must_use]
    pub fn may_see(&self, lease: &Lease) -> bool {
        match self {
            Self::Verifier { tenants, verifier, .. } => {
                tenants.includes(&lease.tenant) && lease.audiences.iter().any(|audience| verifier.may_see(audience))
            }
            Self::Operator(operator) => operator.reaches(Some(&lease.tenant), Some(&lease.partner)),
        }
    }

    /// As events name it.
    #[must_use]
    pub fn actor(&self) -> String {
        match self {
            Self::Verifier { name, .. } => format!("verifier:{name}"),
            Self::Operator(operator) => operator.actor(),
        }
    }
}
