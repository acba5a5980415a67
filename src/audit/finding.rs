//! What is wrong with an audit trail, and where.

use std::fmt;

use crate::pb;

/// The sort of damage.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FindingKind {
    /// Content, or a hash, differs from what the chain or a checkpoint says.
    Changed,
    /// Events between or before others are gone.
    Removed,
    /// An event stands in another place than its sequence says, or again.
    Reordered,
    /// The end of a stream is gone.
    Truncated,
    /// A whole stream is gone.
    Missing,
    /// A checkpoint is damaged, missing or not by a trusted key.
    Checkpoint,
}

impl FindingKind {
    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::Missing => "missing",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// One located piece of damage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The sort of damage.
    pub kind: FindingKind,
    /// The stream; empty for checkpoints and lines that cannot be read.
    pub stream: String,
    /// The first event concerned; for checkpoints the number, for unreadable lines the line, from 1.
    pub sequence: u64,
    /// For people.
    pub explanation: String,
}

impl Finding {
    pub(super) fn new(kind: FindingKind, stream: &str, sequence: u64, explanation: impl Into<String>) -> Self {
        Self { kind, stream: stream.to_owned(), sequence, explanation: explanation.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}: {}", self.kind.word(), self.stream, self.sequence, self.explanation)
    }
}

impl From<Finding> for pb::AuditFinding {
    fn from(finding: Finding) -> Self {
        Self {
            kind: finding.kind.word().to_owned(),
            stream: finding.stream,
            sequence: finding.sequence,
            explanation: finding.explanation,
        }
    }
}
