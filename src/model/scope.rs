//! What can be cut or barred.

use std::{fmt, sync::LazyLock};

use super::{
    id::{GrantName, IssuerName, LeaseId, PartnerName, SecretName, TaskId, TenantName, WorkloadName},
    secret::Digest,
};

/// One thing that can be cut or barred, by name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// Everything: written when time itself is in doubt.
    Everything,
    /// One grant.
    Grant(TenantName, GrantName),
    /// An issuer of identity tokens.
    Issuer(IssuerName),
    /// One lease, as the parent of others.
    Lease(LeaseId),
    /// A partner in every tenant.
    Partner(PartnerName),
    /// A partner within one tenant.
    PartnerInTenant(TenantName, PartnerName),
    /// A caller's certificate, identity token or key of its own.
    Proof(Digest),
    /// A static secret of a tenant.
    Secret(TenantName, SecretName),
    /// A signing key, by key id.
    SigningKey(String),
    /// One task.
    Task(TaskId),
    /// A whole tenant.
    Tenant(TenantName),
    /// One workload.
    Workload(TenantName, WorkloadName),
}

impl Scope {
    /// The id under which tokens, certificates and the ledger carry this scope.
    ///
    /// One kind byte and 11 bytes of SHA-256 over the names. Names of one tenant cannot be made to meet another's
    /// without a second preimage of 88 bits; a collision could only end too much, never too little.
    #[must_use]
    pub fn id(&self) -> ScopeId {
        match self {
            Self::Everything => ScopeId::everything(),
            Self::Tenant(t) => ScopeId::tenant(t),
            Self::Partner(p) => ScopeId::partner(p),
            Self::PartnerInTenant(t, p) => ScopeId::partner_in_tenant(t, p),
            Self::Grant(t, g) => ScopeId::grant(t, g),
            Self::Workload(t, w) => ScopeId::workload(t, w),
            Self::Proof(d) => ScopeId::new(6, *d),
            Self::Task(id) => ScopeId::task(*id),
            Self::Lease(id) => ScopeId::lease(*id),
            Self::SigningKey(kid) => ScopeId::signing_key(kid),
            Self::Secret(t, s) => ScopeId::secret(t, s),
            Self::Issuer(name) => ScopeId::new(10, Digest::of(name.as_str().as_bytes())),
        }
    }

    /// The word for its kind.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Grant(..) => "grant",
            Self::Issuer(_) => "issuer",
            Self::Lease(_) => "lease",
            Self::Partner(_) => "partner",
            Self::PartnerInTenant(..) => "partner in tenant",
            Self::Proof(_) => "proof",
            Self::Secret(..) => "secret",
            Self::SigningKey(_) => "signing key",
            Self::Task(_) => "task",
            Self::Tenant(_) => "tenant",
            Self::Workload(..) => "workload",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Grant(t, g) => write!(f, "grant {t}/{g}"),
            Self::Issuer(name) => write!(f, "issuer {name}"),
            Self::Lease(id) => write!(f, "lease {id}"),
            Self::Partner(p) => write!(f, "partner {p}"),
            Self::PartnerInTenant(t, p) => write!(f, "partner {p} in tenant {t}"),
            Self::Proof(d) => write!(f, "proof {d}"),
            Self::Secret(t, s) => write!(f, "secret {t}/{s}"),
            Self::SigningKey(kid) => write!(f, "signing key {kid}"),
            Self::Task(id) => write!(f, "task {id}"),
            Self::Tenant(t) => write!(f, "tenant {t}"),
            Self::Workload(t, w) => write!(f, "workload {t}/{w}"),
        }
    }
}

/// A scope in 12 bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ScopeId([u8; Self::BYTES]);

/// By name, for who has the name and need not keep the scope.
#[expect(missing_docs, reason = "each is the id of the scope of that name")]
impl ScopeId {
    #[must_use]
    pub fn everything() -> Self {
        static EVERYTHING: LazyLock<ScopeId> = LazyLock::new(|| ScopeId::new(0, Digest::of(b"everything")));
        *EVERYTHING
    }

    #[must_use]
    pub fn tenant(tenant: &TenantName) -> Self {
        Self::new(1, Digest::of(tenant.as_str().as_bytes()))
    }

    #[must_use]
    pub fn partner(partner: &PartnerName) -> Self {
        Self::new(2, Digest::of(partner.as_str().as_bytes()))
    }

    #[must_use]
    pub fn partner_in_tenant(tenant: &TenantName, partner: &PartnerName) -> Self {
        Self::new(3, pair(tenant.as_str(), partner.as_str()))
    }

    #[must_use]
    pub fn grant(tenant: &TenantName, grant: &GrantName) -> Self {
        Self::new(4, pair(tenant.as_str(), grant.as_str()))
    }

    #[must_use]
    pub fn workload(tenant: &TenantName, workload: &WorkloadName) -> Self {
        Self::new(5, pair(tenant.as_str(), workload.as_str()))
    }

    #[must_use]
    pub fn task(task: TaskId) -> Self {
        Self::new(7, Digest::of(task.as_bytes()))
    }

    #[must_use]
    pub fn lease(lease: LeaseId) -> Self {
        Self::new(8, Digest::of(lease.as_bytes()))
    }

    #[must_use]
    pub fn signing_key(key_id: &str) -> Self {
        Self::new(9, Digest::of(key_id.as_bytes()))
    }

    #[must_use]
    pub fn secret(tenant: &TenantName, secret: &SecretName) -> Self {
        Self::new(11, pair(tenant.as_str(), secret.as_str()))
    }

    fn new(kind: u8, digest: Digest) -> Self {
        let mut id = [kind; Self::BYTES];
        id.iter_mut().skip(1).zip(digest.0).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

impl ScopeId {
    /// Length in keys, records, tokens and certificates.
    pub const BYTES: usize = 12;

    /// As in keys.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Whether it is one task's or one lease's, of which there are many.
    #[must_use]
    pub fn is_of_one_task(&self) -> bool {
        matches!(self.0.first(), Some(7 | 8))
    }

    /// `None` unless 12 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Splits a concatenation as records and tokens hold it; a rest shorter than an id is an error.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<Vec<Self>> {
        let chunks = bytes.chunks_exact(Self::BYTES);
        if !chunks.remainder().is_empty() {
            return None;
        }
        chunks.map(Self::from_slice).collect()
    }

    /// The inverse of [`Self::split`].
    #[must_use]
    pub fn join(ids: &[Self]) -> Vec<u8> {
        ids.iter().flat_map(|id| id.0).collect()
    }
}

impl fmt::Debug for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::id::hex(&self.0))
    }
}

/// Names cannot hold `/`, so the pair is unambiguous.
fn pair(a: &str, b: &str) -> Digest {
    Digest::of_parts(&[a.as_bytes(), b"/", b.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantNumber;

    #[test]
    fn every_scope_has_an_id_of_its_own_and_only_tasks_and_leases_are_many() {
        let task = TaskId::fresh(TenantNumber::new(3).expect("in range")).expect("entropy");
        let lease = LeaseId::fresh(task).expect("entropy");
        let (tenant, partner) = (|| "a".parse().expect("a name"), || "a".parse().expect("a name"));
        let scopes = [
            (Scope::Everything, false),
            (Scope::Tenant(tenant()), false),
            (Scope::Partner(partner()), false),
            (Scope::PartnerInTenant(tenant(), partner()), false),
            (Scope::Grant(tenant(), "a".parse().expect("a name")), false),
            (Scope::Workload(tenant(), "a".parse().expect("a name")), false),
            (Scope::Proof(Digest::of(b"a")), false),
            (Scope::Task(task), true),
            (Scope::Lease(lease), true),
            (Scope::SigningKey("a".to_owned()), false),
            (Scope::Issuer("a".parse().expect("a name")), false),
            (Scope::Secret(tenant(), "a".parse().expect("a name")), false),
        ];
        for (at, (scope, is_of_one_task)) in scopes.iter().enumerate() {
            assert_eq!(scope.id().is_of_one_task(), *is_of_one_task, "{scope}");
            assert!(scopes.iter().skip(at + 1).all(|(other, _)| other.id() != scope.id()), "{scope}");
        }
    }

    #[test]
    fn joined_ids_are_split_again_and_no_part_of_one_is_passed_over() {
        let ids = [ScopeId::everything(), ScopeId::signing_key("k")];
        let joined = ScopeId::join(&ids);
        assert_eq!(ScopeId::split(&joined), Some(ids.to_vec()));
        assert_eq!(ScopeId::split(&[]), Some(vec![]));
        for cut in 1..ScopeId::BYTES {
            assert_eq!(ScopeId::split(joined.split_at(joined.len() - cut).0), None, "{cut} bytes are missing");
        }
    }
}
