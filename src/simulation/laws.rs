//! The laws: looked at after every step, whatever happened in it.

use std::{collections::HashMap, time::Duration};

use super::{
    ground::{self, AUDIT_KEPT, ENDED_KEPT, GRANTS, TENANTS},
    model::{Doubt, Expected, MTask},
    world::{Fine, World},
};
use crate::{
    audit::page,
    ledger::{Hold, stream_id},
    model::{Digest, EndReason, Lease, LeaseId, Scope, Standing},
    pb,
};

impl World {
    /// Everything that must hold now. Nothing is asked of a broker that does not run.
    pub fn check(&mut self) -> Fine {
        let Some(up) = &mut self.up else { return Ok(()) };
        let now = up.broker.now();
        if now < up.last_now {
            return Err(format!("time went back from {} to {now}", up.last_now));
        }
        up.last_now = now;
        self.marks.latest = self.marks.latest.max(now);
        if !self.is_unsure() {
            self.settle_doubts()?;
        }
        // What a check answers depends on nothing else.
        let state = (self.broker().ledger.basis(), now, self.marks.restarts, self.is_unsure());
        if self.checked == Some(state) {
            return Ok(());
        }
        self.checked = Some(state);
        self.standing_is_what_callers_were_told()
    }

    /// Whether the store has a commit of which it cannot tell yet whether it happened.
    pub fn is_unsure(&self) -> bool {
        self.up.as_ref().is_none_or(|up| up.broker.ledger.holds().has(Hold::StoreFailed))
    }

    /// Looks up what was left open. From here on it is known, and must stay so.
    pub fn settle_doubts(&mut self) -> Fine {
        let ledger = std::sync::Arc::clone(&self.broker().ledger);
        let basis = ledger.basis().1;
        for doubt in std::mem::take(&mut self.model.doubts) {
            match doubt {
                Doubt::Lease(lease, decided) => {
                    let found = ledger.lease(lease.id).map_err(|e| format!("a lease cannot be read: {e}"))?;
                    self.add_lease(*lease, decided, None, found.is_some());
                }
                Doubt::Task(task) => {
                    let found = ledger.task(task.id).map_err(|e| format!("a task cannot be read: {e}"))?;
                    self.model.tasks.extend(found.map(|_| MTask { row: *task, ended: None, damaged: false }));
                }
                Doubt::Stranger => {
                    self.marks.has_strangers = true;
                    // It may have been a retry, which ends the lease before.
                    for (_, id) in self.retried.clone() {
                        if matches!(ledger.lease(id), Ok(Some(lease)) if lease.ended.is_some()) {
                            self.model.note_end(id, basis);
                        }
                    }
                }
                Doubt::LeaseEnd(id) => {
                    if let Ok(Some(lease)) = ledger.lease(id)
                        && lease.ended.is_some()
                    {
                        self.model.note_end(id, basis);
                    }
                }
                Doubt::TaskEnd(id) => {
                    if let Ok(Some(task)) = ledger.task(id)
                        && task.ended.is_some()
                    {
                        self.model.note_task_end(id, basis);
                    }
                }
                Doubt::Scope(scope) => self.settle_scope(&scope, basis),
            }
        }
        Ok(())
    }

    fn settle_scope(&mut self, scope: &Scope, basis: u64) {
        let state = self.broker().ledger.scope(scope.id());
        // A cut that is forgotten shows as none; what the model knows of it stays.
        self.model.note_cut(scope, state.cut);
        match (state.bar, self.model.bar(scope).is_some()) {
            (0, true) => self.model.note_lift(scope, basis),
            (0, false) => {}
            (since, _) => self.model.note_bar(scope, state.suspend, since.min(basis)),
        }
    }

    fn standing_is_what_callers_were_told(&mut self) -> Fine {
        let (broker, unsure) = (self.broker(), self.is_unsure());
        let now = broker.now();
        let (mut seen_ended, skip) = (Vec::new(), self.chance.below(4));
        for (at, lease) in self.model.leases.iter().enumerate() {
            // What is over for good is looked at now and then.
            if lease.seen_ended && (at + skip) % 4 != 0 {
                continue;
            }
            let expected = self.model.expected(lease, now);
            let row = match broker.ledger.lease(lease.row.id) {
                Ok(row) => row,
                Err(_) if unsure => continue,
                Err(e) => return Err(format!("lease {} cannot be read: {e}", lease.row.id)),
            };
            if row.is_some() && !lease.known {
                return Err(format!("lease {} is there after all", lease.row.id));
            }
            let gone = lease.row.expires.after(ENDED_KEPT) < self.marks.latest;
            if row.is_none() && !lease.damaged && lease.known && !gone && !unsure {
                return Err(format!("lease {at} ({}) has lost its row before its time", lease.row.id));
            }
            let found = match row.as_ref().map(|row| broker.ledger.lease_standing(row, now)) {
                None => Expected::Ended,
                Some(Ok(Standing::Live)) => Expected::Live,
                Some(Ok(Standing::Suspended)) => Expected::Suspended,
                Some(Ok(Standing::Ended(_))) => Expected::Ended,
                Some(Err(_)) if unsure => continue,
                Some(Err(e)) => return Err(format!("the standing of {} cannot be read: {e}", lease.row.id)),
            };
            // While a commit is in doubt, what was told must hold, and what was not told may hold as well.
            let is_fine = if unsure { found >= expected } else { found == expected };
            if !is_fine {
                let id = lease.row.id;
                let parent = lease.row.parent.and_then(|id| self.model.lease(id));
                let task = self.model.task(id.task());
                return Err(format!(
                    "lease {at} ({id}) is {found:?} and should be {expected:?} at {now:?}: {lease:?}\nunder {task:?}\nthrough {parent:?}\nstored {row:?}"
                ));
            }
            let is_over = lease.row.expires.after(MARKED_WITHIN) <= self.model.swept;
            let is_by_time = lease.row.expires <= now;
            if expected == Expected::Ended && (is_over || !is_by_time) && !unsure {
                seen_ended.push(at);
            }
        }
        for at in seen_ended {
            self.model.leases[at].seen_ended = true;
        }
        Ok(())
    }

    /// Of a lease that was begun in commit `number`.
    pub fn check_begun(&mut self, at: usize, number: u64) -> Fine {
        let lease = &self.model.leases[at];
        let id = lease.row.id;
        if let Some(why) = self.model.misfit(lease, number) {
            let basis = lease.decided.1;
            return Err(format!("lease {at} ({id}), decided at {basis}, was begun at {number} though {why}"));
        }
        if self.model.task(id.task()).is_none_or(|task| lease.row.expires > task.row.deadline) {
            return Err(format!("lease {at} ({id}) outlives its task"));
        }
        if let Some(parent) = lease.row.parent.and_then(|id| self.model.lease(id))
            && lease.row.expires > parent.row.expires
        {
            return Err(format!("lease {at} ({id}) outlives the lease it was obtained through"));
        }
        if !self.audited(&lease.row.tenant.to_string(), &lease.row.partner.to_string())?.contains_key(&id.to_string())
            && !self.marks.audit_is_damaged
        {
            return Err(format!("lease {at} ({id}) was begun without an event"));
        }
        self.quotas_hold(at)
    }

    fn quotas_hold(&self, at: usize) -> Fine {
        if self.marks.counts_are_off {
            return Ok(());
        }
        let (row, now) = (&self.model.leases[at].row, self.now());
        let tenant = self.model.unended(now, |lease| lease.tenant == row.tenant);
        let grant = self.model.unended(now, |lease| lease.tenant == row.tenant && lease.grant == row.grant);
        let task = self.model.unended(now, |lease| lease.id.task() == row.id.task());
        let most = [ground::TENANT_MOST, ground::GRANT_MOST, ground::TASK_MOST].map(u64::from);
        if [tenant, grant, task].iter().zip(most).any(|(live, most)| *live > most) {
            return Err(format!("{tenant} leases live in the tenant, {grant} of the grant, {task} under the task"));
        }
        Ok(())
    }

    /// Events of a stream by the lease that they name. Verifies the chain.
    fn audited(&self, tenant: &str, partner: &str) -> Result<HashMap<String, u64>, String> {
        let mut found = HashMap::new();
        let stream = stream_id(tenant, partner);
        let pages = match self.broker().ledger.audit_pages(&stream, 0, usize::MAX) {
            Ok(pages) => pages,
            Err(_) if self.is_unsure() => return Ok(found),
            Err(e) => return Err(format!("the audit cannot be read: {e}")),
        };
        let mut head: Option<(u64, Digest)> = None;
        for (first, page) in pages {
            let Some(page) = page else {
                if !self.marks.audit_is_damaged {
                    return Err(format!("page {first} of {tenant}/{partner} cannot be read"));
                }
                head = None;
                continue;
            };
            let events = page::read(&page, first);
            if !self.marks.audit_is_damaged {
                let events = events.as_ref().map_err(|finding| format!("the audit does not verify: {finding:?}"))?;
                if head.is_some_and(|(next, hash)| next != first || hash.0 != *page.before) {
                    return Err(format!("page {first} of {tenant}/{partner} does not follow the one before"));
                }
                let after = Digest::from_slice(&page.after).ok_or("a page has no hash")?;
                head = Some((first + u64::try_from(events.len()).unwrap(), after));
            }
            for event in events.unwrap_or_default() {
                found.insert(event.lease_id, event.sequence);
            }
        }
        Ok(found)
    }

    /// Every lease that a caller got and that is young enough has its event; checkpoints say what the streams say.
    pub fn the_audit_holds(&self) -> Fine {
        if self.is_unsure() || self.marks.audit_is_damaged {
            return Ok(());
        }
        for tenant in TENANTS {
            for partner in ground::PARTNERS {
                let events = self.audited(tenant, partner)?;
                let theirs = self.model.leases.iter().filter(|lease| {
                    lease.known && lease.row.tenant.as_str() == tenant && lease.row.partner.as_str() == partner
                });
                for lease in theirs.filter(|lease| lease.row.issued.after(AUDIT_KEPT) > self.marks.latest) {
                    if !events.contains_key(&lease.row.id.to_string()) {
                        return Err(format!("the event of lease {} is lost", lease.row.id));
                    }
                }
            }
        }
        let checkpoints = self.broker().ledger.checkpoints(0, usize::MAX).map_err(|e| e.to_string())?;
        let numbers = checkpoints.iter().map(|checkpoint| checkpoint.number);
        if !numbers.eq(1..=u64::try_from(checkpoints.len()).unwrap()) {
            return Err("checkpoints are missing".to_owned());
        }
        let chained = checkpoints.windows(2).all(|pair| pair[0].hash == pair[1].previous_hash);
        if chained { Ok(()) } else { Err("checkpoints are not chained".to_owned()) }
    }

    /// The counts that quotas go by are what a recount says.
    pub fn the_counts_equal_a_recount(&self) -> Fine {
        if self.is_unsure() || self.marks.counts_are_off || self.marks.has_strangers {
            return Ok(());
        }
        let (broker, now) = (self.broker(), self.now());
        for tenant in TENANTS {
            for grant in GRANTS {
                let scope = Scope::Grant(tenant.parse().unwrap(), grant.parse().unwrap());
                let counted = broker.ledger.live(&scope, now);
                let of = |lease: &Lease| lease.tenant.as_str() == tenant && lease.grant.as_str() == grant;
                let (least, most) = self.model.recounted(now, of);
                if !(least..=most).contains(&counted) {
                    return Err(format!("{scope} counts {counted} and should count {least} to {most}"));
                }
            }
        }
        Ok(())
    }

    /// Nobody sees another tenant's leases; a credential is active exactly while its lease is live.
    pub fn nobody_sees_anothers(&mut self) -> Fine {
        let (broker, now, unsure) = (self.broker(), self.now(), self.is_unsure());
        let request = pb::ListLeasesRequest::default();
        for tenant in TENANTS {
            let listed = self.carry_out({
                let (broker, request) = (broker.clone(), request.clone());
                async move { broker.list_leases(&ground::auditor(tenant), request).await }
            })?;
            let Some(Ok(listed)) = listed else { continue };
            if let Some(lease) = listed.leases.iter().find(|lease| lease.tenant != tenant) {
                return Err(format!("{tenant} is shown a lease of {}", lease.tenant));
            }
        }
        let with_token = self.model.leases.iter().filter_map(|lease| Some((lease, lease.token.clone()?)));
        let asked: Vec<_> = with_token.map(|(lease, token)| (lease.row.clone(), token)).collect();
        for (lease, token) in asked {
            let (id, own) = (lease.id, lease.tenant.to_string());
            for tenant in TENANTS {
                let request = pb::IntrospectRequest {
                    credential: Some(pb::introspect_request::Credential::Token(token.clone())),
                    ..Default::default()
                };
                let broker = broker.clone();
                let got = self.carry_out(async move { broker.introspect(&ground::verifier(tenant), request).await })?;
                let Some(Ok(got)) = got else { continue };
                let is_live = self.model.lease(id).is_some_and(|l| self.model.expected(l, now) == Expected::Live);
                if got.active && tenant != own {
                    return Err(format!("{tenant} is told of a lease of {own}"));
                }
                if got.active && !is_live && !unsure {
                    return Err(format!("lease {id} is active for a verifier and should not be"));
                }
            }
        }
        Ok(())
    }

    /// After all trouble the broker goes on: ends end, and where nothing is in the way, leases begin.
    pub fn the_broker_goes_on(&mut self) -> Fine {
        self.disk.set_trouble(super::disk::Trouble { faults: 0, crashes: 0, ..self.temper.trouble });
        self.temper.trouble = super::disk::Trouble { faults: 0, crashes: 0, ..self.temper.trouble };
        if self.up.is_none() {
            self.start()?;
        }
        self.quiesce()?;
        // A store that could not be brought back yet is tried with the next end.
        for _ in 0..8 {
            if !self.is_unsure() {
                break;
            }
            self.cut_raw(Scope::Proof(Digest::of(b"nobody's")), false)?;
            self.quiesce()?;
        }
        if self.is_unsure() {
            return Err("the store works again and the broker does not go on".to_owned());
        }
        self.check()?;
        // A clock that is behind is set, then the operator says so.
        let behind = self.now().since(self.up().broker.time.wall()).as_secs();
        self.clock.step(i64::try_from(behind).unwrap());
        self.confirm_time()?;
        for scope in
            self.model.bars.iter().filter(|bar| bar.lifted.is_none()).map(|bar| bar.scope.clone()).collect::<Vec<_>>()
        {
            self.lift_raw(scope)?;
        }
        self.quiesce()?;
        self.check()?;
        let before = self.marks.leases;
        self.open_and_issue_raw()?;
        if self.marks.leases == before {
            // A damaged count may say that a quota is used up until its minute is over.
            let may_be = self.marks.counts_are_off;
            return if may_be { Ok(()) } else { Err("nothing is in the way and nothing is issued".to_owned()) };
        }
        let Some(last) = self.model.leases.last().map(|lease| lease.row.id) else { return Ok(()) };
        self.cut_raw(Scope::Tenant(TENANTS[0].parse().unwrap()), false)?;
        self.quiesce()?;
        self.check()?;
        match self.ended_now(last) {
            true => Ok(()),
            false => Err("a tenant was cut and its lease lives".to_owned()),
        }
    }

    fn ended_now(&self, id: LeaseId) -> bool {
        let ledger = &self.up().broker.ledger;
        let Ok(Some(lease)) = ledger.lease(id) else { return true };
        matches!(ledger.lease_standing(&lease, self.now()), Ok(Standing::Ended(EndReason::Revoked)))
    }
}

/// The time mark is never further behind a sweep than this.
const MARKED_WITHIN: Duration = Duration::from_secs(5);
