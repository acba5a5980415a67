//! The authorization record, and what holds it down.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{demand::Approvals, pattern::Pattern, sorted::Sorted, spelling};
use crate::model::{
    CredentialKind, OperatorName, PartnerName, Purpose, SecretName, Timestamp, WorkloadName, pace::Velocity,
    static_secret,
};

/// The authorization record: no grant, no credential.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// For whom.
    pub partner: PartnerName,
    /// Who may use it; at least one.
    pub workloads: Sorted<WorkloadName>,
    /// What for; at least one.
    pub purposes: Sorted<Purpose>,
    /// Whom credentials may be for; at least one, unless it is for static secrets alone.
    pub audiences: Sorted<Pattern>,
    /// What they may allow.
    pub actions: Sorted<Pattern>,
    /// Their forms; at least one.
    #[serde(with = "spelling::kinds")]
    pub kinds: Sorted<CredentialKind>,
    /// DNS names that certificates may carry, exactly.
    pub dns_names: Sorted<String>,
    /// Life in seconds when none is asked for; 1 to `ttl_max`.
    pub ttl_default: u32,
    /// Longest life in seconds; at most 3,600 and `task_max_seconds`.
    pub ttl_max: u32,
    /// Longest task in seconds; at most 86,400.
    pub task_max_seconds: u32,
    /// Who answers for it; 1 to 128 characters.
    pub owner: String,
    /// When it ends by itself.
    #[serde(with = "spelling::rfc3339")]
    pub expires: Timestamp,
    /// Who can end it beside admins and revokers; at least one.
    pub revokers: Sorted<OperatorName>,
    /// When its owner must have confirmed it; after that nothing is issued. Not after `expires`.
    #[serde(with = "spelling::rfc3339")]
    pub attest_by: Timestamp,
    /// Where it holds.
    pub environment: String,
    /// Whether tokens must be bound to the caller's certificate.
    pub require_binding: bool,
    /// Networks that it can be used from; empty for any.
    #[serde(default, skip_serializing_if = "spelling::is_empty")]
    pub sources: Sorted<IpNet>,
    /// Live leases under it.
    pub max_live_leases: u64,
    /// Leases of it that one task may have.
    pub max_leases_per_task: u32,
    /// Seconds from an attestation to the next when it names no date; at most 400 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attest_every: Option<u32>,
    /// Whether it is for tests: short-lived, and for no audience that another grant reaches.
    #[serde(default, skip_serializing_if = "spelling::is_false")]
    pub test: bool,
    /// Who must agree before it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Approvals>,
    /// How fast one task may go on under it.
    #[serde(default, skip_serializing_if = "Velocity::is_unlimited")]
    pub velocity: Velocity,
    /// Static secrets that it may hand out, by name; none unless `kinds` has their kind.
    #[serde(default, skip_serializing_if = "spelling::is_empty")]
    pub secrets: Sorted<SecretName>,
    /// Whether the SPIFFE Workload API serves it to processes of its workloads, without their asking by name.
    #[serde(default, skip_serializing_if = "spelling::is_false")]
    pub workload_api: bool,
    /// How often a credential may be renewed; until the task ends when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_renewals: Option<u32>,
}

impl Grant {
    /// The greatest `max_renewals`: one each second of the longest task.
    pub const RENEWALS_MOST: u32 = 86_400;
}

/// What is worth more than other resources: every grant that reaches it is held down to this, whoever wrote it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceClass {
    /// What is in it; at least one.
    pub audiences: Sorted<Pattern>,
    /// Longest life in seconds of a credential for it.
    pub ttl_max: u32,
    /// Whether tokens for it are bound to the caller's certificate, and its static secrets given to nobody without one.
    pub require_binding: bool,
    /// What it may be reached for; empty for whatever the grant says.
    #[serde(default, skip_serializing_if = "spelling::is_empty")]
    pub purposes: Sorted<Purpose>,
}

impl ResourceClass {
    /// Classes that a tenant can have.
    pub const MOST: usize = 64;

    /// Whether something of it is within reach of a grant.
    #[must_use]
    pub fn is_reached_by(&self, grant: &Grant) -> bool {
        self.audiences.iter().any(|own| {
            grant.audiences.iter().any(|granted| granted.meets(own))
                || grant.secrets.iter().any(|name| own.fits(&static_secret::audience(name)))
        })
    }
}
