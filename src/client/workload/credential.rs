//! An issued credential in the hands of its workload.

use std::{fmt, time::Duration};

use prost_types::Timestamp;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{CallError, Key, pem};
use crate::pb::{self, issue_response};

/// What a workload asks for under a task. Words and limits are those of the contract's `IssueRequest`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// The form.
    pub kind: pb::CredentialKind,
    /// The grant to use, when more than one would fit; empty for none.
    pub grant: String,
    /// The static secret, for that kind alone; empty for others. It has no audiences, actions and binding.
    pub secret: String,
    /// Who it is for.
    pub audiences: Vec<String>,
    /// What it shall allow.
    pub actions: Vec<String>,
    /// DNS names beside the SPIFFE ID; certificates only.
    pub dns_names: Vec<String>,
    /// Seconds; 0 for the grant's default.
    pub ttl_seconds: u32,
    /// Whether a token is bound to the client certificate.
    pub binding: pb::Binding,
}

impl Wanted {
    /// As it is asked for; `key` is the one to certify.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub(super) fn request(&self, task_id: &str, key: Option<&Key>) -> Result<pb::IssueRequest, CallError> {
        Ok(pb::IssueRequest {
            task_id: task_id.to_owned(),
            grant: self.grant.clone(),
            secret: self.secret.clone(),
            kind: self.kind.into(),
            audiences: self.audiences.clone(),
            actions: self.actions.clone(),
            dns_names: self.dns_names.clone(),
            ttl_seconds: self.ttl_seconds,
            binding: self.binding.into(),
            csr_der: key.map(Key::request).transpose()?.unwrap_or_default().into(),
            ..pb::IssueRequest::default()
        })
    }
}

/// One issued credential. Wiped on drop; its secret is absent from `Debug`.
pub struct Credential {
    /// Its life in the broker's books. Not a secret.
    pub lease: pb::Lease,
    /// What it is.
    pub body: Body,
    /// The limit that decided its end.
    pub bound: pb::Bound,
    ends: Instant,
    life: Duration,
}

/// A credential itself.
pub enum Body {
    /// A JWT or reference token.
    Token(Zeroizing<String>),
    /// An X.509 certificate with its key.
    Certificate {
        /// Leaf and intermediates, leaf first, PEM.
        chain_pem: String,
        /// PKCS #8, PEM.
        key_pem: Zeroizing<String>,
        /// The roots that a peer needs, PEM.
        roots_pem: String,
        /// The one URI SAN.
        spiffe_id: String,
    },
    /// A static secret. It does not end with its lease: only its vendor can end it.
    Secret {
        /// Its name.
        name: String,
        /// Its version; another one once it was rotated.
        version: u32,
        /// Its value: bytes of any kind.
        value: Zeroizing<Vec<u8>>,
    },
}

impl Credential {
    /// From the broker's answer to a request that was sent at `asked`.
    ///
    /// # Errors
    /// When the answer is incomplete.
    pub(super) fn of(reply: pb::IssueResponse, key: Option<&Key>, asked: Instant) -> Result<Self, CallError> {
        let bound = reply.bound();
        let lease = reply.lease.ok_or(CallError::Incomplete("lease"))?;
        let body = match (reply.credential.ok_or(CallError::Incomplete("credential"))?, key) {
            (issue_response::Credential::Token(token), _) => Body::Token(Zeroizing::new(token)),
            (issue_response::Credential::X509(x509), Some(key)) => Body::Certificate {
                chain_pem: pem::encode_chain(&x509.chain_der),
                key_pem: key.expose_pem(),
                roots_pem: pem::encode_chain(&x509.bundle_der),
                spiffe_id: x509.spiffe_id,
            },
            (issue_response::Credential::Secret(secret), None) => {
                Body::Secret { name: secret.name, version: secret.version, value: Zeroizing::new(secret.value) }
            }
            (issue_response::Credential::X509(_), None)
            | (issue_response::Credential::Secret(_), Some(_))
            | (issue_response::Credential::Pickup(_), _) => return Err(CallError::Incomplete("credential")),
        };
        // By the broker's clock, from when it was asked for by ours: clocks that differ make no difference.
        let life = between(lease.issued.as_ref(), lease.expires.as_ref());
        Ok(Self { lease, body, bound, ends: asked + life, life })
    }

    /// When it ends, by this process's clock; never later than by the broker's.
    #[must_use]
    pub fn ends(&self) -> Instant {
        self.ends
    }

    /// How long it lives from its issue to its end.
    #[must_use]
    pub fn life(&self) -> Duration {
        self.life
    }

    /// Whether a successor could live longer: not when the task or the grant decided the end.
    #[must_use]
    pub fn is_renewable(&self) -> bool {
        match self.bound {
            pb::Bound::TaskDeadline | pb::Bound::GrantExpiry | pb::Bound::Approval => false,
            pb::Bound::Unspecified
            | pb::Bound::Requested
            | pb::Bound::GrantDefault
            | pb::Bound::CallerProof
            | pb::Bound::IssuerCertificate => true,
        }
    }

    /// The texts that must not be seen: the token, the key in PEM, or a static secret; empty for one that is no text.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        match &self.body {
            Body::Token(token) => token,
            Body::Certificate { key_pem, .. } => key_pem,
            Body::Secret { value, .. } => str::from_utf8(value).unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("lease", &self.lease.lease_id)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Certificate { spiffe_id, .. } => {
                f.debug_struct("Certificate").field("spiffe_id", spiffe_id).finish_non_exhaustive()
            }
            Self::Secret { name, version, .. } => {
                f.debug_struct("Secret").field("name", name).field("version", version).finish_non_exhaustive()
            }
        }
    }
}

fn between(from: Option<&Timestamp>, to: Option<&Timestamp>) -> Duration {
    let at = |time: Option<&Timestamp>| {
        let (seconds, nanos) = time.map_or((0, 0), |time| (time.seconds, time.nanos));
        i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
    };
    u64::try_from(at(to) - at(from)).map_or(Duration::ZERO, Duration::from_nanos)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A token that lives `seconds` from now.
    pub(in crate::client) fn token(text: &str, seconds: i64, bound: pb::Bound) -> pb::IssueResponse {
        let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
        pb::IssueResponse {
            lease: Some(pb::Lease { issued: time(1000), expires: time(1000 + seconds), ..pb::Lease::default() }),
            credential: Some(issue_response::Credential::Token(text.into())),
            bound: bound.into(),
        }
    }

    #[tokio::test]
    async fn a_credential_does_not_show_its_secret() {
        let credential =
            Credential::of(token("hunter2", 60, pb::Bound::Requested), None, Instant::now()).expect("whole");
        assert!(!format!("{credential:?} {:?}", credential.body).contains("hunter2"));
    }

    #[tokio::test]
    async fn a_static_secret_keeps_its_bytes_and_does_not_show_them() {
        let secret = pb::StaticSecret { name: "vendor".into(), version: 2, value: b"hunter2\xff".to_vec() };
        let credential = Some(issue_response::Credential::Secret(secret));
        let reply = pb::IssueResponse { credential, ..token("", 60, pb::Bound::Requested) };
        let credential = Credential::of(reply, None, Instant::now()).expect("whole");
        let shown = format!("{credential:?} {:?}", credential.body);
        assert!(shown.contains("vendor") && !shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
        assert!(matches!(&credential.body, Body::Secret { value, .. } if value.as_slice() == b"hunter2\xff"));
        assert_eq!(credential.expose_secret(), "");
    }

    #[tokio::test]
    async fn a_life_is_counted_from_the_request_by_the_brokers_clock() {
        let asked = Instant::now();
        let credential = Credential::of(token("t", 60, pb::Bound::Requested), None, asked).expect("whole");
        assert_eq!((credential.life(), credential.ends()), (Duration::from_secs(60), asked + Duration::from_secs(60)));
    }

    #[test]
    fn an_answer_without_a_credential_is_refused() {
        let empty = pb::IssueResponse { lease: Some(pb::Lease::default()), ..pb::IssueResponse::default() };
        assert!(Credential::of(empty, None, Instant::now()).is_err());
    }
}
