//! Discovery and key sets over HTTPS (OpenID Connect Discovery 1.0 sections 3 and 4), or a key set from a file.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::StatusCode;
use reqwest::{
    Client, ClientBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{
    identity::oidc::{Json, JsonFault, KeySet, NoKeySet},
    model::address::is_private,
};

/// Where a key set comes from.
pub(super) enum Source {
    /// A file.
    File(PathBuf),
    /// Discovery.
    Https(Https),
}

/// Fetches from one issuer.
pub(super) struct Https {
    client: Client,
    allow_private: bool,
    document: Document,
}

/// What names the key set of an issuer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Document {
    /// OpenID Connect Discovery 1.0 section 4: behind the issuer's path.
    OpenId,
    /// Shared Signals Framework 1.0 section 7.2: before the issuer's path.
    SharedSignals,
}

/// Why a key set could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The roots.
    #[error("the CA file holds no usable certificate")]
    NoRoots,
    /// A URL that is not followed.
    #[error("`{0}` is no plain https URL")]
    Url(String),
    /// At a private address.
    #[error("{0} is at a private address; set allow_private if that is meant")]
    Private(String),
    /// The request.
    #[error("the request failed")]
    Request(#[source] reqwest::Error),
    /// An answer other than 200. Redirects are not followed.
    #[error("{what} answered {status}, not 200; redirects are not followed")]
    Status {
        /// `discovery` or `the key set`.
        what: &'static str,
        /// The status.
        status: u16,
    },
    /// A document that is too long.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// `discovery` or `the key set`.
        what: &'static str,
        /// What is allowed.
        limit: usize,
    },
    /// The discovery document is no JSON.
    #[error("discovery is no JSON: {0}")]
    Discovery(#[from] JsonFault),
    /// A member of the discovery document.
    #[error("discovery has no text `{0}`")]
    Member(&'static str),
    /// It is another issuer's.
    #[error("discovery is that of another issuer: {0:?}")]
    OtherIssuer(String),
    /// The key set.
    #[error(transparent)]
    Keys(#[from] NoKeySet),
    /// The file.
    #[error("the file cannot be read")]
    File(#[source] io::Error),
}

/// A client for a place that the config names: HTTPS alone, to that place alone, by no proxy and to no private address
/// unless that is meant, and nothing is kept open. TLS and times are for the caller to set.
pub fn guarded(allow_private: bool) -> ClientBuilder {
    let client =
        Client::builder().redirect(redirect::Policy::none()).no_proxy().https_only(true).pool_max_idle_per_host(0);
    if allow_private { client } else { client.dns_resolver(Arc::new(PublicOnly)) }
}

impl Source {
    /// Fetches from the issuer at a URL; connects to nothing yet.
    pub(super) fn https(
        url: &str,
        roots_pem: &[u8],
        allow_private: bool,
        document: Document,
    ) -> Result<Self, FetchError> {
        let url = plain(url)?;
        if allow_private {
            tracing::debug!(host = url.host_str(), "an issuer may be at private addresses");
        }
        let client = guarded(allow_private).use_preconfigured_tls(tls(roots_pem)?);
        let client = client.connect_timeout(CONNECT_TIME).timeout(WHOLE_TIME).build();
        let client = client.map_err(|error| FetchError::Request(error.without_url()))?;
        Ok(Self::Https(Https { client, allow_private, document }))
    }

    /// The key set as it is now.
    pub(super) async fn fetch(&self, issuer: &str) -> Result<KeySet, FetchError> {
        match self {
            Self::File(path) => {
                let bytes = tokio::fs::read(path).await.map_err(FetchError::File)?;
                Ok(KeySet::parse(&bytes)?)
            }
            Self::Https(https) => https.fetch(issuer).await,
        }
    }
}

impl Https {
    async fn fetch(&self, issuer: &str) -> Result<KeySet, FetchError> {
        let discovery = plain(&self.document.place(issuer))?;
        let document = Json::parse(&self.read("discovery", discovery, DISCOVERY_MAX_BYTES).await?)?;
        let text = |name: &'static str| {
            let member = document.members().and_then(|members| members.get(name)).and_then(Json::text);
            member.ok_or(FetchError::Member(name))
        };
        let says = text("issuer")?;
        if says != issuer {
            return Err(FetchError::OtherIssuer(says.chars().take(200).collect()));
        }
        let keys = plain(text("jwks_uri")?)?;
        Ok(KeySet::parse(&self.read("the key set", keys, KEYS_MAX_BYTES).await?)?)
    }

    async fn read(&self, what: &'static str, url: Url, limit: usize) -> Result<Vec<u8>, FetchError> {
        self.check_literal(&url)?;
        let failed = |error: reqwest::Error| FetchError::Request(error.without_url());
        let mut answer = self.client.get(url).send().await.map_err(failed)?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status { what, status: answer.status().as_u16() });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > limit {
                return Err(FetchError::TooLong { what, limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Whether a URL would be asked at all.
    #[cfg(test)]
    pub(super) fn check(&self, url: &str) -> Result<(), FetchError> {
        self.check_literal(&plain(url)?)
    }

    /// A host that is an address is not looked up, so [`PublicOnly`] never sees it.
    fn check_literal(&self, url: &Url) -> Result<(), FetchError> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        if !self.allow_private && literal.is_ok_and(is_private) {
            return Err(FetchError::Private(host.to_owned()));
        }
        Ok(())
    }
}

impl Document {
    fn place(self, issuer: &str) -> String {
        let issuer = issuer.trim_end_matches('/');
        match self {
            Self::OpenId => format!("{issuer}/.well-known/openid-configuration"),
            Self::SharedSignals => {
                let host_ends = issuer.find("://").map_or(0, |at| at + 3);
                let path_begins = issuer.get(host_ends..).and_then(|rest| rest.find('/')).map(|at| host_ends + at);
                let (host, path) = issuer.split_at_checked(path_begins.unwrap_or(issuer.len())).unwrap_or((issuer, ""));
                format!("{host}/.well-known/ssf-configuration{path}")
            }
        }
    }
}

/// Looks names up, and knows no neighbours. What it gives is what is connected to, so a name cannot change in between.
#[derive(Clone, Copy, Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| !is_private(address.ip())).collect();
            if public.is_empty() {
                return Err(FetchError::Private(name.as_str().to_owned()).into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Https(_) => "Https",
        })
    }
}

/// A URL with https and a host, and without user, password or fragment.
fn plain(text: &str) -> Result<Url, FetchError> {
    let bad = || FetchError::Url(text.chars().filter(char::is_ascii_graphic).take(200).collect());
    let url = Url::parse(text).map_err(|_| bad())?;
    let is_plain = url.scheme() == "https"
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    if is_plain { Ok(url) } else { Err(bad()) }
}

fn tls(roots_pem: &[u8]) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    let found: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(roots_pem).filter_map(Result::ok).collect();
    // A system's bundle may hold roots that webpki does not know how to use.
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        return Err(FetchError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|_| FetchError::NoRoots)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

const CONNECT_TIME: Duration = Duration::from_secs(3);
const WHOLE_TIME: Duration = Duration::from_secs(8);
/// As other implementations bound it.
const DISCOVERY_MAX_BYTES: usize = 100 << 10;
const KEYS_MAX_BYTES: usize = 256 << 10;
