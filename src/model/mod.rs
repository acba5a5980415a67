//! Pure values and their transitions: no I/O, no clock, no store.

pub mod address;
pub mod approval;
pub mod chain;
pub mod domain;
pub mod id;
pub mod intent;
pub mod issuer;
pub mod lease;
pub mod pace;
pub mod person;
pub mod scope;
pub mod secret;
pub mod shape;
pub mod stamp;
pub mod standing;
pub mod static_secret;
pub mod suspension;
pub mod task;
pub mod time;
pub mod topic;
pub mod unmanaged;

pub use approval::{Approval, ApprovalStanding, ApprovalVote, Voter};
pub use chain::Chain;
pub use domain::TrustDomain;
pub use id::{
    ApprovalId, GrantName, IssuerName, LeaseId, OperatorName, PartnerName, Purpose, SecretName, TaskId, TenantName,
    TenantNumber, WorkloadName,
};
pub use intent::{Intent, InvalidIntent, Ruling};
pub use issuer::{IssuerKind, IssuerRules, OnReuse, Reuse, SignatureAlgorithm};
pub use lease::{CredentialKind, Lease};
pub use pace::{Pace, Tripped, Velocity};
pub use person::{PersonId, PersonKey, SignInRule, SignInRules};
pub use scope::{Scope, ScopeId};
pub use secret::{Digest, Secret};
pub use stamp::Stamp;
pub use standing::{EndReason, Standing};
pub use static_secret::SecretVersion;
pub use suspension::{Suspension, Suspensions};
pub use task::{ClientKey, Delegator, OpenedWith, Task, TaskLimits};
pub use time::{Clock, Timestamp, Ttl};
pub use topic::Topic;
