//! Rows as bytes: a version, a protobuf record and, where the row gives authority, a MAC over both and its place.

mod approval;

use prost::Message;

use super::engine::Table;
use crate::{
    model::{
        ApprovalId, ClientKey, CredentialKind, Delegator, Digest, EndReason, Intent, Lease, LeaseId, OpenedWith, Pace,
        Ruling, Scope, ScopeId, SecretVersion, Task, TaskId, TaskLimits, Timestamp,
        secret::MacKey,
        task::{HeldSecret, LiveBucket},
    },
    records,
};

/// Why a row cannot be read. Such a row is set aside, closed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unreadable {
    /// Shorter than its frame.
    #[error("is too short")]
    Short,
    /// Written by a newer version.
    #[error("has row version {0}, which this version does not know")]
    Version(u8),
    /// Edited, or written under another seal key.
    #[error("fails its authentication code: it was changed outside the broker, or the seal key is another one")]
    Mac,
    /// Not the record it should be.
    #[error("does not decode: {0}")]
    Record(String),
    /// A field that no version writes.
    #[error("has an impossible `{0}`")]
    Field(&'static str),
}

/// Frames, authenticates and reads rows.
#[derive(Debug)]
pub struct Codec {
    mac: MacKey,
}

impl Codec {
    /// With the row key derived from the seal key.
    #[must_use]
    pub fn new(mac: MacKey) -> Self {
        Self { mac }
    }

    /// A row's value.
    #[must_use]
    pub fn encode(&self, table: Table, key: &[u8], record: &impl Message) -> Vec<u8> {
        let tail = if is_authentic(table) { MacKey::TAG_BYTES } else { 0 };
        let mut value = Vec::with_capacity(1 + record.encoded_len() + tail);
        value.push(VERSION);
        record.encode_raw(&mut value);
        if is_authentic(table) {
            let tag = self.mac.tag(&[&[table as u8], key, &value]);
            value.extend_from_slice(&tag);
        }
        value
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// When the row is damaged, edited or from a newer version.
    pub fn decode<R: Message + Default>(&self, table: Table, key: &[u8], value: &[u8]) -> Result<R, Unreadable> {
        let framed = if is_authentic(table) {
            let (framed, tag) = value
                .len()
                .checked_sub(MacKey::TAG_BYTES)
                .and_then(|at| value.split_at_checked(at))
                .ok_or(Unreadable::Short)?;
            if !self.mac.verify(&[&[table as u8], key, framed], tag) {
                return Err(Unreadable::Mac);
            }
            framed
        } else {
            value
        };
        let (&version, body) = framed.split_first().ok_or(Unreadable::Short)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        R::decode(body).map_err(|e| Unreadable::Record(e.to_string()))
    }

    /// A lease's row value.
    #[must_use]
    pub fn encode_lease(&self, lease: &Lease) -> Vec<u8> {
        self.encode(Table::Leases, lease.id.as_bytes(), &lease_record(lease))
    }

    /// The inverse of [`Self::encode_lease`].
    ///
    /// # Errors
    /// When the row is unreadable.
    pub fn decode_lease(&self, id: LeaseId, value: &[u8]) -> Result<Lease, Unreadable> {
        lease_from(id, self.decode(Table::Leases, id.as_bytes(), value)?)
    }

    /// A task's row value.
    #[must_use]
    pub fn encode_task(&self, task: &Task) -> Vec<u8> {
        self.encode(Table::Tasks, task.id.as_bytes(), &task_record(task))
    }

    /// The inverse of [`Self::encode_task`].
    ///
    /// # Errors
    /// When the row is unreadable.
    pub fn decode_task(&self, id: TaskId, value: &[u8]) -> Result<Task, Unreadable> {
        task_from(id, self.decode(Table::Tasks, id.as_bytes(), value)?)
    }
}

/// A scope as a record.
#[must_use]
pub fn scope_name(scope: &Scope) -> records::ScopeName {
    let mut name = records::ScopeName::default();
    match scope {
        Scope::Everything => name.kind = 10,
        Scope::Lease(id) => (name.kind, name.id) = (1, id.as_bytes().to_vec()),
        Scope::Task(id) => (name.kind, name.id) = (2, id.as_bytes().to_vec()),
        Scope::Grant(t, g) => (name.kind, name.tenant, name.name) = (3, t.to_string(), g.to_string()),
        Scope::Workload(t, w) => (name.kind, name.tenant, name.name) = (4, t.to_string(), w.to_string()),
        Scope::Proof(d) => (name.kind, name.id) = (5, d.0.to_vec()),
        Scope::PartnerInTenant(t, p) => (name.kind, name.tenant, name.partner) = (6, t.to_string(), p.to_string()),
        Scope::Partner(p) => (name.kind, name.partner) = (7, p.to_string()),
        Scope::Tenant(t) => (name.kind, name.tenant) = (8, t.to_string()),
        Scope::SigningKey(kid) => (name.kind, name.name) = (9, kid.clone()),
        Scope::Issuer(issuer) => (name.kind, name.name) = (11, issuer.to_string()),
        Scope::Secret(t, s) => (name.kind, name.tenant, name.name) = (12, t.to_string(), s.to_string()),
    }
    name
}

/// The inverse of [`scope_name`].
///
/// # Errors
/// When the record names no scope.
pub fn scope_from(name: &records::ScopeName) -> Result<Scope, Unreadable> {
    let bad = |_| Unreadable::Field("scope");
    Ok(match name.kind {
        1 => Scope::Lease(LeaseId::from_bytes(&name.id).ok_or(Unreadable::Field("scope"))?),
        2 => Scope::Task(TaskId::from_bytes(&name.id).ok_or(Unreadable::Field("scope"))?),
        3 => Scope::Grant(name.tenant.parse().map_err(bad)?, name.name.parse().map_err(bad)?),
        4 => Scope::Workload(name.tenant.parse().map_err(bad)?, name.name.parse().map_err(bad)?),
        5 => Scope::Proof(Digest::from_slice(&name.id).ok_or(Unreadable::Field("scope"))?),
        6 => Scope::PartnerInTenant(name.tenant.parse().map_err(bad)?, name.partner.parse().map_err(bad)?),
        7 => Scope::Partner(name.partner.parse().map_err(bad)?),
        8 => Scope::Tenant(name.tenant.parse().map_err(bad)?),
        9 => Scope::SigningKey(name.name.clone()),
        10 => Scope::Everything,
        11 => Scope::Issuer(name.name.parse().map_err(bad)?),
        12 => Scope::Secret(name.tenant.parse().map_err(bad)?, name.name.parse().map_err(bad)?),
        _ => return Err(Unreadable::Field("scope")),
    })
}

/// Rows that give authority, or take it, carry a MAC; indexes, counts and the audit's pages (which have their own chain)
/// do not.
fn is_authentic(table: Table) -> bool {
    match table {
        Table::Meta
        | Table::Leases
        | Table::Tasks
        | Table::Cuts
        | Table::Bars
        | Table::Retries
        | Table::Streams
        | Table::Trust
        | Table::Keys
        | Table::GrantStates
        | Table::Sinks
        | Table::Spent
        | Table::Notices
        | Table::Unmanaged
        | Table::People
        | Table::Approvals
        | Table::Secrets
        | Table::SecretValues
        | Table::SecretHolders
        | Table::Pickups
        | Table::Appeals => true,
        Table::Children
        | Table::Expiry
        | Table::Counts
        | Table::Audit
        | Table::Log
        | Table::Feed
        | Table::Held
        | Table::Checkpoints => false,
    }
}

fn lease_record(lease: &Lease) -> records::LeaseRecord {
    records::LeaseRecord {
        tenant: lease.tenant.to_string(),
        partner: lease.partner.to_string(),
        grant: lease.grant.to_string(),
        workload: lease.workload.to_string(),
        purpose: lease.purpose.to_string(),
        kind: lease.kind.code().into(),
        audiences: lease.audiences.clone(),
        actions: lease.actions.clone(),
        dns_names: lease.dns_names.clone(),
        issued: lease.issued.millis(),
        expires: lease.expires.millis(),
        incarnation: lease.basis.0,
        basis: lease.basis.1,
        credential_sha256: lease.credential.0.to_vec(),
        key_id: lease.key_id.clone(),
        bound_sha256: lease.bound.map(|d| d.0.to_vec()).unwrap_or_default(),
        parent_lease: lease.parent.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        spki_sha256: lease.spki.map(|d| d.0.to_vec()).unwrap_or_default(),
        proof_scopes: ScopeId::join(&lease.proofs),
        renewals: lease.renewals,
        broker_made_key: lease.broker_made_key,
        delegated: lease.delegated.iter().map(delegator_record).collect(),
        end_reason: lease.ended.map_or(0, |(why, _)| why.code().into()),
        ended: lease.ended.map_or(0, |(_, at)| at.millis()),
        policies: lease.ruling.as_ref().map(|ruling| ruling.policies.clone()).unwrap_or_default(),
        policy_set: lease.ruling.as_ref().map(|ruling| ruling.set.0.to_vec()).unwrap_or_default(),
        secret: lease.secret.as_ref().map(|secret| secret.name.to_string()).unwrap_or_default(),
        secret_version: lease.secret.as_ref().map_or(0, |secret| secret.number),
        pickup_until: lease.pickup_until.map_or(0, Timestamp::millis),
        svid: lease.svid,
    }
}

fn lease_from(id: LeaseId, r: records::LeaseRecord) -> Result<Lease, Unreadable> {
    let name = |_| Unreadable::Field("name");
    Ok(Lease {
        id,
        tenant: r.tenant.parse().map_err(name)?,
        partner: r.partner.parse().map_err(name)?,
        grant: r.grant.parse().map_err(name)?,
        workload: r.workload.parse().map_err(name)?,
        purpose: r.purpose.parse().map_err(name)?,
        kind: CredentialKind::from_code(r.kind).ok_or(Unreadable::Field("kind"))?,
        audiences: r.audiences,
        actions: r.actions,
        dns_names: r.dns_names,
        issued: Timestamp::from_millis(r.issued),
        expires: Timestamp::from_millis(r.expires),
        basis: (r.incarnation, r.basis),
        credential: Digest::from_slice(&r.credential_sha256).ok_or(Unreadable::Field("credential_sha256"))?,
        key_id: r.key_id,
        bound: optional(&r.bound_sha256, "bound_sha256", Digest::from_slice)?,
        spki: optional(&r.spki_sha256, "spki_sha256", Digest::from_slice)?,
        parent: optional(&r.parent_lease, "parent_lease", LeaseId::from_bytes)?,
        proofs: ScopeId::split(&r.proof_scopes).ok_or(Unreadable::Field("proof_scopes"))?,
        renewals: r.renewals,
        broker_made_key: r.broker_made_key,
        delegated: r.delegated.into_iter().map(delegator_from).collect::<Result<_, _>>()?,
        ended: EndReason::from_code(r.end_reason).map(|why| (why, Timestamp::from_millis(r.ended))),
        ruling: optional(&r.policy_set, "policy_set", Digest::from_slice)?
            .map(|set| Box::new(Ruling { policies: r.policies, set })),
        secret: match (r.secret.as_str(), r.secret_version) {
            ("", _) => None,
            (name, number) => {
                let name = name.parse().map_err(|_| Unreadable::Field("secret"))?;
                Some(Box::new(SecretVersion { name, number }))
            }
        },
        pickup_until: (r.pickup_until > 0).then(|| Timestamp::from_millis(r.pickup_until)),
        svid: r.svid,
    })
}

fn task_record(task: &Task) -> records::TaskRecord {
    let bucket = |b: &LiveBucket| records::LiveBucket { grant: b.grant.to_string(), minute: b.minute, count: b.count };
    records::TaskRecord {
        tenant: task.tenant.to_string(),
        partner: task.partner.to_string(),
        workload: task.workload.to_string(),
        purpose: task.purpose.to_string(),
        parent: task.parent.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        opened: task.opened.millis(),
        deadline: task.deadline.millis(),
        end_reason: task.ended.map_or(0, |(why, _)| why.code().into()),
        ended: task.ended.map_or(0, |(_, at)| at.millis()),
        held: task.held,
        leases_issued: task.leases_issued,
        live: task.live.iter().map(bucket).collect(),
        incarnation: task.basis.0,
        basis: task.basis.1,
        proof_scopes: ScopeId::join(&task.proofs),
        parent_lease: task.parent_lease.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        client_key: task.client_key.map(|own| own.key.0.to_vec()).unwrap_or_default(),
        client_key_until: task.client_key.map_or(0, |own| own.until.millis()),
        client_key_exclusive: task.client_key.is_some_and(|own| own.exclusive),
        issuer: task.opened_with.as_ref().map(|with| with.issuer.to_string()).unwrap_or_default(),
        subject: task.opened_with.as_ref().map(|with| with.subject.clone()).unwrap_or_default(),
        token_sha256: task.opened_with.as_ref().map(|with| with.token.0.to_vec()).unwrap_or_default(),
        job_url: task.job_url.as_deref().unwrap_or_default().to_owned(),
        task_type: task.intent.as_ref().map(|intent| intent.task_type().to_owned()).unwrap_or_default(),
        parameters: task.intent.as_ref().map(|intent| parameters(intent)).unwrap_or_default(),
        approvals: task.approvals.iter().flat_map(|id| *id.as_bytes()).collect(),
        pace: task.pace.as_deref().map(pace_record),
        limits: task.limits.as_deref().map(limits_record),
        secrets: task.secrets.iter().map(held_record).collect(),
        secrets_overflow: task.secrets_overflow,
    }
}

fn held_record(held: &HeldSecret) -> records::HeldSecretRecord {
    records::HeldSecretRecord {
        name: held.version.name.to_string(),
        version: held.version.number,
        lease: held.lease.as_bytes().to_vec(),
        times: held.times,
    }
}

fn held_from(r: records::HeldSecretRecord) -> Result<HeldSecret, Unreadable> {
    let name = r.name.parse().map_err(|_| Unreadable::Field("secrets"))?;
    let lease = LeaseId::from_bytes(&r.lease).ok_or(Unreadable::Field("secrets"))?;
    Ok(HeldSecret { version: SecretVersion { name, number: r.version }, lease, times: r.times })
}

fn parameters(intent: &Intent) -> Vec<records::Parameter> {
    let each = intent.parameters().iter();
    each.map(|(name, value)| records::Parameter { name: name.clone(), value: value.clone() }).collect()
}

fn task_from(id: TaskId, r: records::TaskRecord) -> Result<Task, Unreadable> {
    let name = |_| Unreadable::Field("name");
    let (until, exclusive) = (Timestamp::from_millis(r.client_key_until), r.client_key_exclusive);
    let bucket = |b: records::LiveBucket| {
        Ok(LiveBucket { grant: b.grant.parse().map_err(name)?, minute: b.minute, count: b.count })
    };
    Ok(Task {
        id,
        tenant: r.tenant.parse().map_err(name)?,
        partner: r.partner.parse().map_err(name)?,
        workload: r.workload.parse().map_err(name)?,
        purpose: r.purpose.parse().map_err(name)?,
        parent: optional(&r.parent, "parent", TaskId::from_bytes)?,
        opened: Timestamp::from_millis(r.opened),
        deadline: Timestamp::from_millis(r.deadline),
        ended: EndReason::from_code(r.end_reason).map(|why| (why, Timestamp::from_millis(r.ended))),
        held: r.held,
        leases_issued: r.leases_issued,
        live: r.live.into_iter().map(bucket).collect::<Result<_, _>>()?,
        basis: (r.incarnation, r.basis),
        proofs: ScopeId::split(&r.proof_scopes).ok_or(Unreadable::Field("proof_scopes"))?,
        parent_lease: optional(&r.parent_lease, "parent_lease", LeaseId::from_bytes)?,
        client_key: optional(&r.client_key, "client_key", Digest::from_slice)?.map(|key| ClientKey {
            key,
            until,
            exclusive,
        }),
        job_url: (!r.job_url.is_empty()).then(|| r.job_url.clone().into_boxed_str()),
        opened_with: match optional(&r.token_sha256, "token_sha256", Digest::from_slice)? {
            Some(token) => {
                let (issuer, subject) = (r.issuer.parse().map_err(name)?, r.subject);
                Some(Box::new(OpenedWith { issuer, subject, token }))
            }
            None => None,
        },
        intent: {
            let told = r.parameters.into_iter().map(|told| (told.name, told.value)).collect();
            Intent::new(&r.task_type, told).map_err(|_| Unreadable::Field("parameters"))?.map(Box::new)
        },
        approvals: match r.approvals.as_chunks::<{ ApprovalId::BYTES }>() {
            (ids, []) => ids.iter().map(|id| ApprovalId::from_bytes(id)).collect::<Option<_>>(),
            (_, _) => None,
        }
        .ok_or(Unreadable::Field("approvals"))?,
        pace: r.pace.map(pace_from).transpose()?.map(Box::new),
        limits: r.limits.map(limits_from).transpose()?.map(Box::new),
        secrets: r.secrets.into_iter().map(held_from).collect::<Result<_, _>>()?,
        secrets_overflow: r.secrets_overflow,
    })
}

fn limits_record(limits: &TaskLimits) -> records::TaskLimitsRecord {
    records::TaskLimitsRecord {
        audiences: limits.audiences.clone(),
        actions: limits.actions.clone(),
        kinds: limits.kinds.iter().map(|kind| kind.code().into()).collect(),
        ttl_max: limits.ttl_max,
    }
}

fn limits_from(r: records::TaskLimitsRecord) -> Result<TaskLimits, Unreadable> {
    // One that is not known would allow more when it is left out.
    let kinds: Option<_> = r.kinds.into_iter().map(CredentialKind::from_code).collect();
    let kinds = kinds.ok_or(Unreadable::Field("limits"))?;
    Ok(TaskLimits { audiences: r.audiences, actions: r.actions, kinds, ttl_max: r.ttl_max })
}

fn delegator_record(one: &Delegator) -> records::DelegatorRecord {
    records::DelegatorRecord { workload: one.workload.to_string(), task: one.task.as_bytes().to_vec() }
}

fn delegator_from(r: records::DelegatorRecord) -> Result<Delegator, Unreadable> {
    let workload = r.workload.parse().map_err(|_| Unreadable::Field("delegated"))?;
    Ok(Delegator { workload, task: TaskId::from_bytes(&r.task).ok_or(Unreadable::Field("delegated"))? })
}

fn pace_record(pace: &Pace) -> records::PaceRecord {
    records::PaceRecord {
        began: pace.began.millis(),
        in_minute: pace.in_minute,
        total: pace.total,
        resources: pace.resources.iter().map(|(name, _)| *name).collect(),
        last: pace.resources.iter().map(|(_, last)| last.millis()).collect(),
    }
}

fn pace_from(r: records::PaceRecord) -> Result<Pace, Unreadable> {
    if r.resources.len() != r.last.len() {
        return Err(Unreadable::Field("pace"));
    }
    Ok(Pace {
        began: Timestamp::from_millis(r.began),
        in_minute: r.in_minute,
        total: r.total,
        resources: r.resources.into_iter().zip(r.last.into_iter().map(Timestamp::from_millis)).collect(),
    })
}

pub(super) fn optional<T>(
    bytes: &[u8],
    field: &'static str,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, Unreadable> {
    if bytes.is_empty() {
        return Ok(None);
    }
    parse(bytes).map(Some).ok_or(Unreadable::Field(field))
}

/// The row version that this code writes and reads.
const VERSION: u8 = 1;
