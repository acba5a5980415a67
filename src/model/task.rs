//! One unit of work.

use super::{
    id::{GrantName, IssuerName, LeaseId, PartnerName, Purpose, TaskId, TenantName, WorkloadName},
    intent::Intent,
    scope::ScopeId,
    secret::Digest,
    standing::{EndReason, Standing},
    time::Timestamp,
};

/// One unit of work with a purpose and a deadline. What is revoked is the task; its leases end with it.
///
/// ```text
/// open --> Live --> Ended(Completed | Abandoned | Revoked | Expired)     never back
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its id; says the tenant's number.
    pub id: TaskId,
    /// The tenant it works in.
    pub tenant: TenantName,
    /// The partner it works for.
    pub partner: PartnerName,
    /// The workload that opened it.
    pub workload: WorkloadName,
    /// Why.
    pub purpose: Purpose,
    /// The task it dies with.
    pub parent: Option<TaskId>,
    /// When it was opened.
    pub opened: Timestamp,
    /// When it ends by itself.
    pub deadline: Timestamp,
    /// What ended it by itself, and when; cuts are not noted here.
    pub ended: Option<(EndReason, Timestamp)>,
    /// Whether a holder keeps it alive.
    pub held: bool,
    /// Leases issued under it, ended ones included.
    pub leases_issued: u32,
    /// What its leases count for in quotas.
    pub live: Vec<LiveBucket>,
    /// Incarnation and revision number its opening was decided at.
    pub basis: (u64, u64),
    /// Scopes of the proofs it was opened with.
    pub proofs: Vec<ScopeId>,
    /// The lease whose certificate the opener proved itself with.
    pub parent_lease: Option<LeaseId>,
    /// The key of the client that opened it with an identity token.
    pub client_key: Option<ClientKey>,
    /// The identity token that it was opened with; of a child, its parent.
    pub opened_with: Option<Box<OpenedWith>>,
    /// Where the job is seen that it was opened for; of a child, its parent's unless it has its own.
    pub job_url: Option<Box<str>>,
    /// What its workload said it is about to do.
    pub intent: Option<Box<Intent>>,
}

/// An identity token, as people can find it again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenedWith {
    /// Its issuer.
    pub issuer: IssuerName,
    /// Its subject, as a log may show it.
    pub subject: String,
    /// SHA-256 of what was signed.
    pub token: Digest,
}

/// The key of a client's own that a task is bound to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientKey {
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key: Digest,
    /// Until when it proves its holder without a token, while the task is held.
    pub until: Timestamp,
    /// Whether nobody else may act in the task, whatever he proves: the token was for this key.
    pub exclusive: bool,
}

/// How many leases of a grant expire in one minute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LiveBucket {
    /// The grant they came from.
    pub grant: GrantName,
    /// Unix minute of their expiry.
    pub minute: u32,
    /// How many.
    pub count: u32,
}

impl Task {
    /// The most ancestors a task can have.
    pub const MAX_ANCESTORS: usize = 4;

    /// Its standing by its own row and the time; cuts, bars and ancestors come on top.
    #[must_use]
    pub fn own_standing(&self, now: Timestamp) -> Standing {
        match self.ended {
            Some((why, _)) => Standing::Ended(why),
            None if self.deadline <= now => Standing::Ended(EndReason::Expired),
            None => Standing::Live,
        }
    }

    /// Every scope that a cut or bar on would concern it.
    #[must_use]
    pub fn scopes(&self) -> Vec<ScopeId> {
        let mut ids = vec![
            ScopeId::everything(),
            ScopeId::tenant(&self.tenant),
            ScopeId::partner(&self.partner),
            ScopeId::partner_in_tenant(&self.tenant, &self.partner),
            ScopeId::workload(&self.tenant, &self.workload),
        ];
        ids.extend(&self.proofs);
        ids
    }
}
