//! Values of the configuration with an invariant.

use std::{fmt, str::FromStr};

use crate::model::TenantName;

/// Base of the tenants' SPIFFE trust domains.
///
/// Invariant: 1 to 191 bytes of `[a-z0-9.-]`, labels not empty, so that any tenant's domain stays within 255 bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The base as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain of one tenant.
    #[must_use]
    pub fn of_tenant(&self, tenant: &TenantName) -> String {
        format!("{tenant}.{}", self.0)
    }

    /// Whether `domain` is the base or lies under it.
    #[must_use]
    pub fn covers(&self, domain: &str) -> bool {
        domain.strip_suffix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self("mayfly.internal".to_owned())
    }
}

impl FromStr for TrustDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > TRUST_DOMAIN_MAX_BYTES {
            return Err(format!("has {} bytes, where {TRUST_DOMAIN_MAX_BYTES} are allowed", text.len()));
        }
        let label = |label: &str| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !label.is_empty() && label.bytes().all(plain)
        };
        if text.split('.').all(label) {
            Ok(Self(text.to_owned()))
        } else {
            Err("is no trust domain: labels of a-z, 0-9 and `-` with dots between".to_owned())
        }
    }
}

/// Where others reach the HTTP surface.
///
/// Invariant: an https URL with a host, without user, query, fragment or a slash at its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The URL as text, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The token issuer of one tenant.
    #[must_use]
    pub fn issuer(&self, tenant: &TenantName) -> String {
        format!("{}/t/{tenant}", self.0)
    }

    pub(super) fn localhost(port: u16) -> Self {
        Self(format!("https://localhost:{port}"))
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: http::Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
        if url.scheme_str() != Some("https") {
            return Err("does not begin with https://".to_owned());
        }
        let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && url.host().is_some_and(|host| !host.is_empty())
            && url.query().is_none()
            && !text.contains('#');
        if plain {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err("has a user, a query or a fragment, or no host".to_owned())
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const TRUST_DOMAIN_MAX_BYTES: usize = 191;
