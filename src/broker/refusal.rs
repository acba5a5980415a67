//! Why the broker did not do as asked, split by blame.

use super::federate::IdentityRefusal;
use crate::{
    ledger::Refused,
    model::{ApprovalStanding, EndReason, ScopeId, SecretName, secret::EntropyUnavailable},
    policy::{Denied, Problems},
};

/// Why the broker did not do as asked. Nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The approval cannot be used, or no longer changed; where it stands.
    #[error("the approval {}", approval_words(*.0))]
    Approval(ApprovalStanding),
    /// A scope of the request is barred.
    #[error("this is barred for now; ask the grant's owner")]
    Barred(ScopeId),
    /// Policy says no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The lease or task is over.
    #[error("the {what} has ended: {}", .why.word())]
    Ended {
        /// `lease` or `task`.
        what: &'static str,
        /// Why.
        why: EndReason,
    },
    /// We failed.
    #[error("internal error")]
    Fault(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing is begun for now.
    #[error("nothing is issued for now: {0}")]
    Held(&'static str),
    /// An identity token, or the key beside it.
    #[error(transparent)]
    Identity(#[from] IdentityRefusal),
    /// A field of the request.
    #[error("`{field}` {problem}")]
    Invalid {
        /// Its name in the contract.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The caller's role or scope does not reach so far.
    #[error("your role does not allow this: {0}")]
    NotAllowed(&'static str),
    /// The daemon has no room or no store.
    #[error("{0}; try again")]
    Unavailable(&'static str),
    /// The handle was used before, or by somebody who may not use it.
    #[error(
        "the handle was used before, or is not for you; the credential behind it is revoked now, and its owner is told"
    )]
    PickedUp,
    /// The grant hands the static secret out, and there is none to be handed out.
    #[error(
        "secret `{0}` cannot be handed out: nobody put it for this partner, or it was retired; ask the grant's owner"
    )]
    SecretUnavailable(SecretName),
    /// The trust files have problems.
    #[error("the trust map has problems")]
    Problems(Problems),
    /// A quota is used up.
    #[error("the quota of live leases of the {0} is used up")]
    Quota(&'static str),
    /// Too many requests of this caller, or of all.
    #[error("too many requests; try again in {retry_ms} ms")]
    Busy {
        /// When to try again, in milliseconds.
        retry_ms: u32,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request; use a new one")]
    RetryMismatch,
    /// The revision to resume from is gone, or of another incarnation.
    #[error("the revision to resume from is gone; start anew")]
    RevisionGone,
    /// The task or lease is suspended.
    #[error("the {0} is suspended")]
    Suspended(&'static str),
    /// There is none, or none that the caller may know of.
    #[error("no such {0}")]
    Unknown(&'static str),
    /// The caller proved nothing, or nothing that counts here.
    #[error("{0}")]
    Unproven(&'static str),
}

impl Refusal {
    /// The stable reason code (`google.rpc.ErrorInfo.reason`).
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Approval(ApprovalStanding::Open) => "APPROVAL_PENDING",
            Self::Approval(_) => "APPROVAL_OVER",
            Self::Barred(_) => "BARRED",
            Self::Denied(denied) => denied.reason(),
            Self::Ended { what: "task", .. } => "TASK_ENDED",
            Self::Ended { .. } => "LEASE_ENDED",
            Self::Fault(_) => "INTERNAL",
            Self::Held(_) => "ISSUING_HELD",
            Self::Identity(refusal) => refusal.reason(),
            Self::Invalid { .. } => "INVALID_FIELD",
            Self::NotAllowed(_) => "NOT_ALLOWED",
            Self::Unavailable(_) => "UNAVAILABLE",
            Self::PickedUp => "PICKED_UP",
            Self::SecretUnavailable(_) => "SECRET_UNAVAILABLE",
            Self::Problems(_) => "TRUST_MAP_INVALID",
            Self::Quota(_) => "QUOTA_USED_UP",
            Self::Busy { .. } => "TOO_MANY_REQUESTS",
            Self::RetryMismatch => "IDEMPOTENCY_KEY_REUSED",
            Self::RevisionGone => "REVISION_GONE",
            Self::Suspended(_) => "SUSPENDED",
            Self::Unknown(_) => "NOT_FOUND",
            Self::Unproven(_) => "UNPROVEN",
        }
    }

    /// Whether it is ours to mend.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Fault(_))
    }

    /// A field's problem.
    #[must_use]
    pub fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    /// A failure of ours.
    #[must_use]
    pub fn fault(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Fault(error.into())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Barred(scope) => Self::Barred(scope),
            // Decided anew a few times, and changed again each time.
            Refused::Moved | Refused::Busy => Self::Busy { retry_ms: 50 },
            Refused::TaskEnded(why) => Self::Ended { what: "task", why },
            Refused::Approval(standing) => Self::Approval(standing),
            Refused::Involved => Self::NotAllowed(INVOLVED),
            Refused::TooFast(_) => Self::Suspended("task"),
            Refused::TaskSuspended => Self::Suspended("task"),
            Refused::LeaseEnded(why) => Self::Ended { what: "lease", why },
            Refused::Unknown => Self::Unknown("lease or task"),
            Refused::Quota(whose) => Self::Quota(whose),
            Refused::TokenSpent { .. } => Self::Identity(IdentityRefusal::Spent),
            Refused::TokenOpened => Self::Identity(IdentityRefusal::Opened),
            Refused::RetryMismatch => Self::RetryMismatch,
            Refused::KeyNeeded => Self::NotAllowed("it goes to who comes with a certificate, or is on this host"),
            Refused::Held(why) => Self::Held(why),
            Refused::StoreFailed => Self::Unavailable("the store failed"),
            Refused::StoreFull => Self::Unavailable("no space is left for the store"),
            Refused::Unanchored => {
                Self::Unavailable("it is in force, but the anchor cannot be written; mend that and repeat it")
            }
            Refused::Stopping => Self::Unavailable("the broker is stopping"),
        }
    }
}

impl From<EntropyUnavailable> for Refusal {
    fn from(_: EntropyUnavailable) -> Self {
        Self::Unavailable("the system has no entropy")
    }
}

fn approval_words(standing: ApprovalStanding) -> &'static str {
    match standing {
        ApprovalStanding::Open => "waits for more people to agree; see `mayfly approval show`",
        ApprovalStanding::Granted => "can be used",
        ApprovalStanding::Used => "is used by another task, or is for another; ask for one of its own",
        ApprovalStanding::Denied => "was denied",
        ApprovalStanding::Withdrawn => "was withdrawn; ask anew",
        ApprovalStanding::Void => "is void: the grant changed since, or the store was restored; ask anew",
        ApprovalStanding::Expired => "is past its time; ask anew",
    }
}

/// Who asked for something, or has agreed to it already, by name or by key.
pub(super) const INVOLVED: &str = "who asked for it, or has agreed to it already, does not agree to it";
