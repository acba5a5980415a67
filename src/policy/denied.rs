//! Why policy says no.

use crate::model::{CredentialKind, GrantName, PartnerName, Purpose, SecretName, Timestamp, WorkloadName};

use super::{
    cedar::{Difference, PolicyRefusal, RefusedBy},
    decision::Bound,
};

/// Why policy says no. Each reason has one stable code.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    /// The proof selects no workload of the tenant, or the workload is not in the trust map.
    #[error("the caller is no workload of this tenant")]
    UnknownWorkload,
    /// The proof selects more than one workload of the tenant.
    #[error("the caller's proof selects more than one workload of this tenant")]
    AmbiguousWorkload,
    /// No grant of the tenant names the partner, or not the grant asked for.
    #[error("partner `{0}` has no such grant in this tenant")]
    PartnerNotGranted(PartnerName),
    /// The grant asked for does not exist.
    #[error("there is no grant `{0}` in this tenant")]
    UnknownGrant(GrantName),
    /// The grant is for other workloads.
    #[error("workload `{workload}` may not use grant `{grant}`")]
    WorkloadNotGranted {
        /// The grant looked at.
        grant: GrantName,
        /// Who asked.
        workload: WorkloadName,
    },
    /// The grant is for another environment than the workload's.
    #[error("grant `{grant}` is for environment `{granted}`, the workload is in `{actual}`")]
    EnvironmentMismatch {
        /// The grant looked at.
        grant: GrantName,
        /// Its environment.
        granted: String,
        /// The workload's.
        actual: String,
    },
    /// The grant is for callers of other networks.
    #[error("grant `{grant}` is not for the network that this came from")]
    SourceNotGranted {
        /// The grant looked at.
        grant: GrantName,
    },
    /// No grant of the partner, or not the one looked at, is for the purpose.
    #[error("purpose `{0}` is not granted")]
    PurposeNotGranted(Purpose),
    /// The grant does not allow this form of credential.
    #[error("grant `{grant}` does not allow {} credentials", kind.word())]
    KindNotGranted {
        /// The grant looked at.
        grant: GrantName,
        /// What was asked for.
        kind: CredentialKind,
    },
    /// A credential is always for someone.
    #[error("at least one audience is required")]
    AudienceRequired,
    /// The grant does not allow this audience.
    #[error("grant `{grant}` does not allow audience `{audience}`")]
    AudienceNotGranted {
        /// The grant looked at.
        grant: GrantName,
        /// What was asked for.
        audience: String,
    },
    /// The grant does not allow this action.
    #[error("grant `{grant}` does not allow action `{action}`")]
    ActionNotGranted {
        /// The grant looked at.
        grant: GrantName,
        /// What was asked for.
        action: String,
    },
    /// The grant does not hand out this static secret.
    #[error("grant `{grant}` does not hand out secret `{secret}`")]
    SecretNotGranted {
        /// The grant looked at.
        grant: GrantName,
        /// What was asked for.
        secret: SecretName,
    },
    /// Only certificates carry DNS names.
    #[error("{} credentials carry no DNS names", kind.word())]
    DnsNamesNotForKind {
        /// What was asked for.
        kind: CredentialKind,
    },
    /// The grant does not allow this DNS name.
    #[error("grant `{grant}` does not allow DNS name `{dns_name}`")]
    DnsNameNotGranted {
        /// The grant looked at.
        grant: GrantName,
        /// What was asked for.
        dns_name: String,
    },
    /// The grant's time is over.
    #[error("grant `{grant}` expired at {at}")]
    GrantExpired {
        /// The grant looked at.
        grant: GrantName,
        /// When.
        at: Timestamp,
    },
    /// Nobody has confirmed in time that the grant is still needed.
    #[error("grant `{grant}` had to be attested by {at}")]
    AttestationOverdue {
        /// The grant looked at.
        grant: GrantName,
        /// Until when it had to be.
        at: Timestamp,
    },
    /// The grant was not used for too long, and nobody has attested it since.
    #[error("grant `{grant}` was dormant from {at}")]
    GrantDormant {
        /// The grant looked at.
        grant: GrantName,
        /// Since when.
        at: Timestamp,
    },
    /// The grant needs approvals for the purpose, and the request names none.
    #[error(
        "grant `{grant}` needs {needed} approval(s) for purpose `{purpose}`: ask with RequestApproval (`mayfly approval \
         request`), then name it in `approval_id`"
    )]
    ApprovalNeeded {
        /// The grant looked at.
        grant: GrantName,
        /// What it is asked for.
        purpose: Purpose,
        /// How many must agree.
        needed: u32,
    },
    /// More life asked for than the grant allows.
    #[error("{asked} s exceed the {max} s that grant `{grant}` allows")]
    TtlTooLong {
        /// The grant looked at.
        grant: GrantName,
        /// Seconds asked for.
        asked: u32,
        /// Seconds allowed.
        max: u32,
    },
    /// The credential was renewed as often as the grant allows.
    #[error("grant `{grant}` allows {max} renewal(s) of a credential")]
    RenewalsUsedUp {
        /// The grant looked at.
        grant: GrantName,
        /// How many it allows.
        max: u32,
    },
    /// Certificates are bound to their key by themselves.
    #[error("binding is for tokens only")]
    BindingNotForKind,
    /// The grant demands bound tokens, or a class a certificate of who gets its secrets: the caller asked for an unbound one or
    /// has no certificate.
    #[error("grant `{0}`, or a class of what it reaches, asks for the caller's certificate")]
    BindingRequired(GrantName),
    /// Binding was asked for by a caller without a certificate.
    #[error("binding needs a client certificate")]
    CertificateRequired,
    /// Less than a second would be left.
    #[error("less than a second would be left: {}", .0.explanation())]
    LifetimeTooShort(Bound),
    /// Two grants fit.
    #[error("grants `{0}` and `{1}` both fit: name one")]
    GrantAmbiguous(GrantName, GrantName),
    /// The task was opened with less than this.
    #[error("the task allows no {what} `{value}`: who opened it, or passed it on, has or gave less")]
    BeyondTask {
        /// `audience`, `action`, `kind` or `life`.
        what: &'static str,
        /// What was asked for.
        value: String,
    },
    /// A longer task asked for than any usable grant allows.
    #[error("{asked} s exceed the {max} s that a task may take")]
    TaskTooLong {
        /// Seconds asked for.
        asked: u32,
        /// Seconds allowed.
        max: u32,
    },
    /// A longer task asked for than its parent has left.
    #[error("the parent task ends at {0}, before this one would")]
    ParentEndsSooner(Timestamp),
    /// A longer task was to be passed on than who passes it on is proven for.
    #[error("what you proved yourself with ends at {0}, and nobody passes a task on for longer")]
    ProofEndsSooner(Timestamp),
    /// The policies. What they said in full is for operators.
    #[error("{}", match .0.by {
        RefusedBy::Policy => "policy does not allow this",
        RefusedBy::Error => "a policy could not be evaluated, which refuses",
        RefusedBy::Unreadable => "the policies cannot be read, which refuses",
    })]
    Policy(Box<PolicyRefusal>),
}

impl Denied {
    /// The stable code: `ErrorInfo.reason`, events, metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownWorkload => "UNKNOWN_WORKLOAD",
            Self::AmbiguousWorkload => "WORKLOAD_AMBIGUOUS",
            Self::PartnerNotGranted(_) => "PARTNER_NOT_GRANTED",
            Self::UnknownGrant(_) => "UNKNOWN_GRANT",
            Self::WorkloadNotGranted { .. } => "WORKLOAD_NOT_GRANTED",
            Self::EnvironmentMismatch { .. } => "ENVIRONMENT_MISMATCH",
            Self::SourceNotGranted { .. } => "SOURCE_NOT_GRANTED",
            Self::PurposeNotGranted(_) => "PURPOSE_NOT_GRANTED",
            Self::KindNotGranted { .. } => "KIND_NOT_GRANTED",
            Self::AudienceRequired => "AUDIENCE_REQUIRED",
            Self::AudienceNotGranted { .. } => "AUDIENCE_NOT_GRANTED",
            Self::ActionNotGranted { .. } => "ACTION_NOT_GRANTED",
            Self::SecretNotGranted { .. } => "SECRET_NOT_GRANTED",
            Self::DnsNamesNotForKind { .. } => "DNS_NAMES_NOT_FOR_KIND",
            Self::DnsNameNotGranted { .. } => "DNS_NAME_NOT_GRANTED",
            Self::GrantExpired { .. } => "GRANT_EXPIRED",
            Self::AttestationOverdue { .. } => "ATTESTATION_OVERDUE",
            Self::GrantDormant { .. } => "GRANT_DORMANT",
            Self::ApprovalNeeded { .. } => "APPROVAL_NEEDED",
            Self::TtlTooLong { .. } => "TTL_TOO_LONG",
            Self::RenewalsUsedUp { .. } => "RENEWALS_USED_UP",
            Self::BindingNotForKind => "BINDING_NOT_FOR_KIND",
            Self::BindingRequired(_) => "BINDING_REQUIRED",
            Self::CertificateRequired => "CERTIFICATE_REQUIRED",
            Self::LifetimeTooShort(_) => "LIFETIME_TOO_SHORT",
            Self::GrantAmbiguous(..) => "GRANT_AMBIGUOUS",
            Self::BeyondTask { .. } => "BEYOND_TASK",
            Self::TaskTooLong { .. } => "TASK_TOO_LONG",
            Self::ParentEndsSooner(_) => "PARENT_ENDS_SOONER",
            Self::ProofEndsSooner(_) => "PROOF_ENDS_SOONER",
            Self::Policy(refusal) => match refusal.by {
                RefusedBy::Policy => "POLICY_REFUSED",
                RefusedBy::Error => "POLICY_ERROR",
                RefusedBy::Unreadable => "POLICY_UNREADABLE",
            },
        }
    }

    /// What the policies said in full; for operators.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyRefusal> {
        if let Self::Policy(refusal) = self { Some(refusal) } else { None }
    }

    /// Where policies in shadow say otherwise.
    #[must_use]
    pub fn shadow(&self) -> &[Difference] {
        self.policy().map_or(&[], |policy| &policy.shadow)
    }

    /// Whether the caller may be told. Who is no workload of the tenant is told nothing about it.
    #[must_use]
    pub fn is_for_the_caller(&self) -> bool {
        !matches!(self, Self::UnknownWorkload | Self::AmbiguousWorkload)
    }
}
