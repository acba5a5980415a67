//! What a scope covers: what is live under it, counted one by one for dry runs.

use super::{Broker, refusal::Refusal, view};
use crate::{
    ledger::keys,
    model::{Lease, Scope, Standing, Task, TaskId, TenantNumber, Timestamp},
    pb,
};

/// What would end.
#[derive(Debug, Default)]
pub(super) struct Covered {
    pub leases: u64,
    pub tasks: u64,
    pub sample: Vec<pb::Lease>,
    /// The latest expiry among the leases.
    pub until: Option<Timestamp>,
}

impl Broker {
    /// Counts what is live under any of the scopes, exactly: for dry runs.
    pub(super) async fn covered(&self, scopes: &[Scope], now: Timestamp) -> Result<Covered, Refusal> {
        let mut covered = Covered::default();
        for prefix in self.prefixes(scopes) {
            let mut after = Vec::new();
            loop {
                let (leases, next) = self.ledger.leases(&prefix, &after, PAGE)?;
                for lease in leases {
                    self.cover_lease(&mut covered, scopes, &lease, now)?;
                }
                let Some(next) = next else { break };
                after = next;
                tokio::task::yield_now().await;
            }
            self.cover_tasks(&mut covered, scopes, &prefix, now).await?;
        }
        Ok(covered)
    }

    fn cover_lease(
        &self,
        covered: &mut Covered,
        scopes: &[Scope],
        lease: &Lease,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if !self.is_within(scopes, lease)? || !self.ledger.lease_standing(lease, now)?.is_live() {
            return Ok(());
        }
        covered.leases += 1;
        covered.until = covered.until.max(Some(lease.expires));
        if covered.sample.len() < SAMPLE {
            covered.sample.push(view::lease_in_full(lease, Standing::Live));
        }
        Ok(())
    }

    async fn cover_tasks(
        &self,
        covered: &mut Covered,
        scopes: &[Scope],
        prefix: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut after = Vec::new();
        loop {
            let prefix = prefix.get(..TaskId::BYTES).unwrap_or(prefix);
            let (tasks, next) = self.ledger.tasks(prefix, &after, PAGE)?;
            for task in tasks {
                if task_within(scopes, &task) && self.ledger.task_standing(&task, now)?.is_live() {
                    covered.tasks += 1;
                }
            }
            let Some(next) = next else { return Ok(()) };
            after = next;
            tokio::task::yield_now().await;
        }
    }

    /// Key prefixes under which everything of the scopes lies.
    fn prefixes(&self, scopes: &[Scope]) -> Vec<Vec<u8>> {
        let mut prefixes: Vec<Vec<u8>> = scopes.iter().map(|scope| self.prefix(scope)).collect();
        prefixes.sort();
        prefixes.dedup();
        if prefixes.first().is_some_and(Vec::is_empty) {
            prefixes.truncate(1);
        }
        prefixes
    }

    fn prefix(&self, scope: &Scope) -> Vec<u8> {
        match scope {
            Scope::Lease(id) => keys::lease(*id),
            // Child tasks lie elsewhere in the tenant.
            Scope::Task(id) => keys::tenant(id.tenant()),
            Scope::Grant(..)
            | Scope::PartnerInTenant(..)
            | Scope::Secret(..)
            | Scope::Tenant(_)
            | Scope::Workload(..) => self.tenant_of(scope).map(keys::tenant).unwrap_or_default(),
            Scope::Everything | Scope::Issuer(_) | Scope::Partner(_) | Scope::Proof(_) | Scope::SigningKey(_) => {
                Vec::new()
            }
        }
    }

    /// The number of the one tenant that a scope lies within.
    #[must_use]
    pub fn tenant_of(&self, scope: &Scope) -> Option<TenantNumber> {
        match scope {
            Scope::Grant(tenant, _) | Scope::PartnerInTenant(tenant, _) | Scope::Workload(tenant, _) => {
                self.registry.number(tenant)
            }
            Scope::Tenant(tenant) | Scope::Secret(tenant, _) => self.registry.number(tenant),
            Scope::Lease(id) => Some(id.tenant()),
            Scope::Task(id) => Some(id.tenant()),
            Scope::Everything | Scope::Issuer(_) | Scope::Partner(_) | Scope::Proof(_) | Scope::SigningKey(_) => None,
        }
    }

    fn is_within(&self, scopes: &[Scope], lease: &Lease) -> Result<bool, Refusal> {
        for scope in scopes {
            let within = match scope {
                Scope::Lease(id) => lease.id == *id || lease.parent == Some(*id),
                Scope::Task(id) => self.is_under(lease.id.task(), *id)?,
                Scope::Everything
                | Scope::Grant(..)
                | Scope::Issuer(_)
                | Scope::Partner(_)
                | Scope::PartnerInTenant(..)
                | Scope::Proof(_)
                | Scope::Secret(..)
                | Scope::SigningKey(_)
                | Scope::Tenant(_)
                | Scope::Workload(..) => lease.scopes().contains(&scope.id()),
            };
            if within {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_under(&self, task: TaskId, above: TaskId) -> Result<bool, Refusal> {
        let Some(row) = self.ledger.task(task)? else { return Ok(task == above) };
        for id in row.lineage(|id| self.ledger.task(id)) {
            if id? == above {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn task_within(scopes: &[Scope], task: &Task) -> bool {
    scopes.iter().any(|scope| match scope {
        Scope::Task(id) => task.id == *id || task.parent == Some(*id),
        Scope::Lease(id) => task.parent_lease == Some(*id),
        Scope::Everything
        | Scope::Grant(..)
        | Scope::Issuer(_)
        | Scope::Partner(_)
        | Scope::PartnerInTenant(..)
        | Scope::Proof(_)
        | Scope::Secret(..)
        | Scope::SigningKey(_)
        | Scope::Tenant(_)
        | Scope::Workload(..) => task.scopes().contains(&scope.id()),
    })
}

/// Leases shown in a dry run.
const SAMPLE: usize = 100;
/// Rows looked at between two yields.
pub(super) const PAGE: usize = 1_024;
