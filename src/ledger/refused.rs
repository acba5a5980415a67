//! Why the ledger did not do as proposed.

use crate::model::{ApprovalStanding, EndReason, ScopeId, TaskId, Tripped};

/// Why a proposal was not carried out. Nothing of it is in the store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// A scope it depends on is barred.
    #[error("the scope is barred")]
    Barred(ScopeId),
    /// A scope it depends on was changed or cut after its decision: decide anew.
    #[error("what the decision rests on has changed")]
    Moved,
    /// The task is over.
    #[error("the task has ended: {}", .0.word())]
    TaskEnded(EndReason),
    /// The task is suspended.
    #[error("the task is suspended")]
    TaskSuspended,
    /// It would have been too much for the task, which was suspended for it: that, and its event, are in the store.
    #[error("the task is suspended: its velocity.{} allows {}", .0.rule, .0.limit)]
    TooFast(Tripped),
    /// The lease is over.
    #[error("the lease has ended: {}", .0.word())]
    LeaseEnded(EndReason),
    /// No such lease or task.
    #[error("no such lease or task")]
    Unknown,
    /// A quota of live leases is used up.
    #[error("the quota of live leases of the {0} is used up")]
    Quota(&'static str),
    /// The identity token was used with other keys, as often as it may be: somebody else has it, too.
    #[error("the identity token was used with another key")]
    TokenSpent {
        /// The task that it opened first.
        first: Option<TaskId>,
    },
    /// The identity token and its key have a task already.
    #[error("the identity token has opened a task with this key")]
    TokenOpened,
    /// The approval cannot be used, or no longer changed; where it stands.
    #[error("the approval is {}", .0.word())]
    Approval(ApprovalStanding),
    /// Who asked, or has agreed already, does not agree.
    #[error("who asked for it or has agreed to it does not agree to it")]
    Involved,
    /// It goes to who holds a key only; it waits on.
    #[error("it goes to who holds a key only")]
    KeyNeeded,
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    RetryMismatch,
    /// Nothing is begun for now.
    #[error("nothing is issued for now: {0}")]
    Held(&'static str),
    /// Too much waits.
    #[error("too many requests wait to be committed")]
    Busy,
    /// The store failed; nothing was done.
    #[error("the store failed")]
    StoreFailed,
    /// The store has no room left; nothing was done.
    #[error("no space is left for the store")]
    StoreFull,
    /// It is done and in force, but the anchor outside of the data folder does not cover it: repeat it.
    #[error("it is in force, but the anchor cannot be written; mend that and repeat it")]
    Unanchored,
    /// The daemon is stopping.
    #[error("the broker is stopping")]
    Stopping,
}
