//! Ownership: a grant that changes hands, or whose owner leaves, is suspended until its new owner attests it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Broker,
    decided::decided,
    event,
    leavers::{Forgotten, holds, is_owner},
    refusal::Refusal,
    registry::Tenant,
    revoke::check_reason,
    task::revision,
    view,
    who::Operator,
};
use crate::{
    identity::Caller,
    ledger::{Custody, CustodyDraft, TrustCommit},
    model::{GrantName, PartnerName, Scope, Suspension, TenantName, Timestamp},
    pb,
    policy::{Grant, Role},
};

impl Broker {
    /// Gives a grant to a new owner; it is suspended until the new owner attests it.
    ///
    /// # Errors
    /// When the operator is no admin of the grant, or the new owner is the old one.
    pub async fn transfer_grant(
        &self,
        caller: &Caller,
        request: pb::TransferGrantRequest,
    ) -> Result<pb::TransferGrantResponse, Refusal> {
        check_owner("owner", &request.owner)?;
        if !request.dry_run {
            check_reason(&request.reason)?;
        }
        decided(|| self.try_transfer(caller, &request)).await
    }

    async fn try_transfer(
        &self,
        caller: &Caller,
        request: &pb::TransferGrantRequest,
    ) -> Result<pb::TransferGrantResponse, Refusal> {
        let basis = self.ledger.basis().1;
        let operator = self.operator(caller)?;
        let now = self.now();
        let tenant: TenantName = view::id("tenant", &request.tenant)?;
        let grant: GrantName = view::id("grant", &request.grant)?;
        let known = self.registry.tenant(&self.ledger, &tenant)?.ok_or(Refusal::Unknown("grant"))?;
        let found = known.trust.grants().get(&grant).ok_or(Refusal::Unknown("grant"))?;
        if !operator.reaches(Some(&tenant), Some(&found.partner)) {
            return Err(Refusal::Unknown("grant"));
        }
        operator.require(Role::Admin)?;
        let scope = Scope::Grant(tenant.clone(), grant.clone());
        let (before, held) = (known.owner(&grant, found).to_owned(), self.ledger.scope(scope.id()).held);
        if held.has(Suspension::OwnerLeft) && before == request.owner {
            return Err(Refusal::invalid("owner", "is the one that has left"));
        }
        // Who leaves meanwhile finds the grant, or is found here.
        let _writing = self.people.writing.lock().await;
        if self.people.has_left(&request.owner) {
            return Err(Refusal::invalid("owner", "has left, as the directory or the identity provider says"));
        }
        if self.people.is_noted_as_left(&request.owner, &tenant, &found.partner) {
            let problem = "has left, as an operator said; who is back is told by `mayfly owner return`";
            return Err(Refusal::invalid("owner", problem));
        }
        let mut response = pb::TransferGrantResponse {
            owner_before: before.clone(),
            leases: self.ledger.live(&scope, now),
            changed: before != request.owner,
            revision: None,
        };
        if request.dry_run || !response.changed {
            return Ok(response);
        }
        let mut event = event::by(caller, operator.actor(), "grant.transferred", now);
        event.reason.clone_from(&request.reason);
        of_grant(&mut event, &tenant, &found.partner, &grant);
        event.details = vec![format!("from={before}"), format!("to={}", request.owner)];
        let mut record = known.life.get(&grant).cloned().unwrap_or_default();
        record.owner.clone_from(&request.owner);
        let custody = handed_over(&event, scope.clone(), &operator.signature(), &request.reason);
        let commit = TrustCommit {
            changed: vec![scope],
            grant_states: vec![(known.number, grant, record)],
            custody,
            events: vec![event],
            ..TrustCommit::new(basis, now)
        };
        let (registry, number) = (Arc::clone(&self.registry), known.number);
        let receipt = self.ledger.apply(commit, move || registry.changed(&[(tenant.clone(), number)])).await?;
        response.revision = Some(revision(&receipt));
        Ok(response)
    }

    /// An owner leaves: every grant within the operator's scope that it answers for is suspended until it was transferred
    /// and attested. Others are left alone. It is remembered, so that none is given to it later. Again changes nothing.
    ///
    /// # Errors
    /// When the operator is no admin, or the store failed: what was suspended until then stays so; do it again. A damaged
    /// tenant is closed anyhow: it is left out, and logged.
    pub async fn leave_owner(
        &self,
        caller: &Caller,
        request: pb::LeaveOwnerRequest,
    ) -> Result<pb::LeaveOwnerResponse, Refusal> {
        check_owner("owner", &request.owner)?;
        // First it is noted: what is added from now on finds that, and what was is found below.
        let noted = if request.dry_run { Ok(false) } else { self.note_leaver(caller, &request).await };
        // What an attempt has suspended before it was overtaken counts.
        let suspended = AtomicU64::new(0);
        let response = decided(|| self.try_leave(caller, &request, &suspended)).await?;
        // Where it cannot be noted, what there is was suspended all the same.
        Ok(pb::LeaveOwnerResponse { noted: noted?, ..response })
    }

    async fn try_leave(
        &self,
        caller: &Caller,
        request: &pb::LeaveOwnerRequest,
        suspended: &AtomicU64,
    ) -> Result<pb::LeaveOwnerResponse, Refusal> {
        let basis = self.ledger.basis().1;
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        if !request.dry_run {
            check_reason(&request.reason)?;
        }
        let now = self.now();
        let leaving = Leaving {
            is_owner: &|owner| is_owner(owner, &request.owner),
            name: &request.owner,
            reach: Some(&operator),
            by: operator.name.as_str(),
            event: pb::Event {
                reason: request.reason.clone(),
                ..event::by(caller, operator.actor(), "scope.suspended", now)
            },
            dry_run: request.dry_run,
        };
        self.leave_once(&leaving, basis, now, suspended).await
    }

    /// The same for a person that a directory or an identity provider tells of: in every tenant.
    ///
    /// # Errors
    /// When the store failed: what was suspended until then stays so; it is to be told again.
    pub(super) async fn person_leaves(&self, leaving: &Leaving<'_>) -> Result<pb::LeaveOwnerResponse, Refusal> {
        let suspended = AtomicU64::new(0);
        decided(|| self.leave_once(leaving, self.ledger.basis().1, self.now(), &suspended)).await
    }

    async fn leave_once(
        &self,
        leaving: &Leaving<'_>,
        basis: u64,
        now: Timestamp,
        suspended: &AtomicU64,
    ) -> Result<pb::LeaveOwnerResponse, Refusal> {
        let mut response = pb::LeaveOwnerResponse::default();
        let mut acts = Vec::new();
        self.each_owned(leaving, |tenant, name, grant| {
            let scope = Scope::Grant(tenant.trust.name().clone(), name.clone());
            let live = self.ledger.live(&scope, now);
            response.grant_count += 1;
            response.leases += live;
            if response.grants.len() < LISTED {
                response.grants.push(part(tenant, name, grant, live));
            }
            let mut event = leaving.event.clone();
            of_grant(&mut event, tenant.trust.name(), &grant.partner, name);
            acts.push(suspension(event, scope, Suspension::OwnerLeft, leaving.by, &leaving.event.reason));
        })
        .await?;
        if leaving.dry_run {
            return Ok(response);
        }
        while !acts.is_empty() {
            let some: Vec<_> = acts.drain(..acts.len().min(AT_ONCE)).collect();
            let (changed, receipt) = self.ledger.custody(CustodyDraft { acts: some, basis: Some(basis), now }).await?;
            suspended.fetch_add(changed as u64, Ordering::Relaxed);
            response.revision = Some(revision(&receipt));
        }
        response.suspended = suspended.load(Ordering::Relaxed);
        if response.suspended > 0 {
            let mut event = pb::Event { kind: "owner.left".to_owned(), ..leaving.event.clone() };
            event.details = vec![format!("owner={}", leaving.name), format!("grants={}", response.suspended)];
            response.revision = Some(revision(&self.ledger.note_act(vec![event], now).await?));
        }
        Ok(response)
    }

    /// An owner who left by an operator's word is back: it may own again, and its grants that are suspended for its leaving
    /// wait for its attestation, as after a transfer. Within the operator's scope. Again changes nothing.
    ///
    /// # Errors
    /// When the operator is no admin, the directory or the identity provider says that the owner has left, or the store
    /// failed: what was changed until then stays so; do it again.
    pub async fn return_owner(
        &self,
        caller: &Caller,
        request: pb::ReturnOwnerRequest,
    ) -> Result<pb::ReturnOwnerResponse, Refusal> {
        check_owner("owner", &request.owner)?;
        let forgotten = self.forget_leaver(caller, &request).await?;
        let returned = Mutex::new(Vec::new());
        let last = decided(|| self.try_return(caller, &request, &forgotten, &returned)).await?;
        let mut grants = returned.into_inner().unwrap_or_else(PoisonError::into_inner);
        let grant_count = grants.len() as u64;
        grants.truncate(LISTED);
        Ok(pb::ReturnOwnerResponse {
            revision: last.or_else(|| forgotten.receipt.as_ref().map(revision)),
            grants,
            grant_count,
            changed: forgotten.changed,
            still_noted: !forgotten.stands.is_empty(),
        })
    }

    async fn try_return(
        &self,
        caller: &Caller,
        request: &pb::ReturnOwnerRequest,
        forgotten: &Forgotten,
        returned: &Mutex<Vec<pb::GrantPart>>,
    ) -> Result<Option<pb::Revision>, Refusal> {
        let basis = self.ledger.basis().1;
        let (operator, now) = (self.operator(caller)?, self.now());
        let event =
            pb::Event { reason: request.reason.clone(), ..event::by(caller, operator.actor(), "scope.suspended", now) };
        let back = Leaving {
            is_owner: &|owner| is_owner(owner, &request.owner),
            name: &request.owner,
            reach: Some(&operator),
            by: operator.name.as_str(),
            event,
            dry_run: request.dry_run,
        };
        let mut waiting = Vec::new();
        self.each_owned(&back, |tenant, name, grant| {
            let scope = Scope::Grant(tenant.trust.name().clone(), name.clone());
            let is_held = self.ledger.scope(scope.id()).held.has(Suspension::OwnerLeft);
            if is_held && !forgotten.stands.iter().any(|left| holds(left, tenant.trust.name(), &grant.partner)) {
                waiting.push((scope.clone(), part(tenant, name, grant, self.ledger.live(&scope, now))));
            }
        })
        .await?;
        let mut last = None;
        while !waiting.is_empty() {
            let some: Vec<_> = waiting.drain(..waiting.len().min(AT_ONCE)).collect();
            if !request.dry_run {
                let acts = some.iter().flat_map(|(scope, part)| {
                    let mut event = back.event.clone();
                    (event.tenant, event.partner, event.grant) =
                        (part.tenant.clone(), part.partner.clone(), part.grant.clone());
                    handed_over(&event, scope.clone(), &operator.signature(), &request.reason)
                });
                let draft = CustodyDraft { acts: acts.collect(), basis: Some(basis), now };
                last = Some(revision(&self.ledger.custody(draft).await?.1));
            }
            let mut done = returned.lock().unwrap_or_else(PoisonError::into_inner);
            done.extend(some.into_iter().map(|(_, part)| part));
        }
        Ok(last)
    }

    /// Looks at every grant of an owner within reach, a tenant at a time. A damaged tenant is left out, and logged.
    async fn each_owned(
        &self,
        leaving: &Leaving<'_>,
        mut each: impl FnMut(&Tenant, &GrantName, &Grant),
    ) -> Result<(), Refusal> {
        for (at, (_, number)) in self.registry.names("", None, usize::MAX).into_iter().enumerate() {
            let Some(tenant) = self.registry.peek_sound(&self.ledger, number)? else { continue };
            owned(&tenant, leaving).for_each(|(name, grant)| each(&tenant, name, grant));
            if at % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

/// Who leaves, and by whose word.
pub(super) struct Leaving<'a> {
    /// Whether the owner of a grant is meant.
    pub(super) is_owner: &'a (dyn Fn(&str) -> bool + Send + Sync),
    /// As events name the owner.
    pub(super) name: &'a str,
    /// Within whose scope; `None` for everywhere.
    pub(super) reach: Option<&'a Operator>,
    /// Whose word it is, for the record.
    pub(super) by: &'a str,
    /// What its events have in common.
    pub(super) event: pb::Event,
    /// Whether only to say what would be suspended.
    pub(super) dry_run: bool,
}

/// The grants that an owner answers for, within an operator's scope.
fn owned<'a>(tenant: &'a Tenant, leaving: &'a Leaving<'_>) -> impl Iterator<Item = (&'a GrantName, &'a Grant)> {
    let within = |grant: &Grant| {
        leaving.reach.is_none_or(|operator| operator.reaches(Some(tenant.trust.name()), Some(&grant.partner)))
    };
    let grants = tenant.trust.grants().iter();
    grants.filter(move |(name, grant)| (leaving.is_owner)(tenant.owner(name, grant)) && within(grant))
}

/// A grant in a list of what an act concerns.
pub(super) fn part(tenant: &Tenant, name: &GrantName, grant: &Grant, live: u64) -> pb::GrantPart {
    pb::GrantPart {
        tenant: tenant.trust.name().to_string(),
        grant: name.to_string(),
        partner: grant.partner.to_string(),
        owner: tenant.owner(name, grant).to_owned(),
        leases: live,
    }
}

/// Whose an event is.
pub(super) fn of_grant(event: &mut pb::Event, tenant: &TenantName, partner: &PartnerName, grant: &GrantName) {
    (event.tenant, event.partner, event.grant) = (tenant.to_string(), partner.to_string(), grant.to_string());
}

/// A suspension and its event.
pub(super) fn suspension(
    mut event: pb::Event,
    scope: Scope,
    cause: Suspension,
    operator: &str,
    reason: &str,
) -> (Custody, pb::Event) {
    event.kind = "scope.suspended".to_owned();
    event.details = vec![format!("scope={scope}"), "suspend=true".to_owned(), format!("cause={}", cause.words())];
    let (operator, reason) = (operator.to_owned(), reason.to_owned());
    (Custody::Suspend { scope, cause, until: None, auto_lift: false, may_shorten: false, operator, reason }, event)
}

/// What a new owner means for a grant: it waits for the owner's word, and the old one's leaving is over. Who hands it over
/// signs for that, and does not give the owner's word as well where somebody else can.
pub(super) fn handed_over(event: &pb::Event, scope: Scope, operator: &str, reason: &str) -> Vec<(Custody, pb::Event)> {
    let mut released = event.clone();
    released.kind = "scope.released".to_owned();
    released.details = vec![format!("scope={scope}"), format!("cause={}", Suspension::OwnerLeft.words())];
    let causes = [Suspension::OwnerLeft].into_iter().collect();
    vec![
        suspension(event.clone(), scope.clone(), Suspension::TransferPending, operator, reason),
        (Custody::Release { scope, causes }, released),
    ]
}

fn check_owner(field: &'static str, owner: &str) -> Result<(), Refusal> {
    let fits = (1..=128).contains(&owner.chars().count()) && !owner.trim().is_empty();
    if fits && !owner.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Refusal::invalid(field, "must have 1 to 128 characters, none of them a control character"))
}

/// Grants shown in a reply.
pub(super) const LISTED: usize = 1_000;
/// Grants suspended in one commit.
const AT_ONCE: usize = 256;

/// What an apply does where it names another owner: see [`handed_over`]. A file that has caught up with a transfer made
/// at run time changes nothing.
pub(super) fn owner_changed(old: &Tenant, name: &GrantName, before: &Grant, after: &Grant) -> bool {
    before.owner != after.owner && after.owner != old.owner(name, before)
}
