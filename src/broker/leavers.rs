//! Owners who left by an operator's word alone: remembered, so that no apply and no transfer gives a grant to them, until
//! an operator says that they are back.
//!
//! An operator speaks for its own scope: what it said holds for the grants there and for no others.

use std::sync::Arc;

use super::{
    Broker, event,
    people::{Called, People},
    refusal::Refusal,
    revoke::check_reason,
    who::Operator,
};
use crate::{
    identity::Caller,
    ledger::Receipt,
    model::{PartnerName, PersonId, TenantName, Timestamp, person::folded},
    pb,
    policy::{Reach, Role},
    records::{OwnerLeftRecord, PersonRecord},
};

/// What is left of what operators said of an owner.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    /// Whether something within the operator's scope was said, and is not any more.
    pub(super) changed: bool,
    /// What those said whose scope is wider.
    pub(super) stands: Vec<OwnerLeftRecord>,
    /// Of what was written.
    pub(super) receipt: Option<Receipt>,
}

impl People {
    /// Whether an operator has said of an owner that it left, within a scope that a partner's grants in a tenant are in.
    pub(super) fn is_noted_as_left(&self, owner: &str, tenant: &TenantName, partner: &PartnerName) -> bool {
        self.leaver(owner).is_some_and(|(_, row)| row.left.iter().any(|left| holds(left, tenant, partner)))
    }

    /// The row of an owner who left by an operator's word.
    fn leaver(&self, owner: &str) -> Option<(PersonId, Arc<PersonRecord>)> {
        let rows = self.about(&Called::by_name(owner)).into_iter();
        rows.filter(|(_, row)| !row.left.is_empty()).find(|(_, row)| is_owner(&row.user_name, owner))
    }

    fn leavers(&self) -> usize {
        self.rows(|row| !row.left.is_empty()).len()
    }
}

impl Broker {
    /// Whether an operator of some tenants has taken its part of the room, which is everybody's.
    fn has_noted_enough(&self, operator: &Operator) -> bool {
        let by = operator.signature();
        let noted = || self.people.rows(|row| row.left.iter().any(|left| left.by == by)).len();
        operator.tenants != Reach::All && noted() >= LEAVERS_OF_ONE
    }

    /// Notes that an owner left, within the operator's scope; false when that is known.
    ///
    /// # Errors
    /// When the operator is no admin, the reason is none, or there is no room.
    pub(super) async fn note_leaver(&self, caller: &Caller, request: &pb::LeaveOwnerRequest) -> Result<bool, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        check_reason(&request.reason)?;
        let _writing = self.people.writing.lock().await;
        let now = self.now();
        let (id, mut row) = match self.people.leaver(&request.owner) {
            Some((id, row)) => (id, PersonRecord::clone(&row)),
            None if self.people.leavers() >= LEAVERS_MOST || self.has_noted_enough(&operator) => {
                return Err(Refusal::Unavailable("no room is left to remember owners who left"));
            }
            None => (PersonId::fresh()?, blank(&request.owner, now)),
        };
        let said = said_by(&operator, now);
        if row.left.iter().any(|left| covers(left, &said)) {
            return Ok(false);
        }
        // One word for each scope: what lies within the new one says nothing more.
        row.left.retain(|left| !covers(&said, left));
        if row.left.len() >= SCOPES_MOST {
            return Err(Refusal::Unavailable("too many operators have said that this owner left"));
        }
        row.left.push(said);
        row.changed = now.millis();
        let mut noted = event::by(caller, operator.actor(), "owner.noted", now);
        noted.reason.clone_from(&request.reason);
        noted.details.push(format!("owner={}", request.owner));
        self.put_people(vec![(id, row)], Vec::new(), vec![noted], now).await?;
        Ok(true)
    }

    /// Forgets what was said of an owner within the operator's scope.
    ///
    /// # Errors
    /// When the operator is no admin, the reason is none, or the directory or the identity provider says that it left.
    pub(super) async fn forget_leaver(
        &self,
        caller: &Caller,
        request: &pb::ReturnOwnerRequest,
    ) -> Result<Forgotten, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        if !request.dry_run {
            check_reason(&request.reason)?;
        }
        let _writing = self.people.writing.lock().await;
        if self.people.has_left(&request.owner) {
            let problem = "has left, as the directory or the identity provider says; it is to come back there";
            return Err(Refusal::invalid("owner", problem));
        }
        let Some((id, row)) = self.people.leaver(&request.owner) else { return Ok(Forgotten::default()) };
        let now = self.now();
        let scope = said_by(&operator, now);
        let (own, kept): (Vec<_>, Vec<_>) = row.left.iter().cloned().partition(|left| covers(&scope, left));
        // What was said of tenants that the operator does not reach is not its to know.
        let stands = kept.iter().filter(|left| meets(&scope, left)).cloned().collect();
        let mut forgotten = Forgotten { changed: !own.is_empty(), stands, receipt: None };
        if request.dry_run || own.is_empty() {
            return Ok(forgotten);
        }
        let mut returned = event::by(caller, operator.actor(), "owner.returned", now);
        returned.reason.clone_from(&request.reason);
        returned.details.push(format!("owner={}", request.owner));
        let kept = PersonRecord { left: kept, changed: now.millis(), ..PersonRecord::clone(&row) };
        let (puts, gone) = if kept.left.is_empty() { (vec![], vec![id]) } else { (vec![(id, kept)], vec![]) };
        forgotten.receipt = Some(self.put_people(puts, gone, vec![returned], now).await?);
        Ok(forgotten)
    }
}

/// Whether two names are one owner's: however they are spelt, since this takes authority away.
pub(super) fn is_owner(name: &str, owner: &str) -> bool {
    folded(name) == folded(owner)
}

/// Whether what was said holds for a partner's grants in a tenant.
pub(super) fn holds(left: &OwnerLeftRecord, tenant: &TenantName, partner: &PartnerName) -> bool {
    let named = |all: bool, names: &[String], name: &str| all || names.iter().any(|one| one == name);
    named(left.all_tenants, &left.tenants, tenant.as_str())
        && named(left.all_partners, &left.partners, partner.as_str())
}

/// Whether one scope has all of another.
fn covers(wide: &OwnerLeftRecord, narrow: &OwnerLeftRecord) -> bool {
    let has = |all: bool, names: &[String], other_all: bool, others: &[String]| {
        all || (!other_all && others.iter().all(|name| names.contains(name)))
    };
    has(wide.all_tenants, &wide.tenants, narrow.all_tenants, &narrow.tenants)
        && has(wide.all_partners, &wide.partners, narrow.all_partners, &narrow.partners)
}

/// Whether two scopes have anything in common.
fn meets(one: &OwnerLeftRecord, other: &OwnerLeftRecord) -> bool {
    let meet = |all: bool, names: &[String], other_all: bool, others: &[String]| {
        all || other_all || others.iter().any(|name| names.contains(name))
    };
    meet(one.all_tenants, &one.tenants, other.all_tenants, &other.tenants)
        && meet(one.all_partners, &one.partners, other.all_partners, &other.partners)
}

/// An operator's whole scope, as what it says holds for.
fn said_by(operator: &Operator, now: Timestamp) -> OwnerLeftRecord {
    fn names<T: Ord + ToString>(reach: &Reach<T>) -> (bool, Vec<String>) {
        match reach {
            Reach::All => (true, Vec::new()),
            Reach::Only(names) => (false, names.iter().map(ToString::to_string).collect()),
        }
    }
    let ((all_tenants, tenants), (all_partners, partners)) = (names(&operator.tenants), names(&operator.partners));
    OwnerLeftRecord { all_tenants, tenants, all_partners, partners, at: now.millis(), by: operator.signature() }
}

/// Active, for it says nothing of sign-in.
fn blank(owner: &str, now: Timestamp) -> PersonRecord {
    PersonRecord { user_name: owner.to_owned(), active: true, created: now.millis(), ..Default::default() }
}

/// Owners of whom it is remembered.
const LEAVERS_MOST: usize = 4_096;
/// The same, by the word of one operator of some tenants.
const LEAVERS_OF_ONE: usize = 256;
/// Scopes within which one of them left.
const SCOPES_MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A scope; `*` for all.
    fn scope(tenants: &str, partners: &str) -> OwnerLeftRecord {
        let names = |text: &str| text.split(' ').filter(|name| *name != "*").map(str::to_owned).collect();
        OwnerLeftRecord {
            all_tenants: tenants == "*",
            tenants: names(tenants),
            all_partners: partners == "*",
            partners: names(partners),
            ..OwnerLeftRecord::default()
        }
    }

    #[test]
    fn a_word_is_taken_back_by_as_wide_a_scope_and_told_to_whom_it_concerns() {
        for (of, said, covered, told) in [
            (scope("*", "*"), scope("*", "*"), true, true),
            (scope("*", "*"), scope("a", "x"), true, true),
            (scope("a", "*"), scope("*", "*"), false, true),
            (scope("a b", "*"), scope("a", "x"), true, true),
            (scope("a", "*"), scope("a b", "*"), false, true),
            (scope("a", "*"), scope("b", "*"), false, false),
            (scope("a", "x"), scope("a", "y"), false, false),
            (scope("*", "x"), scope("a", "*"), false, true),
        ] {
            assert_eq!((covers(&of, &said), meets(&of, &said)), (covered, told), "{of:?} and {said:?}");
        }
    }
}
