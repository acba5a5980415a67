//! One unit of work.

use super::{
    id::{ApprovalId, GrantName, IssuerName, LeaseId, PartnerName, Purpose, TaskId, TenantName, WorkloadName},
    intent::Intent,
    lease::CredentialKind,
    pace::Pace,
    scope::ScopeId,
    secret::Digest,
    standing::{EndReason, Standing},
    static_secret::SecretVersion,
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
    /// The workload that acts in it: the one that opened it, or that it was opened for.
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
    /// Approvals that are used in it, at most [`Self::MAX_APPROVALS`].
    pub approvals: Vec<ApprovalId>,
    /// What was derived in it and its child tasks, where a grant limits that; kept at the task without a parent.
    pub pace: Option<Box<Pace>>,
    /// What is allowed in it at most, where its opener, or that of a task above, said so.
    pub limits: Option<Box<TaskLimits>>,
    /// Versions of static secrets that it and tasks below it got, at most [`Self::MAX_SECRETS`].
    pub secrets: Vec<HeldSecret>,
    /// Whether they got more than are noted.
    pub secrets_overflow: bool,
}

/// A version of a static secret that was handed out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeldSecret {
    /// Which.
    pub version: SecretVersion,
    /// The last lease that it was handed out under.
    pub lease: LeaseId,
    /// How often it was.
    pub times: u32,
}

/// What is allowed in a task and below it at most, beside what grants allow. An empty list allows all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TaskLimits {
    /// Whom credentials may be for: patterns as in grants.
    pub audiences: Vec<String>,
    /// What they may allow: patterns as in grants.
    pub actions: Vec<String>,
    /// Their forms.
    pub kinds: Vec<CredentialKind>,
    /// Their longest life in seconds; 0 for as long as grants say.
    pub ttl_max: u32,
}

impl TaskLimits {
    /// Entries of a list.
    pub const MAX_LIST: usize = 32;

    /// As events have them.
    #[must_use]
    pub fn details(&self) -> Vec<String> {
        let mut details: Vec<String> = self.audiences.iter().map(|text| format!("limit.audience={text}")).collect();
        details.extend(self.actions.iter().map(|text| format!("limit.action={text}")));
        details.extend(self.kinds.iter().map(|kind| format!("limit.kind={}", kind.word())));
        if self.ttl_max > 0 {
            details.push(format!("limit.ttl_max={}s", self.ttl_max));
        }
        details
    }

    /// Whether they allow all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Who had a child task opened for another workload, and the task that it did so in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delegator {
    /// Its workload.
    pub workload: WorkloadName,
    /// The task it acted in.
    pub task: TaskId,
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
    /// Child tasks for other workloads that one task can have.
    pub const MAX_DELEGATIONS: usize = 16;
    /// Approvals that one task can use.
    pub const MAX_APPROVALS: usize = 8;
    /// Versions of static secrets that are noted of one task and those below it.
    pub const MAX_SECRETS: usize = 32;

    /// Notes that a version of a static secret was handed out in it or below it.
    pub fn note_secret(&mut self, version: &SecretVersion, lease: LeaseId) {
        if let Some(known) = self.secrets.iter_mut().find(|held| held.version == *version) {
            (known.lease, known.times) = (lease, known.times.saturating_add(1));
        } else if self.secrets.len() < Self::MAX_SECRETS {
            self.secrets.push(HeldSecret { version: version.clone(), lease, times: 1 });
        } else {
            self.secrets_overflow = true;
        }
    }

    /// The ids of the task and of those above it, itself first; `read` finds what is above. No more than can stand above one.
    ///
    /// # Errors
    /// Those of `read`; then it ends.
    pub fn lineage<E>(
        &self,
        mut read: impl FnMut(TaskId) -> Result<Option<Self>, E>,
    ) -> impl Iterator<Item = Result<TaskId, E>> {
        let above = move |below: &Result<(TaskId, Option<TaskId>), E>| {
            let id = below.as_ref().ok()?.1?;
            Some(read(id).map(|task| (id, task.and_then(|task| task.parent))))
        };
        let whole = std::iter::successors(Some(Ok((self.id, self.parent))), above);
        whole.take(1 + Self::MAX_ANCESTORS).map(|found| found.map(|(id, _)| id))
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Scope, TenantNumber};

    fn task() -> Task {
        Task {
            id: TaskId::fresh(TenantNumber::new(3).expect("in range")).expect("entropy"),
            tenant: "acme".parse().expect("a name"),
            partner: "zeta".parse().expect("a name"),
            workload: "ci".parse().expect("a name"),
            purpose: "deploy".parse().expect("a name"),
            parent: None,
            opened: Timestamp::from_seconds(100),
            deadline: Timestamp::from_seconds(200),
            ended: None,
            held: false,
            leases_issued: 0,
            live: vec![],
            basis: (1, 2),
            proofs: vec![ScopeId::signing_key("one"), ScopeId::signing_key("two")],
            parent_lease: None,
            client_key: None,
            opened_with: None,
            job_url: None,
            intent: None,
            approvals: vec![],
            pace: None,
            limits: None,
            secrets: vec![],
            secrets_overflow: false,
        }
    }

    #[test]
    fn a_task_depends_on_whom_it_is_for_who_opened_it_and_what_proved_that() {
        let task = task();
        let named = [
            Scope::Everything,
            Scope::Tenant(task.tenant.clone()),
            Scope::Partner(task.partner.clone()),
            Scope::PartnerInTenant(task.tenant.clone(), task.partner.clone()),
            Scope::Workload(task.tenant.clone(), task.workload.clone()),
        ];
        let named: Vec<ScopeId> = named.iter().map(Scope::id).chain(task.proofs.iter().copied()).collect();
        assert_eq!(task.scopes(), named);
    }

    #[test]
    fn a_secret_is_noted_once_with_its_last_lease_and_how_often_and_what_finds_no_room_is_told() {
        let mut task = task();
        let version = |number| SecretVersion { name: "stripe".parse().expect("a name"), number };
        let leases = [(); 3].map(|()| LeaseId::fresh(task.id).expect("entropy"));
        leases.iter().for_each(|lease| task.note_secret(&version(1), *lease));
        assert_eq!(task.secrets, [HeldSecret { version: version(1), lease: leases[2], times: 3 }]);
        let last = u32::try_from(Task::MAX_SECRETS).expect("few");
        (2..=last).for_each(|number| task.note_secret(&version(number), leases[0]));
        assert_eq!((task.secrets.len(), task.secrets_overflow), (Task::MAX_SECRETS, false));
        task.note_secret(&version(last + 1), leases[0]);
        assert_eq!((task.secrets.len(), task.secrets_overflow), (Task::MAX_SECRETS, true));
    }

    #[test]
    fn limits_that_limit_nothing_are_empty_and_each_that_does_is_told() {
        let texts = |text: &str| vec![text.to_owned()];
        let usual = TaskLimits::default;
        assert!(usual().is_empty() && usual().details().is_empty());
        for (limits, told) in [
            (TaskLimits { audiences: texts("https://a"), ..usual() }, "limit.audience=https://a"),
            (TaskLimits { actions: texts("read"), ..usual() }, "limit.action=read"),
            (TaskLimits { kinds: vec![CredentialKind::X509], ..usual() }, "limit.kind=x509"),
            (TaskLimits { ttl_max: 1, ..usual() }, "limit.ttl_max=1s"),
        ] {
            assert_eq!((limits.is_empty(), limits.details()), (false, texts(told)));
        }
    }
}
