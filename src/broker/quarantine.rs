//! Quarantine: suspends a scope for a time. What its time alone lifts was declared so.

use std::time::Duration;

use super::{
    Broker, event,
    refusal::Refusal,
    revoke::{barrable, check_reason},
    task::revision,
};
use crate::{
    identity::Caller,
    ledger::{Custody, CustodyDraft},
    model::{Suspension, Timestamp},
    pb,
    policy::Role,
};

impl Broker {
    /// Suspends what lives in a scope, and forbids issue and renew in it, for a time. Again with another time replaces it
    /// for admins, and for others only adds to it: who may not lift does not shorten.
    ///
    /// When its time is over it is lifted if it was declared `auto_lift`; else it alarms and stays closed.
    ///
    /// # Errors
    /// When the operator may not end the scope or change a damaged quarantine, or the time is not 1 minute to 30 days.
    pub async fn quarantine(
        &self,
        caller: &Caller,
        request: pb::QuarantineRequest,
    ) -> Result<pb::QuarantineResponse, Refusal> {
        let operator = self.operator(caller)?;
        let now = self.now();
        let scope = barrable(request.scope.as_ref())?;
        check_reason(&request.reason)?;
        if !(SHORTEST..=LONGEST).contains(&request.duration_seconds) {
            return Err(Refusal::invalid("duration_seconds", format!("is not {SHORTEST} to {LONGEST}")));
        }
        self.may_end(&operator, &scope)?;
        let scope = self.known(scope)?;
        let until = now.after(Duration::from_secs(request.duration_seconds.into()));
        let mut event = event::by(caller, operator.actor(), "scope.quarantined", now);
        self.name_scope(&mut event, &scope)?;
        event.reason.clone_from(&request.reason);
        event.details.push("suspend=true".to_owned());
        event.details.push(format!("until={until}"));
        event.details.push(format!("auto_lift={}", request.auto_lift));
        let may_shorten = operator.require(Role::Admin).is_ok();
        if !may_shorten {
            event.details.push("only_adds=true".to_owned());
        }
        let id = scope.id();
        let act = Custody::Suspend {
            scope,
            cause: Suspension::Quarantine,
            until: Some(until),
            auto_lift: request.auto_lift,
            may_shorten,
            operator: operator.name.to_string(),
            reason: request.reason,
        };
        let (changed, receipt) =
            self.ledger.custody(CustodyDraft { acts: vec![(act, event)], basis: None, now }).await?;
        let stands = self.ledger.suspension(id, Suspension::Quarantine)?;
        let until = stands.map_or(until, |row| Timestamp::from_millis(row.record.until));
        Ok(pb::QuarantineResponse {
            revision: Some(revision(&receipt)),
            until: Some(event::stamp(until)),
            changed: changed > 0,
        })
    }

    /// Lifts quarantines whose time is over where that was declared, and tells of the others, once. Nothing happens while
    /// time or store are in doubt.
    ///
    /// # Errors
    /// When the store failed.
    pub(super) async fn end_quarantines(&self, now: Timestamp) -> Result<(), Refusal> {
        if self.ledger.holds().in_doubt() {
            return Ok(());
        }
        for id in self.ledger.held_for(Suspension::Quarantine) {
            let Some(row) = self.ledger.suspension(id, Suspension::Quarantine)? else { continue };
            // A damaged one names no scope: it stays closed until an operator looks.
            let Some(scope) = row.scope else { continue };
            let over = row.record.until > 0 && row.record.until <= now.millis();
            if !over || (!row.record.auto_lift && row.record.lapsed > 0) {
                continue;
            }
            let kind = if row.record.auto_lift { "scope.released" } else { "quarantine.lapsed" };
            let mut event = event::own(kind, now);
            self.name_scope(&mut event, &scope)?;
            event.reason.clone_from(&row.record.reason);
            event.details.push(format!("cause={}", Suspension::Quarantine.words()));
            event.details.push(format!("until={}", Timestamp::from_millis(row.record.until)));
            // It may be made longer by now: then neither is done.
            let seen = row.record.revision;
            let act = if row.record.auto_lift {
                Custody::Expire { scope, seen }
            } else {
                tracing::error!(%scope, "the time of a quarantine is over; it stays closed until it is lifted");
                Custody::Lapse { scope, seen }
            };
            self.ledger.custody(CustodyDraft { acts: vec![(act, event)], basis: None, now }).await?;
        }
        Ok(())
    }

    /// Quarantines whose time is over and that stay closed.
    pub(super) fn lapsed_quarantines(&self) -> usize {
        let held = self.ledger.held_for(Suspension::Quarantine).into_iter();
        held.filter(|id| {
            let row = self.ledger.suspension(*id, Suspension::Quarantine);
            row.is_ok_and(|row| row.is_some_and(|row| row.record.lapsed > 0))
        })
        .count()
    }
}

/// Seconds: a minute, so that a slip of the pen is not over before it is noticed.
const SHORTEST: u32 = 60;
/// Seconds: 30 days.
const LONGEST: u32 = 30 * 86_400;
