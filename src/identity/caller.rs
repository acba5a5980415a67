//! Who asks, as proven for one request.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::model::{Digest, Scope, ScopeId, TenantNumber, Timestamp};

/// Who asks: what was proven, how, from where and until when. Evaluated for every request.
///
/// Invariant: only [`crate::identity`] builds one, from a connection whose proof still holds now.
#[derive(Clone, Debug)]
pub struct Caller {
    proof: Proof,
    source: Option<SocketAddr>,
    account: Account,
}

/// The tenant that a caller was last found in, shared by all its requests: who pays for what it asks next, before that is
/// looked at. Decides nothing but turns.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<AtomicU32>);

/// How a caller proved itself.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A client certificate, checked by our own TLS end.
    Certificate(CertificateProof),
    /// Peer credentials of a Unix socket.
    Unix(UnixProof),
}

/// What a client certificate says.
#[derive(Clone, Debug)]
pub struct CertificateProof {
    /// SHA-256 of the leaf's DER.
    pub sha256: Digest,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo: a renewed certificate of the same key has the same.
    pub key: Digest,
    /// The CA set that the chain leads to.
    pub authority: Authority,
    /// Its one SPIFFE ID, when it has one.
    pub spiffe_id: Option<String>,
    /// Its DNS names, lower case.
    pub dns_names: Vec<String>,
    /// Its serial number, big-endian; our own leaves carry their lease id.
    pub serial: Vec<u8>,
    /// Last moment it is valid.
    pub not_after: Timestamp,
}

/// Who vouches for a certificate.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Authority {
    /// The broker's own root.
    Own,
    /// A CA file from the config, by its name there.
    Foreign(String),
}

/// What the kernel says about the other end of a Unix socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnixProof {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, when the kernel tells.
    pub pid: Option<i32>,
}

impl Account {
    /// The tenant that it was last found in.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantNumber> {
        // Number 0 is the broker's own, in which nobody is found.
        TenantNumber::new(self.0.load(Ordering::Relaxed)).filter(|number| *number != TenantNumber::BROKER)
    }

    /// It was found in a tenant.
    pub fn found_in(&self, tenant: TenantNumber) {
        // Read first: a write would take the line from every other core that serves the same caller.
        if self.0.load(Ordering::Relaxed) != tenant.get() {
            self.0.store(tenant.get(), Ordering::Relaxed);
        }
    }
}

impl Caller {
    pub(super) fn new(proof: Proof, source: Option<SocketAddr>) -> Self {
        Self { proof, source, account: Account::default() }
    }

    /// The same caller with the account of its earlier requests.
    #[must_use]
    pub fn with_account(self, account: Account) -> Self {
        Self { account, ..self }
    }

    /// Who pays for what it asks.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// A caller for tests of the layers above.
    #[cfg(test)]
    #[must_use]
    pub fn for_test(proof: Proof) -> Self {
        Self::new(proof, None)
    }

    /// What was proven.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// The certificate, when that is the proof.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateProof> {
        match &self.proof {
            Proof::Certificate(certificate) => Some(certificate),
            Proof::Unix(_) => None,
        }
    }

    /// Until when the proof is good; `None` when it has no end of its own.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.certificate().map(|certificate| certificate.not_after)
    }

    /// Scopes by which the proof itself can be cut or barred.
    #[must_use]
    pub fn scopes(&self) -> Vec<ScopeId> {
        self.certificate().map(|certificate| Scope::Proof(certificate.sha256).id()).into_iter().collect()
    }

    /// The proof as events name it: hex SHA-256, or `uid:N`.
    #[must_use]
    pub fn proof_text(&self) -> String {
        match &self.proof {
            Proof::Certificate(certificate) => certificate.sha256.to_string(),
            Proof::Unix(unix) => format!("uid:{}", unix.uid),
        }
    }

    /// The client's key as an idempotency key is bound to it: hex SHA-256 of the public key, or `uid:N`.
    #[must_use]
    pub fn key_text(&self) -> String {
        match &self.proof {
            Proof::Certificate(certificate) => certificate.key.to_string(),
            Proof::Unix(unix) => format!("uid:{}", unix.uid),
        }
    }

    /// Where the request came from, as events name it.
    #[must_use]
    pub fn source_text(&self) -> String {
        self.source.map_or_else(|| "unix".to_owned(), |address| address.to_string())
    }
}
