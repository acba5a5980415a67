//! A scope on the command line: a kind and a name.

use clap::{Args, ValueEnum};

use crate::{
    model::{GrantName, IssuerName, LeaseId, PartnerName, SecretName, TaskId, TenantName, WorkloadName, id::InvalidId},
    pb::{self, ScopeKind},
};

use super::{
    arg,
    failure::{Failure, Outcome},
};

/// What can be revoked or barred.
#[derive(Args, Clone, Debug)]
pub struct ScopeArgs {
    /// What kind of thing.
    #[arg(value_enum, requires = "name")]
    pub kind: Option<ScopeWord>,
    /// Its name: a lease's or task's id; TENANT/GRANT; TENANT/WORKLOAD; the SHA-256 of a client certificate, of what was
    /// signed of an identity token, or of a client's own key (proof);
    /// PARTNER everywhere, or TENANT/PARTNER in one tenant; TENANT; a signing key's id; an issuer's name; TENANT/SECRET.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Kinds of scopes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ScopeWord {
    /// One lease.
    Lease,
    /// One task and everything under it.
    Task,
    /// One grant.
    Grant,
    /// One workload.
    Workload,
    /// One client certificate, identity token or client's own key, and everything obtained with it.
    Proof,
    /// A partner.
    Partner,
    /// A whole tenant.
    Tenant,
    /// One signing key.
    Key,
    /// An issuer of identity tokens, and everything obtained with them.
    Issuer,
    /// One static secret: its leases. The value itself ends at its vendor.
    Secret,
}

impl ScopeArgs {
    /// The scope, or `None` when no kind was given.
    ///
    /// # Errors
    /// When the name is not one of its kind.
    pub fn scope(&self) -> Outcome<Option<pb::Scope>> {
        match (self.kind, &self.name) {
            (Some(kind), Some(name)) => scope(kind, name).map(Some),
            (None, None) => Ok(None),
            (Some(_), None) | (None, Some(_)) => Err(Failure::Usage("a scope is a KIND and a NAME".into())),
        }
    }

    /// The scope.
    ///
    /// # Errors
    /// When none was given, or the name is not one of its kind.
    pub fn required(&self) -> Outcome<pb::Scope> {
        self.scope()?.ok_or_else(|| Failure::Usage("name what: a KIND and a NAME, such as grant acme/ci-deploy".into()))
    }
}

/// Parses `TENANT/GRANT`.
///
/// # Errors
/// When it is not that.
pub fn grant_path(text: &str) -> Outcome<(String, String)> {
    let scope = scope(ScopeWord::Grant, text)?;
    Ok((scope.tenant, scope.grant))
}

fn scope(kind: ScopeWord, name: &str) -> Outcome<pb::Scope> {
    let of = |kind: ScopeKind| pb::Scope { kind: kind.into(), ..pb::Scope::default() };
    Ok(match kind {
        ScopeWord::Lease => pb::Scope { lease_id: parsed::<LeaseId>(name)?, ..of(ScopeKind::Lease) },
        ScopeWord::Task => pb::Scope { task_id: parsed::<TaskId>(name)?, ..of(ScopeKind::Task) },
        ScopeWord::Grant => {
            let (tenant, grant) = in_tenant::<GrantName>(name)?;
            pb::Scope { tenant, grant, ..of(ScopeKind::Grant) }
        }
        ScopeWord::Workload => {
            let (tenant, workload) = in_tenant::<WorkloadName>(name)?;
            pb::Scope { tenant, workload, ..of(ScopeKind::Workload) }
        }
        ScopeWord::Proof => {
            let proof_sha256 = arg::sha256(name).map_err(|why| Failure::Usage(format!("`{name}`: {why}")))?;
            pb::Scope { proof_sha256, ..of(ScopeKind::Proof) }
        }
        ScopeWord::Partner if name.contains('/') => {
            let (tenant, partner) = in_tenant::<PartnerName>(name)?;
            pb::Scope { tenant, partner, ..of(ScopeKind::PartnerInTenant) }
        }
        ScopeWord::Partner => pb::Scope { partner: parsed::<PartnerName>(name)?, ..of(ScopeKind::Partner) },
        ScopeWord::Tenant => pb::Scope { tenant: parsed::<TenantName>(name)?, ..of(ScopeKind::Tenant) },
        ScopeWord::Secret => {
            let (tenant, secret) = in_tenant::<SecretName>(name)?;
            pb::Scope { tenant, secret, ..of(ScopeKind::Secret) }
        }
        ScopeWord::Issuer => pb::Scope { issuer: parsed::<IssuerName>(name)?, ..of(ScopeKind::Issuer) },
        ScopeWord::Key if name.is_empty() || name.len() > KEY_ID_MAX_BYTES => {
            return Err(Failure::Usage("a key id has 1 to 64 bytes".into()));
        }
        ScopeWord::Key => pb::Scope { key_id: name.to_owned(), ..of(ScopeKind::SigningKey) },
    })
}

fn in_tenant<N: std::str::FromStr<Err = InvalidId> + ToString>(text: &str) -> Outcome<(String, String)> {
    let (tenant, name) =
        text.split_once('/').ok_or_else(|| Failure::Usage(format!("`{text}`: expected TENANT/NAME")))?;
    Ok((parsed::<TenantName>(tenant)?, parsed::<N>(name)?))
}

fn parsed<N: std::str::FromStr<Err = InvalidId> + ToString>(text: &str) -> Outcome<String> {
    text.parse::<N>().map(|name| name.to_string()).map_err(|why| Failure::Usage(format!("`{text}` {why}")))
}

const KEY_ID_MAX_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::revocation::scope_text;

    const TASK: &str = "400000010000000000000001";
    const LEASE: &str = "4000000100000000000000010000000000000002";

    #[test]
    fn a_scope_reads_back_as_it_was_written() {
        let check = |kind, name: &str, want: ScopeKind| {
            let scope = scope(kind, name).expect(name);
            assert_eq!(scope.kind, i32::from(want));
            assert!(scope_text(&scope).ends_with(&format!(" {name}")), "{}", scope_text(&scope));
        };
        check(ScopeWord::Lease, LEASE, ScopeKind::Lease);
        check(ScopeWord::Task, TASK, ScopeKind::Task);
        check(ScopeWord::Grant, "acme/ci", ScopeKind::Grant);
        check(ScopeWord::Workload, "acme/runner", ScopeKind::Workload);
        check(ScopeWord::Proof, &"ab".repeat(32), ScopeKind::Proof);
        check(ScopeWord::Partner, "globex", ScopeKind::Partner);
        check(ScopeWord::Partner, "acme/globex", ScopeKind::PartnerInTenant);
        check(ScopeWord::Tenant, "acme", ScopeKind::Tenant);
        check(ScopeWord::Key, "k1", ScopeKind::SigningKey);
        check(ScopeWord::Issuer, "github", ScopeKind::Issuer);
        check(ScopeWord::Secret, "acme/stripe", ScopeKind::Secret);
    }

    #[test]
    fn a_name_of_another_kind_is_refused_before_anything_is_sent() {
        for (kind, name) in [
            (ScopeWord::Lease, TASK),
            (ScopeWord::Task, LEASE),
            (ScopeWord::Grant, "ci"),
            (ScopeWord::Grant, "acme/ci/x"),
            (ScopeWord::Tenant, "acme/x"),
            (ScopeWord::Tenant, "*"),
            (ScopeWord::Proof, "ab"),
            (ScopeWord::Key, ""),
        ] {
            assert!(matches!(scope(kind, name), Err(Failure::Usage(_))), "{name}");
        }
    }
}
