//! Callers with a client certificate, checked by our own TLS end.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    Authority, Caller, CertificateProof, PeerKey, Proof,
    own_key::{self, OrOwnKey},
    spiffe::{self, InvalidSpiffeId},
};
use crate::model::{Digest, Timestamp, TrustDomain};

/// Every CA whose client certificates count, each set on its own, the broker's own first.
#[derive(Debug)]
pub struct ClientAuthorities {
    trust_domain: TrustDomain,
    any: Arc<dyn ClientCertVerifier>,
    sets: Vec<(Authority, Arc<dyn ClientCertVerifier>)>,
    takes_keys: bool,
    /// By CA set, the trust domains that it is limited to.
    domains: BTreeMap<String, Vec<String>>,
}

/// What a client showed of itself in TLS.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// A key of its own, which is no identity.
    Key(PeerKey),
    /// A certificate of a CA that counts.
    Certificate(PeerCertificate),
}

/// Why a set of CAs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A set without certificates.
    #[error("the CA set {name} holds no certificate")]
    Empty {
        /// The set.
        name: String,
    },
    /// A certificate that is no trust anchor.
    #[error("the CA set {name} holds a certificate that cannot be read")]
    Malformed {
        /// The set.
        name: String,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// One certificate in two sets: who vouches would depend on their order.
    #[error("the CA set {name} holds a certificate that is also in {other}")]
    Shared {
        /// The later set.
        name: String,
        /// The earlier set.
        other: String,
    },
    /// The verifier could not be built.
    #[error("the CA set {name} gives no verifier")]
    Verifier {
        /// The set.
        name: String,
        /// What rustls says.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// Why a connection or request has no caller.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// The chain leads to none of the CAs, or is not valid now.
    #[error("the client certificate leads to no accepted CA")]
    Untrusted,
    /// The certificate cannot be read.
    #[error("the client certificate cannot be read")]
    Malformed,
    /// More than one URI where one is a SPIFFE ID.
    #[error("the client certificate has more than one URI")]
    ManyUris,
    /// The SPIFFE ID is none.
    #[error("the client certificate's SPIFFE ID {0}")]
    SpiffeId(#[from] InvalidSpiffeId),
    /// A foreign CA vouches for an ID within the broker's own trust domain.
    #[error("the CA {authority} may not vouch for the trust domain {trust_domain}")]
    ForeignIdentity {
        /// The CA's name in the config.
        authority: String,
        /// The trust domain it claims.
        trust_domain: String,
    },
    /// Its time has passed.
    #[error("the client certificate expired at {not_after}")]
    Expired {
        /// Last moment it was valid.
        not_after: Timestamp,
    },
    /// Its time has not come.
    #[error("the client certificate is not valid before {not_before}")]
    NotYetValid {
        /// First moment it is valid.
        not_before: Timestamp,
    },
}

/// A client certificate whose chain led to an accepted CA when the connection began.
///
/// Its time is checked again for every request, by [`Self::caller`].
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    proof: CertificateProof,
    not_before: Timestamp,
}

impl ClientAuthorities {
    /// Takes the broker's own roots and the foreign sets, in the order of the config.
    ///
    /// # Errors
    /// When a set is empty, unreadable or shares a certificate with another.
    pub fn new(
        trust_domain: TrustDomain,
        own: &[CertificateDer<'static>],
        foreign: &[(String, Vec<CertificateDer<'static>>)],
    ) -> Result<Self, AuthorityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = std::iter::once((Authority::Own, OWN_NAME, own));
        let foreign =
            foreign.iter().map(|(name, set)| (Authority::Foreign(name.clone()), name.as_str(), set.as_slice()));
        let named: Vec<_> = own.chain(foreign).collect();
        refuse_shared(&named)?;
        let mut all = RootCertStore::empty();
        let mut sets = Vec::with_capacity(named.len());
        for (authority, name, set) in named {
            let mut roots = RootCertStore::empty();
            for certificate in set {
                let malformed = |source| AuthorityError::Malformed { name: name.to_owned(), source };
                roots.add(certificate.clone()).map_err(malformed)?;
            }
            if roots.is_empty() {
                return Err(AuthorityError::Empty { name: name.to_owned() });
            }
            all.roots.extend(roots.roots.iter().cloned());
            sets.push((authority, verifier(name, roots, &provider)?));
        }
        Ok(Self {
            trust_domain,
            any: verifier("all", all, &provider)?,
            sets,
            takes_keys: false,
            domains: BTreeMap::new(),
        })
    }

    /// The same, where a foreign set vouches for SPIFFE IDs of these trust domains only.
    #[must_use]
    pub fn limited(mut self, name: &str, trust_domains: &[String]) -> Self {
        self.domains.insert(name.to_owned(), trust_domains.to_vec());
        self
    }

    /// The same, where clients may also show a key of their own: a self-signed certificate.
    #[must_use]
    pub fn taking_keys(self) -> Self {
        Self { any: Arc::new(OrOwnKey { inner: self.any }), takes_keys: true, ..self }
    }

    /// Judges the chain of a finished handshake, leaf first; empty for a client that showed nothing.
    ///
    /// # Errors
    /// When it is neither from a CA that counts at `now` nor a key of the client's own, or for what it claims.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Shown, IdentityError> {
        if chain.is_empty() {
            return Ok(Shown::Nothing);
        }
        match (PeerCertificate::from_chain(chain, self, now), own_key::lone_key(chain)) {
            (Ok(certificate), _) => Ok(Shown::Certificate(certificate)),
            // Only what no CA vouches for: a refused claim of a vouched-for certificate stays refused.
            (Err(IdentityError::Untrusted), Some(key)) if self.takes_keys => Ok(Shown::Key(key)),
            (Err(error), _) => Err(error),
        }
    }

    /// Accepts a client certificate of any of the sets, and clients without one.
    #[must_use]
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.any)
    }

    /// The set that vouches for the chain at `now`; the broker's own goes first.
    fn authority_of(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<&Authority, IdentityError> {
        let (leaf, intermediates) = chain.split_first().ok_or(IdentityError::Untrusted)?;
        let at = UnixTime::since_unix_epoch(Duration::from_millis(now.millis()));
        self.sets
            .iter()
            .find(|(_, set)| set.verify_client_cert(leaf, intermediates, at).is_ok())
            .map(|(authority, _)| authority)
            .ok_or(IdentityError::Untrusted)
    }
}

impl PeerCertificate {
    /// Judges the chain of a finished handshake, leaf first.
    ///
    /// A resumed session carries the chain of the first handshake, so it is judged by the CAs that count now.
    ///
    /// # Errors
    /// When no set vouches for it at `now`, or for what it claims.
    pub fn from_chain(
        chain: &[CertificateDer<'_>],
        authorities: &ClientAuthorities,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let authority = authorities.authority_of(chain, now)?.clone();
        let leaf = chain.first().ok_or(IdentityError::Untrusted)?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| IdentityError::Malformed)?;
        let names = Names::of(&certificate)?;
        if let (Some(id), Authority::Foreign(name)) = (&names.spiffe_id, &authority) {
            let trust_domain = spiffe::trust_domain(id)?;
            let limits = authorities.domains.get(name);
            let beyond = limits.is_some_and(|domains| !domains.iter().any(|domain| domain == trust_domain));
            if beyond || authorities.trust_domain.covers(trust_domain) {
                let (authority, trust_domain) = (name.clone(), trust_domain.to_owned());
                return Err(IdentityError::ForeignIdentity { authority, trust_domain });
            }
        }
        let proof = CertificateProof {
            sha256: Digest::of(leaf),
            key: Digest::of(certificate.public_key().raw),
            authority,
            spiffe_id: names.spiffe_id,
            dns_names: names.dns_names,
            serial: certificate.raw_serial().to_vec(),
            not_after: chain_end(chain, &certificate, now),
        };
        Ok(Self { proof, not_before: seconds(certificate.validity().not_before.timestamp()) })
    }

    /// What it proves.
    #[must_use]
    pub fn proof(&self) -> &CertificateProof {
        &self.proof
    }

    /// The caller of one request, if the certificate is still valid at `now`.
    ///
    /// # Errors
    /// When it is not.
    pub fn caller(&self, source: SocketAddr, now: Timestamp) -> Result<Caller, IdentityError> {
        let (not_before, not_after) = (self.not_before, self.proof.not_after);
        if now < not_before {
            return Err(IdentityError::NotYetValid { not_before });
        }
        // X.509 validity includes its last second (RFC 5280 section 4.1.2.5).
        if now.floor_second() > not_after {
            return Err(IdentityError::Expired { not_after });
        }
        Ok(Caller::new(Proof::Certificate(self.proof.clone()), Some(source)))
    }
}

struct Names {
    spiffe_id: Option<String>,
    dns_names: Vec<String>,
}

impl Names {
    /// Subject alternative names only: the common name proves nothing (RFC 9525 section 2).
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let extension = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
        let names = extension.map(|found| found.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names.iter().filter_map(uri).collect();
        let is_spiffe = |uri: &&str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
        let spiffe_id = match uris.as_slice() {
            [one] if is_spiffe(one) => {
                spiffe::trust_domain(one)?;
                Some((*one).to_owned())
            }
            many if many.len() > 1 && many.iter().any(is_spiffe) => return Err(IdentityError::ManyUris),
            _ => None,
        };
        Ok(Self { spiffe_id, dns_names: names.iter().filter_map(dns).collect() })
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "one kind of name out of a foreign enum")]
fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "one kind of name out of a foreign enum")]
fn dns(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

/// The first end along the presented chain, so that the proof never outlives an issuer.
///
/// What had ended before `now` is skipped: the chain was found valid without it.
fn chain_end(chain: &[CertificateDer<'_>], leaf: &X509Certificate<'_>, now: Timestamp) -> Timestamp {
    let end = |certificate: &X509Certificate<'_>| seconds(certificate.validity().not_after.timestamp());
    let issuers = chain.iter().skip(1).filter_map(|der| X509Certificate::from_der(der).ok());
    let ends = issuers.map(|(_, issuer)| end(&issuer)).filter(|end| *end >= now.floor_second());
    ends.fold(end(leaf), Timestamp::min)
}

fn seconds(unix: i64) -> Timestamp {
    Timestamp::from_seconds(u64::try_from(unix).unwrap_or(0))
}

fn verifier(
    name: &str,
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, AuthorityError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|source| AuthorityError::Verifier { name: name.to_owned(), source })
}

fn refuse_shared(named: &[(Authority, &str, &[CertificateDer<'static>])]) -> Result<(), AuthorityError> {
    for (at, (_, name, set)) in named.iter().enumerate() {
        let earlier = named.iter().take(at);
        if let Some((_, other, _)) = earlier.into_iter().find(|(_, _, other)| other.iter().any(|c| set.contains(c))) {
            return Err(AuthorityError::Shared { name: (*name).to_owned(), other: (*other).to_owned() });
        }
    }
    Ok(())
}

const OWN_NAME: &str = "own";

#[cfg(test)]
mod tests;
