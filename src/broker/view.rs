//! What the wire says of what the broker knows, and the scopes that requests name.

use super::{event::stamp, refusal::Refusal, registry::Tenant};
use crate::{
    ledger::{BarRow, CutRow},
    model::{
        Delegator, Digest, GrantName, Lease, OperatorName, Scope, Standing, Task, Timestamp, WorkloadName,
        id::InvalidId,
    },
    pb,
    policy::{self, Reach},
};

/// A lease.
#[must_use]
pub fn lease(lease: &Lease, standing: Standing) -> pb::Lease {
    let (word, why) = standing_codes(standing);
    pb::Lease {
        lease_id: lease.id.to_string(),
        task_id: lease.id.task().to_string(),
        tenant: lease.tenant.to_string(),
        partner: lease.partner.to_string(),
        grant: lease.grant.to_string(),
        workload: lease.workload.to_string(),
        purpose: lease.purpose.to_string(),
        kind: lease.kind.code().into(),
        audiences: lease.audiences.clone(),
        actions: lease.actions.clone(),
        issued: Some(stamp(lease.issued)),
        expires: Some(stamp(lease.expires)),
        standing: word,
        end_reason: why,
        basis: Some(revision(lease.basis)),
        credential_sha256: lease.credential.0.to_vec(),
        key_id: lease.key_id.clone(),
        bound_sha256: lease.bound.map(|digest| digest.0.to_vec()).unwrap_or_default(),
        parent_lease_id: lease.parent.map(|id| id.to_string()).unwrap_or_default(),
        ended: ended(standing, lease.ended.map(|(_, at)| at), lease.expires),
        renewals: lease.renewals,
        delegated_by: lease.delegated.iter().map(|one| one.workload.to_string()).collect(),
        policies: Vec::new(),
        policy_set: Vec::new(),
        secret: lease.secret.as_ref().map(|secret| secret.name.to_string()).unwrap_or_default(),
        secret_version: lease.secret.as_ref().map_or(0, |secret| secret.number),
        pickup_until: lease.pickup_until.map(stamp),
    }
}

/// A lease as operators see it: with the policies that allowed it, of which its workload is told nothing.
#[must_use]
pub fn lease_in_full(of: &Lease, standing: Standing) -> pb::Lease {
    let ruling = of.ruling.as_deref();
    pb::Lease {
        policies: ruling.map(|ruling| ruling.policies.clone()).unwrap_or_default(),
        policy_set: ruling.map(|ruling| ruling.set.0.to_vec()).unwrap_or_default(),
        ..lease(of, standing)
    }
}

/// A task.
#[must_use]
pub fn task(task: &Task, delegators: &[Delegator], standing: Standing) -> pb::Task {
    let with = task.opened_with.as_deref();
    let (word, why) = standing_codes(standing);
    pb::Task {
        task_id: task.id.to_string(),
        tenant: task.tenant.to_string(),
        partner: task.partner.to_string(),
        purpose: task.purpose.to_string(),
        workload: task.workload.to_string(),
        parent_task_id: super::event::task_text(task.parent),
        opened: Some(stamp(task.opened)),
        deadline: Some(stamp(task.deadline)),
        standing: word,
        end_reason: why,
        ended: ended(standing, task.ended.map(|(_, at)| at), task.deadline),
        held: task.held,
        leases_issued: task.leases_issued,
        issuer: with.map(|with| with.issuer.to_string()).unwrap_or_default(),
        subject: with.map(|with| with.subject.clone()).unwrap_or_default(),
        token_sha256: with.map(|with| with.token.0.to_vec()).unwrap_or_default(),
        client_key_sha256: task.client_key.map(|own| own.key.0.to_vec()).unwrap_or_default(),
        client_key_until: task.client_key.map(|own| stamp(own.until)),
        job_url: task.job_url.as_deref().unwrap_or_default().to_owned(),
        task_type: task.intent.as_ref().map(|intent| intent.task_type().to_owned()).unwrap_or_default(),
        parameters: task.intent.as_ref().map(|intent| intent.parameters().clone()).unwrap_or_default(),
        delegated_by: delegators.iter().map(|one| one.workload.to_string()).collect(),
        limits: task.limits.as_deref().map(|limits| pb::TaskLimits {
            audiences: limits.audiences.clone(),
            actions: limits.actions.clone(),
            kinds: limits.kinds.iter().map(|kind| kind.code().into()).collect(),
            ttl_max_seconds: limits.ttl_max,
        }),
    }
}

/// A grant, with how many leases live under it and whether it can be used.
#[must_use]
pub fn grant(tenant: &Tenant, name: &GrantName, grant: &policy::Grant, live: u64, state: &str) -> pb::Grant {
    let attest_by = tenant.attest_by(name, grant);
    pb::Grant {
        tenant: tenant.trust.name().to_string(),
        name: name.to_string(),
        partner: grant.partner.to_string(),
        workloads: texts(&grant.workloads),
        purposes: texts(&grant.purposes),
        audiences: texts(&grant.audiences),
        actions: texts(&grant.actions),
        kinds: grant.kinds.iter().map(|kind| kind.code().into()).collect(),
        ttl_default_seconds: grant.ttl_default,
        ttl_max_seconds: grant.ttl_max,
        task_max_seconds: grant.task_max_seconds,
        owner: tenant.owner(name, grant).to_owned(),
        expires: Some(stamp(grant.expires)),
        revokers: texts(&grant.revokers),
        attest_by: Some(stamp(attest_by)),
        environment: grant.environment.clone(),
        require_binding: grant.require_binding,
        dns_names: grant.dns_names.to_vec(),
        max_live_leases: u32::try_from(grant.max_live_leases).unwrap_or(u32::MAX),
        live_leases: live,
        state: state.to_owned(),
        sources: texts(&grant.sources),
        secrets: texts(&grant.secrets),
        workload_api: grant.workload_api,
        max_renewals: grant.max_renewals,
        resource_classes: tenant
            .trust
            .resource_classes()
            .iter()
            .filter(|(_, class)| class.is_reached_by(grant))
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

/// A workload binding.
#[must_use]
pub fn workload(tenant: &Tenant, name: &WorkloadName, workload: &policy::Workload) -> pb::Workload {
    pb::Workload {
        tenant: tenant.trust.name().to_string(),
        name: name.to_string(),
        selectors: texts(&workload.selectors),
        environment: workload.environment.clone(),
        sources: texts(&workload.sources),
    }
}

/// An operator; its SPIFFE ID is in the broker's own trust domain.
#[must_use]
pub fn operator(name: &OperatorName, operator: &policy::Operator, trust_domain: &str) -> pb::Operator {
    pb::Operator {
        name: name.to_string(),
        role: operator.role.word().to_owned(),
        tenants: reach(&operator.tenants),
        partners: reach(&operator.partners),
        spiffe_id: format!("spiffe://{trust_domain}/operator/{name}"),
    }
}

/// A cut, and how far the clean-up behind it is.
#[must_use]
pub fn cut(row: &CutRow, incarnation: u64) -> pb::RevocationStatus {
    let record = &row.record;
    pb::RevocationStatus {
        revision: Some(revision((incarnation, row.number))),
        scope: row.scope.as_ref().map(scope),
        reason: record.reason.clone(),
        operator: record.operator.clone(),
        at: Some(stamp(Timestamp::from_millis(record.at))),
        leases_walked: record.walked,
        leases_ended: record.ended,
        done: record.done,
        covers_until: Some(stamp(Timestamp::from_millis(record.covers_until))),
    }
}

/// A bar.
#[must_use]
pub fn bar(row: &BarRow, incarnation: u64) -> pb::BarInForce {
    let record = &row.record;
    let time = |millis: u64| (millis > 0).then(|| stamp(Timestamp::from_millis(millis)));
    pb::BarInForce {
        scope: row.scope.as_ref().map(scope),
        suspend: record.suspend || row.scope.is_none(),
        reason: record.reason.clone(),
        operator: record.operator.clone(),
        at: Some(stamp(Timestamp::from_millis(record.at))),
        revision: Some(revision((incarnation, record.revision))),
        cause: row.cause.map(|cause| cause.words().to_owned()).unwrap_or_default(),
        until: time(record.until),
        auto_lift: record.auto_lift,
        lapsed: time(record.lapsed),
    }
}

/// Incarnation and number.
#[must_use]
pub fn revision((incarnation, number): (u64, u64)) -> pb::Revision {
    pb::Revision { incarnation, number }
}

/// A scope; the inverse of [`scope_of`].
#[must_use]
pub fn scope(scope: &Scope) -> pb::Scope {
    let mut view = pb::Scope::default();
    let kind = match scope {
        Scope::Everything => pb::ScopeKind::Everything,
        Scope::Lease(id) => {
            view.lease_id = id.to_string();
            pb::ScopeKind::Lease
        }
        Scope::Task(id) => {
            view.task_id = id.to_string();
            pb::ScopeKind::Task
        }
        Scope::Grant(tenant, grant) => {
            (view.tenant, view.grant) = (tenant.to_string(), grant.to_string());
            pb::ScopeKind::Grant
        }
        Scope::Workload(tenant, workload) => {
            (view.tenant, view.workload) = (tenant.to_string(), workload.to_string());
            pb::ScopeKind::Workload
        }
        Scope::Proof(digest) => {
            view.proof_sha256 = digest.0.to_vec();
            pb::ScopeKind::Proof
        }
        Scope::PartnerInTenant(tenant, partner) => {
            (view.tenant, view.partner) = (tenant.to_string(), partner.to_string());
            pb::ScopeKind::PartnerInTenant
        }
        Scope::Partner(partner) => {
            view.partner = partner.to_string();
            pb::ScopeKind::Partner
        }
        Scope::Tenant(tenant) => {
            view.tenant = tenant.to_string();
            pb::ScopeKind::Tenant
        }
        Scope::Issuer(issuer) => {
            view.issuer = issuer.to_string();
            pb::ScopeKind::Issuer
        }
        Scope::Secret(tenant, secret) => {
            (view.tenant, view.secret) = (tenant.to_string(), secret.to_string());
            pb::ScopeKind::Secret
        }
        Scope::SigningKey(key_id) => {
            view.key_id.clone_from(key_id);
            pb::ScopeKind::SigningKey
        }
    };
    view.kind = kind.into();
    view
}

/// The scope that a request names: exactly the fields of its kind must be set.
///
/// # Errors
/// [`Refusal::Invalid`] with the field that is missing, malformed or one too many.
pub fn scope_of(named: &pb::Scope) -> Result<Scope, Refusal> {
    let kind = pb::ScopeKind::try_from(named.kind).unwrap_or(pb::ScopeKind::Unspecified);
    let (tenant, partner) = ("scope.tenant", "scope.partner");
    let (scope, fields): (Scope, &[&str]) = match kind {
        pb::ScopeKind::Unspecified => {
            return Err(Refusal::invalid("scope.kind", "is unset or unknown; say what is meant"));
        }
        pb::ScopeKind::Lease => (Scope::Lease(id("scope.lease_id", &named.lease_id)?), &["scope.lease_id"]),
        pb::ScopeKind::Task => (Scope::Task(id("scope.task_id", &named.task_id)?), &["scope.task_id"]),
        pb::ScopeKind::Grant => {
            (Scope::Grant(id(tenant, &named.tenant)?, id("scope.grant", &named.grant)?), &[tenant, "scope.grant"])
        }
        pb::ScopeKind::Workload => (
            Scope::Workload(id(tenant, &named.tenant)?, id("scope.workload", &named.workload)?),
            &[tenant, "scope.workload"],
        ),
        pb::ScopeKind::Proof => (Scope::Proof(proof(&named.proof_sha256)?), &["scope.proof_sha256"]),
        pb::ScopeKind::PartnerInTenant => {
            (Scope::PartnerInTenant(id(tenant, &named.tenant)?, id(partner, &named.partner)?), &[tenant, partner])
        }
        pb::ScopeKind::Partner => (Scope::Partner(id(partner, &named.partner)?), &[partner]),
        pb::ScopeKind::Tenant => (Scope::Tenant(id(tenant, &named.tenant)?), &[tenant]),
        pb::ScopeKind::SigningKey => (Scope::SigningKey(key_id(&named.key_id)?), &["scope.key_id"]),
        pb::ScopeKind::Everything => (Scope::Everything, &[]),
        pb::ScopeKind::Secret => {
            (Scope::Secret(id(tenant, &named.tenant)?, id("scope.secret", &named.secret)?), &[tenant, "scope.secret"])
        }
        pb::ScopeKind::Issuer => (Scope::Issuer(id("scope.issuer", &named.issuer)?), &["scope.issuer"]),
    };
    refuse_others(named, fields)?;
    Ok(scope)
}

/// Reads a name or id of a request.
///
/// # Errors
/// [`Refusal::Invalid`] with the field.
pub fn id<T: std::str::FromStr<Err = InvalidId>>(field: &'static str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|why: InvalidId| Refusal::invalid(field, why.to_string()))
}

/// Reads a name or id that may be left empty.
///
/// # Errors
/// [`Refusal::Invalid`] with the field.
pub fn optional_id<T: std::str::FromStr<Err = InvalidId>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, Refusal> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// Standing and end reason on the wire.
#[must_use]
pub fn standing_codes(standing: Standing) -> (i32, i32) {
    match standing {
        Standing::Live => (pb::Standing::Live.into(), 0),
        Standing::Suspended => (pb::Standing::Suspended.into(), 0),
        Standing::Ended(why) => (pb::Standing::Ended.into(), why.code().into()),
    }
}

fn refuse_others(named: &pb::Scope, fields: &[&str]) -> Result<(), Refusal> {
    let set = [
        ("scope.tenant", !named.tenant.is_empty()),
        ("scope.partner", !named.partner.is_empty()),
        ("scope.grant", !named.grant.is_empty()),
        ("scope.workload", !named.workload.is_empty()),
        ("scope.task_id", !named.task_id.is_empty()),
        ("scope.lease_id", !named.lease_id.is_empty()),
        ("scope.proof_sha256", !named.proof_sha256.is_empty()),
        ("scope.key_id", !named.key_id.is_empty()),
        ("scope.issuer", !named.issuer.is_empty()),
        ("scope.secret", !named.secret.is_empty()),
    ];
    match set.into_iter().find(|(field, set)| *set && !fields.contains(field)) {
        Some((field, _)) => Err(Refusal::invalid(field, "is no part of a scope of this kind; leave it empty")),
        None => Ok(()),
    }
}

fn proof(bytes: &[u8]) -> Result<Digest, Refusal> {
    Digest::from_slice(bytes).ok_or_else(|| Refusal::invalid("scope.proof_sha256", "is not of 32 bytes"))
}

/// Reads a signing key's id.
///
/// # Errors
/// [`Refusal::Invalid`].
pub(super) fn key_id(text: &str) -> Result<String, Refusal> {
    let good = (1..=KEY_ID_MAX_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let bad =
        || Refusal::invalid("scope.key_id", format!("is not of 1 to {KEY_ID_MAX_BYTES} visible ASCII characters"));
    good.then(|| text.to_owned()).ok_or_else(bad)
}

/// When something ended. What a cut ended has no time of its own: the revocation says it.
fn ended(standing: Standing, by_itself: Option<Timestamp>, limit: Timestamp) -> Option<prost_types::Timestamp> {
    use crate::model::EndReason;
    match standing {
        Standing::Live | Standing::Suspended => None,
        Standing::Ended(EndReason::Expired) => Some(stamp(by_itself.unwrap_or(limit))),
        Standing::Ended(_) => by_itself.map(stamp),
    }
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn reach<T: Ord + ToString>(reach: &Reach<T>) -> Vec<String> {
    match reach {
        Reach::All => Vec::new(),
        Reach::Only(items) => texts(items),
    }
}

const KEY_ID_MAX_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LeaseId, TaskId, TenantNumber};

    fn every_scope() -> Vec<Scope> {
        let task = TaskId::fresh(TenantNumber::new(1).unwrap()).unwrap();
        let (tenant, partner) = ("acme".parse().unwrap(), "zeta".parse().unwrap());
        vec![
            Scope::Everything,
            Scope::Lease(LeaseId::fresh(task).unwrap()),
            Scope::Task(task),
            Scope::Grant("acme".parse().unwrap(), "g".parse().unwrap()),
            Scope::Workload("acme".parse().unwrap(), "w".parse().unwrap()),
            Scope::Proof(Digest([7; 32])),
            Scope::PartnerInTenant(tenant, partner),
            Scope::Partner("zeta".parse().unwrap()),
            Scope::Tenant("acme".parse().unwrap()),
            Scope::SigningKey("kid-1".into()),
            Scope::Issuer("github".parse().unwrap()),
            Scope::Secret("acme".parse().unwrap(), "stripe".parse().unwrap()),
        ]
    }

    #[test]
    fn every_scope_reads_back_as_itself() {
        for one in every_scope() {
            assert_eq!(scope_of(&scope(&one)).unwrap(), one);
        }
    }

    #[test]
    fn a_field_too_many_is_refused_by_name() {
        for one in every_scope() {
            let mut named = scope(&one);
            if named.key_id.is_empty() {
                named.key_id = "extra".into();
                assert!(matches!(scope_of(&named), Err(Refusal::Invalid { field: "scope.key_id", .. })), "{one}");
            } else {
                named.tenant = "extra".into();
                assert!(matches!(scope_of(&named), Err(Refusal::Invalid { field: "scope.tenant", .. })), "{one}");
            }
        }
    }

    #[test]
    fn a_missing_field_and_a_missing_kind_are_refused_by_name() {
        let field = |named: pb::Scope| match scope_of(&named) {
            Err(Refusal::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(pb::Scope::default()), "scope.kind");
        assert_eq!(field(pb::Scope { kind: 99, ..Default::default() }), "scope.kind");
        let grant = pb::Scope { kind: pb::ScopeKind::Grant.into(), tenant: "acme".into(), ..Default::default() };
        assert_eq!(field(grant), "scope.grant");
        let proof = pb::Scope { kind: pb::ScopeKind::Proof.into(), ..Default::default() };
        assert_eq!(field(proof), "scope.proof_sha256");
    }
}
