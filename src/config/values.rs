//! Values of the configuration with an invariant.

use std::{fmt, str::FromStr};

use crate::model::TenantName;

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

    pub(super) fn loopback(port: u16) -> Self {
        Self(format!("https://127.0.0.1:{port}"))
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

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
