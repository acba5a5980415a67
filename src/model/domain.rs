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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_is_of_plain_labels_and_holds_at_its_limit() {
        for good in ["mayfly.internal", "a", "a-1.b", "0.1", &"x".repeat(191)] {
            assert_eq!(good.parse::<TrustDomain>().expect(good).as_str(), good);
        }
        for bad in ["", ".", "a.", ".a", "a..b", "A", "a_b", "ä", "a.b.C", &"x".repeat(192)] {
            assert!(bad.parse::<TrustDomain>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_domain_covers_itself_and_what_is_under_it_and_nothing_that_only_ends_alike() {
        let domain: TrustDomain = "mayfly.example".parse().expect("a domain");
        assert_eq!(domain.of_tenant(&"acme".parse().expect("a name")), "acme.mayfly.example");
        for (other, covered) in [
            ("mayfly.example", true),
            ("acme.mayfly.example", true),
            ("evilmayfly.example", false),
            ("example", false),
            ("mayfly.example.evil", false),
            ("", false),
        ] {
            assert_eq!(domain.covers(other), covered, "{other}");
        }
    }
}
