//! Authority as a value.

use crate::model::{
    CredentialKind, Digest, GrantName, PartnerName, Purpose, Ruling, ScopeId, SecretName, TenantName, Timestamp,
    WorkloadName, pace::Velocity,
};

use super::cedar::Difference;

/// The limit that decided when something ends (`mayfly.v1.Bound`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bound {
    /// What was asked for.
    Requested,
    /// What the grant gives when nothing is asked for.
    GrantDefault,
    /// The grant's own end.
    GrantExpiry,
    /// The task's end; for a task, its parent's.
    TaskDeadline,
    /// The end of the caller's certificate, identity token, or time as a task's key.
    CallerProof,
    /// The end of the certificate that will sign.
    IssuerCertificate,
    /// The end of the approval that the grant needs.
    Approval,
}

impl Bound {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Requested => 1,
            Self::GrantDefault => 2,
            Self::GrantExpiry => 3,
            Self::TaskDeadline => 4,
            Self::CallerProof => 5,
            Self::IssuerCertificate => 6,
            Self::Approval => 60,
        }
    }

    /// For people.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Requested => "the requested life decides",
            Self::GrantDefault => "the grant's default decides",
            Self::GrantExpiry => "the grant's expiry decides",
            Self::TaskDeadline => "the task's deadline decides",
            Self::CallerProof => "the end of what proves the caller decides",
            Self::IssuerCertificate => "the expiry of the issuing certificate decides",
            Self::Approval => "the end of the approval decides",
        }
    }
}

/// Proof that policy allowed exactly this credential. Only [`super::decide()`] builds one, and minting accepts nothing
/// else.
///
/// Invariant: nothing in it is wider than the grant it names.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Decision {
    pub(super) basis: (u64, u64),
    pub(super) trust_hash: Digest,
    pub(super) tenant: TenantName,
    pub(super) partner: PartnerName,
    pub(super) grant: GrantName,
    pub(super) workload: WorkloadName,
    pub(super) purpose: Purpose,
    pub(super) kind: CredentialKind,
    pub(super) audiences: Vec<String>,
    pub(super) actions: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) issued: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) bound_by: Bound,
    pub(super) bind: bool,
    pub(super) proofs: Vec<ScopeId>,
    pub(super) max_live_leases: u64,
    pub(super) max_leases_per_task: u32,
    pub(super) environment: String,
    pub(super) approved: bool,
    pub(super) velocity: Velocity,
    pub(super) ruling: Option<Ruling>,
    pub(super) opening: Option<Ruling>,
    pub(super) shadow: Vec<Difference>,
    pub(super) secret: Option<SecretName>,
}

/// Proof that policy allowed exactly this task. Only [`super::decide_task`] and [`TaskDecision::with_lease`] build one.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct TaskDecision {
    pub(super) basis: (u64, u64),
    pub(super) trust_hash: Digest,
    pub(super) tenant: TenantName,
    pub(super) partner: PartnerName,
    pub(super) workload: WorkloadName,
    pub(super) purpose: Purpose,
    pub(super) opened: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) proofs: Vec<ScopeId>,
    pub(super) velocity: Velocity,
    pub(super) ruling: Option<Ruling>,
    pub(super) shadow: Vec<Difference>,
}

impl TaskDecision {
    /// The task of one credential alone: it ends when the lease does.
    ///
    /// The trust map holds no grant whose credentials outlive its longest task.
    pub fn with_lease(decision: &Decision) -> Self {
        Self {
            basis: decision.basis,
            trust_hash: decision.trust_hash,
            tenant: decision.tenant.clone(),
            partner: decision.partner.clone(),
            workload: decision.workload.clone(),
            purpose: decision.purpose.clone(),
            opened: decision.issued,
            deadline: decision.expires,
            proofs: decision.proofs.clone(),
            velocity: decision.velocity,
            ruling: decision.opening.clone(),
            // Told with the credential's.
            shadow: Vec::new(),
        }
    }
}

macro_rules! read {
    ($type:ident { $($(#[$doc:meta])* $field:ident: $as:ty = |$this:ident| $value:expr;)+ }) => {
        impl $type {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $field(&self) -> $as {
                    let $this = self;
                    $value
                }
            )+
        }
    };
}

read! {
    Decision {
        /// Incarnation and revision number it was made at.
        basis: (u64, u64) = |this| this.basis;
        /// Hash of the tenant's trust map it was made with.
        trust_hash: Digest = |this| this.trust_hash;
        /// The one tenant.
        tenant: &TenantName = |this| &this.tenant;
        /// For whom.
        partner: &PartnerName = |this| &this.partner;
        /// The grant that allows it.
        grant: &GrantName = |this| &this.grant;
        /// Who asked.
        workload: &WorkloadName = |this| &this.workload;
        /// Why.
        purpose: &Purpose = |this| &this.purpose;
        /// The credential's form.
        kind: CredentialKind = |this| this.kind;
        /// Who it is for; sorted, at least one.
        audiences: &[String] = |this| &this.audiences;
        /// What it allows; sorted.
        actions: &[String] = |this| &this.actions;
        /// DNS names in the certificate; sorted.
        dns_names: &[String] = |this| &this.dns_names;
        /// When it was decided.
        issued: Timestamp = |this| this.issued;
        /// When it ends; a whole second, in a later one than `issued`.
        expires: Timestamp = |this| this.expires;
        /// The limit that decided `expires`.
        bound_by: Bound = |this| this.bound_by;
        /// Whether the token must be bound to the caller's certificate.
        bind: bool = |this| this.bind;
        /// Scopes of the proofs it is obtained through.
        proofs: &[ScopeId] = |this| &this.proofs;
        /// Live leases that the grant may have.
        max_live_leases: u64 = |this| this.max_live_leases;
        /// Leases of the grant that one task may have.
        max_leases_per_task: u32 = |this| this.max_leases_per_task;
        /// Where it holds.
        environment: &str = |this| &this.environment;
        /// Whether it rests on an approval of its grant, which must still hold when it is committed.
        needs_approval: bool = |this| this.approved;
        /// How fast one task may go on under the grant.
        velocity: Velocity = |this| this.velocity;
        /// The policies that allow it; `None` where there are none.
        ruling: Option<&Ruling> = |this| this.ruling.as_ref();
        /// Where policies in shadow say otherwise.
        shadow: &[Difference] = |this| &this.shadow;
        /// The static secret to hand out; of that kind only, and always.
        secret: Option<&SecretName> = |this| this.secret.as_ref();
    }
}

read! {
    TaskDecision {
        /// Incarnation and revision number it was made at.
        basis: (u64, u64) = |this| this.basis;
        /// Hash of the tenant's trust map it was made with.
        trust_hash: Digest = |this| this.trust_hash;
        /// The one tenant.
        tenant: &TenantName = |this| &this.tenant;
        /// For whom.
        partner: &PartnerName = |this| &this.partner;
        /// Who asked.
        workload: &WorkloadName = |this| &this.workload;
        /// Why.
        purpose: &Purpose = |this| &this.purpose;
        /// When it was decided.
        opened: Timestamp = |this| this.opened;
        /// When the task ends by itself; a whole second.
        deadline: Timestamp = |this| this.deadline;
        /// Scopes of the proofs it is opened with.
        proofs: &[ScopeId] = |this| &this.proofs;
        /// The least of what the grants that fit allow a task.
        velocity: Velocity = |this| this.velocity;
        /// The policies that allow it; `None` where there are none.
        ruling: Option<&Ruling> = |this| this.ruling.as_ref();
        /// Where policies in shadow say otherwise.
        shadow: &[Difference] = |this| &this.shadow;
    }
}
