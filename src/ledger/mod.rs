//! What is true: leases, tasks, cuts, bars, audit, in an ordered key-value engine.
//!
//! ```text
//! broker --proposal--> lanes --> committer (one thread) --batch--> engine (flush)
//!                                    |                                  |
//!                                    +--- publish: book, counts, revision, feed <---+
//! ```

pub mod anchor;
mod appeals;
mod approvals;
mod ballast;
mod book;
mod check;
mod codec;
mod committer;
mod counts;
mod custody;
pub mod engine;
mod gleaned;
mod held;
mod journal;
pub mod keys;
mod lanes;
mod meta;
mod migrate;
mod notices;
mod open;
mod ops;
mod people;
mod propose;
mod read;
mod recall;
mod refused;
mod secrets;
mod shared;
mod snapshot;
mod standings;
#[cfg(test)]
mod tests;
mod told;
mod tx;

pub use anchor::{Anchor, FileAnchor, Mark};
pub use book::ScopeState;
pub use check::{CheckReport, check, fits};
pub use codec::{Codec, Unreadable, scope_from, scope_name};
pub use custody::{Lapses, Voices};
pub use gleaned::Gleaned;
pub use journal::{Head, audit_hash, stream_id, stream_name};
pub use lanes::{LaneFull, LaneLimits};
pub use migrate::SCHEMA;
pub use notices::NoticeMarks;
#[cfg(test)]
pub use open::Stepper;
pub use open::{Ledger, OpenError, Opening, Receipt};
pub use ops::{
    appeals::{
        AnswerDraft as AppealAnswer, FileDraft as AppealDraft, Filed, appeal_id, key_of as appeal_key,
        named as appealed,
    },
    apply::{TenantChange, TrustCommit},
    approve::{AgreeDraft, ApprovalUse, AskDraft, CloseDraft, Terms},
    custody::{Custody, CustodyDraft, UseRow},
    end::{EndLease, EndTask},
    issue::{HandOut, IssueDraft, Quota, Retry, Waiting},
    keys::KeyCommit,
    notices::{NoticeCommit, UnmanagedCommit},
    people::{PeopleCommit, SignInDraft, person_keys},
    pickups::{PickedUp, PickupDraft},
    scope::{BarDraft, CutDraft, Revoked},
    secrets::{SecretCommit, ValueChange},
    spend::Spend,
    task::OpenDraft,
    upkeep::{CheckpointDraft, SweepReport, TrimReport, WalkReport},
};
pub use read::{BarRow, CutRow};
pub use refused::Refused;
pub use secrets::{HolderRow, SecretRow};
pub use shared::{Aside, AsideRow, Hold, Published};
pub use snapshot::{Filler, Snapshot, hold_restored};
pub use told::LogRow;
