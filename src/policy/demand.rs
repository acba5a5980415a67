//! What a grant demands beside fitting: approvals by named people, and a pace that no task exceeds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{grant::Grant, sorted::Sorted, spelling};
use crate::model::{Digest, OperatorName, Purpose, Timestamp, pace::Velocity};

/// Who must agree before a grant is used.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    /// How many must; 1 to 8, and no more than `by` names.
    pub needed: u32,
    /// Whose word counts.
    pub by: Sorted<OperatorName>,
    /// Seconds for which it can be used once enough have agreed; at most 86,400.
    pub valid_seconds: u32,
    /// For which of the grant's purposes; empty for all.
    #[serde(default, skip_serializing_if = "spelling::is_empty")]
    pub purposes: Sorted<Purpose>,
}

impl Approvals {
    /// Most approvals that one use can need.
    pub const MOST: u32 = 8;
    /// The longest `valid_seconds`: a day, as the longest task.
    pub const VALID_MOST: u32 = 86_400;
}

impl fmt::Display for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: Vec<&str>| names.join(", ");
        write!(f, "{} of {}", self.needed, names(self.by.iter().map(OperatorName::as_str).collect()))?;
        write!(f, " for {}s", self.valid_seconds)?;
        if self.purposes.is_empty() {
            return Ok(());
        }
        write!(f, " when {}", names(self.purposes.iter().map(Purpose::as_str).collect()))
    }
}

impl Grant {
    /// The approvals that a purpose needs; `None` when it needs none.
    #[must_use]
    pub fn approvals_for(&self, purpose: &Purpose) -> Option<&Approvals> {
        self.approvals.as_ref().filter(|approvals| approvals.purposes.is_empty() || approvals.purposes.has(purpose))
    }

    /// A hash over what approvers agree to: all that the grant gives and demands. Who answers for it and its dates are no
    /// part of that.
    #[must_use]
    pub fn terms(&self) -> Digest {
        let bare = Self {
            owner: String::new(),
            expires: Timestamp::default(),
            revokers: Sorted::default(),
            attest_by: Timestamp::default(),
            attest_every: None,
            max_live_leases: 0,
            max_leases_per_task: 0,
            velocity: Velocity::default(),
            max_renewals: None,
            ..self.clone()
        };
        // A map of plain texts and numbers has a spelling; if it had none, nothing would fit it.
        Digest::of(&serde_json::to_vec(&bare).unwrap_or_default())
    }
}
