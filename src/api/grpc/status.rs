//! Why a request was refused, in gRPC's words: the only place that chooses a status code.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    broker::{IdentityRefusal, Refusal},
    model::Chain,
    policy::{Denied, Problems},
};

/// The status of a refusal, with `google.rpc` details; counts it, and logs it when it is our failure.
#[must_use]
pub fn of(refusal: &Refusal) -> Status {
    let reason = reason(refusal);
    metrics::counter!("mayfly_refused_total", "reason" => reason).increment(1);
    if let Refusal::Fault(error) = refusal {
        tracing::error!(error = %Chain(error.as_ref()), "a request failed");
    }
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata(refusal));
    let mut message = message(refusal);
    match refusal {
        Refusal::Invalid { field, problem } => {
            details.set_bad_request(vec![FieldViolation::new(*field, limited(problem.clone()))]);
        }
        Refusal::Problems(problems) => {
            let violations = violations(problems);
            message = told(problems, violations.len());
            details.set_bad_request(violations);
        }
        Refusal::Busy { retry_ms } => {
            details.set_retry_info(Some(Duration::from_millis(u64::from(*retry_ms))));
        }
        Refusal::Approval(_)
        | Refusal::Barred(_)
        | Refusal::Denied(_)
        | Refusal::Ended { .. }
        | Refusal::Fault(_)
        | Refusal::Held(_)
        | Refusal::Identity(_)
        | Refusal::NotAllowed(_)
        | Refusal::PickedUp
        | Refusal::Unavailable(_)
        | Refusal::Quota(_)
        | Refusal::RetryMismatch
        | Refusal::RevisionGone
        | Refusal::SecretUnavailable(_)
        | Refusal::Suspended(_)
        | Refusal::Unknown(_)
        | Refusal::Unproven(_) => {}
    }
    Status::with_error_details(code(refusal), limited(message), details)
}

/// The status of a refusal as SPIFFE's Workload API and SDS tell it, whose clients go by the code: only what the request
/// itself gets wrong is never tried again, and who has no identity is told no more than that
/// (SPIFFE_Workload_Endpoint.md section 6).
#[must_use]
pub fn of_local(refusal: &Refusal) -> Status {
    metrics::counter!("mayfly_refused_total", "reason" => refusal.reason()).increment(1);
    match refusal {
        Refusal::Invalid { .. } => Status::invalid_argument(limited(refusal.to_string())),
        Refusal::Fault(error) => {
            tracing::error!(error = %Chain(error.as_ref()), "a request failed");
            Status::unavailable("internal error; try again")
        }
        Refusal::Busy { .. }
        | Refusal::Held(_)
        | Refusal::Problems(_)
        | Refusal::Quota(_)
        | Refusal::RetryMismatch
        | Refusal::RevisionGone
        | Refusal::Unavailable(_) => Status::unavailable(limited(refusal.to_string())),
        Refusal::Approval(_)
        | Refusal::Barred(_)
        | Refusal::Denied(_)
        | Refusal::Ended { .. }
        | Refusal::Identity(_)
        | Refusal::NotAllowed(_)
        | Refusal::PickedUp
        | Refusal::SecretUnavailable(_)
        | Refusal::Suspended(_)
        | Refusal::Unknown(_)
        | Refusal::Unproven(_) => {
            tracing::debug!(%refusal, "no identity for a local process");
            Status::permission_denied(NO_IDENTITY)
        }
    }
}

/// The status of a method or service that this listener does not offer.
#[must_use]
pub fn not_offered() -> Status {
    Status::unimplemented("this listener does not offer that")
}

/// A code as metrics name it.
#[must_use]
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Denied(denied) => code_of_denied(denied),
        Refusal::Barred(_) | Refusal::NotAllowed(_) => Code::PermissionDenied,
        Refusal::Approval(_)
        | Refusal::Ended { .. }
        | Refusal::PickedUp
        | Refusal::RetryMismatch
        | Refusal::SecretUnavailable(_)
        | Refusal::Suspended(_) => Code::FailedPrecondition,
        Refusal::Fault(_) => Code::Internal,
        Refusal::Identity(IdentityRefusal::Unavailable) => Code::Unavailable,
        Refusal::Identity(IdentityRefusal::NotMapped | IdentityRefusal::NotProvisioned | IdentityRefusal::Closed) => {
            Code::PermissionDenied
        }
        Refusal::Identity(_) => Code::Unauthenticated,
        Refusal::Invalid { .. } | Refusal::Problems(_) => Code::InvalidArgument,
        Refusal::Held(_) | Refusal::Unavailable(_) => Code::Unavailable,
        Refusal::Quota(_) | Refusal::Busy { .. } => Code::ResourceExhausted,
        Refusal::RevisionGone => Code::OutOfRange,
        Refusal::Unknown(_) => Code::NotFound,
        Refusal::Unproven(_) => Code::Unauthenticated,
    }
}

/// What a change of the request mends is its argument's fault; what only time mends, a precondition; the rest is policy.
fn code_of_denied(denied: &Denied) -> Code {
    match denied {
        Denied::AudienceRequired
        | Denied::DnsNamesNotForKind { .. }
        | Denied::BindingNotForKind
        | Denied::GrantAmbiguous(..) => Code::InvalidArgument,
        Denied::ApprovalNeeded { .. }
        | Denied::LifetimeTooShort(_)
        | Denied::ParentEndsSooner(_)
        | Denied::ProofEndsSooner(_) => Code::FailedPrecondition,
        Denied::UnknownWorkload
        | Denied::AmbiguousWorkload
        | Denied::PartnerNotGranted(_)
        | Denied::UnknownGrant(_)
        | Denied::WorkloadNotGranted { .. }
        | Denied::EnvironmentMismatch { .. }
        | Denied::SourceNotGranted { .. }
        | Denied::PurposeNotGranted(_)
        | Denied::KindNotGranted { .. }
        | Denied::AudienceNotGranted { .. }
        | Denied::ActionNotGranted { .. }
        | Denied::DnsNameNotGranted { .. }
        | Denied::SecretNotGranted { .. }
        | Denied::GrantExpired { .. }
        | Denied::AttestationOverdue { .. }
        | Denied::GrantDormant { .. }
        | Denied::TtlTooLong { .. }
        | Denied::RenewalsUsedUp { .. }
        | Denied::BindingRequired(_)
        | Denied::CertificateRequired
        | Denied::BeyondTask { .. }
        | Denied::TaskTooLong { .. }
        | Denied::Policy(_) => Code::PermissionDenied,
    }
}

/// The reason as callers see it: whoever is no workload of a tenant gets one answer, whether or not there is one.
fn reason(refusal: &Refusal) -> &'static str {
    if is_uniform(refusal) { Denied::UnknownWorkload.reason() } else { refusal.reason() }
}

fn message(refusal: &Refusal) -> String {
    if is_uniform(refusal) {
        return Denied::UnknownWorkload.to_string();
    }
    // What is not there and what the caller may not know of must read the same, whichever check found it.
    if matches!(refusal, Refusal::Unknown(_)) { UNKNOWN.to_owned() } else { refusal.to_string() }
}

fn is_uniform(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Denied(denied) if !denied.is_for_the_caller())
}

fn metadata(refusal: &Refusal) -> HashMap<String, String> {
    let pairs: Vec<(&str, String)> = match refusal {
        Refusal::Denied(denied) => grant(denied).map(|grant| ("grant", grant)).into_iter().collect(),
        Refusal::Ended { what, why } => vec![("what", (*what).to_owned()), ("why", why.word().to_owned())],
        Refusal::Invalid { field, .. } => vec![("field", (*field).to_owned())],
        Refusal::Problems(problems) => vec![("problems", (problems.list().len() + problems.more()).to_string())],
        Refusal::Quota(whose) => vec![("quota", (*whose).to_owned())],
        Refusal::Suspended(what) => vec![("what", (*what).to_owned())],
        Refusal::SecretUnavailable(secret) => vec![("secret", secret.to_string())],
        Refusal::Approval(standing) => vec![("standing", standing.word().to_owned())],
        Refusal::Barred(_)
        | Refusal::Fault(_)
        | Refusal::Held(_)
        | Refusal::Identity(_)
        | Refusal::NotAllowed(_)
        | Refusal::PickedUp
        | Refusal::Unavailable(_)
        | Refusal::Busy { .. }
        | Refusal::RetryMismatch
        | Refusal::RevisionGone
        | Refusal::Unknown(_)
        | Refusal::Unproven(_) => Vec::new(),
    };
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The grant that a denial is about.
fn grant(denied: &Denied) -> Option<String> {
    match denied {
        Denied::UnknownGrant(grant)
        | Denied::BindingRequired(grant)
        | Denied::WorkloadNotGranted { grant, .. }
        | Denied::EnvironmentMismatch { grant, .. }
        | Denied::SourceNotGranted { grant }
        | Denied::KindNotGranted { grant, .. }
        | Denied::AudienceNotGranted { grant, .. }
        | Denied::ActionNotGranted { grant, .. }
        | Denied::DnsNameNotGranted { grant, .. }
        | Denied::SecretNotGranted { grant, .. }
        | Denied::GrantExpired { grant, .. }
        | Denied::AttestationOverdue { grant, .. }
        | Denied::GrantDormant { grant, .. }
        | Denied::ApprovalNeeded { grant, .. }
        | Denied::TtlTooLong { grant, .. }
        | Denied::RenewalsUsedUp { grant, .. } => Some(grant.to_string()),
        Denied::UnknownWorkload
        | Denied::AmbiguousWorkload
        | Denied::PartnerNotGranted(_)
        | Denied::PurposeNotGranted(_)
        | Denied::AudienceRequired
        | Denied::DnsNamesNotForKind { .. }
        | Denied::BindingNotForKind
        | Denied::CertificateRequired
        | Denied::LifetimeTooShort(_)
        | Denied::GrantAmbiguous(..)
        | Denied::BeyondTask { .. }
        | Denied::TaskTooLong { .. }
        | Denied::ParentEndsSooner(_)
        | Denied::ProofEndsSooner(_)
        | Denied::Policy(_) => None,
    }
}

/// One violation a problem, as many as fit: details travel in a header, and clients bound their headers.
fn violations(problems: &Problems) -> Vec<FieldViolation> {
    let mut room = PROBLEMS_MAX_BYTES;
    let mut violations = Vec::new();
    for problem in problems.list() {
        let place = format!("{}:{}: {}; {}", problem.path, problem.line, problem.message, problem.help);
        let description = limited(place);
        let bytes = problem.field.len() + description.len();
        if bytes > room && !violations.is_empty() {
            break;
        }
        room = room.saturating_sub(bytes);
        violations.push(FieldViolation::new(problem.field.clone(), description));
    }
    violations
}

fn told(problems: &Problems, listed: usize) -> String {
    match problems.list().len() + problems.more() {
        1 => "the trust map has a problem".to_owned(),
        all if all == listed => format!("the trust map has {all} problems"),
        all => format!("the trust map has {all} problems; these are the first {listed}"),
    }
}

/// Cuts what may echo a request down to what a header holds.
fn limited(mut text: String) -> String {
    if text.len() > TEXT_MAX_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
        text.push_str("...");
    }
    text
}

/// Clients know these words.
const NO_IDENTITY: &str = "no identity issued";
const DOMAIN: &str = "mayfly";
const UNKNOWN: &str = "there is none of this name that you may know of";
/// Of one text.
const TEXT_MAX_BYTES: usize = 512;
/// Of all problems in one answer. With Base64 and the rest, the answer stays under the 8 KiB that all clients take.
const PROBLEMS_MAX_BYTES: usize = 4_096;

#[cfg(test)]
mod tests;
