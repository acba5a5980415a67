//! The broker's SPIFFE trust domain.

use std::{fmt, str::FromStr};

use super::id::TenantName;

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

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const TRUST_DOMAIN_MAX_BYTES: usize = 191;
