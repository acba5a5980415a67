//! What befalls grants by time: lapsed attestations and dormant grants are suspended in a row, told, and on the feed.
//!
//! A lapsed attestation is in force before this has run (`lapse`), and a dormant grant refuses its next use; the row
//! makes it last through any clock, and tells resource servers that check offline.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{
    Broker, event,
    owners::{of_grant, suspension},
    refusal::Refusal,
    registry::Tenant,
};
use crate::{
    ledger::{Custody, CustodyDraft, NoticeCommit, UseRow},
    model::{GrantName, Scope, Suspension, TenantNumber, Timestamp},
    pb,
    policy::Grant,
};

/// When something is due in each tenant, as far as it was looked at since it changed.
#[derive(Debug, Default)]
pub struct Dues(Mutex<HashMap<TenantNumber, Due>>);

#[derive(Clone, Copy, Debug)]
struct Due {
    epoch: u64,
    at: Timestamp,
}

impl Broker {
    /// One round: quarantines, then the tenants in which something is due.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn tend(&self) -> Result<(), Refusal> {
        let now = self.now();
        self.end_quarantines(now).await?;
        if self.ledger.holds().in_doubt() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for (at, (_, number)) in self.registry.names("", None, usize::MAX).into_iter().enumerate() {
            let epoch = self.registry.epoch(number);
            if self.dues.is_due(number, epoch, now) {
                // One that fails is looked at again in the next round, and keeps nobody else waiting.
                outcome = outcome.and(self.keep_tenant(number, epoch, now).await);
            }
            if at % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        outcome
    }

    async fn keep_tenant(&self, number: TenantNumber, epoch: u64, now: Timestamp) -> Result<(), Refusal> {
        // What was attested or applied meanwhile is looked at anew in the next round.
        let basis = self.ledger.basis().1;
        // One that is gone or damaged is looked at again when it was changed; one that the store did not give, next time.
        let Some(tenant) = self.registry.peek_sound(&self.ledger, number)? else {
            self.dues.set(number, Due { epoch, at: NEVER });
            return Ok(());
        };
        self.begin_uses(&tenant, now).await?;
        let (mut acts, mut next) = (Vec::new(), NEVER);
        let mut reminders = Vec::new();
        let ahead = self.notifier.get().and_then(|notifier| notifier.remind_before());
        for (name, grant) in tenant.trust.grants().iter().filter(|(_, grant)| grant.expires > now) {
            let scope = Scope::Grant(tenant.trust.name().clone(), name.clone());
            let held = self.ledger.scope(scope.id()).held;
            let ends = [
                (Suspension::AttestationOverdue, Some(tenant.attest_by(name, grant))),
                (Suspension::Dormant, tenant.dormant_at(name)),
            ];
            for (cause, at) in ends.into_iter().filter_map(|(cause, at)| Some((cause, at?))) {
                if at > now {
                    next = next.min(at);
                } else if !held.has(cause) {
                    acts.push(befallen(&tenant, name, grant, cause, now));
                }
            }
            if let Some(ahead) = ahead {
                let attest_by = tenant.attest_by(name, grant);
                if attest_by.before(ahead) > now {
                    next = next.min(attest_by.before(ahead));
                } else if attest_by > now && self.ledger.reminded(number, name).unwrap_or(None) != Some(attest_by) {
                    reminders.push((number, name.clone(), attest_by));
                }
            }
        }
        for some in acts.chunks(AT_ONCE) {
            self.ledger.custody(CustodyDraft { acts: some.to_vec(), basis: Some(basis), now }).await?;
        }
        self.remind(&tenant, &reminders, now).await?;
        self.dues.set(number, Due { epoch, at: next });
        Ok(())
    }

    /// Asks owners once for the attestation that is due soon.
    async fn remind(
        &self,
        tenant: &Tenant,
        reminders: &[(TenantNumber, GrantName, Timestamp)],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        for some in reminders.chunks(AT_ONCE) {
            let mut events = Vec::with_capacity(some.len());
            for (_, name, attest_by) in some {
                let Some(grant) = tenant.trust.grants().get(name) else { continue };
                let mut event = event::own("grant.attestation_due", now);
                of_grant(&mut event, tenant.trust.name(), &grant.partner, name);
                event.details.push(format!("attest_by={attest_by}"));
                event.details.push(format!("owner={}", tenant.owner(name, grant)));
                events.push(event);
            }
            let commit = NoticeCommit { reminded: some.to_vec(), events, now, ..NoticeCommit::default() };
            self.ledger.step_notices(commit).await?;
        }
        Ok(())
    }

    /// From now on it is known since when each grant of a tenant with a rule about use is there.
    async fn begin_uses(&self, tenant: &Tenant, now: Timestamp) -> Result<(), Refusal> {
        if tenant.trust.dormant_after().is_none() {
            return Ok(());
        }
        let unknown = |known: &super::lastuse::LastUse| known.since() == Timestamp::default();
        let new: Vec<UseRow> = tenant
            .uses
            .iter()
            .filter(|(_, known)| unknown(known))
            .map(|(name, known)| UseRow {
                tenant: tenant.number,
                grant: name.clone(),
                since: now,
                last_used: known.at(),
            })
            .collect();
        for rows in new.chunks(AT_ONCE) {
            self.ledger.note_uses(rows.to_vec()).await?;
            rows.iter().filter_map(|row| tenant.uses.get(&row.grant)).for_each(|known| known.note_since(now));
        }
        Ok(())
    }

    /// Writes when grants were used last, where that is an hour or more behind; with `all` whatever is behind.
    ///
    /// # Errors
    /// When the store failed; what was not written is written the next time.
    pub async fn write_last_uses(&self, all: bool) -> Result<(), Refusal> {
        let granularity = if all { 1 } else { GRANULARITY_MILLIS };
        loop {
            let rows = self.registry.uses().unwritten(granularity, AT_ONCE);
            if rows.is_empty() {
                return Ok(());
            }
            self.ledger.note_uses(rows.clone()).await?;
            self.registry.uses().written(&rows);
        }
    }
}

impl Dues {
    fn is_due(&self, number: TenantNumber, epoch: u64, now: Timestamp) -> bool {
        let dues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dues.get(&number).is_none_or(|due| due.epoch != epoch || due.at <= now)
    }

    fn set(&self, number: TenantNumber, due: Due) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, due);
    }
}

fn befallen(
    tenant: &Tenant,
    name: &GrantName,
    grant: &Grant,
    cause: Suspension,
    now: Timestamp,
) -> (Custody, pb::Event) {
    let mut event = event::own("scope.suspended", now);
    event.reason = cause.words().to_owned();
    of_grant(&mut event, tenant.trust.name(), &grant.partner, name);
    let scope = Scope::Grant(tenant.trust.name().clone(), name.clone());
    let (act, mut event) = suspension(event, scope, cause, "broker", cause.words());
    event.details.push(format!("owner={}", tenant.owner(name, grant)));
    event.details.extend(evidence(tenant, name, grant, cause));
    event.details.push(format!("way_out=mayfly appeal file grant {}/{name}", tenant.trust.name()));
    (act, event)
}

/// By which rule, and what it was measured by.
fn evidence(tenant: &Tenant, name: &GrantName, grant: &Grant, cause: Suspension) -> Vec<String> {
    let when = |at: Timestamp| if at == Timestamp::default() { "never".to_owned() } else { at.to_string() };
    match cause {
        Suspension::AttestationOverdue => {
            vec!["rule=attest_by".to_owned(), format!("attest_by={}", tenant.attest_by(name, grant))]
        }
        Suspension::Dormant => {
            let unused = tenant.trust.dormant_after().map(|seconds| format!("limit={seconds}"));
            let used = tenant.uses.get(name).map(|known| format!("last_used={}", when(known.at())));
            ["rule=dormant_after".to_owned()].into_iter().chain(unused).chain(used).collect()
        }
        Suspension::Quarantine | Suspension::TransferPending | Suspension::OwnerLeft | Suspension::Velocity => {
            Vec::new()
        }
    }
}

const NEVER: Timestamp = Timestamp::from_millis(u64::MAX);
/// Grants of one commit.
const AT_ONCE: usize = 256;
/// How far the row of a last use may be behind while the broker runs.
const GRANULARITY_MILLIS: u64 = 3_600_000;
