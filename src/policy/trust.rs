//! The trust map: parsed, normalised, immutable.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::{GrantName, OperatorName, PartnerName, SecretName, TenantName, WorkloadName, static_secret};

use super::{
    accountability::Accountability,
    cedar::{PolicyTexts, Sets},
    federated::Federated,
    grant::{Grant, ResourceClass},
    index::Derived,
    pattern::Pattern,
    sorted::{Reach, Sorted},
    spelling,
};

/// Everything that is trusted, by tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrustMap {
    /// What concerns more than one tenant.
    pub global: GlobalTrust,
    /// One entry a tenant.
    pub tenants: BTreeMap<TenantName, TenantTrust>,
}

/// What concerns more than one tenant: partners, operators, verifiers of several tenants.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalTrust {
    /// Parties that grants can name.
    pub partners: BTreeMap<PartnerName, Partner>,
    /// People and jobs that administer.
    pub operators: BTreeMap<OperatorName, Operator>,
    /// Resource servers of several tenants.
    pub verifiers: BTreeMap<String, GlobalVerifier>,
    /// Policies over every tenant; they only forbid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guardrails: Option<PolicyTexts>,
    #[serde(skip)]
    pub(super) sets: Sets,
    /// Whether it could not be read: then nothing is allowed.
    #[serde(skip)]
    pub(super) is_unreadable: bool,
}

impl GlobalTrust {
    /// What stands for one that cannot be read: nobody administers, and nothing is allowed.
    #[must_use]
    pub fn unreadable() -> Self {
        Self { is_unreadable: true, ..Self::default() }
    }
}

/// An outside party.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Partner {
    /// For people; 1 to 128 characters.
    pub display_name: String,
    /// Whom to call; 1 to 128 characters.
    pub contact: String,
    /// Live leases over all tenants.
    pub max_live_leases: u64,
}

/// Someone who administers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// What it may do.
    pub role: Role,
    /// In which tenants.
    pub tenants: Reach<TenantName>,
    /// For which partners.
    pub partners: Reach<PartnerName>,
    /// Owners of grants for whom it attests, beside the one of its own name.
    #[serde(default, skip_serializing_if = "spelling::is_empty")]
    pub speaks_for: Sorted<String>,
}

impl Operator {
    /// Whether an operator of this name attests what an owner answers for.
    #[must_use]
    pub fn answers_for(&self, name: &OperatorName, owner: &str) -> bool {
        name.as_str() == owner || self.speaks_for.iter().any(|known| known == owner)
    }
}

/// What an operator may do. Each role may do all that the ones before it may.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Auditor,
    /// Look and revoke.
    Revoker,
    /// Everything.
    Admin,
}

impl Role {
    /// The word in trust files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Revoker => "revoker",
            Self::Admin => "admin",
        }
    }
}

/// A resource server that may ask about credentials of several tenants.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalVerifier {
    /// Of which tenants.
    pub tenants: Reach<TenantName>,
    /// How it proves itself, and for which audiences it may ask.
    #[serde(flatten)]
    pub verifier: Verifier,
}

/// A resource server that may ask about credentials.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Verifier {
    /// How it proves itself.
    pub selectors: Sorted<Selector>,
    /// For which audiences it may ask.
    pub audiences: Reach<Pattern>,
}

impl Verifier {
    /// Whether it may ask about a credential that is for `audience`.
    #[must_use]
    pub fn may_see(&self, audience: &str) -> bool {
        match &self.audiences {
            Reach::All => true,
            Reach::Only(patterns) => patterns.iter().any(|pattern| pattern.fits(audience)),
        }
    }
}

/// One tenant's part of the trust map.
///
/// Invariant: built by [`super::parse()`] or from a row that it was written to; never changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TenantTrust {
    pub(super) name: TenantName,
    pub(super) issuer: Option<String>,
    pub(super) token_algorithm: TokenAlgorithm,
    pub(super) max_live_leases: u64,
    pub(super) workloads: BTreeMap<WorkloadName, Workload>,
    pub(super) grants: BTreeMap<GrantName, Grant>,
    pub(super) verifiers: BTreeMap<String, Verifier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dormant_after: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) accountability: BTreeMap<PartnerName, Accountability>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<PolicyTexts>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) resource_classes: BTreeMap<String, ResourceClass>,
    #[serde(skip)]
    pub(super) derived: Derived,
    #[serde(skip)]
    pub(super) sets: Sets,
}

impl TenantTrust {
    /// Live leases when the trust map says nothing.
    pub const DEFAULT_MAX_LIVE_LEASES: u64 = 1_000_000;
    /// Grants a tenant can have; so many workloads too.
    pub const MAX_GRANTS: usize = 2_000;
    /// Length of [`Self::to_bytes`].
    pub const MAX_BYTES: usize = 1 << 20;
    /// Entries of any list in the trust map.
    pub const MAX_LIST: usize = 64;

    /// The tenant.
    #[must_use]
    pub fn name(&self) -> &TenantName {
        &self.name
    }

    /// The token issuer, when it is not the broker's default for the tenant.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// How its tokens are signed.
    #[must_use]
    pub fn token_algorithm(&self) -> TokenAlgorithm {
        self.token_algorithm
    }

    /// Live leases that it may have.
    #[must_use]
    pub fn max_live_leases(&self) -> u64 {
        self.max_live_leases
    }

    /// Who may ask.
    #[must_use]
    pub fn workloads(&self) -> &BTreeMap<WorkloadName, Workload> {
        &self.workloads
    }

    /// What may be asked.
    #[must_use]
    pub fn grants(&self) -> &BTreeMap<GrantName, Grant> {
        &self.grants
    }

    /// Seconds without use after which a grant is dormant; never when `None`.
    #[must_use]
    pub fn dormant_after(&self) -> Option<u32> {
        self.dormant_after
    }

    /// Who answers for what, by partner.
    #[must_use]
    pub fn accountability(&self) -> &BTreeMap<PartnerName, Accountability> {
        &self.accountability
    }

    /// Through whom an integration was resold, from the provider to the customer; empty where it was not.
    #[must_use]
    pub fn resellers(&self, partner: &PartnerName) -> &[String] {
        self.accountability.get(partner).map_or(&[], |accountable| &accountable.chain)
    }

    /// What is worth more than other resources, by name.
    #[must_use]
    pub fn resource_classes(&self) -> &BTreeMap<String, ResourceClass> {
        &self.resource_classes
    }

    /// Whether a static secret is given only to who comes with a certificate, or from a process on this host: one of a class
    /// whose tokens are bound.
    #[must_use]
    pub fn asks_for_a_key(&self, secret: &SecretName) -> bool {
        let audience = static_secret::audience(secret);
        let mut bound = self.resource_classes.values().filter(|class| class.require_binding);
        bound.any(|class| class.audiences.iter().any(|own| own.fits(&audience)))
    }

    /// Its policies, when it has any.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyTexts> {
        self.policy.as_ref()
    }

    /// Resource servers of this tenant alone.
    #[must_use]
    pub fn verifiers(&self) -> &BTreeMap<String, Verifier> {
        &self.verifiers
    }
}

/// How a tenant's tokens are signed (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TokenAlgorithm {
    /// ECDSA over P-256: what everyone can check.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl TokenAlgorithm {
    /// The word in trust files and token headers.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Who may ask, and how it proves itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Any one of these is enough.
    pub selectors: Sorted<Selector>,
    /// Where it runs; grants of another environment are not for it.
    pub environment: String,
    /// Networks that it asks from; empty for any.
    #[serde(default, skip_serializing_if = "spelling::is_empty")]
    pub sources: Sorted<IpNet>,
}

/// One way to recognise a caller.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selector {
    /// A client certificate with this SPIFFE ID.
    SpiffeId {
        /// The whole ID.
        id: String,
        /// The CA set of the config that vouches for it; the broker's own when absent.
        authority: Option<String>,
    },
    /// A client certificate with this DNS name.
    DnsName {
        /// Lower case.
        name: String,
        /// The CA set of the config that vouches for it; never the broker's own, whose leaves say who they are by
        /// their SPIFFE ID alone.
        authority: String,
    },
    /// The other end of the Unix socket.
    Unix {
        /// User.
        uid: u32,
        /// Group; any when absent.
        gid: Option<u32>,
    },
    /// An identity token of an issuer from the config.
    Federated(Federated),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpiffeId { id, authority: None } => write!(f, "spiffe_id = \"{id}\""),
            Self::SpiffeId { id, authority: Some(ca) } => write!(f, "spiffe_id = \"{id}\", authority = \"{ca}\""),
            Self::DnsName { name, authority } => write!(f, "dns_name = \"{name}\", authority = \"{authority}\""),
            Self::Unix { uid, gid: None } => write!(f, "unix_uid = {uid}"),
            Self::Unix { uid, gid: Some(gid) } => write!(f, "unix_uid = {uid}, unix_gid = {gid}"),
            Self::Federated(federated) => federated.fmt(f),
        }
    }
}
