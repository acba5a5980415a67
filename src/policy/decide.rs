//! Deciding: the order of checks is the security argument.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::identity::Caller;
use crate::model::{
    CredentialKind, GrantName, Intent, PartnerName, Purpose, ScopeId, Timestamp, WorkloadName, pace::Velocity,
};

use super::{
    case::{Case, end_after, from_network, is_approved, is_in_force, may_use},
    cedar::{self, PolicyAction, Question},
    decision::{Bound, Decision, TaskDecision},
    denied::Denied,
    grant::Grant,
    trust::{GlobalTrust, TenantTrust, Workload},
};

/// What a workload asks for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Who asks, as [`TenantTrust::workload_of`] found.
    pub workload: &'a WorkloadName,
    /// For whom.
    pub partner: &'a PartnerName,
    /// Why.
    pub purpose: &'a Purpose,
    /// The grant to use; when `None` the one that fits.
    pub grant: Option<&'a GrantName>,
    /// The credential's form.
    pub kind: CredentialKind,
    /// Who it shall be for.
    pub audiences: &'a [String],
    /// What it shall allow.
    pub actions: &'a [String],
    /// DNS names of a certificate, lower case.
    pub dns_names: &'a [String],
    /// Life in seconds; 0 for the grant's default.
    pub ttl_seconds: u32,
    /// Whether to bind it.
    pub binding: BindingWish,
}

/// Whether a token shall be bound to the caller's client certificate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BindingWish {
    /// When the caller has one.
    #[default]
    Default,
    /// In any case.
    Certificate,
    /// In no case.
    None,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// An address.
    Network(IpAddr),
    /// A Unix socket: in no network.
    Local,
    /// Not known, as of a request that is only thought of: taken to fit.
    Unknown,
}

impl Origin {
    /// Of a caller.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        caller.address().map_or(Self::Local, Self::Network)
    }

    /// Whether it is in one of the networks; where none is named, it always is.
    pub(super) fn is_within(self, sources: &[IpNet]) -> bool {
        sources.is_empty()
            || match self {
                Self::Network(address) => sources.iter().any(|network| network.contains(&address)),
                Self::Local => false,
                Self::Unknown => true,
            }
    }
}

/// What a decision rests on beside the trust map and the request.
#[derive(Clone)]
pub struct Facts<'a> {
    /// Incarnation and revision number that all facts were read at.
    pub basis: (u64, u64),
    /// The task's end.
    pub task_deadline: Option<Timestamp>,
    /// The end of the caller's proof.
    pub proof_expires: Option<Timestamp>,
    /// The end of the certificate that will sign; certificates only.
    pub issuer_expires: Option<Timestamp>,
    /// Whether the caller has a client certificate.
    pub has_certificate: bool,
    /// The date that an attestation at run time set for a grant, in place of the trust map's. Who cannot tell says 1970.
    pub attest_by: &'a dyn Fn(&GrantName) -> Option<Timestamp>,
    /// Scopes of the caller's proofs.
    pub proofs: Vec<ScopeId>,
    /// Where it asks from.
    pub origin: Origin,
    /// Grants that were approved for this task, each until when.
    pub approved: &'a [(GrantName, Timestamp)],
    /// What policies look at beside.
    pub scene: Scene<'a>,
}

/// What policies look at beside all else. The default is of a request that tells nothing, where there are no guardrails.
#[derive(Clone, Copy, Default)]
pub struct Scene<'a> {
    /// Whose guardrails hold.
    pub global: Option<&'a GlobalTrust>,
    /// What the task is about.
    pub intent: Option<&'a Intent>,
    /// Which renewal it is, from 1; `None` when it is none. The grant bounds it too.
    pub renewals: Option<u32>,
    /// Whether a task is opened for this credential alone; then that is asked as well.
    pub opens: bool,
    /// Who answers for a grant at run time, where that is not who the trust map says.
    pub owner: Option<OwnerOf<'a>>,
}

/// Finds the owner that a grant was given to at run time.
pub type OwnerOf<'a> = &'a dyn Fn(&GrantName) -> Option<String>;

impl fmt::Debug for Scene<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene").field("intent", &self.intent).field("opens", &self.opens).finish_non_exhaustive()
    }
}

impl fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("basis", &self.basis).finish_non_exhaustive()
    }
}

/// What a workload asks for when it opens a task.
#[derive(Clone, Debug)]
pub struct TaskAsked<'a> {
    /// Who asks, as [`TenantTrust::workload_of`] found.
    pub workload: &'a WorkloadName,
    /// For whom.
    pub partner: &'a PartnerName,
    /// Why.
    pub purpose: &'a Purpose,
    /// Seconds until it ends by itself; 0 for the longest that is allowed.
    pub deadline_seconds: u32,
}

/// What a task's decision rests on beside the trust map and the request.
#[derive(Clone)]
pub struct TaskFacts<'a> {
    /// Incarnation and revision number that all facts were read at.
    pub basis: (u64, u64),
    /// The parent task's end.
    pub parent_deadline: Option<Timestamp>,
    /// As [`Facts::attest_by`].
    pub attest_by: &'a dyn Fn(&GrantName) -> Option<Timestamp>,
    /// Scopes of the caller's proofs.
    pub proofs: Vec<ScopeId>,
    /// As [`Facts::origin`].
    pub origin: Origin,
    /// As [`Facts::approved`].
    pub approved: &'a [(GrantName, Timestamp)],
    /// As [`Facts::scene`].
    pub scene: Scene<'a>,
}

impl fmt::Debug for TaskFacts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskFacts").field("basis", &self.basis).finish_non_exhaustive()
    }
}

/// Decides about one credential.
///
/// Who asks comes first, then which grant, then what, then whether the grant is in force, then for how long. Nothing
/// is cut down to fit but the end, which is the earliest of all that limit it, to the whole second, and said so.
///
/// # Errors
/// When the trust map does not allow it. Without a named grant the reason is that of the grant that came closest.
pub fn decide(trust: &TenantTrust, asked: &Asked<'_>, facts: &Facts<'_>, now: Timestamp) -> Result<Decision, Denied> {
    let workload = trust.workloads.get(asked.workload).ok_or(Denied::UnknownWorkload)?;
    let mut fit: Option<Case<'_>> = None;
    let mut closest: Option<(usize, Denied)> = None;
    for (name, grant) in candidates(trust, asked.partner, asked.purpose, asked.grant)? {
        let case = Case { asked, facts, trust, workload, name, grant, now };
        match (case.check(), &fit) {
            (Ok(()), None) => fit = Some(case),
            (Ok(()), Some(other)) => return Err(Denied::GrantAmbiguous(other.name.clone(), name.clone())),
            (Err((step, why)), _) => {
                if closest.as_ref().is_none_or(|(before, _)| *before < step) {
                    closest = Some((step, why));
                }
            }
        }
    }
    match (fit, closest) {
        // Policies come last, and only of what the trust map allows: they can but refuse.
        (Some(case), _) => case.decision(trust),
        (None, Some((_, why))) => Err(why),
        (None, None) => Err(Denied::PurposeNotGranted(asked.purpose.clone())),
    }
}

/// Decides about opening a task: some grant in force must be for this workload, partner and purpose.
///
/// # Errors
/// When none is, or the task would outlast what the grants or the parent task allow.
pub fn decide_task(
    trust: &TenantTrust,
    asked: &TaskAsked<'_>,
    facts: &TaskFacts<'_>,
    now: Timestamp,
) -> Result<TaskDecision, Denied> {
    let workload = trust.workloads.get(asked.workload).ok_or(Denied::UnknownWorkload)?;
    let mut longest: Option<u32> = None;
    let mut closest: Option<Denied> = None;
    let mut velocity = Velocity::default();
    for (name, grant) in candidates(trust, asked.partner, asked.purpose, None)? {
        let usable = may_use(name, grant, asked.workload, workload)
            .and_then(|()| from_network(name, grant, facts.origin))
            .and_then(|()| is_in_force(name, grant, facts.attest_by, now))
            .and_then(|()| is_approved(name, grant, asked.purpose, facts.approved));
        match usable {
            Ok(()) => {
                longest = longest.max(Some(grant.task_max_seconds));
                velocity = velocity.least(grant.velocity);
            }
            Err(why) => closest = closest.or(Some(why)),
        }
    }
    let Some(max) = longest else {
        return Err(closest.unwrap_or_else(|| Denied::PurposeNotGranted(asked.purpose.clone())));
    };
    let deadline = task_deadline(asked.deadline_seconds, max, facts.parent_deadline, now)?;
    let judged = judge_opening(trust, asked, workload, facts, deadline, now)?;
    let (ruling, shadow) = judged.map_or((None, Vec::new()), |judged| (Some(judged.ruling), judged.shadow));
    Ok(TaskDecision {
        basis: facts.basis,
        trust_hash: trust.hash(),
        tenant: trust.name.clone(),
        partner: asked.partner.clone(),
        workload: asked.workload.clone(),
        purpose: asked.purpose.clone(),
        opened: now,
        deadline,
        proofs: facts.proofs.clone(),
        velocity,
        ruling,
        shadow,
    })
}

fn judge_opening(
    trust: &TenantTrust,
    asked: &TaskAsked<'_>,
    workload: &Workload,
    facts: &TaskFacts<'_>,
    deadline: Timestamp,
    now: Timestamp,
) -> Result<Option<cedar::Judged>, Denied> {
    let question = Question {
        action: PolicyAction::OpenTask,
        workload: (asked.workload, workload),
        partner: asked.partner,
        tenant: trust.name.as_str(),
        grant: None,
        purpose: asked.purpose,
        intent: facts.scene.intent,
        audiences: &[],
        actions: &[],
        dns_names: &[],
        kind: CredentialKind::Jwt,
        life_seconds: deadline.seconds().saturating_sub(now.seconds()),
        origin: facts.origin,
        bound: false,
        renewals: 0,
        owner: String::new(),
        attest_by: Timestamp::default(),
        is_child: facts.parent_deadline.is_some(),
        now,
    };
    cedar::judge(trust, facts.scene.global, &question).map_err(Denied::Policy)
}

fn task_deadline(asked: u32, max: u32, parent: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Denied> {
    if asked > max {
        return Err(Denied::TaskTooLong { asked, max });
    }
    let own = end_after(if asked == 0 { max } else { asked }, now);
    let deadline = match parent {
        Some(parent) if parent.floor_second() < own && asked > 0 => return Err(Denied::ParentEndsSooner(parent)),
        Some(parent) => own.min(parent.floor_second()),
        None => own,
    };
    if deadline.seconds() <= now.seconds() {
        return Err(Denied::LifetimeTooShort(Bound::TaskDeadline));
    }
    Ok(deadline)
}

/// The grants to look at, in name order.
pub(super) fn candidates<'a>(
    trust: &'a TenantTrust,
    partner: &PartnerName,
    purpose: &Purpose,
    named: Option<&GrantName>,
) -> Result<impl Iterator<Item = (&'a GrantName, &'a Grant)>, Denied> {
    let index = trust.index();
    let by_purpose = index.grants.get(partner).ok_or_else(|| Denied::PartnerNotGranted(partner.clone()))?;
    let one = match named {
        Some(name) => Some(trust.grants.get_key_value(name).ok_or_else(|| Denied::UnknownGrant(name.clone()))?),
        None => None,
    };
    let fitting = match named {
        Some(_) => None,
        None => Some(by_purpose.get(purpose).ok_or_else(|| Denied::PurposeNotGranted(purpose.clone()))?),
    };
    let fitting = fitting.into_iter().flatten().filter_map(|name| trust.grants.get_key_value(name));
    Ok(one.into_iter().chain(fitting))
}
