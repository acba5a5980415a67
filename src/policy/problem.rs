//! What is wrong in trust files, all at once.

use std::fmt;

/// One thing to mend. Ordered by place.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// The document, as it was named.
    pub path: String,
    /// From 1; 0 when it is no one line's fault.
    pub line: u32,
    /// `grant.owner`; what is at fault.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// The mend.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}; {}", self.path, self.line, self.field, self.message, self.help)
    }
}

/// All that is wrong, in order of place; never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Problems that are listed; of more, the number is kept.
    pub const MAX_LISTED: usize = 1_000;

    /// Sorts, drops repeats, cuts the list. `None` when there is nothing wrong.
    pub(super) fn of(mut list: Vec<Problem>) -> Option<Self> {
        list.sort_unstable();
        list.dedup();
        let more = list.len().saturating_sub(Self::MAX_LISTED);
        list.truncate(Self::MAX_LISTED);
        (!list.is_empty()).then_some(Self { list, more })
    }

    /// The problems listed.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// How many are not listed.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            writeln!(f, "{problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}
