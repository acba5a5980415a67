//! May it? The trust map, and decisions made with it. Pure: no I/O, no clock, no store.
//!
//! A trust map is read from files ([`parse()`]), compared with the one in force ([`diff()`]), kept one row a tenant
//! ([`TenantTrust::to_bytes`]) and asked ([`decide()`], [`decide_task`]). Only this module can build a [`Decision`].

mod accountability;
mod bytes;
mod case;
mod cedar;
mod claim;
mod decide;
mod decision;
mod demand;
mod denied;
mod diff;
mod explain;
mod federated;
mod grant;
mod index;
mod parse;
mod pattern;
mod problem;
mod select;
mod sorted;
mod spelling;
mod trust;

#[cfg(test)]
mod tests;

pub use accountability::{Accountability, Contact, Party};
pub use bytes::{CompiledPolicies, UnreadableTrust};
pub use cedar::{
    Difference, PolicyAction, PolicyFile, PolicyRefusal, PolicyTexts, RefusedBy, SCHEMA as POLICY_SCHEMA, Verdict,
};
pub use claim::{ClaimPattern, ClaimRule, InvalidClaimPattern};
pub use decide::{Asked, BindingWish, Facts, Origin, OwnerOf, Scene, TaskAsked, TaskFacts, decide, decide_task};
pub use decision::{Bound, Decision, TaskDecision};
pub use demand::Approvals;
pub use denied::Denied;
pub use diff::{Change, ChangeKind, Noun, diff, diff_global, diff_tenant};
pub use explain::{explain, explain_task};
pub use federated::{Examined, ExaminedClaim, Federated};
pub use grant::{Grant, ResourceClass};
pub use parse::{Document, Extent, parse, parse_with};
pub use pattern::{InvalidPattern, Pattern};
pub use problem::{Problem, Problems};
pub use sorted::{Reach, Sorted};
pub use trust::{
    GlobalTrust, GlobalVerifier, Operator, Partner, Role, Selector, TenantTrust, TokenAlgorithm, TrustMap, Verifier,
    Workload,
};
