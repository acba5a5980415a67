//! The trust map as rows keep it.

use serde::{Serialize, de::DeserializeOwned};

use crate::model::Digest;

use super::{
    cedar::{Sets, Side},
    trust::{GlobalTrust, TenantTrust},
};

/// A row that does not hold a trust map.
#[derive(Debug, thiserror::Error)]
#[error("the row holds no trust map")]
pub struct UnreadableTrust(#[source] serde_json::Error);

impl TenantTrust {
    /// Canonical JSON: fields in declared order, sets sorted, no space. Equal trust, equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The inverse of [`Self::to_bytes`].
    ///
    /// The row's authenticity is the ledger's to check; limits are not checked again.
    ///
    /// # Errors
    /// When the bytes are no trust map of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnreadableTrust> {
        from_bytes(bytes)
    }
}

impl TenantTrust {
    /// Whether its policies are compiled, or it has none.
    #[must_use]
    pub fn is_compiled(&self) -> bool {
        self.policy.is_none() || self.sets.is_ready()
    }

    /// Compiles its policies, unless they are. That takes up to a second, and a stack of its own.
    pub fn compile(&self) {
        self.sets.compile(self.policy.as_ref(), Side::Tenant);
    }

    /// What was compiled of its policies, to be given to the same trust map when that is read again.
    #[must_use]
    pub fn compiled(&self) -> CompiledPolicies {
        CompiledPolicies(self.hash(), self.sets.clone())
    }

    /// Takes what was compiled of the very same trust map; of another one it is left alone.
    pub fn adopt(&mut self, compiled: &CompiledPolicies) {
        if let Some(sets) = compiled.of(self.hash()) {
            self.sets = sets.clone();
        }
    }
}

/// What was compiled of the policies of one trust map.
#[derive(Clone, Debug)]
pub struct CompiledPolicies(Digest, Sets);

impl CompiledPolicies {
    /// The sets, when they are compiled and of the trust map with this hash.
    fn of(&self, hash: Digest) -> Option<&Sets> {
        let Self(own, sets) = self;
        (sets.is_ready() && *own == hash).then_some(sets)
    }
}

impl GlobalTrust {
    /// Whether its guardrails are compiled, or there are none.
    #[must_use]
    pub fn is_compiled(&self) -> bool {
        self.guardrails.is_none() || self.sets.is_ready()
    }

    /// As [`TenantTrust::compile`].
    pub fn compile(&self) {
        self.sets.compile(self.guardrails.as_ref(), Side::Guardrails);
    }

    /// As [`TenantTrust::compiled`].
    #[must_use]
    pub fn compiled(&self) -> CompiledPolicies {
        CompiledPolicies(self.hash(), self.sets.clone())
    }

    /// As [`TenantTrust::adopt`].
    pub fn adopt(&mut self, compiled: &CompiledPolicies) {
        if let Some(sets) = compiled.of(self.hash()) {
            self.sets = sets.clone();
        }
    }

    /// Canonical JSON, as of a tenant's part.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The inverse of [`Self::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are no trust map of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnreadableTrust> {
        from_bytes(bytes)
    }

    /// SHA-256 of the canonical JSON.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
}

#[expect(clippy::expect_used, reason = "all keys are strings and no value can refuse; JSON has no other failure")]
fn to_bytes<T: Serialize>(trust: &T) -> Vec<u8> {
    serde_json::to_vec(trust).expect("a trust map is JSON")
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, UnreadableTrust> {
    serde_json::from_slice(bytes).map_err(UnreadableTrust)
}
