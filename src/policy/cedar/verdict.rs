//! What policies said.

use crate::model::{Digest, GrantName};

use super::question::PolicyAction;

/// What one set of policies said of one question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether it allows.
    pub allowed: bool,
    /// Ids of the policies that decided, in order: those that permitted, or those that forbade.
    pub policies: Vec<String>,
    /// What could not be evaluated; then it refuses.
    pub errors: Vec<String>,
}

impl Verdict {
    /// One word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.allowed, self.errors.is_empty()) {
            (true, _) => "allowed",
            (false, true) => "refused",
            (false, false) => "error",
        }
    }
}

/// How policies refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusedBy {
    /// One forbids it, or none permits it.
    Policy,
    /// One could not be evaluated.
    Error,
    /// They cannot be read any more.
    Unreadable,
}

/// What policies refused, and why: for operators. The caller learns [`RefusedBy`] only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyRefusal {
    /// How.
    pub by: RefusedBy,
    /// What was asked to be done.
    pub action: PolicyAction,
    /// The grant that allows it; none when a task is opened.
    pub grant: Option<GrantName>,
    /// The audience that was refused; empty when a task is opened.
    pub audience: String,
    /// Ids of the policies that forbid it; empty when none permits it.
    pub policies: Vec<String>,
    /// What could not be evaluated, or read.
    pub errors: Vec<String>,
    /// As [`crate::model::Ruling::set`].
    pub set: Digest,
    /// Where what runs in shadow says otherwise.
    pub shadow: Vec<Difference>,
}

/// A question of which the policies in shadow say something else than those in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// What was asked to be done.
    pub action: PolicyAction,
    /// The grant that allows it; none when a task is opened.
    pub grant: Option<GrantName>,
    /// The audience; empty when a task is opened.
    pub audience: String,
    /// What those in force say.
    pub enforced: Verdict,
    /// What those in shadow say.
    pub shadow: Verdict,
}
