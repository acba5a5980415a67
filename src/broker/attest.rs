//! Attestation: a grant's owner says that it is still needed, until a date; without it the grant is suspended.

use std::{sync::Arc, time::Duration};

use super::{
    Broker, decided::decided, event, refusal::Refusal, registry::Tenant, revoke::check_reason, task::revision, view,
    who::Operator,
};
use crate::{
    identity::Caller,
    ledger::{Custody, TrustCommit},
    model::{GrantName, OperatorName, Scope, Suspension, Suspensions, TenantName, Timestamp},
    pb,
    policy::{self, Grant, Role},
    records,
};

impl Broker {
    /// Records that a grant's owner still needs it, until a new date, and lifts what an attestation lifts: a lapse, a
    /// transfer that waited for its new owner, and dormancy. Never a bar or a quarantine.
    ///
    /// # Errors
    /// When the caller does not answer for the grant or has handed it over itself, its owner has left, or the date is past,
    /// too far away or past the grant's expiry.
    pub async fn attest(&self, caller: &Caller, request: pb::AttestRequest) -> Result<pb::AttestResponse, Refusal> {
        check_reason(&request.reason)?;
        decided(|| self.try_attest(caller, &request)).await
    }

    async fn try_attest(&self, caller: &Caller, request: &pb::AttestRequest) -> Result<pb::AttestResponse, Refusal> {
        let basis = self.ledger.basis().1;
        let operator = self.operator(caller)?;
        let now = self.now();
        let tenant: TenantName = view::id("tenant", &request.tenant)?;
        let grant: GrantName = view::id("grant", &request.grant)?;
        let known = self.registry.tenant(&self.ledger, &tenant)?.ok_or(Refusal::Unknown("grant"))?;
        let found = known.trust.grants().get(&grant).ok_or(Refusal::Unknown("grant"))?;
        let scope = Scope::Grant(tenant.clone(), grant.clone());
        let held = self.ledger.scope(scope.id()).held;
        let handed_over = if held.has(Suspension::TransferPending) {
            let row = self.ledger.suspension(scope.id(), Suspension::TransferPending)?;
            let by = row.map(|row| row.record.operator).filter(|by| !by.is_empty());
            Some(
                by.ok_or_else(|| Refusal::invalid("grant", "was handed over by nobody knows whom: transfer it again"))?,
            )
        } else {
            None
        };
        self.may_attest(&operator, &known, (&grant, found), handed_over.as_deref())?;
        if held.has(Suspension::OwnerLeft) {
            return Err(Refusal::invalid("grant", "has an owner who has left; transfer it to a new one first"));
        }
        let attest_by = next_date(request.attest_by.as_ref().map(event::unstamp), found, now)?;
        let lifted = held.and(lifted_by_attestation());
        let mut event = event::by(caller, operator.actor(), "grant.attested", now);
        (event.tenant, event.partner) = (tenant.to_string(), found.partner.to_string());
        event.grant = grant.to_string();
        event.reason.clone_from(&request.reason);
        event.details.push(format!("attest_by={attest_by}"));
        let mut released = event.clone();
        released.kind = "scope.released".to_owned();
        released.details = vec![format!("scope={scope}")];
        released.details.extend(lifted.iter().map(|cause| format!("cause={}", cause.words())));
        let record = records::GrantStateRecord {
            attest_by: attest_by.millis(),
            operator: operator.name.to_string(),
            reason: request.reason.clone(),
            attested: now.millis(),
            owner: known.life.get(&grant).map(|life| life.owner.clone()).unwrap_or_default(),
        };
        let commit = TrustCommit {
            changed: vec![scope.clone()],
            grant_states: vec![(known.number, grant, record)],
            custody: vec![(Custody::Release { scope, causes: lifted_by_attestation() }, released)],
            events: vec![event],
            ..TrustCommit::new(basis, now)
        };
        let (registry, number) = (Arc::clone(&self.registry), known.number);
        let receipt = self.ledger.apply(commit, move || registry.changed(&[(tenant.clone(), number)])).await?;
        Ok(pb::AttestResponse {
            revision: Some(revision(&receipt)),
            attest_by: Some(event::stamp(attest_by)),
            lifted: lifted.iter().map(|cause| cause.words().to_owned()).collect(),
        })
    }

    /// Who attests: an operator that answers for the owner. Where the trust map names none, an admin within whose scope
    /// the grant lies. Who has handed it over to that owner leaves that to others, where there are any: no admin takes a
    /// grant for itself alone.
    fn may_attest(
        &self,
        operator: &Operator,
        known: &Tenant,
        (name, grant): (&GrantName, &Grant),
        handed_over: Option<&str>,
    ) -> Result<(), Refusal> {
        let (global, owner) = (self.registry.global(), known.owner(name, grant));
        // Of an operator of many people, the others can.
        let has_handed = |name: &OperatorName| handed_over == Some(name.as_str());
        if handed_over.is_some_and(|by| operator.has_signed(by)) {
            let could = |other: &policy::Operator| {
                let reaches = other.tenants.includes(known.trust.name()) && other.partners.includes(&grant.partner);
                other.role >= Role::Admin && reaches
            };
            let mut others = global.operators.iter().filter(|(name, _)| **name != operator.name);
            // One operator of those who sign in is many people.
            if operator.person.is_some() || others.any(|(name, other)| could(other) || other.answers_for(name, owner)) {
                return Err(Refusal::NotAllowed("you handed the grant over; somebody else attests it"));
            }
        }
        let own = global.operators.get(&operator.name).is_some_and(|own| own.answers_for(&operator.name, owner));
        // Who signed in answers for what is owned under the verified mail address.
        if own || operator.person.as_ref().is_some_and(|person| person.is(owner)) {
            return Ok(());
        }
        if !operator.reaches(Some(known.trust.name()), Some(&grant.partner)) {
            return Err(Refusal::Unknown("grant"));
        }
        if global.operators.iter().any(|(name, other)| other.answers_for(name, owner) && !has_handed(name)) {
            return Err(Refusal::NotAllowed("the grant's owner attests it, or an operator that speaks for the owner"));
        }
        operator.require(Role::Admin)
    }
}

/// The suspensions that an attestation ends.
pub(super) fn lifted_by_attestation() -> Suspensions {
    [Suspension::AttestationOverdue, Suspension::TransferPending, Suspension::Dormant].into_iter().collect()
}

/// The date asked for, or the grant's period from now on.
fn next_date(asked: Option<Timestamp>, grant: &Grant, now: Timestamp) -> Result<Timestamp, Refusal> {
    let attest_by = match (asked, grant.attest_every) {
        (Some(asked), _) => asked,
        (None, Some(seconds)) => now.after(Duration::from_secs(seconds.into())).min(grant.expires),
        (None, None) => {
            return Err(Refusal::invalid("attest_by", "is missing, and the grant has no attest_every; name a date"));
        }
    };
    let problem = if attest_by <= now {
        "is not in the future"
    } else if attest_by > grant.expires {
        "is past the grant's expiry"
    } else if attest_by > now.after(ATTEST_MOST) {
        "is more than 400 days away"
    } else {
        return Ok(attest_by);
    };
    Err(Refusal::invalid("attest_by", problem))
}

/// How far ahead a grant can be attested.
const ATTEST_MOST: Duration = Duration::from_secs(400 * 86_400);
