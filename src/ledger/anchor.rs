//! The anchor: where the newest state is noted outside of the data folder, so that an older folder is noticed.
//!
//! ```text
//! commit -> publish -> anchor (write, flush) -> ends are answered
//!              |
//!              +-> beginnings are answered; the anchor follows within [`LAG`]
//! ```
//!
//! What this promises: a folder that lacks an acknowledged revocation, bar or act of an operator is noticed. What it does
//! not: a folder that lacks at most the last [`LAG`] of beginnings is not; what it lacks is then unknown, so inactive.

mod file;
mod keeper;

use std::{fmt::Debug, io, time::Duration};

pub use file::FileAnchor;
pub(super) use keeper::Keeper;

use crate::model::Digest;

/// One state of a store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mark {
    /// Random, new at init, at every restore and whenever an older state was noticed.
    pub incarnation: u64,
    /// The last commit.
    pub number: u64,
    /// Hash over all audit up to it.
    pub audit_head: Digest,
    /// Whether the store was closed at this state, so that nothing came after it.
    pub closed: bool,
}

/// What there is at the anchor's place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// Something that is no anchor of this seal key; says why.
    Damaged(&'static str),
    /// The newest state that was noted.
    Mark(Mark),
}

/// A place outside of the data folder that keeps one [`Mark`].
pub trait Anchor: Send + Sync + Debug {
    /// What is noted.
    ///
    /// # Errors
    /// When it cannot be read at all: then nothing can be said about the store.
    fn read(&self) -> io::Result<Found>;

    /// Replaces what is noted, atomically and durably.
    ///
    /// # Errors
    /// When it may not be on disk; what was noted before may still stand.
    fn write(&self, mark: &Mark) -> io::Result<()>;

    /// Where it is, for people.
    fn place(&self) -> String;

    /// How long a write may take before it counts as failed; nothing is issued meanwhile.
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// How far the anchor may stay behind beginnings.
pub const LAG: Duration = Duration::from_secs(1);

/// A write that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);
