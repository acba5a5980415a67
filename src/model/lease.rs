//! One credential's life.

use super::{
    id::{GrantName, LeaseId, PartnerName, Purpose, TenantName, WorkloadName},
    intent::Ruling,
    scope::ScopeId,
    secret::Digest,
    standing::{EndReason, Standing},
    static_secret::SecretVersion,
    task::Delegator,
    time::Timestamp,
};

/// The form a credential takes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum CredentialKind {
    /// A signed token.
    Jwt,
    /// A reference token.
    Opaque,
    /// An X.509 certificate.
    X509,
    /// A static secret.
    Secret,
}

impl CredentialKind {
    /// The number in records and on the wire (`mayfly.v1.CredentialKind`).
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Jwt => 1,
            Self::Opaque => 2,
            Self::X509 => 3,
            Self::Secret => 4,
        }
    }

    /// From a number; `None` when there is no such kind.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Jwt),
            2 => Some(Self::Opaque),
            3 => Some(Self::X509),
            4 => Some(Self::Secret),
            _ => None,
        }
    }

    /// The word in trust files, the CLI and events.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Opaque => "opaque",
            Self::X509 => "x509",
            Self::Secret => "secret",
        }
    }

    /// The inverse of [`Self::word`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Jwt, Self::Opaque, Self::X509, Self::Secret].into_iter().find(|kind| kind.word() == word)
    }
}

/// One credential's life: who has it, for what, until when. Never the credential itself.
///
/// ```text
///             (successor)
/// issue --> Live --> Ended(Released | Superseded | Revoked | Expired | NotPickedUp)     never back
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Its id; says the task and the tenant's number.
    pub id: LeaseId,
    /// The one tenant it is for.
    pub tenant: TenantName,
    /// The partner it is for.
    pub partner: PartnerName,
    /// The grant that allowed it.
    pub grant: GrantName,
    /// Who asked.
    pub workload: WorkloadName,
    /// Why.
    pub purpose: Purpose,
    /// Its form.
    pub kind: CredentialKind,
    /// Who it is for, sorted.
    pub audiences: Vec<String>,
    /// What it allows, sorted.
    pub actions: Vec<String>,
    /// DNS names in the certificate, sorted.
    pub dns_names: Vec<String>,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// Incarnation and revision number of its decision: a cut above ends it.
    pub basis: (u64, u64),
    /// Hash of the credential; of a static secret one of its lease and version, which says nothing of the value.
    pub credential: Digest,
    /// The key that signed it; empty for reference tokens.
    pub key_id: String,
    /// Hash of the certificate it is bound to.
    pub bound: Option<Digest>,
    /// Hash of the certified public key.
    pub spki: Option<Digest>,
    /// The lease whose certificate the caller proved itself with.
    pub parent: Option<LeaseId>,
    /// Scopes of the proofs it was obtained through.
    pub proofs: Vec<ScopeId>,
    /// Renewals before it.
    pub renewals: u32,
    /// Whether the broker made the private key.
    pub broker_made_key: bool,
    /// What ended it by itself, and when; cuts and the task's end are not noted here.
    pub ended: Option<(EndReason, Timestamp)>,
    /// Through whom its task was passed on, from the first on; empty where it was not.
    pub delegated: Vec<Delegator>,
    /// The policies that allowed it; `None` where none are in force.
    pub ruling: Option<Box<Ruling>>,
    /// The static secret that it hands out.
    pub secret: Option<Box<SecretVersion>>,
    /// Until when it waits to be picked up; `None` when it does not, or was.
    pub pickup_until: Option<Timestamp>,
    /// Whether it is an SVID that the Workload API serves: its SPIFFE ID is the workload's and stays the same, whatever
    /// task it is of.
    pub svid: bool,
}

impl Lease {
    /// Its standing by its own row and the time; task, cuts and bars come on top.
    ///
    /// Expiry beats stored state.
    #[must_use]
    pub fn own_standing(&self, now: Timestamp) -> Standing {
        match self.ended {
            Some((why, _)) => Standing::Ended(why),
            None if self.expires <= now => Standing::Ended(EndReason::Expired),
            None if self.pickup_until.is_some_and(|until| until <= now) => Standing::Ended(EndReason::NotPickedUp),
            None => Standing::Live,
        }
    }

    /// Every scope that a cut or bar on would concern it, but for its task and itself, whose ends stand in their rows.
    #[must_use]
    pub fn scopes(&self) -> Vec<ScopeId> {
        let mut ids = Vec::with_capacity(7 + self.proofs.len());
        ids.extend([
            ScopeId::everything(),
            ScopeId::tenant(&self.tenant),
            ScopeId::partner(&self.partner),
            ScopeId::partner_in_tenant(&self.tenant, &self.partner),
            ScopeId::grant(&self.tenant, &self.grant),
            ScopeId::workload(&self.tenant, &self.workload),
        ]);
        if !self.key_id.is_empty() {
            ids.push(ScopeId::signing_key(&self.key_id));
        }
        ids.extend(self.secret.iter().map(|secret| ScopeId::secret(&self.tenant, &secret.name)));
        ids.extend(&self.proofs);
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TaskId, TenantNumber};

    #[test]
    fn what_no_key_signed_falls_under_no_key_and_every_proof_counts() {
        let task = TaskId::fresh(TenantNumber::new(3).expect("in range")).expect("entropy");
        let lease = Lease {
            id: LeaseId::fresh(task).expect("entropy"),
            tenant: "acme".parse().expect("name"),
            partner: "zeta".parse().expect("name"),
            grant: "read".parse().expect("name"),
            workload: "w".parse().expect("name"),
            purpose: "work".parse().expect("name"),
            kind: CredentialKind::Opaque,
            audiences: vec![],
            actions: vec![],
            dns_names: vec![],
            issued: Timestamp::from_seconds(1),
            expires: Timestamp::from_seconds(2),
            basis: (1, 1),
            credential: Digest::of(b"credential"),
            key_id: String::new(),
            bound: None,
            spki: None,
            parent: None,
            proofs: vec![],
            renewals: 0,
            broker_made_key: false,
            ended: None,
            delegated: vec![],
            ruling: None,
            secret: None,
            pickup_until: None,
            svid: false,
        };
        let own = lease.scopes();
        assert_eq!(own.len(), 6, "everything, tenant, partner, both together, grant, workload");
        let proof = ScopeId::from_slice(&[9; 12]).expect("12 bytes");
        let signed = Lease { key_id: "k1".into(), proofs: vec![proof], ..lease };
        assert_eq!(signed.scopes(), [own, vec![ScopeId::signing_key("k1"), proof]].concat());
    }
}
