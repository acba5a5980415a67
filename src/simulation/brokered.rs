//! What callers and operators ask of the broker's use cases, by chance.

use super::{
    callers::tenant,
    ground::{self, GRANTS, PARTNERS, TENANTS, TTL_MOST},
    model::Doubt,
    said::{Not, Said},
    world::{Fine, World},
};
use crate::{
    model::{CredentialKind, LeaseId, Scope, TaskId},
    pb,
};

impl World {
    pub fn issue(&mut self) -> Fine {
        let at = self.chance.below(2);
        let grant = self.chance.below(2);
        let retried = self.chance.one_in(4);
        let kind = if self.chance.one_in(12) { CredentialKind::Jwt } else { CredentialKind::Opaque };
        let request = pb::IssueRequest {
            tenant: TENANTS[at].into(),
            partner: PARTNERS[grant].into(),
            purpose: "tests".into(),
            kind: i32::from(if retried { CredentialKind::Opaque } else { kind }.code()),
            audiences: vec!["https://api.example/x".into()],
            actions: vec!["a".into()],
            binding: pb::Binding::None.into(),
            ttl_seconds: if retried { 60 } else { u32::try_from(self.chance.between(5, TTL_MOST)).unwrap() },
            idempotency_key: if retried { "once".into() } else { String::new() },
            ..Default::default()
        };
        // A retry is the same request to the letter.
        let request = if retried { pb::IssueRequest { partner: PARTNERS[0].into(), ..request } } else { request };
        let broker = self.broker();
        self.ask(vec![Doubt::Stranger], async move {
            let got = broker.issue(&ground::runner(TENANTS[at]), request).await;
            Said::Brokered { tenant: at, replaces: None, retried, got: handed_out(got) }
        })
    }

    pub fn renew(&mut self) -> Fine {
        let brokered = |lease: &&super::model::MLease| lease.token.is_some();
        let ids: Vec<_> = self.model.leases.iter().filter(brokered).map(|lease| lease.row.id).collect();
        let Some(id) = self.chance.pick(&ids).copied() else { return Ok(()) };
        let at = TENANTS.iter().position(|name| self.ground.numbers[usize::from(*name == TENANTS[1])] == id.tenant());
        let (Some(at), broker) = (at, self.broker()) else { return Ok(()) };
        let request = pb::RenewRequest { lease_id: id.to_string(), ..Default::default() };
        self.ask(vec![Doubt::LeaseEnd(id), Doubt::Stranger], async move {
            let got = broker.renew(&ground::runner(TENANTS[at]), request).await;
            Said::Brokered { tenant: at, replaces: Some(id), retried: false, got: handed_out(got) }
        })
    }

    pub fn open(&mut self) -> Fine {
        let at = self.chance.below(2);
        let request = pb::OpenTaskRequest {
            tenant: TENANTS[at].into(),
            partner: PARTNERS[self.chance.below(2)].into(),
            purpose: "tests".into(),
            deadline_seconds: u32::try_from(self.chance.between(60, 3_000)).unwrap(),
            ..Default::default()
        };
        let broker = self.broker();
        self.ask(vec![Doubt::Stranger], async move {
            let got = broker.open_task(&ground::runner(TENANTS[at]), request).await;
            let id = got.map(|opened| opened.task.unwrap().task_id.parse().unwrap());
            Said::BrokerOpened(id.map_err(Not::from))
        })
    }

    pub fn end_by_operator(&mut self) -> Fine {
        let broker = self.broker();
        if self.chance.one_in(2) {
            let Some(id) = self.some_lease() else { return Ok(()) };
            let request = pb::RevokeRequest { reason: "test".into(), ..of_lease(id) };
            return self.ask(vec![Doubt::LeaseEnd(id)], async move {
                Said::LeaseEnded(id, revision(broker.revoke(&ground::admin(), request).await.map(|r| r.revision)))
            });
        }
        let Some(id) = self.some_task() else { return Ok(()) };
        let request = pb::RevokeRequest { reason: "test".into(), ..of_task(id) };
        self.ask(vec![Doubt::TaskEnd(id)], async move {
            Said::TaskEnded(id, revision(broker.revoke(&ground::admin(), request).await.map(|r| r.revision)))
        })
    }

    pub fn revoke(&mut self) -> Fine {
        let (scope, without_bar) = (self.scope(), self.chance.one_in(2));
        let Some(named) = named(&scope) else { return Ok(()) };
        let request =
            pb::RevokeRequest { scope: Some(named), reason: "test".into(), without_bar, ..Default::default() };
        let broker = self.broker();
        self.ask(vec![Doubt::Scope(scope.clone())], async move {
            let got = broker.revoke(&ground::admin(), request).await;
            let barred = got.as_ref().is_ok_and(|revoked| revoked.barred);
            Said::Cut(scope, barred, revision(got.map(|revoked| revoked.revision)))
        })
    }

    /// The whole trust map, by file; it says itself what it narrows.
    pub fn apply(&mut self) -> Fine {
        self.quiesce()?;
        if self.up.is_none() {
            return Ok(());
        }
        let (broker, is_narrow) = (self.broker(), self.chance.one_in(2));
        let before = broker.ledger.basis().1;
        let options = pb::ApplyOptions { allow_removals: 10, ..Default::default() };
        let got =
            self.carry_out(async move { broker.apply(&ground::admin(), options, ground::trust(is_narrow)).await })?;
        let scopes: Vec<_> = GRANTS.iter().map(|grant| Scope::Grant(tenant(0), grant.parse().unwrap())).collect();
        match got {
            Some(Ok(applied)) => {
                let at = applied.revision.map_or(before, |revision| revision.number);
                if applied.revision.is_some() {
                    self.model.moved.push((Scope::Tenant(tenant(0)), at));
                }
                for scope in scopes {
                    self.settle_cut(&scope);
                }
                self.trace.note(format_args!("  applied, {} changes", applied.change_count));
            }
            Some(Err(refusal)) => {
                self.trace.note(format_args!("  not applied: {}", refusal.reason()));
                self.model.doubts.extend(scopes.into_iter().map(Doubt::Scope));
            }
            None => self.model.doubts.extend(scopes.into_iter().map(Doubt::Scope)),
        }
        Ok(())
    }

    /// An apply does not say which cuts it made; what it narrowed is cut from here on.
    fn settle_cut(&mut self, scope: &Scope) {
        let cut = self.broker().ledger.scope(scope.id()).cut;
        self.model.note_cut(scope, cut);
    }
}

fn handed_out(got: Result<pb::IssueResponse, crate::broker::Refusal>) -> Result<(LeaseId, Option<String>), Not> {
    let issued = got.map_err(Not::from)?;
    let token = match issued.credential {
        Some(pb::issue_response::Credential::Token(token)) => Some(token),
        _ => None,
    };
    Ok((issued.lease.unwrap().lease_id.parse().unwrap(), token))
}

fn revision(got: Result<Option<pb::Revision>, crate::broker::Refusal>) -> Result<u64, Not> {
    got.map(|revision| revision.map_or(0, |revision| revision.number)).map_err(Not::from)
}

fn of_lease(id: LeaseId) -> pb::RevokeRequest {
    let scope = pb::Scope { kind: pb::ScopeKind::Lease.into(), lease_id: id.to_string(), ..Default::default() };
    pb::RevokeRequest { scope: Some(scope), ..Default::default() }
}

fn of_task(id: TaskId) -> pb::RevokeRequest {
    let scope = pb::Scope { kind: pb::ScopeKind::Task.into(), task_id: id.to_string(), ..Default::default() };
    pb::RevokeRequest { scope: Some(scope), ..Default::default() }
}

/// A scope as the contract spells it, where it has a spelling.
fn named(scope: &Scope) -> Option<pb::Scope> {
    use pb::ScopeKind;
    let mut named = pb::Scope::default();
    let kind = match scope {
        Scope::Tenant(tenant) => {
            named.tenant = tenant.to_string();
            ScopeKind::Tenant
        }
        Scope::Partner(partner) => {
            named.partner = partner.to_string();
            ScopeKind::Partner
        }
        Scope::PartnerInTenant(tenant, partner) => {
            (named.tenant, named.partner) = (tenant.to_string(), partner.to_string());
            ScopeKind::PartnerInTenant
        }
        Scope::Grant(tenant, grant) => {
            (named.tenant, named.grant) = (tenant.to_string(), grant.to_string());
            ScopeKind::Grant
        }
        Scope::Workload(tenant, workload) => {
            (named.tenant, named.workload) = (tenant.to_string(), workload.to_string());
            ScopeKind::Workload
        }
        Scope::Proof(proof) => {
            named.proof_sha256 = proof.0.to_vec();
            ScopeKind::Proof
        }
        Scope::Everything
        | Scope::Issuer(_)
        | Scope::Secret(..)
        | Scope::SigningKey(_)
        | Scope::Lease(_)
        | Scope::Task(_) => return None,
    };
    named.kind = kind.into();
    Some(named)
}
