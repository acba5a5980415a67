//! What callers of the ledger do, by chance and step by step.

use std::time::Duration;

use super::{
    ground::{GRANT_MOST, GRANTS, PARTNERS, TASK_MOST, TENANT_MOST, TENANTS, TTL_MOST},
    model::{Doubt, Expected},
    said::{Not, Said},
    upkeep::Upkeep,
    world::{Fine, Sabotage, World},
};
use crate::{
    broker::event,
    ledger::{EndLease, EndTask, IssueDraft, OpenDraft, Quota},
    model::{CredentialKind, Digest, EndReason, Lease, LeaseId, Scope, Task, TaskId, TenantName, Timestamp, Velocity},
    pb,
};

/// A lease that its caller has decided on and not proposed yet.
#[derive(Debug)]
pub struct Decided {
    lease: Lease,
    replaces: Option<LeaseId>,
    now: Timestamp,
}

pub const PROOFS: [&[u8]; 3] = [b"first", b"second", b"third"];
pub const KEYS: [&str; 2] = ["k1", "k2"];
const QUOTA: Quota =
    Quota { task: TASK_MOST, grant: GRANT_MOST, partner: 100, partner_everywhere: 100, tenant: TENANT_MOST };

pub fn tenant(at: usize) -> TenantName {
    TENANTS[at].parse().unwrap()
}

impl World {
    pub fn some_task(&mut self) -> Option<TaskId> {
        let now = self.now();
        let live = |task: &&super::model::MTask| self.model.expected_task(task.row.id, now) == Expected::Live;
        let live: Vec<_> = self.model.tasks.iter().filter(live).map(|task| task.row.id).collect();
        // Mostly one that lives, sometimes any.
        if live.is_empty() || self.chance.one_in(8) {
            let at = self.chance.below(self.model.tasks.len());
            return self.model.tasks.get(at).map(|task| task.row.id);
        }
        self.chance.pick(&live).copied()
    }

    pub fn some_lease(&mut self) -> Option<LeaseId> {
        let now = self.now();
        let live = |lease: &&super::model::MLease| self.model.expected(lease, now) == Expected::Live;
        let live: Vec<_> = self.model.leases.iter().filter(live).map(|lease| lease.row.id).collect();
        if live.is_empty() || self.chance.one_in(5) {
            let at = self.chance.below(self.model.leases.len());
            return self.model.leases.get(at).map(|lease| lease.row.id);
        }
        self.chance.pick(&live).copied()
    }

    pub fn event(&self, kind: &str, tenant: &str, partner: &str, lease: Option<LeaseId>) -> pb::Event {
        let mut event = event::own(kind, self.now());
        (event.tenant, event.partner) = (tenant.to_owned(), partner.to_owned());
        event.lease_id = lease.map(|id| id.to_string()).unwrap_or_default();
        event
    }

    pub fn open_raw(&mut self) -> Fine {
        let at = self.chance.below(2);
        let parent = if self.chance.one_in(3) { self.some_task() } else { None };
        let parent = parent.and_then(|id| self.model.task(id)).map(|task| task.row.clone());
        let parent = parent.filter(|task| task.parent.is_none() && task.parent_lease.is_none());
        let through = if self.chance.one_in(6) { self.some_lease() } else { None };
        let through = through.and_then(|id| self.model.lease(id)).map(|lease| lease.row.clone());
        // Chains stay shorter than what is followed.
        let through = through.filter(|lease| lease.parent.is_none() && parent.is_none());
        let through = through
            .filter(|lease| self.model.task(lease.id.task()).is_some_and(|task| task.row.parent_lease.is_none()));
        let mut id = [0; TaskId::BYTES];
        id[..4].copy_from_slice(&self.ground.numbers[at].to_bytes());
        id[4..].copy_from_slice(&self.chance.bytes::<8>());
        let (now, broker) = (self.now(), self.broker());
        let deadline = now.after(Duration::from_secs(self.chance.between(60, 3_600)));
        let own = Task {
            id: TaskId::from_bytes(&id).unwrap(),
            tenant: tenant(at),
            partner: PARTNERS[self.chance.below(2)].parse().unwrap(),
            workload: "runner".parse().unwrap(),
            purpose: "tests".parse().unwrap(),
            parent: None,
            opened: now,
            deadline,
            ended: None,
            held: false,
            leases_issued: 0,
            live: Vec::new(),
            basis: broker.ledger.basis(),
            proofs: self.proofs(),
            parent_lease: None,
            client_key: None,
            opened_with: None,
            job_url: None,
            intent: None,
            approvals: Vec::new(),
            pace: None,
            limits: None,
            secrets: Vec::new(),
            secrets_overflow: false,
        };
        let task = match (&parent, &through) {
            (Some(above), _) => {
                let mut id = id;
                id[..4].copy_from_slice(&above.id.tenant().to_bytes());
                Task {
                    id: TaskId::from_bytes(&id).unwrap(),
                    tenant: above.tenant.clone(),
                    partner: above.partner.clone(),
                    parent: Some(above.id),
                    deadline: deadline.min(above.deadline),
                    ..own
                }
            }
            (None, Some(lease)) => Task { parent_lease: Some(lease.id), ..own },
            (None, None) => own,
        };
        self.propose_task(task)
    }

    fn propose_task(&mut self, task: Task) -> Fine {
        let event = self.event("task.opened", task.tenant.as_str(), task.partner.as_str(), None);
        let (broker, doubts) = (self.broker(), vec![Doubt::Task(Box::new(task.clone()))]);
        let draft = OpenDraft {
            task: task.clone(),
            through: Vec::new(),
            retry: None,
            spend: None,
            approval: None,
            velocity: Velocity::default(),
            event,
            now: task.opened,
        };
        self.ask(doubts, async move {
            let at = broker.ledger.open_task(draft).await;
            Said::Opened { task: Box::new(task), at: at.map(|(_, receipt)| receipt.number()).map_err(Not::from) }
        })
    }

    fn proofs(&mut self) -> Vec<crate::model::ScopeId> {
        let proof = PROOFS[self.chance.below(3)];
        if self.chance.one_in(2) { vec![Scope::Proof(Digest::of(proof)).id()] } else { Vec::new() }
    }

    /// Asks for a basis and decides; what is proposed later rests on this.
    pub fn decide_raw(&mut self) -> Fine {
        let (broker, now) = (self.broker(), self.now());
        let basis = broker.ledger.basis();
        if self.chance.one_in(4)
            && let Some(id) = self.some_lease()
        {
            return self.decide_renewal(id, basis);
        }
        let Some(task) = self.some_task().and_then(|id| self.model.task(id)).map(|task| task.row.clone()) else {
            return self.open_raw();
        };
        let through = if self.chance.one_in(6) { self.some_lease() } else { None };
        let through = through.and_then(|id| self.model.lease(id)).map(|lease| lease.row.clone());
        let through = through.filter(|lease| lease.parent.is_none());
        let ttl = Duration::from_secs(self.chance.between(5, TTL_MOST));
        let limit = through.as_ref().map_or(task.deadline, |lease| lease.expires.min(task.deadline));
        let lease = self.lease_of(&task, now.after(ttl).min(limit), through.map(|lease| lease.id), basis);
        if broker.ledger.barred(&lease.scopes()) {
            return Ok(());
        }
        if !self.is_live(&task) {
            return self.open_raw();
        }
        self.decided.push(Decided { lease, replaces: None, now });
        Ok(())
    }

    fn is_live(&self, task: &Task) -> bool {
        let ledger = &self.up().broker.ledger;
        matches!(ledger.task(task.id), Ok(Some(row)) if ledger.task_standing(&row, self.now()).is_ok_and(|s| s.is_live()))
    }

    fn lease_of(&mut self, task: &Task, expires: Timestamp, parent: Option<LeaseId>, basis: (u64, u64)) -> Lease {
        Lease {
            id: self.lease_id(task.id),
            tenant: task.tenant.clone(),
            partner: task.partner.clone(),
            grant: GRANTS[self.chance.below(2)].parse().unwrap(),
            workload: task.workload.clone(),
            purpose: task.purpose.clone(),
            kind: CredentialKind::Jwt,
            audiences: vec!["https://api.example/x".into()],
            actions: vec!["a".into()],
            dns_names: Vec::new(),
            issued: self.now(),
            expires,
            basis,
            credential: Digest::of(b"credential"),
            key_id: KEYS[self.chance.below(2)].to_owned(),
            bound: None,
            spki: None,
            parent,
            proofs: self.proofs(),
            renewals: 0,
            broker_made_key: false,
            ended: None,
            delegated: Vec::new(),
            ruling: None,
            secret: None,
            pickup_until: None,
            svid: false,
        }
    }

    fn lease_id(&mut self, task: TaskId) -> LeaseId {
        LeaseId::from_bytes(&[&task.as_bytes()[..], &self.chance.bytes::<8>()].concat()).unwrap()
    }

    fn decide_renewal(&mut self, id: LeaseId, basis: (u64, u64)) -> Fine {
        let (broker, now) = (self.broker(), self.now());
        let Ok(Some(old)) = broker.ledger.lease(id) else { return Ok(()) };
        if !broker.ledger.lease_standing(&old, now).is_ok_and(|standing| standing.is_live()) {
            return Ok(());
        }
        let Some(task) = self.model.task(id.task()).map(|task| task.row.clone()) else { return Ok(()) };
        let parent = old.parent.and_then(|id| self.model.lease(id));
        let limit = parent.map_or(task.deadline, |parent| parent.row.expires.min(task.deadline));
        let ttl = Duration::from_secs(self.chance.between(5, TTL_MOST));
        let (id, expires) = (self.lease_id(task.id), now.after(ttl).min(limit));
        let lease = Lease { id, issued: now, expires, basis, renewals: old.renewals + 1, ended: None, ..old.clone() };
        if !broker.ledger.barred(&lease.scopes()) {
            self.decided.push(Decided { lease, replaces: Some(old.id), now });
        }
        Ok(())
    }

    /// Proposes something that was decided before; what happened meanwhile is the ledger's to see.
    pub fn propose_raw(&mut self) -> Fine {
        if self.decided.is_empty() {
            return Ok(());
        }
        let at = self.chance.below(self.decided.len());
        let Decided { mut lease, replaces, now } = self.decided.swap_remove(at);
        let (broker, decided) = (self.broker(), lease.basis);
        if self.sabotage == Some(Sabotage::CommitAtAnotherBasis) {
            lease.basis = broker.ledger.basis();
        }
        let event = self.event("lease.issued", lease.tenant.as_str(), lease.partner.as_str(), Some(lease.id));
        let mut doubts = vec![Doubt::Lease(Box::new(lease.clone()), decided)];
        doubts.extend(replaces.map(Doubt::LeaseEnd));
        let draft = IssueDraft {
            lease: lease.clone(),
            through: Vec::new(),
            new_task: None,
            retry: None,
            supersedes: replaces,
            approval: None,
            velocity: Velocity::default(),
            spend: None,
            hand_out: None,
            quota: QUOTA,
            event,
            now,
        };
        self.ask(doubts, async move {
            let at = broker.ledger.issue(draft).await.map(|receipt| receipt.number()).map_err(Not::from);
            Said::Issued { lease: Box::new(lease), decided, replaces, at }
        })
    }

    pub fn release_raw(&mut self) -> Fine {
        let Some(id) = self.some_lease() else { return Ok(()) };
        let Some(lease) = self.model.lease(id) else { return Ok(()) };
        let event = self.event("lease.released", lease.row.tenant.as_str(), lease.row.partner.as_str(), None);
        let (broker, now) = (self.broker(), self.now());
        self.ask(vec![Doubt::LeaseEnd(id)], async move {
            let end = EndLease { lease: id, why: EndReason::Released, event, now };
            let at = broker.ledger.end_lease(end).await;
            Said::LeaseEnded(id, at.map(|(_, receipt)| receipt.number()).map_err(Not::from))
        })
    }

    pub fn complete_raw(&mut self) -> Fine {
        let Some(id) = self.some_task() else { return Ok(()) };
        let Some(task) = self.model.task(id) else { return Ok(()) };
        let event = self.event("task.completed", task.row.tenant.as_str(), task.row.partner.as_str(), None);
        let (broker, now) = (self.broker(), self.now());
        self.ask(vec![Doubt::TaskEnd(id)], async move {
            let end = EndTask { task: id, why: EndReason::Completed, event, now };
            let at = broker.ledger.end_task(end).await;
            Said::TaskEnded(id, at.map(|(_, receipt)| receipt.number()).map_err(Not::from))
        })
    }

    /// A task and a lease, for who wants to see that it goes.
    pub fn open_and_issue_raw(&mut self) -> Fine {
        let now = self.now();
        for _ in 0..2 {
            let mut id = [0; TaskId::BYTES];
            id[..4].copy_from_slice(&self.ground.numbers[0].to_bytes());
            id[4..].copy_from_slice(&self.chance.bytes::<8>());
            let task = Task {
                id: TaskId::from_bytes(&id).unwrap(),
                tenant: tenant(0),
                partner: PARTNERS[0].parse().unwrap(),
                workload: "runner".parse().unwrap(),
                purpose: "tests".parse().unwrap(),
                parent: None,
                opened: now,
                deadline: now.after(Duration::from_mins(10)),
                ended: None,
                held: false,
                leases_issued: 0,
                live: Vec::new(),
                basis: self.broker().ledger.basis(),
                proofs: Vec::new(),
                parent_lease: None,
                client_key: None,
                opened_with: None,
                job_url: None,
                intent: None,
                approvals: Vec::new(),
                pace: None,
                limits: None,
                secrets: Vec::new(),
                secrets_overflow: false,
            };
            self.propose_task(task.clone())?;
            self.quiesce()?;
            let basis = self.broker().ledger.basis();
            let lease = self.lease_of(&task, now.after(Duration::from_mins(1)), None, basis);
            let lease = Lease { proofs: Vec::new(), ..lease };
            self.decided = vec![Decided { lease, replaces: None, now }];
            self.propose_raw()?;
            self.quiesce()?;
            // Quotas may be used up: what lives there ends.
            if self.model.leases.last().is_some_and(|lease| lease.row.id.task() == task.id) {
                return Ok(());
            }
            self.cut_raw(Scope::Tenant(tenant(0)), false)?;
            self.quiesce()?;
            self.upkeep(Upkeep::Walk)?;
            self.upkeep(Upkeep::Walk)?;
        }
        Ok(())
    }
}
