//! The acts of the demo, in their order.

pub(super) mod audit;
mod begin;
mod crash;
mod job;
mod revoke;
mod task;
mod tenant;

use crate::cli::failure::{Failure, Outcome};

use super::{report::Report, stage::Stage};

/// One act. Each shows something of its own, so that one that fails does not hide the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Act {
    /// The trust map.
    Apply,
    /// A credential of each kind.
    Issue,
    /// Each of them checked, by asking and offline.
    Check,
    /// One tenant's credentials and workloads in the other.
    Tenant,
    /// A CI job with its platform's identity token.
    Job,
    /// A task that completes.
    Complete,
    /// A lease whose time runs out.
    Expire,
    /// A lease that is renewed.
    Renew,
    /// A partner that is revoked, and lifted again.
    Revoke,
    /// A stolen token.
    Bind,
    /// What the audit says of all this.
    Audit,
    /// A daemon that crashes.
    Crash,
}

impl Act {
    /// All, in order.
    pub const ALL: &[Self] = &[
        Self::Apply,
        Self::Issue,
        Self::Check,
        Self::Tenant,
        Self::Job,
        Self::Complete,
        Self::Expire,
        Self::Renew,
        Self::Revoke,
        Self::Bind,
        Self::Audit,
        Self::Crash,
    ];

    /// The step's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Issue => "issue",
            Self::Check => "check",
            Self::Tenant => "tenant",
            Self::Job => "job",
            Self::Complete => "complete",
            Self::Expire => "expire",
            Self::Renew => "renew",
            Self::Revoke => "revoke",
            Self::Bind => "bind",
            Self::Audit => "audit",
            Self::Crash => "crash",
        }
    }

    /// Plays it and reports what it proves.
    ///
    /// # Errors
    /// When it cannot go on.
    pub async fn play(self, stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
        match self {
            Self::Apply => begin::apply(stage, report).await,
            Self::Issue => begin::issue(stage, report).await,
            Self::Check => begin::check(stage, report).await,
            Self::Tenant => tenant::play(stage, report).await,
            Self::Job => job::play(stage, report).await,
            Self::Complete => task::complete(stage, report).await,
            Self::Expire => task::expire(stage, report).await,
            Self::Renew => task::renew(stage, report).await,
            Self::Revoke => revoke::play(stage, report).await,
            Self::Bind => tenant::bind(stage, report).await,
            Self::Audit => audit::play(stage, report).await,
            Self::Crash => crash::play(stage, report).await,
        }
    }
}

/// `None` when it is so, and what is wrong otherwise.
fn unless(so: bool, otherwise: impl Into<String>) -> Option<String> {
    (!so).then(|| otherwise.into())
}

/// A refusal by the broker as `Ok` with its reason; anything else that is no answer as an error.
fn refusal<T>(reply: Result<T, tonic::Status>) -> Outcome<Option<String>> {
    match reply {
        Ok(_) => Ok(None),
        Err(status) if crate::client::unreachable(&status) => Err(status.into()),
        Err(status) => Ok(Some(crate::client::reason(&status).unwrap_or_else(|| status.code().to_string()))),
    }
}

fn incomplete() -> Failure {
    Failure::Internal("the broker's reply is incomplete".into())
}
