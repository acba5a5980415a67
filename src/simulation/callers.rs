//! What callers, operators and the upkeep do, by chance.

use std::time::Duration;

use super::{
    ground::{self, GRANT_MOST, GRANTS, PARTNERS, TASK_MOST, TENANT_MOST, TENANTS, TTL_MOST},
    model::{Doubt, Expected},
    said::{Not, Said},
    world::{Fine, Sabotage, World},
};
use crate::{
    broker::event,
    ledger::{BarDraft, CheckpointDraft, CutDraft, EndLease, EndTask, IssueDraft, OpenDraft, Quota, TrustCommit},
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
const KEYS: [&str; 2] = ["k1", "k2"];
const QUOTA: Quota =
    Quota { task: TASK_MOST, grant: GRANT_MOST, partner: 100, partner_everywhere: 100, tenant: TENANT_MOST };

fn tenant(at: usize) -> TenantName {
    TENANTS[at].parse().unwrap()
}

impl World {
    /// A scope that something can be cut or barred by.
    fn scope(&mut self) -> Scope {
        let (t, p) = (tenant(self.chance.below(2)), PARTNERS[self.chance.below(2)].parse().unwrap());
        match self.chance.weighted(&[(2, 0), (2, 1), (3, 2), (5, 3), (2, 4), (5, 5), (2, 6), (1, 7)]) {
            0 => Scope::Tenant(t),
            1 => Scope::Partner(p),
            2 => Scope::PartnerInTenant(t, p),
            3 => Scope::Grant(t, GRANTS[self.chance.below(2)].parse().unwrap()),
            4 => Scope::Workload(t, "runner".parse().unwrap()),
            5 => Scope::Proof(Digest::of(PROOFS[self.chance.below(3)])),
            6 => Scope::SigningKey(KEYS[self.chance.below(2)].to_owned()),
            _ => Scope::Everything,
        }
    }

    fn some_task(&mut self) -> Option<TaskId> {
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

    fn some_lease(&mut self) -> Option<LeaseId> {
        let now = self.now();
        let live = |lease: &&super::model::MLease| self.model.expected(lease, now) == Expected::Live;
        let live: Vec<_> = self.model.leases.iter().filter(live).map(|lease| lease.row.id).collect();
        if live.is_empty() || self.chance.one_in(5) {
            let at = self.chance.below(self.model.leases.len());
            return self.model.leases.get(at).map(|lease| lease.row.id);
        }
        self.chance.pick(&live).copied()
    }

    fn event(&self, kind: &str, tenant: &str, partner: &str, lease: Option<LeaseId>) -> pb::Event {
        let mut event = event::own(kind, self.now());
        (event.tenant, event.partner) = (tenant.to_owned(), partner.to_owned());
        event.lease_id = lease.map(|id| id.to_string()).unwrap_or_default();
        event
    }

    // === callers of the ledger, step by step ===

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

    fn cut_draft(&self, scope: Scope, bar: bool) -> CutDraft {
        let now = self.now();
        CutDraft {
            scope,
            why: EndReason::Revoked,
            bar,
            operator: "olga".into(),
            reason: "test".into(),
            covers_until: now.after(Duration::from_hours(26)),
            event: self.event("scope.revoked", "", "", None),
            now,
            resets_time: false,
        }
    }

    pub fn cut_some(&mut self) -> Fine {
        let (scope, bar) = (self.scope(), self.chance.one_in(2));
        self.cut_raw(scope, bar)
    }

    pub fn cut_raw(&mut self, scope: Scope, bar: bool) -> Fine {
        let (broker, draft) = (self.broker(), self.cut_draft(scope.clone(), bar));
        self.ask(vec![Doubt::Scope(scope.clone())], async move {
            let at = broker.ledger.cut(draft).await.map(|(revoked, _)| revoked.cut).map_err(Not::from);
            Said::Cut(scope, bar, at)
        })
    }

    pub fn bar_raw(&mut self) -> Fine {
        let (scope, suspend) = (self.scope(), self.chance.one_in(2));
        let (broker, draft) = (self.broker(), self.bar_draft(scope.clone(), suspend));
        self.ask(vec![Doubt::Scope(scope.clone())], async move {
            let at = broker.ledger.bar(draft).await.map(|(_, receipt)| receipt.number()).map_err(Not::from);
            Said::Barred { scope, suspend, at }
        })
    }

    pub fn lift_some(&mut self) -> Fine {
        let open: Vec<_> =
            self.model.bars.iter().filter(|bar| bar.lifted.is_none()).map(|bar| bar.scope.clone()).collect();
        match self.chance.pick(&open).cloned() {
            Some(scope) => self.lift_raw(scope),
            None => Ok(()),
        }
    }

    pub fn lift_raw(&mut self, scope: Scope) -> Fine {
        let (broker, draft) = (self.broker(), self.bar_draft(scope.clone(), false));
        self.ask(vec![Doubt::Scope(scope.clone())], async move {
            let at = broker.ledger.lift(draft).await.map(|(_, receipt)| receipt.number()).map_err(Not::from);
            Said::Lifted(scope, at)
        })
    }

    fn bar_draft(&self, scope: Scope, suspend: bool) -> BarDraft {
        let event = self.event("scope.barred", "", "", None);
        BarDraft { scope, suspend, operator: "olga".into(), reason: "test".into(), event, now: self.now() }
    }

    /// A change of the trust map that takes authority away, beside whatever else is on its way.
    pub fn narrow_raw(&mut self) -> Fine {
        let grant = Scope::Grant(tenant(self.chance.below(2)), GRANTS[self.chance.below(2)].parse().unwrap());
        let (broker, changed) = (self.broker(), vec![grant.clone()]);
        let cut = if self.chance.one_in(2) { vec![grant] } else { Vec::new() };
        let commit = TrustCommit {
            basis: broker.ledger.basis().1,
            tenants: Vec::new(),
            global: None,
            keys: Vec::new(),
            changed: changed.clone(),
            cuts: cut.iter().map(|scope| self.cut_draft(scope.clone(), false)).collect(),
            grant_states: Vec::new(),
            custody: Vec::new(),
            uses: Vec::new(),
            voided: Vec::new(),
            events: vec![self.event("trust.changed", "", "", None)],
            now: self.now(),
        };
        let doubts = cut.iter().cloned().map(Doubt::Scope).collect();
        self.ask(doubts, async move {
            let at = broker.ledger.apply(commit, || ()).await.map(|receipt| receipt.number()).map_err(Not::from);
            Said::TrustChanged { changed, cut, at }
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

    // === the use cases of the broker ===

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

    // === upkeep ===

    pub fn upkeep(&mut self, work: Upkeep) -> Fine {
        let broker = self.broker();
        let (now, wall) = (self.now(), broker.time.wall());
        self.marks.latest = self.marks.latest.max(now);
        let sabotaged = self.sabotage == Some(Sabotage::SweepByWallClock);
        let done = self.carry_out(async move {
            match work {
                Upkeep::Sweep if sabotaged => {
                    let before = wall.before(ground::ENDED_KEPT);
                    broker.ledger.sweep(before, wall, 0).await.map(drop)
                }
                Upkeep::Sweep => broker.sweep_all().await,
                Upkeep::Walk => broker.walk_cuts().await,
                Upkeep::Trim => match broker.audit_key() {
                    Ok(key) => broker.trim_audit(&std::sync::Arc::new(key)).await,
                    // Its row is damaged: the daemon does not trim either.
                    Err(_) => Ok(()),
                },
                Upkeep::Checkpoint => {
                    let draft = CheckpointDraft {
                        key_id: "audit".into(),
                        public_key: [7; 32],
                        sign: std::sync::Arc::new(|_| [0; 64]),
                        now,
                    };
                    broker.ledger.checkpoint(draft).await.map(drop)
                }
                Upkeep::Observe => {
                    broker.observe_time().await;
                    Ok(())
                }
                Upkeep::Rings => {
                    broker.step_rings(now).await;
                    Ok(())
                }
                Upkeep::Uses => {
                    let _written = broker.write_uses().await;
                    Ok(())
                }
            }
        })?;
        if let (Upkeep::Sweep, Some(Ok(()))) = (work, &done) {
            self.model.swept = self.model.swept.max(now);
        }
        self.trace.note(format_args!("  {work:?}: {}", done.map_or("crashed".into(), |done| format!("{done:?}"))));
        Ok(())
    }

    /// An operator takes the clock as it is, where that is possible.
    pub fn confirm_time(&mut self) -> Fine {
        let broker = self.broker();
        let request = pb::ConfirmTimeRequest { now: Some(event::stamp(broker.time.wall())), reason: "test".into() };
        let done = self.carry_out(async move { broker.confirm_time(&ground::admin(), request).await })?;
        let done = done.map_or("crashed", |done| if done.is_ok() { "done" } else { "refused" });
        self.trace.note(format_args!("  time confirmed: {done}"));
        Ok(())
    }
}

/// What runs by itself in a daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Upkeep {
    Sweep,
    Walk,
    Trim,
    Checkpoint,
    Observe,
    Rings,
    Uses,
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
