//! Who asks, as proven for one request.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::oidc::{FederatedProof, KeyProof, PeerKey};
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
    /// An identity token of an issuer from the config.
    Federated(Box<FederatedProof>),
    /// The key that a task was bound to when it was opened with an identity token: good for that task.
    TaskKey(Box<KeyProof>),
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
            Proof::Unix(_) | Proof::Federated(_) | Proof::TaskKey(_) => None,
        }
    }

    /// The key of the caller's own, when it came with one that is no identity.
    #[must_use]
    pub fn own_key(&self) -> Option<&PeerKey> {
        match &self.proof {
            Proof::Federated(token) => token.key.as_ref(),
            Proof::TaskKey(proof) => Some(&proof.key),
            Proof::Certificate(_) | Proof::Unix(_) => None,
        }
    }

    /// The certificate shown in TLS, identity or not: what tokens can be bound to.
    #[must_use]
    pub fn shown_certificate(&self) -> Option<Digest> {
        let own = || self.own_key().map(|key| key.certificate);
        self.certificate().map(|certificate| certificate.sha256).or_else(own)
    }

    /// Until when the proof is good; `None` when it has no end of its own.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        match &self.proof {
            Proof::Certificate(certificate) => Some(certificate.not_after),
            Proof::Unix(_) => None,
            Proof::Federated(token) => Some(token.expires),
            Proof::TaskKey(proof) => Some(proof.expires),
        }
    }

    /// Scopes by which the proof itself can be cut or barred.
    #[must_use]
    pub fn scopes(&self) -> Vec<ScopeId> {
        match &self.proof {
            Proof::Certificate(certificate) => vec![Scope::Proof(certificate.sha256).id()],
            Proof::Unix(_) => Vec::new(),
            Proof::Federated(token) => {
                let mut scopes = vec![Scope::Issuer(token.issuer.name.clone()).id(), Scope::Proof(token.token).id()];
                scopes.extend(token.key.map(|key| Scope::Proof(key.spki).id()));
                scopes
            }
            Proof::TaskKey(proof) => {
                let mut scopes = proof.proofs.clone();
                let own = Scope::Proof(proof.key.spki).id();
                if !scopes.contains(&own) {
                    scopes.push(own);
                }
                scopes
            }
        }
    }

    /// The proof as events name it: hex SHA-256 (of a certificate, or of what was signed of a token), `key:` and hex
    /// SHA-256 of a public key, or `uid:N`.
    #[must_use]
    pub fn proof_text(&self) -> String {
        match &self.proof {
            Proof::Certificate(certificate) => certificate.sha256.to_string(),
            Proof::Unix(unix) => format!("uid:{}", unix.uid),
            Proof::Federated(token) => token.token.to_string(),
            Proof::TaskKey(proof) => format!("key:{}", proof.key.spki),
        }
    }

    /// What else events say of the proof, so that nobody has to find out from a hash.
    #[must_use]
    pub fn proof_details(&self) -> Vec<String> {
        let key = |key: &PeerKey| format!("client_key={}", key.spki);
        match &self.proof {
            Proof::Certificate(_) | Proof::Unix(_) => Vec::new(),
            Proof::Federated(token) => {
                let mut details = vec![format!("issuer={}", token.issuer.name), format!("subject={}", token.subject)];
                details.extend(token.key.as_ref().map(key));
                details
            }
            Proof::TaskKey(proof) => {
                let with = proof.opened_with.iter();
                let mut details: Vec<String> = with
                    .flat_map(|with| [format!("issuer={}", with.issuer), format!("subject={}", with.subject)])
                    .collect();
                details.push(key(&proof.key));
                details
            }
        }
    }

    /// Who a caller is among others for what is bounded for each, whatever certificate it comes with: its SPIFFE ID and who
    /// vouches for it, or else its key, user or token.
    #[must_use]
    pub fn party(&self) -> String {
        match &self.proof {
            Proof::Certificate(certificate) => match (&certificate.spiffe_id, &certificate.authority) {
                (Some(id), Authority::Own) => id.clone(),
                // Somebody else's authority may say the same name of anybody.
                (Some(id), Authority::Foreign(name)) => format!("{id} by {name}"),
                (None, _) => format!("key:{}", certificate.key),
            },
            Proof::Unix(unix) => format!("uid:{}", unix.uid),
            // Not by its key, of which a holder can make as many as he likes.
            Proof::Federated(token) => format!("token:{}", token.token),
            Proof::TaskKey(proof) => format!("key:{}", proof.key.spki),
        }
    }

    /// The client's key as an idempotency key is bound to it: hex SHA-256 of the public key, or what else it proved.
    #[must_use]
    pub fn key_text(&self) -> String {
        match &self.proof {
            Proof::Certificate(certificate) => certificate.key.to_string(),
            Proof::Unix(unix) => format!("uid:{}", unix.uid),
            Proof::Federated(token) => {
                token.key.map_or_else(|| format!("token:{}", token.token), |key| key.spki.to_string())
            }
            Proof::TaskKey(proof) => proof.key.spki.to_string(),
        }
    }

    /// The network address that the request came from; `None` on a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.source.map(|source| source.ip().to_canonical())
    }

    /// Where the request came from, as events name it.
    #[must_use]
    pub fn source_text(&self) -> String {
        self.source.map_or_else(|| "unix".to_owned(), |address| address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(by: Authority, spiffe_id: Option<&str>, name: &[u8]) -> Caller {
        Caller::for_test(Proof::Certificate(CertificateProof {
            sha256: Digest::of(name),
            key: Digest::of(name),
            authority: by,
            spiffe_id: spiffe_id.map(str::to_owned),
            dns_names: Vec::new(),
            serial: Vec::new(),
            not_after: Timestamp::from_millis(1),
        }))
    }

    #[test]
    fn a_caller_is_the_same_with_its_next_certificate_and_not_in_the_words_of_another_authority() {
        let id = Some("spiffe://corp.example/ci");
        let corp = |name| certificate(Authority::Foreign("corp".to_owned()), id, name).party();
        assert_eq!(corp(b"one"), corp(b"renewed"));
        assert_ne!(corp(b"one"), certificate(Authority::Foreign("other".to_owned()), id, b"one").party());
        assert_ne!(corp(b"one"), certificate(Authority::Own, id, b"one").party());
        let nameless = |name| certificate(Authority::Own, None, name).party();
        assert_ne!(nameless(b"one"), nameless(b"two"), "without a name it is its key");
    }
}
