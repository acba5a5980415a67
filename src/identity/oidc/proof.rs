//! What an identity token, or a key of the caller's own, proves.

use std::{net::SocketAddr, sync::Arc};

use super::claims::Claims;
use crate::{
    identity::{Caller, Proof},
    model::{Digest, IssuerRules, OpenedWith, ScopeId, TaskId, TenantName, Timestamp, WorkloadName},
};

/// The key of a self-signed client certificate: there, and nothing more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerKey {
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki: Digest,
    /// SHA-256 of the certificate's DER; what tokens are bound to (RFC 8705 section 3).
    pub certificate: Digest,
}

/// What an identity token proves.
#[derive(Clone, Debug)]
pub struct FederatedProof {
    /// Its issuer, as the config declares it.
    pub issuer: Arc<IssuerRules>,
    /// SHA-256 of what was signed: header, dot and claims. Not of the signature, which ECDSA lets anybody vary.
    pub token: Digest,
    /// Whom it calls its subject; for people only, as a log may show it.
    pub subject: String,
    /// All that it says.
    pub claims: Claims,
    /// When it was issued, by its own word; some SPIFFE tokens do not say.
    pub issued: Option<Timestamp>,
    /// When it is over, by its own word or by its age.
    pub expires: Timestamp,
    /// When no broker would take it any more, whatever its config says of ages: until then its use is remembered.
    pub forgotten: Timestamp,
    /// The key that it came over.
    pub key: Option<PeerKey>,
}

/// What a key proves to which a task is bound.
#[derive(Clone, Debug)]
pub struct KeyProof {
    /// The key.
    pub key: PeerKey,
    /// The task.
    pub task: TaskId,
    /// The task's tenant.
    pub tenant: TenantName,
    /// The task's workload.
    pub workload: WorkloadName,
    /// Revision that the task was decided at.
    pub basis: u64,
    /// Scopes of what the task was opened with.
    pub proofs: Vec<ScopeId>,
    /// The identity token that it was opened with.
    pub opened_with: Option<Box<OpenedWith>>,
    /// The end of the task's window for keys.
    pub expires: Timestamp,
}

impl FederatedProof {
    /// The caller of one request.
    #[must_use]
    pub fn caller(self, source: Option<SocketAddr>) -> Caller {
        Caller::new(Proof::Federated(Box::new(self)), source)
    }
}

impl KeyProof {
    /// The caller of one request.
    #[must_use]
    pub fn caller(self, source: Option<SocketAddr>) -> Caller {
        Caller::new(Proof::TaskKey(Box::new(self)), source)
    }
}
