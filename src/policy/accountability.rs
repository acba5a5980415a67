//! Who answers for an integration.

use serde::{Deserialize, Serialize};

/// Who answers for a partner's integration in a tenant, and whom to call.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Accountability {
    /// Who keeps what the partner obtains.
    pub storage: Contact,
    /// Who decides what it reaches.
    pub scope: Contact,
    /// Who ends it.
    pub revocation: Contact,
    /// Whom to call when the others do not answer.
    pub escalation: Contact,
    /// Resold integrations: through whom, from the provider to the customer; empty when bought from the provider.
    pub chain: Vec<String>,
}

impl Accountability {
    /// Entries of a chain: each token carries it.
    pub const CHAIN_MOST: usize = 8;

    /// The four duties, with their words.
    #[must_use]
    pub fn duties(&self) -> [(&'static str, &Contact); 4] {
        [
            ("storage", &self.storage),
            ("scope", &self.scope),
            ("revocation", &self.revocation),
            ("escalation", &self.escalation),
        ]
    }
}

/// Someone to call.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// On whose side.
    pub party: Party,
    /// A team or a person; 1 to 128 characters.
    pub who: String,
    /// A mail address or telephone number; 1 to 128 characters.
    pub contact: String,
}

/// A side of an integration.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// Who uses the integration.
    Customer,
    /// Whose product it is.
    Vendor,
    /// Whose resources it reaches.
    Provider,
}

impl Party {
    /// The word in trust files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Vendor => "vendor",
            Self::Provider => "provider",
        }
    }
}
