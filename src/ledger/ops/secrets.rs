//! Static secrets: put, changed and retired by operators, and who got them.

use std::collections::BTreeMap;

use super::{
    ended_or,
    scope::{CutDraft, write_cut},
};
use crate::{
    audit::time::stamp,
    ledger::{book::ScopeState, engine::Table, keys, refused::Refused, tx::Tx},
    model::{
        CredentialKind, EndReason, Lease, LeaseId, Scope, ScopeId, SecretName, SecretVersion, Task, TenantName,
        TenantNumber, Timestamp,
    },
    pb, records,
};

/// A static secret as it is to be.
#[derive(Debug)]
pub struct SecretCommit {
    /// Its tenant.
    pub tenant: TenantNumber,
    /// Its name.
    pub name: SecretName,
    /// Its scope: what is being handed out is decided anew.
    pub scope: ScopeId,
    /// [`records::SecretRecord::changes`] of the row that this was made from; `None` when there was none that could be
    /// read. Refused when it is another by now.
    pub before: Option<u64>,
    /// Its new row.
    pub record: records::SecretRecord,
    /// What becomes of its value.
    pub value: ValueChange,
    /// What ends the leases that it was handed out under.
    pub cut: Option<CutDraft>,
    /// Its event.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// What becomes of a value.
#[derive(Debug)]
pub enum ValueChange {
    /// It stays.
    Kept,
    /// Another takes its place.
    Put(records::SecretValueRecord),
    /// It is gone.
    Destroyed,
}

/// Writes a change of a static secret.
pub(in crate::ledger) fn run(tx: &mut Tx<'_>, commit: &SecretCommit) -> Result<(), Refused> {
    let key = keys::secret(commit.tenant, &commit.name);
    if read(tx, &key)?.map(|record| record.changes) != commit.before {
        return Err(Refused::Moved);
    }
    tx.mark_time(commit.now);
    tx.audit(&commit.event)?;
    match &commit.value {
        ValueChange::Kept => {}
        ValueChange::Put(value) => tx.put_record(Table::SecretValues, key.clone(), value),
        ValueChange::Destroyed => tx.delete(Table::SecretValues, key.clone()),
    }
    tx.put_record(Table::Secrets, key, &commit.record);
    if let Some(cut) = &commit.cut {
        write_cut(tx, cut);
    }
    let (state, changed) = (tx.scope(commit.scope), tx.number());
    tx.set_scope(commit.scope, ScopeState { changed, changed_at: commit.now, ..state });
    Ok(())
}

/// A damaged row is as none: it is put anew.
fn read(tx: &Tx<'_>, key: &[u8]) -> Result<Option<records::SecretRecord>, Refused> {
    let Some(value) = tx.get(Table::Secrets, key)? else { return Ok(None) };
    let record = tx.shared.codec.decode(Table::Secrets, key, &value);
    Ok(record.inspect_err(|e| tx.shared.aside.note(Table::Secrets, key, e)).ok())
}

/// Notes that a task got a static secret, at it and at all tasks above; `taken_by` is the workload that took it, when
/// that is another than the task's.
pub(in crate::ledger) fn note_holder(
    tx: &mut Tx<'_>,
    lease: &Lease,
    task: &Task,
    taken_by: &str,
    kept_until: Timestamp,
    now: Timestamp,
) -> Result<(), Refused> {
    let Some(secret) = &lease.secret else { return Ok(()) };
    mark_above(tx, secret, lease.id)?;
    let key = keys::secret_holder(&secret.name, secret.number, task.id);
    // What cannot be read is written anew: that the task has it now is what counts.
    let known: Option<records::SecretHolderRecord> = match tx.get(Table::SecretHolders, &key)? {
        Some(value) => {
            let record = tx.shared.codec.decode(Table::SecretHolders, &key, &value);
            record.inspect_err(|e| tx.shared.aside.note(Table::SecretHolders, &key, e)).ok()
        }
        None => None,
    };
    if known.is_none() {
        tx.expires(kept_until).secret_holders.push(key.clone());
    }
    let known = known.unwrap_or_default();
    let text = |before: String, now: &str| if now.is_empty() { before } else { now.to_owned() };
    let record = records::SecretHolderRecord {
        partner: lease.partner.to_string(),
        workload: lease.workload.to_string(),
        grant: lease.grant.to_string(),
        purpose: lease.purpose.to_string(),
        first: if known.first > 0 { known.first } else { now.millis() },
        last: now.millis(),
        times: known.times.saturating_add(1),
        lease: lease.id.as_bytes().to_vec(),
        expires: lease.expires.millis(),
        job_url: text(known.job_url, task.job_url.as_deref().unwrap_or_default()),
        kept_until: known.kept_until.max(kept_until.millis()),
        taken_by: text(known.taken_by, taken_by),
    };
    tx.put_record(Table::SecretHolders, key, &record);
    Ok(())
}

/// Notes a version that was handed out at the task that got it and at all above: the end of any of them takes it away.
fn mark_above(tx: &mut Tx<'_>, secret: &SecretVersion, lease: LeaseId) -> Result<(), Refused> {
    let mut next = Some(lease.task());
    for _ in 0..=Task::MAX_ANCESTORS {
        let Some(id) = next else { break };
        let Some(mut task) = ended_or(tx.task(id))? else { break };
        next = task.parent;
        task.note_secret(secret, lease);
        tx.put_task(&task);
    }
    Ok(())
}

/// Forgets a holder that was swept in `minute`, unless it got the secret again since.
pub(in crate::ledger) fn forget_holder(tx: &mut Tx<'_>, key: &[u8], minute: u32) {
    let Ok(Some(value)) = tx.get(Table::SecretHolders, key) else { return };
    let record: Result<records::SecretHolderRecord, _> = tx.shared.codec.decode(Table::SecretHolders, key, &value);
    match record.map(|record| Timestamp::from_millis(record.kept_until)) {
        Ok(kept_until) if kept_until.minute() > minute => tx.expires(kept_until).secret_holders.push(key.to_vec()),
        Ok(_) | Err(_) => tx.delete(Table::SecretHolders, key.to_vec()),
    }
}

/// Versions of static secrets that were in hands which they were taken from.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Exposed {
    of: BTreeMap<SecretVersion, Example>,
    /// Of a task that got more than is noted: what is told is not all.
    beyond: Option<pb::Event>,
}

/// One of the leases of a version, and how many there were.
#[derive(Debug)]
struct Example {
    number: TenantNumber,
    tenant: TenantName,
    event: pb::Event,
    leases: u64,
}

impl Exposed {
    /// Takes a lease in that ends so, when it was handed out and lives.
    pub(in crate::ledger) fn note(&mut self, lease: &Lease, why: EndReason) {
        let Some(secret) = lease.secret.as_deref().filter(|_| lease.pickup_until.is_none()) else { return };
        if matches!(why, EndReason::Revoked | EndReason::Narrowed) {
            let example = || Example {
                number: lease.id.tenant(),
                tenant: lease.tenant.clone(),
                event: told_of(NEEDS_ROTATION, lease, lease.issued),
                leases: 0,
            };
            self.of.entry(secret.clone()).or_insert_with(example).leases += 1;
        }
    }

    /// Says of each that it has to be rotated at its vendor: the end of a lease ends no value.
    pub(in crate::ledger) fn tell(self, tx: &mut Tx<'_>, because: &str, at: Timestamp) -> Result<(), Refused> {
        for (secret, Example { number, tenant, mut event, leases }) in self.of {
            let record = read(tx, &keys::secret(number, &secret.name))?;
            // What was rotated or retired here needs nobody to be told of.
            let is_over = |version: &records::SecretVersionRecord| version.number == secret.number && version.ended > 0;
            if record.as_ref().is_some_and(|record| record.versions.iter().any(is_over)) {
                continue;
            }
            let owner = record.map(|record| record.owner);
            because.clone_into(&mut event.reason);
            let scope = Scope::Secret(tenant, secret.name);
            event.details.push(format!("scope={scope}"));
            event.details.push(format!("owner={}", owner.unwrap_or_default()));
            event.details.push(format!("leases={leases}"));
            event.at = Some(stamp(at));
            tx.audit(&event)?;
        }
        if let Some(mut event) = self.beyond {
            because.clone_into(&mut event.reason);
            event.at = Some(stamp(at));
            tx.audit(&event)?;
        }
        Ok(())
    }
}

/// An event of the broker's own about a lease.
pub(super) fn told_of(kind: &str, lease: &Lease, at: Timestamp) -> pb::Event {
    let secret = lease.secret.iter();
    pb::Event {
        kind: kind.to_owned(),
        decision: "done".to_owned(),
        actor: "broker".to_owned(),
        tenant: lease.tenant.to_string(),
        partner: lease.partner.to_string(),
        workload: lease.workload.to_string(),
        grant: lease.grant.to_string(),
        task_id: lease.id.task().to_string(),
        lease_id: lease.id.to_string(),
        purpose: lease.purpose.to_string(),
        credential_kind: lease.kind.code().into(),
        details: secret.flat_map(|secret| secret.details()).collect(),
        at: Some(stamp(at)),
        ..Default::default()
    }
}

/// Static secrets that a task and those below it got, when it is about to end so: by its own row, whatever was begun since.
pub(in crate::ledger) fn exposed_by_task(tx: &Tx<'_>, task: &Task, why: EndReason) -> Result<Exposed, Refused> {
    let mut exposed = Exposed::default();
    if why != EndReason::Revoked {
        return Ok(exposed);
    }
    for held in &task.secrets {
        let lease = match tx.lease(held.lease) {
            Ok(lease) => lease,
            // Damaged, and handed out all the same.
            Err(Refused::LeaseEnded(_)) => None,
            Err(refused) => return Err(refused),
        };
        let event = lease.map_or_else(
            || pb::Event {
                task_id: held.lease.task().to_string(),
                lease_id: held.lease.to_string(),
                details: held.version.details().into(),
                ..told_of_task(task)
            },
            |lease| told_of(NEEDS_ROTATION, &lease, lease.issued),
        );
        let leases = u64::from(held.times);
        let example = Example { number: task.id.tenant(), tenant: task.tenant.clone(), event, leases };
        exposed.of.insert(held.version.clone(), example);
    }
    if task.secrets_overflow {
        let details = vec![format!("scope={}", Scope::Task(task.id)), "incomplete=true".to_owned()];
        exposed.beyond = Some(pb::Event { details, ..told_of_task(task) });
    }
    Ok(exposed)
}

/// As [`told_of`], where no lease is at hand.
fn told_of_task(task: &Task) -> pb::Event {
    pb::Event {
        kind: NEEDS_ROTATION.to_owned(),
        decision: "done".to_owned(),
        actor: "broker".to_owned(),
        tenant: task.tenant.to_string(),
        partner: task.partner.to_string(),
        workload: task.workload.to_string(),
        task_id: task.id.to_string(),
        purpose: task.purpose.to_string(),
        credential_kind: CredentialKind::Secret.code().into(),
        ..Default::default()
    }
}

const NEEDS_ROTATION: &str = "secret.needs_rotation";
