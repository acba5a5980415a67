//! Policy files, as the trust map keeps them.

use serde::{Deserialize, Serialize};

use crate::model::Digest;

/// One file of policies.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// As it lay in the trust folder; what messages call it.
    pub path: String,
    /// Cedar.
    pub text: String,
}

/// The policies of a tenant, or the guardrails of all.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTexts {
    /// What decides; nothing does when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enforce: Vec<PolicyFile>,
    /// What is asked beside it, and only told about; nothing is when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<PolicyFile>,
}

impl PolicyTexts {
    /// Policies of one set.
    pub const MAX_POLICIES: usize = 256;
    /// Bytes of one set.
    pub const MAX_BYTES: usize = 256 << 10;
    /// Bytes of a policy's id.
    pub const MAX_ID_BYTES: usize = 64;

    /// Whether there is nothing to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.enforce.is_empty() && self.shadow.is_empty()
    }
}

/// SHA-256 over the files of a set, each with its name; what ends each is no byte of UTF-8.
pub(super) fn hash(files: &[PolicyFile]) -> Digest {
    let framed = |file: &'_ PolicyFile| [file.path.clone().into_bytes(), file.text.clone().into_bytes()].join(&0xff);
    let parts: Vec<Vec<u8>> = files.iter().map(framed).collect();
    Digest::of(&parts.join(&0xff))
}
