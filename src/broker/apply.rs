//! Apply: from trust files to one commit, with what it takes away cut in that same commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Broker, event,
    owners::{handed_over, of_grant, owner_changed, suspension},
    refusal::Refusal,
    registry::Tenant,
    revoke::covers_until,
    task::revision,
    who::Operator,
};
use crate::{
    identity::Caller,
    ledger::{Custody, CutDraft, TenantChange, TrustCommit, UseRow},
    model::{Digest, EndReason, GrantName, Scope, Suspension, TenantName, TenantNumber, Timestamp},
    pb,
    policy::{
        self, Change, ChangeKind, Document, Extent, GlobalTrust, Grant, Role, TenantTrust, TrustMap, diff_global,
        diff_tenant,
    },
    records,
};

/// What an apply would do.
struct Plan {
    changes: Vec<Change>,
    /// New, changed and removed tenants: what they are now, and shall be.
    tenants: BTreeMap<TenantName, (Option<Arc<Tenant>>, Option<TenantTrust>)>,
    global: Option<GlobalTrust>,
}

impl Broker {
    /// Replaces the trust map, or the tenants that the documents name, in one commit.
    ///
    /// # Errors
    /// When the documents have problems (all of them are told), or the operator may not.
    pub async fn apply(
        &self,
        caller: &Caller,
        options: pb::ApplyOptions,
        documents: Vec<pb::TrustDocument>,
    ) -> Result<pb::ApplyResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        if options.reason.len() > 512 {
            return Err(Refusal::invalid("options.reason", "has more than 512 bytes"));
        }
        if !options.only_named_tenants {
            operator.require_everywhere()?;
        }
        let now = self.now();
        let basis = self.ledger.basis().1;
        let map = self.read_documents(documents, options.only_named_tenants, now).await?;
        let plan = self.plan(map, &operator, options.only_named_tenants)?;
        let scopes: Vec<Scope> = plan.changes.iter().filter_map(Change::cut_scope).collect();
        let leases_ended = if scopes.is_empty() { 0 } else { self.covered(&scopes, now).await?.leases };
        let mut response = pb::ApplyResponse {
            change_count: plan.changes.len() as u64,
            tenants_changed: u32::try_from(plan.tenants.len()).unwrap_or(u32::MAX),
            changes: plan.changes.iter().take(CHANGES_MOST).map(change_view).collect(),
            leases_ended,
            revision: None,
        };
        if options.dry_run {
            return Ok(response);
        }
        check_removals(&plan.changes, options.allow_removals)?;
        response.revision = self.carry_out(caller, &operator, plan, &scopes, &options.reason, basis, now).await?;
        Ok(response)
    }

    async fn read_documents(
        &self,
        documents: Vec<pb::TrustDocument>,
        only_named: bool,
        now: Timestamp,
    ) -> Result<TrustMap, Refusal> {
        let (global, issuers) = (self.registry.global(), self.issuers.rules());
        let parsed = tokio::task::spawn_blocking(move || {
            let extent = if only_named { Extent::NamedTenants(&global) } else { Extent::Whole };
            let documents: Vec<Document<'_>> =
                documents.iter().map(|document| Document { path: &document.path, text: &document.text }).collect();
            policy::parse_with(&documents, extent, &issuers, now)
        });
        parsed.await.map_err(Refusal::fault)?.map_err(Refusal::Problems)
    }

    fn plan(&self, map: TrustMap, operator: &Operator, only_named: bool) -> Result<Plan, Refusal> {
        let mut plan = Plan { changes: Vec::new(), tenants: BTreeMap::new(), global: None };
        if !only_named {
            check_not_locked_out(&map.global)?;
            let old = self.registry.global();
            plan.changes.extend(diff_global(&old, &map.global));
            if *old != map.global {
                plan.global = Some(map.global);
            }
        }
        let mut names: BTreeSet<TenantName> = map.tenants.keys().cloned().collect();
        if !only_named {
            names.extend(self.registry.names("", None, usize::MAX).into_iter().map(|(name, _)| name));
        }
        let mut tenants = map.tenants;
        for name in names {
            let old = self.registry.tenant(&self.ledger, &name)?;
            let new = tenants.remove(&name);
            if !operator.reaches(Some(&name), None) {
                return Err(Refusal::NotAllowed("the documents name a tenant outside your scope"));
            }
            let changes = diff_tenant(old.as_ref().map(|old| &old.trust), new.as_ref());
            let same = match (&old, &new) {
                (Some(old), Some(new)) => old.hash == new.hash(),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            plan.changes.extend(changes);
            if !same {
                plan.tenants.insert(name, (old, new));
            }
        }
        Ok(plan)
    }

    #[expect(clippy::too_many_arguments, reason = "everything that the commit records")]
    async fn carry_out(
        &self,
        caller: &Caller,
        operator: &Operator,
        plan: Plan,
        scopes: &[Scope],
        reason: &str,
        basis: u64,
        now: Timestamp,
    ) -> Result<Option<pb::Revision>, Refusal> {
        if plan.tenants.is_empty() && plan.global.is_none() {
            return Ok(None);
        }
        // Who leaves meanwhile finds the grants of this commit, or this commit finds that he has left.
        let _writing = self.people.writing.lock().await;
        let unnumbered: Vec<&TenantName> =
            plan.tenants.keys().filter(|name| self.registry.number(name).is_none()).collect();
        let first = match u32::try_from(unnumbered.len()).unwrap_or(u32::MAX) {
            0 => 0,
            count => self.ledger.reserve_tenants(count).await?,
        };
        let numbers: BTreeMap<TenantName, TenantNumber> =
            unnumbered.into_iter().cloned().zip((first..).filter_map(TenantNumber::new)).collect();
        let mut commit =
            TrustCommit { global: plan.global.as_ref().map(GlobalTrust::to_bytes), ..TrustCommit::new(basis, now) };
        let (mut renumbered, mut compiled) = (Vec::with_capacity(plan.tenants.len()), Vec::new());
        for (name, (old, new)) in &plan.tenants {
            let number = self.registry.number(name).or_else(|| numbers.get(name).copied());
            let number = number.ok_or(Refusal::Unavailable("no tenant number is left"))?;
            self.add_tenant(&mut commit, caller, operator, number, name, old.as_deref(), new.as_ref(), reason)?;
            // It was compiled to be checked: no request waits for that once more.
            let version = commit.tenants.last().map_or(0, |change| change.version);
            let with_policies = new.as_ref().filter(|trust| trust.policy().is_some());
            compiled.extend(with_policies.map(|trust| (number, version, trust.compiled())));
            renumbered.push((name.clone(), number));
        }
        let guardrails = plan.global.as_ref().filter(|global| global.guardrails.is_some());
        compiled.extend(guardrails.map(|global| (TenantNumber::BROKER, 0, global.compiled())));
        for scope in scopes {
            commit.cuts.push(self.narrowing(caller, operator, scope, reason, now)?);
        }
        // Nothing that was decided under the guardrails before is begun after.
        if plan.global.as_ref().is_some_and(|global| global.guardrails != self.registry.global().guardrails) {
            commit.changed.push(Scope::Everything);
        }
        commit.events.push(summary(caller, operator, &plan, scopes.len(), reason, now));
        let (registry, rings, ledger) = (Arc::clone(&self.registry), Arc::clone(&self.rings), Arc::clone(&self.ledger));
        let receipt = self
            .ledger
            .apply(commit, move || {
                // What is not on disk is of no version yet, and is kept for nobody.
                for (number, version, compiled) in &compiled {
                    registry.keep_compiled(*number, *version, compiled.clone());
                }
                registry.changed(&renumbered);
                registry.reload_global(&ledger);
                renumbered.iter().for_each(|(_, number)| rings.changed(*number));
            })
            .await?;
        Ok(Some(revision(&receipt)))
    }

    #[expect(clippy::too_many_arguments, reason = "everything that one tenant's rows record")]
    fn add_tenant(
        &self,
        commit: &mut TrustCommit,
        caller: &Caller,
        operator: &Operator,
        number: TenantNumber,
        name: &TenantName,
        old: Option<&Tenant>,
        new: Option<&TenantTrust>,
        reason: &str,
    ) -> Result<(), Refusal> {
        let now = commit.now;
        let row = self.ledger.trust(number)?;
        let version = row.map_or(0, |row| row.version) + 1;
        if let Some(trust) = new.filter(|_| self.ledger.tenant_keys(number).is_ok_and(|keys| keys.is_empty())) {
            commit.keys.extend(self.new_tenant_keys(
                number,
                name,
                super::keys::algorithm(trust.token_algorithm()),
                now,
            )?);
        }
        if let (Some(old), Some(new)) = (old, new) {
            carry_over(commit, caller, operator, old, new);
        }
        if let Some(old) = old {
            leave_behind(commit, old, new);
            self.void_approvals(commit, (caller, operator), old, new)?;
        }
        if let Some(new) = new {
            self.take_up(commit, (caller, operator), number, old, new)?;
            self.hold_for_leavers(commit, (caller, operator), old, new);
        }
        commit.uses.extend(new.into_iter().flat_map(|new| begun(old, new, number, now)));
        let hash = new.map_or_else(Digest::default, TenantTrust::hash);
        let mut event = event::by(caller, operator.actor(), "trust.changed", now);
        event.tenant = name.to_string();
        event.trust_hash = hash.to_string();
        event.reason = reason.to_owned();
        event.details.push(format!("version={version}"));
        let lines = diff_tenant(old.map(|old| &old.trust), new);
        event.details.extend(lines.iter().take(EVENT_LINES).map(line));
        commit.events.push(event);
        commit.changed.push(Scope::Tenant(name.clone()));
        commit.tenants.push(TenantChange {
            number,
            name: name.clone(),
            trust: new.map(TenantTrust::to_bytes).unwrap_or_default(),
            hash,
            version,
            removed: new.is_none(),
            gone: old.into_iter().flat_map(|old| gone(old, new)).map(|(name, _)| name.clone()).collect(),
        });
        Ok(())
    }

    /// Grants that come back under their names: what was left behind of them counts, and nothing else of their past.
    fn take_up(
        &self,
        commit: &mut TrustCommit,
        by: (&Caller, &Operator),
        number: TenantNumber,
        old: Option<&Tenant>,
        new: &TenantTrust,
    ) -> Result<(), Refusal> {
        let is_new = |name: &GrantName| old.is_none_or(|old| !old.trust.grants().contains_key(name));
        if !new.grants().keys().any(is_new) {
            return Ok(());
        }
        for (name, state) in self.ledger.grant_states(number)? {
            // A damaged one stays as it is, and closes the grant.
            let (Ok(name), Ok(state)) = (name.parse::<GrantName>(), state) else { continue };
            let Some(grant) = new.grants().get(&name).filter(|_| is_new(&name)) else { continue };
            if !state.owner.is_empty() && state.owner != grant.owner {
                hand_over(commit, by, new, &name, grant, &state.owner);
            }
            let attest_by = missed(state.attest_by, commit.now);
            commit.grant_states.push((number, name, records::GrantStateRecord { attest_by, ..Default::default() }));
        }
        Ok(())
    }

    /// Grants that are added, or given an owner or a partner, in the name of somebody who has left: suspended from the first
    /// moment on.
    fn hold_for_leavers(
        &self,
        commit: &mut TrustCommit,
        (caller, operator): (&Caller, &Operator),
        old: Option<&Tenant>,
        new: &TenantTrust,
    ) {
        for (name, grant) in new.grants() {
            let before = old.and_then(|old| Some((old, old.trust.grants().get(name)?)));
            let owner = match before.filter(|(_, before)| before.owner == grant.owner) {
                // A file that goes on saying the same is no new word.
                Some((_, before)) if before.partner == grant.partner => continue,
                // A transfer made at run time stands above it.
                Some((old, before)) => old.owner(name, before),
                None => grant.owner.as_str(),
            };
            if !self.people.has_left(owner) && !self.people.is_noted_as_left(owner, new.name(), &grant.partner) {
                continue;
            }
            let scope = Scope::Grant(new.name().clone(), name.clone());
            // One that comes from somebody who has left, too, is let go by no hand-over.
            commit.custody.retain(|(act, _)| !matches!(act, Custody::Release { scope: of, .. } if *of == scope));
            let mut event = event::by(caller, operator.actor(), "scope.suspended", commit.now);
            of_grant(&mut event, new.name(), &grant.partner, name);
            "the trust map names an owner who has left".clone_into(&mut event.reason);
            let reason = event.reason.clone();
            commit.custody.push(suspension(event, scope, Suspension::OwnerLeft, operator.name.as_str(), &reason));
        }
    }

    fn narrowing(
        &self,
        caller: &Caller,
        operator: &Operator,
        scope: &Scope,
        reason: &str,
        now: Timestamp,
    ) -> Result<CutDraft, Refusal> {
        let mut event = event::by(caller, operator.actor(), "scope.narrowed", now);
        self.name_scope(&mut event, scope)?;
        event.reason = if reason.is_empty() { "the trust map was narrowed".to_owned() } else { reason.to_owned() };
        Ok(CutDraft {
            scope: scope.clone(),
            why: EndReason::Narrowed,
            bar: false,
            operator: operator.name.to_string(),
            reason: event.reason.clone(),
            covers_until: covers_until(now),
            event,
            now,
            resets_time: false,
        })
    }
}

/// What an apply must not undo, and what it suspends: a grant whose attestation has lapsed keeps the lapsed date, and one
/// that is given another owner waits for that owner's attestation.
fn carry_over(commit: &mut TrustCommit, caller: &Caller, operator: &Operator, old: &Tenant, new: &TenantTrust) {
    for (name, before) in old.trust.grants() {
        let Some(after) = new.grants().get(name) else { continue };
        let known = old.life.get(name).cloned().unwrap_or_default();
        let mut record = known.clone();
        if !old.attested.contains_key(name) && before.attest_by <= commit.now && after.attest_by > before.attest_by {
            record.attest_by = before.attest_by.millis();
            "lapsed".clone_into(&mut record.reason);
        }
        if before.owner != after.owner {
            record.owner.clear();
        }
        if owner_changed(old, name, before, after) {
            hand_over(commit, (caller, operator), new, name, after, old.owner(name, before));
        }
        if record != known {
            commit.grant_states.push((old.number, name.clone(), record));
        }
    }
}

/// A grant that an apply gives to another owner waits for that owner's attestation.
fn hand_over(
    commit: &mut TrustCommit,
    (caller, operator): (&Caller, &Operator),
    new: &TenantTrust,
    name: &GrantName,
    after: &Grant,
    from: &str,
) {
    let scope = Scope::Grant(new.name().clone(), name.clone());
    let mut event = event::by(caller, operator.actor(), "grant.transferred", commit.now);
    of_grant(&mut event, new.name(), &after.partner, name);
    event.reason = "the trust map names another owner".to_owned();
    event.details = vec![format!("from={from}"), format!("to={}", after.owner)];
    commit.custody.extend(handed_over(&event, scope, &operator.signature(), &event.reason));
    commit.events.push(event);
}

/// Grants that are removed.
fn gone<'a>(old: &'a Tenant, new: Option<&'a TenantTrust>) -> impl Iterator<Item = (&'a GrantName, &'a Grant)> {
    old.trust.grants().iter().filter(move |(name, _)| new.is_none_or(|new| !new.grants().contains_key(*name)))
}

/// What outlasts grants that are removed: whose they were, and a date that was missed. So nobody gets round either by
/// taking a grant out of the files and putting it back.
fn leave_behind(commit: &mut TrustCommit, old: &Tenant, new: Option<&TenantTrust>) {
    for (name, grant) in gone(old, new) {
        let attest_by = old.attest_by(name, grant);
        if attest_by == Timestamp::default() {
            // Its row is damaged: it stays, and closes the grant if that comes back.
            continue;
        }
        let record = records::GrantStateRecord {
            attest_by: missed(attest_by.millis(), commit.now),
            owner: old.owner(name, grant).to_owned(),
            ..Default::default()
        };
        commit.grant_states.push((old.number, name.clone(), record));
    }
}

/// A date that was missed; 0, which leaves it to the trust map, for one that was not.
fn missed(attest_by: u64, now: Timestamp) -> u64 {
    if attest_by <= now.millis() { attest_by } else { 0 }
}

/// Grants that are new, where a rule about use will ask since when.
fn begun<'a>(
    old: Option<&'a Tenant>,
    new: &'a TenantTrust,
    tenant: TenantNumber,
    now: Timestamp,
) -> impl Iterator<Item = UseRow> + 'a {
    let is_new = move |name: &&GrantName| old.is_none_or(|old| !old.trust.grants().contains_key(*name));
    let added = new.grants().keys().filter(move |name| new.dormant_after().is_some() && is_new(name));
    added.map(move |name| UseRow { tenant, grant: name.clone(), since: now, last_used: Timestamp::default() })
}

fn check_removals(changes: &[Change], allowed: u32) -> Result<(), Refusal> {
    let removals = changes.iter().filter(|change| change.is_removal()).count();
    let allowed = if allowed == 0 { REMOVALS_UNASKED } else { usize::try_from(allowed).unwrap_or(usize::MAX) };
    if removals > allowed {
        return Err(Refusal::invalid(
            "options.allow_removals",
            format!("is {allowed}, but {removals} things would be removed; look at a dry run and allow as many"),
        ));
    }
    Ok(())
}

/// Somebody must be left who can mend the trust map.
fn check_not_locked_out(global: &GlobalTrust) -> Result<(), Refusal> {
    let everywhere = |operator: &policy::Operator| {
        operator.role == Role::Admin
            && matches!((&operator.tenants, &operator.partners), (policy::Reach::All, policy::Reach::All))
    };
    if global.operators.values().any(everywhere) {
        return Ok(());
    }
    Err(Refusal::invalid(
        "documents",
        "name no operator of role admin for all tenants and partners; nobody could change the trust map any more",
    ))
}

fn summary(caller: &Caller, operator: &Operator, plan: &Plan, cuts: usize, reason: &str, now: Timestamp) -> pb::Event {
    let mut event = event::by(caller, operator.actor(), "trust.applied", now);
    event.reason = reason.to_owned();
    event.details.push(format!("tenants={}", plan.tenants.len()));
    event.details.push(format!("changes={}", plan.changes.len()));
    event.details.push(format!("cuts={cuts}"));
    if plan.global.is_some() {
        let global = plan.changes.iter().filter(|change| change.tenant.is_none());
        event.details.extend(global.take(EVENT_LINES).map(line));
    }
    event
}

fn line(change: &Change) -> String {
    let mut line = format!("{} {} {}", change.kind.word(), change.noun.word(), change.name);
    if !change.details.is_empty() {
        line.push_str(": ");
        line.push_str(&change.details.join("; "));
    }
    line
}

fn change_view(change: &Change) -> pb::TrustChange {
    use pb::trust_change::Kind;
    pb::TrustChange {
        kind: match change.kind {
            ChangeKind::Added => Kind::Added,
            ChangeKind::Removed => Kind::Removed,
            ChangeKind::Widened => Kind::Widened,
            ChangeKind::Narrowed => Kind::Narrowed,
            ChangeKind::Edited => Kind::Edited,
        }
        .into(),
        noun: change.noun.word().to_owned(),
        tenant: change.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: change.name.clone(),
        details: change.details.clone(),
    }
}

/// Changes listed in a reply.
const CHANGES_MOST: usize = 10_000;
/// Changes listed in an event.
const EVENT_LINES: usize = 50;
/// Removals that need no flag.
const REMOVALS_UNASKED: usize = 5;
