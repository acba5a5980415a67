//! Static secrets: what an operator put into the broker because nothing can mint it.

use super::id::SecretName;

/// One version of a static secret, as a lease says it. Never its value.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SecretVersion {
    /// Of which.
    pub name: SecretName,
    /// From 1; never used again.
    pub number: u32,
}

impl SecretVersion {
    /// As events say it.
    #[must_use]
    pub fn details(&self) -> [String; 2] {
        [format!("secret={}", self.name), format!("secret_version={}", self.number)]
    }
}

/// The one audience of a static secret's lease: what policies, velocity and lists of resources call it.
#[must_use]
pub fn audience(name: &SecretName) -> String {
    format!("{AUDIENCE}{name}")
}

/// The inverse of [`audience`].
#[must_use]
pub fn of_audience(audience: &str) -> Option<SecretName> {
    audience.strip_prefix(AUDIENCE)?.parse().ok()
}

const AUDIENCE: &str = "secret:";
/// Bytes of the longest value.
pub const VALUE_MAX_BYTES: usize = 64 << 10;
/// Static secrets of a tenant, retired ones included.
pub const TENANT_MOST: usize = 1_000;
/// Versions that are listed of a secret.
pub const VERSIONS_LISTED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_says_its_secret_and_no_other_text_does() {
        let name: SecretName = "stripe-key".parse().expect("a name");
        assert_eq!(audience(&name), "secret:stripe-key");
        assert_eq!(of_audience("secret:stripe-key"), Some(name));
        for other in ["stripe-key", "secret:", "secret:A", "secret:a/b", "https://secret:a"] {
            assert_eq!(of_audience(other), None, "{other}");
        }
    }
}
